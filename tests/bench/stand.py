# SPDX-License-Identifier: GPL-2.0-or-later
"""The test stand of the benchmarks: starts programs where they belong and reads what they measured.

A layout says which CPU each side runs on.  Root measures with real-time priority, so that what else runs
on the machine distorts the rows less.
"""
import json
import os
import select
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import Case, Failure, built, check, wait_for

BLOCK = "m1"
PAGE = 4096
MIB = 1 << 20
#: as much free memory is made ready for a row at most; what only the sparse rows declare is not touched
READY_MOST = 1280
PROGRAMS = ("postcopyd", "postcopyctl", "postcopy-source", "tests/bench/bare", "tests/bench/served",
            "tests/bench/crowd", "tests/bench/device", "tests/lib/vfiouser-server")


def missing_programs():
    return [name for name in PROGRAMS if not built(name)]


class Layout:
    """Where the two sides run; None: wherever the scheduler likes."""

    def __init__(self, text, server=None, source=None, toucher=None):
        self.text = text
        self.server = server
        self.source = source
        self.toucher = toucher

    def _how(self, cpu):
        real_time = ["chrt", "-f", "50"] if os.geteuid() == 0 else []
        return real_time + (["taskset", "-c", str(cpu)] if cpu is not None else [])

    def serving(self, argv):
        return self._how(self.server) + argv

    def sending(self, argv):
        return self._how(self.source) + argv

    def touching(self, argv):
        return self._how(self.toucher) + argv

    def cpus(self, row):
        """As bare takes them: the handler's, then that of whom it serves or asks; -1 leaves it."""
        other = self.source if row == "tcp" else self.toucher
        return [str(-1 if cpu is None else cpu) for cpu in (self.server, other)]


def layouts():
    """{name: Layout}"""
    cpus = sorted(os.sched_getaffinity(0))
    first, last = cpus[0], cpus[-1]
    found = {"one": Layout("everything on one CPU", last, last, last), "any": Layout("not pinned")}
    if len(cpus) > 1:
        found["two"] = Layout("daemon and source on one CPU, the faulting process on another",
                              first, first, last)
        found["apart"] = Layout("daemon alone on one CPU, source and faulting process on another",
                                first, last, last)
    return found


def make_ready(mib):
    """Have so much free memory that is really there.

    A virtual machine that gives what is free back to its host gets a page by a fault of the host's when
    it is used again.  That takes longer than to place it, and whichever row comes next would pay for it.
    """
    chunk = bytes(MIB)
    fd = os.memfd_create("ready", os.MFD_CLOEXEC)
    try:
        for _ in range(min(mib + mib // 4, READY_MOST)):
            os.write(fd, chunk)
    finally:
        os.close(fd)


def fields(line):
    """`ROW key value key value …` as a dict of numbers"""
    words = line.split()[1:]
    return {key: int(value) for key, value in zip(words[::2], words[1::2])}


class Stand:
    """One measurement: a directory, its programs, and their end."""

    def __init__(self, layout, seed):
        self.layout = layout
        self.case = Case("bench", seed)
        self.seed = str(seed)
        self.run_dir = None
        self.daemon = None

    def __enter__(self):
        return self

    def __exit__(self, kind, _value, _traceback):
        ended_well = self.case.close(ok=kind is None)
        check(ended_well or kind is not None, "a sanitizer spoke")

    # --- programs -------------------------------------------------------------------------------

    def bare(self, row, mib, count, *options):
        argv = [built("tests/bench/bare"), row, str(mib * MIB // PAGE), str(count), self.seed,
                *self.layout.cpus(row), *options]
        return self.case.spawn("bare", self.layout.serving(argv))

    def source(self, address, mib, *options, zero=0):
        """What makes a row's pages come; so the last moment to have memory for them."""
        make_ready(mib)
        argv = [built("postcopy-source"), "--to", address, "--seed", self.seed, "--block",
                f"{BLOCK},size={mib}M,zero={zero}", *options]
        return self.case.spawn("source", self.layout.sending(argv))

    def postcopyd(self, spin_us=0, others=0):
        """Its address, once it listens.  @others: sharers besides the main one."""
        self.run_dir = self.case.path("run")
        ready_r, ready_w = os.pipe()
        argv = [built("postcopyd"), "--incoming", "tcp:127.0.0.1:0", "--run-dir", self.run_dir,
                "--ready-fd", str(ready_w), "--spin-us", str(spin_us), "--stay", "--expect", "served"]
        for number in range(1, others + 1):
            argv += ["--expect", f"s{number}"]
        self.daemon = self.case.spawn("postcopyd", self.layout.serving(argv), pass_fds=(ready_w,))
        os.close(ready_w)
        with os.fdopen(ready_r) as ready:
            check(select.select([ready], [], [], 20)[0], "postcopyd does not get ready")
            words = ready.readline().split()
        check(words[:1] == ["READY"], "postcopyd ended before it was ready")
        return words[1]

    def served(self, mib, count, *options, row="served"):
        cpu = self.layout.toucher
        argv = [built("tests/bench/served"), os.path.join(self.run_dir, "register"), row,
                str(mib * MIB // PAGE), str(count), self.seed, str(-1 if cpu is None else cpu), *options]
        return self.case.spawn("served", self.layout.touching(argv))

    def fault_thread(self):
        folder = f"/proc/{self.daemon.pid}/task"
        for tid in os.listdir(folder):
            with open(f"{folder}/{tid}/comm") as name:
                if name.read().strip() == "postcopyd-fault":
                    return tid
        raise Failure("postcopyd has no fault thread")

    def crowd(self, who, others, mib, count):
        cpu = self.layout.toucher
        argv = [built("tests/bench/crowd"), os.path.join(self.run_dir, "register"),
                f"/proc/{self.daemon.pid}/task/{self.fault_thread()}/schedstat", who, str(others),
                str(mib * MIB // PAGE), str(count), self.seed, str(-1 if cpu is None else cpu)]
        return self.case.spawn("crowd", self.layout.touching(argv))

    def device(self, way, side, direction, count):
        argv = [built("tests/bench/device"), way, side, direction, str(count)]
        return self.case.spawn("device", self.layout.serving(argv))

    # --- results --------------------------------------------------------------------------------

    @staticmethod
    def line(child, word, timeout=120):
        """The first line of @child's output that begins with @word."""
        def probe():
            ended = not child.running()
            for line in child.lines():
                if line.split(" ", 1)[0] == word:
                    return line
            check(not ended, f"{child.name} ended before it said {word}: {child.errors()[-500:]}")
            return None
        return wait_for(f"{child.name} to say {word}", probe, timeout, 0.02)

    def result(self, child, word, timeout=120):
        return fields(self.line(child, word, timeout))

    def control(self, verb):
        done = subprocess.run([built("postcopyctl"), "-r", self.run_dir, verb, "--json"],
                              capture_output=True, text=True, timeout=10, check=False)
        if done.returncode:
            raise Failure(f"postcopyctl {verb}: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        return answer.get(verb, answer) if isinstance(answer, dict) else answer

    def memory(self):
        """Bytes of memory that postcopyd alone accounts for: shared pages by its share of them."""
        with open(f"/proc/{self.daemon.pid}/smaps_rollup") as f:
            return sum(int(line.split()[1]) << 10 for line in f if line.startswith("Pss:"))
