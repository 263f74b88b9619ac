# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd, its sharers and its source, all of them our own programs, for the flow tests.

    service = Service(case, expect=("vm",))
    vm = service.sharer("vm", "main", threads=4)
    source = service.source("--preempt")
    service.complete()
"""
import json
import os
import signal
import subprocess

from dest import find_event, wait_event
from harness import PATIENCE, Failure, check, check_equal, built, wait_for

BLOCK = "m"
MIB = 1 << 20
PAGE = 4096
STORED = "5a" * 8                       # what a sharer's `store` and `poke` write
ZERO = "00" * 8
#: Of a source: only what is asked for comes, until Source.rest().
PATIENT = ("--no-background", "--linger", "600000")
PROGRAMS = ("postcopyd", "postcopyctl", "postcopy-source", "tests/lib/sharer")


def missing_programs():
    return [name for name in PROGRAMS if not built(name)]


class Sharer:
    """One `sharer` process, told what to do on its console."""

    def __init__(self, child, name):
        self.child = child
        self.name = name
        self.pid = child.pid
        self._said = 0

    def event(self, event, timeout=PATIENCE, **fields):
        return wait_event(self.child, event, timeout=timeout, **fields)

    def has(self, event, **fields):
        return find_event(self.child, event, **fields)

    def all(self, event, **fields):
        return [e for e in map(json.loads, self.child.lines())
                if e["event"] == event and all(e.get(k) == v for k, v in fields.items())]

    def tell(self, line):
        """Say a line; does not wait."""
        self.child.proc.stdin.write((line + "\n").encode())
        self.child.proc.stdin.flush()

    def do(self, line, error=0):
        """Say a line and wait until it is done, with this errno."""
        self.tell(line)
        self._said += 1
        done = wait_for(f"{self.name} to {line}",
                        lambda: (self.all("done") + [None] * self._said)[self._said - 1])
        check_equal(done["error"], error, f"{self.name}: errno of {line} ({done.get('text')})")
        return done.get("text", "")

    def saw(self, offset, timeout=PATIENCE, **fields):
        """The word a thread read at that offset of the block."""
        return self.event("saw", timeout, offset=offset, **fields)["word"]

    def has_seen(self, offset, **fields):
        return bool(self.has("saw", offset=offset, **fields))

    def path(self, block=BLOCK):
        """Where others find the memory."""
        return self.event("memfd", block=block)["path"]

    def digest(self, block=BLOCK):
        return self.event("digest", block=block)["xxh3_128"]


class Source:
    """One `postcopy-source` process."""

    def __init__(self, child, lingers=False):
        self.child = child
        self._lingers = lingers

    def rest(self):
        """Of one that sends only what is asked for: it sends the rest now."""
        if self._lingers and self.child.running():
            self.child.proc.send_signal(signal.SIGUSR1)
        self._lingers = False

    def summary(self, timeout=PATIENCE):
        self.child.wait(timeout)
        lines = self.child.lines()
        check(lines, f"the source said nothing: {self.child.errors()}")
        return json.loads(lines[-1])

    def completed(self, timeout=PATIENCE):
        """It sends the rest, if it still waits with that, hands its VM over, and no rule was broken."""
        self.rest()
        summary = self.summary(timeout)
        check_equal(summary["outcome"], "completed", f"outcome of the source ({summary['problem']})")
        check_equal(summary["violation"], None, "rule broken")
        check_equal(summary["requested_twice"], 0, "pages requested twice (O4)")
        check_equal(summary["shut"], 0, "SHUT")
        return summary

    def ended(self, outcome, timeout=PATIENCE):
        summary = self.summary(timeout)
        check_equal(summary["outcome"], outcome, f"outcome of the source ({summary['problem']})")
        return summary


class Service:
    """A daemon, and whoever comes to it.  within: a command that it is run by (netns.py)."""

    def __init__(self, case, *options, expect=("vm",), incoming=None, stay=True, size=4 * MIB, within=(), wrapper=()):
        """@wrapper: a program in front of the daemon and of its sharers, which becomes them."""
        self.case = case
        self._within = (*within, *wrapper)
        self.wrapper = wrapper
        self.size = size
        number = sum(child.name.startswith("postcopyd") for child in case.children)
        self.run_dir = case.path(f"run{number}")
        self.register = os.path.join(self.run_dir, "register")
        self.child = self._start(f"postcopyd{number}", incoming or f"unix:{case.path(f'in{number}')}",
                                 [*options, *(["--stay"] if stay else []),
                                  *[f"--expect={name}" for name in expect]])
        self.pid = self.child.pid
        self.sharers = []

    def _start(self, name, incoming, options):
        ready_r, ready_w = os.pipe()
        child = self.case.spawn(name, [*self._within, built("postcopyd"), "--incoming", incoming, "--run-dir",
                                       self.run_dir, "--ready-fd", str(ready_w), *options],
                                pass_fds=(ready_w,))
        os.close(ready_w)
        self.case.defer(child.kill)     # a committed one refuses to be asked
        with open(ready_r, "rb") as ready:
            line = ready.readline().decode()
        check(line.startswith("READY "), f"postcopyd is not ready: {child.errors()}")
        self.uri = line.split(None, 1)[1].strip()
        return child

    # --- who comes ---------------------------------------------------------------------------

    def sharer(self, name, role="sharer", memory=None, blocks=None, threads=0, **options):
        """@memory: a path, or an options text such as "private"; @blocks replaces it whole."""
        if blocks is None:
            memory = memory or ("memfd=create" if role == "main" else "memfd=" + self.main().path())
            blocks = [f"{BLOCK},size={self.size},{memory}"]
        argv = [*self.wrapper, built("tests/lib/sharer"), "--socket", self.register, "--name", name, "--role", role,
                "--console", "--threads", str(threads), "--seed", str(self.case.seed)]
        for block in blocks:
            argv += ["--block", block]
        for key, value in options.items():
            argv.append("--" + key.replace("_", "-"))
            if value is not True:
                argv.append(str(value))
        number = sum(child.name.startswith("sharer") for child in self.case.children)
        child = self.case.spawn(f"sharer{number}-{name}", argv, stdin=subprocess.PIPE)
        sharer = Sharer(child, name)
        self.sharers.append(sharer)
        return sharer

    def main(self):
        return self.sharers[0]

    def source(self, *options, to=None, blocks=None, seed=None, within=()):
        number = sum(child.name.startswith("source") for child in self.case.children)
        argv = [*within, built("postcopy-source"), "--to", to or self.uri, "--json", "--digest", "--seed",
                str(self.case.seed if seed is None else seed), *options]
        for block in blocks or [f"{BLOCK},size={self.size}"]:
            argv += ["--block", block]
        return Source(self.case.spawn(f"source{number}", argv), lingers="--no-background" in options)

    # --- what it says --------------------------------------------------------------------------

    def control(self, verb, *options):
        done = subprocess.run([built("postcopyctl"), "-r", self.run_dir, *options, verb, "--json"],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise Failure(f"postcopyctl {verb}: status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def text(self, verb):
        """What postcopyctl says to people."""
        return subprocess.run([built("postcopyctl"), "-r", self.run_dir, verb], capture_output=True, text=True,
                              timeout=PATIENCE, check=True).stdout

    def fault(self, *words):
        """A rule more: a POINT, filters as --every=5, an ACTION.  Returns its number."""
        return self._fault("add", *words)["id"]

    def fault_remove(self, rule="all"):
        return self._fault("remove", str(rule))["removed"]

    def faults(self):
        """What is injected: {rule number: {"hits": …, "fires": …}}"""
        return {rule["id"]: rule for rule in self._fault("list")["rules"]}

    def _fault(self, *words):
        done = subprocess.run([built("postcopyctl"), "-r", self.run_dir, "--json", "fault", *words],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise Failure(f"postcopyctl fault {words}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def status(self):
        return self.control("status")

    def stats(self):
        return self.control("stats")

    def of(self, name):
        """What `postcopyctl sharers` says of one; None when it is not listed."""
        found = [s for s in self.control("sharers") if s["name"] == name]
        return found[-1] if found else None

    def reason(self, name):
        return ((self.of(name) or {}).get("error") or {}).get("reason", "")

    def blockers(self):
        return {b["name"]: b["text"] for b in self.control("blockers")}

    def wait_state(self, state, timeout=PATIENCE):
        last = {}

        def probe():
            last.update(self.status())
            return last["state"] == state
        try:
            wait_for(state, probe, timeout)
        except Failure as failure:
            raise Failure(f"{failure}: it is {last['state']}, error {last['error']}") from None
        return last

    def wait_sharer(self, name, state, timeout=PATIENCE):
        wait_for(f"{name} to be {state}", lambda: (self.of(name) or {}).get("state") == state, timeout)
        return self.of(name)

    def wait_waiting(self, name, threads, timeout=PATIENCE):
        wait_for(f"{threads} threads of {name} to wait",
                 lambda: (self.of(name) or {}).get("waiting") == threads, timeout)

    def wait_blocker(self, name, timeout=PATIENCE):
        return wait_for(f"blocker {name}", lambda: self.blockers().get(name), timeout)

    def log(self):
        return self.child.errors()

    def ended(self, code, timeout=PATIENCE):
        check_equal(self.child.wait(timeout), code, "exit status of postcopyd")

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self):
        """Seconds it has run."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def patient_source(self, *options, **more):
        """One that sends only what is asked for, until rest() or completed()."""
        return self.source(*PATIENT, *options, **more)

    def check_same(self, source, block=BLOCK, sharers=None):
        """Every one of these sharers saw what the source holds."""
        wanted = source.completed()["digests"][block]
        for sharer in sharers if sharers is not None else self.sharers:
            sharer.event("complete")
            check_equal(sharer.digest(block), wanted, f"digest of {block} as {sharer.name} sees it")
