#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""An unmodified QEMU source into postcopyd with two sharers that touch at random from LISTENING.

Asserts: the source ends `completed`; 0 pages differ in any block; each owed page was placed exactly
once and none was requested twice (O2, O4, O15), by postcopyd's counters and, independently, by
what a relay recorded on the wire; the guest found no error and its memory obeys its own rules.
"""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from dest import PostcopydDestination
from harness import main, skip_all
from scenario import SCENARIOS, Migration


def into_postcopyd(case, binary, scenario):
    migration = Migration(case, binary, scenario,
                          lambda uri, source: PostcopydDestination(case, uri, source), sides=2)
    migration.run()
    trace = migration.check_wire()
    destination = migration.destination
    destination.wait_state("complete")
    migration.relay.wait_closed()
    destination.check_counters(trace)
    migration.check_memory()
    destination.check_digests()
    destination.check_package(trace)


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for scenario in SCENARIOS:
            yield f"{label}: {scenario.name}", functools.partial(
                into_postcopyd, binary=binary, scenario=scenario)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if PostcopydDestination.missing_programs():
        skip_all("not built: " + ", ".join(PostcopydDestination.missing_programs()))
    main(list(cases()))
