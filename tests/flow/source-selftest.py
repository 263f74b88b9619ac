#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-source against an independent reading of the protocol (F04, F59; qemu-wire 3-12, 16)."""
import functools
import os
import random
import re
import struct
import tempfile

import source_case
from source_case import SEED, Run, equal, expect, output, usage

MIXED = ("--block", "ram,size=4M,zero=30", "--block", "huge,size=8M,page=2M,zero=20",
         "--block", "rom,size=64K,zero=100")
ZERO = {"ram": 30, "huge": 20, "rom": 100}
FAMILIES = ("unix", "tcp4", "tcp6")
REQUEST_SEED = int(os.environ.get("SOURCE_SEED", random.SystemRandom().randrange(1 << 31)))


def requests(depth=4, **more):
    return dict(request_depth=depth, rng=random.Random(REQUEST_SEED), **more)


def host_pages(run):
    return sum(b.length // b.page_size for b in run.r.blocks.values())


def before(run, first, second):
    names = run.r.names()
    expect(first in names and second in names and names.index(first) < names.index(second),
           "%s is not before %s in %s" % (first, second, names[:12] + ["..."] + names[-6:]))


# --- whole migrations -----------------------------------------------------------------------------

def whole(family, lane):
    run = Run(family, *MIXED, *lane, **requests()).completed().same(**ZERO)
    equal(run.out["pages"], host_pages(run), "pages")
    equal(run.out["requested"], run.r.requests, "requests counted")
    equal(run.out["pongs"], 4, "pongs")
    equal(run.out["main_bytes"], run.r.main.position, "bytes on main")
    before(run, "advise", "blocks")
    before(run, "ping2", "package")
    before(run, "package", "ping4")
    before(run, "end", "eof")


def lane_of_answers(lane, name):
    """Only what is asked for, so every page goes where answers go."""
    run = Run("tcp4", "--block", "ram,size=1M", "--block", "huge,size=4M,page=2M", "--no-background",
              *lane, **requests(8)).completed().same()
    equal({page[0] for page in run.r.pages}, {name}, "lanes")
    equal(run.r.requests, host_pages(run), "requests")
    equal(run.out["urgent_pages"], host_pages(run) if name == "urgent" else 0, "urgent pages")


def urgent_when():
    run = Run("unix", *MIXED, "--preempt", **requests()).completed()
    before(run, "ping1", "urgent")
    before(run, "urgent", "discard")
    expect(not run.r.urgent_eos, "EOS on the urgent connection")


def urgent_waits_for_pong():
    run = Run("unix", "--block", "ram,size=64K", "--preempt", pong_delay={1: 0.2}).completed().same()
    before(run, "pong1", "urgent")
    before(run, "urgent", "discard")


def old_preempt():
    run = Run("unix", *MIXED, "--old-preempt", **requests()).completed().same(**ZERO)
    expect(run.r.urgent_eos, "no EOS on the urgent connection")
    urgent = sum(1 for page in run.r.pages if page[0] == "urgent")
    equal(run.r.named["urgent"], urgent, "urgent records with a name")


def continue_flag(value):
    run = Run("unix", "--block", "ram,size=1M", "--continue-flag", value).completed().same()
    equal(run.r.named["main"], 1 if value == "on" else 256, "records with a name")


def interleave():
    """10: the accumulator of a large page has to survive the end of a section."""
    run = Run("unix", "--block", "huge,size=16M,page=2M", "--preempt", "--huge-interleave",
              **requests(2)).completed().same()
    expect(run.r.splits > 0, "no large page was cut")
    expect(run.r.requests > 0, "nothing was asked for")


def interleave_off():
    run = Run("unix", "--block", "huge,size=8M,page=2M", "--preempt").completed().same()
    equal(run.r.splits, 0, "large pages that were cut")


# --- precopy --------------------------------------------------------------------------------------

def precopy(share):
    run = Run("unix", *MIXED, "--precopy", share, **requests()).completed().same(**ZERO)
    discarded = sum(length // run.r.blocks[b].page_size
                    for b in run.r.blocks for _, length in run.r.blocks[b].discarded)
    equal(run.out["pages"], discarded, "pages sent after the switch-over")
    expect(run.out["precopied"] >= host_pages(run) // 2, "few pages before the switch-over")
    if share == "all":
        equal(run.out["precopied"], host_pages(run), "pages before the switch-over")


def stale_content():
    """A destination that keeps a discarded page has to be found out, so it must differ."""
    run = Run("unix", "--block", "ram,size=2M,zero=10", "--precopy", "all").completed().same(ram=10)
    block = run.r.blocks["ram"]
    expect(len(block.stale) > 32, "few pages were dirtied again")
    equal([p for p in block.stale if block.stale[p] == block.data[p]], [], "stale pages that are right")


def no_precopy_discards_all():
    run = Run("unix", "--block", "ram,size=1M").completed()
    equal(run.r.blocks["ram"].discarded, [(0, 1 << 20)], "ranges")
    equal(run.r.blocks["ram"].stale, {}, "pages before")


def finishes_as_precopy():
    run = Run("unix", *MIXED, "--finish-as-precopy").completed().same(**ZERO)
    expect("package" not in run.r.names() and "discard" not in run.r.names(), "a switch-over")
    equal(run.r.naked[0], "globalstate", "device section")
    equal(len(run.r.naked[1]), 104, "its length")
    described = run.r.description["devices"][0]
    equal(sum(f["size"] for f in described["fields"]), 104, "described length")


# --- package --------------------------------------------------------------------------------------

def commit_ping():
    """6.1: the source does not end before PONG 0x42, however long that takes."""
    run = Run("unix", "--block", "ram,size=64K", "--commit-ping", pong_delay={0x42: 0.3})
    run.completed().same()
    equal(run.r.package_pings, [3, 0x42], "pings in the package")
    before(run, "switchover", "discard")
    before(run, "pong66", "end")
    equal(run.out["pongs"], 5, "pongs")


def device_file():
    sections = struct.pack(">BIB", 4, 77, 3) + b"dev" + bytes(8) + b"state" + struct.pack(">BI", 0x7e, 77)
    with tempfile.NamedTemporaryFile() as f:
        f.write(sections)
        f.flush()
        run = Run("unix", "--block", "ram,size=64K", "--device-state", f.name).completed()
    equal(run.r.device, sections, "device part of the package")


def device_size():
    run = Run("unix", "--block", "ram,size=64K", "--device-state", "3M").completed()
    expect(3 << 20 < len(run.r.device) < (3 << 20) + 100, "%d bytes" % len(run.r.device))


def memory_from_file():
    data = random.Random(7).randbytes(300000)
    with tempfile.NamedTemporaryFile() as f:
        f.write(data)
        f.flush()
        run = Run("unix", "--block", "ram,size=512K,file=" + f.name, "--precopy", "half").completed()
    got = b"".join(run.r.blocks["ram"].data[p] for p in range(128))
    expect(got == data + bytes((512 << 10) - len(data)), "content of the file")
    expect(run.out["zero"] > 0, "no page beyond the end of the file went as zero")


def machine():
    run = Run("unix", "--block", "ram,size=64K", "--machine", "pc-i440fx-10.0").completed()
    equal(run.r.machine, "pc-i440fx-10.0", "machine")


# --- pace -----------------------------------------------------------------------------------------

def rate():
    run = Run("unix", "--block", "ram,size=4M", "--rate", "8M").completed().same()
    ratio = (run.r.ended - run.r.started) / 0.5
    expect(ratio >= 0.8, "took %.2f of the time the rate allows for" % ratio)


def urgent_does_not_wait_for_rate():
    """A request is not held to the rate: all are answered long before the background would get there."""
    run = Run("unix", "--block", "ram,size=4M", "--rate", "256K", "--preempt",
              **requests(8)).completed().same()
    ratio = (run.r.ended - run.r.started) / 16
    expect(ratio < 0.5, "took %.2f of the background's time" % ratio)


def linger_without_background():
    run = Run("unix", "--block", "ram,size=1M", "--no-background", "--linger", "300",
              **requests(1, request_limit=5)).completed().same()
    asked = run.r.blocks["ram"].asked
    equal({page for _, _, page in run.r.pages[:5]}, asked, "first pages")
    equal(run.r.requests, 5, "requests")


def larger_than_memory():
    """256 GiB, of which four pages travel."""
    far = [("ram", page << 20) for page in (3, 0, 60, 31)]
    run = Run("tcp4", "--block", "ram,size=256G", "--no-background", "--preempt", wanted=list(far),
              request_depth=1, request_limit=4, give_up_after=0.3)
    run.ended("postcopy-paused")
    equal([("ram", page) for _, _, page in run.r.pages], far, "pages")
    equal(run.r.differences(SEED), [], "differences")
    equal(run.out["owed"], (1 << 26) - 4, "owed")


# --- people ---------------------------------------------------------------------------------------

def refuses():
    good = ("--to", "unix:/nowhere", "--block", "ram,size=1M")
    for args, part in (
            ((), "--to"), (("--to", "x:y", "--block", "ram,size=1M"), "tcp:HOST:PORT"),
            (("--to", "unix:/x"), "--block"), (good + ("--block", "ram,size=1M"), "taken"),
            (good + ("--precopy", "some"), "none, half or all"), (good + ("--huge-interleave",), "--preempt"),
            (good + ("--fault", "explode"), "unknown kind"), (good + ("surplus",), "surplus"),
            (good + ("--finish-as-precopy", "--commit-ping"), "--commit-ping"),
            (good + ("--no-such-option",), "no-such-option")):
        text = usage(*args)
        expect(part in text, "%r does not name %r" % (text, part))


def helps():
    expect("--fault" in output("--help"), "--help")
    text = output("--fault", "help")
    expect("never-answer" in text and "record:NAME" in text, "--fault help")


def manual():
    """Every option, kind of fault and member of the summary has its words."""
    top = os.environ.get("POSTCOPY_TOP_SRCDIR", os.path.join(os.path.dirname(__file__), "..", ".."))
    with open(os.path.join(top, "man", "postcopy-source.1")) as f:
        page = f.read()
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", output("--help"), re.MULTILINE)
    expect(len(options) > 15, "options in --help: %r" % options)
    equal([o for o in options if o != "--help" and "Fl -" + o[2:] not in page], [],
          "options that are not in the manual")
    kinds = [line.split()[0].split("=")[0] for line in
             output("--fault", "help").split("kinds:\n")[1].split("\n\n")[0].splitlines()]
    equal([kind for kind in kinds if ".It " + kind not in page], [], "faults that are not in the manual")
    members = Run("unix", "--block", "ram,size=4K", "--digest").out
    equal([m for m in members if m not in page], [], "members of the summary that are not in the manual")


def lines():
    """Without --json, the same facts as lines."""
    args = ("unix", "--block", "ram,size=64K", "--digest")
    plain, run = Run(*args, as_lines=True).completed(), Run(*args).completed()
    equal(plain.out.pop("digest ram"), run.out["digests"]["ram"], "digest")
    equal({k: v for k, v in plain.out.items() if k != "duration_ms"},
          {k: str(run.out[k]) for k in plain.out if k != "duration_ms"}, "lines")
    equal(len(run.out["digests"]["ram"]), 32, "digits of the digest")
    expect("seed %d" % SEED in run.errors, "seed in " + run.errors)


CASES = [("%s%s: every page, once, with its content" % (family, " --preempt" if lane else ""),
          functools.partial(whole, family, lane))
         for family in FAMILIES for lane in ((), ("--preempt",))]
CASES += [
    ("answers go over main", functools.partial(lane_of_answers, (), "main")),
    ("answers go over the urgent connection", functools.partial(lane_of_answers, ("--preempt",), "urgent")),
    ("the urgent connection comes between PONG and switch-over", urgent_when),
    ("the urgent connection waits for a PONG", urgent_waits_for_pong),
    ("--old-preempt: names and EOS", old_preempt),
    ("--continue-flag on", functools.partial(continue_flag, "on")),
    ("--continue-flag off", functools.partial(continue_flag, "off")),
    ("--huge-interleave cuts large pages", interleave),
    ("large pages are whole otherwise", interleave_off),
    ("--precopy half", functools.partial(precopy, "half")),
    ("--precopy all", functools.partial(precopy, "all")),
    ("pages that are discarded held something else", stale_content),
    ("without precopy everything is discarded", no_precopy_discards_all),
    ("--finish-as-precopy", finishes_as_precopy),
    ("--commit-ping holds the end back", commit_ping),
    ("--device-state FILE", device_file),
    ("--device-state SIZE", device_size),
    ("file=", memory_from_file),
    ("--machine", machine),
    ("--rate", rate),
    ("requests are not held to the rate", urgent_does_not_wait_for_rate),
    ("--no-background --linger", linger_without_background),
    ("a block larger than memory", larger_than_memory),
    ("wrong arguments are refused by name", refuses),
    ("help", helps),
    ("the manual is complete", manual),
    ("lines, --digest and the seed", lines),
]

if __name__ == "__main__":
    print("# requests by SOURCE_SEED=%d" % REQUEST_SEED)
    source_case.main(CASES)
