# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: each row a function that makes one measurement and returns its numbers."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from stand import MIB, Stand, make_ready     # which finds tests/lib
from device_world import DMA_MAP, Server, World
from harness import TOP_SRCDIR, Case, built, check, wait_for

#: The source answers requests only; the rest is never sent, for the stand ends before.
ON_DEMAND = ("--preempt", "--no-background", "--linger", "60000")


# --- latency of one fault after the other, nothing else going on ----------------------------------

def local(layout, o):
    with Stand(layout, o.seed) as s:
        make_ready(o.mib)
        return s.result(s.bare("local", o.mib, o.count), "local")


def tcp(layout, o):
    with Stand(layout, o.seed) as s:
        return s.result(s.bare("tcp", o.mib, o.count), "tcp")


def bare(layout, o, mib=None):
    mib = mib or o.mib
    with Stand(layout, o.seed) as s:
        program = s.bare("urgent", mib, o.count)
        s.source(s.line(program, "READY").split()[1], mib, *ON_DEMAND)
        return s.result(program, "bare")


def served(layout, o, spin_us=0, mib=None, count=None, look=None):
    """@look: called with the stand when all was touched, returns more numbers."""
    mib = mib or o.mib
    with Stand(layout, o.seed) as s:
        address = s.postcopyd(spin_us)
        program = s.served(mib, count or o.count)
        s.source(address, mib, *ON_DEMAND)
        numbers = s.result(program, "served")
        if look:
            numbers.update(look(s, numbers))
        return numbers


# --- the same beside a background stream -----------------------------------------------------------

def bare_loaded(layout, o, rate=None):
    with Stand(layout, o.seed) as s:
        program = s.bare("urgent", o.stream_mib, o.stream_mib * 256, "--background")
        s.source(s.line(program, "READY").split()[1], o.stream_mib, "--preempt", *_paced(rate))
        numbers = s.result(program, "bare-loaded")
        numbers["stream"] = s.result(program, "bare-stream")["MiB_per_s"]
        return numbers


def served_loaded(layout, o, rate=None):
    with Stand(layout, o.seed) as s:
        address = s.postcopyd()
        program = s.served(o.stream_mib, o.stream_mib * 256, "--only-absent")
        s.source(address, o.stream_mib, "--preempt", *_paced(rate))
        numbers = s.result(program, "served")
        numbers["stream"] = _stream(s, program, o.stream_mib)["MiB_per_s"]
        return numbers


def _paced(mib_per_s):
    return ("--rate", f"{mib_per_s}M") if mib_per_s else ()


# --- bulk ------------------------------------------------------------------------------------------------

def _stream(s, program, mib):
    """From the moment faults are served, which is when the stream is read on, to the last page."""
    s.line(program, "complete")
    times = s.control("status")["times"]
    ns = times["complete_ns"] - times["listening_ns"]
    return {"ns": ns, "pages": mib * 256, "MiB_per_s": mib * 1_000_000_000 // ns}


def bare_bulk(layout, o, zero=0):
    with Stand(layout, o.seed) as s:
        program = s.bare("bulk", o.stream_mib, 0)
        s.source(s.line(program, "READY").split()[1], o.stream_mib, zero=zero)
        return s.result(program, "bare-stream")


def served_bulk(layout, o, urgent, zero=0, private=False):
    with Stand(layout, o.seed) as s:
        address = s.postcopyd()
        program = s.served(o.stream_mib, 0, *(("--private",) if private else ()))
        s.source(address, o.stream_mib, *(("--preempt",) if urgent else ()), zero=zero)
        return _stream(s, program, o.stream_mib)


# --- a device that waits for its memory ------------------------------------------------------------------

def gated(layout, o, *how):
    """From the moment faults are served until a device may run that reaches all; pages come because its gate wants them."""
    with Stand(layout, o.seed) as s:
        address = s.postcopyd()
        program = s.served(o.stream_mib, 0, row="gate")
        s.source(address, o.stream_mib, *how)
        opened = s.result(program, "open")["ns"]
        ns = opened - s.control("status")["times"]["listening_ns"]
        stats = s.control("stats")
        return {"ns": ns, "MiB_per_s": o.stream_mib * 1_000_000_000 // ns, "requests": stats["requests"]}


# --- what a fault costs --------------------------------------------------------------------------------

#: The same session with few faults and with many: what is left of the difference is the faults' own.
FEW = 16


def _own_count(layout, o, count):
    def look(s, _numbers):
        calls = s.control("stats")["syscalls"]
        return {"calls": calls["ring"] + calls["other"]}
    return served(layout, o, count=count, look=look)


def _strace(layout, o, count):
    """Slows everything down, but counts right."""
    with Stand(layout, o.seed) as s:
        address = s.postcopyd()
        tracer = s.case.spawn("strace", ["strace", "-c", "-p", s.fault_thread()])
        wait_for("strace to attach", lambda: "attached" in tracer.errors())
        program = s.served(o.mib, count)
        s.source(address, o.mib, *ON_DEMAND)
        numbers = s.result(program, "served")
        tracer.kill(signal.SIGINT)
        tracer.wait()
        lines = [line.split() for line in tracer.errors().splitlines()]
        calls = {words[-1]: int(words[3]) for words in lines if len(words) > 4 and words[3].isdigit()}
        check("total" in calls, f"strace says: {tracer.errors()}")
        return {**numbers, "calls": calls["total"], "by_name": calls}


def cost(layout, o, method):
    few, many = method(layout, o, FEW), method(layout, o, o.count)
    faults = many["samples"] - few["samples"]
    return {**many, "per_fault": round((many["calls"] - few["calls"]) / faults, 2)}


def cost_methods():
    return {"own count": _own_count, **({"strace": _strace} if shutil.which("strace") else {})}


def copies():
    """tests/flow/cost counts what this stand cannot see: {what: held or not}"""
    program = built("tests/flow/cost")
    if not program:
        return {}
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    return {match[2]: match[1] == "ok"
            for match in re.finditer(r"^(ok|not ok) \d+ - (no .*)$", done.stdout, re.M)}


# --- several sharers -----------------------------------------------------------------------------------

def crowd(layout, o, who, others):
    """@who touches (main, sharer, all); `cpu` is what the fault thread worked for a page, `wakes` how many it woke."""
    with Stand(layout, o.seed) as s:
        address = s.postcopyd(others=others)
        program = s.crowd(who, others, o.mib, o.crowd_count)
        s.source(address, o.mib, *ON_DEMAND)
        numbers = s.result(program, "crowd")
        numbers["cpu"] = s.result(program, "worked")["a_page"]
        stats = s.control("stats")
        check(numbers["samples"] == o.crowd_count == stats["requested_pages"], "another number of pages was asked for")
        numbers["wakes"] = sum(sharer["wakes"] for sharer in stats["sharers"]) / numbers["samples"]
        return numbers


# --- the state of a device -----------------------------------------------------------------------------

def device(layout, o, way, side, direction):
    with Stand(layout, o.seed) as s:
        return s.result(s.device(way, side, direction, o.device_mib), "device")


#: pairs of changes that are timed; bytes of the VM whose last page a device waits for
PAIRS, GATED_MIB = 2000, 4


def state_pair(layout, o):
    with Stand(layout, o.seed) as s:
        return {"run": s.result(s.device("stream", "bare", "states", PAIRS), "device")["pair"]}


@contextlib.contextmanager
def real_time():
    """For us and those whom we start; as root, like the rest of the stand."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    if os.geteuid() == 0:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def last_page(fd, size):
    """When it came: holes of the file are pages that were never placed.  Yields, for there may be one CPU."""
    at = 0
    while at < size:
        with contextlib.suppress(OSError):
            at = os.lseek(fd, at, os.SEEK_HOLE)
        os.sched_yield()
    return time.monotonic_ns()


def device_runs(o):
    """A device that reaches all of a VM: from the VM's last page until it was given it, and until it runs (ns)."""
    case = Case("bench", o.seed)
    ended_well = False
    try:
        with real_time():
            world = World(case, Server(case), size=GATED_MIB * MIB)
            world.begin(patient=False)
            with open(world.vm.path(), "rb") as memory:
                world.vm.event("package")
                world.send_state()
                there = last_page(memory.fileno(), GATED_MIB * MIB)
                wait_for("the device to run", world.server.ran)
        given = [c["ns"] for c in world.server.commands() if c["command"] == DMA_MAP][-1]
        world.complete()
        ended_well = True
        return {"map": given - there, "run": world.server.ran()[0]["ns"] - there}
    finally:
        case.close(ended_well)


# --- QEMU's own destination ----------------------------------------------------------------------------

def qemu(o):
    """Rows of tests/interop/measure.py: the same QEMU as source, into QEMU and into postcopyd."""
    script = os.path.join(TOP_SRCDIR, "tests", "interop", "measure.py")
    argv = [sys.executable, script, "--repeat", "1", "--mib", str(o.guest_mib), "--threads", "4",
            "--seed", str(o.seed), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    check(done.returncode == 0, f"measure.py: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def gib(size):
    return size * (1 << 30) // MIB
