#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of an unmodified QEMU, saved by `postcopyctl salvage` when all of it is here.

Asserts: every page of every block is as the source sent it.  A QEMU from 9.0 on reads such a file (migration
capability mapped-ram): it loads it, has the source's memory, and its guest goes on without an error.  (F59)
"""
import functools
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
import vm
from dest import PostcopydDestination
from harness import PATIENCE, built, check, check_equal, main, skip_all
from mappedram import PAGE, Salvage
from scenario import Migration, Scenario


def save(case, destination):
    folder = case.path("saved")
    done = subprocess.run([built("postcopyctl"), "-r", destination.run_dir, "salvage", folder],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    check_equal(done.returncode, 0, f"exit status of salvage: {done.stderr}")
    return Salvage(folder)


def check_blocks(saved, trace):
    check_equal(set(saved.blocks), set(trace.blocks), "blocks")
    for name, block in saved.blocks.items():
        check_equal(saved.all_missing(name), set(), f"pages of {name} that are missing")
        content = trace.blocks[name].content
        wrong = [page for page in range(block.pages)
                 if block.page(page) != os.pread(content, PAGE, page * PAGE)]
        check_equal(wrong, [], f"pages of {name} that differ")


def load(case, binary, migration, saved):
    """QEMU itself takes it for what it is."""
    qemu = vm.Vm(case, binary, name="loader", machine=migration.source.machine, incoming=True, extra=["-S"])
    qemu.set_capabilities("mapped-ram")
    qemu.incoming("file:" + os.path.join(saved.folder, saved.index["migration_file"]))
    qemu.wait_migration("completed")
    differ = guestmem.compare(migration.source.ram_now(), qemu.ram_now(), qemu.length)
    check_equal(differ, [], "pages that differ in the QEMU that loaded it")
    qemu.qmp.command("cont")
    check(qemu.guest_runs(), "the guest stands still")
    qemu.wait_guest(rounds=2)
    check_equal(qemu.guest().errors, 0, "errors that the guest found")


def saved_whole(case, binary):
    migration = Migration(case, binary, Scenario("plain"),
                          lambda uri, source: PostcopydDestination(case, uri, source, second=False))
    migration.run()
    trace = migration.trace()
    migration.destination.wait_state("complete")
    saved = save(case, migration.destination)
    check_blocks(saved, trace)
    check(saved.index["device_state"] > 0, "there is no device state")
    if vm.version_of(binary) >= (9, 0):
        load(case, binary, migration, saved)
    else:
        case.note("this QEMU knows no mapped-ram: read by the test alone")


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        yield f"F59 {label}: saved whole", functools.partial(saved_whole, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if PostcopydDestination.missing_programs():
        skip_all("not built: " + ", ".join(PostcopydDestination.missing_programs()))
    main(list(cases()))
