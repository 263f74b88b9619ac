#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""--qemu with monitors that say the wrong thing: what is waited out, what is refused, and that it says why.  (F65)

What goes well, and every way to lose a real QEMU, is in tests/interop.
"""
import json
import os
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import Service, missing_programs  # noqa: E402

FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "fake_qemu.py")
LIBRARY = built(".libs/libpostcopy-preload.so")
WAITING = {"query-status": {"status": "inmigrate", "running": False}, "query-migrate-capabilities": []}


class HandOver:
    """postcopyd with --qemu, and the fakes it meets."""

    def __init__(self, case, options=""):
        self.case = case
        self.monitor = case.path("qmp")
        self.service = Service(case, f"--qemu=qmp={self.monitor}{options}", expect=())
        self.fakes = 0

    def qemu(self, answers=None, preload=True):
        """A process with this monitor; what is not given is what a QEMU that waits would say."""
        self.fakes += 1
        if os.path.exists(self.monitor):
            os.unlink(self.monitor)
        env = dict(os.environ)
        if preload:
            env |= {"LD_PRELOAD": LIBRARY,
                    "POSTCOPY_PRELOAD": f"register={self.service.register},name=vm,role=main"}
        return self.case.spawn(f"qemu{self.fakes}", [sys.executable, FAKE, self.monitor,
                                                     json.dumps(WAITING | (answers or {}))],
                               stdin=subprocess.PIPE, env=env)

    def now(self):
        done = subprocess.run([built("postcopyctl"), "-r", self.service.run_dir, "handover", "--json"],
                              capture_output=True, text=True, timeout=10, check=True)
        return json.loads(done.stdout)

    def wait(self, phase, part="", member="waits_for"):
        def reached():
            now = self.now()
            return now if now["phase"] == phase and part in (now[member] or "") else None
        return wait_for(f"{phase}, {member} with '{part}' (it is {self.now()})", reached, 20)

    def refused(self, part):
        """A source that comes now is turned away for that reason."""
        self.service.source()
        status = self.service.wait_state("failed")
        check(part in status["error"]["reason"], f"'{part}' is not in {status['error']}")


def slam(path):
    """A monitor that takes connections and closes them, as that of a process that is about to end; counts."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)
    taken = []

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            taken.append(1)
            conn.close()
    threading.Thread(target=serve, daemon=True).start()
    return listener, taken


def a_monitor_that_closes(case):
    handover = HandOver(case)
    listener, taken = slam(handover.monitor)
    wait_for("three tries", lambda: len(taken) >= 3, 20)
    check_equal(handover.now()["phase"], "wait-qmp", "phase")
    check(not handover.now()["error"], "it gave up")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    handover.qemu()
    now = handover.wait("inmigrate", "the source's list of blocks")
    check_equal((now["qemu"]["attempt"], now["qemu"]["version"]), (1, "10.0.2"), "which QEMU")


def one_after_the_other(case):
    """Before a source has come the next QEMU is as good as the first."""
    handover = HandOver(case)
    first = handover.qemu()
    handover.wait("inmigrate", "the source's list of blocks")
    first.kill()
    handover.wait("wait-qmp")
    second = handover.qemu()
    now = handover.wait("inmigrate", "the source's list of blocks")
    check_equal((now["qemu"]["attempt"], now["qemu"]["pid"]), (2, second.pid), "which QEMU")


def two_processes(case):
    """Who lent its userfaultfd is not who answers at the monitor."""
    handover = HandOver(case)
    other = handover.qemu()
    handover.wait("inmigrate")
    other.kill()
    handover.wait("wait-qmp")
    bare = handover.qemu(preload=False)
    handover.wait("wait-preload", "LD_PRELOAD")
    env = dict(os.environ, LD_PRELOAD=LIBRARY,
               POSTCOPY_PRELOAD=f"register={handover.service.register},name=vm,role=main")
    case.spawn("stranger", ["/usr/bin/sleep", "60"], env=env)
    handover.wait("wait-preload", f"process {bare.pid} answers")


def not_waiting(case):
    handover = HandOver(case)
    handover.qemu({"query-status": {"status": "running", "running": True}})
    now = handover.wait("failed", "it is running", "error")
    check("-incoming defer" in now["advice"], f"advice: {now['advice']}")
    handover.refused("does not wait for a migration")


def cannot_listen(case):
    handover = HandOver(case)
    handover.qemu({"migrate-incoming": {"error": "no such folder"}})
    now = handover.wait("failed", "no such folder", "error")
    check("-incoming defer" in now["advice"], f"advice: {now['advice']}")
    handover.refused("no such folder")


IN_THE_WAY = {"query-migrate-capabilities": [{"capability": "x-ignore-shared", "state": True},
                                             {"capability": "auto-converge", "state": True}]}


def capabilities_are_switched_off(case):
    """When the source is there, and so nobody else changes them any more."""
    handover = HandOver(case)
    handover.qemu(IN_THE_WAY | {"human-monitor-command": "Block Name  what is this\r\n"})
    handover.wait("inmigrate", "the source's list of blocks")
    check("switched off" not in handover.service.log(), handover.service.log())
    handover.refused("does not tell what memory it has")
    said = handover.service.log()
    check("x-ignore-shared is switched off" in said and "auto-converge" not in said, said)


def capability_stays_on(case):
    """Its QEMU would end in the middle of the stream."""
    handover = HandOver(case)
    handover.qemu(IN_THE_WAY | {"migrate-set-capabilities x-ignore-shared": {"error": "not now"}})
    handover.wait("inmigrate", "the source's list of blocks")
    handover.refused("not now")
    now = handover.wait("failed", "not now", "error")
    check("switch the migration capability off" in now["advice"], f"advice: {now['advice']}")


def unknown_memory(case):
    """A text that is not as known is refused, not guessed at."""
    handover = HandOver(case)
    handover.qemu({"human-monitor-command": "Block Name  what is this\r\n"})
    handover.wait("inmigrate", "the source's list of blocks")
    handover.refused("does not tell what memory it has")
    handover.wait("failed", "info ramblock", "error")


def rows(*blocks):
    """`info ramblock`, as QEMU 7.2 says it: without addresses."""
    return "Block Name    PSize   Offset   Used   Total\r\n" + "".join(
        f"{name}    4 KiB  {at << 30:#018x} {1 << 30:#018x} {1 << 30:#018x}\r\n" for at, name in enumerate(blocks))


#: Where block "m" is in the guest's memory.
VIEW = ('FlatView #0\r\n AS "memory", root: system\r\n Root memory region: system\r\n'
        "  0000000000000000-000000003fffffff (prio 0, ram): m KVM\r\n\r\n")


def asked_for_memory(case, before, then):
    """What the monitor was asked with a source at the door, when these were its blocks before it came and then."""
    handover = HandOver(case)
    qemu = handover.qemu({"human-monitor-command ramblock": {"each": [rows(*before), rows(*then)]},
                          "human-monitor-command mtree": VIEW,
                          "human-monitor-command gpa2hva": "Host virtual address for 0x0 (m) is 0x10000\r\n"})
    handover.wait("inmigrate", "the source's list of blocks")
    wait_for("the first look", lambda: "human-monitor-command gpa2hva 0x0" in qemu.lines(), 20)
    first = len(qemu.lines())
    handover.refused("nothing mapped")
    return [line for line in qemu.lines()[first:] if line.startswith("human-monitor-command")]


ASK = [f"human-monitor-command {line}" for line in ("info ramblock", "info mtree -f", "gpa2hva 0x0")]


def memory_as_before(case):
    """The long part was asked before the source came; where a block is is asked anew."""
    check_equal(asked_for_memory(case, ("m",), ("m",)), [ASK[0], ASK[2]], "asked")


def memory_plugged_in(case):
    """Between the two: what was known counts for nothing."""
    check_equal(asked_for_memory(case, ("m",), ("m", "n")), ASK, "asked")


def memory_changed(case):
    check_equal(asked_for_memory(case, ("m", "n"), ("m", "o")), ASK, "asked")


def cases():
    for function in (a_monitor_that_closes, one_after_the_other, two_processes, not_waiting, cannot_listen,
                     capabilities_are_switched_off, capability_stays_on, unknown_memory,
                     memory_as_before, memory_plugged_in, memory_changed):
        yield function.__name__, function


if __name__ == "__main__":
    if missing_programs() or not LIBRARY:
        skip_all("not built: " + ", ".join([*missing_programs(), "libpostcopy-preload.so"]))
    main(list(cases()))
