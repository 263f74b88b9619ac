#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-source --reconnect: what it does when the connection is lost (F15, F59; qemu-wire 13)."""
import functools
import os
import random
import struct
import tempfile
import time

import source_case
from source_case import Run, equal, expect, usage
from source_resumer import Resumer, answer

RAM = ("--block", "ram,size=256K")              # 64 pages
MIXED = ("--block", "ram,size=4M,zero=30", "--block", "huge,size=8M,page=2M,zero=20",
         "--block", "rom,size=68K,zero=100")
ZERO = {"ram": 30, "huge": 20, "rom": 100}
TARGET_PAGES = (4 << 20 | 8 << 20 | 68 << 10) // 4096
LANES = {"main": (), "urgent": ("--preempt",), "old urgent": ("--old-preempt",)}
SLOW = ("--rate", "1M")
SEED = int(os.environ.get("POSTCOPY_SEED", random.SystemRandom().randrange(1 << 31)))


def run_again(*args, family="tcp4", **policy):
    """A run that loses its connection and goes on."""
    policy.setdefault("accept_urgent", "--preempt" in args or "--old-preempt" in args)
    policy.setdefault("old_urgent", "--old-preempt" in args)
    return Run(family, "--reconnect", *args, receiver=Resumer, timeout=60.0, **policy)


def host_pages(run):
    return sum(b.length // b.page_size for b in run.r.blocks.values())


def went_on(run, reconnects=1, **zero):
    """All is there and nothing that the destination had came again."""
    run.completed().same(**zero)
    equal(run.out["reconnects"], reconnects, "reconnects")
    equal(run.out["pages"], host_pages(run) - run.r.kept + run.out["resent"], "pages that left")
    equal(run.out["owed"], 0, "owed")
    return run


# --- the rest, and only the rest --------------------------------------------------------------------

def complement(lane, family):
    """Cut once in the middle.  Before a byte of ram follows, all bitmaps are asked for and RESUME is said."""
    run = went_on(run_again(*MIXED, *LANES[lane], family=family, cut_after=[TARGET_PAGES // 2], request_depth=4,
                            rng=random.Random(SEED)), **ZERO)
    names = run.r.names()
    at = names.index("recovery")
    wanted = ["recovery"] + ["urgent"] * (lane == "old urgent") + ["recv-bitmap"] * 3 + \
        ["urgent"] * (lane == "urgent") + ["resume"]
    equal(names[at:at + len(wanted)], wanted, "the handshake")
    equal(names[at + len(wanted):], ["end", "eof", "shut"], "behind it")
    expect(run.r.losses == 1 and 0 < run.r.lacking[0] < TARGET_PAGES, "lacking %r" % run.r.lacking)


def many(lane):
    rng = random.Random(SEED)
    cuts = sorted(rng.randrange(TARGET_PAGES) for _ in range(25))
    run = run_again(*MIXED, *LANES[lane], cut_after=cuts, request_depth=4, rng=rng)
    went_on(run, run.r.losses, **ZERO)
    expect(run.r.losses >= 15, "only %d losses" % run.r.losses)


def names_forgotten():
    """Neither end remembers which block it named last."""
    run = went_on(run_again(*RAM, cut_after=[20], wanted=[("ram", 60)], **{"pong_delay": {}}))
    equal(run.r.named["main"], 2, "records with a name")


def asked_again():
    """Requests that were sent again are answered, each of them."""
    run = went_on(run_again(*RAM, "--no-background", request_depth=8, rng=random.Random(SEED), cut_after=[10, 30]), 2)
    equal(run.out["requested_twice"], 0, "requested twice")


def precopied():
    """Pages that were clean at the switch-over are there, and are not sent again; the dirty ones are."""
    run = went_on(run_again("--block", "ram,size=1M", "--precopy", "half", cut_after=[170]))
    expect(run.out["precopied"] > 0, "nothing was precopied")


def nothing_left():
    """Lost between the end of the stream and SHUT: it comes back, as a source that keeps its VM stopped."""
    run = went_on(run_again(*RAM, cut_at=["eof"]))
    equal(run.r.lacking, [0], "pages that lack at RESUME")
    equal(run.r.names().count("eof"), 2, "ends of the stream")
    equal(run.out["resent"], 0, "pages sent again")


def committed():
    """With a PING 0x42 a loss is a pause once that is answered."""
    went_on(run_again(*RAM, *SLOW, "--commit-ping", cut_after=[40]))


def withheld():
    """A page that was never sent before the loss comes behind it."""
    went_on(run_again(*RAM, "--fault", "never-answer@page:ram/3", cut_after=[30]))


# --- no pause ---------------------------------------------------------------------------------------

def resumes(*args, **policy):
    """Before the commit the source's VM would run again: nothing is tried."""
    run = Run("tcp4", *RAM, "--reconnect", *args, receiver=Resumer, patience=0, **policy).ended("source-resumes")
    equal(run.out["reconnects"], 0, "reconnects")
    expect("connecting again" not in run.errors, run.errors)


def without():
    run = Run("tcp4", *RAM, *SLOW, receiver=Resumer, patience=0, cut_after=[20]).ended("postcopy-paused")
    expect("connecting again" not in run.errors, run.errors)


def died():
    """A source that dies does not come back."""
    run = run_again(*RAM, "--fault", "die@page:20", patience=0).ended("postcopy-paused").fired("die")
    equal(run.out["reconnects"], 0, "reconnects")


def too_long():
    """Nobody listens any more: it says for how long it tried, and what it got."""
    run = Run("unix", *RAM, *SLOW, "--reconnect=1", receiver=Resumer, patience=0, cut_after=[20])
    run.ended("postcopy-paused")
    expect(run.out["problem"].startswith("not resumed within 1 s: "), run.out["problem"])
    expect("unix:" in run.out["problem"], "no address in: " + run.out["problem"])
    expect(run.out["duration_ms"] >= 1000, "it gave up after %d ms" % run.out["duration_ms"])


def too_long_behind_the_end():
    for fault in (), ("--fault", "drop-after-eof"):
        Run("unix", *RAM, "--reconnect=1", *fault, receiver=Resumer, patience=0,
            cut_at=[] if fault else ["eof"]).ended("ownership-unknown")


def never_acknowledged():
    """The limit holds for the handshake, too."""
    run = Run("unix", *RAM, *SLOW, "--reconnect", "1", receiver=Resumer, patience=1, cut_after=[20],
              twist=[lambda name, text: b""]).ended("postcopy-paused")
    expect("bitmaps of the destination did not come" in run.out["problem"], run.out["problem"])


def backs_off():
    """At once, and then not as fast as it can: 0, 50, 150, 350, ... ms, then once a second."""
    began = time.monotonic()
    run = went_on(run_again(*RAM, cut_after=[20], refuse=5))
    took = time.monotonic() - began
    equal(run.r.dials, 7, "main connections")
    expect(took >= 1.5, "six attempts in %g s" % took)
    expect(run.out["paused_ms"] >= 1500, "paused for %d ms" % run.out["paused_ms"])


# --- the handshake goes wrong -----------------------------------------------------------------------

def twisted(change):
    """Only the block ram's answer, whose 64 pages are 8 bytes."""
    return lambda name, text: change(text) if name == "ram" else text


def bits_of(text):
    return text[-16:-8]


REFUSED = [                                     # what, the answer, what is said
    ("of 16 bytes", lambda text: answer("ram", bytes(16)), "bitmap of ram has 16 bytes, not 8"),
    ("of 4 bytes", lambda text: answer("ram", bytes(4)), "bitmap size is not a multiple of 8"),
    ("of no bytes", lambda text: answer("ram", b""), "bitmap size is not a multiple of 8"),
    ("of too many bytes", lambda text: answer("ram", bytes(8), size=1 << 62), "not 8"),
    ("with another end mark", lambda text: answer("ram", bits_of(text), mark=0x1234), "ends with 0x1234"),
    ("that is little-endian at its end", lambda text: text[:-8] + text[:-9:-1], "ends with 0xefcdab8967452301"),
    ("of another block", lambda text: answer("rom", bits_of(text)), "bitmap of rom where that of ram is due"),
    ("that comes twice", lambda text: text * 2, "bitmap of ram that is not due"),
    ("and a word nobody knows", lambda text: struct.pack(">HHI", 99, 4, 0), "return path at byte 0: unknown"),
    ("or RESUME_ACK at once", lambda text: struct.pack(">HHI", 6, 4, 1), "RESUME_ACK that is not due"),
]


def went_on_after_a_breach(run, text, reconnects=1):
    run.ended("completed").same()
    equal(run.r.error, None, "receiver")
    equal(run.r.duplicates, 0, "pages sent twice")
    equal(run.out["violations"], 1, "violations")
    expect(text in run.out["violation"], "violation: %s" % run.out["violation"])
    equal(run.out["reconnects"], reconnects, "reconnects")


def refused(change, text):
    """It is said what is wrong, and the next attempt is a good one."""
    run = run_again(*RAM, cut_after=[20], twist=[twisted(change)])
    went_on_after_a_breach(run, text)
    expect(run.r.dials == 3, "%d main connections" % run.r.dials)


def refused_ack():
    run = run_again(*RAM, cut_after=[20], acks=[2])
    went_on_after_a_breach(run, "resume acknowledged with a value other than 1")


def refused_for_good():
    """Always wrong: it ends with the limit, and says what was wrong."""
    run = Run("unix", *RAM, *SLOW, "--reconnect=1", receiver=Resumer, cut_after=[20], give_up_after=1.5,
              twist=[twisted(lambda text: answer("ram", bytes(16)))] * 50).ended("postcopy-paused")
    expect("bitmap of ram has 16 bytes, not 8" in run.out["problem"], run.out["problem"])


def set_bits(*pages):
    def change(text):
        bits = bytearray(bits_of(text))
        for page in pages:
            bits[page // 8] |= 1 << page % 8
        return answer("ram", bits)
    return change


def never_sent():
    """Nobody can have what never left: the page is sent."""
    run = run_again(*RAM, *SLOW, cut_after=[20], twist=[twisted(set_bits(63))])
    went_on_after_a_breach(run, "the never sent page ram+0x3f000")


def padding():
    run = run_again("--block", "ram,size=128K", *SLOW, cut_after=[10], twist=[twisted(set_bits(32))])
    went_on_after_a_breach(run, "bitmap of ram goes on behind the block")


def part_of_a_page():
    run = run_again("--block", "huge,size=4M,page=2M", "--fault", "delay=200@page:1", cut_after=[512 + 5],
                    twist=[lambda name, text: answer(name, bytes([1]) + bytes(127))])
    run.ended("completed")
    expect("a part of page huge+0" in run.out["violation"], run.out["violation"])
    equal(run.r.duplicates, 512, "target pages that came again")


def request_too_early():
    request = struct.pack(">HHQIB", 3, 16, 63 * 4096, 4096, 3) + b"ram"
    run = run_again(*RAM, cut_after=[20], before_ack=request)
    went_on_after_a_breach(run, "before RESUME_ACK: ram+0x3f000")


# --- faults of ours in it ---------------------------------------------------------------------------

def strikes(kind, record):
    """We lose it ourselves, in the middle of the handshake or directly behind."""
    args = ("--preempt",) if record == "resume" else ()
    run = run_again(*MIXED, *args, "--fault", "%s@record:%s" % (kind, record), cut_after=[800])
    went_on(run, 2 if record == "resumed" and kind == "drop" else 1, **ZERO).fired(kind.split("=")[0])
    equal(run.r.dials, 2 if "delay" in kind else 3, "main connections")


def strikes_again_and_again():
    """Every step of it is lost once, one after the other."""
    records = ("reconnect", "recv-bitmap", "bitmap", "resume", "resumed")
    faults = [arg for record in records for arg in ("--fault", "drop@record:" + record)]
    went_on(run_again(*RAM, *faults, cut_after=[20]), 2).fired(*["drop"] * 5)


def drops_and_comes_back():
    """Without any help of the destination: pages, then the last words."""
    run = run_again(*RAM, "--fault", "drop@page:10", "--fault", "truncate@page:30", "--fault", "drop@record:end")
    went_on(run, 3).fired("drop", "truncate", "drop")


def usage_errors():
    to = ("--to", "unix:/nowhere", *RAM)
    for value in ("0", "x", "-1", "1.5"):
        expect("--reconnect %s: whole seconds" % value in usage(*to, "--reconnect=" + value), value)
    expect("--finish-as-precopy" in usage(*to, "--reconnect", "--finish-as-precopy"), "precopy")


CASES = [("complement over %s, %s" % (lane, family), functools.partial(complement, lane, family))
         for lane in LANES for family in ("tcp4", "unix")]
CASES += [("many losses over %s" % lane, functools.partial(many, lane)) for lane in LANES]
CASES += [
    ("names are forgotten", names_forgotten),
    ("what was asked for is asked for again, and answered", asked_again),
    ("precopied pages", precopied),
    ("lost between the end and SHUT", nothing_left),
    ("lost after PONG 0x42", committed),
    ("a page held back before the loss", withheld),
    ("no pause: lost before the package", functools.partial(resumes, "--fault", "drop@record:package")),
    ("no pause: lost before PONG 0x42", functools.partial(resumes, "--commit-ping", mute={0x42}, cut_at=["ping4"])),
    ("no pause: without the option", without),
    ("no pause: it died", died),
    ("the time is over", too_long),
    ("the time is over, behind the end", too_long_behind_the_end),
    ("the time is over in the handshake", never_acknowledged),
    ("it backs off", backs_off),
]
CASES += [("refused: a bitmap " + name, functools.partial(refused, change, text)) for name, change, text in REFUSED]
CASES += [
    ("refused: RESUME_ACK 2", refused_ack),
    ("refused: always", refused_for_good),
    ("breach: a page that was never sent", never_sent),
    ("breach: bits behind the block", padding),
    ("breach: a part of a large page", part_of_a_page),
    ("breach: a request before RESUME_ACK", request_too_early),
]
CASES += [("%s@record:%s" % (kind, record), functools.partial(strikes, kind, record))
          for record in ("reconnect", "recv-bitmap", "bitmap", "resume", "resumed") for kind in ("drop", "delay=50")]
CASES += [
    ("truncate@record:recv-bitmap", functools.partial(strikes, "truncate", "recv-bitmap")),
    ("truncate@record:resume", functools.partial(strikes, "truncate", "resume")),
    ("every step is lost once", strikes_again_and_again),
    ("it drops the connection and comes back", drops_and_comes_back),
    ("usage", usage_errors),
]

if __name__ == "__main__":
    print("# POSTCOPY_SEED=%d" % SEED)
    source_case.main(CASES)
