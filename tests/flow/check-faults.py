#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault injection: each point and action against a real daemon, real sharers and our source.  (F61, F69)"""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import Failure, built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from service import BLOCK, MIB, PAGE, PATIENT, ZERO, Service, missing_programs  # noqa: E402

RESUMES, LOST, UNKNOWN, DONE = "source-resumes", "postcopy-paused", "ownership-unknown", "completed"
#: It sends all without an answer, so it may be anywhere behind us; and that its package has left postcopy-source knows when
#: send() has returned, which may be after we have read it.
ANY_LOSS = (RESUMES, LOST, UNKNOWN)
#: Where a session can die, in order, and what then becomes of the source: without, and with a PING that commits.
MOMENTS = (
    ("session.accepted", ANY_LOSS, (RESUMES,)),
    ("session.advised", ANY_LOSS, (RESUMES,)),
    ("session.blocks", ANY_LOSS, (RESUMES,)),
    ("session.matched", ANY_LOSS, (RESUMES,)),
    ("session.switchover", ANY_LOSS, (RESUMES,)),
    ("session.package-begun", ANY_LOSS, (RESUMES,)),
    ("session.package", ANY_LOSS, (RESUMES,)),
    ("session.listening", ANY_LOSS, (RESUMES,)),
    ("session.loaded", ANY_LOSS, (RESUMES,)),
    ("session.before-pong", ANY_LOSS, (RESUMES,)),
    # the kernel has our answer: whether the source reads it before it sees us gone is open, and no VM runs here
    ("session.after-pong", ANY_LOSS, ANY_LOSS),
    ("session.running", (LOST, UNKNOWN), (LOST, UNKNOWN)),
    ("session.before-shut", (LOST, UNKNOWN), (LOST, UNKNOWN)),
    ("session.after-shut", (UNKNOWN, DONE), (UNKNOWN, DONE)),
    ("session.complete", (DONE,), (DONE,)),
)


def injected(case, *rules, **more):
    """@rules: or other options of the daemon."""
    return Service(case, "--enable-faults", "--fault-seed", str(case.seed + 1),
                   *[rule if rule.startswith("--") else f"--fault={rule}" for rule in rules], **more)


# --- dying ----------------------------------------------------------------------------------------

def dies(case, point, wanted, *source_options, death="kill", status=-signal.SIGKILL):
    service = injected(case, f"point={point},action=die={death}")
    service.sharer("vm", "main", threads=2)
    source = service.source(*source_options)
    check_equal(service.child.wait(), status, f"status of the daemon at {point}")
    check(f"dies at {point}, as rule 1 says" in service.log(), f"{point}: {service.log()}")
    outcome = source.summary()["outcome"]
    check(outcome in wanted, f"the source, when we die at {point}: {outcome}, not {wanted}")
    case.note(f"{point}: the source {outcome}")


def dies_at_each_moment(case):
    for point, plain, _ in MOMENTS:
        dies(case, point, plain)


def dies_at_each_moment_of_a_commit(case):
    for point, _, committing in MOMENTS:
        dies(case, point, committing, "--commit-ping", "--preempt")


def dies_with_a_page(case):
    for point in ("fault.parked", "page.claimed", "page.placed", "page.published"):
        wanted = ANY_LOSS if point == "fault.parked" else (LOST,)
        dies(case, point, wanted, *PATIENT)
        dies(case, point, wanted, *PATIENT, "--preempt")


def dies_paused(case):
    service = injected(case, "point=session.paused,action=die")
    vm = service.sharer("vm", "main")
    source = service.patient_source("--commit-ping")
    vm.event("running")
    service.fault("receive.main", "--count=1", "disconnect")
    vm.tell(f"touch {BLOCK} 0 1")
    check_equal(service.child.wait(), -signal.SIGKILL, "status of the daemon")
    check("dies at session.paused, as rule 1 says" in service.log(), service.log())
    source.child.stop()


def dies_in_each_way(case):
    dies(case, "session.running", ANY_LOSS, *PATIENT, death="abort", status=-signal.SIGABRT)
    dies(case, "session.running", ANY_LOSS, *PATIENT, death="segv", status=-signal.SIGSEGV)


def is_followed(case):
    """Under a keeper: who comes behind the one that died may be told to do wrong, and does none of it by itself."""
    service = injected(case, "point=session.advised,action=die=segv", "--keeper")
    service.sharer("vm", "main")
    source = service.source()
    wait_for("it to die", lambda: "dies at session.advised" in service.log())
    wait_for("a successor to say so", lambda: service.log().count("faults may be injected") == 2)
    check(source.summary()["outcome"] != DONE, "the source thinks that its VM is here")
    check_equal(service.log().count("dies at"), 1, "deaths")
    check(service.child.running(), "the keeper has ended")


# --- who may ----------------------------------------------------------------------------------------

def not_enabled(case):
    service = Service(case)
    service.sharer("vm", "main")
    for words in (("add", "wake", "die"), ("remove", "all")):
        try:
            service._fault(*words)          # pylint: disable=protected-access
        except Failure as failure:
            check("--enable-faults" in str(failure), str(failure))
        else:
            raise Failure("faults are injected into a daemon that does not allow it")
    check_equal(service.faults(), {}, "rules")
    check_equal(service.status()["faults"], None, "status")
    service.check_same(service.source())


def rules_come_and_go(case):
    service = injected(case, "point=wake,every=1000000,action=duplicate")
    check_equal(service.fault("place.copy", "--every=5", f"--page={BLOCK}/0x1000", "eagain=3"), 2, "number")
    check_equal(service.fault("point=session.loaded,action=stall=1"), 3, "number")
    check_equal([rule["rule"] for rule in service.faults().values()],
                ["point=wake,every=1000000,action=duplicate",
                 f"point=place.copy,page={BLOCK}/0x1000,every=5,action=eagain=3",
                 "point=session.loaded,action=stall=1"], "rules")
    check_equal(service.fault_remove(2), 1, "removed")
    check_equal(sorted(service.faults()), [1, 3], "what is left")
    before = service.fds()
    events = case.spawn("events", [built("postcopyctl"), "-r", service.run_dir, "--json", "events"])
    wait_for("somebody to listen", lambda: service.fds() > before)
    vm = service.sharer("vm", "main")
    source = service.source()
    vm.event("running")
    check_equal(service.faults()[3]["fires"], 1, "fires")
    wait_for("an event of it", lambda: any('"fault"' in line and "rule 3 (point=session.loaded" in line
                                           for line in events.lines()))
    check("are injected: 2 rules, fired 1 times" in service.text("status"), service.text("status"))
    check_equal(service.status()["faults"], {"rules": 2, "fires": 1}, "status")
    service.check_same(source)
    check_equal(service.fault_remove(), 2, "removed")
    check_equal(service.faults(), {}, "rules")


# --- slow, and failing for a while: it must end well ------------------------------------------------

def image(case, size):
    """Every third page is zero."""
    path = case.path("image")
    with open(path, "wb") as file:
        for page in range(size // PAGE):
            file.write(bytes(PAGE) if page % 3 == 0 else case.random.randbytes(PAGE))
    return [f"{BLOCK},size={size},file={path}"]


def ends_well(case, rules, *options, again=False, pace=("--rate", "4M")):
    """Two sharers with two threads each, and all see what the source has."""
    service = injected(case, *rules, expect=("vm", "back"), size=MIB)
    service.sharer("vm", "main", threads=2)
    service.sharer("back", threads=2)
    source = service.source(*pace, *options, blocks=image(case, service.size))
    for sharer in service.sharers:
        sharer.event("touched")
    if again:                           # asked for twice, which it was not to be
        check_equal(source.summary()["shut"], 0, "SHUT")
    else:
        service.check_same(source)
    for sharer in service.sharers:
        sharer.event("complete")
    for rule in service.faults().values():
        check(rule["fires"], f"never fired: {rule}")
        case.note(f"{rule['rule']}: fired {rule['fires']} of {rule['hits']} times")
    service.child.stop()


def slow_faults(case):
    ends_well(case, ["point=fault.read,probability=0.3,action=delay=20"])
    ends_well(case, ["point=fault.read,every=3,action=duplicate", "point=wake,every=2,action=duplicate"],
              "--preempt")
    ends_well(case, ["point=wake,every=3,action=delay=15", "point=fault.read,every=4,action=stall=5"])


def slow_requests(case):
    ends_well(case, ["point=request.send,every=2,action=delay=25"], pace=("--no-background", "--linger", "300"))
    ends_well(case, ["point=request.send,every=2,action=duplicate"], "--preempt", again=True)


def slow_connections(case):
    ends_well(case, ["point=receive.main,every=4,action=delay=20"])
    ends_well(case, ["point=receive.urgent,every=3,action=delay=20", "point=receive.main,every=4,action=delay=5"],
              "--preempt")


def kernel_refuses(case):
    for action in ("enomem", "eagain", "esrch", "enoent"):
        ends_well(case, [f"point=place.copy,every=5,action={action}", f"point=place.zero,every=2,action={action}"])
        ends_well(case, [f"point=place.copy,every=5,action={action}"], "--preempt")


def late_answers(case):
    ends_well(case, ["point=return.pong,action=delay=300", "point=return.shut,action=delay=300"], "--commit-ping")


# --- held back until the rule goes --------------------------------------------------------------------

def held(case, *words, sharer="back"):
    """One sharer's fault comes to nothing; the other's are served; when the rule goes so is it."""
    service = injected(case, expect=("vm", "back"))
    vm = service.sharer("vm", "main")
    back = service.sharer("back")
    source = service.patient_source()
    vm.event("running")
    back.event("listening")
    service.fault(*words)
    back.tell(f"touch {BLOCK} {40 * PAGE} 1")
    wait_for("the rule to fire", lambda: list(service.faults().values())[0]["fires"])
    vm.do(f"touch {BLOCK} 0 4")
    vm.saw(3 * PAGE)
    check(not back.has_seen(40 * PAGE), "served all the same")
    check_equal(service.status()["state"], "running", "state")
    service.fault_remove()
    check(back.saw(40 * PAGE) != ZERO, "zeroes")
    service.check_same(source)


def drops_a_fault(case):
    held(case, "fault.read", "--sharer=back", "drop")


def drops_a_request(case):
    held(case, "request.send", f"--page={BLOCK}/{40 * PAGE}", "drop")


def wedges_a_sharer(case):
    held(case, "sharer.read", "--sharer=back", "wedge")


# --- what is made wrong is seen -------------------------------------------------------------------------

def begun(case, *options):
    service = injected(case)
    vm = service.sharer("vm", "main")
    source = service.patient_source(*options)
    vm.event("running")
    return service, vm, source


def corrupts_content(case):
    for options in ((), ("--preempt",)):
        service, vm, source = begun(case, *options)
        service.fault("receive.page", "--page=7", "corrupt=100")
        vm.do(f"touch {BLOCK} 0 16")
        wanted = source.completed()["digests"][BLOCK]
        vm.event("complete")
        check(vm.digest() != wanted, "nobody can see that a byte is wrong")
        check_equal(list(service.faults().values())[0]["fires"], 1, "fires")
        service.child.stop()


def pauses(case, words, reason, *options):
    service, vm, source = begun(case, *options)
    vm.do(f"touch {BLOCK} 0 1")
    word = vm.saw(0)
    service.fault(*words)
    vm.tell(f"touch {BLOCK} {9 * PAGE} 1")
    status = service.wait_state("paused")
    check(reason in status["error"]["reason"], f"reason: {status['error']}")
    check(word != ZERO and not vm.has("saw", offset=9 * PAGE, word=ZERO), "zeroes for data")
    check_equal(service.status()["faults"]["fires"], 1, "fires")
    service.child.kill()
    source.child.stop()


def corrupts_records(case):
    pauses(case, ("receive.record", "--count=1", "corrupt"), "main channel, byte")
    pauses(case, ("receive.record", "--count=1", "corrupt"), "urgent channel, byte", "--preempt")


def says_eexist(case):
    pauses(case, ("place.copy", "--count=1", "eexist"), "memory integrity lost")


def disconnects(case):
    pauses(case, ("receive.main", "--count=1", "disconnect"), "source lost")
    pauses(case, ("return.send", "--count=1", "disconnect"), "source lost")


# --- chance ---------------------------------------------------------------------------------------------

def same_seed_same_pages(case):
    """One thread, in order: what a seed decides is decided again, and another decides otherwise."""
    def duplicates(seed):
        service = Service(case, "--enable-faults", "--fault-seed", str(seed), size=MIB)
        vm = service.sharer("vm", "main")
        source = service.patient_source()
        vm.event("running")
        service.fault("fault.read", "--probability=30%", "duplicate")
        found = []
        for page in range(60):
            before = list(service.faults().values())[0]["fires"]
            vm.do(f"touch {BLOCK} {page * PAGE} 1")
            vm.saw(page * PAGE)
            if list(service.faults().values())[0]["fires"] > before:
                found.append(page)
        service.check_same(source)
        return found
    first = duplicates(case.seed + 1)
    check_equal(duplicates(case.seed + 1), first, "pages, the second time")
    check(4 < len(first) < 40, f"not by chance: {first}")
    check(duplicates(case.seed + 2) != first, "another seed decides alike")


CASES = [
    ("F61 dies at each moment of a session", dies_at_each_moment),
    ("F61 dies at each moment, where the source waits for an answer", dies_at_each_moment_of_a_commit),
    ("F61 dies with a page in hand", dies_with_a_page),
    ("F61 dies when it has lost its source", dies_paused),
    ("F61 dies of other signals", dies_in_each_way),
    ("F61 who follows one that died has no rules", is_followed),
    ("F61 faults are served late, twice, and woken late", slow_faults),
    ("F61 requests leave late, and twice", slow_requests),
    ("F61 what the source sends is looked at late", slow_connections),
    ("F61 the kernel refuses, again and again", kernel_refuses),
    ("F61 the answer and SHUT come late", late_answers),
    ("F61 F69 a fault that is dropped is served when the rule goes", drops_a_fault),
    ("F61 a request that is dropped leaves when the rule goes", drops_a_request),
    ("F69 a sharer that is wedged hinders nobody", wedges_a_sharer),
    ("F61 a flipped byte of a page is seen by who reads it", corrupts_content),
    ("F61 a flipped byte of a record is seen by us", corrupts_records),
    ("F61 a page that nobody placed is an alarm", says_eexist),
    ("F61 a connection ends", disconnects),
    ("F61 the same seed strikes at the same pages", same_seed_same_pages),
    ("F61 nothing is injected where it was not allowed", not_enabled),
    ("F61 rules come, are listed, and go", rules_come_and_go),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
