# SPDX-License-Identifier: GPL-2.0-or-later
"""lib/vhost_back.py as a test has it, with a disk of random content, and what it is given to do."""
import os
import struct
import subprocess

from dest import PYTHON, events, find_event, wait_event
from harness import PATIENCE, TOP_SRCDIR, check, check_equal
from vhostuser import IN, OUT, PAGE, SECTOR, Ring

SECTORS = 4096


class Backend:
    """@words: see there."""

    def __init__(self, case, *words, name="back-end"):
        self.path = case.path(name + ".vhost")
        self._disk = case.path(name + ".disk")
        with open(self._disk, "wb") as disk:
            disk.write(case.random.randbytes(SECTORS * SECTOR))
        script = os.path.join(TOP_SRCDIR, "tests", "lib", "vhost_back.py")
        self._argv = [PYTHON, script, self.path, self._disk]
        self._case, self._name, self._count = case, name, 0
        self._start(words)

    def _start(self, words):
        self.child = self._case.spawn(f"{self._name}{self._count or ''}", [*self._argv, *words], stdin=subprocess.PIPE)
        wait_event(self.child, "listening")

    def start_again(self, *words):
        """Another process in its place, once this one has ended."""
        os.unlink(self.path)
        self._count += 1
        self._start(words)

    def tell(self, line):
        self.child.proc.stdin.write((line + "\n").encode())
        self.child.proc.stdin.flush()

    def event(self, event, timeout=PATIENCE, **fields):
        return wait_event(self.child, event, timeout, **fields)

    def has(self, event, **fields):
        return find_event(self.child, event, **fields)

    def asked(self):
        """Numbers of the requests so far."""
        return [event["number"] for event in events(self.child) if event["event"] == "request"]

    def disk(self, sector, length):
        with open(self._disk, "rb") as disk:
            disk.seek(sector * SECTOR)
            return disk.read(length)


def same(content, wanted):
    wrong = [hex(at) for at in range(0, len(wanted), PAGE) if content[at:at + PAGE] != wanted[at:at + PAGE]]
    check_equal(wrong, [], "pages that are wrong")


class Traffic:
    """A read and a write in each queue, in an image of RAM; nothing of it needs to be there when they are served."""

    LENGTH = 3 * PAGE
    HEADERS, IN_DATA, OUT_DATA = 0x10000, 0x20000, 0x30000

    def __init__(self, case, image, queues=1, spread=1 << 20):
        """@spread: bytes of RAM that each queue has for itself."""
        self.rings, self._times = [], 1
        for number in range(queues):
            at = number * spread
            image[at + self.OUT_DATA:at + self.OUT_DATA + self.LENGTH] = case.random.randbytes(self.LENGTH)
            ring = Ring(image, at)
            for n, (data, kind) in enumerate(((self.IN_DATA, IN), (self.OUT_DATA, OUT))):
                header = at + self.HEADERS + 2 * n * PAGE
                ring.read(self._sector(number, kind), header, at + data, self.LENGTH, header + PAGE, kind)
            self.rings.append(ring)
        self.image = bytes(image)

    @staticmethod
    def _sector(number, kind):
        return 64 * number + 32 * (kind == OUT)

    def pages(self, page=PAGE):
        """Offsets of what the back-end touches."""
        found = set()
        for ring in self.rings:
            at = ring.desc
            found |= {ring.desc, ring.avail, ring.used}
            found |= set(range(at + self.HEADERS, at + self.HEADERS + 4 * PAGE, PAGE))
            for data in (self.IN_DATA, self.OUT_DATA):
                found |= set(range(at + data, at + data + self.LENGTH, PAGE))
        return {offset // page * page for offset in found}

    def done(self, memory):
        """@memory: a descriptor.  Looking does not fill holes."""
        return all(os.pread(memory, 2, ring.used + 2) == struct.pack("<H", self._times * len(ring.reads))
                   for ring in self.rings)

    def again(self, memory):
        """The same requests once more, of which everything is there by now."""
        self._times += 1
        for ring in self.rings:
            count = len(ring.reads)
            at = ring.avail + 4 + 2 * count * (self._times - 1)
            os.pwrite(memory, struct.pack(f"<{count}H", *range(0, 3 * count, 3)), at)
            os.pwrite(memory, struct.pack("<H", self._times * count), ring.avail + 2)

    def check(self, content, back):
        """All of the memory is the image but for what the device did, and the disk is what was written."""
        wanted = bytearray(self.image)
        self.apply(wanted, content, back)
        same(content, wanted)

    def apply(self, wanted, content, back):
        """What the device did, in @wanted."""
        for number, ring in enumerate(self.rings):
            for page in (ring.used, ring.avail)[:self._times]:
                wanted[page:page + PAGE] = content[page:page + PAGE]
            for _, data, length, status in ring.reads:
                wanted[status] = 0
                if data - ring.desc == self.IN_DATA:
                    wanted[data:data + length] = back.disk(self._sector(number, IN), length)
                else:
                    check(back.disk(self._sector(number, OUT), length) == self.image[data:data + length],
                          f"queue {number} wrote another content to the disk")
