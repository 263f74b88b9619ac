#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd killed, or its connection cut, in every phase: never two running VMs.

Before the package was sent the source resumes its VM and nothing is lost.  After it the outcome is
that of qemu-wire.md 13.1 for the version of the source; where the VM then runs nowhere,
postcopyd (if it lives) says so and what to do.
"""
import functools
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import vm
from dest import Counters, PostcopydDestination, RefDestination, find_event, wait_event
from harness import check, check_equal, main, skip_all, wait_for
from relay import D2S, S2D
from scenario import PLAIN, PREEMPT, Migration, Scenario

SLOW = 4 << 20                          # bytes a second after the switch: time to act in
TRICKLE = 512 << 10                     # the same: the stream outlasts the test
TORN = 6000                             # bytes of an urgent lane: at least one page, and some of another


def prepare(case, binary, capabilities=PLAIN, transport="unix", **options):
    migration = Migration(
        case, binary, Scenario("survive", capabilities, transport),
        lambda uri, source: PostcopydDestination(case, uri, source, **options))
    migration.source.set_parameters(max_postcopy_bandwidth=SLOW)
    return migration


def into_postcopy(migration):
    """The package went over, and both sharers touch."""
    migration.start()
    migration.switch()
    migration.destination.wait_listening()


def into_running(migration):
    """The VM is ours, and the source knows: from 10.2 on it goes on by itself when it is cut off before that."""
    into_postcopy(migration)
    wait_event(migration.destination.main, "running")
    migration.source.wait_migration("postcopy-active")


def check_never_two(migration):
    running_there = migration.destination.runs_here()
    running_here = migration.source.vm_status() == "running"
    check(not (running_here and running_there), "two VMs run")
    return running_here, running_there


def check_sharers_wait(migration):
    """Nobody was shown zeroes: what is missing stays missing, and its readers stay blocked."""
    for sharer in migration.destination.sharers:
        check(sharer.running(), f"{sharer.name} ended with {sharer.proc.returncode}")
        check(not find_event(sharer, "touched"), f"{sharer.name} touched pages that never came")


# --- before the package: the source goes on ---------------------------------------------------------

def killed_after_first_bytes(case, binary):
    migration = prepare(case, binary)
    hold = migration.relay.hold(S2D, at=8)
    migration.source.migrate(migration.uri)
    migration.relay.wait_held(hold)
    migration.destination.child.kill()
    migration.relay.release(hold)
    migration.source.check_resumed()
    check_never_two(migration)


def killed_in_precopy(case, binary, capabilities):
    migration = prepare(case, binary, capabilities)
    migration.start()
    migration.destination.child.kill()
    migration.source.check_resumed()
    check_never_two(migration)
    check_sharers_wait(migration)


def cut_in_precopy(case, binary, reset):
    migration = prepare(case, binary, transport="tcp")
    migration.start()
    migration.relay.cut(reset=reset)
    migration.source.check_resumed()
    migration.destination.check_refused()
    check_never_two(migration)


def cut_at_random(case, binary):
    """Somewhere in the first megabytes, wherever it falls in a record."""
    migration = prepare(case, binary)
    at = case.random.randrange(1, 4 << 20)
    case.note(f"cut before byte {at}")
    hold = migration.relay.hold(S2D, at=at)
    migration.source.migrate(migration.uri)
    migration.relay.wait_held(hold)
    migration.relay.cut()
    migration.source.check_resumed()
    migration.destination.check_refused()
    check_never_two(migration)


# --- after the package ------------------------------------------------------------------------------

def check_source_after_package(migration, answered):
    """qemu-wire.md 13.1.  @answered: PONG 0x42 reached a source that waits for it (>= 10.2)."""
    source = migration.source
    if not source.older_than(10, 2) and not answered:
        source.check_resumed()
    else:
        source.wait_migration("postcopy-paused")
        source.check_stopped()
    check_never_two(migration)


def killed_in_postcopy(case, binary, capabilities):
    migration = prepare(case, binary, capabilities)
    into_running(migration)
    migration.destination.child.kill()
    check_source_after_package(migration, answered=True)
    check_sharers_wait(migration)


def killed_before_loaded(case, binary):
    """The package is there, the VMM has not said "loaded": PONG 0x42 must not have left."""
    migration = prepare(case, binary, loaded_after=60_000)
    into_postcopy(migration)
    wait_event(migration.destination.main, "package")
    check(not migration.destination.runs_here(), "told to run before it was loaded")
    migration.destination.child.kill()
    check_source_after_package(migration, answered=False)


def cut_in_postcopy(case, binary, capabilities, reset):
    migration = prepare(case, binary, capabilities, "tcp")
    into_running(migration)
    migration.relay.cut(reset=reset)
    check_source_after_package(migration, answered=True)
    status = migration.destination.wait_state("paused")
    check((status["error"] or {}).get("reason"), "it does not say what is left where")
    for sharer in migration.destination.sharers:
        wait_event(sharer, "paused")
    check_sharers_wait(migration)


def cut_urgent(case, binary):
    """One thread touches; the page that it waits for is on the urgent lane when that is cut.  It is lost: QEMU takes
    it for sent, and does not send it again."""
    migration = prepare(case, binary, PREEMPT, threads=1, second=False)
    migration.source.set_parameters(max_postcopy_bandwidth=TRICKLE)
    hold = migration.relay.hold(S2D, at=TORN, connection=1)
    into_running(migration)
    migration.relay.wait_held(hold)
    check(migration.relay.connections[1] is migration.relay.urgent(), "the second connection is the urgent one")
    migration.relay.cut(1)
    return migration


def check_held(migration):
    """What was on the urgent lane is owed, and nobody runs on without it."""
    status = migration.destination.wait_state("paused")
    check(status["error"]["reason"], "it does not say what is left where")
    check(not status["shut_sent"], "SHUT, and a page is owed")
    check(not status["ownership_unknown"], "the VM is ours, and it does not know")
    migration.source.check_stopped()
    check_never_two(migration)
    check_sharers_wait(migration)
    return status


def cut_urgent_noticed(case, binary):
    """The source sees what it lost when it is asked for the next page, and pauses."""
    migration = cut_urgent(case, binary)
    migration.destination.add_sharer("late", case.seed + 1)
    migration.source.wait_migration("postcopy-paused")
    check_held(migration)


def cut_urgent_unnoticed(case, binary):
    """Nobody asks for another page: the source sends the rest, says that it was all, and waits for SHUT."""
    migration = cut_urgent(case, binary)
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    status = check_held(migration)
    check(status["main_eof"] and not status["source_closed"], f"the source did not go on to its end: {status}")
    lacking = Counters({}, migration.destination.control("blocks")).not_here()
    check_equal(lacking, {vm.RAM_BLOCK: 1}, "pages that are not here")
    migration.source.wait_migration("postcopy-active")


def cut_inside_package(case, binary):
    """The source has sent all of it, the destination got half: without an answer that commits, the
    VM runs nowhere until somebody recovers it; with one the source resumes."""
    migration = prepare(case, binary)
    relay = migration.relay
    before = relay.hold(S2D, before=lambda event: event.kind == "PACKAGED")
    migration.start()
    migration.switch()
    relay.wait_held(before)
    inside = relay.hold(S2D, at=before.at + 1000)
    relay.release(before)
    relay.wait_held(inside)
    relay.wait_taken()
    relay.cut()
    check_source_after_package(migration, answered=False)
    check(not migration.destination.runs_here(), "half a package, and told to run")


def cut_after_end(case, binary):
    """The main stream is at its end, an urgent page is still on its way, and the connection goes: it
    is not known who owns the VM, so ours is paused and the operator decides."""
    migration = prepare(case, binary, PREEMPT)
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    relay = migration.relay
    hold = relay.hold(S2D, at=1, connection=1)
    migration.start()
    migration.switch()
    relay.wait_held(hold)
    check(relay.connections[1] is relay.urgent(), "the second connection is the urgent one")
    destination = migration.destination
    wait_for("the end of the main stream", lambda: destination.control("status")["main_eof"], interval=0.05)
    check(not destination.control("status")["shut_sent"], "SHUT, and pages are owed")
    relay.cut()
    destination.wait_state("paused")
    wait_for("it not to take the VM for its own",
             lambda: destination.control("status")["ownership_unknown"], interval=0.05)
    check("ownership unknown" in destination.control("status")["error"]["reason"],
          "the reason does not say that the ownership is unknown")
    check_source_after_end(migration)
    check_sharers_wait(migration)


def check_source_after_end(migration):
    """What a source does that has sent its last byte and gets no SHUT."""
    if not migration.source.older_than(10, 0):
        migration.source.check_resumed()
        return
    time.sleep(1)                       # there is no state to wait for: it is stuck for ever
    migration.source.check_stopped()
    check_equal(migration.source.migration_status(), "postcopy-active", "the migration")


def cut_before_shut(case, binary, kill):
    """Everything went over, SHUT left and did not arrive."""
    migration = prepare(case, binary)
    migration.source.set_parameters(max_postcopy_bandwidth=0)
    relay = migration.relay
    hold = relay.hold(D2S, before=lambda event: event.kind == "SHUT")
    migration.start()
    migration.switch()
    relay.wait_held(hold)
    if kill:
        migration.destination.child.kill()
    relay.cut()
    check_source_after_end(migration)


def reference_cut_in_postcopy(case, binary):
    """The control: what the source does is the source's doing."""
    migration = Migration(case, binary, Scenario("survive"),
                          lambda uri, source: RefDestination(case, uri, ["--outstanding", "1"]),
                          sides=1)
    migration.source.set_parameters(max_postcopy_bandwidth=SLOW)
    migration.start()
    migration.switch()
    migration.destination.wait_listening()
    wait_for("a few pages", lambda: migration.source.info()["ram"]["postcopy-bytes"] > 0)
    migration.source.wait_migration("postcopy-active")
    migration.relay.cut()
    migration.source.wait_migration("postcopy-paused")
    migration.source.check_stopped()


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        named = {
            "killed after the first bytes": killed_after_first_bytes,
            "killed in precopy": partial(killed_in_precopy, capabilities=PLAIN),
            "killed in precopy, preempt": partial(killed_in_precopy, capabilities=PREEMPT),
            "cut in precopy": partial(cut_in_precopy, reset=False),
            "reset in precopy": partial(cut_in_precopy, reset=True),
            "cut at a random byte": cut_at_random,
            "killed in postcopy": partial(killed_in_postcopy, capabilities=PLAIN),
            "killed in postcopy, preempt": partial(killed_in_postcopy, capabilities=PREEMPT),
            "killed before loaded": killed_before_loaded,
            "cut in postcopy": partial(cut_in_postcopy, capabilities=PLAIN, reset=False),
            "reset in postcopy, preempt": partial(cut_in_postcopy, capabilities=PREEMPT,
                                                  reset=True),
            "urgent lane cut, the source notices": cut_urgent_noticed,
            "urgent lane cut, the source does not notice": cut_urgent_unnoticed,
            "cut inside the package": cut_inside_package,
            "cut between the end and SHUT": cut_after_end,
            "cut before SHUT arrives": partial(cut_before_shut, kill=False),
            "killed before SHUT arrives": partial(cut_before_shut, kill=True),
            "cut in postcopy, reference": reference_cut_in_postcopy,
        }
        for name, function in named.items():
            yield f"{label}: {name}", partial(function, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if PostcopydDestination.missing_programs():
        skip_all("not built: " + ", ".join(PostcopydDestination.missing_programs()))
    main(list(cases()))
