#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a guest that keeps writing it moves, live, into two processes that touch it in random order.

The guest runs under QEMU.  At the destination two processes share its memory, each with a
userfaultfd of its own: "vmm", which stands in for the VMM, and "helper".  From the moment of
switch-over both touch pages in random order, and wait for what is not there yet.  At the end every
page of every block is held against the source's memory, which is read from the stopped QEMU.
"""
import argparse
import collections
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "lib"))
# pylint: disable=wrong-import-position
import guestmem
from dest import Counters, wait_event
from harness import Case, Failure, Skip, built, check, check_equal, wait_for
from screen import Screen, human_bytes, human_time
from vm import MIB, RAM_BLOCK, SYSTEM_QEMU, Vm

NEEDED = ("postcopyd", "postcopyctl", "tests/lib/sharer", "tests/lib/xxh3sum")
ALIGN = 2 * MIB                 # where QEMU begins a mapping of RAM
SHARERS = ("vmm", "helper")

Block = collections.namedtuple("Block", "name length mapped")


# --- the source --------------------------------------------------------------------------------


def ram_blocks(vm):
    """What QEMU says it will send."""
    text = vm.qmp.command("human-monitor-command", command_line="info ramblock")
    rows = re.findall(r"^\s*(\S+)\s+\d+ \w+\s+0x\w+\s+0x(\w+)\s+0x(\w+)", text, re.M)
    blocks = [Block(name, int(used, 16), int(total, 16)) for name, used, total in rows]
    check(blocks, f"no block in: {text}")
    return blocks


def mapping_of(vm, block):
    """Where QEMU has that block, by its size: QEMU aligns each to 2 MiB and puts a guard behind it."""
    with open(f"/proc/{vm.child.pid}/maps", encoding="ascii", errors="replace") as maps:
        rows = re.findall(r"^(\w+)-(\w+) (\S+) \w+ \S+ (\d+)", maps.read(), re.M)
    found = [int(start, 16) for start, end, mode, inode in rows
             if int(start, 16) % ALIGN == 0 and int(end, 16) - int(start, 16) == block.mapped
             and mode.startswith("rw") and inode == "0"]
    check_equal(len(found), 1, f"mappings of QEMU that could be {block.name}")
    return found[0]


def source_content(case, vm, block):
    """A file with what the source has in a block."""
    if block.name == RAM_BLOCK:
        return f"/proc/{os.getpid()}/fd/{vm.ram}"
    path = case.path("source-" + re.sub(r"\W", "_", block.name))
    with open(f"/proc/{vm.child.pid}/mem", "rb") as memory, open(path, "wb") as out:
        memory.seek(mapping_of(vm, block))
        out.write(memory.read(block.length))
    return path


def digest(path):
    done = subprocess.run([built("tests/lib/xxh3sum"), path], capture_output=True, text=True,
                          timeout=60, check=True)
    return done.stdout.strip()


# --- the destination ---------------------------------------------------------------------------


class Destination:
    """postcopyd and the two processes whose memory it serves."""

    def __init__(self, case, blocks, options):
        self.case = case
        self.run_dir = case.path("run")
        self.uri = "unix:" + case.path("migration")
        self.daemon = case.spawn("postcopyd", [
            built("postcopyd"), "--incoming", self.uri, "--run-dir", self.run_dir, "--stay",
            "--device-state", case.path("device-state"),
            *(word for name in SHARERS for word in ("--expect", name))])
        wait_for("postcopyd to listen", self._listens, 10)
        touch = ["--threads", str(options.threads), "--touch-from", "listening", "--seed"]
        vmm = self._sharer("vmm", [*touch, str(case.seed), "--role", "main"], [(b, "create") for b in blocks])
        ram = wait_event(vmm, "memfd", block=RAM_BLOCK)["path"]
        helper = self._sharer("helper", [*touch, str(case.seed + 1), "--role", "sharer"],
                              [(b, ram) for b in blocks if b.name == RAM_BLOCK])
        self.sharers = dict(zip(SHARERS, (vmm, helper)))
        for child in self.sharers.values():
            wait_event(child, "ready")

    def _listens(self):
        self.daemon.check_running()
        return os.path.exists(os.path.join(self.run_dir, "control"))

    def _sharer(self, name, options, blocks):
        words = [f"{block.name.replace(',', ',,')},size={block.length},memfd={memfd}"
                 for block, memfd in blocks]
        return self.case.spawn(name, [
            built("tests/lib/sharer"), "--socket", os.path.join(self.run_dir, "register"), "--name",
            name, *options, *(word for text in words for word in ("--block", text))])

    def control(self, verb):
        done = subprocess.run([built("postcopyctl"), "-r", self.run_dir, "--json", verb],
                              capture_output=True, text=True, timeout=20, check=False)
        check_equal(done.returncode, 0, f"postcopyctl {verb}: {done.stderr.strip()}: status")
        return json.loads(done.stdout)

    def watch(self, quiet, limit):
        """Until the session is over; drawn in place on a terminal, lines elsewhere."""
        command = [built("postcopyctl"), "-r", self.run_dir, "--interval", "0.25", "watch"]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL if quiet else None, timeout=limit,
                                  check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"not complete within {limit} s: {self.control('status')}") from None
        status = self.control("status")
        check(done.returncode == 0 and status["state"] == "complete",
              f"the session is {status['state']}: {status['error']}")

    def digests(self):
        """{sharer: {block: digest}}, each of its own mapping, when it has touched every page."""
        found = {}
        for name, child in self.sharers.items():
            wait_event(child, "touched", 60)
            wait_event(child, "digest", 60)
            found[name] = {}
        for name, child in self.sharers.items():
            for line in child.lines():
                event = json.loads(line)
                if event["event"] == "digest":
                    found[name][event["block"]] = event["xxh3_128"]
        return found


# --- the demo ----------------------------------------------------------------------------------


def boot(case, screen, options):
    vm = Vm(case, mib=options.size)
    screen.step(f"QEMU {vm.version} (TCG) boots a guest of {options.size} MiB that writes all its memory, "
                "round after round, and checks what it finds")
    vm.wait_guest(rounds=1)
    vm.set_capabilities("postcopy-ram", *(() if options.plain else ("postcopy-preempt",)))
    vm.set_parameters(max_bandwidth=100 * MIB, downtime_limit=1,
                      max_postcopy_bandwidth=options.rate * MIB)
    return vm


def migrate(vm, destination, screen, options):
    vm.migrate(destination.uri)
    wanted = options.size * MIB // 4

    def moved():
        info = vm.info()
        check(info["status"] in ("setup", "active"), f"precopy goes on (it is {info['status']})")
        return info.get("ram", {}).get("transferred", 0) >= wanted and info
    info = wait_for("precopy to move a part", moved, 60)
    screen.step(f"precopy has moved {human_bytes(info['ram']['transferred'])}; the guest runs on. Switch-over")
    vm.start_postcopy()
    destination.watch(screen.quiet, 100)
    vm.wait_migration("completed")
    screen.step("complete: the source has given everything and says so")


def verdict(case, vm, destination, blocks):
    """Everything that must hold, and what was measured; raises Failure where it does not."""
    status, stats, states = (destination.control(verb) for verb in ("status", "stats", "blocks"))
    digests = destination.digests()
    counters = Counters(stats, states)
    check_equal(sorted(b["name"] for b in states), sorted(b.name for b in blocks), "blocks it received")
    check_equal(counters.not_here(), {}, "pages that are not here")
    for what, count in counters.must_be_zero().items():
        check_equal(count, 0, what)
    check_equal(counters.placed(), status["owed_pages"], "pages placed, of those owed")
    rows = []
    for block in blocks:
        wanted = digest(source_content(case, vm, block))
        seen = {name: all_of[block.name] for name, all_of in digests.items() if block.name in all_of}
        for name, got in seen.items():
            check_equal(got, wanted, f"digest of {block.name} as {name} sees it, next to the source's")
        check("vmm" in seen, f"nobody looked at {block.name}")
        rows.append({"name": block.name, "pages": block.length // guestmem.PAGE, "xxh3_128": wanted,
                     "equal_for": sorted(seen)})
    guestmem.verify(vm.ram)
    for sharer in stats["sharers"]:
        check(sharer["faults"] > 0, f"no fault of {sharer['name']} was served")
    check_equal(sorted(s["name"] for s in stats["sharers"]), sorted(SHARERS), "sharers")
    times = status["times"]
    check(times["first_served_ns"] is not None, "no touch was served")
    return {
        "blocks": rows,
        "owed_pages": status["owed_pages"],
        "faults": counters.faults(),
        "requests": counters.requests(),
        "sharers": [{"name": s["name"], "faults": s["faults"], "latency": s["latency"]}
                    for s in stats["sharers"]],
        "lanes": stats["lanes"],
        "switchover_to_first_served_ns": times["first_served_ns"] - times["switchover_ns"],
        "switchover_to_complete_ns": times["complete_ns"] - times["switchover_ns"],
    }


def show(screen, result):
    screen.say()
    screen.table([("block", "pages", "digest at the source", *SHARERS)]
                 + [(b["name"], b["pages"], b["xxh3_128"],
                     *("same" if name in b["equal_for"] else "-" for name in SHARERS))
                    for b in result["blocks"]])
    screen.say()
    screen.sharers(result["sharers"])
    screen.say()
    screen.lanes(result["lanes"])
    screen.say()
    screen.table([("owed at the switch-over", f"{result['owed_pages']} pages"),
                  ("switch-over to the first touch served",
                   human_time(result["switchover_to_first_served_ns"])),
                  ("switch-over to everything here", human_time(result["switchover_to_complete_ns"])),
                  ("in all", f"{result['seconds']:.1f} s")])


def run(options, screen):
    case = Case("demo", options.seed)
    failed = True
    try:
        screen.step(f"seed {options.seed}")
        vm = boot(case, screen, options)
        blocks = ram_blocks(vm)
        destination = Destination(case, blocks, options)
        pids = ", ".join(f"{name} {child.pid}" for name, child in destination.sharers.items())
        screen.step(f"postcopyd ({destination.daemon.pid}) waits; sharers of one memory: {pids}, "
                    f"{options.threads} threads each")
        migrate(vm, destination, screen, options)
        result = verdict(case, vm, destination, blocks)
        result["seconds"] = round(screen.elapsed(), 3)
        failed = False
        return result
    finally:
        with contextlib.redirect_stdout(sys.stderr):
            case.close(not failed)


def default_size():
    """The guest's memory is there twice, and the machine has other work."""
    return max(64, min(1024, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB // 8))


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/demo --processes", description=__doc__.split("\n\n", maxsplit=1)[0],
        epilog="Exit status: 0 when every page of every block equals the source's, 1 when not.")
    parser.add_argument("--size", type=int, default=default_size(), metavar="MIB",
                        help="of the guest (1024, or an eighth of the memory that is free)")
    parser.add_argument("--rate", type=int, default=0, metavar="MIB",
                        help="background stream, MiB per second (0: no limit); QEMU paces it in slices "
                        "of 100 ms, for which demanded pages wait too")
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="in each sharer (4)")
    parser.add_argument("--plain", action="store_true", help="without the urgent lane (postcopy-preempt)")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), metavar="N",
                        help="of the order in which pages are touched (random)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of everything else")
    options = parser.parse_args()
    if not 16 <= options.size <= 3072 or not 1 <= options.threads <= 512 or options.rate < 0:
        parser.error("--size is 16 to 3072, --threads 1 to 512, --rate not negative")
    return options


def main():
    options = parse()
    screen = Screen(options.json)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    missing = [name for name in NEEDED if not built(name)]
    if missing or not os.access(SYSTEM_QEMU, os.X_OK):
        sys.exit(f"not there: {', '.join(missing) or SYSTEM_QEMU} (scripts/demo builds and installs)")
    try:
        result = {"ok": True, "seed": options.seed, **run(options, screen)}
    except (Failure, Skip) as failure:
        result = {"ok": False, "seed": options.seed, "error": str(failure)}
    if options.json:
        print(json.dumps(result))
    elif result["ok"]:
        show(screen, result)
        screen.say("\nPASSED: every page of every block equals the source's memory")
    else:
        screen.say(f"\nFAILED: {result['error']}")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
