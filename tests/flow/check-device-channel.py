#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of devices on a connection of its own: whose it is, what is kept of it, who cannot get in.  (S3-43,
S3-44, S3-49, F35)"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import devstate  # noqa: E402
from devstate import Device, dial, greeting, xxh64  # noqa: E402
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import Service  # noqa: E402

SESSION = "0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21"
OTHER = "11111111-47f2-4e5b-9a4c-3d1b0a6f7e21"
KIB = 1 << 10


class Channel:
    """A daemon that listens for devices, and what it says of them."""

    def __init__(self, case, *options, uri=None, session=SESSION):
        self.uri = uri or f"unix:{case.path('devices')}"
        self.service = Service(case, "--device-channel", self.uri + (f",session={session}" if session else ""),
                               *options, expect=())
        self.uri, self.session = self.status()["address"], self.status()["session"]

    def status(self):
        return self.service.status()["device_channel"]

    def devices(self):
        return {d["id"]: d for d in self.service.status()["device_states"]}

    def wait(self, what, probe):
        return wait_for(what, lambda: probe(self.status()))

    def wait_device(self, name, state):
        return wait_for(f"{name} to be {state}", lambda: (self.devices().get(name) or {}).get("state") == state
                        and self.devices()[name])

    def wait_refused(self, text, count=1):
        said = self.wait(f"{count} connections to be refused", lambda s: s["refused"] == count and s)
        check(text in said["problem"], f"'{said['problem']}' does not say '{text}'")

    def wait_broken(self, text):
        self.wait(f"a problem with '{text}'", lambda s: s["problem"] and text in s["problem"])

    def send(self, *pieces, session=None):
        sock = dial(self.uri)
        sock.sendall(greeting(session or self.session) + b"".join(pieces))
        return sock

    def device(self, slot, name, *kind):
        return Device(self.session, slot, name, *kind)


def was_closed(sock):
    """Nothing was said, and then it ended."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def finish(sock):
    """Our direction ends; what comes back."""
    sock.shutdown(1)
    answer = b""
    while piece := sock.recv(100):
        answer += piece
    return answer


def check_whole(said, pieces, attempts=1):
    check_equal((said["state"], said["segments"], said["bytes"], said["attempts"], said["digest"]),
                ("complete", len(pieces), sum(map(len, pieces)), attempts, f"{xxh64(b''.join(pieces)):016x}"),
                said["id"])


# --- what arrives -------------------------------------------------------------------------------------

def interleaved(case):
    """Two devices, of both kinds, mixed; one of them in two attempts."""
    channel = Channel(case)
    nic, gpu = channel.device(0, "nic0"), channel.device(5, "gpu0", devstate.REGION)
    pieces = [os.urandom(n) for n in (0, 1, 70000, 4096)]
    sock = channel.send(nic.head(), nic.segment(b"stale"), gpu.head(), gpu.segment(pieces[3]), gpu.round(), nic.head(),
                        nic.segment(pieces[1]), gpu.segment(pieces[0]), nic.segment(pieces[2]), gpu.end(), nic.end())
    check_equal(finish(sock), greeting(channel.session), "answer to what is whole")
    check_whole(channel.devices()["nic0"], [pieces[1], pieces[2]], attempts=2)
    check_whole(channel.devices()["gpu0"], [pieces[3], pieces[0]])
    check_equal((channel.devices()["gpu0"]["kind"], channel.devices()["gpu0"]["rounds"]), ("region", 1), "gpu0")


def byte_by_byte(case):
    """A slow sender, over TCP, at a port of the kernel's choice, in a session that the daemon made up."""
    channel = Channel(case, uri="tcp:127.0.0.1:0", session=None)
    nic = channel.device(1, "nic0")
    sock = dial(channel.uri)
    for byte in greeting(channel.session) + nic.head() + nic.segment(b"abc") + nic.end():
        sock.sendall(bytes([byte]))
    check_equal(finish(sock), greeting(channel.session), "answer")
    check_whole(channel.devices()["nic0"], [b"abc"])
    check(channel.session in channel.service.log(), "the log does not tell the session")


def cut(case):
    """At some byte the connection breaks: what was whole stays, the rest goes, and the next attempt is the whole."""
    channel = Channel(case)
    nic, gpu = channel.device(0, "nic0"), channel.device(1, "gpu0")
    first = nic.head() + nic.segment(b"net") + nic.end()
    second = gpu.head() + gpu.segment(b"graphics" * 1000) + gpu.end()
    for n, keep in enumerate((1, len(second) // 2, len(second) - 1)):
        sock = channel.send(first, second[:keep])
        check_equal(finish(sock), b"", "answer to what was cut")
        check_equal(channel.devices()["nic0"]["state"], "complete", "nic0")
        if n:
            check_equal((channel.devices()["gpu0"]["state"], channel.devices()["gpu0"]["received"]), ("dropped", 0), "gpu0")
    check_equal(finish(channel.send(first, second)), greeting(channel.session), "answer")
    check_whole(channel.devices()["gpu0"], [b"graphics" * 1000], attempts=3)
    check_equal(channel.devices()["nic0"]["attempts"], 4, "attempts at nic0")


def taken_over(case):
    """A source that lost its connection comes again before we know."""
    channel = Channel(case)
    nic = channel.device(0, "nic0")
    lost = channel.send(nic.head(), nic.segment(b"x" * KIB)[:100])
    channel.wait_device("nic0", "coming")
    again = channel.device(0, "nic0")
    sock = channel.send(again.head(), again.segment(b"fresh"), again.end())
    check_equal(finish(sock), greeting(channel.session), "answer to the second")
    check(was_closed(lost), "the first is still inside")
    check_whole(channel.devices()["nic0"], [b"fresh"], attempts=2)


# --- what does not ------------------------------------------------------------------------------------

def wrong_greetings(case):
    channel = Channel(case)
    damaged = bytearray(greeting(SESSION))
    damaged[20] ^= 1
    rows = [(greeting(OTHER), "another session"), (greeting(SESSION, magic=b"PCDEVCHX"), "no channel"),
            (greeting(SESSION, version=2), "another version"), (bytes(damaged), "damaged"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no channel"), (os.urandom(39) + b"", "no channel")]
    for n, (said, why) in enumerate(rows, 1):
        sock = dial(channel.uri)
        sock.sendall(said)
        channel.wait_refused(why, n)
        check(was_closed(sock), f"{why}: still open")
    sock = dial(channel.uri)
    sock.sendall(greeting(SESSION)[:39])
    sock.close()
    channel.wait_refused("before its greeting", len(rows) + 1)
    check_equal(channel.devices(), {}, "devices")


def damaged_records(case):
    """Whatever is wrong ends the connection, names the reason, and leaves nothing behind."""
    channel = Channel(case, "--max-device-state", "64K")
    nic, stranger = channel.device(0, "nic0"), Device(OTHER, 0, "nic0")
    head = nic.head()
    bad = bytearray(nic.segment(b"data"))
    bad[-10] ^= 1
    large = channel.device(0, "nic0")
    rows = [(head + bytes(bad), "body is damaged"), (stranger.head(), "another session"),
            (large.head() + large.segment(b"", length=64 * KIB), "larger than"),
            (large.head() + large.segment(b"", length=1 << 62), "longer than allowed"),
            (head + os.urandom(32), "head of a record is damaged"), (head + head, "not newer")]
    for pieces, why in rows:
        sock = channel.send(pieces)
        channel.wait_broken(why)
        check(was_closed(sock), f"{why}: still open")
        check(not any(d["state"] == "complete" for d in channel.devices().values()), why)
    fine = channel.device(0, "nic0")
    check_equal(finish(channel.send(fine.head(), fine.segment(b"net"), fine.end())), greeting(channel.session), "answer")


def strangers(case):
    """Hundreds of them that say nothing, or a part, cannot keep the source out, nor fill the daemon."""
    channel = Channel(case)
    channel.wait("the channel", lambda s: s["connections"] == 0)
    before = channel.service.fds()
    crowd = [dial(channel.uri) for _ in range(8)]
    for sock in crowd:
        sock.sendall(greeting(SESSION)[:20])
    for n in range(200):
        crowd.append(dial(channel.uri))
        channel.wait("room", lambda s, n=n: s["refused"] >= len(crowd) - 16)
    check(channel.service.fds() <= before + 18, f"{channel.service.fds()} descriptors after {before}")
    nic = channel.device(0, "nic0")
    check_equal(finish(channel.send(nic.head(), nic.segment(b"net"), nic.end())), greeting(channel.session), "answer")
    check_whole(channel.devices()["nic0"], [b"net"])


def removed(case):
    """The socket goes with the daemon."""
    channel = Channel(case)
    path = channel.uri.split(":", 1)[1]
    check_equal(os.stat(path).st_mode & 0o777, 0o600, "mode of the socket")
    channel.service.child.proc.terminate()
    channel.service.child.wait(PATIENCE)
    check(not os.path.exists(path), f"{path} is still there")


CASES = [
    ("S3-43 two devices interleaved, one in two attempts", interleaved),
    ("S3-43 byte by byte, a session that was made up", byte_by_byte),
    ("S3-43 S3-49 cut, and the next attempt", cut),
    ("S3-43 a source that comes again takes its place", taken_over),
    ("S3-44 wrong greetings", wrong_greetings),
    ("S3-44 damaged, foreign and too large records", damaged_records),
    ("S3-44 strangers that send nothing", strangers),
    ("F54 the socket is the owner's, and goes", removed),
]

if __name__ == "__main__":
    missing = [name for name in ("postcopyd", "postcopyctl") if not built(name)]
    if missing:
        skip_all(f"not built: {', '.join(missing)}")
    main(CASES)
