#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty logs that unmodified vhost-user back-ends keep: exactly what they write, and nothing after the stop.  (F41, S4-07)

What they are told comes from core/vhostlog, the log from sys/logmem, and what is in it from core/dirtylog,
by lib/vhostlog; the connection and the ring are lib/vhost_front's.
"""
import mmap
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import guestmem  # noqa: E402
from harness import Failure, Skip, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from machine import Storage  # noqa: E402
from vhost_front import Memory, ServedFrontEnd  # noqa: E402
from vhostuser import (ENTRIES, GET_FEATURES, HEADER, NEED_REPLY, PAGE, PROTOCOL_FEATURES, REPLY_ACK, SECTOR,  # noqa: E402
                       USER_BASE, VERSION_1, Ring)

CONSOLE = built("tests/lib/vhostlog")
TESTPMD = "/usr/bin/dpdk-testpmd"
MIB = 1 << 20
SIZE = 8 * MIB
P_LOG_SHMFD = 1 << 1
#: (guest address, length, block, offset in it): a hole in the addresses, and blocks that begin elsewhere.
PLACES = ((0, 2 * MIB, 1, 5 * MIB), (4 * MIB, 4 * MIB, 2, 0))


class Log:
    """The console, and the front-end that says what it says."""

    def __init__(self, case, front, rings, protocol):
        self.front = front
        self.console = subprocess.Popen([CONSOLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        case.defer(self._end)
        for gpa, length, block, offset in PLACES:
            self.tell(f"region {gpa:x} {length:x} {USER_BASE + gpa:x} {block:x} {offset:x}")
        for number, ring in enumerate(rings):
            self.tell(f"ring {number:x} {USER_BASE + ring.desc:x} {USER_BASE + ring.used:x} {USER_BASE + ring.avail:x}")
        offered = front.ask_u64(GET_FEATURES)
        self.tell(f"make {offered:x} {VERSION_1 | PROTOCOL_FEATURES:x} {protocol:x}")
        word, size, self.path = self.hear().split()
        last = max(gpa + length for gpa, length, *_ in PLACES)
        check_equal((word, int(size, 16)), ("log", 8 * -(-last // (256 << 10))), "size of the log")

    def _end(self):
        self.console.stdin.close()
        self.console.wait()
        self.console.stdout.close()

    def tell(self, line):
        self.console.stdin.write(line + "\n")
        self.console.stdin.flush()

    def hear(self):
        line = self.console.stdout.readline().strip()
        check(line and not line.startswith("error"), f"the console says {line!r}")
        return line

    def carry_out(self, plan):
        """(what the caller had to do, the state in the end); the back-end is told the rest."""
        done = []
        self.tell(plan)
        while True:
            word, *rest = self.hear().split()
            if word == "state":
                return done, rest[0]
            if word == "do":
                done.append(rest[0])
            else:
                self._send(int(rest[0]), rest[1] == "1", bytes.fromhex(rest[2]))

    def _send(self, fds, answered, message):
        request, flags, _ = HEADER.unpack_from(message)
        opened = [os.open(self.path, os.O_RDWR) for _ in range(fds)]
        # pylint: disable=protected-access
        self.front._send(request, message[HEADER.size:], opened, bool(flags & NEED_REPLY))
        for fd in opened:
            os.close(fd)
        if answered:
            head = self.front._exactly(HEADER.size)
            size = HEADER.unpack(head)[2]
            self.tell("answer " + (head + (self.front._exactly(size) if size else b"")).hex())

    def harvest(self):
        """{guest address} of the pages that are dirty."""
        pages = set()
        self.tell("harvest")
        while True:
            word, *numbers = self.hear().split()
            numbers = [int(number, 16) for number in numbers]
            if word == "strays":
                check_equal(numbers, [0], "pages outside of memory")
                return pages
            block, offset, length = numbers
            gpa = next(gpa - start + offset for gpa, _, number, start in PLACES if number == block)
            found = set(range(gpa, gpa + length, PAGE))
            check(found and not found & pages, "found twice in a pass")
            pages |= found


def span(address, length):
    return set(range(address & -PAGE, address + length, PAGE))


class Disk:
    """A storage daemon and its ring, live in the memory."""

    def __init__(self, case, also=0):
        self.case = case
        self.daemon = Storage(case, "storage")
        self.memory = Memory(case, SIZE)
        self.live = mmap.mmap(self.memory.fd, SIZE)
        self.ring = Ring(self.live, 0x10000)
        self.front = ServedFrontEnd(case, self.daemon.path, self.memory)
        # pylint: disable=protected-access
        self.front._regions = [(gpa, length) for gpa, length, *_ in PLACES]
        self.front.begin(P_LOG_SHMFD | also)
        check(self.front.protocol & P_LOG_SHMFD, "LOG_SHMFD is not offered")
        check_equal(self.front.share_memory(), 0, "its verdict on the memory")
        self.front.start(self.ring)
        with open(guestmem.pattern_disk(case), "rb") as disk:
            self.content = disk.read()

    def read(self, count=1):
        """So many random reads; the pages that they write."""
        written = span(self.ring.used, 4 + 8 * ENTRIES)
        for _ in range(count):
            number = len(self.ring.reads)
            header = 0x40000 + 64 * number
            status = 4 * MIB + PAGE * number + self.case.random.randrange(PAGE)
            sector, sectors = self.case.random.randrange(1024), self.case.random.randrange(1, 40)
            data = 5 * MIB + 16 * PAGE * number + self.case.random.randrange(PAGE)
            self.ring.read(sector, header, data, sectors * SECTOR, status)
            written |= span(data, sectors * SECTOR) | span(status, 1)
        os.eventfd_write(self.front._kick_of(0), 1)      # pylint: disable=protected-access
        wait_for("the disk", lambda: self.ring.finished(self.live) == len(self.ring.reads))
        self.front.ask(GET_FEATURES)    # it logs the index after it was seen, and answers after that
        for sector, data, length, status in self.ring.reads[-count:]:
            check_equal(self.live[status], 0, "status of a request")
            check(self.live[data:data + length] == self.content[sector * SECTOR:][:length], "another content")
        return written


def same(log, wanted, what):
    found = log.harvest()
    check_equal(sorted(map(hex, found - wanted)), [], f"{what}: dirty, and nobody wrote there")
    check_equal(sorted(map(hex, wanted - found)), [], f"{what}: written, and not dirty")


def storage(case, protocol=REPLY_ACK | P_LOG_SHMFD):
    """Start, several passes, stop, start again, finish."""
    there = Disk(case)
    log = Log(case, there.front, [there.ring], protocol)
    there.read(2)
    check_equal(log.carry_out("start"), (["all-dirty"], "on"), "start")
    same(log, set(), "before anything was written")
    for _ in range(4):
        same(log, there.read(case.random.randrange(1, 3)), "a pass")
        same(log, set(), "the pass after it")
    check_equal(log.carry_out("stop"), (["drop"], "off"), "stop")
    there.read()
    same(log, set(), "after the stop")
    check_equal(log.carry_out("start"), (["all-dirty"], "on"), "start again")
    wanted = there.read(2)
    done, state = log.carry_out("finish")
    check_equal((done, state), (["harvest"], "finished"), "finish")
    same(log, wanted, "the last pass")
    there.daemon.child.check_running()


def storage_without_ack(case):
    """Nothing is acknowledged: the features are asked for behind it."""
    storage(case, P_LOG_SHMFD)


def storage_dies(case):
    """It is gone between two passes: the connection tells, and no pass is trusted."""
    there = Disk(case)
    log = Log(case, there.front, [there.ring], REPLY_ACK | P_LOG_SHMFD)
    check_equal(log.carry_out("start"), (["all-dirty"], "on"), "start")
    wanted = there.read()
    there.daemon.child.kill()
    there.daemon.child.wait()
    same(log, wanted, "what it wrote before")       # the log outlives it
    try:
        log.carry_out("finish")
        raise Failure("a dead back-end stopped its ring")
    except (Failure, OSError) as failure:
        check("hung up" in str(failure) or isinstance(failure, OSError), str(failure))


class Receiver:
    """dpdk-testpmd that sends packets into the ring of a guest's network card."""

    def __init__(self, case):
        if not os.access(TESTPMD, os.X_OK):
            raise Skip(f"no {TESTPMD} here (package dpdk-dev)")
        self.case, path = case, case.path("net")
        self.child = case.spawn("testpmd", [
            TESTPMD, "--no-huge", "--no-pci", "-m", "256", "-l", "0,1", f"--file-prefix=pl{os.getpid()}",
            "--vdev", f"net_vhost0,iface={path},queues=1", "--", "-i", "--no-mlockall", "--total-num-mbufs=2048",
            "--forward-mode=txonly", "--auto-start"], stdin=subprocess.PIPE)
        wait_for("testpmd to listen", lambda: self.child.check_running() or os.path.exists(path))
        self.memory = Memory(case, SIZE)
        self.live = mmap.mmap(self.memory.fd, SIZE)
        self.rings = [Ring(self.live, 0x10000), Ring(self.live, 0x40000)]
        self.front = ServedFrontEnd(case, path, self.memory)
        # pylint: disable=protected-access
        self.front._regions = [(gpa, length) for gpa, length, *_ in PLACES]
        self.front.begin(P_LOG_SHMFD)
        check_equal(self.front.share_memory(), 0, "its verdict on the memory")
        for queue, ring in enumerate(self.rings):
            self.front.start(ring, queue)
        self.given = 0

    def _offer(self, address):
        ring, at = self.rings[0], self.given % ENTRIES
        ring._describe(at, address, 2048, 2, 0)          # pylint: disable=protected-access
        struct.pack_into("<H", self.live, ring.avail + 4 + 2 * at, at)
        self.given += 1
        struct.pack_into("<H", self.live, ring.avail + 2, self.given)

    def receive(self, count):
        """Give it so many buffers; the pages that it writes."""
        used, places = self.rings[0].used, []
        for _ in range(count):
            places.append(5 * MIB + 4 * PAGE * self.given + self.case.random.randrange(2 * PAGE))
            self._offer(places[-1])
        wait_for("packets", lambda: self.rings[0].finished(self.live) == self.given)
        written = span(used, 4 + 8 * ENTRIES)
        for n, place in enumerate(places, self.given - count):
            index, length = struct.unpack_from("<II", self.live, used + 4 + 8 * (n % ENTRIES))
            check_equal(index, n % ENTRIES, "buffer")
            check(64 <= length <= 2048, f"a packet of {length} bytes")
            written |= span(place, length)
        return written


def testpmd(case):
    """Packets that come all the time, into buffers that come when we like."""
    there = Receiver(case)
    log = Log(case, there.front, there.rings, REPLY_ACK | P_LOG_SHMFD)
    there.receive(3)
    check_equal(log.carry_out("start"), (["all-dirty"], "on"), "start")
    same(log, set(), "before anything was written")
    for _ in range(6):
        wanted = there.receive(case.random.randrange(1, 9))
        same(log, wanted, "a pass")
    check_equal(log.carry_out("stop"), (["drop"], "off"), "stop")
    # The index of the used ring is logged behind the guest's back, after it was seen.
    check(log.harvest() <= span(there.rings[0].used, 4 + 8 * ENTRIES), "dirty, and nobody wrote there")
    there.receive(4)
    same(log, set(), "after the stop")
    check_equal(log.carry_out("start"), (["all-dirty"], "on"), "start again")
    wanted = there.receive(4)
    check_equal(log.carry_out("finish"), (["harvest"], "finished"), "finish")
    same(log, wanted, "the last pass")
    there.child.check_running()


CASES = (
    ("F41 S4-07 qemu-storage-daemon: its log", storage),
    ("F41 qemu-storage-daemon: its log, without acknowledgements", storage_without_ack),
    ("F42 qemu-storage-daemon: it dies with a log", storage_dies),
    ("F41 dpdk-testpmd: its log", testpmd),
)

if __name__ == "__main__":
    if CONSOLE is None:
        skip_all("tests/lib/vhostlog is not built")
    main(CASES)
