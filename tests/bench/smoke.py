#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row of the benchmarks runs, and no ratio is out of all proportion (design 11).

A busy machine must not fail this: the bounds are several times the targets, which `make bench` judges.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import qemu
import run
import stand
from harness import Failure, Skip, check, diag, main, skip_all

SLACK = 4
#: Each side moves its guest once.  A neighbour that has the machine for a second spoils one such try, a fault of ours each.
TRIES = 3
#: Two latencies at the far end of a few hundred samples say nothing on a busy machine, nor does a single one, nor
#: what four threads that never sleep make of two CPUs.
TELLS_NOTHING = ("p99,", "last page", "beside the stream")


def case_of(group):
    def case(_case):
        series = run.measure(group, 1, progress=False)
        for text, middle, _low, _high, limit, least, _holds in run.verdicts(series):
            diag(f"{text}: {middle:.2f}, target {limit:g}")
            far = middle * SLACK < limit if least else middle > limit * SLACK
            check(not far or text.startswith(TELLS_NOTHING), f"{text} is {middle:.2f}, out of all proportion")
    return case


def trouble_of(table):
    """What is out of all proportion in one measurement of a hand-over; None."""
    for side in qemu.SIDES:
        if table.median(side, "faults") == 0:
            return f"{table.name}, {side}: the guest waited for no page, so nothing was measured"
    for text, middle, _low, _high, limit, _holds in table.verdicts():
        diag(f"{table.name}, {text}: {middle:.2f}, target {limit:g}")
    slower = table.median("postcopyd", "total_ms") / table.median("qemu", "total_ms")
    return f"{table.name}: the whole takes {slower:.2f} times as long, out of all proportion" if slower >= SLACK else None


def handover(_case):
    """A guest that moves: both sides serve it in either way, and it finds its memory as it was."""
    if qemu.missing():
        raise Skip("not here: " + ", ".join(qemu.missing()))
    for _ in range(TRIES):
        tables = qemu.measure(qemu.options(["--repeat", "1", "--guest-mib", "64", "--qemu", qemu.vm.SYSTEM_QEMU]))
        trouble = [text for text in map(trouble_of, tables) if text]
        if not trouble:
            return
        diag("; ".join(trouble))
    raise Failure(f"{TRIES} times: {'; '.join(trouble)}")


if __name__ == "__main__":
    if stand.missing_programs():
        skip_all("not built: " + ", ".join(stand.missing_programs()))
    if os.geteuid() != 0:
        skip_all("needs root: userfaultfd for other users is not everywhere")
    OPTIONS = run.options(["--quick"])
    main([(f"bench: {group.title}", case_of(group)) for group in run.groups(OPTIONS)]
         + [("bench: a guest that moves between two QEMUs", handover)])
