#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified QEMUs at both ends, and postcopyd serves the memory of the destination.

Each case is a migration to its good end with everything asserted that must hold in all of them: every
mapping of the RAM in every sharer registered while pages are missing, and none afterwards; no page asked
for twice, none sent or placed twice, none missing, none written by anybody else; the source `completed`; the
guest, which goes on here, found no error, and its memory is what it must be.  Numbers E1 to E26 are those of
the acceptance tests that this way of migrating was designed with.
"""
import functools
import itertools
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
import vm
from dest import QemuDestination, RefDestination
from harness import Skip, check, check_equal, diag, main, skip_all, wait_for
from linuxguest import LinuxGuest
from machine import Machine, MemoryGuest
from relay import S2D
from scenario import CONVERGE, PLAIN, PREEMPT, Migration, Scenario, address
from served import ServedQemu, Setup, check_ended_well, run_served
from vm import HUGE, MIB, NEVER_CONVERGE

LONG = os.environ.get("POSTCOPY_TESTS_LONG") == "1"
SLOW = 2_000_000                        # bytes a second after the switch
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
Q35 = Machine(type="q35", guest=MemoryGuest(interface="virtio"))    # SeaBIOS 1.16.2 may wait for AHCI for half a minute
CROSSING = "pc-i440fx-"                 # a machine of this version is the same for every QEMU that has it
BALLOON = ("-device", "virtio-balloon-pci,id=balloon")
REPORTING = ("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on")


def plain(case, binary, setup=Setup(), capabilities=PLAIN, **fields):
    """Most of them are this with one thing changed."""
    migration, trace = run_served(case, binary, Scenario("served", capabilities, **fields), setup)
    check_ended_well(migration, trace)
    return migration, trace


def classes(migration):
    """How each block came."""
    return {block["name"]: block["class"] for block in migration.destination.handover()["blocks"]}


# --- where the memory is ------------------------------------------------------------------------------

def ignore_shared_left_on(case, binary):
    """Somebody had prepared the destination for it; it must not be on when that QEMU migrates on."""
    migration, _ = plain(case, binary, Setup(capabilities=("x-ignore-shared",)))
    on = [c["capability"] for c in migration.destination.vm.qmp.command("query-migrate-capabilities")
          if c["state"]]
    check("x-ignore-shared" not in on, "it is still on: the next migration would lose the memory")


def anonymous(case, binary):
    """No file at all: a stock command line, the pages are placed into private memory."""
    migration, _ = plain(case, binary, Setup(backend="private"))
    check_equal(classes(migration)[vm.RAM_BLOCK], "lazy", "how the RAM came")


def display(case, binary):
    """16 MiB that no file is behind: served page by page where the monitor tells its address."""
    machine = Machine(devices=("-vga", "std"))
    migration, _ = plain(case, binary, machine=machine)
    late = migration.destination.vm.older_than(8, 1)
    how = [how for name, how in classes(migration).items() if name.endswith("vga.vram")]
    check_equal(how, ["in-stream" if late else "lazy"], "how its memory came")


def left_paused(case, binary):
    """Not told to go on: all of the memory is the source's, and so are the ROMs."""
    migration = Migration(case, binary, Scenario("paused", PREEMPT),
                          lambda uri, source: ServedQemu(case, uri, source, Setup(qemu=",cont=no")))
    migration.run()
    trace = migration.check_wire()
    destination = migration.destination
    destination.check_invariants(trace, faults=False)
    check_equal(destination.vm.vm_status(), "paused", "the VM here")
    check("cont=no" in destination.handover()["not_continued"], "it does not say why")
    migration.check_memory()
    destination.check_roms()
    destination.vm.qmp.command("cont")
    destination.check_guest_goes_on()


def paused_at_source(case, binary):
    """It was paused there, so it stays paused here."""
    scenario = Scenario("paused", when="at-once")
    migration = Migration(case, binary, scenario, lambda uri, source: ServedQemu(case, uri, source))
    migration.source.qmp.command("stop")
    migration.run()
    destination = migration.destination
    destination.check_invariants(migration.check_wire(), faults=False)
    check_equal(destination.vm.vm_status(), "paused", "the VM here")
    check("paused" in destination.handover()["not_continued"], "it does not say why")
    migration.check_memory()


def two_nodes(case, binary):
    migration, _ = plain(case, binary, Setup(backend="numa"), backend="numa")
    check_equal({name for name, how in classes(migration).items() if how == "shared"}, {"m0", "m1"},
                "blocks that are shared")


def huge_pages(case, binary, capabilities, when, options=""):
    plain(case, binary, Setup(backend="hugetlb", backend_options=options), capabilities,
          backend="hugetlb", when=when)


def transparent_huge(case, binary):
    """A file system that gives 2 MiB for each touch of a page: nothing may appear that was not sent."""
    where = case.path("thp")
    os.mkdir(where)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "huge=always,size=256m", "none", where],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skip(f"no tmpfs with huge pages: {done.stderr.strip()}")
    case.defer(lambda: subprocess.run(["umount", "-l", where], check=True))
    plain(case, binary, Setup(ram_dir=where))


def kernel_given(case, binary):
    """-kernel: nothing is in the file of the RAM before the source's pages are."""
    guest = LinuxGuest(case)
    scenario = Scenario("kernel", PREEMPT, machine=Machine(128, guest=guest))
    migration = Migration(case, binary, scenario, lambda uri, source: ServedQemu(case, uri, source))
    guest.wait_started()
    _, fd, _ = migration.destination.vm.parts[0]
    check_equal(os.fstat(fd).st_blocks, 0, "blocks of the file of the RAM")
    migration.run()
    migration.destination.check_invariants(migration.check_wire())
    migration.destination.check_guest_goes_on()
    wait_for("its counting here", lambda: guest.console(1).count("count ") >= 2)


# --- devices ---------------------------------------------------------------------------------------

def loads_through_faults(case, binary):
    """The device looks into its rings while it is loaded, and they are not there yet."""
    machine = Machine(136, disk="virtio")
    migration, _ = plain(case, binary, machine=machine, when="at-once")
    times = migration.destination.control("status")["times"]
    loaded = next(m["at_ns"] for m in migration.destination.handover()["timeline"]
                  if m["phase"] == "loaded")
    check(times["first_fault_ns"] and times["first_fault_ns"] < loaded, "no fault before it had loaded")


def second_sharer(case, binary, capabilities, when, reads):
    """A storage daemon writes into pages that are missing, and must not destroy what is beside its data."""
    def read_slowly(migration):
        migration.destination.wait_phase("running")
        migration.destination.vm.wait_reads(reads)
        wait_for("the storage daemon to meet a missing page", migration.destination.faults_of_storage)
        migration.source.set_parameters(max_postcopy_bandwidth=0)
    scenario = Scenario("second sharer", capabilities, machine=Machine(136, disk="vhost-user"), when=when,
                        backend="file", bandwidth=SLOW // 4)
    migration, trace = run_served(case, binary, scenario, after_switch=read_slowly)
    check_ended_well(migration, trace)
    faults = migration.destination.faults_of_storage()
    case.note(f"{faults} faults of the storage daemon")
    check(faults > 0, "the storage daemon met no missing page")


def completes_as_precopy(case, binary, machine):
    """It converges before anybody wanted postcopy: the same destination, without a fault."""
    scenario = Scenario("precopy", when="precopy", machine=machine, backend="file")
    migration = Migration(case, binary, scenario, lambda uri, source: ServedQemu(case, uri, source))
    migration.run()
    trace = migration.check_wire()
    check_ended_well(migration, trace)


def daemonized(case, binary):
    """It forks twice on its way: only the last one's memory counts."""
    plain(case, binary, Setup(extra=("-daemonize", "-pidfile", case.path("pid"))))


def unprivileged(case, binary):
    """Nobody, in a sandbox: the userfaultfd comes from a descriptor that postcopyd lends."""
    plain(case, binary, Setup(wrapper=NOBODY, extra=("-sandbox", SANDBOX), trusted=False,
                              daemon=("--register-group=nogroup",)))


# --- memory that is given back ------------------------------------------------------------------------

def linux_served(case, binary, devices):
    """A Linux that is under way, all but the end of its memory here; (migration, the hold, guest)."""
    guest = LinuxGuest(case, pages=4096)
    machine = Machine(128, devices=devices, guest=guest)
    migration = Migration(case, binary, Scenario("balloon", PREEMPT, machine=machine),
                          lambda uri, source: ServedQemu(case, uri, source))
    guest.wait_started()
    migration.source.set_parameters(max_postcopy_bandwidth=16 * MIB)
    hold = migration.relay.hold(S2D, before=lambda event: event.kind == "EOF")
    return migration, hold, guest


def balloon_inflates(case, binary):
    """It takes memory while pages are missing: nothing sleeps for ever, nobody finds an error."""
    migration, hold, _ = linux_served(case, binary, BALLOON)
    migration.start()
    migration.switch()
    destination = migration.destination
    destination.wait_phase("running")
    destination.vm.qmp.command("balloon", value=96 * MIB)
    wait_for("the balloon to inflate", lambda: destination.vm.qmp.command("query-balloon")["actual"] == 96 * MIB,
             30, 0.05)
    migration.relay.wait_held(hold)
    migration.relay.release(hold)
    migration.finish()
    destination.vm.qmp.command("balloon", value=128 * MIB)
    wait_for("it to deflate", lambda: destination.vm.qmp.command("query-balloon")["actual"] == 128 * MIB, interval=0.05)
    migration.check_wire()
    destination.check_released()
    destination.check_guest_goes_on()


def free_pages_reported(case, binary):
    """The guest tells which pages it does not need, and QEMU drops them, also while others are missing."""
    migration, hold, _ = linux_served(case, binary, REPORTING)
    migration.start()
    migration.switch()
    destination = migration.destination
    destination.wait_phase("running")
    migration.relay.wait_held(hold)
    time.sleep(3)                       # Linux reports every two seconds
    migration.relay.release(hold)
    migration.finish()
    migration.check_wire()
    destination.check_released()
    destination.check_guest_goes_on()


def memory_plugged_before(case, binary):
    """A DIMM that was plugged in at the source is there from the start at the destination."""
    room = ("-m", "256,slots=2,maxmem=1G")
    dimm = ("-object", "memory-backend-memfd,id=plugged,size=128M,share=on",
            "-device", "pc-dimm,id=d0,memdev=plugged")
    guest = LinuxGuest(case)
    migration = Migration(
        case, binary, Scenario("plugged", PREEMPT, machine=Machine(256, devices=room, guest=guest)),
        lambda uri, source: ServedQemu(case, uri, source, Setup(extra=dimm)))
    guest.wait_started()
    qmp = migration.source.qmp
    qmp.command("object-add", **{"qom-type": "memory-backend-memfd", "id": "plugged", "size": 128 * MIB,
                                 "share": True})
    qmp.command("device_add", driver="pc-dimm", id="d0", memdev="plugged")
    migration.source.wait_guest(rounds=2)
    migration.run()
    migration.destination.check_invariants(migration.check_wire())
    check_equal(classes(migration)["plugged"], "shared", "how the DIMM came")
    migration.destination.check_guest_goes_on()


# --- onwards, and between versions -----------------------------------------------------------------------

def migrates_on(case, binary):
    """What has come goes on to a third QEMU, whole: nothing thinks that it is shared or known there."""
    migration, _ = plain(case, binary)
    second = migration.destination.vm
    third = QemuDestination(case, address(case, "unix", "third"), second, (), binary)
    second.set_parameters(**NEVER_CONVERGE)
    second.migrate(third.uri)
    second.set_parameters(**CONVERGE)
    info = second.wait_migration("completed")
    sent = info["ram"]["transferred"]
    check(sent > second.length // 2, f"only {sent} bytes went on")
    third.check_guest_goes_on()


def across(case, binary, destination, machine_type):
    plain(case, binary, Setup(binary=destination), PREEMPT, machine=Machine(type=machine_type))


def far_away(case, binary, seconds):
    """The way back is 20 ms long and the stream is full: the guest's own checker for a while."""
    machine = Machine(512)
    migration = Migration(
        case, binary, Scenario("far", PREEMPT, machine=machine, when="at-once", return_delay=0.02),
        lambda uri, source: ServedQemu(case, uri, source))
    migration.source.set_parameters(max_postcopy_bandwidth=512 * MIB // seconds)
    end = migration.relay.hold(S2D, before=lambda event: event.kind == "EOF")
    migration.start()
    destination = migration.destination
    destination.wait_phase("running")
    began = time.monotonic()
    migration.relay.wait_held(end, timeout=3 * seconds + 60)
    destination.check_serving()
    case.note(f"served for {time.monotonic() - began:.0f} s")
    migration.relay.release(end)
    migration.source.wait_migration("completed")
    destination.wait_complete()
    trace = migration.check_wire()
    check_ended_well(migration, trace)


def crossings():
    """(source, destination, machine) for every two versions, both ways, with the newest machine that both have."""
    named = {vm.version_of(binary): binary for binary in vm.binaries()}
    have = {version: vm.machines_of(binary) for version, binary in named.items()}
    for a, b in itertools.permutations(sorted(named), 2):
        common = {tuple(map(int, m[len(CROSSING):].split("."))) for m in have[a] & have[b] if m.startswith(CROSSING)}
        if common:
            yield named[a], named[b], CROSSING + ".".join(map(str, max(common)))
        else:
            diag(f"left out: {named[a]} to {named[b]}: no {CROSSING}X is known to both")


#: name -> function(case, binary); the numbers are those of the acceptance tests
ONCE = functools.partial(plain, when="at-once")
CASES = {
    "E1 a file": plain,
    "E2 x-ignore-shared was left on": ignore_shared_left_on,
    "E3 a memfd": functools.partial(plain, setup=Setup(backend="memfd")),
    "E4 at once": ONCE,
    "E5 preempt": functools.partial(plain, capabilities=PREEMPT),
    "preempt, at once, tcp": functools.partial(plain, capabilities=PREEMPT, when="at-once", transport="tcp"),
    "E6 display": display,
    "E7 anonymous": anonymous,
    "anonymous, q35, preempt, at once": functools.partial(
        plain, setup=Setup(backend="private"), capabilities=PREEMPT, when="at-once", machine=Q35),
    "anonymous, preempt, at once": functools.partial(
        plain, setup=Setup(backend="private"), capabilities=PREEMPT, when="at-once"),
    "E8 loads through faults": loads_through_faults,
    "E9 second sharer, preempt": functools.partial(
        second_sharer, capabilities=PREEMPT, when="at-once", reads=300),
    "second sharer": functools.partial(second_sharer, capabilities=PLAIN, when="later", reads=40),
    "E10 prealloc": functools.partial(plain, setup=Setup(backend_options=",prealloc=on")),
    "E11 locked": functools.partial(plain, setup=Setup(extra=("-overcommit", "mem-lock=on"))),
    "E12 a Linux and its kernel": kernel_given,
    "E13 a daemon": daemonized,
    "E14 unprivileged, in a sandbox": unprivileged,
    "E19 the balloon inflates": balloon_inflates,
    "free pages are reported": free_pages_reported,
    "E21 two nodes": two_nodes,
    "E22 2 MiB pages": functools.partial(huge_pages, capabilities=PLAIN, when="later"),
    "E22 2 MiB pages, preempt, at once, prealloc": functools.partial(
        huge_pages, capabilities=PREEMPT, when="at-once", options=",prealloc=on"),
    "E23 transparent huge pages": transparent_huge,
    "E24 migrates on": migrates_on,
    "E25 completes as precopy, with a second sharer": functools.partial(
        completes_as_precopy, machine=Machine(136, disk="vhost-user")),
    "completes as precopy": functools.partial(completes_as_precopy, machine=Machine()),
    "memory plugged before": memory_plugged_before,
    "left paused": left_paused,
    "paused at the source": paused_at_source,
    "the way back is 20 ms long": functools.partial(far_away, seconds=60 if LONG else 6),
}


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for name, function in CASES.items():
            yield f"{label}: {name}", functools.partial(function, binary=binary)
    for source, destination, machine_type in crossings():
        yield (f"E26 {source} to {destination}, {machine_type}",
               functools.partial(across, binary=source, destination=destination, machine_type=machine_type))


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if ServedQemu.missing_programs():
        skip_all("not built: " + ", ".join(ServedQemu.missing_programs()))
    main(list(cases()), limit=240)
