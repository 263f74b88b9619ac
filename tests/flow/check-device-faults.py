#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a device whose state does not come as it should, or whose server ends when nobody asks it for
anything.  (F61, S3-18, S3-38, S3-43, S3-44, S3-46, S3-49)

Each row says what goes wrong and what is left: a device that runs as its twin, or one that never ran and is told of.
What the calls on a device do when they fail is in check-devices.py."""
import contextlib
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import devstate  # noqa: E402
from device_world import RUNNING, SESSION, THEIRS, Server, World  # noqa: E402
from devstate import Device, dial, greeting  # noqa: E402
from harness import check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import S2D  # noqa: E402
from service import missing_programs  # noqa: E402

SIZE = 40000
LONG = os.environ.get("POSTCOPY_TESTS_LONG") == "1"
STREAM = devstate.device_stream(THEIRS, SIZE)
#: of the server's first generation, see tests/lib/vfiouser_v1.c
SEGMENT = 4096 - 8


def segments():
    """What a device of the first generation saves."""
    pieces = [STREAM[at:at + SEGMENT] for at in range(0, len(STREAM), SEGMENT)]
    return [struct.pack("<II", n, len(piece)) + piece for n, piece in enumerate(pieces)]


def send(world, *pieces):
    """On a connection of its own; what was said when it is over, by whoever ended it."""
    with dial(world.channel) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(greeting(SESSION) + b"".join(pieces))
        sock.shutdown(1)
        answer = b""
        while piece := sock.recv(100):
            answer += piece
        return answer
    return b""


def records(bodies, kind=devstate.STREAM, name="nic", sequence=0):
    """The records of one attempt, a list."""
    device = Device(SESSION, 0, name, kind)
    device.sequence = sequence
    return [device.head(), *map(device.segment, bodies), device.end()]


def whole(sequence=0):
    return records([STREAM], sequence=sequence)


# --- on its way -------------------------------------------------------------------------------------

def at_every_cut(world):
    """The link breaks after each record, and in the middle of each."""
    pieces = whole()
    for n, piece in enumerate(pieces):
        for part in (0, 1, len(piece) // 2, len(piece) - 1):
            send(world, *pieces[:n], piece[:part])


def damaged(world):
    joined = b"".join(whole())
    count = 200 if LONG else 12
    for _ in range(count):
        at = world.case.random.randrange(len(joined))
        send(world, joined[:at], bytes([joined[at] ^ 1 << world.case.random.randrange(8)]), joined[at + 1:])


def out_of_turn(world):
    head, body, end = whole()
    for pieces in ((body, end), (head, end), (head, body, body, end), (head, head, body, end), (end,)):
        send(world, *pieces)


def of_others(world):
    """A device that is not here, and another attempt at one that was never finished."""
    send(world, *records([b"x" * 100], name="other"))
    send(world, *records([STREAM[:1000]])[:2])


def on_the_way(case, trouble):
    """Nothing of it reaches the device; the attempt that is whole does, and it is all of it."""
    server = Server(case)
    world = World(case, server)
    world.begin()
    world.vm.event("package")
    trouble(world)
    check_equal([c for c in server.commands() if c["seed"] == THEIRS], [], "the device took what was not whole")
    check(not world.vm.has("running"), "the VM runs without its device")
    send(world, *whole(sequence=100))
    world.vm.event("running")
    world.wait_stage("running")
    check(server.ran(), "it does not run with its twin's state")
    server.check_trace()
    world.complete()


# --- and again ------------------------------------------------------------------------------------------

STALE = 9
HOUR = 3600000


def sent_again(case, mandatory, pieces):
    """Its twin ran on, and is saved once more: what was loaded is void, though it was whole, and never runs."""
    server = Server(case)
    world = World(case, server, mandatory=mandatory)
    world.begin(loaded_after=HOUR)
    world.vm.event("package")
    send(world, *records([devstate.device_stream(STALE, SIZE)]))
    world.wait_stage("loaded")
    send(world, *whole(sequence=1)[:pieces])
    if mandatory == "on":
        world.refused("saved anew")
    else:
        check("saved anew" in world.wait_stage("lost")["reason"], world.device()["reason"])
        world.vm.tell("load")
        world.vm.event("running")
        world.complete()
    check_equal([c for c in server.commands() if (c["state"], c["seed"]) == (RUNNING, STALE)], [], "it ran with the old state")


def too_late(case):
    """It runs: who sends its state now is not heard, nor told that all is there."""
    world = World(case, Server(case))
    world.begin()
    send(world, *whole())
    world.vm.event("running")
    check(not send(world, *records([devstate.device_stream(STALE, SIZE)], sequence=1)), "it was told that all is here")
    world.wait_stage("running")
    check_equal(world.server.commands()[-1]["seed"], THEIRS, "whose state it has in the end")
    check_equal(world.service.status()["device_states"][0]["attempts"], 1, "attempts")
    world.server.check_trace()
    world.complete()


# --- what it is given ----------------------------------------------------------------------------------

def merged(parts):
    return [parts[0] + parts[1], *parts[2:]]


def split(parts):
    return [parts[0][:100], parts[0][100:], *parts[1:]]


def swapped(parts):
    return [parts[1], parts[0], *parts[2:]]


def twice(parts):
    return [parts[0], *parts]


def first_missing(parts):
    return parts[1:]


def last_missing(parts):
    return parts[:-1]


def one_byte_less(parts):
    return [parts[0][:-1], *parts[1:]]


def one_byte_more(parts):
    return [parts[0] + b"x", *parts[1:]]


def too_large(parts):
    return [b"x" * (1 << 20), *parts]


def wrong_content(parts):
    return [parts[0][:-1] + bytes([parts[0][-1] ^ 1]), *parts[1:]]


SPOILERS = (merged, split, swapped, twice, first_missing, last_missing, one_byte_less, one_byte_more, too_large,
            wrong_content)


def first_generation(case):
    """Segments as they were saved: it runs as its twin."""
    server = Server(case, "generation=1")
    world = World(case, server)
    world.begin()
    send(world, *records(segments(), devstate.REGION))
    world.vm.event("running")
    world.wait_stage("running")
    check(server.ran(), "it does not run with its twin's state")
    server.check_trace()
    world.complete()


def spoiled(case, spoil, mandatory):
    """S3-38: a segment is taken as it was saved or not at all; it never runs with what is left."""
    server = Server(case, "generation=1")
    world = World(case, server, mandatory=mandatory, threads=2)
    world.begin()
    send(world, *records(spoil(segments()), devstate.REGION))
    ends_without(world, mandatory)


def of_another_kind(case, kind, generation, mandatory):
    server = Server(case, f"generation={generation}")
    world = World(case, server, mandatory=mandatory, threads=2)
    world.begin()
    send(world, *records([STREAM], kind))
    ends_without(world, mandatory)


def ends_without(world, mandatory):
    """The VM is refused if it cannot be without the device, and the source can still have it; the device never ran."""
    def ended():
        return world.service.status()["state"] == "failed" or world.device()["stage"] == "lost"
    wait_for("the device to be lost", ended)
    said = world.device()
    check(said["reason"] and said["error"], f"why it is lost: {said}")
    if world.service.status()["state"] == "failed":
        check_equal(mandatory, "on", "the VM was refused for an optional device")
        world.refused("mandatory device nic")
        return
    world.vm.event("running")
    world.complete()
    check_equal("device:nic" in world.service.blockers(), mandatory == "on", "its name is among the blockers")
    check_equal(world.server.ran(), [], "it ran with a state that is not its twin's")
    world.server.check_trace()


# --- a server that ends ---------------------------------------------------------------------------------

def dies(case, stage, mandatory):
    """In the middle of nothing: the VM goes on, it is served, and the device is told of."""
    server = Server(case)
    world = World(case, server, mandatory=mandatory, relay=True, threads=0)
    hold = world.relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    world.begin()
    send(world, *whole())
    world.vm.event("running")
    world.relay.wait_held(hold)
    if stage == "running":
        world.relay.release(hold)
    world.wait_stage(stage)
    server.child.kill()
    check("gone" in world.wait_stage("lost")["reason"], world.device()["reason"])
    if stage != "running":
        check_equal(server.ran(), [], "it ran")
        world.relay.release(hold)
    check_equal("device:nic" in world.service.blockers(), mandatory == "on", "its name is among the blockers")
    world.complete()


CASES = [(f"F61 S3-44 on its way: {name}", lambda case, run=run: on_the_way(case, run)) for name, run in (
    ("cut after each record and in it", at_every_cut), ("a bit of it turned", damaged),
    ("records out of turn", out_of_turn), ("S3-43 what is of others", of_others))]
CASES += [("S3-43 S3-49 saved again when it runs", too_late),
          ("S3-38 F34 segments as they were saved", first_generation)]
for _mandatory in ("on", "off"):
    for _spoil in SPOILERS:
        CASES.append((f"F61 S3-18 S3-38 segments {_spoil.__name__.replace('_', ' ')}, mandatory={_mandatory}",
                      lambda case, spoil=_spoil, mandatory=_mandatory: spoiled(case, spoil, mandatory)))
    for _kind, _generation in ((devstate.REGION, 2), (devstate.STREAM, 1)):
        CASES.append((f"F61 S3-43 state of another kind, generation={_generation}, mandatory={_mandatory}",
                      lambda case, kind=_kind, generation=_generation, mandatory=_mandatory:
                      of_another_kind(case, kind, generation, mandatory)))
    for _pieces, _text in ((3, "all of it"), (2, "a part of it")):
        CASES.append((f"F61 S3-43 S3-49 saved again after it was loaded, {_text}, mandatory={_mandatory}",
                      lambda case, mandatory=_mandatory, pieces=_pieces: sent_again(case, mandatory, pieces)))
    for _stage in ("waiting", "running"):
        CASES.append((f"F61 S3-46 its server ends while it is {_stage}, mandatory={_mandatory}",
                      lambda case, stage=_stage, mandatory=_mandatory: dies(case, stage, mandatory)))

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
