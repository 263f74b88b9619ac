#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A running Linux moves by postcopy between two unmodified QEMUs, and postcopyd serves its page faults.

The guest counts on its console, proves its memory round after round, and reads a disk that a storage
daemon serves through vhost-user: at the destination that is a second process whose faults are served.
At the end the guest's own verdict counts: it went on where it had stopped, and found nothing wrong.
"""
import argparse
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
from harness import Case, Failure, Skip, built, check, check_equal, wait_for
from heartbeat import Heartbeat
from linuxguest import PROGRAM, LinuxGuest
from machine import STORAGE_DAEMON, Machine, Storage
from screen import Screen, human_time
from vm import MIB, RAM_BLOCK, SYSTEM_QEMU, Vm

PRELOAD = ".libs/libpostcopy-preload.so"
NEEDED = ("postcopyd", "postcopyctl", "postcopy-run", PRELOAD, PROGRAM)
VMM, DISK = "vmm", "disk"
FIRST_SECONDS = 2                       # of background stream, for the storage daemon to meet missing memory in
#: The phases of `postcopyctl handover` between the stop at the source and the go here.
PHASES = ("private", "streaming", "loading", "loaded", "cont", "running")


class Destination:
    """What `postcopy-run` starts here, and the storage daemon beside it."""

    def __init__(self, case, machine):
        self.case = case
        self.run_dir = case.path("run")
        self.disk_socket = case.path("disk.vhost")
        config = case.path("postcopyd.conf")
        with open(config, "w", encoding="ascii") as f:
            f.write("[postcopyd]\nstay=true\n")         # to be asked when all is over
        self.machine = machine
        self.run, told = self._run(config)
        self.uri, self.pid = told["incoming"], told["vmm-pid"]
        self.storage = case.spawn("storage-destination", [
            *self._postcopy_run(), "--sharer", DISK, STORAGE_DAEMON,
            "--blockdev", f"driver=file,node-name=f,read-only=on,filename={guestmem.pattern_disk(case)}",
            "--export", f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={self.disk_socket}"])
        wait_for("QEMU to be ready for the VM", self._ready, 60)
        self._ram = self._open_ram()

    def _postcopy_run(self):
        return [built("postcopy-run"), "--preload", built(PRELOAD), "--run-dir", self.run_dir]

    def _run(self, config):
        read, write = os.pipe()
        child = self.case.spawn("destination", [
            *self._postcopy_run(), "--postcopyd", built("postcopyd"), "--config", config, "--expect", DISK,
            "--incoming", "tcp:127.0.0.1:0", "--ready-fd", str(write), "--",
            SYSTEM_QEMU, "-accel", "tcg", "-nodefaults", "-display", "none",
            "-machine", f"{self.machine.type},memory-backend={RAM_BLOCK}",
            "-object", f"memory-backend-memfd,id={RAM_BLOCK},size={self.machine.mib}M,share=on",
            *self.machine.arguments(self.case, Named(self.disk_socket))], pass_fds=(write,))
        os.close(write)
        with open(read, "rb") as ready:
            line = ready.readline()
        check(line, f"postcopy-run failed: {child.errors()}")
        return child, json.loads(line)

    def _ready(self):
        self.run.check_running()
        self.storage.check_running()
        return self.control("handover")["phase"] == "inmigrate"

    def _open_ram(self):
        folder = f"/proc/{self.pid}/fd"
        for entry in os.listdir(folder):
            if "memfd:memory-backend-memfd" in os.readlink(f"{folder}/{entry}"):
                fd = os.open(f"{folder}/{entry}", os.O_RDONLY)
                self.case.defer(lambda: os.close(fd))
                return fd
        raise Failure("QEMU has no memory")

    def low_ram(self):
        return self._ram

    def guest(self):
        return self.machine.guest.status(self)

    def disk(self):
        return self.machine.guest.disk_status(self)

    def control(self, verb):
        done = subprocess.run([built("postcopyctl"), "-r", self.run_dir, "--json", verb],
                              capture_output=True, text=True, timeout=20, check=False)
        check_equal(done.returncode, 0, f"postcopyctl {verb}: {done.stderr.strip()}: status")
        return json.loads(done.stdout)

    def watch(self, quiet, limit):
        command = [built("postcopyctl"), "-r", self.run_dir, "--interval", "0.25", "watch"]
        try:
            subprocess.run(command, stdout=subprocess.DEVNULL if quiet else None, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"not complete within {limit} s: {self.control('status')}") from None
        status = self.control("status")
        check_equal(status["state"], "complete", f"state of the session ({status['error']})")


class Named:
    """As much of a machine.Storage as a machine asks."""

    chardev = ",reconnect=1"    # QEMU waits for its disk, which can come only when postcopyd is there

    def __init__(self, path):
        self.path = path


def boot(case, screen, options):
    guest = LinuxGuest(case, pages=options.size * MIB // 2 // guestmem.PAGE, disk="/dev/vda")
    machine = Machine(mib=options.size, disk="vhost-user", guest=guest)
    vm = Vm(case, machine=machine, storage=Storage(case, "storage-source"))
    screen.step(f"QEMU {vm.version} (TCG) boots a Linux with {options.size} MiB; it will prove half of them, "
                "round after round")
    guest.wait_started()
    vm.wait_guest(rounds=1)
    vm.wait_reads(10)
    vm.set_capabilities("postcopy-ram", *(() if options.plain else ("postcopy-preempt",)))
    rate = options.size // FIRST_SECONDS
    vm.set_parameters(max_bandwidth=200 * MIB, downtime_limit=1,
                      max_postcopy_bandwidth=min(options.rate or rate, rate) * MIB)
    return vm


def wait_quiet(vm):
    """The guest begins a time without reads: the source's storage daemon would lose one in flight."""
    wait_for("the guest to read", lambda: vm.disk().in_flight, 10, 0.002)
    wait_for("the guest to pause its reads", lambda: not vm.disk().in_flight, 10, 0.002)


def faults_of(destination):
    return {s["name"]: s["faults"] for s in destination.control("stats")["sharers"]}


def migrate(vm, destination, screen, rate):
    """Without any precopy: a qemu-storage-daemon 7.2 forgets to tell its QEMU of some of the memory it wrote."""
    wait_quiet(vm)
    vm.migrate(destination.uri, at_once=True)
    screen.step("switch-over: all of the memory is still at the source")
    wait_for("the storage daemon to meet missing memory", lambda: faults_of(destination).get(DISK), 60, 0.05)
    vm.set_parameters(max_postcopy_bandwidth=rate * MIB)
    destination.watch(screen.quiet, 100)
    vm.wait_migration("completed")
    screen.step("complete: everything is here")


def gap_of(phases, name):
    """How long that phase took."""
    at = [moment["at_ns"] for moment in phases]
    names = [moment["phase"] for moment in phases]
    i = names.index(name)
    return at[i + 1] - at[i] if i + 1 < len(at) else 0


def goes_on(destination):
    """At the destination the guest does what it did, and finds nothing wrong."""
    before, reads = destination.guest(), destination.disk().reads
    wait_for("two further rounds of the guest", lambda: destination.guest().round >= before.round + 2, 120)
    wait_for("further reads of the disk", lambda: destination.disk().reads >= reads + 100, 60)
    return destination.guest(), destination.disk()


def verdict(vm, destination, heartbeat, at_source):
    guest, disk = goes_on(destination)
    check_equal(vm.vm_status(), "postmigrate", "the VM at the source")
    check(guest.beat > at_source.beat, "the guest counts on where it stopped")
    check_equal((guest.errors, disk.errors), (0, 0),
                f"errors that the guest found, in memory ({guest}) and on its disk ({disk})")
    stats, status, handover = (destination.control(verb) for verb in ("stats", "status", "handover"))
    check_equal(stats["alarms"], 0, "alarms")
    check_equal(handover["error"], None, "error of the hand-over")
    faults = faults_of(destination)
    check(faults.get(VMM, 0) > 0, f"no fault of QEMU was served: {faults}")
    check(faults.get(DISK, 0) > 0, f"no fault of the storage daemon was served: {faults}")
    times = status["times"]
    return {
        "guest": {"count_at_switchover": at_source.beat, "count_now": guest.beat, "rounds": guest.round,
                  "disk_reads": disk.reads, "errors": 0},
        "console": [destination.machine.guest.console(side).splitlines()[-1:] for side in (0, 1)],
        "downtime_ns": int(heartbeat.gap_ms() * 1e6),
        "phases": {name: gap_of(handover["timeline"], name) for name in PHASES[:-1]},
        "owed_pages": status["owed_pages"],
        "switchover_to_complete_ns": times["complete_ns"] - times["switchover_ns"],
        "sharers": stats["sharers"], "lanes": stats["lanes"],
    }


def show(screen, result):
    screen.say()
    for where, line in zip(("the guest's last words at the source:     ",
                            "the guest's last words at the destination:"), result["console"]):
        screen.say(f"  {where} {''.join(line)}")
    screen.say()
    screen.sharers(result["sharers"])
    screen.say()
    screen.lanes(result["lanes"])
    screen.say()
    phases = ", ".join(f"{name} {human_time(ns)}" for name, ns in result["phases"].items())
    screen.say(f"  the hand-over to QEMU: {phases}")
    screen.say()
    screen.table([("owed at the switch-over", f"{result['owed_pages']} pages"),
                  ("the guest stood still for", human_time(result["downtime_ns"])),
                  ("switch-over to everything here", human_time(result["switchover_to_complete_ns"])),
                  ("in all", f"{result['seconds']:.1f} s")])


def run(options, screen):
    case = Case("demo", options.seed)
    failed = True
    try:
        vm = boot(case, screen, options)
        destination = Destination(case, vm.machine)
        screen.step(f"QEMU ({destination.pid}) waits for the VM, a storage daemon "
                    f"({destination.storage.pid}) shares its memory")
        heartbeat = Heartbeat(case, vm, destination)
        migrate(vm, destination, screen, options.rate)
        result = verdict(vm, destination, heartbeat, vm.guest())
        result["seconds"] = round(screen.elapsed(), 3)
        failed = False
        return result
    finally:
        with contextlib.redirect_stdout(sys.stderr):
            case.close(not failed)


def default_size():
    """The guest's memory is there twice, and the machine has other work."""
    return max(192, min(1024, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB // 8))


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__.split("\n\n", maxsplit=1)[0],
        epilog="Exit status: 0 when the guest went on and found nothing wrong, 1 when not.  "
        "scripts/demo --processes [--help]: into two processes instead of a QEMU, every page compared.")
    parser.add_argument("--size", type=int, default=default_size(), metavar="MIB",
                        help="of the guest (1024, or an eighth of the memory that is free)")
    parser.add_argument("--rate", type=int, default=0, metavar="MIB",
                        help="background stream, MiB per second (0: no limit)")
    parser.add_argument("--plain", action="store_true", help="without the urgent lane (postcopy-preempt)")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of everything else")
    options = parser.parse_args()
    if not 192 <= options.size <= 3072 or options.rate < 0:
        parser.error("--size is 192 to 3072, --rate not negative")
    return options


def main():
    options = parse()
    screen = Screen(options.json)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    missing = [name for name in NEEDED if not built(name)]
    if missing or not os.access(SYSTEM_QEMU, os.X_OK):
        sys.exit(f"not there: {', '.join(missing) or SYSTEM_QEMU} (scripts/demo builds and installs)")
    try:
        result = {"ok": True, **run(options, screen)}
    except (Failure, Skip) as failure:
        result = {"ok": False, "error": str(failure)}
    if options.json:
        print(json.dumps(result))
    elif result["ok"]:
        show(screen, result)
        screen.say("\nPASSED: the VM moved while it ran, and found no error in its memory nor on its disk")
    else:
        screen.say(f"\nFAILED: {result['error']}")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
