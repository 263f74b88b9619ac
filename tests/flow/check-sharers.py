#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sharers that join, leave, die, hang and misbehave while faults are served.  (F15, F16, F17, S1-05 … S1-40, O10, O11)"""
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import S2D, Relay  # noqa: E402
from service import BLOCK, PAGE, STORED, ZERO, Service, missing_programs  # noqa: E402


def trio(case, *source_options, options=(), policy=None, **more):
    """A main sharer, a second one whose fate it is, a third; the source answers only what is asked."""
    service = Service(case, *options, expect=("vm", "victim", "other"))
    vm = service.sharer("vm", "main")
    extra = dict(more, **({"policy": policy} if policy else {}))
    victim = service.sharer("victim", **extra)
    other = service.sharer("other")
    source = service.patient_source(*source_options)
    vm.event("running")
    return service, vm, victim, other, source


def finish(service, source, *sharers):
    service.check_same(source, sharers=sharers)


# --- joining ------------------------------------------------------------------------------------

def joins_while_faults_run(case):
    """S1-06 S1-07: a third sharer starts while others wait, is told LISTENING and touches everything."""
    service = Service(case, expect=("vm", "second"))
    vm = service.sharer("vm", "main")
    second = service.sharer("second")
    # held until the third was looked at: how long it takes to start is nothing that a delay could know
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    source = service.patient_source(to=relay.uri)
    vm.event("running")
    vm.do(f"touch {BLOCK} {3 * PAGE} 1")
    second.do(f"touch {BLOCK} {3 * PAGE} 1")
    service.wait_waiting("vm", 1)
    third = service.sharer("third", threads=8)
    third.event("listening")
    check_equal(service.of("vm")["waiting"], 1, "threads that wait while the third joins")
    relay.release()
    check_equal(third.event("touched")["pages"], service.size // PAGE, "pages it touched")
    check_equal(vm.saw(3 * PAGE), second.saw(3 * PAGE), "what the others saw")
    finish(service, source, vm, second, third)


def joins_many_times(case):
    """S1-07 S1-27: registered and faulting at once, each leaves; no fault is lost."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.patient_source()
    vm.event("running")
    pages = service.size // PAGE // 8
    for number in range(6):
        # other pages than those before it touched, so that they are not all here
        late = service.sharer(f"late{number}", threads=2, seed=case.seed + number, leave_after=pages)
        touched = late.event("touched")
        check_equal(touched["pages"], pages, "pages it touched")
        check(touched["faulted"], f"nothing was missing: {touched}")
        late.event("left")
        left = service.wait_sharer(late.name, "left")
        check_equal(left["error"]["errno"], 0, "errno of one that left")
        late.child.stop()
    # the last one brings the end, and leaves while the daemon has to do with it
    last = service.sharer("last", threads=2)
    last.event("touched")
    last.do("unmap")
    last.do("leave")
    finish(service, source, vm)


def joins_after_the_end(case):
    """Everything is here: it is told so, and nothing of it stays registered, so that it never waits."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.source()
    service.check_same(source)
    late = service.sharer("late")
    late.event("listening")
    service.check_same(source, sharers=[late])
    late.do(f"give {BLOCK} 0 4")
    late.do(f"touch {BLOCK} 0 4")
    for page in range(4):
        check_equal(late.saw(page * PAGE, timeout=5), ZERO, "a page that was given back")
    vm.do(f"touch {BLOCK} 0 1")
    check_equal(vm.saw(0, timeout=5), ZERO, "a page that was given back")


# --- leaving -------------------------------------------------------------------------------------

def leaves(case):
    """S1-05 S1-27: EBUSY while it maps the memory, then it may go, and nobody else is disturbed."""
    service, vm, victim, other, source = trio(case)
    victim.do("leave", error=16)
    victim.do("unmap")
    victim.do("leave")
    check_equal(service.wait_sharer("victim", "left")["error"]["errno"], 0, "errno of one that left")
    other.do(f"touch {BLOCK} 0 8")
    other.saw(7 * PAGE)
    finish(service, source, vm, other)


# --- dying ----------------------------------------------------------------------------------------

def dies_while_it_waits(case, policy, state):
    service, vm, victim, other, source = trio(case, "--fault", f"delay=700@page:{BLOCK}/3",
                                              policy=policy)
    victim.do(f"touch {BLOCK} {3 * PAGE} 1")
    service.wait_waiting("victim", 1)
    other.do(f"touch {BLOCK} {3 * PAGE} 1")
    victim.child.kill(signal.SIGKILL)
    victim.child.wait()
    start = time.monotonic()
    service.wait_sharer("victim", "dead")
    check(time.monotonic() - start < 2, "its death was noticed late")
    check("ended" in service.reason("victim"), f"reason: {service.reason('victim')!r}")
    if state == "paused":
        status = service.wait_state("paused")
        check("victim" in status["error"]["reason"], f"reason: {status['error']}")
        vm.event("paused")
        source.child.check_running()
        check(not other.has("disabled"), "the other was disabled, too")
        return
    other.saw(3 * PAGE)
    other.do(f"touch {BLOCK} {64 * PAGE} 16")
    other.saw(79 * PAGE)
    finish(service, source, vm, other)


def dies_ignored(case):
    dies_while_it_waits(case, "ignore", "running")


def dies_disabled(case):
    dies_while_it_waits(case, "disable", "running")


def dies_fatally(case):
    dies_while_it_waits(case, "fail", "paused")


def dies_before_the_commit(case):
    """Policy fail, before PONG 0x42: refused, and the source resumes its VM."""
    service = Service(case, expect=("vm", "victim"))
    vm = service.sharer("vm", "main", loaded_after=5000)
    victim = service.sharer("victim", policy="fail")
    source = service.source("--commit-ping")
    victim.event("listening")
    victim.child.kill()
    status = service.wait_state("failed")
    check("victim" in status["error"]["reason"], f"reason: {status['error']}")
    vm.event("failed")
    source.ended("source-resumes")
    check(not vm.has("running"), "it was told to run")


def main_sharer_dies(case):
    """The VMM is gone: by default that is PAUSED; what is here is served on, the connection is kept."""
    service, vm, _, other, source = trio(case)
    other.do(f"touch {BLOCK} 0 1")
    word = other.saw(0)
    vm.child.kill()
    status = service.wait_state("paused")
    check("vm" in status["error"]["reason"], f"reason: {status['error']}")
    late = service.sharer("late", memory="memfd=" + other.path())
    time.sleep(0.2)
    check(not late.has("listening"), "a sharer was taken in while the session is paused")
    source.child.check_running()
    check(word != ZERO, "zeroes")


def main_sharer_dies_alone(case):
    """The same with policy disable: the others go on to the end, placed through our own mapping."""
    service = Service(case, expect=("vm", "victim", "other"))
    vm = service.sharer("vm", "main", policy="disable")
    victim = service.sharer("victim")
    other = service.sharer("other")
    source = service.patient_source()
    vm.event("running")
    vm.child.kill()
    service.wait_sharer("vm", "dead")
    other.do(f"touch {BLOCK} 0 8")
    victim.do(f"touch {BLOCK} 0 8")
    other.saw(7 * PAGE)
    victim.saw(7 * PAGE)
    check_equal(service.status()["state"], "running", "state")
    finish(service, source, victim, other)


# --- hanging ---------------------------------------------------------------------------------------

def vmm_is_tried_again(case):
    """Before the commit a VMM that dies is replaced: the new one gets the package, and its "loaded" commits."""
    service = Service(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main", policy="disable", loaded_after=20000)
    other = service.sharer("other")
    source = service.source("--commit-ping")
    vm.event("package")
    vm.child.kill()
    service.wait_sharer("vm", "dead")
    again = service.sharer("vm2", "main", memory="memfd=" + other.path(), loaded_after=300)
    again.event("package")
    check(not again.has("running"), "told to run before it loaded")
    again.event("running")
    finish(service, source, other, again)


def vm_has_no_second_life(case):
    """Once the VM has run, its device state is history: no other VMM gets it."""
    service = Service(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main", policy="disable")
    other = service.sharer("other")
    source = service.patient_source()
    vm.event("running")
    vm.child.kill()
    service.wait_sharer("vm", "dead")
    again = service.sharer("vm2", "main", memory="memfd=" + other.path())
    check("history" in again.event("error")["text"], again.event("error"))
    check(not again.has("package"), "it got the package")
    finish(service, source, other)


def truncates(case):
    """Whoever has the memory can truncate it while content comes: the session is refused, the daemon lives."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.source("--precopy", "half", "--rate", "1M", "--fault", f"delay=400@page:{BLOCK}/8")
    vm.event("ready")
    service.wait_state("advised")
    vm.event("ready")
    os.truncate(vm.path(), 0)
    status = service.wait_state("failed")
    check("truncated" in status["error"]["reason"], f"reason: {status['error']}")
    source.ended("source-resumes")
    service.child.check_running()


def told_to_stop(case):
    """SIGTERM before the commit: refused in order, the source's VM goes on."""
    service = Service(case)
    vm = service.sharer("vm", "main", loaded_after=20000)
    source = service.source("--commit-ping")
    vm.event("package")
    service.child.kill(signal.SIGTERM)
    check("stop" in vm.event("failed")["text"], vm.event("failed"))
    source.ended("source-resumes")
    service.ended(1)


def hangs(case):
    """SIGSTOP: the others go on as fast as before."""
    service = Service(case, expect=("vm", "victim", "other"), size=8 << 20)
    vm = service.sharer("vm", "main")
    victim = service.sharer("victim")
    other = service.sharer("other")
    source = service.patient_source()
    vm.event("running")
    victim.tell(f"touch {BLOCK} 0 64")

    def median_of(first):
        other.do(f"touch {BLOCK} {first * PAGE} 200")
        for page in range(first, first + 200):
            other.saw(page * PAGE)
        times = sorted(e["us"] for e in other.all("saw")
                       if first * PAGE <= e["offset"] < (first + 200) * PAGE)
        return times[100]
    before = median_of(200)
    victim.child.freeze()
    during = median_of(600)
    check(during < 20 * before, f"touches took {before} us, and {during} us beside a stopped sharer")
    check_equal(service.of("victim")["state"], "active", "state of the stopped one")
    victim.child.thaw()
    victim.saw(63 * PAGE)
    finish(service, source, vm, victim, other)


# --- closing its socket ------------------------------------------------------------------------------

def hangs_up(case):
    """O11: its threads stay blocked; they never read zeroes while pages are missing."""
    service, vm, victim, other, source = trio(case, "--fault", f"delay=1200@page:{BLOCK}/3")
    victim.do(f"touch {BLOCK} {3 * PAGE} 1")
    service.wait_waiting("victim", 1)
    victim.do("hangup")
    service.wait_sharer("victim", "disabled")
    check("without leaving" in service.reason("victim"), service.reason("victim"))
    victim.do(f"touch {BLOCK} {100 * PAGE} 8")
    time.sleep(0.3)
    check(not victim.all("saw"), f"it saw something: {victim.all('saw')}")
    other.do(f"touch {BLOCK} {100 * PAGE} 8")
    other.saw(107 * PAGE)
    # pages that are here by now cost no fault; those that are not must not be zeroes
    finish(service, source, vm, other)
    for seen in victim.all("saw"):
        check(seen["word"] != ZERO, f"it read zeroes: {seen}")


def hangs_up_ignored(case):
    """Policy ignore: it is served on."""
    service, vm, victim, other, source = trio(case, policy="ignore")
    victim.do("hangup")
    wait_for("the log to say so", lambda: "is served on" in service.log())
    victim.do(f"touch {BLOCK} 0 8")
    for page in range(8):
        check(victim.saw(page * PAGE) != ZERO, "zeroes")
    check_equal(service.of("victim")["state"], "active", "state")
    finish(service, source, vm, other)


def hangs_up_fatally(case):
    service, vm, victim, _, source = trio(case, policy="fail")
    victim.do("hangup")
    status = service.wait_state("paused")
    check("victim" in status["error"]["reason"], f"reason: {status['error']}")
    vm.event("paused")
    source.child.check_running()


# --- misbehaving ---------------------------------------------------------------------------------------

def touch_until(service, victim, state):
    """
    The kernel tells of the flag only when it looks at the descriptor again, which a crowd of faults makes
    it do; until then faults are served as ever, and no read of ours waits for more of them.
    """
    for page in range(0, 960, 64):
        victim.do(f"touch {BLOCK} {page * PAGE} 64")
        time.sleep(0.02)
        if service.of("victim")["state"] == state:
            return
    check(False, f"{state} was not noticed by 960 faults")


def made_blocking(case, policy, state):
    """S1-22 S1-23: POLLERR costs it its service, one line in the log, and no CPU."""
    service, vm, victim, other, source = trio(case, policy=policy)
    victim.do("blocking")
    touch_until(service, victim, "disabled")
    check("blocking" in service.reason("victim"), service.reason("victim"))
    victim.event("disabled")
    before = service.cpu()
    time.sleep(0.5)
    check(service.cpu() - before < 0.1, f"it used {service.cpu() - before:.2f} s of 0.5 s")
    check(service.log().count("POLLERR") <= 1, "more than one line in the log")
    check(all(s["word"] != ZERO for s in victim.all("saw")), "it saw zeroes")
    if state == "paused":
        service.wait_state("paused")
        source.child.check_running()
        return
    other.do(f"touch {BLOCK} {1000 * PAGE} 4")
    check(other.saw(1000 * PAGE) != ZERO, "zeroes")
    finish(service, source, vm, other)


def made_blocking_disabled(case):
    made_blocking(case, "disable", "running")


def made_blocking_fatal(case):
    made_blocking(case, "fail", "paused")


def touches_outside(case):
    """S1-16: a fault where it declared nothing ends it alone, with the address."""
    service, vm, victim, other, source = trio(case)
    victim.do("outside")
    service.wait_sharer("victim", "disabled")
    check("outside" in service.reason("victim") and "0x" in service.reason("victim"),
          service.reason("victim"))
    other.do(f"touch {BLOCK} 0 4")
    check(other.saw(0) != ZERO, "zeroes")
    finish(service, source, vm, other)


CASES = [
    ("S1-06 S1-07 a sharer joins while faults run", joins_while_faults_run),
    ("S1-07 S1-27 registered and faulting at once, again and again; leaving", joins_many_times),
    ("F15 a sharer that joins after the end waits for nothing", joins_after_the_end),
    ("S1-05 S1-27 one leaves: EBUSY while mapped, then LEFT", leaves),
    ("O10 S1-38 killed while waiting, policy ignore", dies_ignored),
    ("O10 S1-38 killed while waiting, policy disable", dies_disabled),
    ("O10 S1-26 killed while waiting, policy fail: PAUSED", dies_fatally),
    ("S1-26 killed before the commit, policy fail: the source resumes", dies_before_the_commit),
    ("O10 the main sharer is killed: PAUSED, its connection kept", main_sharer_dies),
    ("O10 the main sharer is killed, policy disable: others are served to the end", main_sharer_dies_alone),
    ("O10 the VMM dies before the commit: another one loads", vmm_is_tried_again),
    ("O10 the VMM dies after the commit: no second VM from its state", vm_has_no_second_life),
    ("O14 one truncates the memory while content comes: refused, no crash", truncates),
    ("F59 told to stop before the commit: the source goes on", told_to_stop),
    ("S1-24 S1-28 one hangs: the others are as fast as before", hangs),
    ("O11 one closes its socket: its threads stay blocked", hangs_up),
    ("O11 one closes its socket, policy ignore: served on", hangs_up_ignored),
    ("S1-26 one closes its socket, policy fail: PAUSED", hangs_up_fatally),
    ("S1-22 S1-23 made blocking: disabled, one line, no CPU", made_blocking_disabled),
    ("S1-26 made blocking, policy fail: PAUSED", made_blocking_fatal),
    ("S1-16 a fault outside of what it declared", touches_outside),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
