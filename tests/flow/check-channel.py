#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Strangers at the incoming port, before, between and after the source's own connections.  (A1, F59)"""
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Skip, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import S2D, Relay, connect, free_tcp_uri, parse_uri  # noqa: E402
from service import BLOCK, PAGE, Service, missing_programs  # noqa: E402

PAGES = 24                      # that are touched
SLOTS = 32                      # candidates that are kept: CANDIDATES in channel.c


def closed(sock):
    """Has the daemon hung up?"""
    sock.settimeout(10)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False


def is_open(sock):
    sock.settimeout(0.05)
    try:
        return sock.recv(1) != b""
    except socket.timeout:
        return True
    except ConnectionResetError:
        return False


def word(page, flags, name=BLOCK):
    return struct.pack(">QB", page * PAGE | flags, len(name)) + name.encode()


class Scene:
    """A source with an urgent channel behind a relay that stops where a stranger may come."""

    def __init__(self, case, incoming, *source_options):
        self.case = case
        self.service = Service(case, incoming=incoming, expect=("vm", "other"))
        self.vm = self.service.sharer("vm", "main")
        self.other = self.service.sharer("other")
        self.options = source_options or ("--preempt",)
        self.relay = self.source = None

    def stranger(self, says=b""):
        sock = connect(self.service.uri)
        self.case.defer(sock.close)
        sock.sendall(says)
        return sock

    def begin(self):
        """The main channel is there and known, the urgent one (from 8.0 on) is still to come."""
        self.relay = Relay(self.case, "unix:" + self.case.path("relay"), self.service.uri)
        self.relay.hold(S2D, before=lambda event: event.kind == "BLOCK")
        self.source = self.service.patient_source(*self.options, to=self.relay.uri)
        self.relay.wait_held()
        wait_for("the main channel to be known", lambda: self.service.status()["source"])

    def go_on(self):
        self.relay.release()
        self.vm.event("running")

    def end(self, late=()):
        """Pages come on the urgent lane, whoever else is there; nothing is lost."""
        self.vm.do(f"touch {BLOCK} 0 {PAGES}")
        for page in range(PAGES):
            self.vm.saw(page * PAGE)
        for sock in late:
            check(closed(sock), "a stranger is still connected beside the urgent lane")
        lanes = self.service.stats()["lanes"]
        check(lanes["urgent"]["pages"]["copy"] + lanes["urgent"]["pages"]["zero"] >= PAGES,
              f"the urgent lane was not used: {lanes}")
        self.service.check_same(self.source, sharers=[self.vm, self.other])


def silent(case, incoming, *options):
    """Silent ones from where the source is: they may stay until the urgent channel speaks, and go then."""
    scene = Scene(case, incoming, *options)
    strangers = [scene.stranger()]
    scene.begin()
    strangers.append(scene.stranger())
    scene.go_on()
    strangers.append(scene.stranger())
    for sock in strangers:
        check(is_open(sock), "a silent candidate was refused although the urgent channel has not spoken")
    scene.end(strangers)
    late = scene.service.log().count("running already")
    check(late >= len(strangers), f"{late} refusals in the log, not {len(strangers)}")


def silent_tcp(case):
    silent(case, free_tcp_uri("127.0.0.1"))


def silent_tcp6(case):
    silent(case, free_tcp_uri("::1"))


def silent_unix(case):
    silent(case, None)


def silent_old_tcp(case):
    """7.2 dials its urgent channel at once."""
    silent(case, free_tcp_uri("127.0.0.1"), "--old-preempt")


def silent_old_unix(case):
    silent(case, None, "--old-preempt")


def talking(case, incoming):
    """Those that say something wrong are refused for it, wherever they come; none ends the session."""
    scene = Scene(case, incoming)
    before = [scene.stranger(b"GET / HTTP/1.1\r\n"), scene.stranger(b"Q")]
    check(closed(before[0]), "nonsense before the main channel")
    scene.begin()
    between = [scene.stranger(b"GET / HTTP/1.1\r\n"), scene.stranger(b"QEVM\0\0\0\3"),
               scene.stranger(word(1, 0x28)), scene.stranger(word(1, 0x08, "nosuch")),
               scene.stranger(word(1 << 40, 0x08)), scene.stranger(struct.pack(">QB", 0x08, 0))]
    for sock in between:
        check(closed(sock), "nonsense beside the main channel")
    scene.go_on()
    after = scene.stranger(word(1, 0x08, "nosuch"))
    check(closed(after), "nonsense while the VM runs")
    check_equal(scene.service.status()["state"], "running", "state")
    scene.end([before[1]])
    check(scene.service.log().count("does not begin as") >= 5, scene.service.log())


def talking_tcp(case):
    talking(case, free_tcp_uri("127.0.0.1"))


def talking_unix(case):
    talking(case, None)


def elsewhere(case):
    """From another address than the main channel's: refused at once, silent or not."""
    scene = Scene(case, "tcp:127.0.0.1:0")
    _, address = parse_uri(scene.service.uri)

    def stranger():
        sock = socket.socket(socket.AF_INET)
        case.defer(sock.close)
        sock.bind(("127.0.0.2", 0))
        sock.connect(address)
        return sock
    early = stranger()
    scene.begin()
    check(closed(early), "one from elsewhere was kept beside the main channel")
    check(closed(stranger()), "one from elsewhere may be the urgent channel")
    check("another address" in scene.service.log(), scene.service.log())
    scene.go_on()
    scene.end()


def another_user(case):
    """On a UNIX socket: another user's."""
    if os.geteuid() != 0:
        raise Skip("needs root, to be somebody else")
    scene = Scene(case, None)
    scene.begin()
    for path in (case.dir, scene.service.uri.split(":", 1)[1]):
        os.chmod(path, 0o777)
    sock = socket.socket(socket.AF_UNIX)
    case.defer(sock.close)
    os.seteuid(65534)
    try:
        sock.connect(scene.service.uri.split(":", 1)[1])
    finally:
        os.seteuid(0)
    check(closed(sock), "another user may be the urgent channel")
    check("another user" in scene.service.log(), scene.service.log())
    scene.go_on()
    scene.end()


def crowd(case, incoming):
    """More of them than are kept: the source finds room all the same, and its urgent channel beside half as many keeps it."""
    scene = Scene(case, incoming)
    strangers = [scene.stranger() for _ in range(SLOTS + SLOTS // 2)]
    scene.begin()
    strangers += [scene.stranger() for _ in range(SLOTS // 4)]
    scene.go_on()
    strangers += [scene.stranger() for _ in range(SLOTS // 4)]
    wait_for("the crowd to be looked at", lambda: scene.service.log().count("too many connections") >= SLOTS)
    check(scene.service.fds() < 100, f"{scene.service.fds()} descriptors")
    scene.end(strangers)


def crowd_tcp(case):
    crowd(case, free_tcp_uri("127.0.0.1"))


def crowd_unix(case):
    crowd(case, None)


def beside_one_lane(case):
    """A source without an urgent channel: a silent stranger costs it nothing, and goes at the end."""
    scene = Scene(case, None, "--commit-ping")
    before = scene.stranger()
    scene.begin()
    scene.go_on()
    after = scene.stranger()
    scene.vm.do(f"touch {BLOCK} 0 {PAGES}")
    for page in range(PAGES):
        scene.vm.saw(page * PAGE)
    scene.service.check_same(scene.source, sharers=[scene.vm, scene.other])
    for sock in (before, after):
        check(closed(sock), "it is still connected after the end")
    check_equal(scene.service.stats()["lanes"]["urgent"]["bytes"], 0, "bytes of an urgent lane")


CASES = [
    ("A1 silent strangers before, between and after, TCP", silent_tcp),
    ("A1 silent strangers before, between and after, TCP over IPv6", silent_tcp6),
    ("A1 silent strangers before, between and after, UNIX", silent_unix),
    ("A1 silent strangers and an urgent channel dialled at once, TCP", silent_old_tcp),
    ("A1 silent strangers and an urgent channel dialled at once, UNIX", silent_old_unix),
    ("A1 strangers that talk are refused and end nothing, TCP", talking_tcp),
    ("A1 strangers that talk are refused and end nothing, UNIX", talking_unix),
    ("A1 from another address it cannot be the urgent channel", elsewhere),
    ("A1 another user's cannot be the urgent channel", another_user),
    ("A1 a crowd of strangers, TCP", crowd_tcp),
    ("A1 a crowd of strangers, UNIX", crowd_unix),
    ("A1 silent strangers beside a source with one channel", beside_one_lane),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
