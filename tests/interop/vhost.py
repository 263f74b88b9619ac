#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified vhost-user back-ends behind postcopyd: qemu-storage-daemon and dpdk-testpmd serve virtqueues whose
rings, requests and buffers are still elsewhere, each and together.  (P15, P16, P18, P26, F15, F17, F20, F21)
"""
import functools
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import Skip, check, check_equal, main, skip_all, wait_for
from interposed import Interposed
from machine import STORAGE_DAEMON
from netring import NetTraffic
from preload import served
from scripted import SECTORS, Traffic, same
from service import MIB, PATIENT, missing_programs
from vhost_front import P_CONFIG, P_MQ
from vhostuser import SECTOR
from vm import HUGE, reserve_hugepages

TESTPMD = "/usr/bin/dpdk-testpmd"
SIZE = 8 * MIB
DISK_AT, NET_AT = 0, 4 * MIB
COMMON = P_MQ | P_CONFIG


class Storage:
    """A qemu-storage-daemon with a disk that can be written."""

    def __init__(self, case, queues=1):
        if not os.access(STORAGE_DAEMON, os.X_OK):
            raise Skip(f"no {STORAGE_DAEMON} here (package qemu-system-common)")
        self._case, self.path, self._disk = case, case.path("storage.vhost"), case.path("storage.raw")
        with open(self._disk, "wb") as disk:
            disk.write(case.random.randbytes(SECTORS * SECTOR))
        self._argv = [STORAGE_DAEMON, "--blockdev", f"driver=file,node-name=f,filename={self._disk}", "--export",
                      f"type=vhost-user-blk,id=e,node-name=f,writable=on,num-queues={queues},"
                      f"addr.type=unix,addr.path={self.path}"]
        self.start("storage")

    def start(self, name):
        self.child = self._case.spawn(name, self._argv)
        wait_for("the storage daemon to listen", lambda: self.child.check_running() or os.path.exists(self.path))

    def start_again(self):
        self.child.kill(signal.SIGKILL)
        self.child.wait()
        os.unlink(self.path)
        self.start("storage-again")

    def disk(self, sector, length):
        with open(self._disk, "rb") as disk:
            disk.seek(sector * SECTOR)
            return disk.read(length)


class Testpmd:
    """@mode: "io" sends back what it receives, "txonly" makes frames of its own."""

    def __init__(self, case, mode):
        if not os.access(TESTPMD, os.X_OK):
            raise Skip(f"no {TESTPMD} here (package dpdk-dev)")
        self.path = case.path("net.vhost")
        self.child = case.spawn("testpmd", [
            TESTPMD, "--no-huge", "--no-pci", "-m", "256", "-l", "0,1", f"--file-prefix=pc{os.getpid()}",
            "--vdev", f"net_vhost0,iface={self.path},queues=1,postcopy-support=1", "--", "-i", "--no-mlockall",
            "--total-num-mbufs=2048", "--auto-start", f"--forward-mode={mode}"], stdin=subprocess.PIPE)
        wait_for("testpmd to listen", lambda: self.child.check_running() or os.path.exists(self.path))


def run(front, traffic):
    check_equal(front.share_memory(), 0, "answer to the memory table")
    for number, ring in enumerate(traffic.rings):
        front.start(ring, number)


def finish(stage, backs, traffics):
    """All is done, all of the memory is right, and nobody was harmed."""
    for traffic in traffics.values():
        wait_for("the devices to be done", lambda traffic=traffic: traffic.done(stage.memory))
    faults = {name: stage.faults(name) for name in backs}
    stage.case.note(f"faults: {faults}")
    for name, traffic in traffics.items():
        check(faults[name] >= len(traffic.pages()), f"{name} needs {len(traffic.pages())} pages: {faults}")
    content = stage.finish()
    wanted = bytearray(stage.image)
    for name, traffic in traffics.items():
        if name == "disk":
            traffic.apply(wanted, content, backs[name])
        else:
            traffic.apply(wanted, content)
    same(content, wanted)
    stage.check_healthy()
    for name, back in backs.items():
        back.child.check_running()
        wait_for(f"{name} to be released", lambda back=back: not served(back.child.pid, stage.vm.path()))


def storage(case, option="", queues=1, regions=None):
    back = Storage(case, queues)
    stage = Interposed(case, {"disk": back.path}, {"disk": option}, size=SIZE)
    traffic = Traffic(case, stage.image, queues)
    stage.begin(*PATIENT)
    run(stage.front(also=COMMON, regions=regions), traffic)
    finish(stage, {"disk": back}, {"disk": traffic})


def network(case, mode, option=""):
    back = Testpmd(case, mode)
    stage = Interposed(case, {"net": back.path}, {"net": option}, size=SIZE)
    traffic = NetTraffic(case, stage.image, NET_AT, mode == "io")
    stage.begin(*PATIENT)
    run(stage.front("net", also=P_MQ), traffic)
    finish(stage, {"net": back}, {"net": traffic})


def both(case):
    """Two back-ends and the VMM share one memory."""
    backs = {"disk": Storage(case), "net": Testpmd(case, "io")}
    stage = Interposed(case, {name: back.path for name, back in backs.items()}, size=SIZE)
    traffics = {"disk": Traffic(case, stage.image), "net": NetTraffic(case, stage.image, NET_AT, True)}
    fronts = {name: stage.front(name, also=P_MQ) for name in backs}
    stage.begin(*PATIENT)
    for name, front in fronts.items():
        run(front, traffics[name])
    finish(stage, backs, traffics)


def huge(case):
    """Pages of 2 MiB: a fault anywhere in one brings and wakes all of it."""
    reserve_hugepages(case, SIZE // HUGE)
    back = Storage(case)
    stage = Interposed(case, {"disk": back.path}, size=SIZE, memory="memfd=create,hugetlb=on", page="2M")
    traffic = Traffic(case, stage.image)
    stage.begin(*PATIENT)
    run(stage.front(also=COMMON), traffic)
    wait_for("the device to be done", lambda: traffic.done(stage.memory))
    check(stage.faults() > 0, "no fault of it")
    traffic.check(stage.finish(), back)
    stage.check_healthy()


def killed(case):
    """Killed with SIGKILL while it waits, and started again: the VMM connects again and tells it all."""
    back = Storage(case)
    stage = Interposed(case, {"disk": back.path}, size=SIZE)
    traffic = Traffic(case, stage.image)
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    stage.pause()
    front.hand_over(traffic.rings[0])
    stage.service.wait_waiting("disk", 1)
    back.start_again()
    front.check_ended()
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    stage.resume()
    front.start(traffic.rings[0])
    finish(stage, {"disk": back}, {"disk": traffic})


SPEC = ",dialect=spec"
CASES = (
    ("P15 P26 storage daemon", storage),
    ("P16 storage daemon, the text's dialect", functools.partial(storage, option=SPEC)),
    ("P25 storage daemon, four queues", functools.partial(storage, queues=4)),
    ("storage daemon, the memory of a PC", functools.partial(storage, regions=[(0, 0xA0000), (0xC0000, SIZE - 0xC0000)])),
    ("F20 storage daemon, 2 MiB pages", huge),
    ("F15 F17 storage daemon, killed while it waits", killed),
    ("P15 P26 testpmd sends back", functools.partial(network, mode="io")),
    ("P16 testpmd sends back, the text's dialect", functools.partial(network, mode="io", option=SPEC)),
    ("P15 P26 testpmd sends", functools.partial(network, mode="txonly")),
    ("P18 both on one memory", both),
)

if __name__ == "__main__":
    if missing_programs():
        skip_all("not built: make check builds it")
    main(CASES)
