# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified QEMUs: a source with the self-checking guest, and QEMU's own destination."""
import fcntl
import os

import guestmem
from harness import Deadline, Failure, Skip, check, check_equal, wait_for
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


class Vm:
    """One QEMU.  backend: memfd, hugetlb or private; share: of the memory backend."""

    def __init__(self, case, binary=SYSTEM_QEMU, name="source", mib=64, backend="memfd",
                 share=True, incoming=False, accel="tcg", extra=(), before=()):
        self.case = case
        self.mib = mib
        self.length = mib * MIB
        self.backend = backend
        self.share = share
        monitor = case.path(name + ".qmp")
        argv = [binary, *before, "-accel", accel, "-nodefaults", "-display", "none",
                "-machine", "pc" if backend == "private" else f"pc,memory-backend={RAM_BLOCK}",
                "-m", str(mib), *self._memory(),
                "-drive", f"file={guestmem.image(case, mib)},format=raw,if=ide,snapshot=on",
                "-qmp", f"unix:{monitor},server=on,wait=off", *extra]
        if incoming:
            argv += ["-incoming", "defer"]
        self.child = case.spawn(name, argv)
        self.qmp = Qmp(monitor, self.child)
        case.defer(self.qmp.close)
        self.qmp.command("migrate-set-capabilities",
                         capabilities=[{"capability": "events", "state": True}])
        self.ram = self._open_ram()
        self.version = "{major}.{minor}.{micro}".format(
            **self.qmp.command("query-version")["qemu"])

    def _memory(self):
        if self.backend == "private":
            return []
        text = (f"memory-backend-memfd,id={RAM_BLOCK},size={self.length},"
                f"share={'on' if self.share else 'off'}")
        if self.backend == "hugetlb":
            text += ",hugetlb=on,hugetlbsize=2M"
        return ["-object", text]

    def _open_ram(self):
        """The RAM's memfd, which stays readable after QEMU has gone; None if the content is private."""
        if self.backend == "private" or not self.share:
            return None
        folder = f"/proc/{self.child.pid}/fd"
        for entry in os.listdir(folder):
            path = f"{folder}/{entry}"
            if "memfd:memory-backend-memfd" in os.readlink(path):
                fd = os.open(path, os.O_RDONLY)
                self.case.defer(lambda: os.close(fd))
                return fd
        raise Failure("the RAM of QEMU is in none of its descriptors")

    # --- the guest ------------------------------------------------------------------------

    def guest(self):
        return guestmem.status(self.ram_now())

    def ram_now(self):
        """A descriptor of the RAM; a copy made through the monitor where it is private."""
        if self.ram is not None:
            return self.ram
        path = self.case.path(f"ram-{self.child.name}")
        self.qmp.command("pmemsave", val=0, size=self.length, filename=path, timeout=30)
        fd = os.open(path, os.O_RDONLY)
        self.case.defer(lambda: os.close(fd))
        os.unlink(path)
        return fd

    def wait_guest(self, rounds=1):
        """The guest has begun and made @rounds rounds more than it had."""
        def later():
            self.child.check_running()
            st = self.guest()
            return st if st and st.round >= target else None
        first = self.guest()
        target = (first.round if first else 0) + rounds
        return wait_for(f"round {target} of the guest", later, 40, 0.05)

    def guest_runs(self, timeout=10.0):
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
        self.qmp.command("migrate", uri=uri)
        if at_once:
            self.start_postcopy()

    def start_postcopy(self):
        self.qmp.command("migrate-start-postcopy")

    def info(self):
        return self.qmp.command("query-migrate")

    def migration_status(self):
        return self.info().get("status")

    def wait_migration(self, *wanted, timeout=40.0):
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
        failed = self._fails_in(3 if self.older_than(8, 2) else 20)
        if not failed:
            check(self.older_than(8, 2), f"the migration is {self.migration_status()}, not failed")
            check_equal(self.migration_status(), "active", "the migration that lost its connection")
            self.case.note("QEMU's own race: the migration stays active; the VM runs")
        wait_for("the source to run again", lambda: self.vm_status() == "running", 10)
        check(self.guest_runs(), "the source says running, but its guest stands still")
        self.wait_guest(rounds=2)
        check_equal(self.guest().errors, 0, "errors the guest found")
        return failed

    def _fails_in(self, timeout):
        try:
            self.wait_migration("failed", timeout=timeout)
            return True
        except Deadline:
            return False

    def older_than(self, major, minor):
        return tuple(map(int, self.version.split(".")[:2])) < (major, minor)

    def check_stopped(self, moment=0.5):
        """The guest stands still: two looks, @moment seconds apart, see the same."""
        check(not self.guest_runs(timeout=moment), "the guest runs, and it must not")

    def quit(self):
        self.qmp.command("quit")
        self.child.wait(10)
