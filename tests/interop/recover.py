#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""An unmodified QEMU loses us in postcopy, and is resumed: at random moments, one to five times in a run.

Outside the windows of qemu-wire.md 13.1 it always completes, and 0 pages differ.  POSTCOPY_TESTS_LONG=1: many more.
"""
import functools
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from dest import Counters, PostcopydDestination, wait_event
from harness import built, check, check_equal, main, skip_all, wait_for
from scenario import PLAIN, PREEMPT, Migration, Scenario

MIB = 1 << 20
SLOW = 8 * MIB                          # bytes a second after the switch: time to be cut in
LONG = os.environ.get("POSTCOPY_TESTS_LONG") == "1"


def prepare(case, binary, capabilities, transport, **options):
    migration = Migration(case, binary, Scenario("recover", capabilities, transport),
                          lambda uri, source: PostcopydDestination(case, uri, source, **options))
    migration.source.set_parameters(max_postcopy_bandwidth=SLOW)
    return migration


def left(migration):
    return migration.destination.control("status")["owed_pages_left"]


def check_never_two(migration):
    if migration.source.vm_status() == "running":
        state = migration.destination.control("status")
        check(state["state"] == "failed" or state["ownership_unknown"], f"two VMs run: here it is {state}")


def paused(migration):
    status = migration.destination.wait_state("paused")
    check(not status["held"], f"it is held: {status['error']}")
    migration.source.wait_migration("postcopy-paused")
    check_never_two(migration)
    migration.source.check_stopped(0.05)
    return status


def resume(migration, uri=None):
    """What status says to say, through the relay."""
    migration.source.qmp.command("migrate", uri=uri or migration.uri, resume=True)


def recovered(migration, count):
    def there():
        status = migration.destination.control("status")
        check(not status["held"], f"it is held: {status['error']}")
        return status["recoveries"] >= count
    wait_for(f"{count} recoveries", there, interval=0.02)


def whole(migration, cuts):
    """Both ends complete, and the memory is the same."""
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    migration.finish()
    check_never_two(migration)
    migration.check_memory()
    counters = Counters(migration.destination.control("stats"), migration.destination.control("blocks"))
    check_equal(counters.not_here(), {}, "pages not here")
    status = migration.destination.control("status")
    check_equal((status["state"], status["recoveries"], status["ownership_unknown"]), ("complete", cuts, False), "the end")
    check_equal(migration.destination.control("stats")["alarms"], 0, "alarms")


def begin(migration):
    migration.start()
    migration.switch()
    wait_event(migration.destination.main, "running")
    migration.source.wait_migration("postcopy-active")


def cut(case, binary, capabilities, transport, cuts):
    """Each time somewhere in what is left, but for the last quarter: what is under way then may be the last."""
    migration = prepare(case, binary, capabilities, transport)
    begin(migration)
    owed = left(migration)
    for number in range(1, cuts + 1):
        room = max(1, left(migration) - owed // 4)
        at = left(migration) - case.random.randrange(room) // (cuts + 1 - number)
        wait_for(f"{at} pages left", lambda at=at: left(migration) <= at, interval=0.01)
        case.note(f"cut {number} with {at} of {owed} pages left")
        migration.relay.cut(reset=case.random.random() < 0.5)
        paused(migration)
        resume(migration)
        recovered(migration, number)
        migration.source.wait_migration("postcopy-active")
    whole(migration, cuts)


def cut_in_the_handshake(case, binary, capabilities):
    """And while it asks what came: it is paused again, and resumed again."""
    migration = prepare(case, binary, capabilities, "unix")
    begin(migration)
    migration.relay.cut()
    paused(migration)
    for number in range(3):
        hold = migration.relay.hold("s2d", at=case.random.randrange(1, 40), connection=len(migration.relay.connections))
        resume(migration)
        migration.relay.wait_held(hold)
        check_equal(migration.destination.control("status")["recoveries"], 0, "recoveries")
        case.note(f"cut {number} behind {hold.at} bytes")
        migration.relay.cut()
        if migration.source.older_than(8, 2):
            stuck(migration)
            return
        paused(migration)
    resume(migration)
    recovered(migration, 1)
    whole(migration, 1)


def stuck(migration):
    """One before 8.2 waits for an answer for ever, whoever its destination is; its VM stays stopped, and ours is paused."""
    migration.destination.wait_state("paused")
    migration.source.check_stopped()
    check_equal(migration.source.migration_status(), "postcopy-recover", "the migration")


def elsewhere(case, binary):
    """Told to listen at another address, with the words of status."""
    migration = prepare(case, binary, PREEMPT, "unix")
    begin(migration)
    migration.relay.cut()
    paused(migration)
    there = "unix:" + case.path("there.sock")
    subprocess.run([built("postcopyctl"), "-r", migration.destination.run_dir, "recover", there], check=True)
    wait_for("it to say so", lambda: migration.destination.control("status")["recover"]["address"] == there)
    resume(migration, there)
    recovered(migration, 1)
    whole(migration, 1)


def on_purpose(case, binary):
    """postcopyctl pause: the source pauses, too."""
    migration = prepare(case, binary, PLAIN, "tcp")
    begin(migration)
    subprocess.run([built("postcopyctl"), "-r", migration.destination.run_dir, "pause"], check=True)
    paused(migration)
    resume(migration)
    recovered(migration, 1)
    whole(migration, 1)


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        runs = 25 if LONG else 1
        for number in range(runs):
            yield f"{label}: F59 A11 plain, cut {number}", partial(
                cut, binary=binary, capabilities=PLAIN, transport="tcp" if number % 2 else "unix", cuts=1 + number % 5)
            yield f"{label}: F59 A11 preempt, cut {number}", partial(
                cut, binary=binary, capabilities=PREEMPT, transport="unix" if number % 2 else "tcp", cuts=1 + (number + 2) % 5)
        yield f"{label}: F59 cut in the handshake", partial(cut_in_the_handshake, binary=binary, capabilities=PREEMPT)
        yield f"{label}: F59 recover at another address", partial(elsewhere, binary=binary)
        yield f"{label}: F59 pause", partial(on_purpose, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if PostcopydDestination.missing_programs():
        skip_all("not built: " + ", ".join(PostcopydDestination.missing_programs()))
    main(list(cases()))
