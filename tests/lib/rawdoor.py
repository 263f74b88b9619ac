# SPDX-License-Identifier: GPL-2.0-or-later
"""The register socket without the library: whatever a process can say there, in whatever order."""
import array
import ctypes
import fcntl
import os
import socket
import struct

from harness import check, check_equal

# the registration protocol, from postcopy-protocol(7)
MAGIC = 0x59504350
(HELLO, BLOCK_MESSAGE, MAPPING, READY, WANT, LOADED, LOAD_FAILED, LEAVE) = range(1, 9)
(DMA_MAP, DMA_UNMAP, DMA_SYNC, DMA_SEAL, DMA_MAPPED, DMA_RETRY, DMA_RESET) = range(11, 18)
(WELCOME, REFUSED, RESULT, LISTENING, PACKAGE, RUNNING) = range(64, 70)
(DMA_RANGE, DMA_OPEN) = range(76, 78)
HEAD = struct.Struct("=IHHII")
HELLO_BODY = struct.Struct("=4IQ64s")
BLOCK_BODY = struct.Struct("=2I3Q256s")
DMA_BODY = struct.Struct("=2I3Q64s256s")
DMA_AT_BODY = struct.Struct("=iI2Q64s")
UNAWARE = 2                             # a flag of HELLO
ROLE_MAIN, ROLE_SHARER = 1, 2
DISABLE = 2
NR_USERFAULTFD, UFFDIO_API = 323, 0xC018AA3F


def packet(kind, body=b"", serial=1, version=1, magic=MAGIC, size=None):
    return HEAD.pack(magic, version, kind, size or HEAD.size + len(body), serial) + body


def hello(name, role=ROLE_SHARER, flags=0):
    return packet(HELLO, HELLO_BODY.pack(role, DISABLE, flags, 0, 0, name.encode()))


def block(name, length, page_size=0, offset=0):
    return packet(BLOCK_MESSAGE, BLOCK_BODY.pack(0, 0, length, page_size, offset, name.encode()), 2)


def dma_map(serial, iova, offset, length, gate="g", name="m"):
    return packet(DMA_MAP, DMA_BODY.pack(0, 3, iova, length, offset, gate.encode(), name.encode()), serial)


def dma_at(kind, serial, iova=0, length=0, gate="g"):
    return packet(kind, DMA_AT_BODY.pack(0, 0, iova, length, gate.encode()), serial)


def userfaultfd(features=0):
    fd = ctypes.CDLL(None, use_errno=True).syscall(NR_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    check(fd >= 0, "userfaultfd(2) failed")
    fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, features, 0)))
    return fd


class Raw:
    """A connection to the register socket that says what it is told."""

    def __init__(self, service):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(service.register)
        self.sock.settimeout(10)

    def send(self, data, fds=()):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], control)

    def answer(self):
        """(type, errno, text) of what comes back; None when the connection ends."""
        try:
            data = self.sock.recv(4096)
        except ConnectionResetError:
            return None
        if not data:
            return None
        kind = HEAD.unpack_from(data)[2]
        if len(data) < HEAD.size + 8 + 256:
            return kind, 0, ""
        error, _ = struct.unpack_from("=iI", data, HEAD.size)
        return kind, error, data[HEAD.size + 8:].split(b"\0", 1)[0].decode()

    def close(self):
        self.sock.close()


def raw_member(service, name, role=ROLE_SHARER, flags=0):
    """A connection whose hello was accepted."""
    raw = Raw(service)
    fd = userfaultfd()
    raw.send(hello(name, role, flags), [fd])
    os.close(fd)
    kind, _, text = raw.answer()
    check_equal(kind, WELCOME, f"answer to hello ({text})")
    return raw
