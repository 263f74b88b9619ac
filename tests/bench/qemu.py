#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One unmodified QEMU into another: served by QEMU's own postcopy, and by postcopyd.

The same source, guest, memory and CPUs: the source has one CPU, all of the destination another, the watch
of the heartbeat lies beside the source, which is stopped by then.  Runs are interleaved.  Four things are measured, none
of them by who is judged:

    gap      for how long the guest stood still (lib/heartbeat.py)
    switch   from the source's STOP event to the destination's RESUME
    p50 ...  what the guest waited for pages (guest/probe.c): its touches that took SLOW_US and more, of all runs together
    total    of the source (query-migrate, total-time)

Every run ends with the guest's own verdict on its memory.
"""
import argparse
import dataclasses
import json
import os
import statistics
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
import vm
from dest import QemuDestination
from harness import Case, check, check_equal, wait_for
from heartbeat import Heartbeat
from machine import Machine, MemoryGuest
from scenario import PLAIN, PREEMPT, Migration, Scenario
from served import ServedQemu, Setup

CAPABILITIES = {"plain": PLAIN, "preempt": PREEMPT}
SIDES = ("qemu", "postcopyd")
CLOCK, HISTOGRAM, SUB_BITS = 0x8030, 0x8100, 4
BUCKETS = 32 << SUB_BITS
#: Less is no fault: a round trip through a userfaultfd alone takes more.
SLOW_US = 16
PERCENTILES = {"p50_us": 500, "p90_us": 900, "p99_us": 990}
COLUMNS = ("gap_ms", "switch_ms", "faults", "faults_per_s", "p50_us", "p90_us", "p99_us", "max_us", "total_ms")
#: text, column, what of QEMU's is allowed, and ms on top of it
TARGETS = (("gap, beyond QEMU's by (ms)", "gap_ms", None, 25.0), ("p99: postcopyd / qemu", "p99_us", 1.0, None),
           ("total: postcopyd / qemu", "total_ms", 1.1, None))


class ProbeGuest(MemoryGuest):
    """guest/probe.c: it touches its memory as fast as it can, and notes how long each touch took."""

    def kind(self):
        return "probe"


def histogram(fd):
    return struct.unpack(f"<{BUCKETS}I", os.pread(fd, 4 * BUCKETS, HISTOGRAM))


def clock(fd):
    return struct.unpack("<I", os.pread(fd, 4, CLOCK))[0], time.monotonic()


def ticks_per_us(fd):
    """Of the guest's counter, by our clock."""
    (first, begin), _ = clock(fd), time.sleep(0.2)
    last, end = clock(fd)
    return ((last - first) % (1 << 32) << 10) / (end - begin) / 1e6


def bucket_us(bucket, rate):
    """The middle of what falls into a bucket."""
    log, sub = bucket >> SUB_BITS, bucket & (1 << SUB_BITS) - 1
    return (1 << log) * (1 + (sub + 0.5) / (1 << SUB_BITS)) / rate


def percentile(slow, permille):
    """Of (us, count), the smallest first."""
    rank, seen = sum(n for _us, n in slow) * permille // 1000, 0
    for us, n in slow:
        seen += n
        if seen > rank:
            return us
    return slow[-1][0] if slow else 0.0


class Touches:
    """Of the destination, as (us, count), those that are slow."""

    def __init__(self, before, after, rate):
        counts = [(new - old) % (1 << 32) for old, new in zip(before, after)]
        self.all = sum(counts)
        self.slow = [(bucket_us(b, rate), n) for b, n in enumerate(counts) if n and bucket_us(b, rate) >= SLOW_US]

    def summary(self):
        return {"faults": sum(n for _us, n in self.slow), "slow_us": self.slow, "touches": self.all,
                **{column: percentile(self.slow, permille) for column, permille in PERCENTILES.items()},
                "max_us": percentile(self.slow, 1000)}


# --- one run ------------------------------------------------------------------------------------------


#: All that this program may use; looked at once, for inside of Pinned it is less.
CPUS = sorted(os.sched_getaffinity(0))


class Pinned:
    """Children that are started inside run on that CPU; may be nested."""

    def __init__(self, last):
        self.cpu = CPUS[-1 if last else 0]
        self.before = os.sched_getaffinity(0)

    def __enter__(self):
        os.sched_setaffinity(0, {self.cpu})

    def __exit__(self, *_why):
        os.sched_setaffinity(0, self.before)


def destination_of(case, side, scenario, binary, trouble):
    def make(uri, source):
        with Pinned(last=True):
            if side == "qemu":
                return QemuDestination(case, uri, source, scenario.capabilities, binary)
            return ServedQemu(case, uri, source, Setup(binary=binary, daemon=tuple(trouble)))
    return make


def moment_of(machine, event):
    """When QEMU said so, by its own clock, which is the host's; None when it did not."""
    for seen in machine.qmp.poll():
        if seen["event"] == event:
            stamp = seen["timestamp"]
            return stamp["seconds"] + stamp["microseconds"] / 1e6
    return None


def phases_of(destination, stop):
    """When the hand-over reached each phase, in ms after the source stopped."""
    shift = time.time() - time.monotonic() - stop
    return {moment["phase"]: round((moment["at_ns"] / 1e9 + shift) * 1000, 2)
            for moment in destination.handover()["timeline"]}


def migrate(case, side, scenario, binary, o):
    with Pinned(last=False):
        migration = Migration(case, binary, scenario, destination_of(case, side, scenario, binary, o.daemon),
                              through_relay=False)
    source, target = migration.source, migration.destination.vm
    rate = ticks_per_us(source.ram)
    gap = Heartbeat(case, source, target)
    migration.run()
    info = source.info()
    row = {"side": side, "gap_ms": gap.gap_ms(), "total_ms": float(info["total-time"]),
           "requests": info["ram"].get("postcopy-requests", 0), "ticks_per_us": rate}
    stop, resume = (moment_of(machine, event) for machine, event in ((source, "STOP"), (target, "RESUME")))
    row["switch_ms"] = (resume - stop) * 1000 if stop and resume else 0.0
    touches = Touches(histogram(source.ram), histogram(target.ram_now()), rate)
    check(touches.all > 0, "the guest touched nothing at the destination")
    row.update(touches.summary())
    row["faults_per_s"] = row["faults"] / max(row["total_ms"], 1.0) * 1000
    goes_on(migration)
    if side == "postcopyd":
        row["stats"] = migration.destination.control("stats")
        row["phases_ms"] = phases_of(migration.destination, stop)
    return row


def goes_on(migration):
    """A whole round over all of its memory, nothing wrong, and the source stands still."""
    target = migration.destination.vm
    target.wait_guest(rounds=2)
    check_equal(target.guest().errors, 0, "errors the guest found")
    check_equal(migration.source.vm_status(), "postmigrate", "the source's VM")


def run_one(side, name, binary, o):
    scenario = Scenario(f"{name}, {side}", CAPABILITIES[name], "tcp", "at-once",
                        machine=Machine(mib=o.guest_mib, guest=ProbeGuest()), bandwidth=o.bandwidth << 20)
    case, row = Case(scenario.name, o.seed), None
    try:
        row = migrate(case, side, scenario, binary, o)
    finally:
        case.close(ok=row is not None)
    return row


# --- all of them --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Table:
    """Of one QEMU and one way to migrate: {side: rows}"""
    binary: str
    name: str
    rows: dict

    def median(self, side, column):
        return statistics.median(row[column] for row in self.rows[side])

    def figure(self, side, column):
        """Percentiles are those of the faults of all runs together: a run has too few of them for a p99."""
        if column not in PERCENTILES:
            return self.median(side, column)
        return percentile(sorted(touch for row in self.rows[side] for touch in row["slow_us"]), PERCENTILES[column])

    def pairs(self, column):
        return [(ours[column], theirs[column]) for ours, theirs in zip(self.rows["postcopyd"], self.rows["qemu"])]

    def verdicts(self):
        """[(text, value, lowest, highest, limit, holds)]"""
        found = []
        for text, column, factor, more in TARGETS:
            values = [a - b if factor is None else a / max(b, 0.001) for a, b in self.pairs(column)]
            limit = more if factor is None else factor
            ours, theirs = self.figure("postcopyd", column), self.figure("qemu", column)
            middle = statistics.median(values)
            if factor is None:
                middle = ours - theirs
            elif column in PERCENTILES:
                middle = ours / max(theirs, 0.001)
            found.append((text, middle, min(values), max(values), limit, middle <= limit))
        return found


def measure(o, progress=None):
    """A Table for each QEMU and each way."""
    for binary in vm.binaries() if o.qemu is None else [o.qemu]:
        for name in o.ways:
            table = Table(binary, name, {side: [] for side in SIDES})
            for number in range(o.repeat):
                for side in SIDES:
                    table.rows[side].append(run_one(side, name, binary, o))
                    if progress:
                        progress(f"{name} {number + 1}/{o.repeat}: {side}")
            yield table


def print_table(table):
    version = "{}.{}".format(*vm.version_of(table.binary))
    print(f"\nhandover: QEMU {version} into QEMU, {table.name}: its own postcopy, and postcopyd")
    print(f"{'':12}" + "".join(f"{column:>13}" for column in COLUMNS))
    for side in SIDES:
        print(f"  {side:10}" + "".join(f"{table.figure(side, column):>13.1f}" for column in COLUMNS))
    for side in SIDES:
        faults = sum(row["faults"] for row in table.rows[side])
        print(f"  {side}: {faults} faults in {len(table.rows[side])} runs")
    for text, middle, low, high, limit, holds in table.verdicts():
        print(f"  {'PASS' if holds else 'MISS'}  {text}: {middle:.2f} ({low:.2f} to {high:.2f}), target <= {limit:g}")
    sys.stdout.flush()


def options(arguments=None):
    parser = argparse.ArgumentParser(description="a guest that moves between two QEMUs: QEMU's own postcopy beside postcopyd")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--guest-mib", type=int, default=256)
    parser.add_argument("--bandwidth", type=int, default=0, help="MiB/s after the switch-over; 0: no limit")
    parser.add_argument("--ways", nargs="+", choices=CAPABILITIES, default=list(CAPABILITIES))
    parser.add_argument("--qemu", help="only this one, at both ends (default: the system's and POSTCOPY_QEMU)")
    parser.add_argument("--daemon", action="append", default=[], help="an option of postcopyd")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="every number of every run goes there")
    return parser.parse_args(arguments)


def missing():
    """What is not here to run this."""
    programs = ServedQemu.missing_programs()
    return programs if vm.binaries() else programs + ["qemu-system-x86_64"]


def main():
    o = options()
    if missing():
        sys.exit("not here: " + ", ".join(missing()))
    kept = []
    for table in measure(o, lambda text: print("# " + text, file=sys.stderr, flush=True)):
        print_table(table)
        kept.append(dataclasses.asdict(table))
        if o.json:
            with open(o.json, "w", encoding="ascii") as f:
                json.dump(kept, f, indent=1)


if __name__ == "__main__":
    main()
