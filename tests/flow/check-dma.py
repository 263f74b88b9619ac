#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What devices of a VMM reach, told by libpostcopy: held until it is there, mapped, opened.  (F46, F47, F48, F51, S0-08 … S2-10)"""
import errno
import json
import mmap
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, skip_all, wait_for  # noqa: E402
from rawdoor import (  # noqa: E402
    DMA_MAPPED, DMA_OPEN, DMA_RANGE, DMA_RESET, DMA_RETRY, DMA_SEAL, DMA_SYNC, DMA_UNMAP, HEAD, LOADED, PACKAGE, READY,
    RESULT, ROLE_MAIN, RUNNING, UNAWARE, block, dma_at, dma_map, packet, raw_member)
from relay import S2D, Relay  # noqa: E402
from service import BLOCK, MIB, PAGE, Service, missing_programs  # noqa: E402
from vm import HUGE, reserve_hugepages  # noqa: E402

GATE = "0000:01:00.0"
READS, WRITES, COHERENT, ENFORCED = 1, 2, 1, 2
LATE = 3600000                          # ms: nothing is loaded unless the console says so


# --- what the console says ---------------------------------------------------------------------------

def declare(vm, iova, offset, length, flags="rw", gate=GATE, block=BLOCK, error=0):
    return vm.do(f"dma {gate} {block} {offset:#x} {length:#x} {iova:#x} {flags}", error)


def due(vm, iova, gate=GATE, **fields):
    """The event that asks for the range at this address, whose pages were all there when it came."""
    event = vm.event("dma-range", gate=gate, iova=iova, **fields)
    check_equal(event["present"], event["length"] // PAGE, f"pages there when {event} came")
    return event


def is_mapped(vm, iova, error=0, gate=GATE):
    vm.do(f"dma-mapped {gate} {iova:#x} {error}")


def written(vm, verb, iova, length, gate=GATE):
    before = len(vm.all("written"))
    vm.do(f"{verb} {gate} {iova:#x} {length:#x}")
    return vm.all("written")[before]["bytes"]


def first_hole(path, offset=0):
    """From outside: where in the file memory is missing, behind this."""
    fd = os.open(path, os.O_RDONLY)
    hole = os.lseek(fd, offset, os.SEEK_HOLE)
    os.close(fd)
    return hole


def check_file_has(path, offset, length):
    hole = first_hole(path, offset)
    check(hole >= offset + length, f"{path} has a hole at {hole:#x}, in [{offset:#x}, +{length:#x})")


def is_open(vm, times=1, gate=GATE):
    wait_for(f"gate {gate} to open, {times} in all", lambda: len(vm.all("dma-open", gate=gate)) == times)


def holds_pages(case, service):
    """A relay that lets no page through until its release()."""
    relay = Relay(case, "unix:" + case.path("relay"), service.uri)
    relay.hold(S2D, before=lambda event: event.kind in ("PAGE", "ZERO"))
    return relay


def running(case, *options, **more):
    """A VM that runs, of whose memory only what somebody asks for comes."""
    service = Service(case, *options)
    vm = service.sharer("vm", "main", **more)
    source = service.patient_source()
    vm.event("running")
    return service, vm, source


# --- the way of a range --------------------------------------------------------------------------------

def declared_before(case):
    """Kept until faults are served; nothing is asked to be mapped while a page is missing; not open before sealed."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    declare(vm, 0x100000, 0, MIB)
    declare(vm, 0x400000, 2 * MIB, 64 * PAGE, "r")
    relay = holds_pages(case, service)
    source = service.patient_source(to=relay.uri)
    vm.event("running")
    text = wait_for("pages to be missing", lambda: "missing" in service.wait_blocker(f"gate:{GATE}")
                    and service.blockers().get(f"gate:{GATE}"))
    check("of 320 pages are missing" in text, text)
    relay.wait_held()
    check(not vm.has("dma-range"), "a range is to be mapped that is not there")
    relay.release()
    event = due(vm, 0x100000)
    check_equal((event["offset"], event["length"], event["block"]), (0, MIB, BLOCK), "what is to be mapped")
    check_equal((event["directions"], event["flags"]), (READS | WRITES, 0), "and for what")
    check_file_has(vm.path(), 0, MIB)
    check_equal(due(vm, 0x400000)["directions"], READS, "directions of the second")
    is_mapped(vm, 0x100000)
    is_mapped(vm, 0x400000)
    wait_for("the gate to lack its seal only", lambda: "nobody said" in service.blockers()[f"gate:{GATE}"])
    check(not vm.has("dma-open"), "open before the set is whole")
    vm.do(f"dma-seal {GATE}")
    is_open(vm)
    wait_for("nothing in the way", lambda: f"gate:{GATE}" not in service.blockers())
    service.check_same(source)


def declared_after(case):
    """While the VM runs: the pages come ahead of the others, the gate opens with the last of them."""
    service, vm, source = running(case)
    declare(vm, 0, MIB, MIB)
    vm.do(f"dma-seal {GATE}")
    event = due(vm, 0)
    check_equal(event["offset"], MIB, "offset")
    check_file_has(vm.path(), MIB, MIB)
    check_equal(first_hole(vm.path()), 0, "first page that is not here, as nobody reaches it")
    check(not vm.has("dma-open"), "open before it was mapped")
    is_mapped(vm, 0)
    is_open(vm)
    service.check_same(source)


def coherent(case):
    """A ring is for both directions, whatever is said, and the event says that it is one."""
    service, vm, source = running(case)
    declare(vm, 0x10000, 8 * PAGE, 2 * PAGE, "ce")
    event = due(vm, 0x10000)
    check_equal((event["directions"], event["flags"]), (READS | WRITES, COHERENT | ENFORCED), "of a ring")
    is_mapped(vm, 0x10000)
    check_equal(written(vm, "dma-sync", 0x10000, PAGE), PAGE, "bytes of a ring that count as written")
    service.check_same(source)


def private_memory(case):
    service = Service(case)
    vm = service.sharer("vm", "main", memory="private=on")
    vm.event("ready")
    declare(vm, 0, 0, MIB)
    vm.do(f"dma-seal {GATE}")
    source = service.patient_source()
    due(vm, 0)
    is_mapped(vm, 0)
    is_open(vm)
    service.check_same(source)


def zeroes_are_placed(case):
    """A page known to be zero is no page that a device can be given: it is placed."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    source = service.source("--rate", "40M", blocks=[f"{BLOCK},size={service.size},zero=100"])
    vm.event("running")
    declare(vm, 0, 0, service.size)
    vm.do(f"dma-seal {GATE}")
    due(vm, 0)
    check_file_has(vm.path(), 0, service.size)
    is_mapped(vm, 0)
    is_open(vm)
    service.check_same(source)


def huge_pages(case):
    """Of a huge page all that the range has a part of."""
    reserve_hugepages(case, 4)
    service = Service(case, size=4 * HUGE)
    vm = service.sharer("vm", "main", memory="hugetlb=on")
    source = service.source("--no-background", "--linger", "60000", blocks=[f"{BLOCK},size={service.size},page=2M"])
    vm.event("running")
    declare(vm, 0x200000, HUGE - PAGE, 2 * PAGE)
    vm.do(f"dma-seal {GATE}")
    # mincore(2) sees page tables there and no file, and the file says no holes: its blocks count
    event = vm.event("dma-range", gate=GATE, iova=0x200000)
    check_equal(os.stat(vm.path()).st_blocks * 512, 2 * HUGE, "bytes of huge pages that are there")
    check_equal((event["offset"], event["length"]), (HUGE - PAGE, 2 * PAGE), "what is to be mapped")
    is_mapped(vm, 0x200000)
    is_open(vm)
    service.check_same(source)


def many_at_a_time(case):
    """No more than eight wait for their answer, and each answer brings the next one."""
    service, vm, source = running(case)
    for i in range(40):
        declare(vm, i * 2 * PAGE, i * 3 * PAGE, 2 * PAGE)
    vm.do(f"dma-seal {GATE}")
    for i in range(40):
        told = wait_for("the next range", lambda: vm.all("dma-range")[i:])      # pylint: disable=cell-var-from-loop
        check(len(vm.all("dma-range")) <= i + 8, f"{len(vm.all('dma-range'))} told, {i} answered")
        check_equal(told[0]["present"], 2, "pages there")
        is_mapped(vm, told[0]["iova"])
    is_open(vm)
    check_equal(sorted(e["iova"] for e in vm.all("dma-range")), [i * 2 * PAGE for i in range(40)], "ranges")
    service.check_same(source)


def two_gates(case):
    """Over one block, partly the same pages: each has its own addresses, and opens for itself."""
    service, vm, source = running(case)
    vm.do("dma-auto")
    declare(vm, 0, 0, MIB, gate="a")
    declare(vm, 0, MIB // 2, MIB, gate="b")
    vm.do("dma-seal a")
    is_open(vm, gate="a")
    check(not vm.has("dma-open", gate="b"), "one opens with the other's seal")
    check_equal(due(vm, 0, gate="b")["offset"], MIB // 2, "offset of the other's range")
    vm.do("dma-seal b")
    is_open(vm, gate="b")
    service.check_same(source)


# --- unmap, sync ---------------------------------------------------------------------------------------

def what_was_written(case):
    """Of ranges that the device writes everything counts, of the others nothing; unmapping tells the same."""
    service, vm, source = running(case)
    vm.do("dma-auto")
    declare(vm, 0x0000, 0, 4 * PAGE, "w")
    declare(vm, 0x4000, 8 * PAGE, 4 * PAGE, "r")
    declare(vm, 0x8000, 16 * PAGE, 4 * PAGE, "rw")
    vm.do(f"dma-seal {GATE}")
    is_open(vm)
    check_equal(written(vm, "dma-sync", 0, 0xc000), 8 * PAGE, "bytes of all three")
    check_equal(written(vm, "dma-sync", 0x3000, 0x6000), 2 * PAGE, "bytes of a part")
    check_equal(written(vm, "dma-sync", 0x4000, 0x4000), 0, "bytes of what it reads")
    vm.do(f"dma-unmap {GATE} 0 {PAGE}", errno.EINVAL)
    check_equal(written(vm, "dma-unmap", 0, 0x8000), 4 * PAGE, "bytes of two, unmapped")
    check_equal(written(vm, "dma-sync", 0, 0x8000), 0, "bytes of what is unmapped")
    check_equal(written(vm, "dma-unmap", 0x100000, PAGE), 0, "bytes where nothing is")
    service.check_same(source)


def unmap_while_it_is_mapped(case):
    """Somebody may be at it: the answer comes first."""
    service, vm, source = running(case)
    declare(vm, 0, 0, PAGE)
    due(vm, 0)
    check("being mapped" in vm.do(f"dma-unmap {GATE} 0 {PAGE}", errno.EBUSY), "no word about why")
    is_mapped(vm, 0)
    vm.do(f"dma-unmap {GATE} 0 {PAGE}")
    declare(vm, 0, PAGE, PAGE)
    wait_for("the new range", lambda: len(vm.all("dma-range", iova=0)) == 2)
    check_equal(vm.all("dma-range")[1]["offset"], PAGE, "offset of the new range")
    service.check_same(source)


def kept_and_taken_back(case):
    """Before there is a source, too: what is unmapped then is never asked for."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    declare(vm, 0, 0, 4 * PAGE)
    declare(vm, 0x8000, 8 * PAGE, 4 * PAGE)
    check_equal(written(vm, "dma-sync", 0, 0x10000), 0, "bytes written before anything runs")
    check("cut" in vm.do(f"dma-unmap {GATE} 0 {PAGE}", errno.EINVAL), "no word about why")
    check_equal(written(vm, "dma-unmap", 0, 4 * PAGE), 0, "bytes that a device wrote")
    declare(vm, 0, 32 * PAGE, PAGE)
    vm.do("dma-auto")
    vm.do(f"dma-seal {GATE}")
    source = service.patient_source()
    is_open(vm)
    check_equal(sorted((e["iova"], e["offset"]) for e in vm.all("dma-range")), [(0, 32 * PAGE), (0x8000, 8 * PAGE)],
                "what was to be mapped")
    service.check_same(source)


# --- what is refused -------------------------------------------------------------------------------------

def refusals(case, vm):
    wrong = [
        (declare(vm, 0, 0, PAGE, block="nothing", error=errno.ENOENT), "no block"),
        (declare(vm, 0, 4 * MIB, PAGE, error=errno.EINVAL), "not a range"),
        (declare(vm, 0, 4 * MIB - PAGE, 2 * PAGE, error=errno.EINVAL), "not a range"),
        (declare(vm, 0, 0, 512, error=errno.EINVAL), "whole"),
        (declare(vm, 0, 0, PAGE, "", error=errno.EINVAL), "direction"),
        (declare(vm, 0x1000, 0, PAGE, error=errno.EEXIST), "in use"),
        (declare(vm, 0, 0, 16 * PAGE, error=errno.EEXIST), "in use"),
        (declare(vm, 0x100000, 0, PAGE, "re", error=errno.EINVAL), "ENFORCED"),
        (vm.do("dma-seal nobody", errno.ENOENT), "no gate"),
        (vm.do("dma-sync nobody 0 4096", errno.ENOENT), "no gate"),
        (vm.do(f"dma-mapped {GATE} 0x9000", errno.ENOENT), "nobody asked"),
        (vm.do(f"dma-retry {GATE} 0x1000", errno.ENOENT), "failed"),
        (vm.do(f"dma-retry {GATE} 0x9000", errno.ENOENT), "failed"),
    ]
    for text, word in wrong:
        case.note(text)
        check(word in text, f"{text!r} does not say {word!r}")


def what_cannot_be(case):
    """Each wrong thing is refused with a word about it, before there is a source and after, and harms nothing."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    declare(vm, 0x1000, 0, 2 * PAGE)
    refusals(case, vm)
    relay = holds_pages(case, service)
    source = service.patient_source(to=relay.uri)
    vm.event("running")
    refusals(case, vm)
    relay.release()
    due(vm, 0x1000)
    is_mapped(vm, 0x1000)
    vm.do(f"dma-seal {GATE}")
    is_open(vm)
    service.check_same(source)


def too_many_gates(case):
    service, vm, source = running(case)
    vm.do("dma-auto")
    for i in range(16):
        declare(vm, 0, i * PAGE, PAGE, gate=f"g{i}")
        vm.do(f"dma-seal g{i}")
    check("too many" in declare(vm, 0, 0, PAGE, gate="g16", error=errno.ENOSPC), "no word about why")
    for i in range(16):
        is_open(vm, gate=f"g{i}")
    service.check_same(source)


def only_the_main_sharer(case):
    service = Service(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main")
    other = service.sharer("other")
    other.event("ready")
    check("main sharer" in declare(other, 0, 0, PAGE, error=errno.EPERM), "no word about why")
    service.check_same(service.source(), sharers=[vm, other])


def cannot_be_mapped(case):
    """The gate names the range and why, stays closed, and opens when it could be mapped in the end."""
    service, vm, source = running(case)
    declare(vm, 0x10000, 0, 4 * PAGE)
    declare(vm, 0x20000, 8 * PAGE, 4 * PAGE)
    vm.do(f"dma-seal {GATE}")
    due(vm, 0x10000)
    due(vm, 0x20000)
    is_mapped(vm, 0x10000, errno.ENOMEM)
    is_mapped(vm, 0x20000)
    text = wait_for("the failure to be named", lambda: "could not be" in service.wait_blocker(f"gate:{GATE}")
                    and service.blockers()[f"gate:{GATE}"])
    check("0x10000" in text and os.strerror(errno.ENOMEM) in text, text)
    check(not vm.has("dma-open"), "open with a range that is not mapped")
    vm.do(f"dma-retry {GATE} 0x10000")
    wait_for("the range to be asked for again", lambda: len(vm.all("dma-range", iova=0x10000)) == 2)
    is_mapped(vm, 0x10000)
    is_open(vm)
    service.check_same(source)


# --- who ran -----------------------------------------------------------------------------------------------

def declared_late(case):
    """After the gate opened the device may have written anything, if no IOMMU keeps it: closed until it was reset."""
    service, vm, source = running(case)
    vm.do("dma-auto")
    declare(vm, 0, 0, PAGE)
    vm.do(f"dma-seal {GATE}")
    is_open(vm)
    declare(vm, 0x10000, 8 * PAGE, PAGE)
    check(GATE in service.wait_blocker("untracked-dma"), service.blockers())
    due(vm, 0x10000)
    vm.do(f"dma-reset {GATE}")
    is_open(vm, times=2)
    wait_for("no blocker", lambda: "untracked-dma" not in service.blockers())
    service.check_same(source)


def added_with_an_iommu(case):
    """What is not mapped cannot be reached: more of it closes the gate for as long as that is not there."""
    service, vm, source = running(case)
    vm.do("dma-auto")
    declare(vm, 0, 0, PAGE, "rwe")
    vm.do(f"dma-seal {GATE}")
    is_open(vm)
    declare(vm, 0x10000, 8 * PAGE, PAGE, "rwe")
    is_open(vm, times=2)
    check("untracked-dma" not in service.blockers(), service.blockers())
    service.check_same(source)


def not_before_the_vm(case):
    """Everything is mapped while the VMM still loads: its device waits for the commit, like its CPUs."""
    service = Service(case)
    vm = service.sharer("vm", "main", loaded_after=LATE)
    vm.event("ready")
    vm.do("dma-auto")
    declare(vm, 0, 0, 4 * PAGE)
    vm.do(f"dma-seal {GATE}")
    source = service.patient_source()
    due(vm, 0)
    wait_for("nothing in the way of the device", lambda: "load" in service.blockers()
             and f"gate:{GATE}" not in service.blockers())
    check(not vm.has("dma-open"), "the device runs while the source may go on")
    vm.do("load")
    is_open(vm)
    order = [event["event"] for event in map(json.loads, vm.child.lines()) if event["event"] in ("running", "dma-open")]
    check_equal(order, ["running", "dma-open"], "what was told")
    service.check_same(source)


# --- ends --------------------------------------------------------------------------------------------------

def dies_with_a_range_in_hand(case):
    """Before the commit: what it had to map is nobody's, the gate stays closed, and the next VMM begins anew."""
    service = Service(case, expect=("vm", "other"))
    vm = service.sharer("vm", "main", policy="disable", loaded_after=LATE)
    other = service.sharer("other")
    vm.event("ready")
    declare(vm, 0, 0, 4 * PAGE)
    declare(vm, 0x10000, 8 * PAGE, 4 * PAGE)
    vm.do(f"dma-seal {GATE}")
    source = service.patient_source("--commit-ping")
    due(vm, 0)
    due(vm, 0x10000)
    is_mapped(vm, 0x10000)
    vm.child.kill()
    service.wait_sharer("vm", "dead")
    text = wait_for("the gate to say so", lambda: "could not be" in service.blockers().get(f"gate:{GATE}", "")
                    and service.blockers()[f"gate:{GATE}"])
    check("1 of 2 ranges are mapped" in text, text)
    again = service.sharer("vm2", "main", memory="memfd=" + other.path(), loaded_after=300)
    again.event("running")
    declare(again, 0, 16 * PAGE, 4 * PAGE)
    due(again, 0, offset=16 * PAGE)
    is_mapped(again, 0)
    check(not again.has("dma-open"), "the seal of one that is gone counts")
    again.do(f"dma-seal {GATE}")
    is_open(again)
    check_equal(len(again.all("dma-range")), 1, "ranges that it was told of")
    check(not other.has("dma-range"), "somebody else was asked")
    service.check_same(source, sharers=[other, again])


def source_is_lost(case):
    """With pages of a range on their way: the gate stays closed, and the session waits."""
    service = Service(case)
    vm = service.sharer("vm", "main")
    relay = holds_pages(case, service)
    source = service.patient_source(to=relay.uri)
    vm.event("running")
    vm.do("dma-auto")
    declare(vm, 0, 0, MIB)
    vm.do(f"dma-seal {GATE}")
    relay.wait_held()
    relay.cut()
    service.wait_state("paused")
    vm.event("paused")
    declare(vm, 0x200000, MIB, PAGE)
    check(not vm.has("dma-range") and not vm.has("dma-open"), "something is to be mapped, or to run")
    source.child.wait()


def waits_for_the_mapping(case):
    """All memory is here, and the VMM still has to map some: this daemon stays, while another one goes."""
    service = Service(case, stay=False)
    vm = service.sharer("vm", "main")
    vm.event("ready")
    declare(vm, 0, 0, 4 * PAGE)
    vm.do(f"dma-seal {GATE}")
    service.check_same(service.source())
    due(vm, 0)
    # one that waits for its sharer to hang up, and for no longer than that may take
    other = Service(case, stay=False)
    other.sharer("vm", "main")
    other.check_same(other.source())
    other.ended(0)
    service.child.check_running()
    is_mapped(vm, 0)
    is_open(vm)
    service.ended(0)


# --- without the library ---------------------------------------------------------------------------------------

def not_everybody(case):
    """Who is no main sharer, or declares nothing at all, is told so whatever it says, and may stay."""
    service = Service(case)
    for name, more in (("plain", {}), ("unaware", {"flags": UNAWARE}), ("both", {"role": ROLE_MAIN, "flags": UNAWARE})):
        raw = raw_member(service, name, **more)
        for message in (dma_map(7, 0, 0, PAGE), dma_at(DMA_SEAL, 7), dma_at(DMA_UNMAP, 7, 0, PAGE)):
            raw.send(message)
            kind, error, text = raw.answer()
            check_equal((kind, error), (RESULT, errno.EPERM), f"{name}: answer ({text})")
            check("main sharer" in text, text)
        raw.close()
    check_equal(service.blockers().get("gate:g"), None, "a gate of somebody who may have none")
    vm = service.sharer("vm", "main")
    service.check_same(service.source(), sharers=[vm])


def raw_vmm(case, service):
    """A VMM in this process, whose VM runs; with its source."""
    raw = raw_member(service, "vm", ROLE_MAIN)
    fd = os.memfd_create("guest")
    os.truncate(fd, service.size)
    memory = mmap.mmap(fd, service.size)    # never touched: nobody here could say why it waits
    case.defer(memory.close)
    raw.send(block(BLOCK, service.size), [fd])
    check_equal(raw.answer()[1], 0, "errno of BLOCK")
    raw.send(packet(READY, b"", 3))
    check_equal(raw.answer()[1], 0, "errno of READY")
    source = service.patient_source()
    wait_for("the package", lambda: raw.answer()[0] == PACKAGE)
    raw.send(packet(LOADED, b"", 4))
    check_equal(raw.answer()[0], RUNNING, "what follows")
    os.close(fd)
    case.defer(raw.close)
    return raw, source


def some_verb(rng, serial):
    """Any verb, of a few addresses: some fit, most do not."""
    iova, length = rng.randrange(8) * PAGE, rng.randrange(1, 4) * PAGE
    kind = rng.choice([None, DMA_UNMAP, DMA_SYNC, DMA_SEAL, DMA_MAPPED, DMA_RETRY, DMA_RESET])
    if kind is None:
        return dma_map(serial, iova, rng.randrange(64) * PAGE, length, gate=rng.choice("gh"))
    length = length if kind in (DMA_UNMAP, DMA_SYNC) else 0
    return dma_at(kind, serial, 0 if kind in (DMA_SEAL, DMA_RESET) else iova, length, gate=rng.choice("gh"))


def all_at_once(case):
    """Verbs that nobody waits for are answered one by one, in order; events come between, of ranges no more than eight
    that were not answered; and whoever hangs up in the middle of it harms nobody."""
    service = Service(case)
    raw, source = raw_vmm(case, service)
    rng, serial, told, opens = case.random, 100, 0, 0
    for _ in range(200):
        burst = rng.randrange(1, 12)
        for i in range(burst):
            raw.send(some_verb(rng, serial + i))
        answered = 0
        while answered < burst:
            data = raw.sock.recv(4096)
            kind, got = HEAD.unpack_from(data)[2], HEAD.unpack_from(data)[4]
            check(kind in (RESULT, DMA_RANGE, DMA_OPEN) or kind > RUNNING, f"message {kind}")
            told += kind == DMA_RANGE
            opens += kind == DMA_OPEN
            if kind == RESULT:
                check_equal(got, serial + answered, "serial of the answer")
                answered += 1
        serial += burst
    case.note(f"{serial - 100} verbs, {told} ranges, {opens} times open")
    check(told > 20 and opens > 0, "nothing came of it")
    for i in range(32):
        raw.send(some_verb(rng, serial + i))
    raw.close()
    service.wait_sharer("vm", "disabled")
    source.child.check_running()
    check_equal(service.status()["state"], "running", "state of the session")


# --- a whole VMM ---------------------------------------------------------------------------------------------

def example(case):
    """examples/vmm.c: its CPU runs with its memory missing, its device when what it adds up is there."""
    service = Service(case, expect=("vmm",), stay=False)
    image = bytearray(case.random.randbytes(service.size))
    image[:16] = struct.pack("<QQ", 0x100000000, service.size // 2)
    total = sum(struct.unpack(f"<{service.size // 16}Q", image[service.size // 2:])) % (1 << 64)
    path = case.path("image")
    with open(path, "wb") as file:
        file.write(image)
    vmm = case.spawn("vmm", [built("examples/vmm"), service.register, BLOCK, str(service.size)])
    source = service.source("--no-background", "--linger", "600000", blocks=[f"{BLOCK},size={service.size},file={path}"])
    wait_for("the device to run", lambda: any(line.startswith("device: sum") for line in vmm.lines())
             or not vmm.running())
    source.rest()
    check_equal(vmm.wait(), 0, f"exit status of the VMM: {vmm.errors()}")
    lines = vmm.lines()
    case.note(" / ".join(lines))
    check_equal([line for line in lines if line.startswith("device: sum")],
                [f"device: sum {total:016x}, wrote at most {PAGE} bytes"], "what the device found")
    check_equal(sum(line.startswith("mapped") for line in lines), 5, "ranges mapped")
    check(lines.index("running") < lines.index("device adder may run"), "the device ran first")
    source.completed()
    service.ended(0)


CASES = [
    ("F46 F47 S0-08 S2-09 S0-04 declared before there is a source", declared_before),
    ("F46 F47 F48 declared while the VM runs: its pages come first", declared_after),
    ("F46 S0-09 S0-17 a ring", coherent),
    ("F47 private memory", private_memory),
    ("F47 S2-09 zero pages are placed", zeroes_are_placed),
    ("F47 huge pages are there as a whole", huge_pages),
    ("F46 F47 many ranges, eight at a time", many_at_a_time),
    ("F46 F47 two gates over one block", two_gates),
    ("F46 S0-09 S0-14 S0-15 what sync and unmap say", what_was_written),
    ("F46 I2 S2-10 no unmapping while it is mapped", unmap_while_it_is_mapped),
    ("F46 kept, and taken back", kept_and_taken_back),
    ("F46 what cannot be is refused with a word about it", what_cannot_be),
    ("F46 sixteen gates and no more", too_many_gates),
    ("F46 only the main sharer declares", only_the_main_sharer),
    ("F47 I3 a range that cannot be mapped, and then can", cannot_be_mapped),
    ("F51 S2-02 declared after the device ran: untracked-dma until its reset", declared_late),
    ("F51 with an IOMMU more may come at any time", added_with_an_iommu),
    ("F47 I3 no device before its VM", not_before_the_vm),
    ("F47 the VMM dies with a range in hand", dies_with_a_range_in_hand),
    ("F47 S0-04 the source is lost: closed", source_is_lost),
    ("F47 the daemon stays until it is mapped", waits_for_the_mapping),
    ("F46 only a main sharer, whatever it sends", not_everybody),
    ("F46 verbs that nobody waits for", all_at_once),
    ("F46 F47 S2-05 the example of a VMM", example),
]

if __name__ == "__main__":
    if missing_programs():
        skip_all(f"not built: {', '.join(missing_programs())}")
    main(CASES)
