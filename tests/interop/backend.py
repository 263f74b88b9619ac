#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The example of a back-end, which shares memory by libpostcopy alone.  (F15, F22, P01, P15, P24)

Driven by a front-end of ours while its memory is missing, and by an unmodified QEMU, which reads its disk
after a postcopy.
"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Failure, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from machine import Machine  # noqa: E402
from preload import served, vmas  # noqa: E402
from relay import S2D, Relay  # noqa: E402
from scenario import PREEMPT, Scenario  # noqa: E402
from served import PRELOAD, Setup, check_ended_well, run_served  # noqa: E402
from service import MIB, PAGE, PATIENT, missing_programs  # noqa: E402
from stage import REGIONS, SIZE, Stage, check_reads, disk, some_reads, wait_rung  # noqa: E402
from vhost_front import GET_CONFIG, GET_VRING_BASE, P_CONFIG  # noqa: E402
from vhostuser import GET_FEATURES, OUT, SECTOR, FrontEnd, Ring  # noqa: E402
from vm import binaries  # noqa: E402

EXAMPLE = built("examples/vhost-user-blk")
SLOWLY = 2_000_000                      # bytes a second after the switch
READABLE, SECTORS = 4096, 4200          # what some_reads() reads of a disk, and all of it


class Disk:
    """The example, with a disk; @stage: the daemon that it tells what it maps."""

    def __init__(self, case, stage=None):
        self.case, self.stage, self.child = case, stage, None
        self.path, self.content = disk(case, SECTORS)
        self.sock = case.path("disk.sock")
        self.start()

    def start(self):
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        words = ["-p", self.stage.service.register, "-n", "disk"] if self.stage else []
        number = sum(child.name.startswith("example") for child in self.case.children)
        self.child = self.case.spawn(f"example{number}", [EXAMPLE, *words, self.sock, self.path])
        wait_for("its socket", lambda: self.child.check_running() or os.path.exists(self.sock))

    def front(self):
        ram = os.open(self.stage.ram, os.O_RDWR)
        front = FrontEnd(self.sock, ram, REGIONS)
        self.case.defer(front.close)
        front.begin()
        return front

    def is_closed(self):
        """Whatever it maps of the memory cannot be touched."""
        found = vmas(self.child.pid, self.stage.ram)
        return bool(found) and not any({"rd", "wr"} & set(flags) for *_, flags in found)


def requests(case, stage, there, ring):
    """Reads all over RAM, and a few writes from it to the end of the disk; what is on that then."""
    some_reads(case, ring)
    after = bytearray(there.content)
    for n in range(4):
        at, sector = 8 * MIB + PAGE * 16 * n, READABLE + 16 * n
        ring.read(sector, at, at + PAGE, 7 * SECTOR, at + 5 * PAGE, kind=OUT)
        after[sector * SECTOR:(sector + 7) * SECTOR] = stage.image[at + PAGE:at + PAGE + 7 * SECTOR]
    return bytes(after)


def check_done(stage, there, ring, after):
    """The memory and the disk are as they must be."""
    check_reads(stage, ring, after)
    with open(there.path, "rb") as file:
        check(file.read() == after, "another content on the disk than what was written")


def faults_of(stage):
    return next((s["faults"] for s in stage.service.stats()["sharers"] if s["name"] == "disk"), 0)


def late(case):
    """Told of its memory while it is missing, as QEMU does."""
    stage = Stage(case, "disk")
    there, ring = Disk(case, stage), Ring(stage.image)
    after = requests(case, stage, there, ring)
    front = there.front()
    stage.begin(*PATIENT)
    check_equal(front.share_memory(), 0, "its verdict on the memory")
    check_equal(len(vmas(there.child.pid, stage.ram)), len(REGIONS), "mappings")
    check(served(there.child.pid, stage.ram), f"not registered: {vmas(there.child.pid, stage.ram)}")
    front.start(ring)
    wait_rung(front)
    check_done(stage, there, ring, after)
    case.note(f"{faults_of(stage)} faults of it")
    check(faults_of(stage) >= 2 * len(ring.reads), "too few faults for what it did")
    check(not served(there.child.pid, stage.ram), "still registered at the end")
    there.child.check_running()


def early(case):
    """Told of everything, and kicked, before a source is there: it touches nothing until LISTENING."""
    stage = Stage(case, "disk")
    there, ring = Disk(case, stage), Ring(stage.image)
    after = requests(case, stage, there, ring)
    front = there.front()
    check_equal(front.share_memory(), 0, "its verdict on the memory")
    check(there.is_closed(), f"open before LISTENING: {vmas(there.child.pid, stage.ram)}")
    front.start(ring)
    check_equal(front._ask(GET_FEATURES) != 0, True, "it does not answer")     # pylint: disable=protected-access
    check(there.is_closed(), "opened by a ring")
    check_equal(os.stat(stage.ram).st_blocks, 0, "blocks of the file")
    stage.begin(*PATIENT)
    wait_rung(front)
    check(served(there.child.pid, stage.ram), f"not registered: {vmas(there.child.pid, stage.ram)}")
    check_done(stage, there, ring, after)


def killed(case):
    """It is killed while it waits for a page; another one goes on where it was."""
    stage = Stage(case, "disk")
    stage.relay = Relay(case, "unix:" + case.path("relay"), stage.service.uri)
    seen = []

    def enough(event):
        if event.kind == "PAGE":
            seen.append(event)
        return len(seen) > 20
    there, ring = Disk(case, stage), Ring(stage.image)
    after = requests(case, stage, there, ring)
    front = there.front()
    stage.relay.hold(S2D, before=enough)
    stage.begin(*PATIENT)
    check_equal(front.share_memory(), 0, "its verdict on the memory")
    front.start(ring)
    stage.relay.wait_held()
    stage.service.wait_waiting("disk", 1)
    there.child.kill()
    there.child.wait()
    stage.service.wait_sharer("disk", "dead")
    with open(stage.ram, "rb") as ram:
        base = ring.finished(ram.read())
    case.note(f"{base} requests were done")
    check(0 < base < len(ring.reads), f"{base} requests were done")
    there.start()
    front = there.front()
    check_equal(front.share_memory(), 0, "its verdict on the memory")
    check(served(there.child.pid, stage.ram), "the second one is not registered")
    front.start(ring, base=base)
    stage.service.wait_waiting("disk", 1)
    stage.relay.release()
    wait_rung(front)
    check_done(stage, there, ring, after)


def daemon_gone(case):
    """postcopyd dies before the table comes: none of it is mapped, no page is made."""
    stage = Stage(case, "disk")
    there = Disk(case, stage)
    front = there.front()
    stage.begin(*PATIENT)
    before = os.stat(stage.ram).st_blocks
    stage.service.child.kill()
    stage.service.child.wait()
    try:
        check(front.share_memory() != 0, "it takes memory that nobody serves")
        wait_for("it to end", lambda: not there.child.running())
    except (Failure, OSError) as failure:
        case.note(f"the back-end: {failure}")
    check_equal(os.stat(stage.ram).st_blocks, before, "blocks of the file")
    check_equal(there.child.wait(), 1, "its status")
    check("postcopyd" in there.child.errors(), there.child.errors())


def table_changes(case):
    """The VMM tells of its memory anew while it is missing."""
    stage = Stage(case, "disk")
    there, ring = Disk(case, stage), Ring(stage.image)
    after = requests(case, stage, there, ring)
    front = there.front()
    stage.begin(*PATIENT)
    for _ in range(3):
        check_equal(front.share_memory(), 0, "its verdict on the memory")
        check(served(there.child.pid, stage.ram), "not registered")
        check_equal(len(vmas(there.child.pid, stage.ram)), len(REGIONS), "mappings")
    front.start(ring)
    wait_rung(front)
    check_done(stage, there, ring, after)


def plain(case):
    """Without postcopyd it is a disk like any other."""
    there = Disk(case)
    memory = bytearray(SIZE)
    ring = Ring(memory)
    some_reads(case, ring)
    ram = os.memfd_create("ram", os.MFD_CLOEXEC)
    os.pwrite(ram, memory, 0)
    front = FrontEnd(there.sock, ram, REGIONS)
    case.defer(front.close)
    front.begin(P_CONFIG)
    # pylint: disable=protected-access
    front._send(GET_CONFIG, struct.pack("<III", 0, 60, 0) + bytes(60))
    config = front._exactly(12 + 72)
    check_equal(struct.unpack_from("<Q", config, 24)[0], SECTORS, "sectors")
    check_equal(front.share_memory(), 0, "its verdict on the memory")
    front.start(ring)
    wait_for("the requests", lambda: ring.finished(os.pread(ram, SIZE, 0)) == len(ring.reads))
    content = os.pread(ram, SIZE, 0)
    for sector, data, length, status in ring.reads:
        check_equal(content[status], 0, "status")
        check(content[data:data + length] == there.content[sector * SECTOR:sector * SECTOR + length], "data")
    front._send(GET_VRING_BASE, struct.pack("<II", 0, 0))
    check_equal(struct.unpack("<5I", front._exactly(20))[4], len(ring.reads), "requests taken")


def with_qemu(case, binary, capabilities):
    """An unmodified QEMU whose disk it is, with its memory served, reads on after the postcopy."""
    def read_slowly(migration):
        migration.destination.wait_phase("running")
        migration.destination.vm.wait_reads(200)
        migration.source.set_parameters(max_postcopy_bandwidth=0)
    scenario = Scenario("example", capabilities, machine=Machine(136, disk="vhost-user"), when="at-once",
                        backend="file", bandwidth=SLOWLY)
    migration, trace = run_served(case, binary, scenario, Setup(example=True), after_switch=read_slowly)
    check_ended_well(migration, trace)
    faults = migration.destination.faults_of_storage()
    case.note(f"{faults} faults of the back-end")
    check(faults > 0, "the back-end met no missing page")


def cases():
    yield "F15 P15 example: told of its memory while it is missing", late
    yield "P01 F22 example: told before LISTENING, it touches nothing", early
    yield "F15 example: killed while it waits, and another goes on", killed
    yield "F22 example: no daemon, no memory", daemon_gone
    yield "P15 example: the table changes", table_changes
    yield "example: a disk without postcopyd", plain
    for binary in binaries():
        yield (f"P24 example: disk of a served {os.path.basename(binary)}",
               lambda case, binary=binary: with_qemu(case, binary, PREEMPT))


if __name__ == "__main__":
    if missing_programs() or not EXAMPLE or not built(PRELOAD):
        skip_all("not built: make check builds it")
    main(list(cases()), limit=120)
