#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that sends anything but what it should.  (A10, A11, A12, O2, O15)

Two ways: postcopy-source with a named fault, and a recorded stream that is cut, changed, shuffled and
continued here.  In every case: before the commit the migration is refused, with an error that says where
and why, and every sharer is told FAILED; after it the session is held, PAUSED, its connection kept; SHUT(0)
is said only when every owed page is there; and memory beside the block stays as it was.
"""
import collections
import os
import re
import select
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import qwire  # noqa: E402
from harness import Deadline, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import S2D, Relay  # noqa: E402
from service import BLOCK, PAGE, Service, missing_programs  # noqa: E402

LONG = os.environ.get("POSTCOPY_TESTS_LONG") == "1"
SIZE = 64 * PAGE
GUARD = 16 * PAGE                       # around the block, in the same file
BLOCKS = [f"{BLOCK},size={SIZE},zero=25", f"rom,size={4 * PAGE}"]
VERDICTS = ("failed", "paused", "complete")


def some(case, items, count):
    """All of them in a long run, else a few, by the seed."""
    items = list(items)
    return items if LONG or len(items) <= count else sorted(case.random.sample(items, count))


# --- named faults of postcopy-source -------------------------------------------------------------

#: fault, further options, state it ends in, what the reason says, outcome at the source
#: (None: it waits, connected, and is ended by us)
NAMED = (
    ("wrong-section@page:3", (), "paused", ("byte",), None),
    ("wrong-offset@page:3", (), "paused", ("byte",), None),
    ("wrong-name@page:3", (), "paused", ("byte",), None),
    ("unknown-flag@page:3", (), "paused", ("byte",), None),
    ("wrong-offset@page:3", ("--preempt",), "paused", ("byte",), None),
    ("unknown-flag@page:3", ("--preempt",), "paused", ("byte",), None),
    ("truncate@page:5", (), "paused", ("owed",), "postcopy-paused"),
    ("drop@page:5", (), "paused", ("owed",), "postcopy-paused"),
    ("die@page:5", ("--preempt",), "paused", ("owed",), "postcopy-paused"),
    ("early-eof@page:5", (), "paused", ("owed",), None),
    ("never-answer@page:5", (), "paused", ("1 pages still owed",), None),
    ("unknown-command@record:package", ("--commit-ping",), "failed", ("byte", "command"), "source-resumes"),
    ("huge-length", ("--commit-ping",), "failed", ("byte",), "source-resumes"),
    ("die-before-package", (), "failed", ("resumes its VM",), "source-resumes"),
    ("truncate@record:advise", (), "failed", ("resumes its VM",), "source-resumes"),
    ("truncate@record:blocks", (), "failed", ("resumes its VM",), "source-resumes"),
    ("truncate@record:discard", ("--precopy", "half"), "failed", ("resumes its VM",), "source-resumes"),
    ("truncate@record:package", (), "failed", ("resumes its VM",), "source-resumes"),
    ("die-after-package", (), "paused", ("only at the source",), "postcopy-paused"),
    ("die-after-package", ("--commit-ping",), "failed", ("resumes its VM",), "source-resumes"),
    ("truncate@record:eof", (), "paused", ("ownership unknown",), "ownership-unknown"),
    ("drop-after-eof", (), "paused", ("ownership unknown",), "ownership-unknown"),
)


def named(case, fault, options, state, words, outcome):
    service = Service(case, size=SIZE)
    loaded_after = 600 if "after-package" in fault else 0
    vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"],
                        **({"loaded_after": loaded_after} if loaded_after else {}))
    source = service.source("--fault", fault, *options, blocks=BLOCKS)
    status = service.wait_state(state)
    reason = status["error"]["reason"]
    check(all(word in reason for word in words), f"{fault}: the reason is {reason!r}")
    check_equal(status["committed"], state == "paused", f"{fault} {options}: committed")
    vm.event(state)
    if outcome:
        source.ended(outcome)
    else:
        time.sleep(0.05)
        source.child.check_running()
    check(not vm.has("complete"), f"{fault}: it was told complete")
    if state == "failed":
        check(not vm.has("running"), f"{fault}: it was told running")
    end_service(service)


def end_service(service):
    """A committed one must be asked twice; a sanitizer's report or a crash is an error."""
    service.child.check_running()
    for sharer in service.sharers:
        sharer.child.kill()
    service.child.kill(signal.SIGTERM)
    wait_for("postcopyd to end, or to refuse to",
             lambda: not service.child.running() or "not stopping" in service.log(), 5)
    service.child.kill(signal.SIGTERM)
    service.child.wait(10)
    log = service.log()
    check("Sanitizer" not in log and "runtime error" not in log, log[-2000:])


def named_faults(case):
    for row in NAMED:
        named(case, *row)


def harmless_faults(case):
    """Things that look odd and are allowed: the session completes, with the right content."""
    for fault in ("duplicate@page:7", "reorder@page:7", "delay=50@page:3"):
        service = Service(case, size=SIZE)
        vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"], threads=2)
        source = service.source("--fault", fault, blocks=BLOCKS)
        service.check_same(source, sharers=[vm])
        duplicates = service.stats()["lanes"]["main"]["duplicates"]
        check(fault[:3] != "dup" or duplicates >= 1, "the page sent twice was not counted")
        end_service(service)


def gone_as_precopy(case):
    """It finished as precopy and went while the VMM was still missing: the device state behind the pages
    is looked at for a package, and is none."""
    service = Service(case, size=SIZE)
    source = service.source("--finish-as-precopy", "--fault", "drop-after-eof", blocks=BLOCKS)
    check("resumes its VM" in service.wait_state("failed")["error"]["reason"], "the source keeps its VM")
    source.ended("ownership-unknown")
    end_service(service)


def no_end(case):
    """The stream never ends: everything is here, and SHUT is not said for all that."""
    service = Service(case, size=SIZE)
    vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"], threads=2)
    source = service.source("--fault", "no-eof", blocks=BLOCKS)
    vm.event("touched")
    wait_for("all pages", lambda: service.status()["owed_pages_left"] == 0
             and service.status()["state"] == "running")
    time.sleep(0.1)
    status = service.status()
    check_equal((status["state"], status["shut_sent"]), ("running", False), "state, SHUT")
    source.child.check_running()
    end_service(service)


def early_end_beside_urgent(case):
    """The main stream ends while pages are owed, but the urgent lane could still bring them: no SHUT."""
    service = Service(case, size=SIZE)
    vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"])
    source = service.source("--fault", "early-eof@page:5", "--preempt", blocks=BLOCKS)
    wait_for("the end of the stream", lambda: service.status()["main_eof"])
    time.sleep(0.1)
    status = service.status()
    check(not status["shut_sent"] and status["owed_pages_left"] > 0, f"status {status}")
    check(not vm.has("complete"), "it was told complete")
    check("urgent channel" in service.blockers().get("arrears", ""), f"blockers {service.blockers()}")
    source.child.check_running()
    source.child.kill()
    check("owed" in service.wait_state("paused")["error"]["reason"], "no word of what is owed")
    end_service(service)


def exits_with_reason(case):
    """Without --stay: exit status 1, and the reason on standard error."""
    service = Service(case, size=SIZE, stay=False)
    vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"])
    source = service.source("--fault", "unknown-command@record:package", "--commit-ping",
                            blocks=BLOCKS)
    service.ended(1)
    check(re.search(r"failed: .*byte \d+.*command", service.log()), service.log())
    vm.event("failed")
    source.ended("source-resumes")
    check(not os.path.exists(service.register), "the register socket is left behind")


# --- a recorded stream, changed ----------------------------------------------------------------------

class Stream:
    """A whole stream that needs no answers, and where its records are."""

    def __init__(self, data):
        self.data = data
        self.events = list(qwire.Stream().feed(data))
        self.package_end = next(e.end for e in self.events if e.kind == "PACKAGED")
        self.boundaries = sorted({e.start for e in self.events} | {e.end for e in self.events})

    @staticmethod
    def record(case):
        service = Service(case, size=SIZE)
        vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"])
        vm.event("ready")
        relay = Relay(case, "unix:" + case.path("tap"), service.uri)
        service.source("--precopy", "half", "--device-state", "700", to=relay.uri,
                       blocks=BLOCKS).completed()
        stream = Stream(relay.main().directions[S2D].bytes())
        end_service(service)
        return stream


_recorded = []


def recorded(case):
    if not _recorded:
        _recorded.append(Stream.record(case))
    return _recorded[0]


def judge(data):
    """What a second reader says: "whole", "short", "unsure", or (position, text) of the first nonsense."""
    reader = qwire.Stream()
    try:
        reader.feed(data)
    except UnicodeDecodeError:
        return "unsure"                 # it wants all names to be ASCII; a machine's may be anything
    except (qwire.WireError, struct.error, IndexError) as error:
        # A source names the block anew in each section; a destination of QEMU's remembers it beyond.
        return "unsure" if "CONTINUE without a block" in str(error) else (reader.position, str(error))
    return "whole" if reader.finished else "short"


class Replay:
    """One session fed with these bytes."""

    def __init__(self, case, data, answer_pings=True, options=()):
        self.case = case
        self.service = Service(case, *options, size=SIZE)
        self.memory = os.memfd_create("guarded")
        self.pattern = case.random.randbytes(GUARD)
        os.pwrite(self.memory, self.pattern, 0)
        os.pwrite(self.memory, self.pattern, GUARD + SIZE)
        path = f"/proc/{os.getpid()}/fd/{self.memory}"
        self.vm = self.service.sharer("vm", "main",
                                      blocks=[f"{BLOCK},size={SIZE},offset={GUARD},memfd={path}"])
        self.vm.event("ready")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.service.uri.split(":", 1)[1])
        self.sock.setblocking(False)
        self.back = bytearray()
        self.ended = False
        self.listening = answer_pings
        self._feed(data)

    def _hear(self):
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        self.ended |= not data
        self.back += data

    def verdict(self):
        """What the sharer was told; "refused" when it never became a session."""
        said = next((v for v in VERDICTS if self.vm.has(v)), None)
        return said or ("refused" if " refused: " in self.service.log() else None)

    def _feed(self, data):
        view, end = memoryview(data), time.monotonic() + 20
        while view and not self.ended and time.monotonic() < end:
            want = [self.sock] if self.listening else []
            readable, writable, _ = select.select(want, [self.sock], [], 0.05)
            if readable:
                self._hear()
            if writable and not self.ended:
                try:
                    view = view[self.sock.send(view[:1 << 16]):]
                except (BlockingIOError, ConnectionError):
                    self.ended |= self.verdict() is not None
            if not readable and not writable and self.verdict():
                return

    def wait_verdict(self, patience):
        end = time.monotonic() + patience
        while not self.verdict() and time.monotonic() < end:
            if not self.ended and self.listening and select.select([self.sock], [], [], 0.01)[0]:
                self._hear()
            else:
                time.sleep(0.01)
        return self.verdict()

    def result(self, patience):
        """(verdict, reason).  When it waits for more, the connection is ended under it."""
        verdict = self.wait_verdict(patience)
        cut = not verdict
        if cut:
            self.sock.shutdown(socket.SHUT_WR)
            verdict = self.wait_verdict(10)
            self.ended = self.ended or verdict == "refused"
            if not verdict:
                raise Deadline("it hangs: the source is gone, and no verdict comes")
        select.select([self.sock], [], [], 0.02)
        if not self.ended:
            self._hear()
        reason = "no migration" if verdict == "refused" else self.vm.event(verdict)["text"]
        shut = any(e.kind == "SHUT" and e.a == 0 for e in qwire.ReturnPath().feed(bytes(self.back)))
        check_equal(shut, verdict == "complete", f"SHUT(0) was said ({verdict}: {reason})")
        check(verdict != "failed" or not self.vm.has("running"), "refused, after RUNNING was told")
        check(verdict == "complete" or reason, f"{verdict} without a reason")
        if verdict == "paused" and not cut:
            check(not self.ended, f"the connection was not kept: {reason}")
        if verdict in ("failed", "refused") and not cut:
            wait_for("the source to see its end", lambda: self._hear() or self.ended, 5)
        return verdict, reason

    def close(self):
        for at in (0, GUARD + SIZE):
            check(os.pread(self.memory, GUARD, at) == self.pattern, "memory beside the block changed")
        os.close(self.memory)
        self.sock.close()
        end_service(self.service)


def replay(case, data, what, patience=0.15):
    """(verdict, reason) of one changed stream; what must always hold is checked."""
    run = Replay(case, data)
    try:
        verdict, reason = run.result(patience)
    except Exception:
        case.note(f"it was: {what}")
        raise
    run.close()
    return verdict, reason


def cut_at(case, stream, at):
    verdict, reason = replay(case, stream.data[:at], f"cut at byte {at}", patience=0)
    wanted = "refused" if at < 4 else "failed" if at < stream.package_end else "paused"
    check_equal(verdict, wanted, f"verdict when cut at byte {at} of {len(stream.data)} ({reason})")


def cut_at_boundaries(case):
    stream = recorded(case)
    for at in some(case, (b for b in stream.boundaries if 0 < b < len(stream.data)), 20):
        cut_at(case, stream, at)


def cut_anywhere(case):
    stream = recorded(case)
    for at in some(case, range(1, len(stream.data)) if not LONG else
                   case.random.sample(range(1, len(stream.data)), 400), 15):
        cut_at(case, stream, at)
    for at in (stream.package_end - 1, stream.package_end, stream.package_end + 1):
        cut_at(case, stream, at)


def hold_to_judge(case, stream, data, what):
    """Refused or held where the second reader says nonsense, with a place in the stream."""
    verdict, reason = replay(case, data, what)
    said = judge(data)
    if isinstance(said, tuple):
        check(verdict != "complete", f"{what}: completed, though it is nonsense ({said})")
        if said[0] < stream.package_end and "PACKAGED" not in [
                e.kind for e in safe_events(data)]:
            check(verdict in ("failed", "refused"), f"{what}: {verdict} ({reason}; {said})")
        return verdict
    if said == "short":
        check(verdict != "complete", f"{what}: completed, though it is not whole")
    return verdict


def safe_events(data):
    reader, events = qwire.Stream(), []
    try:
        for at in range(0, len(data), 512):
            events += reader.feed(data[at:at + 512])
    except (qwire.WireError, UnicodeDecodeError, struct.error, IndexError):
        pass
    return events


def flipped_fields(case):
    """A bit of every kind of record's grammar: lengths, ids, offsets, names, page sizes, flags."""
    stream = recorded(case)
    kinds = {}
    for event in stream.events:
        kinds.setdefault((event.kind, event.start < stream.package_end), []).append(event)
    for (kind, _), events in sorted(kinds.items()):
        for _ in range(40 if LONG else 2):
            event = case.random.choice(events)
            at = event.start + case.random.randrange(min(20, event.end - event.start))
            data = bytearray(stream.data)
            data[at] ^= 1 << case.random.randrange(8)
            hold_to_judge(case, stream, bytes(data), f"a bit of {kind} at byte {at}")


def magic_and_version(case):
    """Named by what is wrong, at byte 0."""
    stream = recorded(case)
    for at in range(4, 8):
        data = bytearray(stream.data)
        data[at] ^= 0x40
        verdict, reason = replay(case, bytes(data), f"version byte {at}")
        check_equal(verdict, "failed", f"version byte {at}")
        check("byte 0" in reason and "version" in reason, f"the reason is {reason!r}")


def records_shuffled(case):
    """Records left out, twice, swapped, from elsewhere."""
    stream = recorded(case)
    pairs = list(zip(stream.boundaries, stream.boundaries[1:]))
    for _ in range(300 if LONG else 24):
        (a, b), (c, d) = sorted(case.random.sample(pairs, 2))
        data = stream.data
        what, changed = case.random.choice((
            ("left out", data[:a] + data[b:]),
            ("twice", data[:b] + data[a:b] + data[b:]),
            ("swapped with the one at %d" % c, data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]),
            ("preceded by the one at %d" % c, data[:a] + data[c:d] + data[a:]),
        ))
        hold_to_judge(case, stream, changed, f"the record at byte {a}, {what}")


def never_named(case):
    """
    O15: a page that was neither sent nor discarded is refused before the package is taken.  Whether an older source
    has sent that by then cannot be known here (interop/hostile.py has one that had), and the reason says so.
    """
    stream = recorded(case)
    package = next(e.start for e in stream.events if e.kind == "PACKAGED")
    first = next(e.start for e in stream.events if e.kind == "DISCARD")
    owed = {(e.a, page) for e in stream.events if e.kind == "DISCARD"
            for page in range(e.b, e.b + e.c, PAGE)}
    sent = collections.defaultdict(list)
    for event in stream.events:
        if event.kind in ("PAGE", "ZERO") and event.end <= first:
            sent[event.a, event.b].append(event)
    records = next(records for page, records in sent.items() if page not in owed and
                   all(r.end - r.start in (8 + PAGE, 8 + 1) for r in records))   # they name no block
    data = stream.data[:package]
    for record in reversed(records):
        data = data[:record.start] + data[record.end:]
    verdict, reason = replay(case, data, "no package yet")
    check_equal(verdict, "failed", reason)
    check("neither sent nor discarded" in reason and "older than 10.2" in reason, reason)


def behind_the_end(case):
    """Whatever follows the end of the stream changes nothing: all was there."""
    stream = recorded(case)
    for tail in (b"\0", stream.data[-200:], case.random.randbytes(5000), bytes(100000)):
        verdict, reason = replay(case, stream.data + tail, f"{len(tail)} bytes behind the end")
        check(verdict in ("complete", "paused"), f"{verdict}: {reason}")


def ping(value):
    return struct.pack(">BHHI", 7, 2, 4, value)


def ping_storm(case):
    """Ten thousands of PINGs, the answers unread: refused before the commit, held after it."""
    stream = recorded(case)
    first_ping = next(e for e in stream.events if e.kind == "PING")
    check(stream.data[first_ping.start:first_ping.start + 3] in (b"\x08\x00\x02",), "no PING there")
    storm = stream.data[first_ping.start:first_ping.end] * 200000
    for where, wanted in ((first_ping.start, "failed"),
                          (stream.package_end, "paused")):
        run = Replay(case, stream.data[:where] + storm, answer_pings=False)
        verdict = run.wait_verdict(5)
        check_equal(verdict, wanted, f"verdict on a storm at byte {where}")
        check("PING" in run.vm.event(wanted)["text"], run.vm.event(wanted)["text"])
        run.close()


def return_path_storm(case):
    """With --switchover-ack each OPEN_RETURN_PATH is answered: a storm of them, unread, is refused like one of PINGs."""
    stream = recorded(case)
    opening = next(e for e in stream.events if e.kind == "OPEN_RETURN_PATH")
    storm = stream.data[opening.start:opening.end] * 400000
    run = Replay(case, stream.data[:opening.end] + storm, answer_pings=False, options=("--switchover-ack",))
    check_equal(run.wait_verdict(5), "failed", "verdict")
    check("return path" in run.vm.event("failed")["text"], run.vm.event("failed")["text"])
    run.close()


def pure_noise(case):
    """Connections that are no migration: refused by name, and a migration still comes through."""
    service = Service(case, size=SIZE)
    vm = service.sharer("vm", "main", blocks=[f"{BLOCK},size={SIZE}"], threads=1)
    vm.event("ready")
    for data, words in ((b"\x11\x22\x33\x44" + bytes(60), "multifd"), (b"GET / HTTP/1.0\r\n\r\n", "begin"),
                        (b"", "before it said anything"), (case.random.randbytes(64), "refused")):
        lines = service.log().count("refused")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(service.uri.split(":", 1)[1])
        if data:
            sock.send(data)
        else:
            sock.shutdown(socket.SHUT_WR)
        wait_for(f"{data[:8]} to be refused", lambda n=lines: service.log().count("refused") > n)
        check(words in service.log(), f"no word of {words!r} in {service.log()!r}")
        sock.close()
    service.check_same(service.source(blocks=BLOCKS), sharers=[vm])
    end_service(service)


CASES = [
    ("A11 A12 O15 named faults: refused before the commit, held after it", named_faults),
    ("O2 O4 harmless oddities complete", harmless_faults),
    ("A10 gone at the end of a precopy that nobody waited for", gone_as_precopy),
    ("O15 a stream that never ends gets no SHUT", no_end),
    ("O15 an early end beside an urgent lane gets no SHUT", early_end_beside_urgent),
    ("A12 refused without --stay: exit 1, offset and reason", exits_with_reason),
    ("A12 cut at record boundaries", cut_at_boundaries),
    ("A12 cut anywhere", cut_anywhere),
    ("A12 the version of the stream, by name", magic_and_version),
    ("A12 bits of every record's grammar", flipped_fields),
    ("A12 records left out, doubled, swapped, misplaced", records_shuffled),
    ("O15 a page nobody named, before the package", never_named),
    ("A12 bytes behind the end", behind_the_end),
    ("A12 a storm of PINGs", ping_storm),
    ("A12 a storm of OPEN_RETURN_PATHs", return_path_storm),
    ("A12 connections that are no migration, multifd by name", pure_noise),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES, limit=3600.0 if LONG else 60.0)
