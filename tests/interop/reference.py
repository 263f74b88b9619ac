#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The machinery of the interop tests against known good destinations.

QEMU into the reference destination and into QEMU's own; then each of the verdicts against a
destination that makes that mistake.  When these pass, a failure of the other scripts is postcopyd's.
"""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
import vm
from dest import QemuDestination, RefDestination
from harness import Failure, check, check_equal, main, skip_all
from heartbeat import Heartbeat
from machine import Machine
from relay import S2D
from scenario import PREEMPT, SCENARIOS, Migration, Scenario

#: Machines of the tests with postcopyd between two QEMUs, here as a baseline.  One that shares its RAM with a
#: storage daemon is missing: QEMU's own postcopy ends that daemon's connection (seen with 7.2).
MACHINES = (
    Scenario("disk, at once", when="at-once", machine=Machine(disk="virtio")),
    Scenario("two nodes", backend="numa"),
    Scenario("the way back is 5 ms long", PREEMPT, return_delay=0.005),
)


def into_reference(case, binary, scenario):
    migration = Migration(case, binary, scenario,
                          lambda uri, source: RefDestination(case, uri), sides=1)
    migration.run()
    trace = migration.check_wire()
    migration.check_memory()
    migration.destination.check_counters(trace)


def into_qemu(case, binary, scenario):
    """The guest goes on over there and checks itself; with a relay that judges QEMU's requests."""
    migration = Migration(
        case, binary, scenario,
        lambda uri, source: QemuDestination(case, uri, source, scenario.capabilities, binary))
    # Memory that is private to QEMU cannot be watched from outside.
    gap = Heartbeat(case, migration.source, migration.destination.vm) if migration.source.parts else None
    migration.run()
    migration.check_wire()
    migration.destination.check_guest_goes_on()
    if gap:
        case.note(f"the guest stood still for {gap.gap_ms():.1f} ms")
    migration.source.check_stopped()
    guestmem.verify(migration.source.ram_now())


def into_qemu_paused(case, binary, scenario):
    """Nothing runs over there, so the memory must be the source's."""
    migration = Migration(
        case, binary, scenario,
        lambda uri, source: QemuDestination(case, uri, source, scenario.capabilities, binary,
                                            paused=True))
    migration.run()
    migration.check_wire()
    migration.check_memory()


# --- each verdict, against what it must find ------------------------------------------------------

def expect_failure(part, function, *arguments):
    try:
        function(*arguments)
    except Failure as failure:
        check(part in str(failure), f"found another fault than {part!r}: {failure}")
        return
    raise Failure(f"did not find {part!r}")


def finds_mistake(case, binary, mistake):
    migration = Migration(
        case, binary, Scenario(mistake),
        lambda uri, source: RefDestination(case, uri, ["--misbehave", mistake]), sides=1)
    migration.run()
    if mistake == "place-wrong":
        migration.check_wire()
        expect_failure("1 pages differ", migration.check_memory)
        return
    trace = migration.trace()
    part, verdict = {
        "ask-twice": ("1 pages requested more than once", trace.check_requests),
        "ask-beyond": ("is not owed", trace.check_requests),
        "lose-pong": ("PONG", trace.check_pongs),
    }[mistake]
    expect_failure(part, verdict)


def finds_damage_in_guest(case, binary):
    """verify() finds each kind of damage in a copy of a real guest's memory."""
    source = vm.Vm(case, binary)
    source.wait_guest(rounds=1)
    source.qmp.command("stop")
    status = guestmem.verify(source.ram)
    copy = os.memfd_create("copy")
    case.defer(lambda: os.close(copy))
    for at in range(0, source.length, 1 << 20):
        os.pwrite(copy, os.pread(source.ram, 1 << 20, at), at)
    guestmem.verify(copy)
    live = next(a for a in range(status.start, source.length, 8192) if a != status.cursor)
    for at, part in ((live, "differ"), (live + 12, "differ"), (live + 2048, "pattern"),
                     (live + 4096 + 8, "guest made"), (guestmem.STATUS + 16, "errors itself")):
        byte = os.pread(copy, 1, at)
        os.pwrite(copy, bytes([byte[0] ^ 0x10]), at)
        expect_failure(part, guestmem.verify, copy)
        if at != guestmem.STATUS + 16:
            check_equal(guestmem.compare(source.ram, copy, source.length), [at & ~4095], "differing")
        os.pwrite(copy, byte, at)
    stale = os.pread(source.ram, 4096, live)
    other = live + 8192 if live + 8192 != status.cursor else live + 16384
    os.pwrite(copy, stale, other)
    expect_failure("belongs to", guestmem.verify, copy)


# --- the source when its destination goes away, with the relay's knife -------------------------------

def cut_in_precopy(case, binary, reset):
    migration = Migration(case, binary, Scenario("cut", transport="tcp"),
                          lambda uri, source: RefDestination(case, uri), sides=1)
    migration.start()
    migration.relay.cut(reset=reset)
    migration.source.check_resumed()
    migration.destination.check_refused()


def kill_in_precopy(case, binary):
    migration = Migration(case, binary, Scenario("kill"),
                          lambda uri, source: RefDestination(case, uri), sides=1,
                          through_relay=False)
    migration.start()
    migration.destination.child.kill()
    migration.source.check_resumed()


def held_before_package(case, binary):
    """The relay stops at the exact byte, and nothing is lost when it goes on."""
    migration = Migration(case, binary, Scenario("hold", PREEMPT),
                          lambda uri, source: RefDestination(case, uri), sides=1)
    hold = migration.relay.hold(S2D, before=lambda event: event.kind == "PACKAGED")
    migration.start()
    migration.switch()
    migration.relay.wait_held(hold)
    forwarded = migration.relay.main().directions[S2D].forwarded
    migration.source.check_stopped()
    migration.relay.release(hold)
    migration.finish()
    trace = migration.check_wire()
    check_equal(trace.positions["PACKAGED"], forwarded, "where it was held")
    migration.check_memory()


def corrupted_magic(case, binary):
    migration = Migration(case, binary, Scenario("corrupt"),
                          lambda uri, source: RefDestination(case, uri), sides=1)
    migration.relay.corrupt(at=1)
    migration.source.migrate(migration.uri)
    migration.source.check_resumed()
    migration.destination.check_refused()


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for scenario in SCENARIOS:
            yield f"{label}: {scenario.name}, into the reference", partial(
                into_reference, binary=binary, scenario=scenario)
        for scenario in (*SCENARIOS, *MACHINES):
            if scenario.mib <= 64 and scenario.backend != "private":
                yield f"{label}: {scenario.name}, into qemu", partial(
                    into_qemu, binary=binary, scenario=scenario)
        yield f"{label}: plain, into a paused qemu", partial(
            into_qemu_paused, binary=binary, scenario=SCENARIOS[0])
        yield f"{label}: cut in precopy", partial(cut_in_precopy, binary=binary, reset=False)
        yield f"{label}: reset in precopy", partial(cut_in_precopy, binary=binary, reset=True)
        yield f"{label}: destination killed in precopy", partial(kill_in_precopy, binary=binary)
        yield f"{label}: held before the package", partial(held_before_package, binary=binary)
        yield f"{label}: magic corrupted", partial(corrupted_magic, binary=binary)
    binary = vm.binaries()[0]
    for mistake in ("ask-twice", "ask-beyond", "lose-pong", "place-wrong"):
        yield f"verdict finds {mistake}", partial(finds_mistake, binary=binary, mistake=mistake)
    yield "verdict finds damage in a guest", partial(finds_damage_in_guest, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    main(list(cases()))
