#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What unmodified vhost-user back-ends really say, and that wire/vhostmsg takes all of it.  (P09, P14, P16, P26)

Each case drives a back-end with lib/vhost_front.py, which serves its faults, looks at the data it moved, and
gives the conversation to lib/vhostcheck.
"""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import guestmem  # noqa: E402
from harness import Skip, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from machine import Storage  # noqa: E402
from vhost_front import (ADD_MEM_REG, GET_CONFIG, GET_MAX_MEM_SLOTS, GET_QUEUE_NUM, GET_VRING_BASE,  # noqa: E402
                         P_CONFIG, P_MEM_SLOTS, P_MQ, P_PAGEFAULT, POSTCOPY_ADVISE, POSTCOPY_END, POSTCOPY_LISTEN,
                         Memory, ServedFrontEnd)
from vhostuser import HEADER, SET_MEM_TABLE, SET_VRING_KICK, USER_BASE, Ring  # noqa: E402

CHECKER = built("tests/lib/vhostcheck")
TESTPMD = "/usr/bin/dpdk-testpmd"
MIB = 1 << 20
COMMON = P_MQ | P_CONFIG | P_MEM_SLOTS
SECTOR, READ = 2, 3 * 4096
RING, REQUEST, STATUS, DATA = 0, 0x10000, 0x11000, 0x12000


def codec_agrees(front, *must_have):
    """Every message is taken, and is answered when and as the codec expects."""
    lines = "".join(f"{way} {form} {protocol:x} {fds} {data.hex()}\n"
                    for way, form, protocol, fds, data in front.transcript)
    said = subprocess.run([CHECKER], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    check_equal(len(said), len(front.transcript), "lines of vhostcheck")
    expected = "silence"
    for (way, *_, data), verdict in zip(front.transcript, said):
        check(" ok " in verdict, f"{way} {data[:12].hex()}: {verdict}")
        check(way == "<" or expected == "silence", f"{verdict}: no answer came to the one before")
        check(way == ">" or expected != "silence", f"{verdict}: nobody expected that")
        expected = verdict.rsplit(" ", 1)[1] if way == ">" else "silence"
    said = {HEADER.unpack_from(data)[0] for *_, data in front.transcript}
    check(set(must_have) <= said, f"not in the conversation: {set(must_have) - said}")
    front.case.note(f"{len(front.transcript)} messages, faults at {[hex(f) for f in front.faults]}")


def storage(case, wanted):
    """A qemu-storage-daemon, and a front-end that knows its disk."""
    daemon = Storage(case, "storage")
    front = ServedFrontEnd(case, daemon.path, Memory(case, 4 * MIB))
    front.begin(wanted)
    check_equal(front.protocol & P_CONFIG, P_CONFIG, "CONFIG")
    config, _ = front.ask(GET_CONFIG, struct.pack("<III", 0, 60, 0) + bytes(60))
    sectors = struct.unpack_from("<Q", config, 12)[0]
    check_equal(sectors * 512, os.path.getsize(guestmem.pattern_disk(case)), "size of the disk")
    check(front.protocol & P_MQ and front.protocol & P_MEM_SLOTS, f"protocol features {front.protocol:#x}")
    check(front.ask_u64(GET_QUEUE_NUM) > 0 and front.ask_u64(GET_MAX_MEM_SLOTS) > 0, "no queues, or no slots")
    return daemon, front


def read_disk(case, front):
    """One read through a virtqueue; the ring, the request and the buffer may all be missing."""
    ring = Ring(front.memory.shadow, RING)
    ring.read(SECTOR, REQUEST, DATA, READ, STATUS)
    if front.uffd is None:
        front.memory.place()
    front.start(ring)
    front.wait_used(ring)
    content = front.memory.content()
    check_equal(content[STATUS], 0, "status of the request")
    with open(guestmem.pattern_disk(case), "rb") as disk:
        disk.seek(SECTOR * 512)
        check(disk.read(READ) == content[DATA:DATA + READ], "another content than the disk's")
    base, _ = front.ask(GET_VRING_BASE, struct.pack("<II", 0, 0))
    check_equal(struct.unpack("<II", base), (0, 1), "ring, and requests taken from it")
    return {ring.desc, ring.avail, ring.used, REQUEST, STATUS, *range(DATA, DATA + READ, 4096)}


def storage_plain(case):
    """Without postcopy."""
    daemon, front = storage(case, COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    read_disk(case, front)
    codec_agrees(front, SET_MEM_TABLE, SET_VRING_KICK, GET_VRING_BASE, GET_CONFIG)
    daemon.child.check_running()


def served(case, dialect, *must_have):
    """With postcopy; @dialect tells of the memory."""
    daemon, front = storage(case, COMMON | P_PAGEFAULT)
    check(front.protocol & P_PAGEFAULT, "PAGEFAULT is not offered (no privilege for a full userfaultfd?)")
    front.advise()
    dialect(front)
    wanted = read_disk(case, front)
    check_equal(sorted(front.faults), sorted(wanted), "pages that faulted, each once")
    check_equal(front.ask_u64(POSTCOPY_END, ack=True), 0, "answer to END")
    daemon.child.check_running()
    codec_agrees(front, POSTCOPY_ADVISE, POSTCOPY_END, *must_have)


def storage_universal(case):
    """A plain table, registered from outside."""
    def dialect(front):
        check_equal(front.share_memory(), 0, "answer to the memory table")
        front.register()
    served(case, dialect, SET_MEM_TABLE)


def storage_slots(case):
    """A memory slot, registered from outside."""
    def dialect(front):
        slot = bytes(8) + front.memory.region()
        check_equal(front.ask_u64(ADD_MEM_REG, slot, [front.memory.fd], ack=True), 0, "answer to the slot")
        front.register()
    served(case, dialect, ADD_MEM_REG)


def storage_spec(case):
    """As the protocol's text has it; the address in libvhost-user's answer is the one that was sent."""
    def dialect(front):
        check_equal(front.ask_u64(POSTCOPY_LISTEN, ack=True), 0, "answer to LISTEN")
        base, true = front.exchange_bases(), front.memory.mappings(front.pid)[0][0]
        case.note(f"base {base:#x}, sent {USER_BASE:#x}, true {true:#x}")
        check(base in (USER_BASE, true), "an address from nowhere")
    served(case, dialect, POSTCOPY_LISTEN)


def testpmd_spec(case):
    """The exchange of addresses, with true ones."""
    if not os.access(TESTPMD, os.X_OK):
        raise Skip(f"no {TESTPMD} here (package dpdk-dev)")
    path = case.path("net")
    child = case.spawn("testpmd", [
        TESTPMD, "--no-huge", "--no-pci", "-m", "256", "-l", "0,1", f"--file-prefix=pc{os.getpid()}",
        "--vdev", f"net_vhost0,iface={path},queues=1,postcopy-support=1", "--", "-i", "--no-mlockall",
        "--total-num-mbufs=2048", "--auto-start"], stdin=subprocess.PIPE)
    wait_for("testpmd to listen", lambda: child.check_running() or os.path.exists(path))
    front = ServedFrontEnd(case, path, Memory(case, 4 * MIB))
    front.begin(P_MQ | P_PAGEFAULT)
    front.advise()
    check_equal(front.ask_u64(POSTCOPY_LISTEN, ack=True), 0, "answer to LISTEN")
    check_equal(front.exchange_bases(), front.memory.mappings(front.pid)[0][0], "the address in the answer")
    front.memory.place()
    check_equal(front.ask_u64(POSTCOPY_END, ack=True), 0, "answer to END")
    child.check_running()
    codec_agrees(front, POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END, SET_MEM_TABLE)


CASES = (
    ("qemu-storage-daemon: without postcopy", storage_plain),
    ("P09 P26 qemu-storage-daemon: a table, registered from outside", storage_universal),
    ("P15 qemu-storage-daemon: a slot, registered from outside", storage_slots),
    ("P14 P16 qemu-storage-daemon: the exchange of addresses", storage_spec),
    ("P14 P16 dpdk-testpmd: the exchange of addresses", testpmd_spec),
)

if __name__ == "__main__":
    if CHECKER is None:
        skip_all("tests/lib/vhostcheck is not built")
    main(CASES)
