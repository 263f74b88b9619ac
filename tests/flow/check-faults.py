#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault injection: each point and action against a real daemon, real sharers and our source.  (F61, F69)"""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Failure, check, check_equal, main, skip_all  # noqa: E402
from service import BLOCK, PATIENT, Service, missing_programs  # noqa: E402

RESUMES, LOST, UNKNOWN, DONE = "source-resumes", "postcopy-paused", "ownership-unknown", "completed"
#: It sends all without an answer, so it may be anywhere behind us; but before the package left it resumes.
ANY_LOSS = (RESUMES, LOST, UNKNOWN)
#: Where a session can die, in order, and what then becomes of the source: without, and with a PING that commits.
MOMENTS = (
    ("session.accepted", ANY_LOSS, (RESUMES,)),
    ("session.advised", ANY_LOSS, (RESUMES,)),
    ("session.blocks", ANY_LOSS, (RESUMES,)),
    ("session.matched", ANY_LOSS, (RESUMES,)),
    ("session.switchover", ANY_LOSS, (RESUMES,)),
    ("session.package-begun", ANY_LOSS, (RESUMES,)),
    ("session.package", (LOST, UNKNOWN), (RESUMES,)),
    ("session.listening", (LOST, UNKNOWN), (RESUMES,)),
    ("session.loaded", (LOST, UNKNOWN), (RESUMES,)),
    ("session.before-pong", (LOST, UNKNOWN), (RESUMES,)),
    ("session.after-pong", (LOST, UNKNOWN), (LOST, UNKNOWN)),
    ("session.running", (LOST, UNKNOWN), (LOST, UNKNOWN)),
    ("session.before-shut", (LOST, UNKNOWN), (LOST, UNKNOWN)),
    ("session.after-shut", (UNKNOWN, DONE), (UNKNOWN, DONE)),
    ("session.complete", (DONE,), (DONE,)),
)


def injected(case, *rules, **more):
    return Service(case, "--enable-faults", "--fault-seed", str(case.seed + 1),
                   *[f"--fault={rule}" for rule in rules], **more)


# --- dying ----------------------------------------------------------------------------------------

def dies(case, point, wanted, *source_options, death="kill", status=-signal.SIGKILL):
    service = injected(case, f"point={point},action=die={death}")
    service.sharer("vm", "main", threads=2)
    source = service.source(*source_options)
    check_equal(service.child.wait(), status, f"status of the daemon at {point}")
    check(f"dies at {point}, as rule 1 says" in service.log(), f"{point}: {service.log()}")
    outcome = source.summary()["outcome"]
    check(outcome in wanted, f"the source, when we die at {point}: {outcome}, not {wanted}")
    case.note(f"{point}: the source {outcome}")


def dies_at_each_moment(case):
    for point, plain, _ in MOMENTS:
        dies(case, point, plain)


def dies_at_each_moment_of_a_commit(case):
    for point, _, committing in MOMENTS:
        dies(case, point, committing, "--commit-ping", "--preempt")


def dies_with_a_page(case):
    for point in ("fault.parked", "page.claimed", "page.placed", "page.published"):
        dies(case, point, (LOST,), *PATIENT)
        dies(case, point, (LOST,), *PATIENT, "--preempt")


def dies_in_each_way(case):
    dies(case, "session.running", (LOST,), *PATIENT, death="abort", status=-signal.SIGABRT)
    dies(case, "session.running", (LOST,), *PATIENT, death="segv", status=-signal.SIGSEGV)


# --- who may ----------------------------------------------------------------------------------------

def not_enabled(case):
    service = Service(case)
    service.sharer("vm", "main")
    for words in (("add", "wake", "die"), ("remove", "all")):
        try:
            service._fault(*words)          # pylint: disable=protected-access
        except Failure as failure:
            check("--enable-faults" in str(failure), str(failure))
        else:
            raise Failure("faults are injected into a daemon that does not allow it")
    check_equal(service.faults(), {}, "rules")
    check_equal(service.status()["faults"], None, "status")
    service.check_same(service.source())


def rules_come_and_go(case):
    service = injected(case, "point=wake,every=1000000,action=duplicate")
    check_equal(service.fault("place.copy", "--every=5", f"--page={BLOCK}/0x1000", "eagain=3"), 2, "number")
    check_equal(service.fault("point=session.loaded,action=stall=1"), 3, "number")
    check_equal([rule["rule"] for rule in service.faults().values()],
                ["point=wake,every=1000000,action=duplicate",
                 f"point=place.copy,page={BLOCK}/0x1000,every=5,action=eagain=3",
                 "point=session.loaded,action=stall=1"], "rules")
    check_equal(service.fault_remove(2), 1, "removed")
    check_equal(sorted(service.faults()), [1, 3], "what is left")
    vm = service.sharer("vm", "main")
    source = service.source()
    vm.event("running")
    check_equal(service.faults()[3]["fires"], 1, "fires")
    check_equal(service.status()["faults"], {"rules": 2, "fires": 1}, "status")
    service.check_same(source)
    check_equal(service.fault_remove(), 2, "removed")
    check_equal(service.faults(), {}, "rules")


CASES = [
    ("F61 dies at each moment of a session", dies_at_each_moment),
    ("F61 dies at each moment, where the source waits for an answer", dies_at_each_moment_of_a_commit),
    ("F61 dies with a page in hand", dies_with_a_page),
    ("F61 dies of other signals", dies_in_each_way),
    ("F61 nothing is injected where it was not allowed", not_enabled),
    ("F61 rules come, are listed, and go", rules_come_and_go),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
