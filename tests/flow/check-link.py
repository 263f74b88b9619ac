#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The way to the source is lost, and comes back, in networks of our own: who notices, when, and what comes of it.

Times are printed, not judged.  GRACE is in seconds; what must not happen is waited for for several of it.
"""
import json
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import check, check_equal, main, skip_all, wait_for  # noqa: E402
from netns import Net  # noqa: E402
from service import BLOCK, PAGE, Service, missing_programs  # noqa: E402

GRACE = 1
HERE, THERE = "10.77.1.2", "10.77.1.1"
FAR = "10.77.2.1"                       # the source, behind a router


class Events:
    """What the control socket tells by itself."""

    def __init__(self, service):
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(os.path.join(service.run_dir, "control"))
        self._sock.sendall(b'{"execute":"events"}\n')
        self._pending = b""
        self._seen = []
        wait_for("events to be on", lambda: self._take() or b"enabled" in self._last)

    def _take(self):
        self._sock.setblocking(False)
        try:
            self._pending += self._sock.recv(65536)
        except BlockingIOError:
            pass
        *lines, self._pending = self._pending.split(b"\n")
        self._last = b"".join(lines)
        self._seen += [m for m in map(json.loads, lines) if "event" in m]

    def all(self, name):
        self._take()
        return [e["data"]["text"] for e in self._seen if e["event"] == name]

    def wait(self, name, count=1):
        return wait_for(f"the event {name}", lambda: self.all(name)[count - 1:])[0]


class World:
    """A network, a daemon at one end of it, a source at the other that sends only what is asked for."""

    def __init__(self, case):
        self.case = case
        self.net = Net(case)
        self.here, self.there = self.net.add("here"), self.net.add("there")
        self.address, self.peer = HERE, THERE
        self._page = 0

    def direct(self, here=HERE, there=THERE, bits=24):
        self.net.join(self.here, "h0", f"{here}/{bits}", self.there, "t0", f"{there}/{bits}")
        self.address, self.peer = here, there
        return self

    def routed(self):
        """Over a router, and a second one that nobody uses yet."""
        self.peer = FAR
        self.router, self.other = self.net.add("router"), self.net.add("other")
        self.net.join(self.here, "h0", f"{HERE}/24", self.router, "r0", "10.77.1.1/24")
        self.net.join(self.router, "r1", "10.77.2.254/24", self.there, "t0", f"{FAR}/24")
        self.net.join(self.here, "h1", "10.77.3.2/24", self.other, "o0", "10.77.3.1/24")
        self.net.join(self.other, "o1", "10.77.4.254/24", self.there, "t1", "10.77.4.1/24")
        for router in (self.router, self.other):
            router.forward(True)
        self.here.ip("route", "add", "10.77.2.0/24", "via", "10.77.1.1")
        self.there.ip("route", "add", "10.77.1.0/24", "via", "10.77.2.254")
        self.other.ip("route", "add", "10.77.2.0/24", "via", "10.77.4.1")
        return self

    def begin(self, *options, source=("--preempt",), expect=("vm",), grace=GRACE):
        host = f"[{self.address}]" if ":" in self.address else self.address
        self.service = Service(self.case, "--link-grace", str(grace), *options, expect=expect,
                               incoming=f"tcp:{host}:0", within=self.here.within)
        self.vm = self.service.sharer("vm", "main")
        self.source = self.service.patient_source(*source, within=self.there.within)
        self.events = Events(self.service)
        return self

    def run(self, *options, **more):
        self.begin(*options, **more)
        self.vm.event("running")
        self.service.wait_state("running")
        self.page()
        return self

    def link(self):
        return self.service.status()["link"]

    def ask(self):
        """A thread touches a page that nobody has touched; its offset."""
        self._page += 1
        self.vm.do(f"touch {BLOCK} {self._page * PAGE} 1")
        return self._page * PAGE

    def page(self):
        """One page, from the source to a thread."""
        self.vm.saw(self.ask())

    def paused(self, since, *words):
        """It is paused because of one of these; how long that took."""
        status = self.service.wait_state("paused")
        took = time.monotonic() - since
        reason = status["error"]["reason"]
        check(any(word in reason for word in words), f"the reason is: {reason}")
        check_equal(status["link"]["path"], "down", "the way")
        uri = json.loads(status["recover"]["command"])["arguments"]["uri"]
        check_equal(uri, self.service.uri, "where the source is told to come")
        self.case.note(f"paused after {took:.2f} s (grace {GRACE} s): {reason.split(';')[0]}")

    def back(self, since, waiting):
        """The source comes again by itself, and the page that was asked for with it."""
        self.events.wait("link-up")
        self.case.note(f"the way was seen {time.monotonic() - since:.2f} s after it was back")
        self.vm.saw(waiting)
        self.case.note(f"the first page {time.monotonic() - since:.2f} s after the way was back")
        self.service.wait_state("running")
        self.page()
        check_equal(self.link()["path"], "up", "the way")
        self.service.check_same(self.source)

    def steady(self, seconds, state="running"):
        """It stays as it is for that long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.service.status()
            check_equal(status["state"], state, f"state ({status['error']})")
            time.sleep(0.05)
        check_equal(self.events.all("paused"), [], "pauses")


def lost_and_found(world, lose, find, *words):
    """The way is lost and found again, with a page asked for in between."""
    world.run(source=("--preempt", "--reconnect"))
    lost = time.monotonic()
    lose()
    waiting = world.ask()
    world.paused(lost, *words)
    check(world.events.all("link-down"), "no event link-down")
    found = time.monotonic()
    find()
    world.back(found, waiting)


def switch(where, link):
    return [lambda state=state: where.ip("link", "set", link, state) for state in ("down", "up")]


# --- what this host sees ------------------------------------------------------------------------------

def what_status_says(case):
    world = World(case).routed().run()
    link = world.link()
    check_equal({key: link[key] for key in ("path", "cause", "interface", "local", "peer", "via")},
                {"path": "up", "cause": None, "interface": "h0", "local": HERE, "peer": FAR, "via": "10.77.1.1"},
                "the link")
    check(link["rtt_us"] > 0 and link["rttvar_us"] > 0, f"no round trip: {link}")
    check_equal(link["congestion"], "open", "congestion")
    text = world.service.text("status")
    check("h0, from 10.77.1.2 to 10.77.2.1 via 10.77.1.1" in text, f"postcopyctl says: {text}")
    world.service.check_same(world.source)


def no_carrier(case):
    world = World(case).direct()
    lost_and_found(world, *switch(world.there, "t0"), "interface h0 has no carrier since")
    check(world.events.all("link-up"), "no event link-up")


def switched_off(case):
    world = World(case).direct()
    lost_and_found(world, *switch(world.here, "h0"), "interface h0 is switched off since")


def no_carrier_ipv6(case):
    world = World(case).direct("fd77::2", "fd77::1", 64)
    lost_and_found(world, *switch(world.there, "t0"), "interface h0 has no carrier since")


def address_removed(case):
    world = World(case).direct()
    lost_and_found(world, lambda: world.here.ip("address", "del", f"{HERE}/24", "dev", "h0"),
                   lambda: world.here.ip("address", "add", f"{HERE}/24", "dev", "h0"),
                   f"{HERE} is no address of this host any more since")


def no_route(case):
    world = World(case).routed()
    lost_and_found(world, lambda: world.here.ip("route", "add", "blackhole", f"{FAR}/32"),
                   lambda: world.here.ip("route", "del", "blackhole", f"{FAR}/32"),
                   f"there is no route to {FAR} since")


def another_route(case):
    """By the other router, on another interface: that is no loss, and nothing pauses."""
    world = World(case).routed().run()
    world.here.ip("route", "replace", "10.77.2.0/24", "via", "10.77.3.1", "src", HERE)
    wait_for("the other way", lambda: world.link()["interface"] == "h1")
    world.page()
    world.steady(2.5 * GRACE)
    world.page()
    link = world.link()
    check_equal((link["path"], link["via"]), ("up", "10.77.3.1"), "the way")
    check_equal(world.events.all("link-down"), [], "losses told")
    world.service.check_same(world.source)


def a_short_loss(case):
    """Shorter than the grace time: it is told, TCP sends again, and nothing pauses."""
    world = World(case).direct().run(grace=20)
    down, up = switch(world.there, "t0")
    down()
    world.events.wait("link-down")
    waiting = world.ask()
    up()
    world.events.wait("link-up")
    world.vm.saw(waiting)
    check_equal(world.service.status()["state"], "running", "state")
    check_equal(world.events.all("paused"), [], "pauses")
    world.service.check_same(world.source)


def no_grace(case):
    """--link-grace 0: told, and left to TCP."""
    world = World(case).direct().run(grace=0)
    down, up = switch(world.there, "t0")
    down()
    waiting = world.ask()
    check("interface h0 has no carrier" in world.events.wait("link-down"), "the event says why")
    world.steady(3)
    check_equal(world.link()["path"], "down", "the way")
    up()
    world.vm.saw(waiting)
    world.service.check_same(world.source)


# --- what only TCP sees -------------------------------------------------------------------------------

def blackhole(case):
    """A router between the two stops forwarding; pages are asked for."""
    world = World(case).routed()
    lost_and_found(world, lambda: world.router.forward(False), lambda: world.router.forward(True),
                   f"nothing comes back from {FAR}")


def blackhole_at_rest(case):
    """The same while nobody wants anything."""
    world = World(case).routed().run(source=("--preempt", "--reconnect"))
    lost = time.monotonic()
    world.router.forward(False)
    world.paused(lost, f"nothing comes back from {FAR}")
    waiting = world.ask()
    found = time.monotonic()
    world.router.forward(True)
    world.back(found, waiting)


def at_rest(case):
    """Nobody wants anything for a while: nothing pauses."""
    world = World(case).routed().run()
    world.steady(4 * GRACE)
    check(world.link()["ack_age_ms"] < 3000, f"the source's host was not asked: {world.link()}")
    world.page()
    world.service.check_same(world.source)


def frozen_source(case):
    """A source that stands still has a host that answers: nothing pauses, however long it takes."""
    world = World(case).routed().run()
    world.source.child.freeze()
    waiting = [world.ask() for _ in range(5)]
    world.steady(4 * GRACE)
    check_equal(world.events.all("link-down"), [], "losses told")
    world.source.child.thaw()
    for offset in waiting:
        world.vm.saw(offset)
    world.service.check_same(world.source)


# --- whose VM it is -----------------------------------------------------------------------------------

def before_the_commit(case):
    """The VM is the source's: it is told, and nothing is done."""
    world = World(case).direct().begin(expect=("vm", "late"))
    world.service.wait_blocker("sharer:late")
    down, up = switch(world.there, "t0")
    down()
    world.events.wait("link-down")
    world.steady(3 * GRACE, "advised")
    status = world.service.status()
    check_equal((status["committed"], status["link"]["path"]), (False, "down"), "status")
    check("has no carrier" in world.service.log(), "the log says nothing")
    up()
    world.events.wait("link-up")
    world.service.sharer("late")
    world.vm.event("running")
    world.page()
    world.service.check_same(world.source)


CASES = (
    ("F59 what status says of the link", what_status_says),
    ("F59 no carrier, and again", no_carrier),
    ("F59 no carrier, and again, IPv6", no_carrier_ipv6),
    ("F59 the interface is switched off and on", switched_off),
    ("F59 the address is removed and added", address_removed),
    ("F59 the route to the source refuses, and does not", no_route),
    ("F59 another route to the source is no loss", another_route),
    ("F59 a loss shorter than the grace time", a_short_loss),
    ("F59 no grace time: left to TCP", no_grace),
    ("F59 a blackhole without an event", blackhole),
    ("F59 a blackhole while nothing is asked for", blackhole_at_rest),
    ("F59 a connection at rest is not lost", at_rest),
    ("F59 a source that stands still is not lost", frozen_source),
    ("F59 before the commit a loss is only told", before_the_commit),
)


if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
