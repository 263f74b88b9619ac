#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own VFIO, in a Linux guest: devices of mtty, whose state can be moved, and of edu, which reach memory.

The guest's programs say what holds (lib/guest/vfio_*.c, with the rows in their lines); here it is booted, and they are
believed when each of them came to its end.
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import built, check, check_equal, diag, main, skip_all
import vfioguest
from vm import SYSTEM_QEMU

#: Of the daemon, in guest/vfio_daemon.sh.
DAEMON = ("postcopyd", "postcopyctl", "postcopy-source", "tests/lib/sharer", "tests/lib/guest/vfio_send",
          "tests/lib/guest/.libs/vfio_witness.so")
PROGRAMS = ("vfio_check", "vfio_move", "vfio_dma", "vfio_dirty")


def report(lines, program):
    """The lines of one of the programs, which run one after the other."""
    ends = [line for line in lines if " ended with " in line]
    own = [line for line in ends if line.startswith(program)]
    check(len(own) == 1, f"{program} did not come to its end")
    at = ends.index(own[0])
    begin = lines.index(ends[at - 1]) + 1 if at else 0
    return lines[begin:lines.index(own[0]) + 1]


def judge(lines, program):
    """It came to its end, and all that it planned to say holds."""
    said = report(lines, program)
    check("done" in said and said[-1] == f"{program} ended with 0", f"{program} failed: {said[-1]}")
    held = [line for line in said if line.startswith("ok ")]
    check(held and f"1..{len(held)}" in said, f"only {len(held)} checks of {program} hold")


def said(lines, word):
    """What follows the word, as JSON, in the only line that begins with it."""
    found = [line.split(None, 1)[1] for line in lines if line.startswith(word + " ")]
    check_equal(len(found), 1, f"lines that begin with {word}")
    return json.loads(found[0])


def judge_daemon(lines):
    """F34 F47 F48 S2-09 The daemon: its device got the state and every page before it ran, and the VM all of its memory."""
    nic = said(lines, "devices")[0]
    check_equal((nic["stage"], nic["state"], nic["gate"]["pages_missing"], nic["gate"]["mapped"]),
                ("running", "running", 0, 2), "the device")
    check_equal(said(lines, "blockers"), [], "blockers")
    summary = said(lines, "summary")
    digests = [event["xxh3_128"] for event in map(json.loads, (line for line in lines if line.startswith("{")))
               if event["event"] == "digest"]
    check_equal((summary["outcome"], summary["requested"], digests), ("completed", 256, [summary["digests"]["m"]]),
                "outcome of the source, pages it was asked for, and the memory of the VM")
    witnessed = [line for line in lines if line.startswith("witness: ")]
    check_equal([line.split(", ")[1:] for line in witnessed], 2 * [["524288 bytes", "0 pages missing"]], "what it mapped")
    sent = [line.split(", ") for line in lines if line.startswith("vfio_send: ")]
    check_equal([(line[0], line[-1]) for line in sent], 2 * [("vfio_send: 0", "scratch 0x5c")],
                "a register of the device, here and there")


def devices(case):
    paths = [built(program) for program in (*DAEMON, *(f"tests/lib/guest/{program}" for program in PROGRAMS))]
    check(all(paths), "the guest's programs are not built")
    guest = vfioguest.start(case, SYSTEM_QEMU, paths)
    guest.wait(300)
    lines = [line.strip() for line in guest.lines()]
    for line in lines:
        diag(line)
    for program in PROGRAMS:
        judge(lines, program)
    judge_daemon(report(lines, "vfio_daemon.sh"))


if __name__ == "__main__":
    if not os.access(SYSTEM_QEMU, os.X_OK):
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    main([("devices of the kernel's own VFIO", devices)], limit=1200)
