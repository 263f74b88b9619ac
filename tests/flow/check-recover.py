#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The source is lost and comes again, told byte by byte what to say.  (F59, S1-20, A11, O4, O2)"""
import functools
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from relay import connect  # noqa: E402
from resumed import PAGE, RECV_BITMAP, REQ_ID, RESUME, SHUT, ScriptSource, command, cstr  # noqa: E402
from service import BLOCK, Service, missing_programs  # noqa: E402

SIZE = 1 << 20
PAGES = SIZE // PAGE
ROM = ("rom", 65 * PAGE)                # nobody maps it: its content stays with the daemon


def offsets(pages):
    return [page * PAGE for page in pages]


class Scene:
    """A VM that runs, with a second sharer, and whose pages are all still to come."""

    def __init__(self, case, *options, urgent=False, commit_ping=False, runs=True, **sharer):
        self.case = case
        self.service = Service(case, *options, expect=("vm", "other"), size=SIZE)
        self.vm = self.service.sharer("vm", "main", **sharer)
        self.other = self.service.sharer("other")
        self.urgent = urgent
        self.source = ScriptSource(self.service.uri, {BLOCK: (SIZE, PAGE), ROM[0]: (ROM[1], PAGE)}, case.seed)
        case.defer(self.source.cut)
        self.source.start(commit_ping, urgent)
        if runs:
            self.vm.event("running")

    def send(self, pages, **how):
        self.source.send(BLOCK, offsets(pages), **how)

    def here(self, count):
        """So many pages of the VM have come."""
        def probe():
            block = next(b for b in self.service.control("blocks") if b["name"] == BLOCK)
            return PAGES - block["missing"] == count
        wait_for(f"{count} pages", probe)

    def lose(self):
        self.source.cut()
        return self.paused()

    def paused(self):
        status = self.service.wait_state("paused")
        check(not status["held"], f"it is held: {status['error']}")
        check(status["error"]["reason"], "it does not say why")
        check(not status["shut_sent"], "SHUT was sent, and pages are owed")
        return status

    def touch(self, first, count, sharer=None):
        """Does not wait: these pages may be missing."""
        (sharer or self.vm).do(f"touch {BLOCK} {first * PAGE} {count}")

    def saw(self, pages, sharer=None):
        for page in pages:
            word = (sharer or self.vm).saw(page * PAGE)
            check_equal(word, self.source.shown(BLOCK, page * PAGE), f"page {page}")

    def recover(self, came, before=False, uri=None):
        """@came: pages of the VM that came, exactly."""
        found = self.source.recover(self.urgent, before, uri)
        check_equal(found[BLOCK], offsets(came), "what came")
        self.service.wait_state("running")
        return found

    def finish(self, found):
        """The rest comes; all of it is right, for both."""
        check_equal(self.source.back.of(SHUT), [], "SHUT, and pages are owed")
        self.source.rest(found)
        self.source.completed()
        for sharer in (self.vm, self.other):
            sharer.event("complete")
        status = self.service.wait_state("complete")
        check_equal((status["error"], status["ownership_unknown"], status["paused_since_ns"]), (None, False, None), "status")
        for sharer in (self.vm, self.other):
            self.touch(0, PAGES, sharer)
            self.saw(range(PAGES), sharer)
        check_equal(self.service.stats()["alarms"], 0, "alarms")


def plain(case, urgent=False, before=False):
    scene = Scene(case, urgent=urgent)
    scene.send(range(0, 200, 2))
    scene.send(range(201, 210))
    scene.here(109)
    status = scene.lose()
    check(status["recover"]["listening"], status["recover"])
    check_equal(status["recover"]["address"], scene.service.uri, "where it listens")
    check('"resume":true' in scene.service.wait_blocker("source"), scene.service.blockers())
    found = scene.recover([*range(0, 200, 2), *range(201, 210)], before)
    scene.finish(found)
    check_equal(scene.service.status()["recoveries"], 1, "recoveries")


def many(case, urgent):
    """Lost again and again, the last times with nothing new in between."""
    scene = Scene(case, urgent=urgent)
    came = []
    for number in range(6):
        if number < 4:
            new = list(range(number * 30, number * 30 + 20))
            scene.send(new)
            came += new
            scene.here(len(came))
        scene.lose()
        found = scene.recover(came, before=number % 2 == 0)
    scene.finish(found)
    check_equal(scene.service.status()["recoveries"], 6, "recoveries")


def faults_wait(case, urgent):
    """What is missing is asked for once more, by its name; who waits has it then, and who needs what is here does not."""
    scene = Scene(case, urgent=urgent)
    scene.send(range(50))
    scene.here(50)
    scene.touch(100, 2)
    wait_for("two requests", lambda: len(scene.source.back.requests()) == 2)
    scene.lose()
    scene.touch(110, 2)                 # while nobody is there to be asked
    scene.touch(0, 50, scene.other)
    scene.saw(range(50), scene.other)
    scene.touch(100, 1, scene.other)
    scene.service.wait_waiting("other", 1)
    scene.service.wait_waiting("vm", 4)
    found = scene.recover(range(50))
    back = scene.source.back
    wait_for("their requests", lambda: len(back.requests()) == 4)
    check_equal(back.requests()[0][0], REQ_ID, "the first request names its block (S1-20)")
    check_equal(sorted(m[2] for m in back.requests()), offsets([100, 101, 110, 111]), "asked for again")
    check(not scene.vm.has_seen(100 * PAGE), "it went on without its page")
    scene.send([100, 101, 110, 111], urgent=urgent)
    scene.saw([100, 101, 110, 111])
    scene.saw([100], scene.other)
    check_equal(len(back.requests()), 4, "requests (O4)")
    scene.finish({**found, BLOCK: offsets([*range(50), 100, 101, 110, 111])})
    check_equal(scene.service.stats()["rerequested"], 4, "asked for again")


def breaks(case, step):
    """The handshake ends at some step; it is paused again, and comes all the same."""
    scene = Scene(case, urgent=step == "urgent")
    scene.send(range(30))
    scene.here(30)
    scene.touch(200, 1)
    scene.lose()
    source = scene.source
    source.connect()
    if step == "torn":
        source.main.sendall(command(RECV_BITMAP, cstr(BLOCK))[:9])
    elif step == "bitmap":
        source.main.sendall(command(RECV_BITMAP, cstr(BLOCK)))
    elif step == "between":
        source.received(BLOCK)
    else:
        for name in source.blocks:
            source.received(name)
    if step == "resume":
        source.main.sendall(command(RESUME))
    if step in ("acknowledged", "urgent"):
        source.resume()
    if step == "urgent":
        source.connect_urgent()
    if step != "torn":
        wait_for("somebody to notice", lambda: scene.service.status()["recover"] is None
                 or scene.service.status()["recover"]["attempts"] == 1)
    source.cut()
    wait_for("paused again", lambda: scene.service.status()["state"] == "paused")
    found = scene.recover(range(30))
    scene.send([200])
    scene.saw([200])
    scene.finish({**found, BLOCK: offsets([*range(30), 200])})


def wrong(case, says, why):
    """What no source says: paused again with the reason, and the next is let in."""
    scene = Scene(case)
    scene.send(range(10))
    scene.here(10)
    scene.lose()
    source = scene.source
    source.connect()
    source.main.sendall(command(RECV_BITMAP, cstr(BLOCK)) + says)
    wait_for(f"a reason with '{why}'", lambda: why in (scene.service.status()["error"] or {}).get("reason", ""))
    scene.paused()
    check_equal(scene.service.status()["recoveries"], 0, "recoveries")
    wait_for("it to hang up", lambda: source.back.ended)
    source.cut()
    scene.finish(scene.recover(range(10)))


def asks_twice(case):
    """And in any order: the answers are the same."""
    scene = Scene(case)
    scene.send(range(0, 256, 3))
    scene.here(86)
    scene.lose()
    source = scene.source
    source.connect()
    first = source.ask(ROM[0]), source.ask(BLOCK)
    check_equal((source.ask(ROM[0]), source.ask(BLOCK)), first, "what it says the second time")
    check_equal(int.from_bytes(first[0], "little"), 0, "of a block of which nothing came")
    source.resume()
    scene.service.wait_state("running")
    scene.finish({BLOCK: offsets(range(0, 256, 3)), ROM[0]: []})


def in_a_row(case):
    """All questions, and that it goes on, in one piece, as QEMU sends them."""
    scene = Scene(case)
    scene.send(range(5))
    scene.here(5)
    scene.lose()
    scene.source.connect()
    scene.source.main.sendall(b"".join(command(RECV_BITMAP, cstr(name)) for name in scene.source.blocks) + command(RESUME))
    scene.service.wait_state("running")
    scene.finish({BLOCK: offsets(range(5)), ROM[0]: []})


def again(case):
    """Pages that are here are sent once more: dropped, and counted."""
    scene = Scene(case)
    scene.send(range(20))
    scene.here(20)
    scene.lose()
    found = scene.recover(range(20))
    scene.send(range(20))
    scene.finish(found)
    check_equal(scene.service.stats()["lanes"]["main"]["duplicates"], 20, "duplicates")


def strangers(case):
    """Only who begins as a resumed source is let in, and one at a time."""
    scene = Scene(case)
    scene.lose()
    for says in (b"QEVM\0\0\0\3", b"GET / HTTP/1.1\r\n", command(RESUME) + bytes(8)):
        sock = connect(scene.service.uri)
        case.defer(sock.close)
        sock.sendall(says)
        sock.settimeout(10)
        try:
            check_equal(sock.recv(1), b"", "what it is told")
        except ConnectionResetError:
            pass
    check("resumed (migrate with resume)" in scene.service.log(), scene.service.log())
    scene.source.connect()
    scene.source.ask(BLOCK)
    sock = connect(scene.service.uri)
    case.defer(sock.close)
    sock.sendall(command(RECV_BITMAP, cstr(BLOCK)))
    scene.source.ask(ROM[0])
    scene.source.resume()
    scene.service.wait_state("running")
    scene.finish({BLOCK: [], ROM[0]: []})


def ends_unknown(case):
    """Everything came, SHUT did not arrive: a source that comes again has not taken its VM back."""
    scene = Scene(case)
    scene.source.rest({BLOCK: [], ROM[0]: []})
    # the socket is full of nothing: SHUT is sent, and never read
    wait_for("SHUT", lambda: scene.service.status()["shut_sent"])
    state = scene.service.status()["state"]
    scene.source.cut()
    if state == "complete":
        return                          # it was read before we looked
    status = wait_for("an end", lambda: (lambda s: s if s["state"] in ("paused", "complete") else None)(scene.service.status()))
    if status["state"] == "complete":
        return
    check(status["ownership_unknown"], status)
    found = scene.source.recover()
    check_equal(len(found[BLOCK]), PAGES, "what came")
    scene.source.end()
    scene.source.completed()
    check(not scene.service.wait_state("complete")["ownership_unknown"], "it is known now")


def while_loading(case):
    """Lost before the VMM has loaded, behind a package that commits: it runs when the source is back."""
    scene = Scene(case, runs=False, loaded_after=1500)
    scene.service.wait_state("loading")
    scene.lose()
    scene.vm.event("loaded")
    check(not scene.vm.has("running"), "told to run while nobody knows of it")
    scene.source.recover()
    scene.vm.event("running")
    scene.finish({BLOCK: [], ROM[0]: []})


def still_loading(case):
    """The same, and the source is back before it has loaded."""
    scene = Scene(case, runs=False, loaded_after=3000)
    scene.service.wait_state("loading")
    scene.lose()
    scene.source.recover()
    check(not scene.vm.has("running"), "it runs, and loads still")
    scene.vm.event("running")
    scene.finish({BLOCK: [], ROM[0]: []})


def ctl(service, *words):
    return subprocess.run([built("postcopyctl"), "-r", service.run_dir, *words], capture_output=True, text=True, check=False)


def by_the_operator(case):
    """pause, recover URI, and what they refuse."""
    scene = Scene(case, "--recover-timeout", "1")
    check_equal(ctl(scene.service, "recover").returncode, 1, "recover while it runs")
    scene.send(range(10))
    scene.here(10)
    done = ctl(scene.service, "pause")
    check_equal((done.returncode, done.stderr), (0, ""), "pause")
    scene.paused()
    wait_for("the source to be sent away", lambda: scene.source.back.ended)
    scene.source.cut()
    wait_for("the time to be over", lambda: not scene.service.status()["recover"]["listening"])
    scene.source.connect()
    scene.source.main.sendall(command(RECV_BITMAP, cstr(BLOCK)))
    wait_for("it to be refused", lambda: scene.source.back.ended)
    check("--recover-timeout" in scene.service.wait_blocker("source"), scene.service.blockers())
    scene.source.cut()
    check_equal(ctl(scene.service, "recover", "tcp:nonsense").returncode, 1, "recover at no address")
    there = "unix:" + case.path("there")
    done = ctl(scene.service, "recover", there)
    check_equal((done.returncode, done.stderr), (0, ""), "recover")
    wait_for("the new address", lambda: scene.service.status()["recover"]["address"] == there)
    check(there in scene.service.status()["recover"]["command"], scene.service.status()["recover"])
    scene.finish(scene.recover(range(10), uri=there))
    done = ctl(scene.service, "pause")
    check_equal(done.returncode, 1, "pause behind the end")


def cancelled_before(case):
    """Before the commit the source resumes its VM."""
    scene = Scene(case, commit_ping=True, runs=False, loaded_after=600_000)
    scene.service.wait_state("loading")
    check(ctl(scene.service, "pause").returncode == 1, "paused, and the source would have run it")
    check_equal(ctl(scene.service, "cancel").returncode, 0, "cancel")
    scene.service.wait_state("failed")
    wait_for("the source to hear of it", lambda: scene.source.back.ended)


def cancelled_after(case):
    """After it the VM is lost: only by force."""
    scene = Scene(case)
    done = ctl(scene.service, "cancel")
    check(done.returncode == 1 and "--force" in done.stderr, done.stderr)
    check_equal(scene.service.status()["state"], "running", "state")
    check_equal(ctl(scene.service, "cancel", "--force").returncode, 0, "cancel --force")
    scene.service.ended(1)


def half_open(case):
    """The old connection has not ended for us; the source has, and comes again."""
    scene = Scene(case)
    scene.send(range(10))
    scene.here(10)
    old = scene.source.main
    case.defer(old.close)
    scene.source.main = None
    scene.finish(scene.recover(range(10)))
    check("by another connection" in scene.service.log(), scene.service.log())


def large(case):
    """A bitmap longer than a socket holds, that is read slowly, while others are served."""
    length = 64 << 30
    service = Service(case, "--max-held", "128G", expect=("vm",), size=SIZE)
    vm = service.sharer("vm", "main")
    source = ScriptSource(service.uri, {BLOCK: (SIZE, PAGE), "vast": (length, PAGE)}, case.seed)
    case.defer(source.cut)
    source.start()
    vm.event("running")
    source.send(BLOCK, offsets(range(100)))
    source.send("vast", [0, length - PAGE])
    wait_for("them", lambda: service.status()["owed_pages_left"] == PAGES - 100 + length // PAGE - 2)
    source.cut()
    service.wait_state("paused")
    source.main = connect(service.uri)
    source.main.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    source.main.sendall(command(RECV_BITMAP, cstr("vast")))
    service.wait_state("recovering")
    vm.do(f"touch {BLOCK} 0 100")
    for page in range(100):
        check_equal(vm.saw(page * PAGE), source.shown(BLOCK, page * PAGE), f"page {page}")
    check_equal(service.status()["state"], "recovering", "state")
    source.main.close()
    service.wait_state("paused")
    source.connect()
    check_equal(source.received("vast"), [0, length - PAGE], "what came")
    check_equal(source.received(BLOCK), offsets(range(100)), "what came")


def cases():
    partial = functools.partial
    yield "F59 A11 lost while it runs, and resumed", plain
    yield "F59 A11 the same with an urgent channel", partial(plain, urgent=True)
    yield "F59 the urgent channel is there before it goes on", partial(plain, urgent=True, before=True)
    yield "F59 again and again", partial(many, urgent=False)
    yield "F59 again and again, with an urgent channel", partial(many, urgent=True)
    yield "F59 S1-20 O4 who waited is served, who need not wait does not", partial(faults_wait, urgent=False)
    yield "F59 S1-20 O4 the same with an urgent channel", partial(faults_wait, urgent=True)
    for step in ("torn", "bitmap", "between", "asked", "resume", "acknowledged", "urgent"):
        yield f"F59 it breaks: {step}", partial(breaks, step=step)
    yield "F59 goes on without having asked", partial(wrong, says=command(RESUME), why="what came of block rom")
    yield "F59 asks for a block that is not there", partial(wrong, says=command(RECV_BITMAP, cstr("nosuch")), why="nosuch")
    yield "F59 sends pages too early", partial(wrong, says=b"\2\0\0\0\2", why="pages before")
    yield "F59 nonsense", partial(wrong, says=b"\x99" * 20, why="unknown record")
    yield "F59 asks twice", asks_twice
    yield "F59 asks all in a row", in_a_row
    yield "F59 sends pages twice", again
    yield "F59 strangers while it is paused", strangers
    yield "F59 SHUT that did not arrive", ends_unknown
    yield "F59 lost while the VM loads", while_loading
    yield "F59 lost and back while the VM loads", still_loading
    yield "F59 F58 pause, recover, and the time to wait", by_the_operator
    yield "F58 cancel before the commit", cancelled_before
    yield "F58 cancel after the commit", cancelled_after
    yield "F59 back before its end was noticed", half_open
    yield "F59 a large bitmap, read slowly", large


if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {' '.join(missing_programs())}")
    sys.exit(main(list(cases())))
