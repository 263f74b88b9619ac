#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that know nothing of us, under libpostcopy-preload.so.  (F06, F15, O14)"""
import os
import re
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from dest import events  # noqa: E402
from harness import Failure, Skip, check, check_equal, built, for_everybody, main, skip_all, wait_for  # noqa: E402
from preload import LIBRARY, NOBODY, SETPRIV, asks, preloaded, served, vmas  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, Sharer, missing_programs  # noqa: E402

MAPPER = built("tests/lib/mapper") and for_everybody(built("tests/lib/mapper"))
SIZE = 4 * MIB
ASKED = None                            # source options: send only what is asked for


class Mapper(Sharer):
    """A `mapper` process: Sharer's console, another program."""

    def event(self, event, timeout=20.0, **fields):
        if self.pid == self.child.pid:
            return super().event(event, timeout, **fields)
        return wait_for(f"process {self.pid} to say {event}", lambda: self.has(event, **fields), timeout)

    def background(self):
        """Go there: the process we started ends, and it is a child of its child that speaks from then on, when it gets to it."""
        self.tell("background")
        self._said += 1
        self.pid = wait_for(f"{self.name} to go into the background", lambda: self.has("background"))["pid"]

    def sees(self, area, offset):
        """The word there, once it is."""
        self.do(f"see {area} {offset}")
        return self.event("saw", area=area, offset=offset)["word"]

    def waits(self, area, offset):
        """A thread that reads there, and is not there yet."""
        self.do(f"see {area} {offset}")

    def sum(self, area):
        self.do(f"sum {area}")
        return self.all("sum", area=area)[-1]["sum"]

POORER = "tests/lib/poorer"

def mapper(service, name, asked, wrapper=(), library=LIBRARY):
    """A mapper under the preload; @wrapper starts it."""
    number = sum(child.name.startswith("mapper") for child in service.case.children)
    argv = preloaded(asked, *wrapper, MAPPER, library=library)
    child = service.case.spawn(f"mapper{number}-{name}", argv, stdin=subprocess.PIPE)
    service.case.defer(child.kill)
    return Mapper(child, name)


def started(service, name, wrapper=(), **keys):
    program = mapper(service, name, asks(service, name, **keys), wrapper)
    program.event("started")
    return program


def word_at(path, offset):
    with open(path, "rb") as memory:
        memory.seek(offset)
        return f"{struct.unpack('<Q', memory.read(8))[0]:016x}"


def sum_at(path, offset, length):
    with open(path, "rb") as memory:
        memory.seek(offset)
        data = memory.read(length)
    return sum(struct.unpack(f"<{length // 8}Q", data)) % (1 << 64)


def serving(case, *names, source=ASKED, **keys):
    """A session that serves faults: the daemon, its VM, the source, the path of the memory."""
    service = Service(case, expect=("vm", *names), **keys)
    vm = service.sharer("vm", "main")
    path = vm.path()
    return service, vm, path, source


def start_source(service, options):
    return service.patient_source() if options is ASKED else service.source(*options)


def begin(service, vm, options):
    source = start_source(service, options)
    vm.event("listening")
    return source


def finish(service, vm, source):
    """The source is content and the VM sees what it holds; then others may look at the file, too."""
    service.check_same(source, sharers=[vm])


def same_as_file(program, path, areas):
    """@areas: name -> (offset, length)"""
    for area, (offset, length) in areas.items():
        check_equal(program.sum(area), sum_at(path, offset, length), f"sum of {area}")


# --- served ---------------------------------------------------------------------------------------

def mapped_before(case):
    """What it maps before LISTENING is found, each part with its own offset."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend")
    areas = {"low": (0, 640 * 1024), "high": (MIB, 3 * MIB), "again": (2 * MIB, MIB)}
    backend.do(f"open {path}")
    for area, (offset, length) in areas.items():
        backend.do(f"map {area} {offset} {length}")
    source = begin(service, vm, options)
    check(served(backend.pid, path), f"not all registered: {vmas(backend.pid, path)}")
    backend.waits("low", 5 * PAGE)
    backend.waits("high", 7 * PAGE)
    seen = [backend.event("saw", area="low")["word"], backend.event("saw", area="high")["word"]]
    finish(service, vm, source)
    check_equal(seen, [word_at(path, 5 * PAGE), word_at(path, MIB + 7 * PAGE)], "words it saw")
    same_as_file(backend, path, areas)
    check(not any("um" in flags for *_, flags in vmas(backend.pid, path)), "still registered at the end")


def mapped_late(case):
    """maps=on: what it maps while faults are served is served before it has the address."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    areas = {"low": (0, 640 * 1024), "high": (MIB, 3 * MIB)}
    seen = []
    for area, (offset, length) in areas.items():
        backend.do(f"map {area} {offset} {length}")
        check(served(backend.pid, path), f"not all registered: {vmas(backend.pid, path)}")
        seen.append(backend.sees(area, 9 * PAGE))
    finish(service, vm, source)
    check(service.stats()["total"]["faults"] >= 2, "no fault of the backend was counted")
    check_equal(seen, [word_at(path, 9 * PAGE), word_at(path, MIB + 9 * PAGE)], "words it saw")
    same_as_file(backend, path, areas)
    backend.do(f"map after 0 {MIB} populate")
    check_equal(backend.sum("after"), sum_at(path, 0, MIB), "sum of what was mapped after the end")


def holes_stay_holes(case):
    """MAP_POPULATE and mlockall(MCL_FUTURE) put nothing where pages are missing."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    before = os.stat(path).st_blocks
    backend.do(f"open {path}")
    backend.do(f"map filled 0 {2 * MIB} populate")
    backend.do("lock-future")
    backend.do(f"map locked {2 * MIB} {2 * MIB}")
    check_equal(os.stat(path).st_blocks, before, "blocks of the file")
    seen = backend.sees("filled", 3 * PAGE), backend.sees("locked", 3 * PAGE)
    finish(service, vm, source)
    check_equal(seen, (word_at(path, 3 * PAGE), word_at(path, 2 * MIB + 3 * PAGE)), "words it saw")
    same_as_file(backend, path, {"filled": (0, 2 * MIB), "locked": (2 * MIB, 2 * MIB)})


def place_used_again(case):
    """Another part of the file where it had one: the pages of the old one never come there."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do(f"map one 0 {MIB}")
    first = backend.sees("one", 0)
    backend.do(f"map two {2 * MIB} {MIB} one")
    second = backend.sees("two", 0)
    backend.do("unmap two")
    backend.do(f"map three {MIB} {MIB}")
    third = backend.sees("three", 4 * PAGE)
    finish(service, vm, source)
    check_equal([first, second, third],
                [word_at(path, 0), word_at(path, 2 * MIB), word_at(path, MIB + 4 * PAGE)], "words it saw")
    check_equal(service.of("backend")["mappings"], 1, "mappings of the backend at the end")
    same_as_file(backend, path, {"three": (MIB, MIB)})


def many_times(case):
    """Mapping and unmapping for as long as pages come, by the one who may only use what is proven."""
    service, vm, path, _ = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, ("--rate", "2000000"))
    backend.do(f"open {path}")
    seen = {}
    for number in range(60):
        offset = case.random.randrange(SIZE // PAGE - 16) * PAGE
        at = case.random.choice(("", f"a{number - 1}")) if number else ""
        backend.do(f"map a{number} {offset} {16 * PAGE} {at}")
        page = case.random.randrange(16) * PAGE
        seen[offset + page] = backend.sees(f"a{number}", page)
        if number % 3 == 0 and number > 3:
            backend.tell(f"unmap a{number - 3}")
            backend._said += 1  # pylint: disable=protected-access
    finish(service, vm, source)
    for offset, word in seen.items():
        check_equal(word, word_at(path, offset), f"word at {offset}")
    check_equal(service.of("backend")["state"], "active", "the backend")


def remapped(case):
    """maps=on: what is moved or grown is served where it is then, before the program knows the place."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do(f"map one {MIB} {MIB}")
    backend.do(f"map two 0 {2 * MIB}")
    seen = {MIB: backend.sees("one", 0)}
    before = os.stat(path).st_blocks
    for line, offset, area, at in (
            (f"remap one {MIB} away", MIB, "one", 9 * PAGE),
            (f"remap two {MIB}", 0, "two", 9 * PAGE),               # shrunk: nobody is asked
            (f"remap two {2 * MIB} stay", 0, "two", MIB + 30 * PAGE),
            (f"remap one {3 * MIB} away", MIB, "one", 2 * MIB + 9 * PAGE),
            ("lock-future", MIB, "one", 2 * MIB + 13 * PAGE),
            (f"remap two {3 * MIB} away", 0, "two", 2 * MIB + 17 * PAGE)):
        backend.do(line)
        check(served(backend.pid, path), f"{line}: not all registered: {vmas(backend.pid, path)}")
        seen[offset + at] = backend.sees(area, at)
    grown = os.stat(path).st_blocks - before
    check(grown <= len(seen) * PAGE // 512, f"{grown} blocks appeared for {len(seen)} pages that were looked at")
    finish(service, vm, source)
    for offset, word in seen.items():
        check_equal(word, word_at(path, offset), f"word at {offset}")
    same_as_file(backend, path, {"one": (MIB, 3 * MIB), "two": (0, 3 * MIB)})
    backend.do(f"remap one {MIB} away")
    check_equal(backend.sum("one"), sum_at(path, MIB, MIB), "sum of what was moved after the end")


def onto_another(case):
    """Moved to where another part of the memory was: the pages of that one never come there."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do(f"map one 0 {MIB}")
    backend.do(f"map two {2 * MIB} {MIB}")
    first = backend.sees("two", 0)
    backend.do(f"remap one {MIB} two")
    second = backend.sees("one", 5 * PAGE)
    finish(service, vm, source)
    check_equal([first, second], [word_at(path, 2 * MIB), word_at(path, 5 * PAGE)], "words it saw")
    check_equal(service.of("backend")["mappings"], 1, "mappings of the backend at the end")
    same_as_file(backend, path, {"one": (0, MIB)})


# --- kept out -------------------------------------------------------------------------------------

def copy_on_write(case):
    """A private mapping would never see pages that come: refused, and nothing is instantiated."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    before = os.stat(path).st_blocks
    backend.do(f"open {path}")
    backend.do(f"map cow 0 {MIB} private populate", error=22)
    check("MAP_PRIVATE" in backend.child.errors(), backend.child.errors())
    check_equal(os.stat(path).st_blocks, before, "blocks of the file")
    check_equal(vmas(backend.pid, path), [], "mappings that are left")
    backend.do(f"map good 0 {MIB}")
    finish(service, vm, source)
    same_as_file(backend, path, {"good": (0, MIB)})


def not_remapped(case):
    """A second mapping by mremap cannot be closed before it is there: refused, and all stays as it was."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do(f"map one 0 {MIB}")
    mapped, before = vmas(backend.pid, path), os.stat(path).st_blocks
    backend.do(f"remap one {MIB} copy", error=22)
    check("comes by mmap only" in backend.child.errors(), backend.child.errors())
    check_equal(vmas(backend.pid, path), mapped, "mappings")
    check_equal(os.stat(path).st_blocks, before, "blocks of the file")
    seen = backend.sees("one", 3 * PAGE)
    finish(service, vm, source)
    check_equal(seen, word_at(path, 3 * PAGE), "word it saw")


def daemon_gone(case):
    """The daemon dies: what is mapped stays asleep, and nothing more is given to the program."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do(f"map one 0 {MIB}")
    service.child.kill()
    service.child.wait()
    backend.do(f"map two {2 * MIB} {MIB}", error=5)
    backend.do(f"remap one {MIB} away", error=5)
    check("connection to postcopyd ended" in backend.child.errors(), backend.child.errors())
    backend.do(f"see one {100 * PAGE}")
    time.sleep(0.2)
    check(not backend.has("saw"), "a page that nobody served was seen")
    check("um" in vmas(backend.pid, path)[0][3], "its own userfaultfd is open, so the memory stays registered")


def daemon_dies_meanwhile(case):
    """It dies while a mapping waits for its word."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    begin(service, vm, options)
    backend.do(f"open {path}")
    service.child.freeze()
    backend.tell(f"map one 0 {MIB}")
    time.sleep(0.2)
    check_equal(len(backend.all("done")), 1, "commands done while the daemon is stopped")
    service.child.kill()
    done = wait_for("mmap to fail", lambda: (backend.all("done") + [None] * 2)[1])
    check(done["error"] != 0, "a mapping that nobody proved was given out")
    check_equal(vmas(backend.pid, path), [], "mappings that are left")


def its_socket_closed(case):
    """A program that closes what it does not know: nothing is mapped unproven."""
    service, vm, path, options = serving(case, "backend", source=("--rate", "2000000"))
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do("close-all")
    backend.do(f"map one 0 {MIB}", error=5)
    finish(service, vm, source)


def after_the_end(case):
    """After the end a daemon that is gone stands in nobody's way, and it does not go before all were told."""
    service, vm, path, _ = serving(case, "backend", stay=False)
    backend = started(service, "backend", maps="on")
    backend.do(f"open {path}")
    backend.do(f"map early 0 {MIB}")
    source = begin(service, vm, ())
    finish(service, vm, source)
    service.ended(0)
    check(not any("um" in flags for *_, flags in vmas(backend.pid, path)), "still registered after the daemon's end")
    backend.do(f"map all 0 {SIZE}")
    same_as_file(backend, path, {"all": (0, SIZE)})


def no_daemon(case):
    """Nobody there: the program does not run, unless it may."""
    service = Service(case)
    gone = f"POSTCOPY_PRELOAD=register={case.path('nobody')},name=x"
    refused = mapper(service, "x", gone)
    check_equal(refused.child.wait(), 1, "exit status")
    check_equal(refused.child.lines(), [], "what the program said")
    check_equal(len(refused.child.errors().splitlines()), 1, refused.child.errors())
    check("cannot connect to postcopyd" in refused.child.errors(), refused.child.errors())
    allowed = mapper(service, "x", gone + ",maps=on,required=no")
    allowed.event("started")
    check("cannot connect" in allowed.child.errors(), allowed.child.errors())
    allowed.do("open /proc/self/exe", error=26)


def bad_words(case):
    service = Service(case)
    for text, words in (("register=/x", "name: is missing"), ("name=x", "register: is missing"),
                        ("register=/x,name=x,role=boss", "role: main or sharer"),
                        ("register=/x,name=x,policy=none", "policy"), ("register=/x,name=x,maps=perhaps", "maps"),
                        ("register=/x,name=x,colour=red", "colour"), (f"register=/{'x' * 108},name=x", "too long")):
        program = mapper(service, "x", "POSTCOPY_PRELOAD=" + text)
        check_equal(program.child.wait(), 1, f"exit status with {text}")
        check(words in program.child.errors(), f"{text}: {program.child.errors()}")


def name_taken(case):
    """The daemon's own reason is what the program's user reads."""
    service = Service(case, expect=("one",))
    one = started(service, "one")
    two = mapper(service, "one", asks(service, "one"))
    check_equal(two.child.wait(), 1, "exit status")
    check("a sharer of this name is there already" in two.child.errors(), two.child.errors())
    one.do("child-exec")


def stranger(case):
    """Without the preload a second mapper is seen, and nothing is served."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    other = mapper(service, "other", "NOTHING=1")
    other.do(f"open {path}")
    other.do(f"map all 0 {SIZE}")
    source = start_source(service, options)
    check(str(other.pid) in service.wait_blocker("stranger"), "the blocker does not name it")
    other.child.kill()
    other.child.wait()
    service.check_same(source, sharers=[vm])
    backend.do(f"open {path}")
    backend.do(f"map all 0 {SIZE}")
    same_as_file(backend, path, {"all": (0, SIZE)})


# --- forks, execs, privileges -----------------------------------------------------------------------

def environment(program, first=0):
    program.do("child-exec")
    seen = program.all("environment")[first:]
    return {e["name"]: e["value"] for e in seen}


def wrappers(case):
    """What execs the program says hello and is forgotten; what the program starts is not asked."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on",
                      wrapper=("/usr/bin/nice", "/bin/sh", "-c", 'exec "$@"', "sh", *SETPRIV[:1], "--nnp"))
    check_equal([s["pid"] for s in service.control("sharers") if s["name"] == "backend"], [backend.pid],
                "who is there by that name")
    source = begin(service, vm, options)
    check_equal(environment(backend), {"LD_PRELOAD": "", "POSTCOPY_PRELOAD": ""}, "environment of what it starts")
    backend.do(f"open {path}")
    backend.do(f"map all 0 {SIZE}")
    backend.sees("all", 0)
    finish(service, vm, source)
    same_as_file(backend, path, {"all": (0, SIZE)})


def by_name(case):
    """program=: only that one is asked, also where a shell forks it; and others' libraries stay."""
    service, _, _, _ = serving(case, "backend")
    other = "/usr/lib/x86_64-linux-gnu/libutil.so.1"
    check(os.path.exists(other), f"no {other}")
    asked = asks(service, "backend", program="mapper")
    backend = mapper(service, "backend", asked, wrapper=("/bin/sh", "-c", '"$@"; exit 3', "sh"),
                     library=f"{LIBRARY}:{other}")
    pid = backend.event("started")["pid"]
    check(pid != backend.pid, "the shell did not fork")
    hello = [s["pid"] for s in service.control("sharers") if s["name"] != "vm"]
    check_equal(hello, [pid], "who said hello")
    check_equal(environment(backend), {"LD_PRELOAD": other, "POSTCOPY_PRELOAD": ""}, "environment of what it starts")
    nothing = mapper(service, "nothing", asks(service, "nothing", program="/usr/bin/mapper"))
    nothing.event("started")
    check_equal(len(service.control("sharers")), 2, "sharers")


def background(case):
    """It goes into the background before the migration: the child is the sharer."""
    service, vm, path, options = serving(case, "backend")
    backend = started(service, "backend", maps="on")
    backend.background()
    service.case.defer(lambda: os.kill(backend.pid, signal.SIGKILL))
    wait_for("the child alone", lambda: [s["pid"] for s in service.control("sharers")
                                         if s["name"] == "backend"] == [backend.pid])
    source = begin(service, vm, options)
    backend.do(f"open {path}")
    backend.do(f"map all 0 {SIZE}")
    seen = backend.sees("all", 11 * PAGE)
    finish(service, vm, source)
    check_equal(seen, word_at(path, 11 * PAGE), "word it saw")


def children(case):
    """A child of a served program has none of its memory, and is served when it maps some itself."""
    service, vm, path, options = serving(case, "backend", source=("--rate", "1000000"))
    backend = started(service, "backend", maps="on")
    source = begin(service, vm, options)
    before = len(service.control("sharers"))
    backend.do(f"open {path}")
    backend.do(f"map all 0 {SIZE}")
    backend.do(f"child-see all {1000 * PAGE}")
    check_equal(backend.all("child")[0]["signal"], signal.SIGSEGV, "how the child ended that touched")
    backend.do("child-exec")
    check_equal(len(service.control("sharers")), before, "sharers after a child that mapped nothing")
    backend.do(f"child-map {MIB} {MIB}")
    check_equal(backend.all("child")[-1], {"event": "child", "signal": 0, "code": 0}, "the child that mapped")
    finish(service, vm, source)
    same_as_file(backend, path, {"all": (0, SIZE)})


def unprivileged(case, wrapper=SETPRIV):
    """Who may not open a userfaultfd borrows the device, and is served like anybody."""
    with open("/proc/sys/vm/unprivileged_userfaultfd", encoding="ascii") as knob:
        check_equal(knob.read().strip(), "0", "vm.unprivileged_userfaultfd")
    os.chmod(case.dir, 0o711)
    register = case.path("register")
    service = Service(case, "--register-path", register, "--register-group", "nogroup", expect=("vm", "backend"))
    service.register = register
    path = f"/dev/shm/postcopy-preload-{os.getpid()}"
    with open(path, "wb") as memory:
        memory.truncate(SIZE)
    case.defer(lambda: os.unlink(path))
    os.chmod(path, 0o666)
    vm = service.sharer("vm", "main", memory=f"memfd={path}")
    backend = started(service, "backend", maps="on", wrapper=wrapper)
    with open(f"/proc/{backend.pid}/status", encoding="ascii") as status:
        check(re.search(rf"^Uid:\s+{NOBODY}\s", status.read(), re.M), "it runs with privilege")
    source = begin(service, vm, ASKED)
    backend.do(f"open {path}")
    backend.do(f"map all 0 {SIZE}")
    seen = backend.sees("all", 13 * PAGE)
    finish(service, vm, source)
    check_equal(seen, word_at(path, 13 * PAGE), "word it saw")
    same_as_file(backend, path, {"all": (0, SIZE)})


def unprivileged_and_hidden(case):
    """The same where a sandbox answers ENOSYS to userfaultfd(2)."""
    if not built(POORER):
        raise Skip(f"{POORER} is not built")
    unprivileged(case, wrapper=(built(POORER), "userfaultfd=ENOSYS", "--", *SETPRIV))


def main_program(case):
    """role=main: it is there to be spoken for, and no other VMM can come between."""
    service = Service(case)
    vm = started(service, "vm", role="main")
    found = service.of("vm")
    check_equal((found["pid"], found["state"], found["main"]), (vm.pid, "joining", True), "the main sharer")
    check("main sharer" in service.blockers()["main-sharer"], service.blockers())


CASES = [
    ("preload: what is mapped before LISTENING is found and served", mapped_before),
    ("F15 preload: what is mapped late is served before it is seen", mapped_late),
    ("O14 preload: MAP_POPULATE and MCL_FUTURE fill no holes", holes_stay_holes),
    ("preload: a place used for another part of the memory", place_used_again),
    ("preload: mapped and unmapped all the time", many_times),
    ("O14 preload: what is moved or grown is served where it is then", remapped),
    ("preload: moved to where another part of the memory was", onto_another),
    ("preload: a second mapping by mremap is refused", not_remapped),
    ("preload: a private mapping is refused", copy_on_write),
    ("preload: the daemon is gone: mmap fails", daemon_gone),
    ("preload: the daemon dies while mmap waits", daemon_dies_meanwhile),
    ("preload: the program closed the connection: mmap fails", its_socket_closed),
    ("preload: after the end nothing is in the way", after_the_end),
    ("preload: without a daemon the program does not run", no_daemon),
    ("preload: words that are wrong", bad_words),
    ("preload: a refusal is told in the daemon's words", name_taken),
    ("O14 preload: who maps without it stops everything", stranger),
    ("preload: wrappers, and what the program starts", wrappers),
    ("preload: program= asks one program only", by_name),
    ("preload: into the background", background),
    ("preload: children", children),
    ("F06 preload: without privilege, with a borrowed device", unprivileged),
    ("F06 preload: without privilege, and userfaultfd(2) hidden", unprivileged_and_hidden),
    ("preload: a main sharer is there to be spoken for", main_program),
]

if __name__ == "__main__":
    if missing_programs() or not MAPPER:
        skip_all("not built: make check builds it")
    if not LIBRARY:
        skip_all("no shared library was built")
    main(CASES)
