#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-source into an unmodified QEMU (qemu-wire 16).

One QEMU gives its device state and its ROMs to the reference receiver; a second one, started alike,
gets them from postcopy-source, with a pattern for its RAM.  The guest never runs, so the RAM can be
compared: it is read while most of it is still owed, which makes QEMU ask for it.
"""
import ctypes
import functools
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "flow")]
import vm  # noqa: E402
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from qmp import Qmp, QmpError  # noqa: E402
from relay import S2D, Relay  # noqa: E402
from source_content import PAGE, content  # noqa: E402
from source_receiver import Receiver  # noqa: E402

SOURCE = built("postcopy-source")
MIB = 32
POSTCOPY = ("postcopy-ram",)
PREEMPT = ("postcopy-ram", "postcopy-preempt")
SEED = 77
CUTS = 3


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def memory_of(pid, address, length):
    buffer = ctypes.create_string_buffer(length)
    here, there = Iovec(ctypes.addressof(buffer), length), Iovec(address, length)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    got = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    check_equal(got, length, "bytes read from QEMU's memory (errno %d)" % ctypes.get_errno())
    return buffer.raw


class Qemu:
    """A QEMU whose guest does not run."""

    def __init__(self, case, binary, name, *extra, huge=False):
        monitor = case.path(name + ".qmp")
        memory = ["-machine", "pc"]
        if huge:
            memory = ["-machine", "pc,memory-backend=pc.ram", "-object",
                      "memory-backend-memfd,id=pc.ram,size=%dM,hugetlb=on,hugetlbsize=2M" % MIB]
        self.child = case.spawn(name, [binary, "-accel", "tcg", "-nodefaults", "-display", "none", "-S",
                                       "-m", str(MIB), *memory, "-qmp", "unix:%s,server=on,wait=off" % monitor,
                                       *extra])
        self.qmp = Qmp(monitor, self.child)
        case.defer(self.qmp.close)

    def capable(self, *names):
        self.qmp.command("migrate-set-capabilities",
                         capabilities=[{"capability": name, "state": True} for name in ("events",) + names])

    def status(self):
        return self.qmp.command("query-migrate").get("status")


class Snapshot:
    """What a QEMU that was never started has: device state, machine name, blocks."""

    def __init__(self, case, binary):
        qemu = Qemu(case, binary, "donor")
        qemu.capable("postcopy-ram")
        qemu.qmp.command("migrate-set-parameters", max_bandwidth=1 << 14)     # slower than the next command
        receiver = Receiver("unix")
        case.defer(receiver.close)
        qemu.qmp.command("migrate", uri=receiver.address)
        qemu.qmp.command("migrate-start-postcopy")
        receiver.run(PATIENCE)
        check_equal(receiver.error, None, "reference receiver")
        wait_for("the donor to complete", lambda: qemu.status() == "completed")
        qemu.child.stop()
        self.machine = receiver.machine
        self.device = case.path("device")
        with open(self.device, "wb") as f:
            f.write(receiver.device)
        self.blocks = [self.option(case, block) for block in receiver.blocks.values() if block.name != "pc.ram"]

    @staticmethod
    def option(case, block):
        path = case.path(block.name.replace("/", "_"))
        with open(path, "wb") as f:
            for page in range(block.length // PAGE):
                f.write(block.data[page])
        return "%s,size=%d,file=%s" % (block.name, block.length, path)


class Into:
    """postcopy-source and the QEMU it feeds."""

    def __init__(self, case, binary, *options, huge=False, capabilities=POSTCOPY, through=None):
        """@through: makes the address to connect to of that of QEMU."""
        snapshot = Snapshot(case, binary)
        if huge:
            vm.reserve_hugepages(case, MIB // 2)
        self.case = case
        #: low memory and what is above 1 MiB; in between are ROMs
        self.ranges = ((0, 640 << 10), (1 << 20, (MIB - 1) << 20))
        self.zero = 25
        self.page = 2 << 20 if huge else PAGE
        self.qemu = Qemu(case, binary, "destination", "-incoming", "defer", huge=huge)
        self.qemu.capable(*capabilities)
        path = case.path("socket")
        self.qemu.qmp.command("migrate-incoming", uri="unix:" + path)
        blocks = ["pc.ram,size=%dM,page=%d,zero=%d" % (MIB, self.page, self.zero)] + snapshot.blocks
        self.source = case.spawn("postcopy-source", [
            SOURCE, "--to", through("unix:" + path) if through else "unix:" + path, "--json", "--seed", str(SEED), "--machine", snapshot.machine,
            "--device-state", snapshot.device, *[a for block in blocks for a in ("--block", block)], *options])

    def read_ram(self):
        self.files = []
        for start, length in self.ranges:
            path = self.case.path("ram-%x" % start)
            self.qemu.qmp.command("pmemsave", val=start, size=length, filename=path)
            self.files.append((start, path))

    def read_ram_beside(self):
        """The same from outside of the process: the kernel touches the pages for us, as a device would do it."""
        blocks = self.qemu.qmp.command("human-monitor-command", **{"command-line": "info ramblock"})
        address = int(re.search(r"^ *pc\.ram .* (0x[0-9a-f]+)", blocks, re.M)[1], 16)
        self.files = []
        for start, length in self.ranges:
            path = self.case.path("ram-%x" % start)
            with open(path, "wb") as f:
                f.write(memory_of(self.qemu.child.pid, address + start, length))
            self.files.append((start, path))

    def check_ram(self):
        wrong = []
        for start, path in self.files:
            with open(path, "rb") as f:
                data = f.read()
            wrong += [start + at for at in range(0, len(data), PAGE)
                      if data[at:at + PAGE] != content(SEED, "pc.ram", (start + at) // PAGE, self.page, self.zero)]
        check_equal(wrong, [], "pages of pc.ram that differ")

    def finish(self):
        check_equal(self.source.wait(), 0, "exit status of postcopy-source")
        out = json.loads(self.source.lines()[-1])
        check_equal(out["outcome"], "completed", "outcome")
        wait_for("the destination to complete", lambda: self.qemu.status() == "completed")
        return out


def on_demand(case, binary, urgent=None, huge=False):
    """The RAM is read page by page while nothing is pushed: QEMU asks for every page."""
    options = ["--no-background", "--linger", "1000"] + ([urgent] if urgent else [])
    into = Into(case, binary, *options, huge=huge, capabilities=PREEMPT if urgent else POSTCOPY)
    wait_for("postcopy", lambda: into.qemu.status() == "postcopy-active")
    try:
        into.read_ram()
    except QmpError:                # 11.1 keeps the monitor out of memory that is still incoming
        into.read_ram_beside()
    into.check_ram()
    out = into.finish()
    into.read_ram()
    into.check_ram()
    check(out["requested"] > 0, "nothing was asked for")
    if urgent:
        check_equal(out["urgent_pages"], out["requested"], "pages over the urgent connection")


def pushed(case, binary, options):
    into = Into(case, binary, *options)
    into.finish()
    into.read_ram()
    into.check_ram()


def refused(case, binary):
    """A wrong record before the package: QEMU ends, and the source keeps its VM."""
    into = Into(case, binary, "--fault", "unknown-command", "--fault", "delay=1000@record:package")
    check_equal(into.source.wait(), 1, "exit status of postcopy-source")
    check_equal(json.loads(into.source.lines()[-1])["outcome"], "source-resumes", "outcome")


class Way:
    """Between the two, through a relay that loses the connection."""

    def __init__(self, case):
        self.case = case
        self.relay = None

    def __call__(self, target):
        self.relay = Relay(self.case, "unix:" + self.case.path("relay"), target)
        return self.relay.uri

    def carried(self):
        return sum(c.directions[S2D].forwarded for c in self.relay.connections)

    def cut_at(self, position, qemu, target):
        """Who comes back finds nobody until QEMU listens at @target.  Its old address would not do: with a preempt
        channel 7.2 goes on listening there, takes what comes while it is about to pause, and ends with SIGSEGV.
        """
        wait_for("%d bytes to pass" % position, lambda: self.carried() >= position)
        self.relay.target = target
        self.relay.cut()
        wait_for("QEMU to pause", lambda: qemu.status() == "postcopy-paused")


def recovered(case, binary, urgent=None, huge=False):
    """The connection is lost at random moments; each time QEMU listens at a new address."""
    way = Way(case)
    into = Into(case, binary, "--reconnect", "--rate", "8M", *([urgent] if urgent else []), huge=huge,
                capabilities=PREEMPT if urgent else POSTCOPY, through=way)
    wait_for("postcopy", lambda: into.qemu.status() == "postcopy-active")
    for cut in range(CUTS):
        target = "unix:" + case.path("recover-%d" % cut)
        way.cut_at(way.carried() + case.random.randrange(4 << 20), into.qemu, target)
        into.qemu.qmp.command("migrate-recover", uri=target)
        wait_for("QEMU to go on", lambda: into.qemu.status() == "postcopy-active")
    out = into.finish()
    into.read_ram()
    into.check_ram()
    check_equal(out["reconnects"], CUTS, "reconnections")
    check_equal(out["violations"], 0, "violations")
    case.note("%d pages left again" % out["resent"])


def cases():
    partial = functools.partial
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        # With a machine type up to 7.2, QEMU wants the urgent connection at once, and its EOS.
        urgent = "--old-preempt" if binary == vm.SYSTEM_QEMU else "--preempt"
        yield f"{label}: on demand", partial(on_demand, binary=binary)
        yield f"{label}: on demand, {urgent}", partial(on_demand, binary=binary, urgent=urgent)
        yield f"{label}: on demand, 2 MiB pages, {urgent}", partial(
            on_demand, binary=binary, urgent=urgent, huge=True)
        for options in (["--precopy", "none"], ["--precopy", "half"], ["--precopy", "all"],
                        ["--continue-flag", "off"], ["--finish-as-precopy"]):
            yield f"{label}: pushed, {' '.join(options)}", partial(pushed, binary=binary, options=options)
        yield f"{label}: recovered", partial(recovered, binary=binary)
        yield f"{label}: recovered, {urgent}", partial(recovered, binary=binary, urgent=urgent)
        yield f"{label}: recovered, 2 MiB pages, {urgent}", partial(recovered, binary=binary, urgent=urgent, huge=True)
        yield f"{label}: refused", partial(refused, binary=binary)


if __name__ == "__main__":
    if not vm.binaries():
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    if not SOURCE:
        skip_all("postcopy-source is not built")
    main(list(cases()))
