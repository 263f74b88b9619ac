#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that is gone for good: the stated outcome of each policy, and only that.  (F59)"""
import os
import stat
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, missing_programs  # noqa: E402

HUGE = 2 * MIB
HERE = 8                        # pages that came before the source was lost
LOST = 100                      # the page that is touched afterwards
LATER = 101                     # and one that nobody touches


def process_state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as line:
        return line.read().rsplit(")", 1)[1].split()[0]


class Scene:
    """Two sharers that run, and a source that dies with most of the memory."""

    def __init__(self, case, policy, *options, memory="memfd=create,alias=on", others=("other",), **more):
        self.service = Service(case, f"--on-loss={policy}", *options, expect=("vm", *others), **more)
        self.vm = self.service.sharer("vm", "main", memory=memory)
        self.others = [self.service.sharer(name) for name in others]
        self.everybody = [self.vm, *self.others]
        self.source = self.service.patient_source()
        self.vm.event("running")
        self.vm.do(f"touch {BLOCK} 0 {HERE}")
        self.words = [self.vm.saw(page * PAGE) for page in range(HERE)]

    def lose(self):
        self.source.child.kill()
        return self.service.wait_state("paused")

    def present_goes_on(self):
        """Whoever touches what is here has it, as it was."""
        for sharer in self.everybody[1:]:
            sharer.do(f"touch {BLOCK} 0 {HERE}")
            check_equal([sharer.saw(page * PAGE) for page in range(HERE)], self.words,
                        f"pages that came, as {sharer.name} sees them")

    def block(self):
        return next(b for b in self.service.control("blocks") if b["name"] == BLOCK)

    def nobody_saw(self, page):
        for sharer in self.everybody:
            check(not sharer.has_seen(page * PAGE), f"{sharer.name} saw page {page}, which is lost")


def poisoned(scene, after):
    """Who waits gets SIGBUS, when it has waited; who comes later, at once; nobody else anything."""
    vm, rest = scene.vm, scene.others
    vm.do(f"touch {BLOCK} {LOST * PAGE} 1")
    scene.service.wait_waiting("vm", 1)
    scene.present_goes_on()
    told = vm.event("lost", offset=LOST * PAGE, alias=False)
    check(told["us"] >= after * 1e6, f"given up after {told['us'] / 1e6} s")
    for sharer in rest:
        sharer.do(f"touch {BLOCK} {LOST * PAGE} 1")
        sharer.event("lost", offset=LOST * PAGE)
    block = wait_for("the page to be counted", lambda: scene.block()["lost"] and scene.block())
    check_equal(block["lost"], 1, "pages given up")
    check_equal(block["unplaced"], 0, "pages without a place")
    check_equal(scene.service.stats()["lost"], 1, "pages given up, of the stats")
    scene.nobody_saw(LOST)
    scene.present_goes_on()
    status = scene.service.status()
    check_equal(status["state"], "paused", "state")
    check_equal(status["owed_pages_left"], block["missing"], "pages owed still")
    wait_for("the event of it", lambda: "given up" in (scene.service.status()["on_loss"]["text"] or ""))


def poison_shared(case):
    scene = Scene(case, "poison,after=1")
    scene.lose()
    poisoned(scene, 1)
    scene.vm.do(f"touch {BLOCK} {LOST * PAGE} 1 alias")
    scene.vm.event("lost", offset=LOST * PAGE, alias=True)
    scene.vm.do(f"store {BLOCK} {LOST * PAGE} 1")
    wait_for("a write to be told, too", lambda: len(scene.vm.all("lost", alias=False)) == 2)
    check(process_state(scene.vm.pid) != "T" and process_state(scene.vm.pid) != "Z", "the VM lives")
    check("poison" in scene.service.wait_blocker("on-loss"), "the blocker says what is done")




def poison_private(case):
    scene = Scene(case, "poison,after=1", memory="private=on", others=())
    scene.lose()
    poisoned(scene, 1)


def poison_huge(case):
    """2 MiB at a time: a whole page of it is lost, in both processes, and its neighbours come on."""
    keeper = case.spawn("hugepages", [built("tests/lib/with_hugepages"), "4", "/bin/sh", "-c",
                                      "echo here; exec sleep 300"])
    wait_for("huge pages", lambda: keeper.lines() or not keeper.running(), 120)
    check(keeper.lines(), f"no huge pages: {keeper.errors()}")
    service = Service(case, "--on-loss=poison,after=1", expect=("vm", "other"), size=4 * HUGE)
    vm = service.sharer("vm", "main", memory="hugetlb=on")
    other = service.sharer("other", memory=f"memfd={vm.path()},hugetlb=on")
    source = service.patient_source(blocks=[f"{BLOCK},size={service.size},page=2M"])
    vm.event("running")
    vm.do(f"touch {BLOCK} 0 1")
    word = vm.saw(0)
    source.child.kill()
    service.wait_state("paused")
    vm.do(f"touch {BLOCK} {2 * HUGE} 1")
    vm.event("lost", offset=2 * HUGE)
    other.do(f"touch {BLOCK} {2 * HUGE} 1")
    other.event("lost", offset=2 * HUGE)
    other.do(f"touch {BLOCK} 0 1")
    check_equal(other.saw(0), word, "the page that came")
    block = next(b for b in service.control("blocks") if b["name"] == BLOCK)
    check_equal((block["lost"], block["present"], block["missing"]), (1, 1, 2), "lost, present and missing pages")
    check(not vm.has_seen(2 * HUGE) and not other.has_seen(2 * HUGE), "somebody saw a page that is lost")


def wait_ends_nothing(case):
    scene = Scene(case, "wait")
    scene.lose()
    scene.vm.do(f"touch {BLOCK} {LOST * PAGE} 1")
    scene.service.wait_waiting("vm", 1)
    time.sleep(1.5)
    scene.present_goes_on()
    scene.nobody_saw(LOST)
    check(not scene.vm.has("lost"), "a thread was told that its page is lost")
    check_equal(scene.block()["lost"], 0, "pages given up")
    check("without end" in scene.service.wait_blocker("on-loss"), "the blocker")
    check_equal(scene.service.of("vm")["waiting"], 1, "threads that wait")
    check(process_state(scene.vm.pid) in "SR", "the VM lives")


def freeze_by_signal(case):
    scene = Scene(case, "freeze,after=1")
    scene.lose()
    scene.vm.do(f"touch {BLOCK} {LOST * PAGE} 1")
    wait_for("the VM to be stopped", lambda: process_state(scene.vm.pid) == "T")
    check_equal(process_state(scene.others[0].pid), "S", "state of the other sharer")
    scene.present_goes_on()
    loss = wait_for("the status to say so", lambda: scene.service.status()["on_loss"]["stage"] == "frozen"
                    and scene.service.status()["on_loss"])
    check("SIGSTOP" in loss["text"], loss["text"])
    check_equal(scene.block()["lost"], 0, "pages given up")
    check_equal(scene.service.of("vm")["waiting"], 1, "threads that wait")
    os.kill(scene.vm.pid, 18)
    scene.nobody_saw(LOST)


def freeze_by_hook(case):
    program, said = case.path("hook"), case.path("said")
    with open(program, "w", encoding="ascii") as out:
        out.write(f"#!/bin/sh\necho \"$1 $POSTCOPY_STATE\" >>{said}\n")
    os.chmod(program, os.stat(program).st_mode | stat.S_IXUSR)
    scene = Scene(case, "freeze,after=1", f"--hook={program}")
    scene.lose()

    def events():
        with open(said, encoding="ascii") as lines:
            return lines.read().split("\n")
    wait_for("the hook to hear of it", lambda: "lost paused" in events())
    check(process_state(scene.vm.pid) in "SR", "the VM is the hook's to stop")
    check_equal(events().count("lost paused"), 1, "how often it was told")
    scene.present_goes_on()


def kill_the_vm(case):
    scene = Scene(case, "kill,after=1")
    scene.lose()
    scene.vm.do(f"touch {BLOCK} {LOST * PAGE} 1")
    check_equal(scene.vm.child.wait(30), -9, "how the VM ended")
    status = wait_for("the end to be told",
                      lambda: "no VM any more" in ((scene.service.status()["error"] or {}).get("reason") or "")
                      and scene.service.status())
    check_equal(status["state"], "paused", "state")
    check(status["held"], "it is held: no source can mend it")
    check_equal(process_state(scene.others[0].pid), "S", "state of the other sharer")
    scene.present_goes_on()


def kill_ends_the_daemon(case):
    scene = Scene(case, "kill,after=1", stay=False)
    scene.lose()
    check_equal(scene.vm.child.wait(30), -9, "how the VM ended")
    scene.service.ended(1)
    check("no VM any more" in scene.service.log(), "the log says why")
    check_equal(process_state(scene.others[0].pid), "S", "state of the other sharer")


if __name__ == "__main__":
    missing = missing_programs()
    if missing:
        skip_all("not built: " + " ".join(missing))
    main([
        ("F59 poison: who waits too long is told, and nobody else", poison_shared),
        ("F59 poison: private memory", poison_private),
        ("F59 poison: huge pages", poison_huge),
        ("F59 wait: nothing ends", wait_ends_nothing),
        ("F59 freeze: by a signal, and only the VM", freeze_by_signal),
        ("F59 freeze: by the hook, told once", freeze_by_hook),
        ("F59 kill: the VM and nobody else, held and told", kill_the_vm),
        ("F59 kill: the daemon ends with a failure", kill_ends_the_daemon),
    ])
