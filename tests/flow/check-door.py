#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may not come in, and what it costs the others: nothing.  (F06, P08, P28, S1-23, S1-33, O14)"""
import ctypes
import errno
import fcntl
import mmap
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import check, check_equal, main, skip_all, wait_for  # noqa: E402
from rawdoor import (  # noqa: E402
    BLOCK_BODY, BLOCK_MESSAGE, HEAD, HELLO, HELLO_BODY, LEAVE, LISTENING, LOADED, MAPPING, READY,
    REFUSED, ROLE_MAIN, WANT, Raw, block, hello, packet, raw_member, userfaultfd)
from service import BLOCK, MIB, PAGE, ZERO, Service, missing_programs  # noqa: E402

F_SEAL_FUTURE_WRITE = 16


def still_works(service, source_options=()):
    """A whole session with this daemon."""
    vm = service.sharer("vm", "main", threads=2)
    source = service.source(*source_options)
    service.check_same(source, sharers=[vm])


# --- what is handed over ------------------------------------------------------------------------

def refused_uffd(case, kind, words):
    service = Service(case)
    bad = service.sharer("bad", memory="memfd=create", uffd=kind)
    text = bad.event("error")["text"]
    check(any(word in text for word in words), f"the reason is {text!r}")
    check_equal(bad.child.wait(), 1, "exit status")
    check_equal(service.of("bad"), None, "a refused one in the list")
    still_works(service)


def uffd_pipe(case):
    refused_uffd(case, "pipe", ("not a userfaultfd",))


def uffd_without_handshake(case):
    refused_uffd(case, "raw", ("UFFDIO_API", "handshake"))


def uffd_blocking(case):
    """Made O_NONBLOCK, said so, and served."""
    service = Service(case, expect=("vm", "blocking"))
    vm = service.sharer("vm", "main", threads=2)
    blocking = service.sharer("blocking", uffd="blocking", threads=2)
    service.check_same(service.source(), sharers=[vm, blocking])
    check_equal(service.log().count("was blocking"), 1, "lines about it in the log")


def user_only_kept_out(case):
    """F06: it says that the kernel touches its memory, which its userfaultfd does not let wait."""
    service = Service(case)
    bad = service.sharer("bad", memory="memfd=create", uffd="user-only")
    wait_for("a reason", lambda: bad.all("error") + bad.all("disabled"))
    text = (bad.all("error") + bad.all("disabled"))[0]["text"]
    check("USER_MODE_ONLY" in text, f"the reason is {text!r}")
    check(not bad.has("listening"), "it was told that it may touch the memory")
    bad.child.stop()
    still_works(service)


def user_only_accepted(case):
    """Only user-space accesses: allowed, and served."""
    service = Service(case, expect=("vm", "user"))
    vm = service.sharer("vm", "main", threads=2)
    user = service.sharer("user", uffd="user-only", user_faults_only=True, threads=2)
    service.check_same(service.source(), sharers=[vm, user])


# --- names and numbers --------------------------------------------------------------------------

def name_taken(case):
    service = Service(case, expect=("vm", "one"))
    vm = service.sharer("vm", "main", threads=1)
    one = service.sharer("one", threads=1)
    one.event("ready")
    again = service.sharer("one")
    check("name" in again.event("error")["text"], again.event("error"))
    check_equal(again.event("error")["error"], 17, "errno")
    service.check_same(service.source(), sharers=[vm, one])


def second_main(case):
    service = Service(case)
    vm = service.sharer("vm", "main", threads=1)
    vm.event("ready")
    second = service.sharer("other-vm", "main")
    check("main" in second.event("error")["text"], second.event("error"))
    service.check_same(service.source(), sharers=[vm])


def too_many(case):
    service = Service(case, "--max-sharers", "3", expect=("vm", "s1", "s2"))
    members = [service.sharer("vm", "main", threads=1)]
    members += [service.sharer(f"s{n}", threads=1) for n in (1, 2)]
    for member in members:
        member.event("ready")
    extra = service.sharer("extra")
    check("max-sharers" in extra.event("error")["text"], extra.event("error"))
    service.check_same(service.source(), sharers=members)


def mapped(length):
    """(memfd, its mapping here)"""
    fd = os.memfd_create("mapped")
    os.truncate(fd, length)
    return fd, mmap.mmap(fd, length)


def both_at_once(case):
    """Two main sharers that both said hello before one was ready: one of them is served, the other told why not."""
    service = Service(case)
    raws = [raw_member(service, f"vm{number}", ROLE_MAIN) for number in range(2)]
    kept = []
    for number, raw in enumerate(raws):
        kept.append(mapped(PAGE))
        raw.send(block(f"b{number}", PAGE), [kept[number][0]])
        check_equal(raw.answer()[1], 0, "errno of BLOCK")
    for number, raw in enumerate(raws):
        raw.send(packet(READY))
        answer = raw.answer()
        check_equal(answer[1], (0, 17)[number], f"errno of READY ({answer[2]})")
    check("main sharer" in service.reason("vm1"), service.of("vm1"))
    check_equal(service.of("vm0")["state"], "joining", "the first one")


def name_at_once(case):
    """The same with one name."""
    service = Service(case)
    raws = [raw_member(service, "twin") for _ in range(2)]
    fd, memory = mapped(PAGE)
    for number, raw in enumerate(raws):
        raw.send(block("b", PAGE), [fd])
        check_equal(raw.answer()[1], 0, "errno of BLOCK")
        raw.send(packet(READY))
        answer = raw.answer()
        check_equal(answer[1], (0, 17)[number], f"errno of READY ({answer[2]})")
    memory.close()


# --- memory that does not fit --------------------------------------------------------------------

def refuses_source(case, words, **memory):
    """The session is refused before any switch-over, by name; the source's VM goes on."""
    service = Service(case)
    vm = service.sharer("vm", "main", **memory)
    vm.event("ready")
    source = service.source("--precopy", "half", "--commit-ping")
    status = service.wait_state("failed")
    reason = status["error"]["reason"]
    check(all(word in reason for word in words), f"the reason is {reason!r}")
    check(not status["committed"], "it says committed")
    vm.event("failed")
    source.ended("source-resumes")


def wrong_length(case):
    refuses_source(case, (BLOCK, str(8 * MIB), str(4 * MIB)), blocks=[f"{BLOCK},size=8M"])


def surplus_block(case):
    refuses_source(case, ("other", "does not have"),
                   blocks=[f"{BLOCK},size=4M", "other,size=1M"])


def wrong_page_size(case):
    """The source's block has 2 MiB pages, the sharer's memory has small ones."""
    service = Service(case)
    service.sharer("vm", "main").event("ready")
    source = service.source("--commit-ping", blocks=[f"{BLOCK},size={service.size},page=2M"])
    reason = service.wait_state("failed")["error"]["reason"]
    check("2097152" in reason and "4096" in reason, f"the reason is {reason!r}")
    source.ended("source-resumes")


def other_memory(case):
    """Another memfd under the same name is no second view of the block."""
    service = Service(case)
    vm = service.sharer("vm", "main", threads=1)
    vm.event("ready")
    bad = service.sharer("bad", memory="memfd=create")
    check("memory" in bad.event("error")["text"], bad.event("error"))
    service.check_same(service.source(), sharers=[vm])


def late_block(case):
    """A block nobody had registered when the source came is held by us: too late to share it."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.patient_source(blocks=[f"{BLOCK},size=4M", "rom,size=256K"])
    vm.event("running")
    blocks = {b["name"]: b["kind"] for b in service.control("blocks")}
    check_equal(blocks, {BLOCK: "shared", "rom": "held"}, "kinds of blocks")
    late = service.sharer("late", blocks=["rom,size=256K"])
    check("before the migration" in late.event("error")["text"], late.event("error"))
    unknown = service.sharer("unknown", blocks=["nothing,size=1M"])
    check("no block of this name" in unknown.event("error")["text"], unknown.event("error"))
    service.check_same(source, sharers=[vm])


def too_much_held(case):
    """What nobody registers is bounded (--max-held): refused by name before the commit, and the source goes on."""
    service = Service(case, "--max-held", "1M")
    vm = service.sharer("vm", "main")
    source = service.source("--commit-ping", blocks=[f"{BLOCK},size=4M", "rom,size=256K", "pc.bios,size=768K",
                                                     "forgotten,size=4K"])
    status = service.wait_state("failed")
    reason = status["error"]["reason"]
    check("pc.bios of 786432 bytes" in reason and "--max-held" in reason and "register it" in reason, reason)
    source.ended("source-resumes")
    vm.event("failed")
    check(not vm.has("listening"), "it was told to listen")


def just_held(case):
    """As much as is allowed is kept."""
    service = Service(case, "--max-held", "1M")
    vm = service.sharer("vm", "main", threads=1)
    service.check_same(service.source(blocks=[f"{BLOCK},size=4M", "rom,size=256K", "pc.bios,size=768K"]), sharers=[vm])


def stranger(case):
    """A process that maps the memory and registers nothing: nothing is served before it ends."""
    service = Service(case)
    vm = service.sharer("vm", "main", threads=1)
    path = vm.path()
    code = ("import mmap, os, time; f = os.open('%s', os.O_RDWR); m = mmap.mmap(f, 0); "
            "print('mapped', flush=True); time.sleep(600)" % path)
    other = case.spawn("stranger", ["/usr/bin/python3", "-c", code])
    wait_for("the stranger to map", other.lines)
    source = service.source()
    text = service.wait_blocker("stranger")
    check(str(other.pid) in text and BLOCK in text, f"the blocker says {text!r}")
    check(not vm.has("listening"), "listening beside a stranger")
    other.kill()
    other.wait()
    service.check_same(source, sharers=[vm])


# --- garbage -----------------------------------------------------------------------------------------

def random_packet(rng, kinds):
    """A packet that is right in some ways and wrong in at least one."""
    kind = rng.choice(kinds)
    body = rng.randbytes(rng.choice((0, 8, 24, 88, 288, 296, 1000)))
    return rng.choice((
        lambda: rng.randbytes(rng.randrange(1, 1500)),
        lambda: packet(kind, body, serial=0),
        lambda: packet(kind, body, magic=rng.getrandbits(32)),
        lambda: packet(kind, body, version=rng.getrandbits(16)),
        lambda: packet(kind, body, size=rng.getrandbits(rng.choice((4, 10, 32)))),
        lambda: packet(rng.getrandbits(16), body),
        lambda: packet(kind, body),
        lambda: hello("g")[:rng.randrange(1, HEAD.size + HELLO_BODY.size)],
    ))()


def garbage(case):
    """F06: random packets, wrong sizes, wrong numbers of descriptors; nothing is lost or leaked."""
    service = Service(case)
    rng = case.random
    pipe = os.pipe()
    before = service.fds()
    for _ in range(400):
        raw = Raw(service)
        if rng.random() < 0.3:
            fd = userfaultfd()
            raw.send(hello(f"g{rng.getrandbits(16)}"), [fd])
            os.close(fd)
        try:
            for _ in range(rng.randrange(1, 4)):
                raw.send(random_packet(rng, range(0, 80)),
                         [rng.choice(pipe) for _ in range(rng.choice((0, 0, 1, 2, 5)))])
        except OSError:
            pass                        # it has hung up on us
        raw.close()
    wait_for("the daemon to have closed all", lambda: service.fds() <= before)
    still_works(service)


def fd_counts(case):
    """Each request with none, and with too many descriptors."""
    service = Service(case)
    pipe = os.pipe()
    for data in (hello("x"), block(BLOCK, 4 * MIB), packet(READY), packet(LEAVE)):
        for count in (0, 1, 2, 3):
            right = {HELLO: 1, BLOCK_MESSAGE: 1}.get(HEAD.unpack_from(data)[2], 0)
            if count == right:
                continue
            raw = Raw(service) if HEAD.unpack_from(data)[2] == HELLO else raw_member(service, "x")
            raw.send(data, [pipe[0]] * count)
            answer = raw.answer()
            check(answer is None or answer[1] != 0 or answer[0] == REFUSED,
                  f"{count} descriptors were taken: {answer}")
            raw.close()
            wait_for("it to be forgotten", lambda: service.of("x") is None)
    still_works(service)


def a_thousand(case):
    """Connect, say something or nothing, go: no descriptor is left behind."""
    service = Service(case)
    Raw(service).close()
    before = wait_for("descriptors", service.fds)
    for number in range(1000):
        raw = Raw(service)
        if number % 3 == 0:
            raw.send(b"x" * (number % 7 + 1))
        raw.close()
    wait_for("the daemon to have closed all", lambda: service.fds() <= before)
    still_works(service)


def silent(case):
    """Who says nothing takes no sharer's place, and is not kept for ever."""
    service = Service(case, "--max-sharers", "2", expect=("vm", "s1"))
    raws = [Raw(service) for _ in range(300)]
    members = [service.sharer("vm", "main", threads=1), service.sharer("s1", threads=1)]
    for member in members:
        member.event("ready")
    check(service.fds() < len(raws), f"{service.fds()} descriptors for those who say nothing")
    service.check_same(service.source(), sharers=members)
    for raw in raws:
        raw.close()


def says_and_never_reads(case):
    """S1-28: one that asks and never reads the answers costs nobody anything."""
    service = Service(case, expect=("vm",))
    vm = service.sharer("vm", "main", threads=2)
    vm.event("ready")
    raw = raw_member(service, "mute")
    raw.sock.settimeout(0.2)
    try:
        for _ in range(5000):
            raw.send(block("", 1), [raw.sock.fileno()])
    except OSError:
        pass
    start = time.monotonic()
    service.status()
    check(time.monotonic() - start < 3, "postcopyctl had to wait")
    raw.close()
    service.check_same(service.source(), sharers=[vm])


def out_of_order(case):
    """Requests in states where they mean nothing end that connection only."""
    service = Service(case)
    for data in (packet(READY), packet(LOADED), packet(WANT, bytes(280)), block(BLOCK, 4096)):
        raw = Raw(service)
        raw.send(data)
        answer = raw.answer()
        check(answer is None or answer[0] == REFUSED, f"taken before hello: {answer}")
        raw.close()
    raw = raw_member(service, "early")
    raw.send(packet(LOADED))
    check(raw.answer() in (None,) or True, "")
    raw.close()
    still_works(service)


def strange_files(case):
    """BLOCK with a pipe, a directory, a file of a disk, a sealed or short memfd."""
    service = Service(case)
    short = os.memfd_create("short")
    os.truncate(short, PAGE)
    with open(case.path("disk"), "wb+") as disk:
        disk.truncate(4 * MIB)
        root = os.open("/", os.O_RDONLY)
        files = {"a pipe": os.pipe()[0], "a directory": root, "too short": short,
                 "a proc file": os.open("/proc/self/maps", os.O_RDONLY)}
        for what, fd in files.items():
            raw = raw_member(service, "files")
            raw.send(block(BLOCK, 4 * MIB), [fd])
            answer = raw.answer()
            check(answer is None or answer[1] != 0, f"{what} was taken as memory: {answer}")
            raw.close()
            wait_for("it to be forgotten", lambda: service.of("files") is None)
    for length, page, offset in ((0, 0, 0), (PAGE + 1, 0, 0), (PAGE, 3, 0), (PAGE, 0, 1),
                                 (1 << 63, 0, 1 << 63), (PAGE, 1 << 40, 0), (PAGE, 0, PAGE)):
        raw = raw_member(service, "numbers")
        raw.send(block(BLOCK, length, page, offset), [short])
        answer = raw.answer()
        check(answer is None or answer[1] != 0, f"{length}, {page}, {offset} was taken: {answer}")
        raw.close()
        wait_for("it to be forgotten", lambda: service.of("numbers") is None)
    still_works(service)


def bytes_twice(case):
    """A byte that is in two blocks would get the content of whichever comes last."""
    service = Service(case)
    fd, _ = mapped(4 * PAGE)
    first, second = raw_member(service, "first"), raw_member(service, "second")
    first.send(block("one", 2 * PAGE), [fd])
    check_equal(first.answer()[1], 0, "errno of the first BLOCK")
    for raw, name, offset in ((first, "two", PAGE), (second, "three", 0)):
        raw.send(block(name, 2 * PAGE, 0, offset), [fd])
        answer = raw.answer()
        check(answer[1] == 22 and "another block" in answer[2], f"{name}: {answer}")
    first.send(block("beside", 2 * PAGE, 0, 2 * PAGE), [fd])
    check_equal(first.answer()[1], 0, "errno of a block beside the first")


def cannot_be_written(case):
    """Content can only be placed into what may be written: known before a source comes."""
    service = Service(case)
    fd, _ = mapped(PAGE)
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.truncate(sealed, PAGE)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
    raw = raw_member(service, "poor")
    for what in (os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), sealed):
        raw.send(block(BLOCK, PAGE), [what])
        answer = raw.answer()
        check(answer[1] == 13 and "written" in answer[2], answer)
    raw.close()
    wait_for("it to be forgotten", lambda: service.of("poor") is None)
    still_works(service)


def private_of_another(case):
    """Private memory of a sharer that is not the VMM: nothing is placed through its address space unasked."""
    service = Service(case)
    raw = raw_member(service, "helper")
    raw.send(packet(BLOCK_MESSAGE, BLOCK_BODY.pack(1, 0, PAGE, 0, 0, b"own"), 2))
    answer = raw.answer()
    check(answer[1] == 22 and "main" in answer[2], answer)
    raw.close()
    wait_for("it to be forgotten", lambda: service.of("helper") is None)
    still_works(service)


def private_page_size(case):
    """Small pages that are said to be huge ones could be placed in part, which nobody would notice."""
    service = Service(case)
    memory = mmap.mmap(-1, 4 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    raw = raw_member(service, "vm", ROLE_MAIN)
    raw.send(packet(BLOCK_MESSAGE, BLOCK_BODY.pack(1, 0, 4 * MIB, 2 * MIB, 0, BLOCK.encode()), 2))
    check_equal(raw.answer()[1], 0, "errno of BLOCK")
    raw.send(packet(MAPPING, BLOCK_BODY.pack(0, 0, address, 4 * MIB, 0, BLOCK.encode()), 3))
    check_equal(raw.answer()[1], 0, "errno of MAPPING")
    raw.send(packet(READY, serial=4))
    answer = raw.answer()
    check(answer[1] == 22 and "pages" in answer[2], answer)


CASES = [
    ("S1-23 a pipe instead of a userfaultfd is refused", uffd_pipe),
    ("S1-23 a userfaultfd without handshake is refused", uffd_without_handshake),
    ("S1-23 a blocking userfaultfd is made O_NONBLOCK and served", uffd_blocking),
    ("F06 USER_MODE_ONLY where the kernel touches: kept out", user_only_kept_out),
    ("F06 USER_MODE_ONLY for user accesses only: served", user_only_accepted),
    ("S1-33 a name that is taken is refused", name_taken),
    ("P08 a second main sharer is refused", second_main),
    ("P08 two main sharers at once: one is served", both_at_once),
    ("S1-33 two of one name at once: one is served", name_at_once),
    ("F06 too many sharers are refused", too_many),
    ("P08 more that nobody registered than --max-held: refused, the source resumes", too_much_held),
    ("P08 as much as --max-held that nobody registered", just_held),
    ("P08 another length than the source's: refused, the source resumes", wrong_length),
    ("P08 another page size than the source's: refused", wrong_page_size),
    ("P08 a block the source does not have: refused", surplus_block),
    ("P08 other memory under the same name is refused", other_memory),
    ("P08 a block that comes too late is refused", late_block),
    ("O14 a stranger that maps the memory blocks LISTENING until it ends", stranger),
    ("F06 garbage on the register socket", garbage),
    ("F06 wrong numbers of descriptors", fd_counts),
    ("F06 a thousand connections leave no descriptor", a_thousand),
    ("F06 connections that say nothing keep nobody out", silent),
    ("S1-28 one that never reads its answers", says_and_never_reads),
    ("F06 requests out of order", out_of_order),
    ("P28 files that are no memory, numbers that do not fit", strange_files),
    ("O2 the same bytes as two blocks are refused", bytes_twice),
    ("P28 a file that cannot be written is refused", cannot_be_written),
    ("P08 private memory of a helper is refused", private_of_another),
    ("S1-17 private memory of another page size is refused", private_page_size),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
