#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that was thought to be gone for good, and comes again: what was given up stays so, all else comes.  (F59)"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import check, check_equal, main, skip_all, wait_for  # noqa: E402
from resumed import PAGE, ScriptSource  # noqa: E402
from service import BLOCK, Service, missing_programs  # noqa: E402

SIZE = 1 << 20
PAGES = SIZE // PAGE
HERE = 20
LOST = 100


def offsets(pages):
    return [page * PAGE for page in pages]


def process_state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as line:
        return line.read().rsplit(")", 1)[1].split()[0]


class Scene:
    """A VM that runs with its first pages, and has lost its source."""

    def __init__(self, case, policy):
        self.service = Service(case, f"--on-loss={policy}", expect=("vm", "other"), size=SIZE)
        self.vm = self.service.sharer("vm", "main", memory="memfd=create,alias=on")
        self.other = self.service.sharer("other")
        self.source = ScriptSource(self.service.uri, {BLOCK: (SIZE, PAGE)}, case.seed)
        case.defer(self.source.cut)
        self.source.start(False, False)
        self.vm.event("running")
        self.source.send(BLOCK, offsets(range(HERE)))
        wait_for("the first pages", lambda: self.block()["present"] + self.block()["zero"] == HERE)
        self.source.cut()
        self.service.wait_state("paused")

    def block(self):
        return next(b for b in self.service.control("blocks") if b["name"] == BLOCK)

    def recover(self, came):
        found = self.source.recover(False, False, None)
        check_equal(found[BLOCK], offsets(came), "what came, or must not come")
        self.service.wait_state("running")
        return found

    def finish(self, found, but=()):
        """All that is not lost comes, and is right, for both."""
        self.source.rest(found)
        self.source.completed()
        for sharer in (self.vm, self.other):
            sharer.event("complete")
        self.service.wait_state("complete")
        rest = [page for page in range(PAGES) if page not in but]
        for sharer in (self.vm, self.other):
            for page in rest:
                sharer.do(f"touch {BLOCK} {page * PAGE} 1")
            for page in rest:
                check_equal(sharer.saw(page * PAGE), self.source.shown(BLOCK, page * PAGE), f"page {page}")
        check_equal(self.service.stats()["alarms"], 0, "alarms")


def given_up(case):
    scene = Scene(case, "poison,after=1")
    vm, other = scene.vm, scene.other
    vm.do(f"touch {BLOCK} {LOST * PAGE} 1")
    vm.event("lost", offset=LOST * PAGE)
    found = scene.recover([*range(HERE), LOST])
    scene.source.send(BLOCK, offsets([LOST]))       # it comes all the same
    wait_for("that to be dropped", lambda: scene.service.stats()["lanes"]["main"]["duplicates"] == 1)
    late = scene.service.sharer("late")
    late.event("listening")
    for sharer, alias in ((other, False), (vm, True), (late, False)):
        sharer.do(f"touch {BLOCK} {LOST * PAGE} 1{' alias' if alias else ''}")
        sharer.event("lost", offset=LOST * PAGE, alias=alias)
    check_equal(scene.block()["lost"], 1, "pages given up")
    scene.finish(found, but=(LOST,))
    for sharer in (vm, other, late):                # behind the end, too
        count = len(sharer.all("lost"))
        sharer.do(f"touch {BLOCK} {LOST * PAGE} 1")
        wait_for("the page to be lost still", lambda: len(sharer.all("lost")) > count)    # pylint: disable=W0640
        check(not sharer.has_seen(LOST * PAGE), f"{sharer.name} saw a page that is lost")


def in_time(case):
    """What waits when the source comes again has its page, however soon that would have been over."""
    scene = Scene(case, "poison,after=4")
    scene.vm.do(f"touch {BLOCK} {LOST * PAGE} 1")
    scene.service.wait_waiting("vm", 1)
    found = scene.recover(range(HERE))
    time.sleep(4.5)
    check(not scene.vm.has("lost"), "it was given up while the source is there")
    scene.finish(found)


def thawed(case):
    scene = Scene(case, "freeze,after=1")
    wait_for("the VM to be stopped", lambda: process_state(scene.vm.pid) == "T")
    found = scene.recover(range(HERE))
    wait_for("the VM to go on", lambda: process_state(scene.vm.pid) in "SR")
    check_equal(scene.service.status()["on_loss"]["stage"], "none", "stage")
    check("goes on" in scene.service.status()["on_loss"]["text"], "what was done")
    scene.finish(found)


CASES = [
    ("F59 poison: what was given up stays lost, all else comes", given_up),
    ("F59 poison: a source that comes in time", in_time),
    ("F59 freeze: what was stopped goes on", thawed),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
