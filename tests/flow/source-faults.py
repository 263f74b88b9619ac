#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What postcopy-source does wrong when told to, and what it finds wrong in a destination (qemu-wire 8, 13.1)."""
import functools
import os
import struct
import subprocess
import tempfile

import source_case
from source_case import SEED, Run, equal, expect, output
from source_content import content

RAM = ("--block", "ram,size=256K")              # 64 pages
HUGE = ("--block", "huge,size=8M,page=2M")
SLOW = ("--rate", "1M")                         # so that pages are still owed when the answer comes
HOLD = ("--fault", "delay=300@record:ping2")   # so that it comes before the package leaves
LANES = {"main": (), "urgent": ("--preempt", "--no-background")}


def fault(*kinds):
    return [arg for kind in kinds for arg in ("--fault", kind)]


def numbers(run):
    """Target pages in the order they came."""
    return [page for _, _, page in run.r.pages]


def run_on(lane, *args, **policy):
    """64 pages, over main by the background or over the urgent connection by requests in order."""
    if lane == "urgent":
        policy.update(wanted=[("ram", page) for page in range(64)])
    return Run("tcp4", *RAM, *LANES[lane], *args, **policy)


# --- faults at a page -----------------------------------------------------------------------------

def drop_page(lane):
    run = run_on(lane, *fault("drop@page:10")).ended("postcopy-paused").fired("drop")
    equal(numbers(run), list(range(10)), "pages")
    expect(not getattr(run.r, lane).buffer, "a page was cut")


def truncate_page(lane):
    run = run_on(lane, *fault("truncate@page:10")).ended("postcopy-paused").fired("truncate")
    equal(numbers(run), list(range(10)), "whole pages")
    expect(getattr(run.r, lane).cut(), "no page was cut")


def die_page(family, ending):
    run = Run(family, *RAM, *fault("die@page:10")).ended("postcopy-paused").fired("die")
    equal(run.r.endings["main"], ending, "end of main")


def corrupt_page(lane):
    run = run_on(lane, *fault("corrupt@page:10")).completed().fired("corrupt")
    equal(run.r.differences(SEED), [("ram", 10)], "pages that differ")
    good, bad = content(SEED, "ram", 10), run.r.blocks["ram"].data[10]
    equal([i for i in range(4096) if good[i] != bad[i]], [4095], "bytes that differ")


def corrupt_zero_page():
    """The fill byte of a ZERO record is all it has."""
    run = Run("unix", "--block", "ram,size=64K,zero=100", *fault("corrupt@page:3"))
    equal(run.r.error, "fill byte", "receiver")


def reorder_page():
    run = Run("unix", *RAM, *fault("reorder@page:10")).completed().same().fired("reorder")
    equal(numbers(run)[9:13], [9, 11, 10, 12], "order")


def reorder_in_large_page():
    run = Run("unix", *HUGE, *fault("reorder@page:huge/2"))
    equal(run.r.error, "main: target page huge/2.1 where huge/2.0 was due", "receiver")


def duplicate_page(lane):
    run = run_on(lane, *fault("duplicate@page:10")).fired("duplicate").same()
    equal(run.r.duplicates, 1, "duplicates")
    equal(numbers(run)[10:12], [10, 10], "pages")


def never_answer():
    """The page is asked for, everything else comes, and the stream ends."""
    run = Run("unix", *RAM, *fault("never-answer@page:ram/40"), wanted=[("ram", 40)], finish_anyway=True)
    run.completed().fired("never-answer")
    equal(sorted(numbers(run)), [p for p in range(64) if p != 40], "pages")
    equal(run.r.outstanding, {("ram", 40)}, "unanswered requests")
    equal(run.out["withheld"], 1, "withheld")


def delay_page():
    run = Run("unix", *RAM, *fault("delay=300@page:40")).completed().same().fired("delay")
    expect((run.r.ended - run.r.started) / 0.3 >= 0.9, "nothing was delayed")


def delay_answer():
    """Only the answer is late; the background goes on beside it."""
    run = Run("unix", *RAM, "--preempt", *fault("delay=400@page:ram/63"), "--rate", "1M",
              wanted=[("ram", 63)]).completed().same()
    equal(numbers(run)[-1], 63, "last page")


def early_eof():
    run = Run("unix", *RAM, *fault("early-eof@page:10"), finish_anyway=True).fired("early-eof")
    equal(numbers(run), list(range(10)), "pages")
    expect("eof" in run.r.names(), "no end of the stream")


def bad_record(kind, text):
    for lane in ("main",) if kind == "wrong-section" else LANES:
        run = run_on(lane, *SLOW, *fault(kind + "@page:5")).fired(kind).ended("postcopy-paused")
        equal(run.r.error, text, "receiver on " + lane)


def defaults_to_first_page():
    run = Run("unix", *RAM, *fault("wrong-name"))
    equal(run.r.error, "page of unknown block no-such-block", "receiver")
    equal(numbers(run), [], "pages before")


# --- faults at a record or a byte -----------------------------------------------------------------

RECORDS = {                                     # record: the event of the record before it
    "header": None, "return-path": "header", "ping1": "return-path", "advise": "ping1",
    "blocks": "advise", "switchover": "blocks", "discard": "switchover", "ping2": "discard",
    "package": "ping2", "ping4": "listening", "end": "ping4", "eof": "end",
}
PAUSED = ("ping4", "end")


def outcome_at(record):
    return "ownership-unknown" if record == "eof" else \
        "postcopy-paused" if record in PAUSED else "source-resumes"


def commit_args(record):
    """SWITCHOVER_START needs --commit-ping, which moves the commit; elsewhere it is left out."""
    return ("--commit-ping",) if record == "switchover" else ()


def previous(record):
    return "blocks" if record == "discard" else RECORDS[record]


def truncate_record(record):
    run = Run("unix", *RAM, *commit_args(record), *fault("truncate@record:" + record))
    run.ended(outcome_at(record)).fired("truncate")
    last = "package" if record == "package" else previous(record)   # noted when its length is known
    equal(run.r.names()[-1:], [last] if last else [], "last whole record")
    expect(record == "eof" or run.r.main.cut(), "nothing was cut")


def drop_record(record):
    run = Run("unix", *RAM, *commit_args(record), *fault("drop@record:" + record))
    run.ended(outcome_at(record)).fired("drop")
    equal(run.r.names()[-1:], [previous(record)] if previous(record) else [], "last record")
    expect(record == "header" or not run.r.main.cut(), "a record was cut")


def capture(*args):
    run = Run("unix", *RAM, *args, capture=bytearray(), give_up_after=0.3)
    return run, bytes(run.r.capture)


def corrupt_byte():
    _, good = capture()
    for at in (0, 100, 5000, len(good) - 1):
        _, bad = capture(*fault("corrupt@byte:%d" % at))
        # What follows may be missing: the receiver can hang up.
        equal([i for i in range(min(len(good), len(bad))) if good[i] != bad[i]], [at], "bytes that differ")


def truncate_byte():
    _, good = capture()
    for at in (1, 100, 5000, len(good) - 1):
        run, bad = capture(*fault("truncate@byte:%d" % at))
        expect(bad == good[:at], "%d bytes came, expected the first %d" % (len(bad), at))
        run.fired("truncate")


def corrupt_record():
    run = Run("unix", *RAM, *fault("corrupt@record:ping2")).fired("corrupt")
    expect("ping2" not in run.r.names(), "the record came whole")
    expect(run.r.error, "nobody noticed")


def truncate_device():
    run = Run("unix", *RAM, "--finish-as-precopy", *fault("truncate@record:device")).fired("truncate")
    equal(run.r.names()[-1], "end", "last whole record")
    expect(run.r.main.cut(), "nothing was cut")


def truncate_eos():
    run = Run("unix", *RAM, "--old-preempt", *fault("truncate@record:eos"), shut=None).fired("truncate")
    run.ended("ownership-unknown")
    expect(not run.r.urgent_eos, "EOS came whole")


def unknown_command():
    run = Run("unix", *RAM, *fault("unknown-command", "delay=300@record:package"))
    run.ended("source-resumes").fired("unknown-command", "delay")
    equal(run.r.error, "command 99", "receiver")


def huge_length():
    run = Run("unix", *RAM, *fault("huge-length"))
    equal(run.r.error, "package of 4294967295 bytes", "receiver")


def no_eof():
    run = Run("unix", *RAM, *fault("no-eof"), give_up_after=0.3).same().fired("no-eof")
    equal(run.r.names()[-1], "end", "last record")


def extra_after_eof():
    run = Run("unix", *RAM, *fault("extra-after-eof"))
    expect(run.r.error and "behind the end of the stream" in run.r.error, "receiver: %s" % run.r.error)


def drop_after_eof():
    """Even where the destination is quick: its SHUT comes too late."""
    run = Run("tcp4", *RAM, *fault("drop-after-eof")).ended("ownership-unknown")
    equal(run.r.names()[-1], "shut", "last record")
    equal(run.out["shut"], None, "shut")


def die_before_package():
    run = Run("tcp4", *RAM, *fault("die-before-package")).ended("source-resumes")
    equal(run.r.names()[-1], "ping2", "last record")
    equal(run.r.endings["main"], "rst", "end of main")


def die_after_package():
    run = Run("tcp4", *RAM, *fault("die-after-package")).ended("postcopy-paused")
    equal(run.r.names()[-1], "listening", "last record")
    equal(run.r.endings["main"], "rst", "end of main")


def trigger():
    """The point comes first, the file later: the fault waits for it.  Without the file there is none."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "now")
        text = "drop@page:0,trigger=" + path
        run = Run("unix", *RAM, *fault(text)).completed().same().fired()
        equal(len(numbers(run)), 64, "pages")
        run = Run("unix", *RAM, "--rate", "512K", *fault(text),
                  page_hooks={20: lambda: open(path, "w").close()})
        run.ended("postcopy-paused").fired("drop")
        expect(20 <= len(numbers(run)) < 64, "%d pages came" % len(numbers(run)))


def several():
    run = Run("unix", *RAM, *fault("duplicate@page:5", "duplicate@page:9", "delay=10@record:ping2"))
    run.same().fired("duplicate", "duplicate", "delay")
    equal(run.r.duplicates, 2, "duplicates")


def all_are_known():
    """Every kind of the table has a case here."""
    kinds = [line.split()[0].split("=")[0] for line in
             output("--fault", "help").split("kinds:\n")[1].split("\n\n")[0].splitlines()]
    here = " ".join(name for name, _ in CASES)
    equal([kind for kind in kinds if kind not in here], [], "kinds without a case")


# --- the referee ----------------------------------------------------------------------------------

def asks(start, length, name=b"ram"):
    if name is None:
        return struct.pack(">HHQI", 4, 12, start, length)
    return struct.pack(">HHQIB", 3, 13 + len(name), start, length, len(name)) + name


def says(kind, value):
    return struct.pack(">HHI", kind, 4, value)


BREACHES = [                                    # what, when, the message, its name in the summary
    ("a request before LISTEN", "header", asks(0, 4096), "before LISTEN"),
    ("a request that is not aligned", "listening", asks(512, 4096), "not aligned"),
    ("a request for half a page", "listening", asks(0, 2048), "not aligned"),
    ("a request beyond the block", "listening", asks(256 << 10, 4096), "beyond the block"),
    ("a request over the end of the block", "listening", asks(252 << 10, 8192), "beyond the block"),
    ("a request of an unknown block", "listening", asks(0, 4096, b"rom"), "unknown block: rom"),
    ("a page asked for twice", "listening", asks(4096, 4096) * 2, "requested twice: ram+0x1000"),
    ("a PONG nobody asked for", "listening", says(2, 9), "PONG 0x9 without a PING"),
    ("a PONG before its PING", "header", says(2, 4), "PONG 0x4 without a PING"),
    ("a PONG twice", "listening", says(2, 1), "PONG 0x1 twice"),
    ("SWITCHOVER_ACK twice", "listening", struct.pack(">HH", 7, 0) * 2, "SWITCHOVER_ACK twice"),
]
FATAL = [                                       # after these nothing can be read
    ("a short request without a block", asks(0, 4096, None), "byte"),
    ("a message of unknown type", says(99, 0), "byte"),
    ("a request for nothing", asks(0, 0), "byte"),
    ("a request beyond every number", asks((1 << 64) - 4096, 8192), "byte"),
    ("RECV_BITMAP outside a recovery", struct.pack(">HHB3sQQQ", 5, 4, 3, b"ram", 8, 0, 0x0123456789abcdef),
     "outside a recovery"),
    ("RESUME_ACK outside a recovery", says(6, 1), "outside a recovery"),
]


def breach(when, message, text):
    """The migration goes on, and the exit status tells."""
    run = Run("unix", *RAM, *SLOW, *HOLD, inject={when: message})
    run.ended("completed").same()
    expect(text in (run.out["violation"] or ""), "violation: %s" % run.out["violation"])
    equal(run.out["violations"], 1, "violations")


def large_page_breach():
    run = Run("unix", *HUGE, inject={"listening": asks(0, 4096, b"huge")}).ended("completed")
    expect("not aligned" in run.out["violation"], run.out["violation"])


def requested_twice():
    run = Run("unix", *RAM, *SLOW, inject={"listening": asks(0, 16384) + asks(8192, 8192, None)})
    equal(run.out["requested"], 6, "requested")
    equal(run.out["requested_twice"], 2, "requested twice")
    equal(run.r.duplicates, 0, "pages sent twice")


def fatal(message, text):
    run = Run("unix", *RAM, *SLOW, inject={"listening": message}).ended("postcopy-paused")
    expect(text in (run.out["violation"] or ""), "violation: %s" % run.out["violation"])


def shut_early():
    run = Run("unix", *RAM, *SLOW, inject={"listening": says(1, 0)})
    equal(run.status, 1, "exit status")
    expect("before the end" in run.out["violation"], run.out["violation"])


def shut_error():
    run = Run("unix", *RAM, shut=5).ended("source-resumes")
    equal(run.out["shut"], 5, "shut")
    equal(run.out["violation"], "SHUT 5", "violation")


def after_shut(message, text):
    run = Run("unix", *RAM, after_shut=message)
    equal(run.status, 1, "exit status")
    expect(text in (run.out["violation"] or ""), "violation: %s" % run.out["violation"])


def no_pong():
    run = Run("unix", *RAM, mute={3}).ended("completed")
    equal(run.out["violation"], "PING 0x3 was never answered", "violation")


def switchover_ack():
    """8: legal once, whoever asked for it."""
    Run("unix", *RAM, inject={"return-path": struct.pack(">HH", 7, 0)}).completed().same()


# --- what a lost connection means (13.1) ----------------------------------------------------------

def lost(when, outcome, *args, **policy):
    run = Run("tcp4", *RAM, *SLOW, *args, close_at=when, **policy).ended(outcome)
    expect(run.out["problem"], "no reason is given")
    equal(run.out["violations"], 0, "violations")


def nobody_there():
    done = subprocess.run([source_case.PROGRAM, "--to", "unix:/nonexistent/socket", *RAM],
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=30)
    equal(done.returncode, 1, "exit status")
    expect("/nonexistent/socket: No such file" in done.stderr, done.stderr)


CASES = [("%s@page on %s" % (kind, lane), functools.partial(case, lane))
         for kind, case in (("drop", drop_page), ("truncate", truncate_page), ("corrupt", corrupt_page),
                            ("duplicate", duplicate_page)) for lane in LANES]
CASES += [
    ("die@page resets TCP", functools.partial(die_page, "tcp4", "rst")),
    ("die@page closes a UNIX socket", functools.partial(die_page, "unix", "fin")),
    ("corrupt@page of a zero page", corrupt_zero_page),
    ("reorder@page", reorder_page),
    ("reorder@page in a large page", reorder_in_large_page),
    ("never-answer@page", never_answer),
    ("delay@page", delay_page),
    ("delay@page of an answer", delay_answer),
    ("early-eof", early_eof),
    ("wrong-section", functools.partial(bad_record, "wrong-section", "footer 0x7e of section 3")),
    ("wrong-offset", functools.partial(bad_record, "wrong-offset", "offset 0x40000 beyond ram")),
    ("wrong-name", functools.partial(bad_record, "wrong-name", "page of unknown block no-such-block")),
    ("unknown-flag", functools.partial(bad_record, "unknown-flag", "page flags 0x828")),
    ("a fault of pages is at the first by default", defaults_to_first_page),
]
CASES += [("%s@record:%s" % (kind, record), functools.partial(case, record))
          for kind, case in (("truncate", truncate_record), ("drop", drop_record)) for record in RECORDS]
CASES += [
    ("truncate@record:device", truncate_device),
    ("truncate@record:eos", truncate_eos),
    ("corrupt@record", corrupt_record),
    ("corrupt@byte", corrupt_byte),
    ("truncate@byte", truncate_byte),
    ("unknown-command", unknown_command),
    ("huge-length", huge_length),
    ("no-eof", no_eof),
    ("extra-after-eof", extra_after_eof),
    ("drop-after-eof", drop_after_eof),
    ("die-before-package", die_before_package),
    ("die-after-package", die_after_package),
    ("trigger=", trigger),
    ("several faults", several),
    ("every kind has a case", all_are_known),
]
CASES += [("referee: " + name, functools.partial(breach, when, message, text))
          for name, when, message, text in BREACHES]
CASES += [("referee: " + name, functools.partial(fatal, message, text)) for name, message, text in FATAL]
CASES += [
    ("referee: a request for a part of a large page", large_page_breach),
    ("referee: pages asked for twice are counted", requested_twice),
    ("referee: SHUT 0 too early", shut_early),
    ("referee: SHUT 5", shut_error),
    ("referee: SHUT twice", functools.partial(after_shut, says(1, 0), "SHUT twice")),
    ("referee: a request after SHUT", functools.partial(after_shut, asks(0, 4096), "after SHUT")),
    ("referee: a PING never answered", no_pong),
    ("referee: SWITCHOVER_ACK once is fine", switchover_ack),
    ("lost before the package", functools.partial(lost, "discard", "source-resumes", *HOLD)),
    ("lost after the package", functools.partial(lost, "ping4", "postcopy-paused")),
    ("lost before PONG 0x42", functools.partial(lost, "ping4", "source-resumes", "--commit-ping", mute={0x42})),
    ("lost after PONG 0x42", functools.partial(lost, "ping4", "postcopy-paused", "--commit-ping")),
    ("lost between the end and SHUT", functools.partial(lost, "eof", "ownership-unknown")),
    ("nobody there", nobody_there),
]

if __name__ == "__main__":
    source_case.main(CASES)
