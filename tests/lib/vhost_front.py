# SPDX-License-Identifier: GPL-2.0-or-later
"""vhostuser.FrontEnd that speaks postcopy: it serves the back-end's faults and keeps what was said.

Memory is a memfd whose content stands in a shadow until it is placed; a fault copies its page through
the back-end's userfaultfd.  One thread does all: faults are served while an answer, or the device, is
waited for, for a back-end may fault before it answers.
"""
import array
import ctypes
import fcntl
import mmap
import os
import re
import select
import socket
import struct
import time

from harness import Deadline, Failure, check, check_equal
from vhostuser import (ADD_MEM_REG, GET_FEATURES, HEADER, NEED_REPLY, PAGE, REPLY, SET_MEM_TABLE, USER_BASE, VERSION,
                       FrontEnd)

GET_VRING_BASE, GET_QUEUE_NUM, GET_CONFIG = 11, 17, 24
POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END = 28, 29, 30
GET_MAX_MEM_SLOTS = 36
P_MQ, P_PAGEFAULT, P_CONFIG, P_MEM_SLOTS = (1 << n for n in (0, 8, 9, 15))

UFFDIO_REGISTER, UFFDIO_COPY = 0xc020aa00, 0xc028aa03
UFFD_MISSING, UFFD_EVENT_PAGEFAULT = 1, 0x12
TIMEOUT = 20.0


class Memory:
    """Guest memory from 0: a memfd, and a shadow for what is not placed."""

    def __init__(self, case, size):
        self.size = size
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        case.defer(lambda: os.close(self.fd))
        self.shadow = mmap.mmap(-1, size)
        self.shadow_base = ctypes.addressof(ctypes.c_char.from_buffer(self.shadow))

    def region(self):
        return struct.pack("<4Q", 0, self.size, USER_BASE, 0)

    def place(self):
        """All of it is there."""
        os.pwrite(self.fd, self.shadow, 0)

    def place_rest(self, there):
        """All that is not @there."""
        for at in set(range(0, self.size, PAGE)) - set(there):
            os.pwrite(self.fd, self.shadow[at:at + PAGE], at)

    def content(self):
        """As it is now; looking does not fill holes."""
        return os.pread(self.fd, self.size, 0)

    def mappings(self, pid):
        """[(start, length, offset in the file)]"""
        inode = os.fstat(self.fd).st_ino
        found = []
        with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps:
            for line in maps:
                row = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+)", line)
                if row and int(row[4]) == inode:
                    start, end, offset = (int(row[i], 16) for i in (1, 2, 3))
                    found.append((start, end - start, offset))
        return found

    def offset_in(self, pid, address):
        for start, length, offset in self.mappings(pid):
            if start <= address < start + length:
                return address - start + offset
        raise Failure(f"no mapping holds {address:#x}")


class ServedFrontEnd(FrontEnd):
    """`transcript`: ('>' or '<', form, protocol features, descriptors, bytes); `faults`: offsets."""

    def __init__(self, case, path, memory):
        super().__init__(path, memory.fd, [(0, memory.size)])
        case.defer(self.close)
        self.case, self.memory = case, memory
        self.pid = struct.unpack("3i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.form, self.transcript = "plain", []
        self.uffd, self.faults = None, []
        self._fds, self._partial = [], b""

    # --- the conversation is kept -----------------------------------------------------------------

    def _send(self, request, body=b"", fds=(), ack=False):
        head = HEADER.pack(request, VERSION | (NEED_REPLY if ack else 0), len(body))
        self.transcript.append((">", self.form, self.protocol, len(fds), head + body))
        self._fds = []
        super()._send(request, body, fds, ack)

    def _exactly(self, length):
        data = b""
        while len(data) < length:
            self.serve_until(self._sock, "an answer")
            part, controls, _, _ = self._sock.recvmsg(length - len(data), socket.CMSG_SPACE(8 * 4))
            if not part:
                raise Failure("the back-end hung up")
            data += part
            for *_, values in controls:
                found = array.array("i")
                found.frombytes(values)
                self._fds += list(found)
        self._partial += data
        self._keep_whole_answer()
        return data

    def _keep_whole_answer(self):
        if len(self._partial) == HEADER.size + HEADER.unpack_from(self._partial)[2]:
            self.transcript.append(("<", self.form, self.protocol, len(self._fds), self._partial))
            self._partial = b""

    def ask(self, request, body=b"", fds=(), ack=False):
        """(body, descriptors) of the answer"""
        self._send(request, body, fds, ack)
        got, flags, size = HEADER.unpack(self._exactly(HEADER.size))
        check_equal((got, flags & ~NEED_REPLY), (request, VERSION | REPLY), "answer")
        return self._exactly(size) if size else b"", self._fds

    def ask_u64(self, request, body=b"", fds=(), ack=False):
        return struct.unpack("<Q", self.ask(request, body, fds, ack)[0])[0]

    # --- faults -----------------------------------------------------------------------------------

    def serve_until(self, wanted, what):
        """Serve faults until @wanted can be read."""
        end = time.monotonic() + TIMEOUT
        wait_on = [wanted] + ([self.uffd] if self.uffd is not None else [])
        while True:
            ready, _, _ = select.select(wait_on, [], [], max(end - time.monotonic(), 0))
            if wanted in ready:
                return
            if not ready:
                raise Deadline(f"waited {TIMEOUT:g} s for {what}")
            self._serve()

    def wait_fault(self):
        """Somebody waits for a page."""
        check(select.select([self.uffd], [], [], TIMEOUT)[0], "nobody faults")

    def serve_fault(self):
        """The next one, whoever makes it."""
        self.wait_fault()
        self._serve()

    def is_silent(self, seconds=0.3):
        """No answer comes."""
        return not select.select([self._sock], [], [], seconds)[0]

    def send(self, request, body=b"", fds=(), ack=False):
        self._send(request, body, fds, ack)

    def _serve(self):
        message = os.read(self.uffd, 32)
        check_equal(message[0], UFFD_EVENT_PAGEFAULT, "event of the userfaultfd")
        page = struct.unpack_from("<Q", message, 16)[0] & -PAGE
        offset = self.memory.offset_in(self.pid, page)
        self.faults.append(offset)
        source = self.memory.shadow_base + offset
        fcntl.ioctl(self.uffd, UFFDIO_COPY, bytearray(struct.pack("<QQQQq", page, source, PAGE, 0, 0)))

    # --- postcopy ---------------------------------------------------------------------------------

    def advise(self):
        body, fds = self.ask(POSTCOPY_ADVISE)
        check(body == b"" and len(fds) == 1, f"ADVISE answered with {len(body)} bytes, {len(fds)} descriptors")
        self.uffd = fds[0]
        os.set_blocking(self.uffd, False)
        self.case.defer(lambda: os.close(self.uffd))

    def register(self):
        """The universal dialect: register all that the back-end has mapped of the memory."""
        for start, length, _ in self.memory.mappings(self.pid):
            fcntl.ioctl(self.uffd, UFFDIO_REGISTER, bytearray(struct.pack("<QQQQ", start, length, UFFD_MISSING, 0)))

    def exchange_bases(self):
        """The text's dialect; the address that the back-end says."""
        self.form = "bases"
        body, fds = self.ask(SET_MEM_TABLE, struct.pack("<II", 1, 0) + self.memory.region(), [self.memory.fd])
        check(not fds and len(body) == 40, "answer to the table")
        self.form = "bases_ack"
        self._send(SET_MEM_TABLE, struct.pack("<Q", 0))
        self.form = "plain"
        self.ask(GET_FEATURES)
        return struct.unpack_from("<Q", body, 8 + 16)[0]

    def wait_used(self, ring):
        """Until the device has used all that was queued; it may call before."""
        while ring.finished(self.memory.content()) < len(ring.reads):
            self.serve_until(self.call_fd, "the device to use the buffers")
            os.eventfd_read(self.call_fd)
