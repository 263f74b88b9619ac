# SPDX-License-Identifier: GPL-2.0-or-later
"""The two queues of a virtio network device, with frames that a guest had left to be sent and buffers to receive into."""
import os
import struct

from harness import check, check_equal
from vhostuser import ENTRIES, PAGE

HEADER = 12                             # of virtio 1, in front of each frame
BUFFER = 2048
WRITE = 2
#: Bytes of a used ring.
USED = 4 + 8 * ENTRIES + 2


class NetQueue:
    """A buffer in each descriptor, a page for each buffer."""

    def __init__(self, image, at, buffers, length, flags):
        self.desc, self.avail, self.used = at, at + PAGE, at + 2 * PAGE
        self.buffers = buffers
        image[self.used:self.used + USED] = bytes(USED)
        for index, address in enumerate(buffers):
            image[at + 16 * index:at + 16 * index + 16] = struct.pack("<QIHH", address, length, flags, 0)
        available = struct.pack(f"<HH{len(buffers)}H", 0, len(buffers), *range(len(buffers)))
        image[self.avail:self.avail + len(available)] = available

    def done(self, memory):
        return struct.unpack("<H", os.pread(memory, 2, self.used + 2))[0]

    def finished(self, content):
        """[(buffer, bytes in it)]"""
        count = struct.unpack_from("<H", content, self.used + 2)[0]
        pairs = (struct.unpack_from("<II", content, self.used + 4 + 8 * n) for n in range(count))
        return [(self.buffers[index], length) for index, length in pairs]


class NetTraffic:
    """@sends: the guest had frames to send, which come back; else the other side makes some."""

    COUNT, LENGTH = 16, 300

    def __init__(self, case, image, at, sends):
        self._sends = sends
        self._sent = [at + 0x10000 + PAGE * n for n in range(self.COUNT)] if sends else []
        received = [at + 0x80000 + PAGE * n for n in range(self.COUNT)]
        for address in self._sent:
            image[address:address + self.LENGTH] = bytes(HEADER) + case.random.randbytes(self.LENGTH - HEADER)
        self.rings = [NetQueue(image, at, received, BUFFER, WRITE),
                      NetQueue(image, at + 4 * PAGE, self._sent, self.LENGTH, 0)]
        self.image = bytes(image)

    def done(self, memory):
        return self.rings[0].done(memory) == self.COUNT and (not self._sends or self.rings[1].done(memory) == self.COUNT)

    def pages(self):
        """At least these are touched."""
        return {ring.desc for ring in self.rings} | set(self._sent) | set(self.rings[0].buffers)

    def apply(self, wanted, content):
        """What the device may have changed is checked, and taken over into @wanted."""
        for ring in self.rings:
            wanted[ring.used:ring.used + USED] = content[ring.used:ring.used + USED]
        got = self.rings[0].finished(content)
        check_equal([address for address, _ in got], self.rings[0].buffers, "buffers that came back")
        for number, (address, length) in enumerate(got):
            check(HEADER < length <= BUFFER, f"a frame of {length} bytes")
            frame = content[address + HEADER:address + length]
            if self._sends:
                sent = self._sent[number]
                check(frame == self.image[sent + HEADER:sent + self.LENGTH], f"frame {number} came back as another")
            check(any(frame), f"frame {number} is empty")
            wanted[address:address + length] = content[address:address + length]
