#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults served a second and their latency: QEMU's own destination beside postcopyd.

The same source, guest and parameters; no relay in between.  Who faults differs and is printed: the one
vCPU of the guest there, threads of a sharer touching at random here.  QEMU's numbers are from its
tracepoints (fault message read -> page placed) and its blocktime capability, ours from `postcopyctl
stats` (fault message read -> faulting thread woken), so ours contain a step more.  Not a test:
it judges nothing, and times of a busy machine mean nothing.
"""
import argparse
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from dest import Counters, PostcopydDestination, QemuDestination
from harness import Case
from scenario import PLAIN, PREEMPT, Migration, Scenario

TRACEPOINTS = ("postcopy_ram_fault_thread_request", "postcopy_place_page",
               "postcopy_place_page_zero")
_REQUEST = re.compile(r"@(\d+)\.(\d+):postcopy_ram_fault_thread_request .*HVA=(0x[0-9a-f]+)")
_PLACED = re.compile(r"@(\d+)\.(\d+):postcopy_place_page(?:_zero)? host=(0x[0-9a-f]+)")


def microseconds(match):
    return int(match[1]) * 1_000_000 + int(match[2])


def faults_in_trace(path):
    """[(when it was read, when its page was placed)] in microseconds, of every fault in a trace file."""
    waiting, served = {}, []
    with open(path, encoding="utf-8", errors="replace") as trace:
        for line in trace:
            if match := _REQUEST.search(line):
                waiting.setdefault(match[3], microseconds(match))
            elif (match := _PLACED.search(line)) and match[3] in waiting:
                served.append((waiting.pop(match[3]), microseconds(match)))
    return served


def percentile(values, permille):
    return values[min(len(values) - 1, len(values) * permille // 1000)] if values else 0


def summary(name, who, count, seconds, latency):
    row = {"destination": name, "faulting": who, "faults": count,
           "faults_per_s": round(count / seconds) if seconds else 0}
    row.update({key: round(value, 1) for key, value in latency.items()})
    return row


def into_qemu(case, scenario, binary, options):
    trace = case.path("trace")
    migration = Migration(
        case, binary, scenario,
        lambda uri, source: QemuDestination(
            case, uri, source, (*scenario.capabilities, "postcopy-blocktime"), binary,
            before=["-msg", "timestamp=on", "-D", trace,
                    "-d", ",".join("trace:" + t for t in TRACEPOINTS)]),
        through_relay=False)
    migration.source.set_parameters(max_postcopy_bandwidth=options.bandwidth << 20)
    migration.run()
    blocktime = migration.destination.vm.info().get("postcopy-blocktime")
    migration.destination.vm.quit()
    served = faults_in_trace(trace)
    took = sorted(end - start for start, end in served)
    seconds = (max(e for _, e in served) - min(s for s, _ in served)) / 1e6 if served else 0
    row = summary("qemu", "1 vCPU", len(served), seconds, {
        "p50_us": percentile(took, 500), "p90_us": percentile(took, 900),
        "p99_us": percentile(took, 990), "max_us": took[-1] if took else 0})
    row["blocktime_ms"] = blocktime
    return row


def into_postcopyd(case, scenario, binary, options):
    migration = Migration(
        case, binary, scenario,
        lambda uri, source: PostcopydDestination(case, uri, source, threads=options.threads,
                                                 second=False),
        through_relay=False)
    migration.source.set_parameters(max_postcopy_bandwidth=options.bandwidth << 20)
    migration.run()
    destination = migration.destination
    times = destination.wait_state("complete")["times"]
    counters = Counters(destination.control("stats"), destination.control("blocks"))
    latency = counters.latency()
    first = times["first_fault_ns"]
    seconds = (times["complete_ns"] - first) / 1e9 if first else 0
    return summary("postcopyd", f"{options.threads} threads", counters.faults(), seconds, {
        key.replace("_ns", "_us"): latency[key] / 1e3
        for key in ("p50_ns", "p90_ns", "p99_ns", "max_ns")})


def measure(function, scenario, binary, options):
    case = Case(scenario.name, options.seed)
    row = None
    try:
        row = function(case, scenario, binary, options)
    finally:
        case.close(ok=row is not None)
    return {"qemu": os.path.basename(binary), "scenario": scenario.name, **row}


def rows(options):
    functions = [into_qemu]
    if PostcopydDestination.missing_programs():
        print("# postcopyd is left out, not built: "
              + ", ".join(PostcopydDestination.missing_programs()), file=sys.stderr)
    else:
        functions.append(into_postcopyd)
    for binary in vm.binaries():
        for name, capabilities in (("plain", PLAIN), ("preempt", PREEMPT)):
            scenario = Scenario(name, capabilities, options.transport, "at-once", options.mib)
            for _ in range(options.repeat):
                for function in functions:
                    yield measure(function, scenario, binary, options)


def main():
    parser = argparse.ArgumentParser(description="QEMU's own destination and postcopyd side by side")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--mib", type=int, default=256, help="guest memory")
    parser.add_argument("--bandwidth", type=int, default=0,
                        help="MiB/s after the switch-over; 0: no limit")
    parser.add_argument("--threads", type=int, default=4, help="of the sharer")
    parser.add_argument("--transport", choices=("unix", "tcp", "tcp6"), default="tcp")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="a line of JSON per run")
    options = parser.parse_args()
    columns = ("qemu", "scenario", "destination", "faulting", "faults", "faults_per_s", "p50_us",
               "p90_us", "p99_us", "max_us", "blocktime_ms")
    if not options.json:
        print(" ".join(f"{column:>12}" for column in columns))
    for row in rows(options):
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(" ".join(f"{str(row.get(column, '-')):>12.12}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
