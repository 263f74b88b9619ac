#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination QEMU, the source, or postcopyd killed in every phase of a hand-over: never two VMs.

Before the destination has loaded the device state nothing has run there.  Then another QEMU may take
the place of a lost one, if the RAM is a file with a name: it is the same migration, and it ends well.  Where the
VM runs nowhere afterwards (a source before 10.2 gives its VM away with the package) it says so and what to do.
"""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from harness import Deadline, check, check_equal, main, skip_all, wait_for
from machine import Machine
from relay import D2S, S2D
from scenario import PLAIN, PREEMPT, Migration, Scenario
from served import ServedQemu, Setup, check_ended_well

SLOW = 4 << 20                          # bytes a second after the switch: time to act in
#: Its device looks into its rings, which are sent last, while it loads.
DISK = Machine(32, disk="virtio")
RINGS = 30 << 20
RETRY = ",retry=60"                     # else a source that can is told to go on by itself


def prepare(case, binary, setup=Setup(), capabilities=PLAIN, **fields):
    return Migration(case, binary, Scenario("survive", capabilities, bandwidth=SLOW, **fields),
                     lambda uri, source: ServedQemu(case, uri, source, setup))


# --- into a phase ----------------------------------------------------------------------------------

def until_inmigrate(migration):
    """The source has said hello and no more."""
    migration.relay.hold(S2D, at=8)
    migration.source.migrate(migration.uri)
    migration.relay.wait_held()
    migration.destination.wait_phase("inmigrate")


def until_declared(migration):
    migration.start()
    migration.destination.wait_phase("declared")


def until_package(migration):
    """The VM stands still at the source, and its package is about to go out."""
    hold = migration.relay.hold(S2D, before=lambda event: event.kind == "PACKAGED")
    migration.start()
    migration.switch()
    migration.relay.wait_held(hold)
    return hold


def behind_package(migration):
    """All of the package goes over, and not one record behind it."""
    seen = []

    def is_next(event):
        seen.append(event.kind)
        return "PACKAGED" in seen[:-1]
    after = migration.relay.hold(S2D, before=is_next)
    migration.start()
    migration.switch()
    migration.relay.wait_held(after)


def until_private(migration):
    """QEMU cannot load before pages are here that the source has not sent."""
    behind_package(migration)
    migration.destination.wait_phase("private")


def is_page_of(event, block, start=0, length=1 << 40):
    return event.kind in ("PAGE", "ZERO") and event.a == block and start <= event.b < start + length


def until_loading(migration):
    """QEMU sleeps in the middle of its device state: a device touches a page that is not here."""
    migration.relay.hold(S2D, before=lambda event: is_page_of(event, vm.RAM_BLOCK, RINGS, 16 << 10))
    migration.start()
    migration.relay.wait_held()
    migration.destination.wait_phase("loading")
    wait_for("QEMU to sleep in a fault", lambda: waiting(migration))


def until_loaded(migration):
    """It has loaded, and our answer, for which the source waits, is not read."""
    hold = migration.relay.hold(S2D, before=lambda event: is_page_of(event, "pc.bios"))
    migration.start()
    migration.relay.wait_held(hold)
    migration.relay.stall(D2S)
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    migration.relay.release(hold)
    migration.destination.wait_phase("loaded")


def until_running(migration):
    migration.start()
    migration.switch()
    migration.destination.wait_phase("running")
    migration.source.wait_migration("postcopy-active")      # from 10.2 on: it has read our answer
    check(migration.destination.vm.guest_runs(), "the guest does not run")


def until_end(migration):
    """All that the source has is here; its end of stream is not."""
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    end = migration.relay.hold(S2D, before=lambda event: event.kind == "EOF")
    migration.start()
    migration.switch()
    migration.relay.wait_held(end)
    migration.destination.wait_phase("running")


def waiting(migration):
    return any(sharer["waiting"] for sharer in migration.destination.control("sharers"))


#: phase -> (how to get there, fields of the scenario)
PHASES = {
    "inmigrate": (until_inmigrate, {}),
    "declared": (until_declared, {}),
    "private": (until_private, {"when": "at-once"}),
    "loading": (until_loading, {"when": "at-once", "machine": DISK}),
    "loaded": (until_loaded, {"when": "at-once"}),
    "running": (until_running, {}),
    "end": (until_end, {}),
}
GIVEN_AWAY = ("private", "loading", "loaded")   # the package is over, the VM does not run here


# --- verdicts -----------------------------------------------------------------------------------------

def status_here(migration):
    """Of the VM at the destination; a QEMU that sleeps in its load answers nothing, and runs nothing."""
    destination = migration.destination
    if not destination.vm.child.running():
        return "ended"
    try:
        return destination.vm.qmp.command("query-status", timeout=3)["status"]
    except Deadline:
        return "inmigrate"


def check_never_two(migration):
    there = status_here(migration) == "running"
    here = migration.source.child.running() and migration.source.vm_status() == "running"
    check(not (here and there), "two VMs run")
    return here, there


def check_never_ran_here(migration):
    here = status_here(migration)
    check(here in ("ended", "inmigrate", "paused"), f"the VM here is {here}")


def check_source(migration, phase):
    """What it must do when its connection is lost in that phase (qemu-wire.md 13.1)."""
    source = migration.source
    given = phase in GIVEN_AWAY and source.older_than(10, 2)
    if phase in ("running", "end") or given:
        source.check_stopped()
    else:
        source.check_resumed()


# --- the destination QEMU ---------------------------------------------------------------------------------

def kill_qemu(destination):
    destination.vm.child.kill()
    destination.vm.child.wait()


def another_takes_over(case, binary, phase):
    """Killed, and the next one with the same files goes on with the same migration, to its good end."""
    into, fields = PHASES[phase]
    migration = prepare(case, binary, Setup(qemu=RETRY), **fields)
    into(migration)
    destination = migration.destination
    kill_qemu(destination)
    destination.wait_phase("retry", "wait-qmp")
    check_never_two(migration)
    destination.start_qemu()
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    migration.relay.release_all()
    if phase in ("inmigrate", "declared"):
        migration.switch()
    migration.finish()
    check_equal(destination.handover()["qemu"]["attempt"], 2, "which QEMU it is")
    trace = migration.trace()
    trace.check_source()
    migration.check_replay(trace)
    destination.check_released()
    destination.check_guest_goes_on()
    migration.source.check_stopped()


def load_fails(case, binary):
    """E15: the first lacks a device, says so and ends; the one after it has it."""
    machine = Machine(devices=("-device", "virtio-balloon-pci"))
    setup = Setup(qemu=RETRY, changes={"devices": ()})
    migration = prepare(case, binary, setup, PREEMPT, machine=machine)
    migration.start()
    migration.switch()
    destination = migration.destination
    wait_for("the first QEMU to fail", lambda: not destination.vm.child.running())
    check(destination.vm.child.proc.returncode > 0, "it ended as if all were well")
    destination.wait_phase("retry")
    destination.start_qemu()
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    migration.finish()
    destination.check_invariants(migration.check_wire())
    destination.check_guest_goes_on()
    migration.source.check_stopped()


def no_other_can(case, binary, phase, backend):
    """Killed, and what had come died with it: a source that can go on does, and else nobody does."""
    into, fields = PHASES[phase]
    migration = prepare(case, binary, Setup(backend=backend), **fields)
    into(migration)
    destination = migration.destination
    kill_qemu(destination)
    failed = destination.check_failed()
    case.note(f"{failed['error']}; {failed['advice']}")
    migration.relay.release_all()
    check_source(migration, phase)
    check_never_two(migration)


def ends_after_loading(case, binary, phase):
    """It had the VM: over, and nothing that the source does brings another to life by itself."""
    into, fields = PHASES[phase]
    migration = prepare(case, binary, **fields)
    into(migration)
    kill_qemu(migration.destination)
    failed = migration.destination.check_failed()
    case.note(f"{failed['error']}; {failed['advice']}")
    migration.source.check_stopped()
    check_never_two(migration)


# --- the source ------------------------------------------------------------------------------------------

def source_killed(case, binary, phase):
    """What it had and had not given is lost; nothing runs on zeroes in its place."""
    into, fields = PHASES[phase]
    migration = prepare(case, binary, **fields)
    into(migration)
    migration.source.child.kill()
    migration.source.child.wait()
    migration.relay.cut()
    destination = migration.destination
    if phase in ("inmigrate", "declared"):
        destination.check_refused()
    else:
        # Before the commit another source would run its VM again, and there is nothing to wait for.
        status = destination.wait_state("paused", "failed")
        check((status["error"] or {}).get("reason"), "it does not say what is lost")
    check(destination.vm.child.running(), "QEMU ended with the source")
    if phase not in ("running", "end"):
        check_never_ran_here(migration)


# --- postcopyd ---------------------------------------------------------------------------------------------

def postcopyd_killed(case, binary, phase):
    into, fields = PHASES[phase]
    migration = prepare(case, binary, **fields)
    into(migration)
    migration.destination.child.kill()
    migration.destination.child.wait()
    migration.relay.cut()
    check_source(migration, phase)
    here, _ = check_never_two(migration)
    if phase not in ("running", "end"):
        check_never_ran_here(migration)
    if phase in GIVEN_AWAY and migration.source.older_than(10, 2):
        check(not here, "the source gave its VM away and runs it")
        migration.source.wait_migration("postcopy-paused")


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        named = {f"QEMU killed, another takes over, {phase}": partial(another_takes_over, phase=phase)
                 for phase in ("inmigrate", "declared", "private", "loading")}
        named["E15 the first cannot load, another does"] = load_fails
        named |= {f"QEMU with a memfd killed, {phase}": partial(no_other_can, phase=phase, backend="memfd")
                  for phase in ("declared", "private", "loading")}
        named["QEMU with anonymous RAM killed, private"] = partial(no_other_can, phase="private", backend="private")
        named |= {f"QEMU killed, {phase}": partial(ends_after_loading, phase=phase) for phase in ("running", "end")}
        for phase in PHASES:
            if phase == "loaded" and vm.version_of(binary) < (10, 2):
                continue                # it gave its VM away and waits for no answer
            named[f"source killed, {phase}"] = partial(source_killed, phase=phase)
            if phase != "end" or vm.version_of(binary) < (10, 0):
                # After its last byte a newer source runs its VM again when the connection is lost, and nobody
                # is left who could stop the one here: the watch of a keeper, which is not there yet.
                named[f"postcopyd killed, {phase}"] = partial(postcopyd_killed, phase=phase)
        for name, function in named.items():
            yield f"{label}: {name}", partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if ServedQemu.missing_programs():
        skip_all("not built: " + ", ".join(ServedQemu.missing_programs()))
    main(list(cases()), limit=120)
