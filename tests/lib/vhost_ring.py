# SPDX-License-Identifier: GPL-2.0-or-later
"""A queue of a virtio block device, as its back-end sees it; each has a thread of its own."""
import os
import select
import struct
import threading

from vhost_memory import load, store

SECTOR = 512
IN, OUT = 0, 1
NEXT, WRITE = 1, 2


class Queue:
    """Serves requests of @disk (a descriptor) from a ring in @regions."""

    def __init__(self, number, regions, disk, say):
        self.number, self._regions, self._disk, self._say = number, regions, disk, say
        self.entries = self.next = 0
        self.kick = self.call = None
        self._desc = self._avail = self._used = None
        self._wanted = False
        self._thread, self._stop = None, None

    def set_addresses(self, desc, used, avail):
        """Looks into the used ring, as libvhost-user does: the first fault may be the control thread's."""
        self._desc, self._used, self._avail = (self._regions.user(a) for a in (desc, used, avail))
        self._say("used_index", queue=self.number, value=struct.unpack("<H", load(self._used + 2, 2))[0])

    def set_kick(self, fd):
        self.kick = fd
        self.run()

    def enable(self, on):
        self._wanted = on
        self.run()

    def run(self):
        if self._wanted and self.kick is not None and self._used is not None and not self._thread:
            self._stop = os.eventfd(0)
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def stop(self, patience=None):
        """Not before its thread is done with what it works on, however long that waits for a page; @patience: seconds.
        None when it still works.
        """
        if self._thread:
            os.eventfd_write(self._stop, 1)
            self._thread.join(patience)
            if self._thread.is_alive():
                return None
            os.close(self._stop)
        self._thread = self.kick = None
        return self.next

    def _work(self):
        while True:
            ready, _, _ = select.select([self._stop, self.kick], [], [])
            if self._stop in ready:
                return
            os.eventfd_read(self.kick)
            self._serve()

    def _serve(self):
        done = 0
        while self.next != struct.unpack("<H", load(self._avail + 2, 2))[0]:
            slot = 4 + 2 * (self.next % self.entries)
            head = struct.unpack("<H", load(self._avail + slot, 2))[0]
            self._finish(head, self._request(list(self._chain(head))))
            self.next = (self.next + 1) % (1 << 16)
            done += 1
        if done and self.call is not None:
            os.eventfd_write(self.call, 1)
        self._say("served", queue=self.number, requests=done)

    def _chain(self, index):
        """(address here, length, may it be written)"""
        while True:
            address, length, flags, following = struct.unpack("<QIHH", load(self._desc + 16 * index, 16))
            yield self._regions.guest(address), length, bool(flags & WRITE)
            if not flags & NEXT:
                return
            index = following

    def _request(self, parts):
        """Number of bytes written"""
        kind, _, sector = struct.unpack("<IIQ", load(parts[0][0], 16))
        at, moved = sector * SECTOR, 0
        for address, length, _ in parts[1:-1]:
            if kind == IN:
                store(address, os.pread(self._disk, length, at + moved))
            else:
                os.pwrite(self._disk, load(address, length), at + moved)
            moved += length
        store(parts[-1][0], bytes([0 if kind in (IN, OUT) else 2]))
        return 1 + (moved if kind == IN else 0)

    def _finish(self, head, length):
        index = struct.unpack("<H", load(self._used + 2, 2))[0]
        store(self._used + 4 + 8 * (index % self.entries), struct.pack("<II", head, length))
        store(self._used + 2, struct.pack("<H", (index + 1) % (1 << 16)))
