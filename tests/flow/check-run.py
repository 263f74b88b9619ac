#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-run: what it starts, with what, and who outlives whom, with a daemon and a QEMU that are scripts and do as the case
says.  Together with the real ones it runs in tests/interop.  (F56)
"""
import grp
import json
import os
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import check, check_equal, wait_for  # noqa: E402

RUN = harness.built("postcopy-run")

# Each notes its arguments, environment and pid, says READY (the daemon), and ends as the case says by writing a file.
PLAYER = r"""#!/usr/bin/env python3
import json, os, signal, sys, time
me, there = os.path.basename(sys.argv[0]), os.environ["PLAY_DIR"]
def note(name, text):
    with open(os.path.join(there, name + ".new"), "w") as f:
        f.write(text)
    os.rename(os.path.join(there, name + ".new"), os.path.join(there, name))
def on_term(*_):
    count[0] += 1
    note(me + ".term", str(count[0]))
    if not os.path.exists(os.path.join(there, me + ".stubborn")):
        sys.exit(3)
count = [0]
signal.signal(signal.SIGTERM, on_term)
if os.path.exists(os.path.join(there, me + ".mute")):
    sys.exit(2)
note(me + ".started", json.dumps({"args": sys.argv[1:], "pid": os.getpid(), "group": os.getpgrp(),
     "env": {k: os.environ.get(k) for k in ("LD_PRELOAD", "POSTCOPY_PRELOAD")}}))
# Afterwards, for what follows from READY may be that it is ended.
if me == "daemon":
    os.write(3, b"READY tcp:[::]:4711\n")
    os.close(3)
while not os.path.exists(os.path.join(there, me + ".end")):
    time.sleep(0.01)
with open(os.path.join(there, me + ".end")) as f:
    sys.exit(int(f.read()))
"""


class Play:
    """One postcopy-run with its two players."""

    def __init__(self, case, *options, program=("-m", "1G"), **kwargs):
        self.case = case
        self.daemon = self._player("daemon")
        self.vmm = self._player("vmm")
        self.preload = case.path("preload.so")
        with open(self.preload, "w", encoding="ascii"):
            pass
        self.options = options
        self.program = program
        self.kwargs = kwargs

    def _player(self, name):
        path = self.case.path(name)
        with open(path, "w", encoding="ascii") as f:
            f.write(PLAYER)
        os.chmod(path, 0o755)
        return path

    def start(self):
        os.environ["PLAY_DIR"] = self.case.dir
        argv = [RUN, "--postcopyd", self.daemon, "--preload", self.preload, *self.options, "--", self.vmm, *self.program]
        self.run = self.case.spawn("run", argv, **self.kwargs)
        return self

    def started(self, who):
        wait_for(f"{who} to start", lambda: os.path.exists(self.case.path(who + ".started")) or not self.run.running())
        check(os.path.exists(self.case.path(who + ".started")), f"{who} did not start: {self.run.errors()}")
        with open(self.case.path(who + ".started"), encoding="ascii") as f:
            told = json.load(f)
        # A player that nobody ends must not outlive the case.
        self.case.defer(lambda: self._kill(told["pid"]))
        return told

    @staticmethod
    def _kill(pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def both(self):
        return self.started("daemon"), self.started("vmm")

    def tell(self, name, text="0"):
        path = self.case.path(name)
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(text)
        os.rename(path + ".new", path)

    def wait_said(self, words):
        wait_for(f"postcopy-run to say {words!r}", lambda: words in self.run.errors())

    def ends(self, status, *words):
        check_equal(self.run.wait(), status, "status of postcopy-run")
        for word in words:
            check(word in self.run.errors(), f"{word!r} is not in {self.run.errors()!r}")


def run_dir_of(daemon):
    return next(a for a in daemon["args"] if a.startswith("--run-dir="))[len("--run-dir="):]


def what_is_started(case):
    play = Play(case, "--incoming", "tcp:[::1]:5", "--expect", "disk", "--expect", "net", "--name", "a,b",
                program=("-m", "1G", "-device", "x,y=z", "")).start()
    daemon, vmm = play.both()
    where = run_dir_of(daemon)
    check_equal(daemon["args"], ["--incoming=tcp:[::1]:5", f"--run-dir={where}",
                                 f"--qemu=qmp={where}/qmp,incoming=unix:{where}/incoming,cont=auto", "--ready-fd=3",
                                 "--expect=disk", "--expect=net"], "arguments of postcopyd")
    check_equal(vmm["args"], ["-m", "1G", "-device", "x,y=z", "", "-incoming", "defer", "-S", "-qmp",
                              f"unix:{where}/qmp,server=on,wait=off"], "arguments of QEMU")
    check_equal(vmm["env"]["POSTCOPY_PRELOAD"], f"register={where}/register,name=a,,b,role=main", "POSTCOPY_PRELOAD")
    check_equal(vmm["env"]["LD_PRELOAD"].split(":")[0], play.preload, "LD_PRELOAD")
    check(daemon["env"]["POSTCOPY_PRELOAD"] is None, "the daemon is not preloaded")
    check(daemon["group"] != vmm["group"], "a ^C is not for the daemon")
    check_equal(stat.S_IMODE(os.stat(where).st_mode), 0o700, "mode of the directory")
    play.tell("daemon.end")
    play.wait_said("all memory is here")
    play.tell("vmm.end", "5")
    play.ends(5, "migrate -d tcp:")
    check(not os.path.exists(where), "the directory is removed")


def told_to_stay_stopped(case):
    play = Play(case, program=("-S",)).start()
    daemon, vmm = play.both()
    check(any(a.endswith(",cont=no") for a in daemon["args"]), f"cont=no in {daemon['args']}")
    check_equal(vmm["args"].count("-S"), 1, "-S is said once")


def ready_line(case):
    read, write = os.pipe()
    play = Play(case, "--ready-fd", str(write), "--run-dir", case.path("run,dir"), pass_fds=(write,)).start()
    os.close(write)
    daemon, vmm = play.both()
    check(harness.readable(read, 20), "a line came")
    told = json.loads(os.read(read, 4096))
    os.close(read)
    check_equal((told["postcopyd-pid"], told["vmm-pid"]), (daemon["pid"], vmm["pid"]), "processes")
    check_equal(told["run-dir"], case.path("run,dir"), "directory")
    check_equal(told["incoming"], f"tcp:{os.uname().nodename}:4711", "an address that others can reach")
    check(f"qmp={case.path('run,,dir')}/qmp," in " ".join(daemon["args"]), "a comma in a path is escaped")
    play.tell("daemon.end")
    play.wait_said("all memory is here")
    play.tell("vmm.end")
    play.ends(0)
    check(os.path.isdir(case.path("run,dir")), "a directory that was named stays")


def daemon_that_cannot_start(case):
    play = Play(case)
    play.tell("daemon.mute")
    play.start().ends(1)
    check(not os.path.exists(case.path("vmm.started")), "QEMU was not started")
    play.options = ("--postcopyd", "/nonexistent")
    play.start().ends(1, "/nonexistent")


def vmm_that_cannot_start(case):
    play = Play(case)
    play.vmm = "/nonexistent"
    play.start().started("daemon")
    play.ends(1, "/nonexistent")
    check(os.path.exists(case.path("daemon.term")), "the daemon was asked to end")


def daemon_fails(case):
    """It exits only while no VM runs here, so QEMU is told to go."""
    play = Play(case).start()
    play.both()
    play.tell("daemon.end", "1")
    play.ends(1, "no VM runs here")
    check(os.path.exists(case.path("vmm.term")), "QEMU was asked to end")


def daemon_is_killed(case):
    """A VM may be running: nothing ends it, and the operator is told."""
    play = Play(case).start()
    daemon, _ = play.both()
    os.kill(daemon["pid"], signal.SIGKILL)
    play.wait_said("postcopyd was killed (signal 9)")
    time.sleep(0.3)
    check(play.run.running() and not os.path.exists(case.path("vmm.term")), "QEMU was left alone")
    play.tell("vmm.end")
    play.ends(1)


def vmm_ends_first(case):
    play = Play(case).start()
    daemon, _ = play.both()
    where = run_dir_of(daemon)
    play.tell("vmm.end", "7")
    play.ends(7, "before its memory was complete")
    check_equal(open(case.path("daemon.term"), encoding="ascii").read(), "1", "times the daemon was asked")
    check(not os.path.exists(where), "the directory is removed")


def daemon_that_holds_memory(case):
    """It refuses to end: asked once, because the second time it would give in."""
    play = Play(case, "--run-dir", case.path("held"))
    play.tell("daemon.stubborn")
    daemon, _ = play.start().both()
    play.tell("vmm.end")
    play.ends(1, "stays and keeps what came of its memory", f"postcopyctl -r {case.path('held')} --force quit")
    check_equal(open(case.path("daemon.term"), encoding="ascii").read(), "1", "times the daemon was asked")
    os.kill(daemon["pid"], 0)


def signals_go_to_the_vmm(case):
    for sig in (signal.SIGTERM, signal.SIGINT):
        for name in ("daemon.started", "vmm.started", "daemon.term", "vmm.term"):
            if os.path.exists(case.path(name)):
                os.unlink(case.path(name))
        play = Play(case).start()
        play.both()
        play.run.kill(sig)
        play.ends(3)
        check(os.path.exists(case.path("vmm.term")) and os.path.exists(case.path("daemon.term")), "both were asked")


def sharer(case):
    """It takes our place: same pid, its own exit status."""
    play = Play(case)
    os.environ["PLAY_DIR"] = case.dir
    run = case.spawn("sharer", [RUN, "--preload", play.preload, "--run-dir", "/a,b", "--sharer", "disk", play.vmm, "-x"])
    play.run = run
    told = play.started("vmm")
    check_equal(told["pid"], run.pid, "pid")
    check_equal(told["args"], ["-x"], "arguments")
    check_equal(told["env"]["POSTCOPY_PRELOAD"], "register=/a,,b/register,name=disk,role=sharer,maps=on", "POSTCOPY_PRELOAD")
    play.tell("vmm.end", "9")
    check_equal(run.wait(), 9, "status")


def group(case):
    name = grp.getgrgid(os.getgid()).gr_name
    play = Play(case, "--group", name).start()
    daemon, _ = play.both()
    check(f"--register-group={name}" in daemon["args"], "passed on")
    check_equal(stat.S_IMODE(os.stat(run_dir_of(daemon)).st_mode), 0o770, "QEMU makes its sockets there")
    play.tell("daemon.end")
    play.wait_said("all memory is here")
    play.tell("vmm.end")
    play.ends(0)
    play.options = ("--group", "no-such-group")
    play.start().ends(1, "no such group")


def usage(case):
    preload = ["--preload", __file__]
    for status, word, argv in (
            (2, "which program", []),
            (2, "leave out -incoming", ["--", "q", "-incoming", "defer"]),
            (2, "leave out -incoming", ["q", "--incoming", "tcp:0:1"]),
            (2, "leave out -daemonize", ["q", "-daemonize"]),
            (2, "auto, yes or no", ["--cont", "perhaps", "q"]),
            (2, "not an open file", ["--ready-fd", "77", "q"]),
            (2, "needs --run-dir", ["--sharer", "x", "q"]),
            (2, "goes with --run-dir", ["--sharer", "x", "--run-dir", "/d", "--cont", "yes", "q"]),
            (2, "Unknown option", ["--nonsense"]),
            (1, "--preload PATH", ["--preload", "/nonexistent.so", "q"]),
            (1, "--preload PATH", ["--preload", "/", "q"]),
            (127, "/nonexistent", [*preload, "--sharer", "x", "--run-dir", "/d", "/nonexistent"]),
    ):
        done = subprocess.run([RUN, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, text=True, cwd=case.dir)
        check_equal(done.returncode, status, f"status of {argv} ({done.stderr!r})")
        check(word in done.stderr, f"{word!r} is not in {done.stderr!r}")
        check_equal(done.stdout, "", "stdout")
    done = subprocess.run([RUN, "--version"], capture_output=True, timeout=30, text=True)
    check(done.returncode == 0 and done.stdout.startswith("postcopy-run "), f"--version: {done}")


CASES = [what_is_started, told_to_stay_stopped, ready_line, daemon_that_cannot_start, vmm_that_cannot_start, daemon_fails,
         daemon_is_killed, vmm_ends_first, daemon_that_holds_memory, signals_go_to_the_vmm, sharer, group, usage]

if __name__ == "__main__":
    if not RUN:
        harness.skip_all("postcopy-run is not built")
    harness.main([(function.__name__, function) for function in CASES])
