#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""heartbeat.py SOURCE DESTINATION ADDRESS: for how long the guest stood still when it moved.

Both are files with the guest's RAM.  The guest counts in a word of it; what is printed is the time between
the last count seen at the source and the first one seen beyond it at the destination, in
nanoseconds.  A process of its own, so that what the test does in between does not disturb it.  Reads
with pread(2), which neither faults nor makes a page in a file.
"""
import os
import struct
import sys
import time

from harness import PATIENCE, check_equal, wait_for

PYTHON = "/usr/bin/python3"
BEAT = 12                               # bytes from its status words
PAUSE = 0.0002
PATIENCE = 120


class Heartbeat:
    """The program, at work from now on."""

    def __init__(self, case, source, destination):
        paths = [f"/proc/{os.getpid()}/fd/{vm.low_ram()}" for vm in (source, destination)]
        address = source.machine.the_guest().address()
        self.child = case.spawn("heartbeat", [PYTHON, os.path.abspath(__file__), *paths, str(address)])
        wait_for("the watch of the heartbeat", self.child.lines)

    def gap_ms(self, timeout=PATIENCE):
        check_equal(self.child.wait(timeout), 0, "status of the watch")
        return int(self.child.lines()[1]) / 1e6


def beat(fd, address):
    return struct.unpack("<I", os.pread(fd, 4, address + BEAT))[0]


def main():
    source, destination = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
    address = int(sys.argv[3])
    end = time.monotonic() + PATIENCE
    last, when = beat(source, address), time.monotonic_ns()
    print("watching", flush=True)
    while time.monotonic() < end:
        now = beat(source, address)
        if now != last:
            last, when = now, time.monotonic_ns()
        elif 0 < (beat(destination, address) - last & 0xFFFFFFFF) < 1 << 31:
            print(time.monotonic_ns() - when, flush=True)
            return
        time.sleep(PAUSE)
    sys.exit("the guest did not go on")


if __name__ == "__main__":
    main()
