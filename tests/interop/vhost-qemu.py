#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with a vhost-user disk moves between two unmodified QEMUs, a qemu-storage-daemon beside each.  (F21)

The premise: by QEMU's own postcopy alone this does not work with the parts of today, because the two disagree
about the form of the exchange of addresses.  With parts that agree the case passes and says which they are.
"""
import functools
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from dest import QemuDestination
from harness import check, check_equal, main, skip_all, wait_for
from machine import STORAGE_DAEMON, Machine, Storage
from scenario import PLAIN, PREEMPT, Migration, Scenario
from service import Service
from served import ServedQemu, Setup, check_ended_well, run_served

#: Bytes a second: the disk must be started again while memory is still missing.
SLOW = 16 << 20
READS = 100
#: In these the defects were read in the source and seen.  Of what is newer we only say what happens.
KNOWN_TO_FAIL = (7, 2)


def storage_version():
    text = subprocess.run([STORAGE_DAEMON, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)", text).groups()))


def panic_of(storage):
    """What a back-end said that gave up, or None."""
    said = re.search(r"vu_panic: .*", storage.errors())
    if said:
        return said[0]
    return None if storage.running() else f"it ended with status {storage.proc.returncode}"


def by_itself(case, binary):
    """QEMU's own postcopy.  Either the back-end gives up, or the guest reads on and finds nothing wrong."""
    scenario = Scenario("disk", PLAIN, when="at-once", machine=Machine(disk="vhost-user"), bandwidth=SLOW)
    migration = Migration(case, binary, scenario,
                          lambda uri, source: QemuDestination(case, uri, source, scenario.capabilities, binary))
    there = migration.destination
    storage = next(child for child in case.children if child.name == "storage-destination")
    reads_before = migration.source.disk().reads
    migration.start()

    def judged():
        panic = panic_of(storage)
        if panic:
            return panic
        disk = there.vm.disk() if there.vm.migration_status() == "completed" else None
        return "passes" if disk and disk.reads >= reads_before + READS else None
    outcome = wait_for("the back-end to give up, or the guest to read", judged, interval=0.05)
    if outcome == "passes":
        there.check_guest_goes_on()
        check_equal(panic_of(storage), None, "the back-end")
    else:
        there.child.kill()              # it says so for ever
    case.note(f"QEMU {migration.source.version}, storage daemon {'.'.join(map(str, storage_version()))}: {outcome}")
    if vm.version_of(binary) == storage_version() == KNOWN_TO_FAIL:
        check("VHOST_USER_ADD_MEM_REG received 0 fds" in outcome, f"these two are known to fail, but: {outcome}")


def interposed(case, binary, capabilities, option="", after_switch=None):
    """postcopyd serves the destination, and stands between it and its storage daemon."""
    scenario = Scenario("interposed", capabilities, when="at-once", machine=Machine(136, disk="vhost-user"),
                        backend="file", bandwidth=SLOW // (8 if capabilities is PLAIN else 32))
    migration, trace = run_served(case, binary, scenario, Setup(interposed=option),
                                  after_switch=after_switch or reads_on)
    check_ended_well(migration, trace)
    check_equal(panic_of(migration.destination.storage.child), None, "the back-end")
    faults = migration.destination.faults_of_storage()
    case.note(f"{faults} faults of the storage daemon")
    check(faults > 0, "the storage daemon met no missing page")


def reads_on(migration):
    """The guest's disk is used while most of the memory is missing; then all of it may come."""
    migration.destination.wait_phase("running")
    migration.destination.vm.wait_reads(3 * READS)
    migration.source.set_parameters(max_postcopy_bandwidth=0)


def repaired(case, binary):
    """QEMU's own postcopy once more, with nothing but the addresses made true."""
    front, back = case.path("front.vhost"), case.path("back.vhost")
    Service(case, f"--vhost-user=name=disk,front={front},back={back},repair=on")
    storage = Storage(case, "storage-destination", path=back)
    storage.path = front
    scenario = Scenario("repaired", PLAIN, when="at-once", machine=Machine(disk="vhost-user"), bandwidth=SLOW)
    migration = Migration(case, binary, scenario, lambda uri, source: QemuDestination(
        case, uri, source, scenario.capabilities, binary, storage=storage))
    migration.run()
    check_equal(panic_of(storage.child), None, "the back-end")
    migration.destination.check_guest_goes_on()
    check_equal(panic_of(storage.child), None, "the back-end")


def killed(migration):
    """While most of the memory is missing; QEMU connects again, and what was in flight is done by the next one."""
    migration.destination.wait_phase("running")
    migration.destination.vm.wait_reads(READS)
    migration.destination.storage.start_again()
    reads_on(migration)


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        yield f"P16 F21 {label}: by QEMU's own postcopy", functools.partial(by_itself, binary=binary)
        for name, capabilities, option in (("postcopyd between them", PLAIN, ""), ("preempt", PREEMPT, ""),
                                           ("the text's dialect", PREEMPT, ",dialect=spec")):
            yield f"P15 F21 {label}: {name}", functools.partial(
                interposed, binary=binary, capabilities=capabilities, option=option)
        yield f"P16 {label}: by QEMU's own postcopy, repaired", functools.partial(repaired, binary=binary)
        yield f"F15 F17 {label}: the storage daemon is killed", functools.partial(
            interposed, binary=binary, capabilities=PREEMPT, after_switch=killed)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if not os.access(STORAGE_DAEMON, os.X_OK):
        skip_all(f"no {STORAGE_DAEMON} here (package qemu-system-common)")
    if ServedQemu.missing_programs():
        skip_all("not built: " + ", ".join(ServedQemu.missing_programs()))
    main(list(cases()), limit=120)
