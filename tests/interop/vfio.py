#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Our handle of a device against the kernel's own VFIO: two devices of mtty in a Linux guest.

The guest's program, lib/guest/vfio_check.c, says what holds (F28 F29 F30 F32 F34 F36 S3-18 S3-62); here it is booted, and
believed when it came to its end.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import built, check, diag, main, skip_all
import vfioguest
from vm import SYSTEM_QEMU

PROGRAM = "tests/lib/guest/vfio_check"
CHECKS = 7


def mtty(case):
    program = built(PROGRAM)
    check(program, f"{PROGRAM} is not built")
    guest = vfioguest.start(case, SYSTEM_QEMU, program)
    guest.wait(300)
    lines = [line.strip() for line in guest.lines()]
    for line in lines:
        diag(line)
    check("done" in lines, "the guest's program did not come to its end")
    check("vfio_check ended with 0" in lines, "it failed")
    held = [line for line in lines if line.startswith("ok ")]
    check(len(held) == CHECKS, f"{len(held)} of {CHECKS} checks hold")


if __name__ == "__main__":
    if not os.access(SYSTEM_QEMU, os.X_OK):
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    main([("two devices of the kernel's", mtty)], limit=1200)
