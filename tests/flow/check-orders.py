#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The order rules O1 to O15 of design.md section 5, each as far as it shows from outside, with real faults.

Some are held elsewhere: O6 by tests/flow/inject, O10 and O11 by check-sharers.py, O15 by check-hostile.py.
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import qwire  # noqa: E402
from harness import Skip, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import D2S, S2D, Relay  # noqa: E402
from service import BLOCK, MIB, PAGE, STORED, ZERO, Service, missing_programs  # noqa: E402
from source_content import content  # noqa: E402

LONG = os.environ.get("POSTCOPY_TESTS_LONG") == "1"


def word_of(case, page, name=BLOCK, percent=0):
    """The first word of a page of the source, as `saw` shows it."""
    return content(case.seed, name, page, percent=percent)[:8][::-1].hex()


def relayed(case, service, *options, before=None, patient=False):
    """A relay and a source behind it; @before: hold the stream in front of that record."""
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    if before:
        relay.hold(S2D, before=before)
    start = service.patient_source if patient else service.source
    return relay, start(*options, to=relay.uri)


# --- O1, O4: parked, and asked for once ------------------------------------------------------------

def crowd(case, *source_options, service_options=(), threads=(66, 67, 67)):
    """Three processes, 200 threads; every page is touched by each process, and comes when it is asked for."""
    service = Service(case, *service_options, expect=("vm", "s1", "s2"), size=4 * MIB)
    names = (("vm", "main"), ("s1", "sharer"), ("s2", "sharer"))
    sharers = [service.sharer(name, role, threads=count, touch_from="listening")
               for (name, role), count in zip(names, threads)]
    source = service.source("--no-background", *source_options)
    for sharer in sharers:
        check_equal(sharer.event("touched")["pages"], service.size // PAGE, "pages touched")
    service.check_same(source, sharers=sharers)
    stats = service.stats()
    placed = sum(lane["pages"]["copy"] + lane["pages"]["zero"] for lane in stats["lanes"].values())
    check_equal(placed, service.size // PAGE, "pages placed")
    check_equal(stats["alarms"], 0, "alarms")
    check_equal(source.summary()["requested"], service.size // PAGE, "pages asked for")
    check(stats["total"]["faults"] >= service.size // PAGE, f"only {stats['total']['faults']} faults")
    return service, stats


def asked_once(case):
    _, stats = crowd(case)
    check(stats["total"]["duplicates"] > 0, "no two threads ever waited for the same page")


def asked_once_urgent(case):
    _, stats = crowd(case, "--preempt")
    check(stats["lanes"]["urgent"]["pages"]["copy"] > 0, "the urgent lane was not used")


def waiters_run_out(case):
    """16 may wait, 200 want to: the kernel's queue holds the rest, and all are served."""
    service, stats = crowd(case, service_options=("--max-waiters", "16"))
    check(stats["total"]["present"] > 0, "no message was read late, so the table never was full")
    check_equal(service.status()["faults_in_flight"], 0, "threads that still wait")


def the_last_place(case):
    """One may wait, and does, when another faults: that message is read when the place is free, though nothing else comes."""
    service = Service(case, "--max-waiters", "1", expect=("vm", "s1"))
    vm, other = service.sharer("vm", "main"), service.sharer("s1")
    relay, source = relayed(case, service, patient=True,
                            before=lambda event: event.kind in ("PAGE", "ZERO"))
    vm.event("running")
    vm.do(f"touch {BLOCK} {5 * PAGE} 1")
    relay.wait_held()
    other.do(f"touch {BLOCK} {9 * PAGE} 1")
    time.sleep(0.2)
    relay.release()
    check_equal(vm.saw(5 * PAGE), word_of(case, 5), "its word")
    check_equal(other.saw(9 * PAGE), word_of(case, 9), "the other's word")
    service.check_same(source)


# --- O2: present only after the kernel said so -------------------------------------------------------

def seen_only_when_sent(case):
    """A thread goes on only after its page went over the wire, and sees the source's word."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    relay, source = relayed(case, service, patient=True,
                            before=lambda event: event.kind in ("PAGE", "ZERO"))
    vm.event("running")
    vm.do(f"touch {BLOCK} {5 * PAGE} 1")
    relay.wait_held()
    time.sleep(0.2)
    check(not vm.all("saw"), "it saw a page that is still at the source")
    relay.release()
    check_equal(vm.saw(5 * PAGE), word_of(case, 5), "its word")
    service.check_same(source)


# --- O3: pages given back ---------------------------------------------------------------------------

def given_back(case, memory=None):
    """A balloon takes a page that was here; whoever touches it again gets zeroes, and nobody hangs."""
    service = Service(case, expect=("vm",) if memory else ("vm", "other"))
    vm = service.sharer("vm", "main", memory=memory)
    other = None if memory else service.sharer("other")
    source = service.patient_source()
    vm.event("running")
    vm.do(f"touch {BLOCK} 0 8")
    for page in range(8):
        check_equal(vm.saw(page * PAGE), word_of(case, page), "a page of the source")
    first = len(vm.all("saw"))
    vm.do(f"give {BLOCK} 0 4")
    vm.do(f"touch {BLOCK} 0 4")
    if other:
        other.do(f"touch {BLOCK} 0 4")
        check_equal(other.saw(3 * PAGE, timeout=5), ZERO, "what the other sees there")
    wait_for("the pages given back to be touched", lambda: len(vm.all("saw")) == first + 4, 5)
    check_equal({seen["word"] for seen in vm.all("saw")[first:]}, {ZERO}, "pages given back")
    vm.do(f"store {BLOCK} 0 1")
    wait_for("the store", lambda: vm.has("saw", offset=0, word=STORED), 5)
    source.completed()
    vm.event("complete")
    check(service.stats()["total"]["present"] > 0, "no fault on a page that was there")


def given_back_shared(case):
    given_back(case)


def given_back_private(case):
    given_back(case, "private=on")


# --- O5, O8: demand first; device state and faults do not wait for each other -------------------------

def demand_before_bulk(case):
    """Asked-for pages come while the background is slow: far sooner than the background could bring them."""
    service = Service(case, size=16 * MIB)
    vm = service.sharer("vm", "main", touch_from="listening")
    source = service.source("--rate", "4M", "--preempt")
    vm.event("running")
    last = service.size - 64 * PAGE
    vm.do(f"touch {BLOCK} {last} 64")
    for page in range(64):
        vm.saw(last + page * PAGE)
    left = service.status()["owed_pages_left"]
    check(left > service.size // PAGE // 4, f"only {left} pages are left: the background was faster")
    source.child.kill()


def faults_while_loading(case):
    """O8: the main sharer loads for seconds; another one's faults are served meanwhile."""
    service = Service(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main", loaded_after=3600000)
    other = service.sharer("other")
    source = service.patient_source()
    other.event("listening")
    other.do(f"touch {BLOCK} 0 32")
    for page in range(32):
        other.saw(page * PAGE)
    check(not vm.has("loaded"), "it had loaded by then")
    check_equal(service.status()["state"], "loading", "state")
    vm.do("load")
    service.check_same(source, sharers=[vm, other])


# --- O7, O15: owed is what was discarded ----------------------------------------------------------------

def owed_is_discarded(case):
    service = Service(case)
    vm = service.sharer("vm", "main", threads=2)
    relay, source = relayed(case, service, "--precopy", "half", "--rate", "40M")
    service.check_same(source)
    relay.wait_finished()
    events = list(qwire.Stream().feed(relay.main().directions[S2D].bytes()))
    owed = set()
    for event in events:
        if event.kind == "DISCARD":
            owed |= set(range(event.b, event.b + event.c, PAGE))
    status = service.status()
    check_equal(status["owed_pages"], len(owed), "owed pages")
    check_equal(status["owed_pages_left"], 0, "owed pages left")
    asked = {e.b for e in qwire.ReturnPath().feed(relay.main().directions[D2S].bytes())
             if e.kind == "REQUEST"}
    check(asked <= owed, f"asked for pages that are not owed: {sorted(asked - owed)[:5]}")


# --- O9: zero pages ---------------------------------------------------------------------------------------

def zero_pages(case, *lanes):
    """Those somebody waits for by ZEROPAGE; the others are holes until they are touched.  Nothing of them was copied."""
    service = Service(case, expect=("vm", "second"))
    sharers = [service.sharer("vm", "main", threads=2), service.sharer("second", threads=2)]
    source = service.source("--rate", "40M", *lanes, blocks=[f"{BLOCK},size={service.size},zero=50"])
    service.check_same(source, sharers=sharers)
    zeroes = source.summary()["zero"]
    pages = {name: lane["pages"] for name, lane in service.stats()["lanes"].items()}
    check_equal(sum(pages[lane][kind] for lane in ("main", "urgent") for kind in ("zero", "noted")), zeroes,
                "zero pages that came")
    noted, touched = pages["main"]["noted"], pages["store"]["zero"]
    check(0 < touched <= noted, f"{noted} were left as holes, {touched} of them placed when they were touched")


def zero_pages_urgent(case):
    zero_pages(case, "--preempt")


def zero_pages_huge(case):
    """hugetlb has no ZEROPAGE: by COPY of zeroes; content is what counts."""
    with_pages = built("tests/lib/with_hugepages")
    if not with_pages:
        raise Skip("tests/lib/with_hugepages is not built")
    keeper = case.spawn("hugepages", [with_pages, "8", "/bin/sh", "-c",
                                       "echo here; exec sleep 60"])
    wait_for("huge pages", lambda: keeper.lines() or not keeper.running())
    if not keeper.lines():
        raise Skip(f"no huge pages: {keeper.errors()}")
    service = Service(case, expect=("vm", "second"), size=8 * MIB)
    vm = service.sharer("vm", "main", memory="hugetlb=on", threads=2)
    second = service.sharer("second", memory="memfd=" + vm.path(), threads=2)
    source = service.source(blocks=[f"{BLOCK},size={service.size},page=2M,zero=50"])
    service.check_same(source, sharers=[vm, second])


# --- O12, O13: removals, aliases ---------------------------------------------------------------------------

def aliases(case):
    """One process maps the block twice; threads wait at both addresses, and in another process."""
    service = Service(case, expect=("vm", "twice"))
    vm = service.sharer("vm", "main")
    path = vm.path()
    twice = service.sharer("twice", blocks=[f"{BLOCK},size={service.size},memfd={path},alias=on"])
    source = service.patient_source("--fault", f"delay=300@page:{BLOCK}/0")
    vm.event("running")
    twice.do(f"touch {BLOCK} 0 16")
    twice.do(f"touch {BLOCK} 0 16 alias")
    vm.do(f"touch {BLOCK} 0 16")
    for page in range(16):
        wanted = word_of(case, page)
        check_equal(twice.saw(page * PAGE, alias=False), wanted, "at the first address")
        check_equal(twice.saw(page * PAGE, alias=True), wanted, "at the second address")
        check_equal(vm.saw(page * PAGE), wanted, "in the other process")
    check_equal(service.of("twice")["mappings"], 2, "mappings")
    service.check_same(source, sharers=[vm, twice])


def aliases_many(case):
    """The same for all pages, by many threads."""
    service = Service(case, expect=("vm", "twice"))
    vm = service.sharer("vm", "main", threads=8)
    twice = service.sharer("twice", threads=16,
                           blocks=[f"{BLOCK},size={service.size},memfd={vm.path()},alias=on"])
    service.check_same(service.source("--rate", "40M"), sharers=[vm, twice])


def given_back_in_a_storm(case):
    """O12: pages are given back and touched while others come in; nothing hangs, the rest is right."""
    service = Service(case, expect=("vm", "other"), size=8 * MIB)
    vm = service.sharer("vm", "main")
    other = service.sharer("other", threads=8)
    source = service.source("--rate", "30M")
    vm.event("running")
    for turn in range(40 if LONG else 8):
        first = turn * 32 * PAGE
        vm.do(f"touch {BLOCK} {first} 16")
        vm.do(f"give {BLOCK} {first} 8")
        vm.do(f"touch {BLOCK} {first} 8")
    source.completed()
    other.event("touched")
    wait_for("all threads", lambda: len(vm.all("saw")) == (40 if LONG else 8) * 24, 10)
    for seen in vm.all("saw"):
        page = seen["offset"] // PAGE
        wanted = {word_of(case, page)} | ({ZERO} if page % 32 < 8 else set())
        check(seen["word"] in wanted, f"page {page}: {seen['word']}")


# --- O14: nobody else writes ------------------------------------------------------------------------------------

def strays(case):
    """A page that a sharer wrote before LISTENING is punched, counted, and owed like the others."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    stray = case.spawn("stray", ["/usr/bin/python3", "-c",
                                 f"import os; os.pwrite(os.open({vm.path()!r}, os.O_RDWR), b'stray', "
                                 f"{9 * PAGE})"])
    stray.wait()
    relay, source = relayed(case, service, before=lambda event: event.kind == "PACKAGED")
    relay.wait_held()
    service.wait_state("discarding")
    # once more, behind the daemon's back, after it emptied the file
    subprocess.run(stray.argv, check=True, timeout=10)
    relay.release()
    service.check_same(source)
    check(service.status()["stray_pages"] >= 1, "the page was not counted")


# --- the end -------------------------------------------------------------------------------------------------------

def shut_is_last(case, lanes=()):
    """SHUT(0) leaves after the last owed page went in, after every PONG, and nothing follows it."""
    service = Service(case, expect=("vm", "second"))
    sharers = [service.sharer("vm", "main", threads=4), service.sharer("second", threads=4)]
    relay, source = relayed(case, service, "--rate", "60M", *lanes)
    service.check_same(source, sharers=sharers)
    relay.wait_finished()
    back = relay.main().directions[D2S]
    events = list(qwire.ReturnPath().feed(back.bytes()))
    check_equal(events[-1].kind, "SHUT", "the last message")
    check_equal(sum(event.kind == "SHUT" for event in events), 1, "SHUTs")
    shut_at = back.time_of(events[-1].start)
    for conn in relay.connections:
        there = conn.directions[S2D]
        check(not there.forwarded or there.time_of(there.forwarded - 1) <= shut_at, f"c{conn.number} went on after SHUT")
    times = service.status()["times"]
    check(min(times["complete_ns"], times["running_ns"]) > times["listening_ns"], f"times {times}")


def shut_is_last_urgent(case):
    shut_is_last(case, ("--preempt",))


def shut_waits_for_last(case):
    """The very last page is held back by the relay: everything else is here, and there is no SHUT."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    total, seen = service.size // PAGE, []
    relay, source = relayed(case, service, before=lambda event: event.kind == "PAGE"
                            and (seen.append(1) or len(seen) == total))
    relay.wait_held()
    wait_for("one page to be left", lambda: service.status()["owed_pages_left"] == 1)
    time.sleep(0.1)
    check(not service.status()["shut_sent"], "SHUT with a page owed")
    relay.release()
    service.check_same(source, sharers=[vm])


CASES = [
    ("O1 O4 S1-21 200 threads in three processes, asked once", asked_once),
    ("O1 O4 S1-21 200 threads in three processes, urgent lane", asked_once_urgent),
    ("O1 the waiters run out: back-pressure, all are served", waiters_run_out),
    ("O1 O5 one place for a waiter, and two who want it", the_last_place),
    ("O2 nothing is seen before it was sent", seen_only_when_sent),
    ("O3 pages given back are zero and nobody hangs, shared", given_back_shared),
    ("O3 pages given back are zero and nobody hangs, private", given_back_private),
    ("O5 demand does not wait for the background", demand_before_bulk),
    ("O8 faults are served while the device state loads", faults_while_loading),
    ("O7 O15 owed is exactly what was discarded", owed_is_discarded),
    ("O9 zero pages are placed by ZEROPAGE when somebody waits", zero_pages),
    ("O9 zero pages are placed when somebody waits, urgent lane", zero_pages_urgent),
    ("O9 zero pages of hugetlb are right", zero_pages_huge),
    ("O12 pages given back in a storm", given_back_in_a_storm),
    ("O13 P22 threads wait at both aliases", aliases),
    ("O13 P22 all pages through both aliases", aliases_many),
    ("O14 strays are punched and counted", strays),
    ("O2 SHUT is the last thing said", shut_is_last),
    ("O2 SHUT is the last thing said, urgent lane", shut_is_last_urgent),
    ("O2 SHUT waits for the last page", shut_waits_for_last),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
