#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified QEMU and qemu-storage-daemon under libpostcopy-preload.so.  (F06, F15, O14)

Whether a QEMU is served is asked of QEMU itself: its monitor's `xp` of a page that is not there makes
its main thread fault like any guest would.
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Failure, check, check_equal, main, skip_all, wait_for  # noqa: E402
from preload import LIBRARY, SETPRIV, asks, preloaded, served, vmas  # noqa: E402
from qmp import Qmp  # noqa: E402
from service import BLOCK, MIB, PAGE, PATIENT, Service, missing_programs  # noqa: E402
from stage import REGIONS, SIZE, Stage, check_reads, disk, some_reads, wait_rung  # noqa: E402
from vhostuser import FrontEnd, Ring  # noqa: E402
from vm import binaries  # noqa: E402

STORAGE_DAEMON = "/usr/bin/qemu-storage-daemon"
SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


class Machine:
    """A QEMU that waits for a migration, its RAM in the stage's file."""

    def __init__(self, stage, binary, *options, wrapper=(), role="sharer"):
        case = stage.case
        # Who has no privilege makes its sockets and files there.
        self.place = case.path("place")
        os.mkdir(self.place)
        os.chmod(self.place, 0o777)
        self.monitor = os.path.join(self.place, "qmp")
        self.child = case.spawn("qemu", preloaded(
            asks(stage.service, "qemu", role=role), *wrapper, binary, "-nodefaults", "-display", "none", "-accel", "tcg",
            "-object", f"memory-backend-file,id=pc.ram,size={SIZE},share=on,mem-path={stage.ram}",
            "-machine", "pc,memory-backend=pc.ram", "-m", str(SIZE // MIB), "-incoming", "defer", "-S",
            "-qmp", f"unix:{self.monitor},server=on,wait=off", "-pidfile", os.path.join(self.place, "pid"), *options))

    def connect(self, background=False):
        if background:
            check_equal(self.child.wait(), 0, "exit status of what went into the background")
            wait_for("its monitor", lambda: os.path.exists(self.monitor))
        qmp = Qmp(self.monitor, _Alive() if background else self.child)
        check_equal(qmp.command("query-status")["status"], "inmigrate", "status")
        return qmp

    def pid(self):
        """Of what is QEMU in the end, however it was started."""
        with open(os.path.join(self.place, "pid"), encoding="ascii") as file:
            return int(file.read())

    def page(self, qmp, address):
        """A page of guest memory as QEMU sees it."""
        text = qmp.command("human-monitor-command", command_line=f"xp /{PAGE // 8}xg {address}")
        words = re.findall(r" 0x([0-9a-f]{16})", text)
        return b"".join(int(word, 16).to_bytes(8, "little") for word in words)


class _Alive:
    name = "qemu in the background"

    def check_running(self):
        pass


def qemu_is_served(case, binary, *options, wrapper=(), background=False):
    stage = Stage(case, "qemu")
    machine = Machine(stage, binary, *options, wrapper=wrapper)
    qmp = machine.connect(background)
    pid = machine.pid()
    if background:
        case.defer(lambda: os.kill(pid, 9))
    wait_for("its hello alone", lambda: stage.pid_of("qemu") == [pid])
    stage.begin(*PATIENT)
    check(served(pid, stage.ram), f"its RAM is not registered: {vmas(pid, stage.ram)}")
    pages = [MIB, 3 * MIB + PAGE, SIZE - PAGE]
    seen = [machine.page(qmp, address) for address in pages]
    check_equal(seen, [bytes(stage.image[a:a + PAGE]) for a in pages], "pages as QEMU sees them")
    check_equal(stage.finish(), bytes(stage.image), "all of the memory")
    check(not any("um" in flags for *_, flags in vmas(pid, stage.ram)), "still registered at the end")
    check_equal(machine.child.lines(), [], "what was written to standard output")
    check_equal(stage.service.stats()["total"]["faults"] >= len(pages), True, "a fault for every page")


def plain(case, binary):
    qemu_is_served(case, binary)


def daemonized(case, binary):
    """Two forks: three hellos, of which one stays."""
    qemu_is_served(case, binary, "-daemonize", background=True)


def unprivileged(case, binary):
    """As nobody, started through a wrapper, with everything denied that its sandbox can deny."""
    with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii") as knob:
        check_equal(knob.read().strip(), "0", "vm.unprivileged_userfaultfd")
    qemu_is_served(case, binary, *SANDBOX, wrapper=SETPRIV)


def sandboxed(case, binary):
    qemu_is_served(case, binary, *SANDBOX)


def main_program(case, binary):
    """role=main: the hello is there for whoever speaks for it."""
    service = Service(case)
    stage = Stage.__new__(Stage)
    stage.case, stage.service, stage.ram = case, service, case.path("ram")
    machine = Machine(stage, binary, role="main")
    machine.connect()
    found = service.of("qemu")
    check_equal((found["pid"], found["main"]), (machine.child.pid, True), "the main sharer")


# --- a back-end ---------------------------------------------------------------------------------------

def storage_daemon(stage, path, *wrapper):
    """qemu-storage-daemon with that disk; the path of its vhost-user socket."""
    sock = stage.case.path("vhost")
    child = stage.case.spawn("storage", [*wrapper, STORAGE_DAEMON, "--blockdev",
                                         f"driver=file,node-name=f,read-only=on,filename={path}", "--export",
                                         f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={sock}"])

    def ready():
        child.check_running()
        return os.path.exists(sock)
    wait_for("the storage daemon's socket", ready)
    return child, sock


def backend(case):
    """Its mappings come with SET_MEM_TABLE, after LISTENING; ring and buffers are not there yet."""
    stage = Stage(case, "disk")
    path, content = disk(case)
    ring = Ring(stage.image)
    some_reads(case, ring)
    child, sock = storage_daemon(stage, path, *preloaded(asks(stage.service, "disk", maps="on")))
    wait_for("its hello", lambda: stage.pid_of("disk") == [child.pid])
    ram = os.open(stage.ram, os.O_RDWR)
    front = FrontEnd(sock, ram, REGIONS)
    case.defer(front.close)
    front.begin()
    stage.begin(*PATIENT)
    check_equal(vmas(child.pid, stage.ram), [], "mapped before it was told")
    check_equal(front.share_memory(), 0, "the back-end's verdict on the memory")
    check(served(child.pid, stage.ram), f"not registered: {vmas(child.pid, stage.ram)}")
    check(len(vmas(child.pid, stage.ram)) >= len(REGIONS), "one mapping for each region")
    front.start(ring)
    wait_rung(front)
    faults = stage.service.of("disk")
    check_reads(stage, ring, content)
    check_equal(faults["state"], "active", "the back-end")
    check(stage.service.stats()["total"]["faults"] >= 2 * len(ring.reads), "too few faults for what it did")


def backend_not_served(case):
    """The daemon is gone before the memory comes: the back-end maps none of it, and no page is made."""
    stage = Stage(case, "disk")
    path, _ = disk(case)
    child, sock = storage_daemon(stage, path, *preloaded(asks(stage.service, "disk", maps="on")))
    ram = os.open(stage.ram, os.O_RDWR)
    case.defer(lambda: os.close(ram))
    front = FrontEnd(sock, ram, REGIONS)
    case.defer(front.close)
    front.begin()
    stage.begin(*PATIENT)
    before = os.stat(stage.ram).st_blocks
    stage.service.child.kill()
    stage.service.child.wait()
    try:
        front.share_memory()            # what it answers, if it does, does not tell
    except Failure as failure:
        case.note(f"the back-end: {failure}")
    check_equal(vmas(child.pid, stage.ram), [], "what it maps of the memory")
    check_equal(os.stat(stage.ram).st_blocks, before, "blocks of the file")
    check("connection to postcopyd ended" in child.errors(), child.errors())


def backend_unpreloaded(case):
    """The same back-end without the preload, with the memory mapped: nothing is served beside it."""
    stage = Stage(case)
    path, _ = disk(case)
    child, sock = storage_daemon(stage, path)
    ram = os.open(stage.ram, os.O_RDWR)
    case.defer(lambda: os.close(ram))
    front = FrontEnd(sock, ram, REGIONS)
    front.begin()
    check_equal(front.share_memory(), 0, "the back-end's verdict on the memory")
    with open(stage.image_path, "wb") as image:
        image.write(stage.image)
    stage.source = stage.service.source(*PATIENT, blocks=[f"{BLOCK},size={SIZE},file={stage.image_path}"])
    text = stage.service.wait_blocker("stranger")
    check(str(child.pid) in text, f"the blocker says {text!r}")
    check(not stage.vm.has("listening"), "listening beside a stranger")
    front.close()
    child.stop()
    check_equal(stage.finish(), bytes(stage.image), "all of the memory")


def qemu_cases():
    kinds = [("plain", plain), ("-daemonize", daemonized), ("sandbox", sandboxed),
             ("F06 without privilege, in a sandbox", unprivileged), ("role=main", main_program)]
    for binary in binaries():
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[3]
        for name, run in kinds:
            yield f"preload: QEMU {version}: {name}", lambda case, run=run, binary=binary: run(case, binary)


CASES = [
    *qemu_cases(),
    ("F15 preload: a storage daemon is given missing memory late", backend),
    ("preload: a storage daemon whose daemon is gone gets no memory", backend_not_served),
    ("O14 preload: a storage daemon without it stops everything", backend_unpreloaded),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all("not built: make check builds it")
    if not LIBRARY:
        skip_all("no shared library was built")
    if not os.access(STORAGE_DAEMON, os.X_OK):
        skip_all(f"no {STORAGE_DAEMON}")
    main(CASES)
