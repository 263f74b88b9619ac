#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything at once, for a while: rules of fault injection come and go, sharers join, leave and die, the source is cut
off and comes again, the worker is killed and followed, and all sharers touch memory and look at what they find, each
time.  At the end all is there, and the daemon is as large as it was.  (F59, F61, F69)

One minute; ten with POSTCOPY_TESTS_LONG=1.
"""
import json
import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Failure, check, check_equal, main, signals_end, skip_all, wait_for  # noqa: E402
from relay import Relay  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, missing_programs  # noqa: E402

SECONDS = 600 if os.environ.get("POSTCOPY_TESTS_LONG") == "1" else 60
SIZE = 64 * MIB
RULES = 6                               # at a time
#: Whatever of these is there, every page comes, and is right.  (ESRCH through both address spaces is another matter.)
HARMLESS = (
    "fault.read delay={ms}", "fault.read duplicate", "fault.read drop", "request.send delay={ms}", "request.send drop",
    "receive.main delay={ms}", "receive.urgent delay={ms}", "place.copy enomem", "place.copy eagain",
    "place.zero eagain", "place.zero enomem", "wake delay={ms}", "wake duplicate", "sharer.read wedge",
    "page.claimed stall={few}", "page.placed stall={few}", "page.published stall={few}", "fault.parked stall={few}",
    "receive.page stall={few}",
)


class Soak:
    """One session; each step is one of its methods, by chance."""

    def __init__(self, case):
        self.case = case
        self.random = case.random
        path = case.path("image")
        self.image = bytearray(self.random.randbytes(SIZE))
        for page in range(0, SIZE, 5 * PAGE):
            self.image[page:page + PAGE] = bytes(PAGE)
        with open(path, "wb") as file:
            file.write(self.image)
        self.service = Service(case, "--keeper", "--enable-faults", "--fault-seed", str(case.seed + 1), size=SIZE)
        self.vm = self.service.sharer("vm", "main")
        self.relay = Relay(case, "unix:" + case.path("relay"), self.service.uri)
        self.source = self.service.patient_source("--preempt", "--reconnect", to=self.relay.uri,
                                                  blocks=[f"{BLOCK},size={SIZE},file={path}"])
        self.vm.event("running")
        self.others, self.joined, self.looked, self.rules, self.looks = [], 0, {}, 0, 0
        self.counts, self.ready = {}, set()

    def rule(self):
        if len(self.service.faults()) >= RULES:
            self.no_rule()
            return
        words = self.random.choice(HARMLESS).format(ms=self.random.randrange(1, 60), few=self.random.randrange(1, 4))
        chance = self.random.choice((["--every", str(self.random.randrange(2, 9))], ["--probability", "20%"]))
        if "wedge" in words or "drop" in words:
            chance = ["--count", str(self.random.randrange(1, 4))]
        self.service.fault(*words.split()[:1], *chance, *words.split()[1:])
        self.rules += 1

    def no_rule(self):
        there = list(self.service.faults())
        if there:
            self.service.fault_remove(self.random.choice(there))

    def worker(self):
        """The process that serves; None: there is none just now."""
        with open(f"/proc/{self.service.pid}/task/{self.service.pid}/children", encoding="ascii") as children:
            found = children.read().split()
        return int(found[0]) if found else None

    def kill(self):
        """Its rules die with it."""
        worker = self.worker()
        if worker:
            os.kill(worker, self.random.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)))

    def cut(self):
        self.relay.cut()

    def goes_on(self):
        """It serves, and has its source."""
        try:
            return self.service.status()["state"] == "running"
        except Failure:
            return False

    def join(self):
        if len(self.others) < 4:
            self.joined += 1
            self.others.append(self.service.sharer(f"s{self.joined}", policy="ignore"))

    def leave(self):
        """One of them is killed, whatever it waits for."""
        if self.others:
            self.end(self.others.pop(self.random.randrange(len(self.others))))

    def end(self, sharer):
        self.verify(sharer)
        self.looked.pop(sharer.name, None)
        sharer.child.kill(signal.SIGKILL)
        sharer.child.wait()
        self.service.sharers.remove(sharer)

    def touch(self):
        for sharer in [self.vm, *self.others]:
            self.verify(sharer)
            if sharer.name not in self.ready:
                continue
            first = self.random.randrange(SIZE // PAGE - 8)
            sharer.tell(f"touch {BLOCK} {first * PAGE} {self.random.randrange(1, 8)}")

    def news(self, sharer):
        """What it said since the last time; whole lines only."""
        with open(sharer.child.out_path, "rb") as said:
            said.seek(self.looked.get(sharer.name, 0))
            text = said.read()
        text = text[:text.rfind(b"\n") + 1]
        self.looked[sharer.name] = self.looked.get(sharer.name, 0) + len(text)
        return [json.loads(line) for line in text.splitlines()]

    def verify(self, sharer):
        for event in self.news(sharer):
            if event["event"] == "listening":
                self.ready.add(sharer.name)
            if event["event"] != "saw":
                continue
            at = event["offset"]
            wanted, = struct.unpack_from("=Q", self.image, at)
            check_equal(event["word"], f"{wanted:016x}", f"{sharer.name}: what is at {at:#x}")
            self.looks += 1

    def kib(self, what):
        with open(f"/proc/{self.worker()}/status", encoding="ascii") as status:
            return int([line for line in status if line.startswith(what + ":")][0].split()[1])

    def memory(self):
        """KiB that are the daemon's own: what it maps of its sharers is theirs."""
        return self.kib("RssAnon")

    def may_grow(self):
        """A sanitizer, to be told by the terabytes that it maps, keeps what was freed for a while."""
        return 4096 if self.kib("VmSize") < 1 << 30 else 300 << 10

    def fds(self):
        """Of keeper and worker."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (self.service.pid, self.worker()))

    def step(self):
        name, = self.random.choices(("rule", "no_rule", "join", "leave", "touch", "cut", "kill"),
                                    (30, 20, 10, 10, 120, 1, 1))
        self.counts[name] = self.counts.get(name, 0) + 1
        try:
            getattr(self, name)()
        except Failure:
            # a question that a worker took with it; what sharers saw is another matter
            if name not in ("rule", "no_rule") or self.goes_on():
                raise
        time.sleep(0.01)


def soak(case):
    s = Soak(case)
    end = time.monotonic() + SECONDS
    memory = None
    while time.monotonic() < end:
        s.step()
        if s.random.randrange(200) == 0:
            wait_for("the session to go on", s.goes_on)
        if memory is None and s.joined >= 4 and s.rules >= 8 and s.goes_on():
            memory = s.memory()
    case.note(f"{s.counts}; {s.joined} sharers, {s.rules} rules, {s.looks} looks")
    wait_for("the session to go on", s.goes_on)
    s.service.fault_remove()
    while s.others:
        s.leave()
    wait_for("the others to be gone", lambda: not [x for x in s.service.control("sharers")
                                                   if x["state"] == "active" and x["name"] != "vm"])
    fds = s.fds()
    s.join()
    s.others[0].event("listening")
    s.end(s.others.pop())
    wait_for("descriptors to be as many as before", lambda: s.fds() <= fds)
    grown = s.memory() - memory
    check(grown < s.may_grow(), f"the daemon has grown by {grown} KiB")
    s.service.check_same(s.source)
    s.verify(s.vm)


if __name__ == "__main__":
    signals_end()
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main([("F59 F61 F69 a soak of faults, with sharers that come, go and die", soak)], limit=SECONDS + 180.0)
