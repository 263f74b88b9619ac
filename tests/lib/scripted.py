# SPDX-License-Identifier: GPL-2.0-or-later
"""lib/vhost_back.py as a test has it, with a disk of random content."""
import os
import subprocess

from dest import PYTHON, events, find_event, wait_event
from harness import TOP_SRCDIR
from vhostuser import SECTOR

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
        self._case, self._name = case, name
        self._start(words)

    def _start(self, words):
        self.child = self._case.spawn(self._name, [*self._argv, *words], stdin=subprocess.PIPE)
        wait_event(self.child, "listening")

    def start_again(self, *words):
        """Another process in its place, once this one has ended."""
        os.unlink(self.path)
        self._name += "-again"
        self._start(words)

    def tell(self, line):
        self.child.proc.stdin.write((line + "\n").encode())
        self.child.proc.stdin.flush()

    def event(self, event, timeout=20.0, **fields):
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
