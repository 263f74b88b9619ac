#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd between a VMM and its vhost-user back-end, which is a scripted one (lib/vhost_back.py).

Good ones of every dialect move data through pages that are still elsewhere; for bad ones nobody else has to pay:
the session completes, all of the memory is right, and none of it was seen before it was there.
(P01, P02, P08, P09, P10, P13, P14, P15, P16, P18, P19, P25, P26, P27, F15, F17, F20, F21, F23)
"""
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import Failure, check, check_equal, main, skip_all, wait_for
from interposed import Interposed
from preload import served
from scripted import Backend, Traffic, same
from service import MIB, PAGE, PATIENT, missing_programs
from vhost_front import P_CONFIG, P_MEM_SLOTS, P_MQ, POSTCOPY_ADVISE, POSTCOPY_END, POSTCOPY_LISTEN
from vhostuser import ADD_MEM_REG, GET_FEATURES, SET_MEM_TABLE, SET_VRING_ADDR, SET_VRING_ENABLE, SET_VRING_KICK

COMMON = P_MQ | P_CONFIG
#: How often what is a matter of luck is done.
TIMES = 10 if os.environ.get("POSTCOPY_TESTS_LONG") == "1" else 1
RINGS = {SET_VRING_ADDR, SET_VRING_KICK, SET_VRING_ENABLE}
MEMORY = {SET_MEM_TABLE, ADD_MEM_REG}


def staged(case, *words, option="", queues=1, **keywords):
    """(back-end, stage, traffic), nothing of it begun"""
    back = Backend(case, f"queues={queues}", *words)
    stage = Interposed(case, {"disk": back.path}, {"disk": option}, **keywords)
    return back, stage, Traffic(case, stage.image, queues)


def start(front, traffic):
    for number, ring in enumerate(traffic.rings):
        front.start(ring, number)


def moved(stage, traffic):
    wait_for("the device to be done", lambda: traffic.done(stage.memory))


def finish(stage, traffic, back):
    traffic.check(stage.finish(), back)
    stage.check_healthy()
    back.child.check_running()


def end_told(back):
    """END is the last that it is told of its memory, and came once."""
    wait_for("END", lambda: POSTCOPY_END in back.asked())
    asked = back.asked()
    check_equal(asked.count(POSTCOPY_END), 1, "ENDs")
    check(not MEMORY & set(asked[asked.index(POSTCOPY_END):]), "told of memory behind END")


def in_order(back):
    """ADVISE before its memory (rust: LISTEN behind it), rings behind both."""
    asked = back.asked()
    first = {number: asked.index(number) for number in set(asked)}
    rings = min(first[number] for number in RINGS if number in first)
    check(first[POSTCOPY_ADVISE] < rings, f"rings before ADVISE: {asked}")
    check(max(first[number] for number in MEMORY if number in first) < rings, f"rings before memory: {asked}")


# --- good ones ------------------------------------------------------------------------------------


def serves(case, words=(), option="", queues=1, early=False, also=COMMON):
    """@early: told of everything before faults are served."""
    back, stage, traffic = staged(case, *words, option=option, queues=queues)
    if early:
        front = stage.front(also=also)
        check_equal(front.share_memory(), 0, "answer to the memory table")
        start(front, traffic)
        check(not back.has("used_index"), "it looked into a ring before anything was there")
        stage.begin(*PATIENT)
    else:
        stage.begin(*PATIENT)
        front = stage.front(also=also)
        check_equal(front.share_memory(), 0, "answer to the memory table")
        check(served(back.child.pid, stage.vm.path()), "the answer came before everything is registered")
        start(front, traffic)
    moved(stage, traffic)
    check_equal(stage.faults(), len(traffic.pages()), "faults, one for each page that it needs")
    finish(stage, traffic, back)
    end_told(back)
    in_order(back)
    check(not served(back.child.pid, stage.vm.path()), "still registered at the end")


def seen(back, stage, address):
    """What it sees there is what the source has."""
    back.tell(f"touch {address}")
    word = back.event("saw", offset=address)["word"]
    check_equal(word, stage.image[address:address + 8].hex(), f"what it sees at {address:#x}")


def slots(case):
    """Memory comes and goes in pieces, while a queue runs: each is registered before the answer."""
    back, stage, traffic = staged(case)
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON | P_MEM_SLOTS)
    check_equal(front.add_slot(0, 2 * MIB), 0, "answer to the first slot")
    start(front, traffic)
    moved(stage, traffic)
    for turn in range(3):
        check_equal(front.add_slot(2 * MIB, 2 * MIB), 0, "answer to the second slot")
        check(served(back.child.pid, stage.vm.path()), "the answer came before it is registered")
        seen(back, stage, 3 * MIB + turn * PAGE)
        check_equal(front.drop_slot(2 * MIB, 2 * MIB), 0, "answer to its end")
    finish(stage, traffic, back)
    end_told(back)


def another_table(case, option, regions):
    """While a queue runs, the memory is told anew: it goes on with the requests that follow."""
    back, stage, traffic = staged(case, option=option)
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON)
    check_equal(front.share_memory([(0, 2 * MIB)]), 0, "answer to the memory table")
    start(front, traffic)
    moved(stage, traffic)
    check_equal(front.share_memory(regions), 0, "answer to the second table")
    check(served(back.child.pid, stage.vm.path()), "the answer came before everything is registered")
    traffic.again(stage.memory)
    front.kick()
    moved(stage, traffic)
    seen(back, stage, regions[-1][0] + 0xff000)
    finish(stage, traffic, back)
    end_told(back)


def gated(case, words, plain):
    """It cannot fault, so it gets no memory before all of it is there, and then everything it was told."""
    back, stage, traffic = staged(case, *words, option=",gate=yes")
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON, plain=plain)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    start(front, traffic)
    told = MEMORY & set(back.asked())
    check(stage.vm.has("complete") or not told, "it was told of memory that is not there")
    stage.source.completed()
    moved(stage, traffic)
    finish(stage, traffic, back)
    check(POSTCOPY_ADVISE not in back.asked(), "ADVISE to who cannot")


# --- bad ones -------------------------------------------------------------------------------------


def use(front, traffic):
    """All that a VMM does; what a connection that ends under it looks like, or None."""
    try:
        check_equal(front.share_memory(), 0, "answer to the memory table")
        start(front, traffic)
    except (Failure, OSError) as error:
        return error
    return None


def unharmed(stage, back):
    """Everybody else gets what the source has, and nothing of it was written meanwhile."""
    same(stage.finish(), stage.image)
    check(not back.has("served"), "it served requests")
    stage.check_healthy()


def refused(case, words, says, option=""):
    """Its connection ends with the reason in the log, and so does the VMM's; no ring was told."""
    back, stage, traffic = staged(case, *words, option=option)
    stage.begin(*PATIENT)
    try:
        error = use(stage.front(also=COMMON), traffic)
    except (Failure, OSError) as failure:
        error = failure
    check(error, "the VMM noticed nothing")
    wait_for(f"the log to say {says!r}", lambda: says in stage.service.log())
    check(not RINGS & set(back.asked()), f"rings were told: {back.asked()}")
    unharmed(stage, back)


def cannot_fault(case):
    """Without bit 30 there is nothing to be asked of it at all."""
    back, stage, traffic = staged(case, "lack=30")
    stage.begin(*PATIENT)
    use(stage.front(plain=True), traffic)
    wait_for("the log to say why", lambda: "cannot run before all memory is there" in stage.service.log())
    check(not (RINGS | MEMORY) & set(back.asked()), "memory or rings without postcopy")
    unharmed(stage, back)


def answers_twice(case):
    """Seen while the VMM waits for another answer, its connection ends; else there is another one behind it."""
    back, stage, traffic = staged(case, FEATURES + "twice")
    stage.begin(*PATIENT)
    try:
        use(stage.front(also=COMMON), traffic)
    except (Failure, OSError) as error:
        case.note(f"the VMM: {error}")
    wait_for("the quarantine", lambda: "put into quarantine: " in stage.service.log())
    stage.source.completed()
    stage.vm.event("complete")
    stage.check_healthy()


def silent_in_the_end(case, how):
    """Whatever it answers to END: everything is there."""
    back, stage, traffic = staged(case, f"answer-{POSTCOPY_END}={how}", option=",answer-timeout=1")
    stage.begin(*PATIENT)
    check_equal(use(stage.front(also=COMMON), traffic), None, "the connection")
    moved(stage, traffic)
    finish(stage, traffic, back)
    end_told(back)


def memory_refused(case):
    """It could not map, and says so: that is the VMM's to know, and its rings do not run before all is there."""
    back, stage, traffic = staged(case, f"answer-{SET_MEM_TABLE}=error")
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 1, "answer to the memory table")
    start(front, traffic)
    check(not RINGS & set(back.asked()) or stage.vm.has("complete"), "rings without a proof")
    stage.source.rest()
    moved(stage, traffic)
    finish(stage, traffic, back)


def touches_early(case):
    """It makes zeroes of pages that are still to come: an alarm, and nobody is told that all went well."""
    back, stage, traffic = staged(case, "populate")
    stage.begin(*PATIENT)
    use(stage.front(also=COMMON), traffic)
    stage.source.rest()
    wait_for("the alarm", lambda: "memory integrity lost" in stage.service.log())
    check_equal(stage.service.wait_state("paused")["state"], "paused", "the session")
    check(not stage.vm.has("complete"), "complete with zeroes in it")
    check(POSTCOPY_END not in back.asked(), "END")


# --- tricks with memory ---------------------------------------------------------------------------


def joined(case, *words, option="", hold=True):
    """With its memory proven; @hold: the source is stopped, so that nothing comes."""
    back, stage, traffic = staged(case, *words, option=option)
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    if hold:
        stage.pause()
    return back, stage, traffic, front


def waits(stage, threads=1):
    stage.service.wait_waiting("disk", threads)


def mapped_again(case):
    """A mapping that nobody was told of, but registered: its event is not known, the maps are looked at once more."""
    back, stage, _, _ = joined(case)
    back.tell(f"again {5 * PAGE}")
    back.event("done", line=f"again {5 * PAGE}")
    stage.resume()
    try:
        saw = back.event("saw", timeout=5, what="again")["word"]
        check_equal(saw, stage.image[5 * PAGE:5 * PAGE + 8].hex(), "what it saw")
    except Failure:
        case.note("its thread sleeps: " + stage.service.reason("disk"))
        check(not back.has("saw", what="again"), "it saw something else")
    unharmed(stage, back)


def elsewhere(case):
    """An event from an address of nothing: that sharer has failed, its thread sleeps on."""
    back, stage, _, _ = joined(case)
    back.tell("elsewhere")
    back.event("done", line="elsewhere")
    stage.resume()
    unharmed(stage, back)
    reasons = [(sharer["error"] or {}).get("reason", "") for sharer in stage.service.control("sharers")]
    check(any("outside of every mapping" in reason for reason in reasons), f"what is told of sharers: {reasons}")
    check(not back.has("saw"), "it saw something")


def unmapped(case):
    """The page that it waits for has no place to go to."""
    back, stage, _, _ = joined(case)
    back.tell(f"touch {7 * PAGE}")
    waits(stage)
    back.tell("unmap")
    back.event("done", line="unmap")
    stage.resume()
    unharmed(stage, back)


def another(back):
    """The process that it is dies, and there is a new one."""
    old = back.child
    old.kill(signal.SIGKILL)
    old.wait()
    back.start_again()


def goes_on(stage, traffic, back):
    moved(stage, traffic)
    check(stage.faults() > 0, "no fault of it")
    finish(stage, traffic, back)
    in_order(back)
    end_told(back)


def killed_idle(case):
    """Killed while it waits, before it had a ring: the new one is told everything that the VMM said to the old one."""
    back, stage, traffic, front = joined(case)
    back.tell(f"touch {9 * PAGE}")
    waits(stage)
    another(back)
    front.hand_over(traffic.rings[0])
    stage.resume()
    front.enabled()
    goes_on(stage, traffic, back)


def vmm_comes_again(stage, traffic, front, answering):
    """Its connection ends, for what its rings had done is not known here; it does what QEMU does with reconnect=."""
    if answering:
        front.check_ended()
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    front.hand_over(traffic.rings[0])
    stage.resume()
    front.enabled()


def killed_running(case, answering):
    """Killed while a queue of it waits for a page; @answering: while it is told of the queue."""
    back, stage, traffic, front = joined(case, hold=False)
    if not answering:
        back.tell(f"touch {traffic.rings[0].used}")
        back.event("saw")
    stage.pause()
    front.hand_over(traffic.rings[0])
    if not answering:
        front.enabled()
    waits(stage)
    another(back)
    vmm_comes_again(stage, traffic, front, answering)
    goes_on(stage, traffic, back)


# --- connections that are over --------------------------------------------------------------------


#: Of the daemon: the main sharer, a connection, one that was looked at when that began, and one more.
FEW, OFTEN = ("--max-sharers", "4"), 9
ONE_MORE = ("--max-sharers", "5")


def connects_again(stage, front, others=1):
    """The VMM hangs up, and begins anew; @others may be there besides.  How soon one that is over is forgotten is not
    promised, so a VMM that is faster than that waits.
    """
    wait_for("room for one more", lambda: stage.sharers() <= 1 + others)
    front.hang_up()
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    return front


def goes_while_waiting(stage, back, front):
    """As connects_again(), while a thread waits in what is mapped; only the daemon has its userfaultfd then."""
    front.hang_up()
    back.event("left")
    back.tell("close")
    back.event("done", line="close")
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    return front


def saw(stage, back, what, page):
    word = back.event("saw", what=what)["word"]
    check_equal(word, stage.image[page * PAGE:page * PAGE + 8].hex(), f"what it sees in page {page}")


def only_one(stage, number=1):
    """So many sharers are left of this back-end."""
    wait_for(f"{number} sharers", lambda: stage.sharers() == number)


def again_and_again(case, words, option):
    """More often than there may be sharers: what is over is forgotten, for its back-end unmaps it."""
    back, stage, traffic = staged(case, *words, option=option, daemon=FEW)
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    for turn in range(OFTEN):
        seen(back, stage, 5 * PAGE * turn)
        front = connects_again(stage, front)
        check(served(back.child.pid, stage.vm.path()), "the answer came before everything is registered")
    only_one(stage)
    start(front, traffic)
    moved(stage, traffic)
    finish(stage, traffic, back)
    end_told(back)


def before_serving(case):
    """The same while faults are not served yet: nobody is proven for a second time, or never."""
    back, stage, traffic = staged(case, daemon=FEW)
    front = stage.front(also=COMMON)
    for _ in range(OFTEN):
        check_equal(front.share_memory(), 0, "answer to the memory table")
        front = connects_again(stage, front)
    only_one(stage)
    start(front, traffic)
    stage.begin(*PATIENT)
    moved(stage, traffic)
    finish(stage, traffic, back)


def broken_again(case):
    """It breaks the protocol each time, and its threads are not served on: that one, too, is forgotten."""
    back, stage, traffic = staged(case, f"answer-{SET_VRING_ENABLE}=number", option=",policy=disable", daemon=FEW)
    stage.begin(*PATIENT)
    for _ in range(OFTEN):
        front = stage.front(also=COMMON)
        check_equal(front.share_memory(), 0, "answer to the memory table")
        front.hand_over(traffic.rings[0])
        front.check_ended()
        front.hang_up()
    only_one(stage, 0)
    check(stage.service.of("disk")["state"] == "left", f"what is told of the last: {stage.service.of('disk')}")
    unharmed(stage, back)


def serving_over(case):
    """A back-end of a VM that is served, with room for a connection more than it has."""
    back, stage, traffic = staged(case, daemon=ONE_MORE)
    stage.begin(*PATIENT)
    front = stage.front(also=COMMON)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    stage.pause()
    return back, stage, traffic, front


def kept(case):
    """A thread waits in what the first connection had mapped: served on, in every page of it, until it is unmapped."""
    back, stage, traffic, front = serving_over(case)
    back.tell(f"touch {3 * PAGE}")
    waits(stage)
    front = goes_while_waiting(stage, back, front)
    stage.resume()
    saw(stage, back, "touch", 3)
    stage.pause()
    for _ in range(OFTEN):
        front = connects_again(stage, front, others=2)
    only_one(stage, 2)
    back.tell(f"before {700 * PAGE}")
    back.event("done", line=f"before {700 * PAGE}")
    for _ in range(OFTEN):
        front = connects_again(stage, front, others=2)
    check(not back.has("saw", what="before"), "it saw what is not here")
    stage.resume()
    saw(stage, back, "before", 700)
    check_equal(stage.sharers(), 2, "sharers while it is mapped")
    back.tell("forget")
    only_one(stage)
    start(front, traffic)
    moved(stage, traffic)
    finish(stage, traffic, back)


def unmapped_and_over(case):
    """Its mapping goes under a thread that waits: not ours to end it, before its page is here."""
    back, stage, _, front = serving_over(case)
    back.tell(f"touch {7 * PAGE}")
    waits(stage)
    back.tell("unmap")
    back.event("done", line="unmap")
    front = goes_while_waiting(stage, back, front)
    for _ in range(OFTEN):
        front = connects_again(stage, front, others=2)
    only_one(stage, 2)
    back.child.check_running()
    stage.resume()
    unharmed(stage, back)


def daemon_dies(case):
    """Its thread sleeps on rather than see zeroes: its own descriptor of the userfaultfd is still open."""
    back, stage, _, _ = joined(case)
    back.tell(f"touch {3 * PAGE}")
    waits(stage)
    stage.service.child.kill(signal.SIGKILL)
    stage.service.child.wait()
    back.event("disconnected")
    try:
        back.event("saw", timeout=0.5)
    except Failure:
        return
    raise Failure("it saw a page that never came")


ADVISE, LISTEN, END, TABLE, FEATURES = (f"answer-{number}=" for number in (
    POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END, SET_MEM_TABLE, GET_FEATURES))
SPEC, HASTY = ",dialect=spec", ",answer-timeout=1"
#: name, words of the back-end, option, what the log says
REFUSED = (
    ("P08 no PAGEFAULT", "lack-protocol=8", "", "does not offer PAGEFAULT"),
    ("P09 ADVISE: no descriptor", ADVISE + "no-fd", "", "wrong number of descriptors"),
    ("P09 ADVISE: two descriptors", ADVISE + "two-fds", "", "wrong number of descriptors"),
    ("P09 ADVISE: the end", ADVISE + "eof", "", "the back-end hung up"),
    ("P09 ADVISE: another number", ADVISE + "number", "", "answer is to another request"),
    ("P09 ADVISE: silence", ADVISE + "silent", HASTY, "no answer to POSTCOPY_ADVISE in time"),
    ("P14 LISTEN: not 0", LISTEN + "error", SPEC, "refused POSTCOPY_LISTEN"),
    ("P14 LISTEN: silence", LISTEN + "silent", SPEC + HASTY, "no answer to POSTCOPY_LISTEN in time"),
    ("P16 table: another number", TABLE + "number", SPEC, "answer is to another request"),
    ("P16 table: too long", TABLE + "size", SPEC, "not the size of its regions"),
    ("P16 table: too short", TABLE + "short", SPEC, "not the size of its regions"),
    ("P16 table: silence", TABLE + "silent", SPEC + HASTY, "no addresses in answer to the memory table in time"),
    ("table: silence", TABLE + "silent", HASTY, "no answer to the VMM's request in time"),
    ("another number", FEATURES + "number", "", "answer is to another request"),
)
CHANCE = (
    ("F15 F17 killed while it waits, idle", killed_idle),
    ("F15 F17 killed while its queue waits", functools.partial(killed_running, answering=False)),
    ("F15 F17 killed while it is told of its queue", functools.partial(killed_running, answering=True)),
    ("P15 P31 slots come and go", slots), ("unmapped while it waits", unmapped),
)
CASES = (
    *((f"P15 P26 F21 {name}{when}", functools.partial(serves, words=words, option=option, queues=queues, early=early))
      for name, words, option, queues in (
          ("registered from outside", (), "", 1), ("P16 the text's dialect", (), SPEC, 1),
          ("the text's, with addresses that are wrong", ("bases=echo",), SPEC, 1),
          ("the text's, which does not register", ("register=no",), SPEC, 1),
          ("LISTEN registers", ("dialect=rust",), ",dialect=rust", 1), ("P25 four queues", (), "", 4))
      for when, early in ((", late", False), (", early", True))),
    *((f"P25 the memory is told anew: {name}", functools.partial(another_table, option=option, regions=regions))
      for name, option, regions in (
          ("more of it", "", [(0, 2 * MIB), (2 * MIB, 2 * MIB)]), ("the same", "", [(0, 2 * MIB)]),
          ("more of it, the text's dialect", SPEC, [(0, 2 * MIB), (2 * MIB, 2 * MIB)]),
          ("the same, the text's dialect", SPEC, [(0, 2 * MIB)]))),
    ("need_reply comes back", functools.partial(serves, words=(FEATURES + "flags",))),
    ("F23 gated: no PAGEFAULT", functools.partial(gated, words=("lack-protocol=8",), plain=False)),
    ("F23 gated: no features of the protocol", functools.partial(gated, words=("lack=30",), plain=True)),
    ("P08 F23 no features of the protocol", cannot_fault),
    *((name, functools.partial(refused, words=words.split(), option=option, says=says))
      for name, words, option, says in REFUSED),
    ("an answer to nothing", answers_twice), ("table: refused", memory_refused),
    ("END: silence", functools.partial(silent_in_the_end, how="silent")),
    ("END: not 0", functools.partial(silent_in_the_end, how="error")),
    ("memory is touched as it is mapped", touches_early),
    ("P19 mapped once more", mapped_again), ("P19 an event from nowhere", elsewhere),
    *((f"{name}, {number}", function) for name, function in CHANCE for number in range(TIMES)),
    ("the daemon dies", daemon_dies),
    *((f"O11 F15 {name}: again and again", functools.partial(again_and_again, words=words, option=option))
      for name, words, option in (
          ("registered from outside", (), ""), ("the text's dialect", (), SPEC),
          ("LISTEN registers", ("dialect=rust",), ",dialect=rust"), ("policy disable", (), ",policy=disable"))),
    ("O11 F15 again and again, early", before_serving),
    ("O11 F16 broken again and again", broken_again),
    ("O11 F15 what is over is mapped on, and faults", kept),
    ("O11 unmapped while it waits, and over", unmapped_and_over),
)

if __name__ == "__main__":
    if missing_programs():
        skip_all("not built: make check builds it")
    main(CASES)
