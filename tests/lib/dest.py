# SPDX-License-Identifier: GPL-2.0-or-later
"""Destinations with one face: the reference one, QEMU's own, and postcopyd with its sharers.

    uri, wait_listening(), wait_complete(), ram() -> descriptor of pc.ram, child (to kill), failed()
"""
import json
import os
import subprocess

from harness import Failure, TOP_SRCDIR, built, check, check_equal, wait_for
from vm import RAM_BLOCK, Vm

PYTHON = "/usr/bin/python3"


def events(child):
    """The JSON lines a program has printed so far."""
    return [json.loads(line) for line in child.lines() if line.startswith("{")]


def find_event(child, name, **fields):
    for event in events(child):
        if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
            return event
    return None


def wait_event(child, name, timeout=20.0, **fields):
    """The first such line; a child that ends without printing it fails the case at once."""
    def probe():
        ended = not child.running()     # looked at first: its last lines still count
        event = find_event(child, name, **fields)
        check(event or not ended,
              f"{child.name} ended with status {child.proc.returncode} before it said {name}")
        return event
    return wait_for(f"{child.name} to say {name} {fields or ''}", probe, timeout)


def open_ram(case, child, block=RAM_BLOCK):
    event = wait_event(child, "memfd", block=block)
    fd = os.open(event["path"], os.O_RDONLY)
    case.defer(lambda: os.close(fd))
    return fd


class RefDestination:
    """interop/refdest.py"""

    def __init__(self, case, uri, options=(), name="refdest"):
        self.case = case
        self.uri = uri
        script = os.path.join(TOP_SRCDIR, "tests", "interop", "refdest.py")
        self.child = case.spawn(name, [PYTHON, script, "--incoming", uri, "--seed",
                                       str(case.seed), *options])
        wait_event(self.child, "bound")

    def wait_listening(self, timeout=20.0):
        return wait_event(self.child, "listening", timeout)

    def wait_complete(self, timeout=20.0):
        return wait_event(self.child, "complete", timeout)

    def ram(self):
        return open_ram(self.case, self.child)

    def check_refused(self, timeout=10.0):
        check(self.child.wait(timeout) != 0, "it ended as if all were well")
        check(find_event(self.child, "failed"), "it did not say why it failed")

    def check_counters(self, trace):
        done = self.wait_complete()
        check_equal(done["finished_as"], trace.finished_as, "finished as")
        check_equal(done["duplicates"], 0, "pages received twice")
        check_equal(done["requests"], len(trace.requests), "requests it counted")


class QemuDestination:
    """QEMU's own destination, the same binary and machine as the source."""

    def __init__(self, case, uri, source, capabilities, binary, paused=False, before=()):
        self.case = case
        self.uri = uri
        self.vm = Vm(case, binary, name="destination", mib=source.mib, backend=source.backend,
                     share=source.share, incoming=True, extra=["-S"] if paused else [],
                     before=before)
        self.child = self.vm.child
        self.vm.set_capabilities(*capabilities)
        self.vm.incoming(uri)

    def wait_listening(self, timeout=20.0):
        wait_for("the destination to be in postcopy",
                 lambda: "postcopy-active" in self.vm.qmp.statuses(), timeout)

    def wait_complete(self, timeout=20.0):
        return self.vm.wait_migration("completed", timeout=timeout)

    def ram(self):
        return self.vm.ram_now()

    def check_counters(self, trace):
        """It keeps none that we could compare."""

    def check_guest_goes_on(self):
        """A whole further round: the guest looks at every page itself."""
        self.vm.wait_guest(rounds=2)
        check_equal(self.vm.guest().errors, 0, "errors the guest found at the destination")


class Counters:
    """Where in `postcopyctl stats --json` the numbers are: the only place that knows their names."""

    def __init__(self, stats):
        self.raw = stats

    def _sum(self, *path):
        value = self.raw
        for key in path:
            check(isinstance(value, dict) and key in value,
                  f"no {'.'.join(path)} in the stats: {json.dumps(self.raw)[:400]}")
            value = value[key]
        return value

    def placed(self):
        """Pages placed, each of its block's own size."""
        return self._sum("placed", "copy") + self._sum("placed", "zero")

    def requests(self):
        return self._sum("requests")

    def duplicates(self):
        return self._sum("duplicates")

    def faults(self):
        return self._sum("faults")


class PostcopydDestination:
    """postcopyd, a main sharer and a second sharer of the same memory, both touching at random."""

    def __init__(self, case, uri, mib, huge=False, threads=2, touch_from="listening",
                 device_state=None, second=True):
        self.case = case
        self.uri = uri
        self.run_dir = case.path("run")
        self.huge = huge
        self.length = mib << 20
        self.postcopyctl = built("postcopyctl")
        self._sharer = built("tests/lib/sharer")
        self._options = ["--threads", str(threads), "--seed", str(case.seed),
                         "--touch-from", touch_from]
        os.makedirs(self.run_dir, exist_ok=True)
        names = ["vm", "second"] if second else ["vm"]
        self.child = self._start_daemon(uri, names, device_state)
        self.main = self._start_sharer("vm", "main", "create")
        self.sharers = [self.main]
        if second:
            path = wait_event(self.main, "memfd", block=RAM_BLOCK)["path"]
            self.sharers.append(self._start_sharer("second", "sharer", path))

    @staticmethod
    def missing_programs():
        """What has to be built before any of this can run."""
        return [name for name in ("postcopyd", "postcopyctl", "tests/lib/sharer")
                if not built(name)]

    def _start_daemon(self, uri, names, device_state):
        ready_r, ready_w = os.pipe()
        argv = [built("postcopyd"), "--incoming", uri, "--run-dir", self.run_dir,
                "--ready-fd", str(ready_w), "--stay"]
        for name in names:
            argv += ["--expect", name]
        if device_state:
            argv += ["--device-state", device_state]
        child = self.case.spawn("postcopyd", argv, pass_fds=(ready_w,))
        os.close(ready_w)
        try:
            self._wait_ready(child, ready_r)
        finally:
            os.close(ready_r)
        return child

    def _wait_ready(self, child, ready_r):
        os.set_blocking(ready_r, False)

        def ready():
            child.check_running()
            try:
                return os.read(ready_r, 16)
            except BlockingIOError:
                return None
        wait_for("postcopyd to be ready", ready, 10)

    def _start_sharer(self, name, role, memfd):
        block = f"{RAM_BLOCK},size={self.length},memfd={memfd}"
        if self.huge:
            block += ",hugetlb"
        return self.case.spawn("sharer-" + name, [
            self._sharer, "--socket", os.path.join(self.run_dir, "register"), "--name", name,
            "--role", role, "--block", block, *self._options])

    def wait_listening(self, timeout=20.0):
        for sharer in self.sharers:
            wait_event(sharer, "listening", timeout)

    def wait_complete(self, timeout=20.0):
        for sharer in self.sharers:
            wait_event(sharer, "complete", timeout)

    def ram(self):
        return open_ram(self.case, self.main)

    def control(self, verb):
        """`postcopyctl VERB --json`, parsed."""
        done = subprocess.run([self.postcopyctl, "-r", self.run_dir, verb, "--json"],
                              capture_output=True, text=True, timeout=10, check=False)
        if done.returncode:
            raise Failure(f"postcopyctl {verb}: status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def check_refused(self, timeout=10.0):
        """It gave up by itself, and said where in the stream and why."""
        check(self.child.wait(timeout) not in (0, None), "it ended as if all were well")
        check(self.child.errors().strip(), "it did not say why it refused")

    def check_counters(self, trace):
        """O2, O4: each owed page placed exactly once; what it counts is what was on the wire."""
        counters = Counters(self.control("stats"))
        if trace.finished_as == "postcopy":
            check_equal(counters.placed(), trace.owed_pages(), "pages placed, of those owed")
        check_equal(counters.requests(), len(trace.requests), "requests it counted")
        check_equal(counters.duplicates(), 0, "pages placed twice")

    def check_digests(self):
        """Both sharers see the same memory."""
        seen = {wait_event(s, "digest", block=RAM_BLOCK)["xxh3_128"] for s in self.sharers}
        check_equal(len(seen), 1, "different digests of one memory")
        return seen.pop()
