# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory as a back-end has it: mappings at raw addresses, and a userfaultfd for them.

A thread that waits for a page must not hold Python's lock, or nothing else of this process goes on: so memory
is touched through ctypes alone, which gives the lock away.
"""
import ctypes
import fcntl
import os
import struct

PAGE = 4096
SYS_USERFAULTFD = 323
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xc018aa3f, 0xc020aa00, 0xc028aa03
UFFD_API, MISSING = 0xAA, 1
PROT_RW, MAP_SHARED, MAP_PRIVATE, MAP_NORESERVE, MAP_ANONYMOUS = 3, 1, 2, 0x4000, 0x20
MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _must(value, bad, what):
    if value == bad:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return value


def map_file(fd, offset, length):
    return _must(_libc.mmap(None, length, PROT_RW, MAP_SHARED | MAP_NORESERVE, fd, offset), MAP_FAILED, "mmap")


def map_nothing(length):
    """Private memory of nobody else."""
    return _must(_libc.mmap(None, length, PROT_RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED, "mmap")


def unmap(address, length):
    _must(_libc.munmap(address, length), -1, "munmap")


def load(address, length):
    found = ctypes.create_string_buffer(length)
    ctypes.memmove(found, address, length)
    return found.raw


def store(address, content):
    ctypes.memmove(address, content, len(content))


def userfaultfd():
    """As libvhost-user opens it: for the kernel's accesses, too, and without any feature."""
    fd = _must(_libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK), -1, "userfaultfd")
    fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("<QQQ", UFFD_API, 0, 0)))
    return fd


def register(uffd, address, length):
    fcntl.ioctl(uffd, UFFDIO_REGISTER, bytearray(struct.pack("<QQQQ", address, length, MISSING, 0)))


class Region:
    """A piece of guest memory that the front-end told of."""

    def __init__(self, raw, fd):
        self.raw, self.fd = raw, fd
        self.guest, self.size, self.user, self.offset = struct.unpack("<4Q", raw)
        self.base = map_file(fd, self.offset, self.size)

    def close(self):
        unmap(self.base, self.size)
        os.close(self.fd)

    def again(self):
        """Another mapping of the same."""
        return map_file(self.fd, self.offset, self.size)


class Regions:
    """All of it."""

    def __init__(self):
        self.list = []

    def clear(self):
        while self.list:
            self.list.pop().close()

    def add(self, raw, fd):
        self.list.append(Region(raw, fd))
        return self.list[-1]

    def drop(self, raw):
        guest, size = struct.unpack_from("<2Q", raw)
        for region in [r for r in self.list if (r.guest, r.size) == (guest, size)]:
            self.list.remove(region)
            region.close()

    def _at(self, address, of):
        for region in self.list:
            start = getattr(region, of)
            if start <= address < start + region.size:
                return region.base + address - start
        raise LookupError(f"{of} address {address:#x} is in no region")

    def guest(self, address):
        return self._at(address, "guest")

    def user(self, address):
        return self._at(address, "user")
