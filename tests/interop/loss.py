#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""An unmodified source killed for good in postcopy, and what becomes of the VM in an unmodified destination QEMU.

poison: a guest that never touches a lost page lives on, however many others have; one that does loses its QEMU to
SIGBUS, which postcopyd tells.  freeze: the VM is stopped through the monitor of QEMU.  kill: that QEMU ends.  (F59)
"""
import collections
import functools
import os
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from harness import built, check, check_equal, main, skip_all, wait_for
from machine import Machine
from scenario import PREEMPT, Migration, Scenario
from served import ServedQemu, Setup
from service import Sharer

MIB = 1 << 20
PAGE = 4096
TRICKLE = 512 << 10                     # bytes a second after the switch: it outlasts the test
COUNTER = 0x7000                        # where the guest counts
#: cli; xor ax, ax; mov ds, ax; again: inc dword [COUNTER]; jmp again.  Nothing but the page of it is ever touched.
BEAT = bytes.fromhex("fa31c08ed866ff060070ebf9")
FILL = 16 * MIB                         # from here on the guest's memory is noise
LOST = 24 * MIB                         # a page of it that nobody has

State = collections.namedtuple("State", "round beat errors")


class BeatGuest:
    """It counts, in one page, and does nothing else."""

    @staticmethod
    def arguments(case, _mib):
        path = case.path("beat.img")
        if not os.path.exists(path):
            with open(path, "wb") as out:
                out.write(BEAT.ljust(510, b"\0") + b"\x55\xaa")
                out.truncate(MIB)
        return ["-drive", f"file={path},format=raw,if=ide,snapshot=on"]

    @staticmethod
    def status(machine):
        beat = struct.unpack("<I", os.pread(machine.low_ram(), 4, COUNTER))[0]
        return State(beat >> 16, beat, 0) if beat else None


def fill(source):
    """Noise, of which the source sends a page at a time."""
    with open(f"/proc/{os.getpid()}/fd/{source.ram}", "r+b", buffering=0) as memory:
        memory.seek(FILL)
        memory.write(os.urandom(source.length - FILL))


def lose(case, binary, policy, guest):
    """The VM runs here, most of its memory is at the source, and the source is killed."""
    machine = Machine(64, guest=guest)
    setup = Setup(backend="file", daemon=(f"--on-loss={policy}", "--expect=other"))
    migration = Migration(case, binary, Scenario("lost", PREEMPT, when="at-once", bandwidth=TRICKLE, machine=machine),
                          lambda uri, source: ServedQemu(case, uri, source, setup))
    destination = migration.destination
    other = sharer_of(case, destination)
    if guest:
        fill(migration.source)
    migration.start()
    destination.wait_phase("running", timeout=30)
    check(destination.vm.guest_runs() or not guest, "the guest does not run here")
    migration.source.child.kill()
    destination.wait_state("paused")
    return destination, other


def sharer_of(case, destination):
    """Another process that has the memory of the QEMU."""
    path = destination.vm.files[vm.RAM_BLOCK]
    child = case.spawn("sharer-other", [
        built("tests/lib/sharer"), "--socket", destination.register(), "--name", "other", "--role", "sharer", "--console", "--threads", "0", "--block",
        f"{vm.RAM_BLOCK},size={destination.vm.length},memfd={path}"], stdin=subprocess.PIPE)
    return Sharer(child, "other")


def lost_pages(destination):
    return {b["name"]: b["lost"] for b in destination.control("blocks")}[vm.RAM_BLOCK]


def never_touched(case, binary):
    destination, other = lose(case, binary, "poison,after=1", BeatGuest())
    other.do(f"touch {vm.RAM_BLOCK} {LOST} 3")
    for page in range(3):
        other.event("lost", offset=LOST + page * PAGE)
    wait_for("the pages to be given up", lambda: lost_pages(destination) == 3)
    check(destination.vm.guest_runs(), "the guest stands still")
    destination.vm.wait_guest(rounds=2)
    check_equal(destination.vm.vm_status(), "running", "the VM")
    check_equal(lost_pages(destination), 3, "pages given up")
    check(destination.vm.child.running(), "QEMU has ended")


def touched(case, binary):
    destination, _other = lose(case, binary, "poison,after=1", None)
    check_equal(destination.vm.child.wait(60), -signal.SIGBUS, "how QEMU ended")
    check(lost_pages(destination) >= 1, "no page was given up")
    gone = wait_for("its end to be told", lambda: next(
        (s for s in destination.control("sharers") if s["name"] == "vm" and s["state"] == "dead"), None))
    check(gone["error"]["reason"], f"why: {gone}")
    check("given up" in destination.child.errors(), "the log says that pages were")


def frozen(case, binary):
    destination, _other = lose(case, binary, "freeze,after=1", BeatGuest())
    loss = wait_for("the VM to be stopped", lambda: destination.control("status")["on_loss"]["stage"] == "frozen"
                    and destination.control("status")["on_loss"])
    check("QEMU was told" in loss["text"], loss["text"])
    wait_for("QEMU to say so", lambda: destination.vm.vm_status() == "paused")
    destination.vm.check_stopped()
    check_equal(lost_pages(destination), 0, "pages given up")


def killed(case, binary):
    destination, other = lose(case, binary, "kill,after=1", BeatGuest())
    check_equal(destination.vm.child.wait(60), -signal.SIGKILL, "how QEMU ended")
    status = wait_for("it to be told", lambda: destination.control("status")["held"] and destination.control("status"))
    check("no VM any more" in status["error"]["reason"], status["error"]["reason"])
    check(other.child.running(), "the other sharer has ended")


CASES = {
    "poison, a guest that never touches what is lost": never_touched,
    "poison, a guest that does": touched,
    "freeze through the monitor": frozen,
    "kill": killed,
}


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for name, function in CASES.items():
            yield f"F59 {label}: {name}", functools.partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if ServedQemu.missing_programs():
        skip_all("not built: " + ", ".join(ServedQemu.missing_programs()))
    main(list(cases()))
