#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages: a pool that is exactly as large as the guest, one that is too small, and who wrote what.  (O2)"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Skip, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import S2D, Relay  # noqa: E402
from service import BLOCK, MIB, Service, missing_programs  # noqa: E402

HUGE = 2 * MIB
ALONE_TIMEOUT = 120              # seconds that other tests may have huge pages for
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def borrow(case, pages, how="alone"):
    """The pool is so many pages larger until the case ends, and no other test has any of it; @how "more": for who has it alone."""
    number = sum(child.name.startswith("hugepages") for child in case.children)
    keeper = case.spawn(f"hugepages{number}", [built("tests/lib/with_hugepages"), how, str(pages), "/bin/sh", "-c",
                                               "echo here; exec sleep 300"])
    wait_for("huge pages that other tests have", lambda: keeper.lines() or not keeper.running(), ALONE_TIMEOUT)
    if not keeper.lines():
        raise Skip(f"no huge pages: {keeper.errors()}")


def pool(what):
    with open(f"{POOL}/{what}_hugepages", encoding="ascii") as text:
        return int(text.read())


def written_by_a_stranger(case):
    """The pool is empty because the guest has all of it: EEXIST is a page that nobody placed, and an alarm."""
    service = Service(case, size=4 * HUGE)
    borrow(case, 4)
    vm = service.sharer("vm", "main", memory="hugetlb=on")
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    source = service.source("--no-background", "--linger", "60000", to=relay.uri,
                            blocks=[f"{BLOCK},size={service.size},page=2M"])
    vm.event("running")
    vm.do(f"touch {BLOCK} {2 * HUGE} 1")
    relay.wait_held()
    free = pool("free") - pool("resv")
    case.note(f"{free} huge pages are free beside the guest's")
    write = ("import mmap, os; f = os.open(%r, os.O_RDWR); m = mmap.mmap(f, %d, offset=%d); m[0:5] = b'stray'"
             % (vm.path(), HUGE, 2 * HUGE))
    stray = case.spawn("stray", ["/usr/bin/python3", "-c", write])
    stray.wait()
    relay.release()
    status = service.wait_state("paused", 10)
    check("integrity" in status["error"]["reason"], f"reason: {status['error']}")
    check_equal(service.stats()["alarms"], 1, "alarms")
    check(not vm.has_seen(2 * HUGE), "it went on with a page that nobody placed")
    source.child.check_running()


def runs_dry(case, *lanes):
    """Memory that reserved nothing, and a pool with half of it: the rest waits, visibly, and comes when the pool grows."""
    borrow(case, 2)
    before = pool("free") - pool("resv")
    if before != 2:
        raise Skip(f"the pool has {before} free pages, not 2: somebody who is no test of ours uses it")
    service = Service(case, size=4 * HUGE)
    vm = service.sharer("vm", "main", memory="private=on,hugetlb=on,reserve=off", threads=2)
    source = service.source(*lanes, blocks=[f"{BLOCK},size={service.size},page=2M"])
    text = service.wait_blocker("hugepages")
    check("pool empty" in text and "nr_hugepages" in text, text)
    check(service.status()["pool_waits"] > 0, "no page waits")
    check_equal(service.status()["state"], "running", "state")
    check_equal(service.stats()["alarms"], 0, "alarms")
    wait_for("a line in the log", lambda: "pool empty" in service.log())
    borrow(case, 2, "more")
    service.check_same(source, sharers=[vm])
    check_equal(service.status()["pool_waits"], 0, "pages that wait in the end")


def runs_dry_main(case):
    runs_dry(case)


def runs_dry_bulk(case):
    runs_dry(case, "--preempt")


CASES = [
    ("O2 a huge page that nobody placed is an alarm, though the pool is empty", written_by_a_stranger),
    ("O2 an empty pool is waited for and shown, single lane", runs_dry_main),
    ("O2 an empty pool is waited for and shown, bulk lane", runs_dry_bulk),
]

if __name__ == "__main__":
    if missing_programs() or not built("tests/lib/with_hugepages"):
        skip_all("not built")
    main(CASES, limit=40.0 + ALONE_TIMEOUT)
