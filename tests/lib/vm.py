# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified QEMUs: a source with the self-checking guest, and QEMU's own destination."""
import fcntl
import os
import re
import signal
import subprocess
import tempfile

import guestmem
from harness import PATIENCE, Deadline, Failure, Skip, check, check_equal, wait_for
from machine import Machine
from qmp import Qmp

SYSTEM_QEMU = "/usr/bin/qemu-system-x86_64"
HUGE_POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
NR_HUGEPAGES = HUGE_POOL + "/nr_hugepages"
HUGE = 2 << 20
MIB = 1 << 20
#: Far below what the guest dirties, so that precopy alone never converges.
NEVER_CONVERGE = {"max_bandwidth": 100 * MIB, "downtime_limit": 1}
RAM_BLOCK = "pc.ram"


def binaries():
    """Every QEMU to test with: the system's and those of POSTCOPY_QEMU (colon-separated)."""
    extra = [p for p in os.environ.get("POSTCOPY_QEMU", "").split(":") if p]
    for path in extra:
        if not os.access(path, os.X_OK):
            raise SystemExit(f"POSTCOPY_QEMU names {path}, which cannot be run")
    system = [SYSTEM_QEMU] if os.access(SYSTEM_QEMU, os.X_OK) else []
    return list(dict.fromkeys(system + extra))


def version_of(binary):
    """(major, minor)"""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"version (\d+)\.(\d+)", text).groups()))


def machines_of(binary):
    """The names of the machines it can be, with their versions."""
    text = subprocess.run([binary, "-machine", "help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^(\S+-\d+\.\d+) ", text, re.M))


def change_hugepages(delta):
    """Make the pool larger or smaller, by the lock and the rules of tests/lib/hugepages.c."""
    lock = os.open(HUGE_POOL, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(NR_HUGEPAGES) as f:
            before = int(f.read())
        with open(NR_HUGEPAGES, "w") as f:
            f.write(str(max(before + delta, 0)))
        with open(NR_HUGEPAGES) as f:
            after = int(f.read())
        if after < before + delta:
            with open(NR_HUGEPAGES, "w") as f:
                f.write(str(before))
            raise Skip(f"only {after - before} of {delta} huge pages to be had")
    finally:
        os.close(lock)


def reserve_hugepages(case, pages):
    """@pages more 2 MiB pages for the time of the case; other tests borrow theirs beside us."""
    try:
        change_hugepages(pages)
    except OSError as error:
        raise Skip(f"cannot set nr_hugepages: {error}") from None
    case.defer(lambda: change_hugepages(-pages))


class Detached:
    """A QEMU that is nobody's child any more; like a harness.Child as far as it is asked."""

    def __init__(self, case, child, pid):
        self.case = case
        self.name = child.name
        self.errors = child.errors
        self.pid = pid
        case.defer(self.kill)

    def running(self):
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    def check_running(self):
        check(self.running(), f"{self.name} (process {self.pid}) ended")

    def kill(self, sig=signal.SIGKILL):
        if self.running():
            os.kill(self.pid, sig)

    def wait(self, timeout=PATIENCE):
        """Its status is nobody's to know."""
        wait_for(f"{self.name} to end", lambda: not self.running(), timeout)


class Vm:
    """One QEMU.  backend: where its RAM is: memfd, file, hugetlb (a memfd), numa (two nodes in files) or
    private; share: of the memory backend.  @before: arguments in front; @wrapper: a program that becomes it.
    """

    def __init__(self, case, binary=SYSTEM_QEMU, name="source", mib=64, backend="memfd",
                 share=True, incoming=False, accel="tcg", extra=(), before=(), machine=None,
                 storage=None, env=None, wrapper=(), ram_dir="/dev/shm", ram_file=None,
                 backend_options=""):
        """@ram_file: {block: path} of files that are there already, with what is in them."""
        self.case = case
        self.binary = binary
        self.machine = machine or Machine(mib)
        self.mib = self.machine.mib
        self.length = self.mib * MIB
        self.backend = backend
        self.share = share
        self.files = dict(ram_file or {})           # block -> the file with its RAM
        self._ram_dir = ram_dir
        self._backend_options = backend_options
        monitor = case.path(name + ".qmp")
        self.spare_monitor = case.path(name + ".spare")     # for another client than us
        argv = [*wrapper, binary, *before, "-accel", accel, "-nodefaults", "-display", "none",
                "-machine", self._machine(), *self._memory(), *self.machine.arguments(case, storage),
                "-qmp", f"unix:{monitor},server=on,wait=off",
                "-qmp", f"unix:{self.spare_monitor},server=on,wait=off", *extra]
        if incoming:
            argv += ["-incoming", "defer"]
        self.child = case.spawn(name, argv, env=env)
        if "-daemonize" in extra:
            check_equal(self.child.wait(), 0, "status of QEMU on its way to be a daemon")
            with open(extra[extra.index("-pidfile") + 1], encoding="ascii") as f:
                self.child = Detached(case, self.child, int(f.read()))
        self.pid = self.child.pid
        self.qmp = Qmp(monitor, self.child)
        case.defer(self.qmp.close)
        self.qmp.command("migrate-set-capabilities",
                         capabilities=[{"capability": "events", "state": True}])
        self.parts = self._open_ram()   # [(block, descriptor, length)], as they lie in the guest
        self.ram = self.parts[0][1] if len(self.parts) == 1 else None
        self.version = "{major}.{minor}.{micro}".format(
            **self.qmp.command("query-version")["qemu"])

    def _machine(self):
        named = f",memory-backend={RAM_BLOCK}"
        return self.machine.type + (named if self.backend not in ("private", "numa") else "")

    def _memory(self):
        if self.backend == "private":
            return []
        if self.backend == "numa":
            half = self.length // 2
            nodes = [["-object", self._object(f"m{node}", half), "-numa", f"node,memdev=m{node}"]
                     for node in (0, 1)]
            return nodes[0] + nodes[1]
        return ["-object", self._object(RAM_BLOCK, self.length)]

    def _object(self, block, size):
        common = (f"id={block},size={size},share={'on' if self.share else 'off'}"
                  + self._backend_options)
        if self.backend == "memfd":
            return "memory-backend-memfd," + common
        if self.backend == "hugetlb":
            return f"memory-backend-memfd,{common},hugetlb=on,hugetlbsize=2M"
        if block not in self.files:
            self._make_file(block)
        return f"memory-backend-file,{common},mem-path={self.files[block]}"

    def _make_file(self, block):
        with tempfile.NamedTemporaryFile(prefix="pc-ram-", dir=self._ram_dir, delete=False) as f:
            os.fchmod(f.fileno(), 0o666)        # it may run as somebody else
            self.files[block] = f.name
        self.case.defer(lambda: os.unlink(self.files[block]))

    def _open_ram(self):
        """The RAM's files, which stay readable after QEMU has gone; none if the content is private."""
        if self.backend == "private" or not self.share:
            return []
        if self.files:
            size = self.length // len(self.files)
            return [(block, self._open(path), size) for block, path in self.files.items()]
        folder = f"/proc/{self.pid}/fd"
        for entry in os.listdir(folder):
            path = f"{folder}/{entry}"
            if "memfd:memory-backend-memfd" in os.readlink(path):
                return [(RAM_BLOCK, self._open(path), self.length)]
        raise Failure("the RAM of QEMU is in none of its descriptors")

    def _open(self, path):
        fd = os.open(path, os.O_RDONLY)
        self.case.defer(lambda: os.close(fd))
        return fd

    # --- the guest ------------------------------------------------------------------------

    def guest(self):
        return self.machine.the_guest().status(self)

    def disk(self):
        """What the guest says of its disk."""
        return self.machine.the_guest().disk_status(self)

    def low_ram(self):
        """Where the guest's own words are."""
        return self.parts[0][1] if self.parts else self.ram_now()

    def ram_now(self):
        """A descriptor of the RAM; a copy where it is private or in more than one file."""
        if self.ram is not None:
            return self.ram
        if self.parts:
            return self._joined()
        path = self._saved(0, self.length)
        fd = os.open(path, os.O_RDONLY)
        self.case.defer(lambda: os.close(fd))
        os.unlink(path)
        return fd

    def _saved(self, at, length):
        path = self.case.path(f"saved-{self.child.name}")
        self.qmp.command("pmemsave", val=at, size=length, filename=path)
        return path

    def physical(self, at, length):
        """What the guest would read there."""
        with open(self._saved(at, length), "rb") as f:
            return f.read()

    def _joined(self):
        copy = os.memfd_create("joined")
        self.case.defer(lambda: os.close(copy))
        at = 0
        for _block, fd, length in self.parts:
            for offset in range(0, length, guestmem.CHUNK):
                os.pwrite(copy, os.pread(fd, guestmem.CHUNK, offset), at + offset)
            at += length
        return copy

    def wait_guest(self, rounds=1):
        """The guest has begun and made @rounds rounds more than it had."""
        def later():
            self.child.check_running()
            st = self.guest()
            return st if st and st.round >= target else None
        first = self.guest()
        target = (first.round if first else 0) + rounds
        return wait_for(f"round {target} of the guest", later, interval=0.05)

    def wait_reads(self, count):
        """The guest reads its disk @count times more, and finds nothing wrong with it nor with its buffers."""
        before = wait_for("the first read", self.disk).reads
        wait_for(f"{count} more reads", lambda: self.disk().reads >= before + count)
        check_equal(self.disk().errors, 0, f"errors of the disk ({self.disk()})")

    def guest_runs(self, timeout=PATIENCE):
        """The guest makes progress (True), or does not within @timeout."""
        before = self.guest()
        def later():
            now = self.guest()
            return now and (before is None or now.beat != before.beat)
        try:
            wait_for("the guest's heart to beat", later, timeout, 0.02)
            return True
        except Failure:
            return False

    def vm_status(self):
        return self.qmp.command("query-status")["status"]

    # --- migration ------------------------------------------------------------------------

    def set_capabilities(self, *names):
        self.qmp.command("migrate-set-capabilities",
                         capabilities=[{"capability": n, "state": True} for n in names])

    def set_parameters(self, **parameters):
        self.qmp.command("migrate-set-parameters", **parameters)

    def migrate(self, uri, at_once=False):
        """The VM stands still until QEMU has begun to note what is written.  Under TCG a page that is written at
        just that moment can go unnoticed for as long as its translation is in use, and its content of then is what
        the destination gets: with every destination (7.2, 11.1), and nothing that these tests are about.
        """
        runs = not at_once and self.vm_status() == "running"
        if runs:
            self.qmp.command("stop")
        self.qmp.command("migrate", uri=uri)
        if at_once:
            self.start_postcopy()
        if runs:
            wait_for("the migration to be set up", lambda: self.migration_status() not in (None, "none", "setup"))
            self.qmp.command("cont")

    def start_postcopy(self):
        self.qmp.command("migrate-start-postcopy")

    def info(self):
        return self.qmp.command("query-migrate")

    def migration_status(self):
        return self.info().get("status")

    def wait_migration(self, *wanted, timeout=PATIENCE):
        """The migration reaches one of the wanted states; ending in another final one fails."""
        def reached():
            self.child.check_running()
            info = self.info()
            status = info.get("status")
            if status in wanted:
                return info
            check(status not in ("completed", "failed", "cancelled"),
                  f"{self.child.name}: migration {status} ({info.get('error-desc')}), "
                  f"not {' or '.join(wanted)}; went through {self.qmp.statuses()}")
            return None
        try:
            return wait_for(f"{self.child.name}'s migration to be {' or '.join(wanted)}",
                            reached, timeout, 0.02)
        except Deadline as failure:
            raise Deadline(f"{failure}; it is {self.migration_status()}, "
                          f"the VM {self.vm_status()}") from None

    def incoming(self, uri):
        self.qmp.command("migrate-incoming", uri=uri)

    def check_resumed(self):
        """The VM runs here, as if nobody had tried to move it.  Returns False when the source cannot
        migrate again: before 8.2 QEMU can lose a race with its own return path thread when
        the connection ends in precopy, and then says `active` for ever while its VM runs on.
        """
        status = self._fails_in(3 if self.older_than(8, 2) else PATIENCE)
        if status != "failed":
            check(self.older_than(8, 2), f"the migration is {status}, not failed")
            check_equal(status, "active", "the migration that lost its connection")
            self.case.note("QEMU's own race: the migration stays active; the VM runs")
        wait_for("the source to run again", lambda: self.vm_status() == "running")
        check(self.guest_runs(), "the source says running, but its guest stands still")
        self.wait_guest(rounds=2)
        check_equal(self.guest().errors, 0, "errors the guest found")
        return status == "failed"

    def _fails_in(self, timeout):
        """What the migration is then; earlier only if it failed."""
        try:
            return self.wait_migration("failed", timeout=timeout)["status"]
        except Deadline:
            return self.migration_status()

    def older_than(self, major, minor):
        return tuple(map(int, self.version.split(".")[:2])) < (major, minor)

    def check_stopped(self, moment=0.5):
        """The guest stands still: two looks, @moment seconds apart, see the same."""
        check(not self.guest_runs(timeout=moment), "the guest runs, and it must not")

    def quit(self):
        self.qmp.command("quit")
        self.child.wait(10)
