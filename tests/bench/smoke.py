#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row of the benchmarks runs, and no ratio is out of all proportion (design 11).

A busy machine must not fail this: the bounds are several times the targets, which `make bench` judges.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import run
import stand
from harness import check, diag, main, skip_all

SLACK = 4
#: Two latencies at the far end of a few hundred samples say nothing on a busy machine.
TELLS_NOTHING = ("p99,",)


def case_of(group):
    def case(_case):
        series = run.measure(group, 1, progress=False)
        for text, middle, _low, _high, limit, least, _holds in run.verdicts(series):
            diag(f"{text}: {middle:.2f}, target {limit:g}")
            far = middle * SLACK < limit if least else middle > limit * SLACK
            check(not far or text.startswith(TELLS_NOTHING), f"{text} is {middle:.2f}, out of all proportion")
    return case


if __name__ == "__main__":
    if stand.missing_programs():
        skip_all("not built: " + ", ".join(stand.missing_programs()))
    if os.geteuid() != 0:
        skip_all("needs root: userfaultfd for other users is not everywhere")
    OPTIONS = run.options(["--quick"])
    main([(f"bench: {group.title}", case_of(group)) for group in run.groups(OPTIONS)])
