# SPDX-License-Identifier: GPL-2.0-or-later
"""Destinations with one face: the reference one, QEMU's own, and postcopyd with its sharers.

    uri, wait_listening(), wait_complete(), ram() -> descriptor of pc.ram, child (to kill), failed()
"""
import json
import os
import subprocess

from harness import PATIENCE, Failure, TOP_SRCDIR, built, check, check_equal, wait_for
from machine import Storage
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


def wait_event(child, name, timeout=PATIENCE, **fields):
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

    def wait_listening(self, timeout=PATIENCE):
        return wait_event(self.child, "listening", timeout)

    def wait_complete(self, timeout=PATIENCE):
        return wait_event(self.child, "complete", timeout)

    def ram(self):
        return open_ram(self.case, self.child)

    def check_refused(self, timeout=PATIENCE):
        check(self.child.wait(timeout) != 0, "it ended as if all were well")
        check(find_event(self.child, "failed"), "it did not say why it failed")

    def check_counters(self, trace):
        done = self.wait_complete()
        check_equal(done["finished_as"], trace.finished_as, "finished as")
        check_equal(done["duplicates"], 0, "pages received twice")
        check_equal(done["requests"], len(trace.requests), "requests it counted")


class QemuDestination:
    """QEMU's own destination, with the machine of the source; @binary may be another version."""

    def __init__(self, case, uri, source, capabilities, binary, paused=False, before=(), storage=None):
        self.case = case
        self.uri = uri
        if source.machine.disk == "vhost-user" and storage is None:
            storage = Storage(case, "storage-destination")
        self.vm = Vm(case, binary, name="destination", machine=source.machine,
                     backend=source.backend, share=source.share, incoming=True,
                     storage=storage,
                     extra=["-S"] if paused else [], before=before)
        self.child = self.vm.child
        self.vm.set_capabilities(*capabilities)
        self.vm.incoming(uri)

    def wait_listening(self, timeout=PATIENCE):
        wait_for("the destination to be in postcopy",
                 lambda: "postcopy-active" in self.vm.qmp.statuses(), timeout)

    def wait_complete(self, timeout=PATIENCE):
        return self.vm.wait_migration("completed", timeout=timeout)

    def ram(self):
        return self.vm.ram_now()

    def check_counters(self, trace):
        """It keeps none that we could compare."""

    def check_guest_goes_on(self):
        """A whole further round: the guest looks at every page itself."""
        self.vm.wait_guest(rounds=2)
        check_equal(self.vm.guest().errors, 0, "errors the guest found at the destination")
        if self.vm.machine.disk:
            self.vm.wait_reads(600)


class Counters:
    """What `postcopyctl stats|blocks --json` says: the only place that knows the names in there."""

    LANES = ("main", "urgent", "store")

    def __init__(self, stats, blocks):
        self._stats = stats
        self._blocks = blocks

    def _get(self, *path):
        value = self._stats
        for key in path:
            check(isinstance(value, dict) and key in value,
                  f"no {'.'.join(path)} in the stats: {json.dumps(self._stats)[:400]}")
            value = value[key]
        return value

    def _over_lanes(self, *path, lanes=LANES):
        return sum(self._get("lanes", lane, *path) for lane in lanes)

    def placed(self):
        """Pages placed as they came, or noted to be zero, each of its block's own size; what was put there
        from what was known already (lane "store") is not among them."""
        return sum(self._over_lanes("pages", kind, lanes=self.LANES[:2]) for kind in ("copy", "zero", "noted"))

    def found_there(self):
        """Of the pages that came, those that were there: known zeroes may be, once sharers are free."""
        return self._over_lanes("pages", "already", lanes=self.LANES[:2])

    def duplicates(self):
        """Pages that came although they were there."""
        return self._over_lanes("duplicates")

    def requests(self):
        return self._get("requests")

    def requested_pages(self):
        return self._get("requested_pages")

    def faults(self):
        return self._get("total", "faults")

    def faults_of(self, name):
        """Of the sharers of that name."""
        return sum(sharer["faults"] for sharer in self._get("sharers") if sharer["name"] == name)

    def must_be_zero(self):
        """Counters of what never happens in a migration that goes well."""
        return {"duplicates": self.duplicates(), "found there": self.found_there(),
                "alarms": self._get("alarms"), "rerequested": self._get("rerequested")}

    def latency(self, stage="total"):
        return self._get("total", "latency", stage)

    def owed(self):
        """{block: pages owed at LISTENING}"""
        return {block["name"]: block["owed"] for block in self._blocks}

    def not_here(self):
        """{block: pages that are neither present nor known} of the blocks that lack some."""
        lacking = {block["name"]: block["missing"] + block["lost"] + block["unplaced"]
                   for block in self._blocks}
        return {name: count for name, count in lacking.items() if count}


class Postcopyd:
    """The daemon, whoever its sharers are.  A subclass says runs_here(): was the VM told to run here?"""

    PROGRAMS = ("postcopyd", "postcopyctl")
    VERBS = ("status", "blocks", "sharers", "blockers")
    within = ()                         # a command that the daemon is run by (netns.py)

    def __init__(self, case, uri, source, tag=""):
        self.case = case
        self.uri = uri
        self.tag = tag
        self.run_dir = case.path("run" + tag)
        self.device_state = case.path("device-state" + tag)
        self.source = source

    def runs_here(self):
        raise NotImplementedError

    @classmethod
    def missing_programs(cls):
        """What has to be built before any of this can run."""
        return [name for name in cls.PROGRAMS if not built(name)]

    def _start_daemon(self, names, options=()):
        ready_r, ready_w = os.pipe()
        argv = [*self.within, built("postcopyd"), "--incoming", self.uri, "--run-dir", self.run_dir,
                "--ready-fd", str(ready_w), "--device-state", self.device_state, "--stay", *options]
        for name in names:
            argv += ["--expect", name]
        os.makedirs(self.run_dir, mode=0o700)
        child = self.case.spawn("postcopyd" + self.tag, argv, pass_fds=(ready_w,))
        os.close(ready_w)
        try:
            self._wait_ready(child, ready_r)
        finally:
            os.close(ready_r)
        for verb in self.VERBS:
            self.case.ask_on_failure(f"postcopyctl{self.tag} {verb}",
                                     lambda verb=verb: json.dumps(self.control(verb)))
        return child

    @staticmethod
    def _wait_ready(child, ready_r):
        os.set_blocking(ready_r, False)

        def ready():
            child.check_running()
            try:
                return os.read(ready_r, 256)
            except BlockingIOError:
                return None
        wait_for("postcopyd to be ready", ready)

    # --- what it says ---------------------------------------------------------------------------

    def control(self, verb):
        """`postcopyctl VERB --json`, parsed."""
        done = subprocess.run([built("postcopyctl"), "-r", self.run_dir, verb, "--json"],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise Failure(f"postcopyctl {verb}: status {done.returncode}: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        return answer.get(verb, answer) if isinstance(answer, dict) else answer

    def wait_state(self, *wanted, timeout=PATIENCE):
        """The session gets there; returns the status."""
        def reached():
            self.child.check_running()
            status = self.control("status")
            return status if status["state"] in wanted else None
        try:
            return wait_for(f"the session to be {' or '.join(wanted)}", reached, timeout, 0.05)
        except Failure as failure:
            raise Failure(f"{failure}; it is {self.control('status')}") from None

    def check_refused(self, timeout=PATIENCE):
        """It gave the migration up by itself, crashed nowhere, and says why."""
        def over():
            if not self.child.running():
                return {"exit": self.child.proc.returncode}
            status = self.control("status")
            turned_away = status["state"] == "idle" and " refused: " in self.child.errors()
            return status if status["state"] == "failed" or turned_away else None
        end = wait_for("postcopyd to refuse", over, timeout, 0.05)
        check(end.get("exit", 1) > 0, f"postcopyd ended with {end.get('exit')}")
        reason = (end.get("error") or {}).get("reason") or self.child.errors().strip()
        check(reason, "it does not say why it refused")
        check(not self.runs_here(), "the VM was told to run here")
        return reason

    def check_counters(self, trace, faults=True):
        """O2, O4, O15: what was owed was placed once; its counters are what was on the wire.

        @faults: somebody must have touched what was missing.
        """
        counters = Counters(self.control("stats"), self.control("blocks"))
        self.case.note(f"{counters.faults()} faults, p50 {counters.latency()['p50_ns']} ns, "
                       f"p99 {counters.latency()['p99_ns']} ns")
        for what, count in counters.must_be_zero().items():
            check_equal(count, 0, what)
        check_equal(counters.not_here(), {}, "pages not here")
        check_equal(counters.requests(), len(trace.requests), "requests it counted")
        check_equal(counters.requested_pages(), trace.requested_pages(), "pages it asked for")
        owed = {name: block.owed_pages() for name, block in trace.blocks.items()}
        check_equal(counters.owed(), owed, "owed pages by block")
        check_equal(counters.placed(), sum(owed.values()), "pages placed, of those owed")
        if faults and trace.finished_as == "postcopy":
            check(counters.faults() > 0, "no fault at all was served")


class PostcopydDestination(Postcopyd):
    """postcopyd, a main sharer and a second sharer of the same memory, both touching at random."""

    PROGRAMS = (*Postcopyd.PROGRAMS, "tests/lib/sharer")

    def __init__(self, case, uri, source, threads=2, touch_from="listening", loaded_after=0,
                 second=True, tag="", daemon=(), within=()):
        super().__init__(case, uri, source, tag)
        self.within = within
        self._touch = ["--threads", str(threads), "--seed", str(case.seed)]
        self.child = self._start_daemon(["vm", "second"] if second else ["vm"], daemon)
        self.main = self._start_sharer("vm", "create", [
            "--role", "main", "--touch-from", touch_from, "--loaded-after", str(loaded_after)])
        self.sharers = [self.main]
        if second:
            path = wait_event(self.main, "memfd", block=RAM_BLOCK)["path"]
            self.sharers.append(self._start_sharer("second", path, ["--role", "sharer"]))
        for sharer in self.sharers:
            wait_event(sharer, "ready")

    def _start_sharer(self, name, memfd, options):
        block = f"{RAM_BLOCK},size={self.source.length},memfd={memfd}"
        if self.source.backend == "hugetlb":
            block += ",hugetlb=on"
        return self.case.spawn(f"sharer-{name}{self.tag}", [
            built("tests/lib/sharer"), "--socket", os.path.join(self.run_dir, "register"),
            "--name", name, "--block", block, *self._touch, *options])

    def add_sharer(self, name, seed):
        """One that comes late, and touches in another order than those that were there."""
        path = wait_event(self.main, "memfd", block=RAM_BLOCK)["path"]
        options = ["--role", "sharer", "--threads", "4", "--seed", str(seed)]
        self.sharers.append(self._start_sharer(name, path, options))

    def wait_listening(self, timeout=PATIENCE):
        for sharer in self.sharers:
            wait_event(sharer, "listening", timeout)

    def wait_complete(self, timeout=PATIENCE):
        for sharer in self.sharers:
            wait_event(sharer, "complete", timeout)
            wait_event(sharer, "touched", timeout)

    def ram(self):
        return open_ram(self.case, self.main)

    def runs_here(self):
        """The VM was told to run here."""
        return find_event(self.main, "running") is not None

    def check_digests(self):
        """Both sharers see one memory, and it is the source's."""
        seen = {wait_event(s, "digest", block=RAM_BLOCK)["xxh3_128"] for s in self.sharers}
        check_equal(len(seen), 1, "different digests of one memory")
        tool = built("tests/lib/xxh3sum")
        if tool and self.source.ram is not None:
            path = f"/proc/{os.getpid()}/fd/{self.source.ram}"
            done = subprocess.run([tool, path], capture_output=True, text=True, timeout=PATIENCE,
                                  check=True)
            check_equal(seen, {done.stdout.strip()}, "XXH3 of the sharers' and the source's RAM")

    def check_package(self, trace):
        """The package is handed on unchanged: to the main sharer and to --device-state."""
        with open(self.device_state, "rb") as f:
            stored = f.read()
        check_equal(stored, trace.package, "the file of --device-state")
        check_equal(os.stat(self.device_state).st_mode & 0o777, 0o600, "its mode")
        check_equal(wait_event(self.main, "package")["bytes"], len(trace.package),
                    "bytes of the package the main sharer got")
