#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What would go wrong in silence is refused, by name, before the source has given anything away.

Each of these sets-up was seen to end in a `completed` source and a guest with thousands of errors when nobody looked.
After each the source's VM runs on, and the QEMU here has run nothing.
"""
import functools
import mmap
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from harness import check, check_equal, main, skip_all, wait_for
from machine import Machine
from relay import S2D
from scenario import PREEMPT, Migration, Scenario
from served import ServedQemu, Setup

SOON = ("--expect-timeout", "3")


def held_before_package(case, binary, setup, **fields):
    """The VM stands still, and its device state has not left the source: so it can go on there, whatever its version."""
    migration = Migration(case, binary, Scenario("refused", PREEMPT, **fields),
                          lambda uri, source: ServedQemu(case, uri, source, setup))
    return migration, migration.relay.hold(S2D, before=lambda event: event.kind == "PACKAGED")


def check_refused(migration, *words):
    """Said why, the source goes on, and nothing ran here."""
    destination = migration.destination
    reason = destination.wait_state("failed")["error"]["reason"]
    for word in words:
        check(word in reason, f"{word!r} is not in {reason!r}")
    migration.source.check_resumed()
    check("cont" not in destination.timeline(), f"QEMU was told to go on: {destination.timeline()}")


def without_preload(case, binary):
    """It would read zeroes wherever it looks."""
    migration, _ = held_before_package(case, binary, Setup(preload=False, daemon=SOON))
    migration.source.migrate(migration.uri)
    check_refused(migration, "gave up after 3 s", "sharer vm (--expect) has not registered")


def storage_without_preload(case, binary):
    """A back-end that maps the memory and is not served: where its reads go to holes, the guest's data are zeroes."""
    setup = Setup(maps=False, daemon=SOON)
    migration, _ = held_before_package(case, binary, setup, machine=Machine(32, disk="vhost-user"))
    migration.source.migrate(migration.uri)
    check_refused(migration, "gave up after 3 s", "sharer storage (--expect) has not registered")


def stranger(case, binary):
    """Anybody else who maps the file."""
    migration, hold = held_before_package(case, binary, Setup())
    path = next(iter(migration.destination.vm.files.values()))
    program = case.spawn("stranger", ["/usr/bin/python3", "-c",
                                      "import mmap, os, sys, time\n"
                                      f"m = mmap.mmap(os.open({path!r}, os.O_RDWR), {mmap.PAGESIZE})\n"
                                      "print('mapped', flush=True)\ntime.sleep(600)"])
    wait_for("the stranger to map it", program.lines)
    migration.start()
    migration.switch()
    migration.relay.wait_held(hold)
    migration.relay.release(hold)

    def blocker():
        return [b["text"] for b in migration.destination.control("blockers") if b["name"] == "stranger"]
    text = wait_for("the blocker", blocker)[0]
    check(f"process {program.pid} (python3) maps block pc.ram" in text, f"blocker {text!r}")
    check("cont" not in migration.destination.timeline(), "QEMU was told to go on")
    # With the reason gone the migration goes on: nothing was lost by waiting.
    program.kill()
    migration.finish()
    check(migration.destination.vm.guest_runs(), "the guest stands still")
    check_equal(migration.destination.vm.guest().errors, 0, "errors the guest found")


def less_memory(case, binary):
    migration, _ = held_before_package(case, binary, Setup(changes={"mib": 32}))
    migration.source.migrate(migration.uri)
    check_refused(migration, "block pc.ram has 67108864 bytes at the source and 33554432 here")


def another_name(case, binary):
    """Memory that the source knows nothing of would never be filled."""
    setup = Setup(extra=("-m", "64,slots=1,maxmem=256M", "-object", "memory-backend-memfd,id=more,size=64M,share=on",
                         "-device", "pc-dimm,memdev=more"))
    migration, _ = held_before_package(case, binary, setup)
    migration.source.migrate(migration.uri)
    check_refused(migration, "the QEMU here has a block", "more")


CASES = {
    "QEMU without the preload": without_preload,
    "a storage daemon without it": storage_without_preload,
    "somebody else maps the memory": stranger,
    "less memory": less_memory,
    "memory the source has not": another_name,
}


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for name, function in CASES.items():
            yield f"{label}: {name}", functools.partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if ServedQemu.missing_programs():
        skip_all("not built: " + ", ".join(ServedQemu.missing_programs()))
    main(list(cases()), limit=120)
