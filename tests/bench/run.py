#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd beside the least that any program could do for the same work, in one run (`make bench`).

Rows of a group are interleaved (A B C A B C …), so that whatever else the machine does meets all of them;
a ratio is the median of the ratios of neighbours, printed with the lowest and the highest.  A latency
is what the touching thread saw.  Exit status 0 whenever everything ran; PASS and MISS are for reading.
"""
import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import qemu
import rows
import stand

#: name, text, the sides' rows, which number, its limit, and on which side of the limit it must be
Target = namedtuple("Target", "text ratios limit least")
Group = namedtuple("Group", "name title layout rows columns targets")


class Series:
    """The rounds of one group: {row: [numbers]}"""

    def __init__(self, group, measured):
        self.group = group
        self.measured = measured

    def median(self, row, key):
        return statistics.median(numbers[key] for numbers in self.measured[row])

    def values(self, row, key):
        return [numbers[key] for numbers in self.measured[row]]

    def ratios(self, row, base, key):
        return [a / b for a, b in zip(self.values(row, key), self.values(base, key))]

    def floor_ratios(self, row, key="p50"):
        return [ours / (one + other) for ours, one, other in zip(
            self.values(row, key), self.values("local", key), self.values("tcp", key))]


def ratio(text, row, base, key, limit, least=False):
    return Target(text, lambda series: series.ratios(row, base, key), limit, least)


# --- the groups --------------------------------------------------------------------------------------

LATENCY = ("p50", "p90", "p99", "max", "faults_per_s")
SPIN_US = 50
#: sharers besides the main one
CROWDS = (1, 4, 16)


def one_cpu(o, layout):
    return Group(
        "one", "urgent fault, everything on one CPU (ns)", layout,
        {"local": lambda: rows.local(layout, o), "tcp": lambda: rows.tcp(layout, o),
         "bare": lambda: rows.bare(layout, o), "postcopyd": lambda: rows.served(layout, o)}, LATENCY,
        [ratio("p50: postcopyd / bare", "postcopyd", "bare", "p50", 1.10),
         Target("p50: postcopyd / (local + tcp)",
                lambda series: series.floor_ratios("postcopyd"), 1.25, False)])


def across(name, text, o, layout):
    spinning = f"postcopyd, --spin-us {SPIN_US}"
    return Group(
        name, f"urgent fault, {text} (ns)", layout,
        {"local": lambda: rows.local(layout, o), "tcp": lambda: rows.tcp(layout, o),
         "bare": lambda: rows.bare(layout, o), "postcopyd": lambda: rows.served(layout, o),
         spinning: lambda: rows.served(layout, o, SPIN_US)}, LATENCY,
        [ratio("p50: postcopyd / bare", "postcopyd", "bare", "p50", 1.0),
         ratio("p50: postcopyd spinning / bare", spinning, "bare", "p50", 1.0)])


def loaded(o, layout):
    half = {}

    def rate():
        """Half of what the bare loop took when nothing held the source back; measured once."""
        if not half:
            half["rate"] = max(rows.bare_loaded(layout, o)["stream"] // 2, 1)
        return half["rate"]

    return Group(
        "loaded", "urgent fault beside a background stream; pages not there yet (ns; stream MiB/s)", layout,
        {"bare": lambda: rows.bare_loaded(layout, o),
         "postcopyd": lambda: rows.served_loaded(layout, o),
         "bare, half rate": lambda: rows.bare_loaded(layout, o, rate()),
         "postcopyd, half rate": lambda: rows.served_loaded(layout, o, rate())},
        ("p50", "p90", "p99", "max", "samples", "stream"),
        [ratio("p99, full stream: postcopyd / bare", "postcopyd", "bare", "p99", 1.5),
         ratio("p99, half rate: postcopyd / bare", "postcopyd, half rate", "bare, half rate", "p99", 1.5)])


def bulk(o, layout):
    """To place a zero page in a file costs the kernel a page and its clearing, which is what bare does; postcopyd leaves a hole."""
    return Group(
        "bulk", f"background stream alone, {o.stream_mib} MiB", layout,
        {"bare": lambda: rows.bare_bulk(layout, o),
         "postcopyd, urgent lane": lambda: rows.served_bulk(layout, o, True),
         "postcopyd, single lane": lambda: rows.served_bulk(layout, o, False),
         "bare, zero": lambda: rows.bare_bulk(layout, o, zero=100),
         "postcopyd, zero": lambda: rows.served_bulk(layout, o, True, zero=100),
         "postcopyd, private": lambda: rows.served_bulk(layout, o, True, private=True),
         "postcopyd, private, zero": lambda: rows.served_bulk(layout, o, True, zero=100, private=True)},
        ("MiB_per_s",),
        [ratio("postcopyd with an urgent lane / bare", "postcopyd, urgent lane", "bare", "MiB_per_s", 0.8, True),
         ratio("postcopyd with a single lane / bare", "postcopyd, single lane", "bare", "MiB_per_s", 0.8, True),
         ratio("zero / data, private memory", "postcopyd, private, zero", "postcopyd, private", "MiB_per_s", 5.0, True),
         ratio("zero / data, shared memory", "postcopyd, zero", "postcopyd, urgent lane", "MiB_per_s", 5.0, True),
         ratio("zero: postcopyd / bare, shared memory", "postcopyd, zero", "bare, zero", "MiB_per_s", 0.8, True)])


def prefetch(o, layout):
    """A device does not fault, so its gate asks ahead for all that it reaches, however little the source sends by itself."""
    stream, asked = "the stream alone", "a gate, asked for only"
    both = "a gate beside the stream"
    return Group(
        "prefetch", f"the set of a device, {o.stream_mib} MiB, until it may run, against the background stream", layout,
        {stream: lambda: {"requests": 0, **rows.served_bulk(layout, o, True)},
         asked: lambda: rows.gated(layout, o, *rows.ON_DEMAND),
         both: lambda: rows.gated(layout, o, "--preempt")},
        ("MiB_per_s", "requests"),
        [ratio("asked for only / stream alone", asked, stream, "MiB_per_s", 0.9, True),
         ratio("beside the stream / stream alone", both, stream, "MiB_per_s", 0.9, True)])


def cost(o, layout):
    methods = rows.cost_methods()
    return Group(
        "cost", "system calls of the fault thread, a fault", layout,
        {name: lambda method=method: rows.cost(layout, o, method) for name, method in methods.items()},
        ("per_fault",),
        [Target(f"system calls a fault, {name}",
                lambda series, name=name: series.values(name, "per_fault"), 5.0, False) for name in methods])


def scale(o, layout):
    def look(s, _numbers):
        return {"memory_MiB": s.memory() / stand.MIB}

    sizes = o.sizes
    small, large = f"{sizes[0]} GiB", f"{sizes[-1]} GiB"
    found = {}
    for size in sizes:
        found[f"bare, {size} GiB"] = lambda size=size: {
            **rows.bare(layout, o, rows.gib(size)), "memory_MiB": 0}
        found[f"postcopyd, {size} GiB"] = lambda size=size: rows.served(
            layout, o, mib=rows.gib(size), look=look)

    def growth(series):
        ours = series.ratios(f"postcopyd, {large}", f"postcopyd, {small}", "p50")
        theirs = series.ratios(f"bare, {large}", f"bare, {small}", "p50")
        return [a / b for a, b in zip(ours, theirs)]

    def memory(series):
        """The part that grows with the blocks, KiB a GiB."""
        more = sizes[-1] - sizes[0]
        return [(a - b) * 1024 / more for a, b in zip(series.values(f"postcopyd, {large}", "memory_MiB"),
                                                     series.values(f"postcopyd, {small}", "memory_MiB"))]

    return Group(
        "scale", "urgent fault by size of the blocks, sparse (ns; memory of postcopyd alone, MiB)", layout,
        found, ("p50", "p99", "memory_MiB"),
        [Target(f"p50 grows from {small} to {large} by, of what bare's does", growth, 1.05, False),
         Target("memory a GiB of blocks (KiB; 4 bits a page are 128)", memory, 160.0, False)])


def sharers(o, layout):
    """What more sharers cost: those that only map the memory, and those that wait for every page."""
    found = {"main, nobody else": lambda: rows.crowd(layout, o, "main", 0),
             "a sharer, main idle": lambda: rows.crowd(layout, o, "sharer", 1)}
    for n in CROWDS:
        found[f"main, {n} idle"] = lambda n=n: rows.crowd(layout, o, "main", n)
        found[f"all wait, {n} and main"] = lambda n=n: rows.crowd(layout, o, "all", n)

    def each_waiting(series):
        """What the fault thread works for one that waits, beside what the page itself takes."""
        alone = series.values("main, nobody else", "cpu")
        return [(many - one) / CROWDS[-1] / one for many, one in zip(
            series.values(f"all wait, {CROWDS[-1]} and main", "cpu"), alone)]

    return Group(
        "sharers", "urgent fault by number of sharers (ns; cpu: the fault thread's, a page)", layout, found,
        ("p50", "p90", "p99", "cpu", "wakes"),
        [ratio("p50: a sharer's fault / the main sharer's", "a sharer, main idle", f"main, {CROWDS[0]} idle", "p50", 1.3),
         ratio(f"cpu a page: {CROWDS[-1]} idle sharers / none", f"main, {CROWDS[-1]} idle", "main, nobody else", "cpu", 1.1),
         Target("cpu for each more that waits / for the page itself", each_waiting, 0.5, False)])


#: how the state of a device is reached; what the least would be
DEVICE_WAYS = {"trapped": "a region, read and written", "mapped": "a region that is mapped",
               "stream": "messages to a vfio-user server"}
DEVICE_SIDES = {"bare": "loop", "migdev": "postcopyd"}


def device(o, layout):
    """What migdev asks, checks and times besides; whose bytes they are is not looked at by either."""
    directions = ("save", "load")
    found = {f"{way} {direction}, {name}": lambda way=way, side=side, direction=direction: rows.device(
        layout, o, way, side, direction)
        for way in DEVICE_WAYS for direction in directions for side, name in DEVICE_SIDES.items()}
    return Group(
        "device", f"state of a device, {o.device_mib} MiB, against a loop of pread/pwrite or send/recv", layout,
        found, ("MiB_per_s",),
        [ratio(f"{direction}, {text}: postcopyd / loop", f"{way} {direction}, postcopyd",
               f"{way} {direction}, loop", "MiB_per_s", 0.9, True)
         for way, text in DEVICE_WAYS.items() for direction in directions])


def start(o, layout):
    """What is between the last page and a device that runs: three threads of ours and four changes of its state."""
    return Group(
        "start", f"from the last page of {rows.GATED_MIB} MiB until a device that reaches all of it runs (ns)", layout,
        {"two changes of state, bare": lambda: {"map": 0, **rows.state_pair(layout, o)},
         "postcopyd": lambda: rows.device_runs(o)}, ("map", "run"),
        [ratio("last page until it runs / two changes of its state", "postcopyd", "two changes of state, bare", "run", 100.0)])


MAKERS = {
    "one": lambda o, layouts: one_cpu(o, layouts["one"]),
    "two": lambda o, layouts: across("two", layouts["two"].text, o, layouts["two"]),
    "apart": lambda o, layouts: across("apart", layouts["apart"].text, o, layouts["apart"]),
    "loaded": lambda o, layouts: loaded(o, layouts["any"]),
    "bulk": lambda o, layouts: bulk(o, layouts["any"]),
    "prefetch": lambda o, layouts: prefetch(o, layouts["any"]),
    "cost": lambda o, layouts: cost(o, layouts["one"]),
    "scale": lambda o, layouts: scale(o, layouts["one"]),
    "sharers": lambda o, layouts: sharers(o, layouts["one"]),
    "device": lambda o, layouts: device(o, layouts["one"]),
    "start": lambda o, layouts: start(o, layouts["any"]),
}
NEEDS_TWO = ("two", "apart")
#: No rows of the stand's: the same source into QEMU and into postcopyd, who faults differs; the count of copies; a guest that moves.
OTHERS = ("qemu", "copies", "handover")


# --- running and printing -----------------------------------------------------------------------------

def measure(group, rounds, progress=True):
    """Round after round, each row once in each."""
    measured = {row: [] for row in group.rows}
    for number in range(rounds):
        for row, function in group.rows.items():
            if progress:
                print(f"# {group.name} {number + 1}/{rounds}: {row}", file=sys.stderr, flush=True)
            measured[row].append(function())
    return Series(group, measured)


def verdicts(series):
    """[(text, median, lowest, highest, limit, least, holds)]"""
    found = []
    for target in series.group.targets:
        values = target.ratios(series)
        middle = statistics.median(values)
        holds = middle >= target.limit if target.least else middle <= target.limit
        found.append((target.text, middle, min(values), max(values), target.limit, target.least, holds))
    return found


def number(value):
    return f"{value:.2f}" if isinstance(value, float) and value < 1000 else f"{value:.0f}"


def print_group(series):
    group = series.group
    print(f"\n{group.name}: {group.title}")
    print(f"{'':32}" + "".join(f"{column:>13}" for column in group.columns))
    for row in group.rows:
        print(f"  {row:30}" + "".join(f"{number(series.median(row, c)):>13}" for c in group.columns))
    for text, middle, low, high, limit, least, holds in verdicts(series):
        print(f"  {'PASS' if holds else 'MISS'}  {text}: {middle:.2f} ({low:.2f} to {high:.2f}), "
              f"target {'>=' if least else '<='} {limit:g}")
    sys.stdout.flush()


def print_qemu(table):
    columns = ("qemu", "scenario", "destination", "faulting", "faults", "faults_per_s", "p50_us", "p90_us",
               "p99_us", "max_us")
    print("\nqemu: the same QEMU source into QEMU's own destination and into postcopyd")
    print("  " + " ".join(f"{column:>12.12}" for column in columns))
    for row in table:
        print("  " + " ".join(f"{str(row.get(column, '-')):>12.12}" for column in columns))
    print("  qemu: fault read -> page placed, one vCPU; postcopyd: fault read -> thread woken, threads at random")
    sys.stdout.flush()


def machine():
    model = "?"
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    load = os.getloadavg()[0]
    priority = "SCHED_FIFO 50" if os.geteuid() == 0 else "ordinary: other load distorts every row"
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count(), "load": load,
            "priority": priority}


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="small, once: does everything run?")
    parser.add_argument("--only", action="append", metavar="GROUP", choices=[*MAKERS, *OTHERS],
                        help="one of: " + ", ".join([*MAKERS, *OTHERS]))
    parser.add_argument("--rounds", type=int, help="of each group (default 5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="every number of every round goes there")
    o = parser.parse_args(arguments)
    o.rounds = o.rounds or (1 if o.quick else 5)
    o.mib, o.count = (64, 4000) if o.quick else (128, 20000)
    o.crowd_count = 500 if o.quick else 5000
    o.stream_mib = 128 if o.quick else 1024
    o.device_mib = 64 if o.quick else 512
    o.guest_mib = 64 if o.quick else 256
    o.sizes = (1, 16) if o.quick else (1, 16, 256)
    return o


def handover(o):
    """Tables of tests/bench/qemu.py, printed as they come."""
    if qemu.missing():
        print("\nhandover: left out, not here: " + ", ".join(qemu.missing()))
        return []
    arguments = ["--seed", str(o.seed), "--guest-mib", str(o.guest_mib), "--repeat", str(1 if o.quick else 2 * o.rounds)]
    kept = []
    for table in qemu.measure(qemu.options(arguments)):
        qemu.print_table(table)
        kept.append(dataclasses.asdict(table))
    return kept


def groups(o):
    layouts = stand.layouts()
    for name, maker in MAKERS.items():
        if o.only and name not in o.only:
            continue
        if name in NEEDS_TWO and name not in layouts:
            print(f"\n{name}: needs two CPUs, left out")
            continue
        yield maker(o, layouts)


def main():
    o = options()
    missing = stand.missing_programs()
    if missing:
        sys.exit("not built: " + ", ".join(missing) + " (make check_PROGRAMS, or make bench)")
    about = machine()
    print("postcopyd benchmarks: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{o.rounds} rounds, seed {o.seed}, {o.count} faults a row")
    kept = {"machine": about, "rounds": o.rounds, "seed": o.seed, "groups": {}}
    for group in groups(o):
        series = measure(group, o.rounds, sys.stderr.isatty())
        print_group(series)
        kept["groups"][group.name] = {"rows": series.measured, "targets": verdicts(series)}
    if not o.only or "copies" in o.only:
        kept["copies"] = rows.copies()
        print("\ncopies: " + "; ".join(f"{what}: {'holds' if ok else 'BROKEN'}"
                                       for what, ok in kept["copies"].items()))
    if not o.only or "qemu" in o.only:
        kept["qemu"] = rows.qemu(o)
        print_qemu(kept["qemu"])
    if not o.only or "handover" in o.only:
        kept["handover"] = handover(o)
    if o.json:
        with open(o.json, "w") as f:
            json.dump(kept, f, indent=1)


if __name__ == "__main__":
    main()
