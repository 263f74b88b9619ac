#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of VFIO in a session: loaded before the VM runs, started when their memory is there, in each of the three
ways to it; and what becomes of the VM when one fails.  (F30, F33, F35, F47, F57, F61, I1, I3, S0-08, S2-09, S3-46)

The device is in a vfio-user server of our own, which prints each command that it is given, and how many pages of
what it was given by descriptor are holes of their file at that moment."""
import errno
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import devstate  # noqa: E402
from dest import wait_event  # noqa: E402
from device_world import (  # noqa: E402
    DMA_MAP, DMA_UNMAP, IOVA, PATIENTLY, RUNNING, SIZE, THEIRS, WORK, Server, World, region_segments, whole_state)
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import S2D  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, missing_programs  # noqa: E402


def running_without_pages(world):
    """The VM runs, its device was loaded, and no page of them comes before what is returned is released."""
    hold = world.relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    world.begin()
    world.send_state()
    world.vm.event("running")
    world.relay.wait_held(hold)
    return hold


# --- each way to its memory ---------------------------------------------------------------------------

def gate(case):
    """Its state is loaded before the VM runs; it runs when the last page that it reaches has come."""
    world = World(case, Server(case, f"work={WORK}"), relay=True)
    hold = world.relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    world.begin()
    world.vm.event("loaded")
    check("state has not come" in world.service.wait_blocker("device:nic"), "why it does not run")
    check(not world.vm.has("running"), "the VM ran before its device was loaded")
    wait_for("the VMM, which has loaded, not to be named", lambda: "load" not in world.service.blockers())
    world.send_state()
    world.vm.event("running")
    world.relay.wait_held(hold)
    world.wait_stage("waiting")
    check("not all there" in world.service.wait_blocker("device:nic"), "why it does not run")
    wait_for("pages to be wanted for it", lambda: world.device()["gate"]["pages_missing"] == SIZE // PAGE)
    check_equal((world.server.ran(), world.device()["gate"]["open"]), ([], False), "it ran without its memory")
    world.relay.release(hold)
    said = world.wait_stage("running")
    shown = subprocess.run([built("postcopyctl"), "-r", world.service.run_dir, "devices"], capture_output=True, text=True,
                           timeout=PATIENCE, check=True).stdout.splitlines()
    check_equal((shown[0].split()[:3], shown[1].split()[:3]), (["ID", "DMA", "STAGE"], ["nic", "gate", "running"]),
                "what postcopyctl shows")
    check_equal((said["gate"]["pages_missing"], said["gate"]["mapped"], said["state"]), (0, 1, "running"), "the gate")
    worked = wait_event(world.server.child, "worked")
    check_equal((worked["failed"], worked["sum"]), (0, world.words()), "what the device saw")
    check_equal([b for b in world.service.blockers() if ":nic" in b], [], "what still holds it")
    world.server.check_trace()
    world.complete()


def pieces(case):
    """A set of several ranges, not all of the block: each mapped when its own pages are there."""
    world = World(case, Server(case), maps=(f"block={BLOCK},offset=1M,length=64K,coherent=on",))
    world.begin()
    world.send_state()
    world.wait_stage("running")
    check_equal(world.device()["gate"]["bytes"], 64 << 10, "bytes of its set")
    check_equal([c["direct"] for c in world.server.ran()][:1], [1], "mappings when it ran")
    world.server.check_trace()
    world.complete()


def declared_by_the_vmm(case):
    """Without --dma-map the set is what the VMM declares; the daemon maps it, and the VMM is told when it runs."""
    world = World(case, Server(case, f"work={WORK}"), maps=())
    world.begin()
    world.vm.event("ready")
    for part in range(4):
        world.vm.do(f"dma nic {BLOCK} {part * MIB} {MIB} {IOVA + part * MIB:#x} rwe")
    world.send_state()
    world.vm.event("running")
    wait_for("all of it to be mapped", lambda: world.device()["gate"]["mapped"] == 4)
    check_equal((world.server.ran(), world.vm.has("dma-open")), ([], None), "it ran with a set that is not whole")
    for verb in (f"dma-mapped nic {IOVA:#x}", f"dma-unmap nic {IOVA:#x} {MIB}", "dma-reset nic"):
        check("daemon" in world.vm.do(verb, errno.EPERM), f"no word about why not {verb}")
    check_equal(world.vm.do(f"dma-sync nic {IOVA:#x} {MIB}"), "", "what sync says")
    world.vm.do("dma-seal nic")
    world.vm.event("dma-open", gate="nic")
    world.wait_stage("running")
    check(not world.vm.has("dma-range"), "the VMM was to map for a device of the daemon")
    check_equal([c["direct"] for c in world.server.ran()][:1], [4], "mappings when it ran")
    world.server.check_trace()
    world.complete()


def example(case):
    """examples/vmm.c with a device of the daemon's: it declares, and is told."""
    server = Server(case)
    world = World(case, server, maps=(), expect=("vmm",))
    vmm = case.spawn("vmm", [built("examples/vmm"), "-d", "nic", world.service.register, BLOCK, str(SIZE)])
    source = world.service.source("--commit-ping")
    world.send_state()
    check_equal(vmm.wait(), 0, f"exit status of the VMM: {vmm.errors()}")
    source.completed()
    check("device nic may run" in vmm.lines(), vmm.lines())
    world.wait_stage("running")
    server.check_trace()


def messages(case):
    """It runs with the VM; what it asks for waits for its page; at the end it reaches all by itself."""
    world = World(case, Server(case, f"work={WORK}"), dma="messages", relay=True)
    hold = running_without_pages(world)
    wait_for("the device to run", world.server.ran)
    check_equal(world.server.said("worked"), [], "it saw pages that are not here")
    check_equal(world.server.ran()[0]["direct"], 0, "mappings by descriptor")
    world.relay.release(hold)
    worked = wait_event(world.server.child, "worked")
    check_equal((worked["failed"], worked["sum"]), (0, world.words()), "what the device saw")
    wait_for("its memory by descriptor", lambda: world.server.ran()[-1]["direct"] == 1)
    check_equal([c["command"] for c in world.server.ran()][-2:], [DMA_UNMAP, DMA_MAP], "how it came to that")
    world.server.check_trace()
    world.complete()


def messages_in_pieces(case):
    """Range by range it comes to reach all by itself; both orders of each are more than its thread takes at a time."""
    pieces = 150
    rest = [f"--dma-map=device=nic,iova={IOVA + n * PAGE:#x},block={BLOCK},offset={n * PAGE},length={PAGE}"
            for n in range(1, pieces)]
    world = World(case, Server(case), *rest, maps=(f"block={BLOCK},length={PAGE}",), dma="messages")
    world.begin(patient=False)
    world.send_state()
    world.wait_stage("running")
    wait_for("its memory by descriptor", lambda: world.server.ran()[-1]["direct"] == pieces)
    check_equal([c["command"] for c in world.server.ran()][-2 * pieces:], [DMA_UNMAP, DMA_MAP] * pieces,
                "how it came to that")
    world.server.check_trace()
    world.complete()


def waits_inside(case):
    """S3-73: it does not say that it runs before it has seen pages that are still missing: who serves them does not
    wait for it, nor does anybody else."""
    world = World(case, Server(case, f"work={WORK},early=on"), dma="messages", relay=True)
    hold = running_without_pages(world)
    wait_for("the device to be told to run", world.server.ran)
    wait_for("that call to be shown", lambda: world.device().get("call"))
    check_equal((world.server.said("worked"), world.device()["stage"] == "running"), ([], False), "it did not wait")
    world.relay.release(hold)
    check_equal(wait_event(world.server.child, "worked")["sum"], world.words(), "what the device saw")
    world.wait_stage("running")
    world.server.check_trace()
    world.complete()


def sharer(case):
    """Its server is a sharer of its name, and nothing is mapped for it before that is proven."""
    world = World(case, Server(case), dma="sharer")
    world.begin()
    world.send_state()
    world.vm.event("package")
    wait_for("the missing sharer to be told",
             lambda: "has not registered" in world.service.blockers().get("device:nic", ""))
    check_equal([c["mappings"] for c in world.server.commands() if c["mappings"]], [], "mappings")
    world.service.sharer("nic", threads=1)
    world.vm.event("running")
    world.wait_stage("running")
    check_equal([c["direct"] for c in world.server.ran()][:1], [1], "mappings when it ran")
    world.complete()


# --- other devices --------------------------------------------------------------------------------------

def region(case):
    """The first version of migration: segments stay as they were, and it is checked when it starts."""
    world = World(case, Server(case, "generation=1", f"work={WORK}"), relay=True)
    hold = world.relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    world.begin()
    world.send_state(*region_segments(), kind=devstate.REGION)
    world.vm.event("running")
    world.relay.wait_held(hold)
    said = world.wait_stage("waiting")
    check_equal((said["state"], said["segments"], said["loaded"]), ("resuming", 5, said["bytes"]), "while it waits")
    check_equal(world.server.ran(), [], "it ran without its memory")
    world.relay.release(hold)
    world.wait_stage("running")
    check_equal(wait_event(world.server.child, "worked")["sum"], world.words(), "what the device saw")
    world.server.check_trace()
    world.complete()


def region_joined(case):
    """Segments that were joined on the way are refused by the device, and by us with it."""
    world = World(case, Server(case, "generation=1"))
    world.begin()
    segments = region_segments(2000)
    world.send_state(segments[0] + segments[1], *segments[2:], kind=devstate.REGION)
    world.refused("does not take the state")


def another_version(case):
    world = World(case, Server(case, "generation=1"))
    world.begin()
    world.send_state()
    world.refused("another version")


def alone(case):
    """Of two devices one is lost: the other runs, and so does the VM; each has its own memory to wait for."""
    gpu = Server(case, f"work={WORK}", name="gpu")
    world = World(case, Server(case, "vice=die,at=12"), f"--vfio=id=gpu,vfio-user={gpu.path},mandatory=on,dma=messages",
                  f"--dma-map=device=gpu,iova={IOVA:#x},block={BLOCK}", mandatory="off", threads=2)
    world.begin()
    world.send_state()
    world.wait_stage("lost")
    check(not world.vm.has("running"), "the VM ran before its mandatory device was loaded")
    world.send_state(name="gpu")
    world.vm.event("running")
    world.wait_stage("running", name="gpu")
    check_equal(wait_event(gpu.child, "worked")["sum"], world.words(), "what the other device saw")
    gpu.check_trace()
    world.complete()


# --- failures -----------------------------------------------------------------------------------------

def bad_state(case, body, mandatory):
    """Before the commit: without a mandatory device there is no VM here, without an optional one there is."""
    world = World(case, Server(case), mandatory=mandatory, threads=2)
    world.begin()
    world.send_state(body)
    if mandatory == "on":
        world.refused("mandatory device nic")
        return
    world.vm.event("running")
    said = world.wait_stage("lost")
    check(said["reason"] and said["error"], f"why it is lost: {said}")
    world.complete()
    check_equal(world.server.ran(), [], "it ran with half a state")


def half_a_state(case, mandatory):
    bad_state(case, whole_state()[:-9], mandatory)


def more_than_a_state(case, mandatory):
    bad_state(case, whole_state() + b"more", mandatory)


def garbage(case, mandatory):
    bad_state(case, case.random.randbytes(20000), mandatory)


def no_state(case):
    """The state of an optional device never comes: the VM is held for its deadline, and goes on."""
    world = World(case, Server(case), mandatory="off", deadline=2000, threads=2)
    world.begin()
    world.vm.event("running")
    check("did not come" in world.wait_stage("lost")["reason"], world.device()["reason"])
    world.complete()


def saved_anew(case):
    """F35 S3-44: its twin ran once more after its state was loaded here: that is old, and never runs."""
    world = World(case, Server(case))
    world.begin(loaded_after=PATIENTLY)
    world.send_state()
    world.wait_stage("loaded")
    world.send_state(attempt=2)
    world.refused("saved anew")


def stays(case):
    """A device ends with its handle, so the daemon that holds it does not end by itself."""
    world = World(case, Server(case), stay=False)
    world.begin()
    world.send_state()
    world.wait_stage("running")
    world.complete()
    world.vm.tell("hangup")
    world.service.wait_state("complete")
    world.service.child.proc.send_signal(signal.SIGTERM)
    wait_for("the refusal in the log", lambda: "end with this daemon" in world.service.log())
    check_equal((world.service.child.running(), world.device()["stage"]), (True, "running"), "the daemon")
    world.service.child.proc.send_signal(signal.SIGTERM)
    world.service.ended(0)


def no_server(case):
    """A mandatory device that is not there: nothing begins; an optional one is lost."""
    world = World(case, Server(case), deadline=300, mandatory="off", threads=2)
    world.server.child.kill()
    os.unlink(world.server.path)
    late = Service(case, f"--vfio=id=nic,vfio-user={world.server.path}.none,mandatory=on", expect=("vm",))
    late.sharer("vm", "main")
    late.source("--commit-ping")
    check("not there yet" in late.wait_blocker("device:nic"), "why it waits")
    world.begin()
    world.vm.event("running")
    world.wait_stage("lost")
    world.complete()


def link_lost(case):
    """The device stays parked, and everything else answers."""
    world = World(case, Server(case), relay=True, source=())
    running_without_pages(world)
    world.wait_stage("waiting")
    world.relay.cut()
    world.service.wait_state("paused")
    check_equal((world.device()["stage"], world.server.ran()), ("waiting", []), "the device")
    world.server.check_trace()


# Answers of a server, from 0: what fails when that one does, and whether the VM is ours by then.
ANSWERS = (
    (8, "SET STOP", False), (10, "SET RESUMING", False), (12, "the stream", False), (13, "SET STOP", False),
    (15, "SET RESUMING, to be mapped", True), (17, "the stream, once more", True), (18, "DMA_MAP", True),
    (21, "SET RUNNING", True), (22, "the state, read then", True),
)
VICES = ("die", "silent", "error", "short")


def fails(case, vice, at, committed, mandatory):
    world = World(case, Server(case, f"vice={vice},at={at}"), mandatory=mandatory, threads=2,
                  deadline=2000 if vice == "silent" else PATIENTLY)
    world.wait_stage("idle")
    world.begin()
    world.send_state()
    if mandatory == "on" and not committed:
        world.refused("mandatory device nic")
        return
    world.vm.event("running")
    world.wait_stage("lost")
    check_equal("device:nic" in world.service.blockers(), mandatory == "on", "its name is among the blockers")
    world.server.check_trace()
    world.complete()


# --------------------------------------------------------------------------------------------------------

CASES = [
    ("F47 I1 I3 S0-08 S2-09 held until its memory is there", gate),
    ("F47 F46 a part of a block is all that it reaches", pieces),
    ("F46 F47 a set that the VMM declares", declared_by_the_vmm),
    ("F46 F47 the example of a VMM declares it", example),
    ("F47 by messages: what it asks for waits", messages),
    ("F47 by messages: range by range", messages_in_pieces),
    ("S3-73 its change of state waits for a page", waits_inside),
    ("F23 its server is a sharer, and proven first", sharer),
    ("F34 F47 a device of the first version", region),
    ("F34 segments that were joined are refused", region_joined),
    ("F34 a state of another version is refused", another_version),
    ("F61 of two devices one is lost alone", alone),
    ("F57 S3-81 the state of an optional device does not come", no_state),
    ("F55 a device that is not there", no_server),
    ("F35 S3-44 its twin is saved anew", saved_anew),
    ("the daemon stays as long as it holds a device", stays),
    ("F61 link lost: the device stays parked", link_lost),
]
for _name, _case in (("S3-18 half a state", half_a_state), ("S3-18 more than a state", more_than_a_state),
                     ("S3-18 garbage", garbage)):
    for _mandatory in ("on", "off"):
        CASES.append((f"{_name}, mandatory={_mandatory}",
                      lambda case, run=_case, mandatory=_mandatory: run(case, mandatory)))
for _vice in VICES:
    for _at, _what, _committed in ANSWERS:
        for _mandatory in ("on", "off"):
            CASES.append((f"F61 F33 S3-46 {_vice} at {_what} ({_at}), mandatory={_mandatory}",
                          lambda case, vice=_vice, at=_at, committed=_committed, mandatory=_mandatory:
                          fails(case, vice, at, committed, mandatory)))

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
