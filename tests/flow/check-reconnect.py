#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-source --reconnect and postcopyd lose each other, again and again.  (F59, O4)"""
import functools
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import D2S, S2D, Relay  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, missing_programs  # noqa: E402

SIZE = 8 * MIB
PONG = struct.pack(">HHI", 2, 4, 0x42)
CUTS = 5
LANES = {"one connection": (), "two": ("--preempt",), "two, as 7.2": ("--old-preempt",),
         "two, with PING 0x42": ("--preempt", "--commit-ping")}
STEPS = ("reconnect", "recv-bitmap", "bitmap", "resume", "resumed")


def begin(case, *options, through=None, threads=0):
    """@threads: of each of two processes; they touch everything, in an order of their own."""
    service = Service(case, expect=("vm", "other"), size=SIZE)
    sharers = [service.sharer("vm", "main", threads=threads), service.sharer("other", threads=threads)]
    relay = Relay(case, through, service.uri) if through else None
    source = service.source("--reconnect", "--rate", "4M", *options, to=relay and relay.uri)
    sharers[0].event("running")
    return service, sharers, source, relay


def finish(service, sharers, source):
    """All of it came, nobody saw anything else, and both ends count alike."""
    service.check_same(source)
    out, status = source.summary(), service.status()
    check_equal(status["recoveries"], out["reconnects"], "recoveries")
    check_equal(service.stats()["alarms"], 0, "alarms")
    return out


def carried(relay):
    return sum(connection.directions[S2D].forwarded for connection in relay.connections)


def cut(case, lane, reset):
    """The way between them breaks at random moments; whoever waits for a page has it in the end."""
    service, sharers, source, relay = begin(case, *lane, through="unix:" + case.path("relay"))
    if "--commit-ping" in lane:         # before that it would let its VM run again
        wait_for("PONG 0x42", lambda: PONG in relay.main().directions[D2S].bytes())
    lost = 0
    while lost < CUTS and carried(relay) < SIZE * 3 // 4:       # on a busy machine there is time for fewer
        place = carried(relay) + case.random.randrange(MIB // 16, MIB // 2)
        wait_for(f"{place} bytes to pass", lambda: carried(relay) >= place)
        for sharer in sharers:
            sharer.do(f"touch {BLOCK} {case.random.randrange(SIZE // PAGE - 8) * PAGE} 8")
        relay.cut(reset=reset)
        lost += 1
        wait_for("it to recover", lambda: service.status()["recoveries"] == lost)
    out = finish(service, sharers, source)
    check_equal(out["reconnects"], lost, "reconnections")
    check(lost, "nothing was lost")
    case.note(f"lost {lost} times, {out['resent']} pages left again")


def step_lost(case, lane):
    """Each step of the handshake is lost once, and some pages before and behind it."""
    records = [arg for step in STEPS for arg in ("--fault", f"drop@record:{step}")]
    pages = ["--fault", "drop@page:100", "--fault", "truncate@page:700", "--fault", "drop@record:end"]
    service, sharers, source, _ = begin(case, *lane, *pages, *records, threads=2)
    for sharer in sharers:
        check_equal(sharer.event("touched")["pages"], SIZE // PAGE, f"pages {sharer.name} touched")
    out = finish(service, sharers, source)
    check_equal(out["reconnects"], 4, "reconnections")
    check_equal(len(out["faults_fired"]), 3 + len(STEPS), "faults that struck")


def cases():
    for name, lane in LANES.items():
        yield f"F59 cut at random moments, {name}", functools.partial(cut, lane=lane, reset=False)
    for name, lane in list(LANES.items())[:3]:
        yield f"F59 every step lost, {name}", functools.partial(step_lost, lane=lane)
    yield "F59 reset at random moments", functools.partial(cut, lane=LANES["two"], reset=True)


if __name__ == "__main__":
    missing = missing_programs()
    if missing:
        skip_all("not built: " + ", ".join(missing))
    main(list(cases()))
