#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""An unmodified QEMU source into postcopyd, and beside it a device behind vfio-user that reaches all of the RAM.

Memory and CPUs come from QEMU; the device's state comes from postcopy-source, on a connection of its own.  The VM runs
at once, the device not before its last page is there: said by the server, which counts the holes in what it was given
each time that it is asked for something, and by samples of `postcopyctl devices` on the way.  (F47, S0-08, S2-05, S2-09, I1, I3)
"""
import functools
import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from dest import PostcopydDestination, find_event, wait_event
from device_world import SESSION, THEIRS, WORK, Server
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for
from scenario import Migration, Scenario
from service import PAGE
from vm import MIB, RAM_BLOCK

DEVICE, STATE = "nic", 40_000
STOP = 1                                # as the server numbers states
#: Slow enough that the VM runs for a while before the last page is there.
SLOW = 24 * MIB


class WithDevice(PostcopydDestination):
    """postcopyd that has a device, too, and its sharers."""

    PROGRAMS = (*PostcopydDestination.PROGRAMS, "postcopy-source", "tests/lib/vfiouser-server")
    VERBS = (*PostcopydDestination.VERBS, "devices")

    def __init__(self, case, uri, source, server, way):
        self.channel = "unix:" + case.path("devices")
        self.options = ["--vfio", f"id={DEVICE},vfio-user={server.path},mandatory=on,dma={way}",
                        "--dma-map", f"device={DEVICE},iova=0,block={RAM_BLOCK}",
                        "--device-channel", f"{self.channel},session={SESSION}"]
        super().__init__(case, uri, source)

    def _start_daemon(self, names, options=()):
        return super()._start_daemon(names, (*options, *self.options))

    def device(self):
        """What is told of it, and when it was asked."""
        asked = time.monotonic_ns()
        found = {d["id"]: d for d in self.control("devices")}
        return {**found[DEVICE], "asked": asked}


class Twin:
    """The device at the source, which postcopy-source takes away from there beside QEMU."""

    def __init__(self, case, generation):
        self.server = Server(case, f"size={STATE},generation={generation}", name="twin", seed=THEIRS)
        self.case = case
        self.leaving = None

    def leave(self, destination):
        """Stopped, saved, and heard of; held until it is said whose the VM is."""
        self.leaving = self.case.spawn("leaving", [
            built("postcopy-source"), "--json", "--hold", "--vfio", f"{DEVICE},vfio-user={self.server.path}",
            "--device-channel", destination.channel, "--session", SESSION])
        wait_for("the state of the device to be there", self.leaving.lines)

    def hand_over(self):
        self.leaving.check_running()
        self.leaving.kill(signal.SIGUSR1)
        check_equal(self.leaving.wait(), 0, "exit status of who took the device along")
        check_equal(self.server.commands()[-1]["state"], STOP, "state of the device that was left behind")


def samples_until(destination, stage):
    """Each `postcopyctl devices` until the device is there, as often as it goes."""
    taken = []

    def reached():
        destination.child.check_running()
        taken.append(destination.device())
        return taken[-1]["stage"] == stage
    wait_for(f"the device to be {stage}", reached, PATIENCE * 2, 0)
    return taken


def check_held(server, samples):
    """It ran with all of its set mapped and there, and not before."""
    check(server.ran(), "it never ran with its twin's state")
    ran = server.ran()[0]
    gate = samples[-1]["gate"]
    check_equal(ran["mappings"], gate["ranges"], "ranges it reaches when it begins to run")
    check_equal(gate["bytes"], gate["bytes_ready"], "bytes that are ready")
    short = [s for s in samples if "gate" in s and s["gate"]["pages_missing"]]
    check(short, "no sample saw a page missing: nothing was shown")
    check(ran["ns"] > short[-1]["asked"], f"it ran when {short[-1]['gate']['pages_missing']} pages were missing")
    for s in short:
        check(s["stage"] not in ("starting", "running"), f"it is {s['stage']} with pages missing: {s}")
    return short


def check_seen(server, ram, length):
    """What the device read all over its memory, when it began to run, is what the source has there."""
    worked = wait_event(server.child, "worked")
    words = sum(struct.unpack("<Q", os.pread(ram, 8, n * 5 * PAGE % length))[0] for n in range(WORK))
    check_equal((worked["failed"], worked["sum"]), (0, words & (1 << 64) - 1), "what the device saw")


def over(case, binary, way, generation):
    server, twin = Server(case, f"work={WORK},generation={generation}"), Twin(case, generation)
    migration = Migration(case, binary, Scenario("device", bandwidth=SLOW),
                          lambda uri, source: WithDevice(case, uri, source, server, way))
    destination = migration.destination
    samples_until(destination, "idle")
    migration.start()
    check_equal(destination.device()["stage"], "idle", "stage of the device before the switch")
    migration.switch()
    wait_for("the source to stand still", lambda: migration.source.info()["status"] != "active")
    samples = [destination.device()]
    twin.leave(destination)
    samples += samples_until(destination, "running")
    check_seen(server, migration.source.ram_now(), migration.source.length)
    migration.finish()
    twin.hand_over()
    check(find_event(destination.main, "running"), "the VM does not run")
    if way == "gate":
        short = check_held(server, samples)
        gap = (server.ran()[0]["ns"] - short[-1]["asked"]) / 1e6
        case.note(f"{len(short)} of {len(samples)} samples had pages missing; it ran {gap:.1f} ms after the last of them")
    server.check_trace()
    trace = migration.check_wire()
    destination.wait_state("complete")
    destination.check_counters(trace)
    migration.check_memory()


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for way, generation, text in (("gate", 2, "F47 S2-09 a device of its own beside QEMU's memory"),
                                      ("gate", 1, "F34 F47 the same, of the first generation"),
                                      ("messages", 2, "F47 the same, and it asks for its memory")):
            yield f"{label}: {text}", functools.partial(over, binary=binary, way=way, generation=generation)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if WithDevice.missing_programs():
        skip_all("not built: " + ", ".join(WithDevice.missing_programs()))
    main(list(cases()))
