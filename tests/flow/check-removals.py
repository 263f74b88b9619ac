#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sharers whose userfaultfd tells what becomes of their memory: given back, unmapped, moved (O12).

The kernel keeps whoever gives memory back asleep until the daemon has read it, so each `do` below that
comes back shows that as well.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import PATIENCE, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import BLOCK, MIB, PAGE, ZERO, Service, missing_programs  # noqa: E402
from source_content import content  # noqa: E402

LONG = os.environ.get("POSTCOPY_TESTS_LONG") == "1"


def word_of(case, page):
    return content(case.seed, BLOCK, page, percent=0)[:8][::-1].hex()


def begin(case, *options, memory=None, source=(), **more):
    """A VM with events, running, none of whose pages come unasked."""
    service = Service(case, *options, size=MIB)
    vm = service.sharer("vm", "main", memory=memory, uffd="events", **more)
    patient = service.patient_source(*source)
    vm.event("running")
    return service, vm, patient


def sees(case, vm, first, count, zero=False):
    vm.do(f"touch {BLOCK} {first * PAGE} {count}")
    for page in range(first, first + count):
        check_equal(vm.saw(page * PAGE), ZERO if zero else word_of(case, page), f"page {page}")


def over(service, vm, source):
    summary = source.completed()
    vm.event("complete")
    check_equal(service.stats()["alarms"], 0, "alarms")
    return summary


def given_back(case, memory=None, source=()):
    service, vm, patient = begin(case, memory=memory, source=source)
    sees(case, vm, 0, 4)
    vm.do(f"give {BLOCK} 0 16")
    check_equal(service.stats()["removed"], 12, "pages given back that were owed")
    sees(case, vm, 8, 8, zero=True)
    sees(case, vm, 16, 4)
    summary = over(service, vm, patient)
    check_equal(summary["requested"], 8, "pages asked for")
    vm.do(f"touch {BLOCK} 0 24")
    # those of before the end were seen once already
    wait_for("all words", lambda: len(vm.all("saw")) == 16 + 24)
    for seen in vm.all("saw")[16:]:
        page = seen["offset"] // PAGE
        check_equal(seen["word"], ZERO if page < 16 else word_of(case, page), f"page {page} at the end")


def given_back_private(case):
    given_back(case, memory="private=on")


def given_back_preempt(case):
    """Beside an urgent lane, too: the background stream then stays with the thread that reads the events."""
    given_back(case, source=("--preempt",))


def given_back_while_waiting(case):
    """A thread waits for a page, another gives it back: the first reads zero, and what comes late is left out."""
    service, vm, source = begin(case, source=("--fault", f"delay=1500@page:{BLOCK}/0"))
    vm.do(f"touch {BLOCK} 0 1")
    service.wait_waiting("vm", 1)
    vm.do(f"give {BLOCK} 0 1")
    check_equal(vm.saw(0), ZERO, "what the waiting thread reads")
    over(service, vm, source)
    lanes = service.stats()["lanes"]
    check_equal(sum(lane["duplicates"] for lane in lanes.values()), 1, "pages that came all the same")
    vm.do(f"touch {BLOCK} 0 1")
    wait_for("the second look", lambda: len(vm.all("saw", offset=0)) == 2)
    check_equal(vm.all("saw", offset=0)[1]["word"], ZERO, "page 0 at the end")


def stored(case):
    """Private pages that precopy brought and the daemon still holds."""
    service = Service(case, size=MIB)
    vm = service.sharer("vm", "main", memory="private=on", uffd="events", loaded_after=300)
    source = service.patient_source("--precopy", "all")
    vm.event("listening")
    vm.do(f"give {BLOCK} 0 8")
    vm.event("running")
    sees(case, vm, 0, 8, zero=True)
    sees(case, vm, 8, 8)
    over(service, vm, source)


def crowd_without_room(case):
    """More threads than can be parked: the event behind their faults is read all the same, and nobody is forgotten."""
    service, vm, source = begin(case, "--max-waiters", "16", source=("--fault", "delay=8000@page:0"))
    vm.do(f"touch {BLOCK} 0 64")
    service.wait_waiting("vm", 16)
    vm.do(f"give {BLOCK} {128 * PAGE} 16")
    check(not vm.all("saw"), "pages came before the memory was given back: nothing is shown")
    # nothing comes unasked: who was not heard has to fault once more
    for page in range(64):
        check_equal(vm.saw(page * PAGE), word_of(case, page), f"page {page}")
    over(service, vm, source)


def unmapped(case, memory=None):
    """A part of the block is unmapped without a word but the kernel's: the rest is served, the session ends."""
    service, vm, source = begin(case, memory=memory)
    vm.do(f"drop {BLOCK} {32 * PAGE} 16")
    wanted = service.size - 16 * PAGE
    wait_for("the mapping to be known", lambda: service.of("vm")["mapped_bytes"] == wanted)
    check_equal(service.of("vm")["mappings"], 2, "mappings")
    check_equal(service.stats()["removed"], 16 if memory else 0, "pages that nobody can see any more")
    sees(case, vm, 0, 32)
    sees(case, vm, 48, 16)
    over(service, vm, source)


def unmapped_private(case):
    unmapped(case, memory="private=on")


def moved(case, memory=None):
    """mremap(): what was waited for comes where it is now."""
    service, vm, source = begin(case, memory=memory)
    sees(case, vm, 0, 8)
    before = service.of("vm")
    vm.do(f"move {BLOCK}")
    sees(case, vm, 8, 8)
    vm.do(f"give {BLOCK} {16 * PAGE} 4")
    sees(case, vm, 16, 4, zero=True)
    check_equal((service.of("vm")["mappings"], service.of("vm")["mapped_bytes"]),
                (before["mappings"], before["mapped_bytes"]), "mappings")
    over(service, vm, source)
    sees(case, vm, 24, 8)


def moved_private(case):
    moved(case, memory="private=on")


def storm(case):
    """Pages are given back and touched by threads while everything comes, in either order: the page or zero, never more."""
    service = Service(case, expect=("vm", "other"), size=8 * MIB)
    vm = service.sharer("vm", "main", uffd="events")
    other = service.sharer("other", threads=8)
    source = service.source("--preempt", "--rate", "20M")
    vm.event("running")
    turns = 40 if LONG else 10
    for turn in range(turns):
        first = turn * 32 * PAGE
        vm.do(f"give {BLOCK} {first} 8")
        vm.do(f"touch {BLOCK} {first} 16")
    source.completed()
    other.event("touched")
    wait_for("all threads", lambda: len(vm.all("saw")) == turns * 16, PATIENCE)
    for seen in vm.all("saw"):
        page = seen["offset"] // PAGE
        if page % 32 >= 8:
            check_equal(seen["word"], word_of(case, page), f"page {page}")
        else:
            check(seen["word"] in (ZERO, word_of(case, page)), f"page {page}: {seen['word']}")
    check_equal(service.stats()["alarms"], 0, "alarms")


def too_late(case):
    """When the memory may be touched already it is refused, by what it could do instead."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.patient_source()
    vm.event("running")
    late = service.sharer("late", uffd="events")
    text = wait_for("a reason", lambda: late.all("error"))[0]["text"]
    check("EVENT_REMOVE" in text and "or open it without" in text, text)
    service.check_same(source, sharers=[vm])


CASES = [
    ("O12 owed pages given back are zero, and not asked for", given_back),
    ("O12 the same of private memory", given_back_private),
    ("O12 the same beside an urgent lane", given_back_preempt),
    ("O12 given back while a thread waits", given_back_while_waiting),
    ("O12 given back while the daemon holds the page", stored),
    ("O12 S1-12 no room for faults: events are read on, faults come again", crowd_without_room),
    ("O12 unmapped in part", unmapped),
    ("O12 private memory unmapped in part", unmapped_private),
    ("O12 moved", moved),
    ("O12 private memory moved", moved_private),
    ("O12 a storm of pages given back", storm),
    ("O12 events asked for too late: refused by name", too_late),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
