#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""--source-qmp with unmodified QEMUs: the connection is cut, and the source comes back with nobody typing anything.

The destination connects to a monitor of the source and has it resume; the relay is not asked the second time, as
the source comes to where it had reached the destination before.
"""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
import vm
from dest import PostcopydDestination, wait_event
from harness import check, check_equal, main, skip_all, wait_for
from netns import Net
from scenario import NEVER_CONVERGE, PLAIN, PREEMPT, Migration, Scenario

SLOW = 4 << 20                          # bytes a second after the switch: time to act in


def prepare(case, binary, capabilities, transport):
    migration = Migration(
        case, binary, Scenario("source-qmp", capabilities, transport),
        lambda uri, source: PostcopydDestination(case, uri, source,
                                                 daemon=("--source-qmp", source.spare_monitor)))
    migration.source.set_parameters(max_postcopy_bandwidth=SLOW)
    migration.start()
    migration.switch()
    wait_event(migration.destination.main, "running")
    migration.source.wait_migration("postcopy-active")
    return migration


def finish(migration):
    """Everything comes, with 0 pages differing, and the source did not run."""
    wait_for("the source to be told",
             lambda: migration.destination.control("status")["source_qmp"]["tries"] >= 1)
    migration.source.set_parameters(max_postcopy_bandwidth=1 << 40)
    wait_for("the session to go on", lambda: migration.destination.control("status")["recoveries"] >= 1)
    migration.finish()
    migration.check_memory()
    migration.destination.check_digests()
    migration.source.check_stopped()


def cut(case, binary, capabilities, transport):
    migration = prepare(case, binary, capabilities, transport)
    migration.relay.cut()
    finish(migration)
    check("postcopy-paused" in migration.source.qmp.statuses(), "the source never paused")


def blackhole(case, binary):
    """Nobody hears of the loss but by the watch of the link: the source is told that, and comes when it can."""
    net = Net(case)
    here, router, there = net.add("here"), net.add("router"), net.add("there")
    net.join(here, "h0", "10.77.1.2/24", router, "r0", "10.77.1.1/24")
    net.join(router, "r1", "10.77.2.254/24", there, "t0", "10.77.2.1/24")
    here.ip("route", "add", "default", "via", "10.77.1.1")
    there.ip("route", "add", "default", "via", "10.77.2.254")
    router.forward(True)
    source = vm.Vm(case, binary, wrapper=there.within)
    source.wait_guest(rounds=1)
    uri = "tcp:10.77.1.2:4444"
    destination = PostcopydDestination(case, uri, source, within=here.within,
                                       daemon=("--link-grace", "1", "--source-qmp", source.spare_monitor))
    source.set_capabilities(*PREEMPT)
    source.set_parameters(max_postcopy_bandwidth=SLOW, **NEVER_CONVERGE)
    source.migrate(uri)
    source.wait_migration("active")
    source.start_postcopy()
    wait_event(destination.main, "running")
    source.wait_migration("postcopy-active")
    router.forward(False)
    destination.wait_state("paused")
    check("nothing comes back" in destination.control("status")["error"]["reason"], "it is another pause")
    source.wait_migration("postcopy-paused")
    check_equal(destination.control("status")["source_qmp"]["tries"], 0, "it was told to come, and could not")
    router.forward(True)
    source.set_parameters(max_postcopy_bandwidth=1 << 40)
    source.wait_migration("completed")
    destination.wait_complete()
    check_equal(destination.control("status")["recoveries"], 1, "recoveries")
    check_equal(guestmem.compare(source.ram_now(), destination.ram(), source.length), [], "pages that differ")
    destination.check_digests()


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        named = {
            "F59 cut, over TCP": partial(cut, capabilities=PLAIN, transport="tcp"),
            "F59 a blackhole": blackhole,
            "F59 cut, preempt": partial(cut, capabilities=PREEMPT, transport="unix"),
        }
        for name, function in named.items():
            yield f"{label}: {name}", partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if PostcopydDestination.missing_programs():
        skip_all("not built: " + ", ".join(PostcopydDestination.missing_programs()))
    main(list(cases()))
