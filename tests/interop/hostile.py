#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A real QEMU's stream with one byte changed on the way.

Before the commit postcopyd refuses it, with an error that says where and why, and the source resumes
its VM.  Bytes that carry no grammar (a machine name, page data) are not used; a random byte may be one of
those, so there the rule is weaker: no crash, no hang, and never two running VMs.
"""
import functools
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import qwire
import vm
from dest import PostcopydDestination, RefDestination, find_event, wait_event
from harness import PATIENCE, check, check_equal, main, readable, skip_all, wait_for
from relay import S2D, Relay, connect
from scenario import CONVERGE, PLAIN, PREEMPT, Migration, Scenario, address

RANDOM_TRIES = 6
LATE_BLOCK = "pc.rom"                   # sent behind the guest's RAM, so its pages are discarded before they came
HEAD = 252                              # random bytes fall in front of the first page's data


def probe_stream(case, binary):
    """(a source, the first bytes it sends, its events): they are the same each time it migrates."""
    migration = Migration(case, binary, Scenario("probe", when="precopy"),
                          lambda uri, source: RefDestination(case, uri), sides=1)
    hold = migration.relay.hold(S2D, before=lambda event: event.kind == "ZERO")
    migration.source.migrate(migration.uri)
    migration.relay.wait_held(hold)
    stream = migration.relay.main().directions[S2D].bytes()
    migration.relay.cut()
    migration.relay.close()
    migration.source.check_resumed()
    return migration.source, stream


def fields(stream):
    """{what: (offset, mask)}: one byte of each field whose damage must be seen."""
    events = {}
    for event in qwire.Stream().feed(stream):
        events.setdefault(event.kind, event)
        if event.kind == "BLOCK" and event.a == vm.RAM_BLOCK:
            events["RAM"] = event
    header, ret, ping = events["HEADER"], events["OPEN_RETURN_PATH"], events["PING"]
    advise, start, block = events["ADVISE"], events["SECTION"], events["RAM"]
    eos = events["EOS"]
    name = block.start + 1
    return {
        "magic": (1, 0x01),
        "version": (7, 0x01),
        "configuration marker": (8, 0x80),
        "length of the machine name": (9, 0x7F),
        "command byte": (header.end, 0x70),
        "command number": (ret.start + 2, 0x40),
        "length of OPEN_RETURN_PATH": (ret.start + 4, 0x01),
        "length of PING": (ping.start + 4, 0x02),
        "length of ADVISE": (advise.start + 4, 0x10),
        "page size summary": (advise.start + 5 + 7, 0x01),
        "target page size": (advise.start + 5 + 8 + 6, 0x01),
        "record byte of START": (start.start, 0x40),
        "section name": (start.start + 6, 0x01),
        "section version": (start.start + 16, 0x01),
        "MEM_SIZE word": (start.end + 7, 0x08),
        "total of the blocks": (start.end + 5, 0x40),
        "length of a block's name": (block.start, 0x80),
        "name of a block": (name, 0x01),
        "length of a block": (name + len(vm.RAM_BLOCK) + 4, 0x01),
        "end of section word": (eos.start + 7, 0x20),
        "footer byte": (eos.end, 0x01),
        "section id of the footer": (eos.end + 4, 0x08),
        "record byte of PART": (eos.end + 5, 0x10),
        "section id of PART": (eos.end + 9, 0x08),
        "flags of a page": (eos.end + 10 + 6, 0x01),
        "offset of a page": (eos.end + 10, 0x80),
    }


def attempt(case, source, number, at, mask):
    """(destination, relay) of one migration with that byte changed."""
    tag = f"-{number}"
    uri = address(case, "unix", "in" + tag)
    destination = PostcopydDestination(case, uri, source, threads=1, tag=tag)
    relay = Relay(case, address(case, "unix", "front" + tag), uri, name="relay" + tag)
    relay.corrupt(at, mask)
    source.migrate(relay.uri)
    return destination, relay


def end_attempt(destination, relay):
    relay.close()
    destination.child.stop()
    for sharer in destination.sharers:
        sharer.stop(grace=0.1)


def refuses(case, binary, names):
    source, stream = probe_stream(case, binary)
    wanted = fields(stream)
    for number, name in enumerate(names):
        at, mask = wanted[name]
        destination, relay = attempt(case, source, number, at, mask)
        reason = destination.check_refused()
        again = source.check_resumed()
        case.note(f"{name} (byte {at}): {reason.splitlines()[-1]}")
        end_attempt(destination, relay)
        if not again:
            source = fresh_source(case, binary, f"source-{number}")


def fresh_source(case, binary, name):
    source = vm.Vm(case, binary, name=name)
    source.wait_guest(rounds=1)
    source.set_capabilities("postcopy-ram")
    return source


def survives_random(case, binary):
    source, _ = probe_stream(case, binary)
    for number in range(RANDOM_TRIES):
        at, mask = case.random.randrange(HEAD), case.random.randrange(1, 256)
        case.note(f"byte {at} ^ {mask:#x}")
        destination, relay = attempt(case, source, number, at, mask)
        source.set_parameters(**CONVERGE)           # what is not refused must come to its end
        outcome = wait_outcome(source, destination)
        check(destination.child.proc.poll() is None or destination.child.proc.returncode >= 0,
              f"postcopyd died of signal {destination.child.proc.returncode}")
        end_attempt(destination, relay)
        if outcome == "completed" or source.migration_status() == "active":
            source.child.stop()
            source = fresh_source(case, binary, f"source-r{number}")
        else:
            source.check_resumed()


def wait_outcome(source, destination):
    """`completed` (the byte carried no grammar) or `refused`; everything else is a hang."""
    def over():
        if source.migration_status() == "completed":
            return "completed"
        if not destination.child.running() or source.migration_status() == "failed":
            return "refused"
        return "refused" if destination.control("status")["state"] == "failed" else None
    outcome = wait_for("the migration to complete or be refused", over, 20, 0.05)
    running_here = source.vm_status() == "running"
    if outcome == "refused":
        wait_for("the source to run", lambda: source.vm_status() == "running", 10)
        check(not destination.runs_here(), "refused, and told to run")
    else:
        check(not running_here, "completed, and the source runs")
        check_equal(find_event(destination.main, "failed"), None, "failure at the destination")
    return outcome


def damaged_after_commit(case, binary, urgent):
    """A page word that makes no sense, when the VM is ours already: the source is lost, not the VM."""
    scenario = Scenario("damage", PREEMPT if urgent else PLAIN)
    migration = Migration(case, binary, scenario,
                          lambda uri, source: PostcopydDestination(case, uri, source))
    migration.source.set_parameters(max_postcopy_bandwidth=4 << 20)
    relay, both_know = migration.relay, []
    hold = (relay.hold(S2D, at=1, connection=1) if urgent else
            relay.hold(S2D, before=lambda event: both_know and event.kind in ("PAGE", "ZERO")))
    migration.start()
    migration.switch()
    wait_event(migration.destination.main, "running")
    migration.source.wait_migration("postcopy-active")      # from 10.2 on: it has read that, too
    both_know.append(True)
    relay.wait_held(hold)
    check(not urgent or relay.connections[1] is relay.urgent(), "the second connection is the urgent one")
    damaged = relay.urgent() if urgent else relay.main()
    relay.corrupt(6 if urgent else hold.at + 6, 0x01, connection=damaged.number)
    relay.release(hold)
    status = migration.destination.wait_state("paused")
    check((status["error"] or {}).get("reason"), "it does not say what broke")
    migration.source.wait_migration("postcopy-active", "postcopy-paused")
    migration.source.check_stopped(moment=1)
    for sharer in migration.destination.sharers:
        check(sharer.running() and not find_event(sharer, "touched"),
              f"{sharer.name} got to see pages that never came")


def ended_as(source):
    """What the migration is for good.  10.0 can fail in `device`, and stays in it, with a word on its stderr."""
    status = source.migration_status()
    return status if status in ("failed", "postcopy-paused") or (
        status == "device" and "Unknown ending state" in source.child.errors()) else None


def damaged_discard(case, binary):
    """A block's name is damaged in the list, and that is found when the switch-over names its pages: an older
    source has sent its package by then, and nobody may say that nothing is lost."""
    source, stream = probe_stream(case, binary)
    block = next(event for event in qwire.Stream().feed(stream)
                 if event.kind == "BLOCK" and event.a == LATE_BLOCK)
    source.set_parameters(max_bandwidth=1 << 20)
    destination, _relay = attempt(case, source, 0, block.start + 3, 0x01)
    destination.wait_state("advised")
    source.start_postcopy()
    reason = destination.check_refused()
    check(LATE_BLOCK in reason and "a source older than 10.2" in reason, f"it says: {reason}")
    status = wait_for("the source to be done", lambda: ended_as(source))
    if source.older_than(10, 2) and status in ("postcopy-paused", "device"):
        source.check_stopped()
        return
    check_equal(status, "failed", "the migration")
    if source.older_than(9, 0):         # it forgets in postcopy_start() that its VM ran, and leaves it to us
        wait_for("the source to be done with it", lambda: source.vm_status() == "postmigrate")
        source.check_stopped()
        source.qmp.command("cont")
    source.check_resumed()


def stranger_first(case, binary):
    """Who is no QEMU is turned away, and the migration that comes afterwards is taken."""
    migration = Migration(case, binary, Scenario("stranger"),
                          lambda uri, source: PostcopydDestination(case, uri, source))
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"QEVX", b"Q"):
        with connect(migration.destination.uri) as stranger:
            stranger.sendall(greeting)
            stranger.shutdown(socket.SHUT_WR)
            check(readable(stranger, PATIENCE), f"{greeting!r} is neither answered nor turned away")
    migration.run()
    migration.check_wire()
    migration.check_memory()


def split(names, parts):
    size = -(-len(names) // parts)
    return [names[i:i + size] for i in range(0, len(names), size)]


FIELDS = (
    "magic", "version", "configuration marker", "length of the machine name", "command byte",
    "command number", "length of OPEN_RETURN_PATH", "length of PING", "length of ADVISE",
    "page size summary", "target page size", "record byte of START", "section name",
    "section version", "MEM_SIZE word", "total of the blocks", "length of a block's name",
    "name of a block", "length of a block", "end of section word", "footer byte",
    "section id of the footer", "record byte of PART", "section id of PART", "flags of a page",
    "offset of a page",
)


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for names in split(FIELDS, 4):
            yield f"{label}: refuses a damaged {names[0]} … {names[-1]}", partial(
                refuses, binary=binary, names=names)
        yield f"{label}: strangers first", partial(stranger_first, binary=binary)
        yield f"{label}: damaged name seen at the switch-over", partial(damaged_discard, binary=binary)
        yield f"{label}: damaged after the commit", partial(
            damaged_after_commit, binary=binary, urgent=False)
        yield f"{label}: damaged urgent lane after the commit", partial(
            damaged_after_commit, binary=binary, urgent=True)
        yield f"{label}: survives random damage", partial(survives_random, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if PostcopydDestination.missing_programs():
        skip_all("not built: " + ", ".join(PostcopydDestination.missing_programs()))
    main(list(cases()))
