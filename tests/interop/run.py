#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The two commands of the manual: postcopy-run here, migrate there, with real QEMUs at both ends.  (F56)

What postcopy-run does when one of its children ends is tested with scripts in their places, in flow/check-run.py.
"""
import functools
import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
import vm
from harness import PATIENCE, built, check, check_equal, main, skip_all, wait_for
from served import PRELOAD
from vm import NEVER_CONVERGE, Vm

NEEDED = ("postcopyd", "postcopy-run", "postcopyctl")


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return [int(word) for word in children.read().split()]


class Run:
    """postcopy-run with its QEMU, which is a vm.Vm that it stands in front of."""

    def __init__(self, case, binary, *options, **machine):
        self.case = case
        self.dir = case.path("run")
        words = [built("postcopy-run"), "--preload", built(PRELOAD), "--postcopyd", built("postcopyd"), "--run-dir",
                 self.dir, "--incoming", "tcp:127.0.0.1:0", *options, "--"]
        self.vm = Vm(case, binary, name="destination", wrapper=words, **machine)
        self.child = self.vm.child
        case.defer(self._end_program)       # postcopy-run may be killed, and leaves it alone
        self.wait_said("migrate -d ")
        self.uri = re.search(r"migrate -d (\S+)", self.child.errors())[1]

    def _end_program(self):
        if self.child.running():
            for pid in children_of(self.child.pid):
                os.kill(pid, signal.SIGKILL)

    def wait_said(self, text, timeout=PATIENCE):
        wait_for(f"postcopy-run to say {text!r}", lambda: text in self.child.errors(), timeout)


def source(case, binary, **machine):
    there = Vm(case, binary, **machine)
    there.wait_guest(rounds=1)
    there.set_capabilities("postcopy-ram", "postcopy-preempt")
    there.set_parameters(**NEVER_CONVERGE)
    return there


def moves(case, binary, backend):
    there = source(case, binary, backend=backend)
    run = Run(case, binary, backend=backend)
    there.migrate(run.uri)
    there.wait_migration("active")
    there.start_postcopy()
    run.wait_said("all memory is here")
    there.wait_migration("completed")
    check(run.vm.guest_runs(), "the guest stands still")
    run.vm.wait_guest(rounds=2)
    check_equal(run.vm.guest().errors, 0, "errors the guest found")
    run.vm.qmp.command("stop")
    guestmem.verify(run.vm.ram_now())
    run.vm.qmp.command("quit")
    check_equal(run.child.wait(), 0, "status of postcopy-run")
    check_equal(os.listdir(run.dir), [], "what is left in the directory")


def refused(case, binary):
    """Another amount of memory: the source goes on, and the QEMU here is ended before it was given anything."""
    there = source(case, binary, mib=64, backend="private")
    run = Run(case, binary, mib=32, backend="private")
    there.migrate(run.uri)
    check_equal(run.child.wait(), 1, "status of postcopy-run")
    check("block pc.ram has 67108864 bytes at the source and 33554432 here" in run.child.errors(), run.child.errors())
    check("no VM runs here" in run.child.errors(), run.child.errors())
    there.check_resumed()


def cases():
    for binary in vm.binaries():
        label = os.path.basename(binary) if binary == vm.SYSTEM_QEMU else binary
        for backend in ("file", "private"):
            yield f"{label}: {backend}", functools.partial(moves, binary=binary, backend=backend)
        yield f"{label}: refused", functools.partial(refused, binary=binary)


if __name__ == "__main__":
    missing = [name for name in NEEDED if not built(name)] + ([] if built(PRELOAD) else [PRELOAD])
    if missing or not vm.binaries():
        skip_all("not there: " + ", ".join(missing or [vm.SYSTEM_QEMU]))
    main(list(cases()))
