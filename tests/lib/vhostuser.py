# SPDX-License-Identifier: GPL-2.0-or-later
"""A front-end of vhost-user-blk that never touches guest memory.

What a guest's driver would have written lies in an image of RAM that the migration brings (Ring):
descriptors, requests and the available ring.  The front-end only does what a VMM does: it hands the
memory and the ring over, and kicks.
"""
import array
import os
import socket
import struct

from harness import Failure, check, check_equal

(GET_FEATURES, SET_FEATURES, SET_OWNER) = (1, 2, 3)
SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE = 5, 8, 9, 10
SET_VRING_KICK, SET_VRING_CALL, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, SET_VRING_ENABLE = 12, 13, 15, 16, 18
ADD_MEM_REG, REM_MEM_REG = 37, 38
VERSION_1, PROTOCOL_FEATURES = 1 << 32, 1 << 30
REPLY_ACK = 1 << 3
HEADER = struct.Struct("<3I")
VERSION, REPLY, NEED_REPLY = 1, 4, 8

SECTOR = 512
PAGE = 4096
ENTRIES = 64
USER_BASE = 0x7E0000000000          # front-end addresses of guest memory: made up, nothing is mapped there


IN, OUT = 0, 1


class Ring:
    """Requests in an image of RAM; guest-physical addresses are offsets in it."""

    def __init__(self, image, at=0x200000):
        self._image = image
        self.desc, self.avail, self.used = at, at + 4 * PAGE, at + 8 * PAGE
        self.reads = []                 # (sector, address, length, status address)
        image[self.used:self.used + 4 + 8 * ENTRIES + 2] = bytes(4 + 8 * ENTRIES + 2)

    def read(self, sector, header, data, length, status, kind=IN):
        """Queue: @length bytes from @sector to @data; OUT: the other way."""
        first = 3 * len(self.reads)
        check(first + 3 <= ENTRIES, "the ring is full")
        self._image[header:header + 16] = struct.pack("<IIQ", kind, 0, sector)
        self._image[status] = 0xFF
        self._describe(first, header, 16, 1, first + 1)
        self._describe(first + 1, data, length, 1 if kind == OUT else 3, first + 2)
        self._describe(first + 2, status, 1, 2, 0)
        at = self.avail + 4 + 2 * len(self.reads)
        self._image[at:at + 2] = struct.pack("<H", first)
        self.reads.append((sector, data, length, status))
        self._image[self.avail:self.avail + 4] = struct.pack("<HH", 0, len(self.reads))

    def _describe(self, index, address, length, flags, following):
        at = self.desc + 16 * index
        self._image[at:at + 16] = struct.pack("<QIHH", address, length, flags, following)

    def finished(self, memory):
        """Requests that the device has put into the used ring of @memory."""
        return struct.unpack_from("<H", memory, self.used + 2)[0]


class FrontEnd:
    """The connection to a back-end."""

    def __init__(self, path, memory, regions):
        """@memory: descriptor of the RAM file; @regions: [(guest address, length)], offset = address."""
        self._memory = memory
        self._regions = regions
        self.protocol = 0               # features of the protocol, once agreed
        self._plain = False
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(20)
        self._sock.connect(path)
        self.call_fd, self._kicks = os.eventfd(0), []

    def hang_up(self):
        self._sock.close()

    def close(self):
        """Once more is harmless."""
        self.hang_up()
        for fd in (self.call_fd, *self._kicks):
            if fd >= 0:
                os.close(fd)
        self.call_fd, self._kicks = -1, []

    def _send(self, request, body=b"", fds=(), ack=False):
        flags = VERSION | (NEED_REPLY if ack else 0)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._sock.sendmsg([HEADER.pack(request, flags, len(body)) + body], control)

    def _exactly(self, length):
        data = b""
        while len(data) < length:
            more = self._sock.recv(length - len(data))
            if not more:
                raise Failure("the back-end hung up")
            data += more
        return data

    def _reply(self, request):
        got, flags, size = HEADER.unpack(self._exactly(HEADER.size))
        check_equal((got, flags & REPLY), (request, REPLY), "reply")
        return struct.unpack("<Q", self._exactly(size))[0]

    def _ask(self, request):
        self._send(request)
        return self._reply(request)

    def begin(self, also=0):
        """As far as a VMM goes before its guest runs: nothing about memory.  @also: features of the protocol
        that are taken where they are offered."""
        self._send(SET_OWNER)
        features = self._ask(GET_FEATURES)
        check(features & VERSION_1 and features & PROTOCOL_FEATURES, f"features 0x{features:x}")
        protocol = self._ask(GET_PROTOCOL_FEATURES)
        check(protocol & REPLY_ACK, f"protocol features 0x{protocol:x}")
        taken = REPLY_ACK | (protocol & also)
        self._send(SET_PROTOCOL_FEATURES, struct.pack("<Q", taken))
        self.protocol = taken
        self._send(SET_FEATURES, struct.pack("<Q", VERSION_1 | PROTOCOL_FEATURES))

    def begin_plain(self):
        """As a VMM that finds no features of the protocol: nothing is answered that need not be, no ring is enabled."""
        self._plain = True
        self._send(SET_OWNER)
        check_equal(self._ask(GET_FEATURES) & PROTOCOL_FEATURES, 0, "bit 30")
        self._send(SET_FEATURES, struct.pack("<Q", VERSION_1))

    def share_memory(self, regions=None):
        """SET_MEM_TABLE; the back-end's verdict, 0 when it could map all of it.  @regions: others than before."""
        self._regions = regions or self._regions
        body = struct.pack("<II", len(self._regions), 0)
        for address, length in self._regions:
            body += struct.pack("<4Q", address, length, USER_BASE + address, address)
        self._send(SET_MEM_TABLE, body, [self._memory] * len(self._regions), ack=not self._plain)
        return 0 if self._plain else self._reply(SET_MEM_TABLE)

    def add_slot(self, address, length):
        """As share_memory(), of one region more."""
        return self._slot(ADD_MEM_REG, address, length, [self._memory])

    def drop_slot(self, address, length):
        return self._slot(REM_MEM_REG, address, length, [])

    def _slot(self, request, address, length, fds):
        self._send(request, bytes(8) + struct.pack("<4Q", address, length, USER_BASE + address, address), fds, ack=True)
        return self._reply(request)

    def start(self, ring, queue=0, base=0):
        """Hand a ring over and kick.  @base: requests that were done before."""
        self.hand_over(ring, queue, base)
        self.enabled(queue)

    def hand_over(self, ring, queue=0, base=0):
        """Say all of it, without a look at the answer."""
        self._send(SET_VRING_NUM, struct.pack("<II", queue, ENTRIES))
        self._send(SET_VRING_BASE, struct.pack("<II", queue, base))
        self._send(SET_VRING_ADDR, struct.pack("<II4Q", queue, 0, USER_BASE + ring.desc, USER_BASE + ring.used,
                                               USER_BASE + ring.avail, 0))
        self._send(SET_VRING_CALL, struct.pack("<Q", queue), [self.call_fd])
        self._send(SET_VRING_KICK, struct.pack("<Q", queue), [self._kick_of(queue)])
        if not self._plain:
            self._send(SET_VRING_ENABLE, struct.pack("<II", queue, 1), ack=True)

    def enabled(self, queue=0):
        """The answer, and the first kick."""
        if not self._plain:
            check_equal(self._reply(SET_VRING_ENABLE), 0, "the back-end's answer to SET_VRING_ENABLE")
        self.kick(queue)

    def check_ended(self):
        """The answer does not come: the connection ends instead."""
        try:
            self._reply(SET_VRING_ENABLE)
        except (Failure, OSError):
            return
        raise Failure("an answer from nobody")

    def kick(self, queue=0):
        os.eventfd_write(self._kick_of(queue), 1)

    def _kick_of(self, queue):
        while len(self._kicks) <= queue:
            self._kicks.append(os.eventfd(0))
        return self._kicks[queue]
