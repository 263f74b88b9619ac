#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What sharers notice of a worker that is killed: next to nothing.  (F15, F16, F17, O11)"""
import errno
import mmap
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import PATIENCE, Failure, check, check_equal, main, readable, skip_all, wait_for  # noqa: E402
from interposed import Interposed  # noqa: E402
from rawdoor import BLOCK_BODY, BLOCK_MESSAGE, HEAD, LEAVE, LISTENING, MAGIC, READY, RESULT, WANT, packet, raw_member  # noqa: E402
from scripted import Backend, Traffic  # noqa: E402
from service import BLOCK, PAGE, PATIENT, Service, missing_programs  # noqa: E402
from vhost_front import P_CONFIG, P_MQ  # noqa: E402

KILLS = 20
REQUESTS = 100
PREFETCH = 3
#: A source that comes back when its connection is lost, and sends only what is asked for.
RETURNS = (*PATIENT, "--reconnect")


def worker(service):
    """The process that serves; None while there is none."""
    with open(f"/proc/{service.pid}/task/{service.pid}/children", encoding="ascii") as children:
        found = children.read().split()
    return int(found[0]) if found else None


def answers(service):
    try:
        return service.status()["state"]
    except Failure:
        return None


def kill_worker(service, meanwhile=None):
    """@meanwhile: what happens while there is none."""
    old = wait_for("a worker", lambda: worker(service))
    if meanwhile:
        os.kill(service.pid, signal.SIGSTOP)
    os.kill(old, signal.SIGKILL)
    if meanwhile:
        meanwhile()
        os.kill(service.pid, signal.SIGCONT)
    wait_for("another worker", lambda: worker(service) not in (None, old))
    return wait_for("it to answer", lambda: answers(service))


def kill_and_recover(service, meanwhile=None):
    kill_worker(service, meanwhile)
    wait_for("the session to go on", lambda: answers(service) in ("running", "complete"))


def open_files(service):
    """Of the keeper and of its worker."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (service.pid, worker(service))]


def running(case, *others, threads=1):
    """A VM that runs, of whose memory only what somebody asks for comes."""
    service = Service(case, "--keeper", expect=("vm", *others))
    vm = service.sharer("vm", "main", threads=threads)
    members = [vm] + [service.sharer(name, threads=threads) for name in others]
    source = service.source(*RETURNS)
    vm.event("running")
    for member in members[1:]:
        member.event("listening")
    return service, source, members


def told_once(member):
    for event in ("listening", "package", "running", "failed", "disconnected"):
        check(len(member.all(event)) <= 1, f"{member.name} was told of {event} {len(member.all(event))} times")
    for event in ("failed", "disabled", "disconnected"):
        check(not member.has(event), f"{member.name}: {member.all(event)}")


# --- who is there ---------------------------------------------------------------------------------

def served_on(case):
    """F17: threads that wait go on waiting, and have their pages; nobody is told anything twice."""
    service, source, members = running(case, "one", "two", threads=2)
    kill_and_recover(service)
    check_equal(sorted(s["name"] for s in service.control("sharers") if s["state"] == "active"),
                ["one", "two", "vm"], "sharers of the successor")
    kill_and_recover(service)
    service.check_same(source, sharers=members)
    for member in members:
        told_once(member)


def flat(case):
    """F17: twenty times, and there are as many descriptors as before."""
    service, source, members = running(case, "one", threads=0)
    kill_and_recover(service)
    kill_and_recover(service)
    before = open_files(service)
    for _ in range(KILLS - 2):
        kill_and_recover(service)
    wait_for("no more descriptors than before",
             lambda: all(now <= then for now, then in zip(open_files(service), before)))
    service.check_same(source, sharers=members)
    for member in members:
        told_once(member)


def dies_meanwhile(case):
    """F17 O11: it dies while nobody looks: it ends, alone."""
    service, source, (vm, one, two) = running(case, "one", "two")

    def die():
        one.child.kill()
        one.child.wait()
    kill_and_recover(service, die)
    wait_for("its end", lambda: (service.of("one") or {}).get("state") == "dead")
    service.check_same(source, sharers=[vm, two])


def leaves_meanwhile(case):
    """A call that waits for the next worker is answered by it."""
    service, source, (vm, one, two) = running(case, "one", "two", threads=0)
    one.do(f"unmap {BLOCK}")
    kill_and_recover(service, lambda: one.tell("leave"))
    wait_for("its end", lambda: (service.of("one") or {}).get("state") == "left")
    service.check_same(source, sharers=[vm, two])


# --- who comes ------------------------------------------------------------------------------------

def member_block(service, raw, serial):
    """It declares the VM's block, and maps it here."""
    fd = os.open(service.main().path(), os.O_RDWR)
    raw.send(HEAD.pack(MAGIC, 1, BLOCK_MESSAGE, HEAD.size + BLOCK_BODY.size, serial)
             + BLOCK_BODY.pack(0, 0, service.size, 0, 0, BLOCK.encode()), [fd])
    memory = mmap.mmap(fd, service.size)
    os.close(fd)
    return memory


def hear(raw, wanted):
    """(serial, errno) of the next packet of this type, whatever else is told before it"""
    while True:
        data = raw.sock.recv(4096)
        check(data, "the connection ended")
        kind, _size, serial = HEAD.unpack_from(data)[2:5]
        if kind == wanted:
            return serial, int.from_bytes(data[HEAD.size:HEAD.size + 4], "little")


def joins(service, raw, serial):
    """It declares the VM's block, and maps it here, and is served."""
    memory = member_block(service, raw, serial)
    check_equal(hear(raw, RESULT), (serial, 0), "answer to BLOCK")
    raw.send(packet(READY, serial=serial + 1))
    check_equal(hear(raw, RESULT), (serial + 1, 0), "answer to READY")
    hear(raw, LISTENING)
    return memory


def leaves(raw, memory, serial):
    memory.close()
    raw.send(packet(LEAVE, serial=serial))
    check_equal(hear(raw, RESULT), (serial, 0), "answer to LEAVE")
    raw.close()


def comes_in_between(case):
    """F16: hello, then a worker dies; a block, then a worker dies; and all of it holds."""
    service, source, members = running(case, threads=0)
    raw = raw_member(service, "late")
    raw.sock.settimeout(PATIENCE)
    kill_and_recover(service)
    memory = joins(service, raw, 2)
    kill_and_recover(service)
    leaves(raw, memory, 4)
    late = service.sharer("later", threads=1)
    late.event("listening")
    kill_and_recover(service)
    service.check_same(source, sharers=[*members, late])


def too_early(case):
    """F16: what was declared before there is a source does not outlive the worker: it can come again."""
    service = Service(case, "--keeper")
    vm = service.sharer("vm", "main", threads=1)
    vm.event("ready")
    kill_worker(service)
    vm.event("disconnected")
    check("connect again" in service.reason("vm"), service.of("vm"))


# --- what is asked for ----------------------------------------------------------------------------

def want(serial, offset):
    body = PREFETCH.to_bytes(4, "little") + bytes(4) + offset.to_bytes(8, "little") + PAGE.to_bytes(8, "little")
    return packet(WANT, body + BLOCK.encode().ljust(256, b"\0"), serial=serial)


def hundred_requests(case):
    """F16: each has one answer, whenever a worker dies."""
    service, source, members = running(case)
    raw = raw_member(service, "asks")
    raw.sock.settimeout(PATIENCE)
    memory = joins(service, raw, 2)
    kills = sorted(case.random.sample(range(REQUESTS), 8))
    answered = []
    for number in range(REQUESTS):
        if number in kills[::2]:
            kill_and_recover(service, lambda serial=100 + number: raw.send(want(serial, 0)))
        else:
            raw.send(want(100 + number, number * PAGE))
        if number in kills[1::2]:
            kill_and_recover(service)
        while len(answered) <= number:
            serial, error = hear(raw, RESULT)
            check(error in (0, errno.ERESTART), f"errno {error}")
            # killed between its answer and the note of that: the second one belongs to nobody
            if not answered or answered[-1] != serial or error == 0:
                answered.append(serial)
    check_equal(answered, list(range(100, 100 + REQUESTS)), "calls that were answered, in order")
    leaves(raw, memory, 999)
    service.check_same(source, sharers=members)


# --- who does not know us ---------------------------------------------------------------------------

def back_end(case):
    """F15: its connection ends with the worker; it is served on, and the VMM connects again."""
    back = Backend(case, "queues=1")
    stage = Interposed(case, {"disk": back.path}, daemon=("--keeper",))
    traffic = Traffic(case, stage.image, 1)
    stage.begin(*RETURNS)
    stage.vm.event("running")
    front = stage.front(also=P_MQ | P_CONFIG)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    kill_and_recover(stage.service)
    # pylint: disable-next=protected-access
    wait_for("the VMM to see the end of its connection", lambda: readable(front._sock, 0))
    front.close()
    front = stage.front(also=P_MQ | P_CONFIG)
    check_equal(front.share_memory(), 0, "answer to the memory table")
    front.start(traffic.rings[0], 0)
    wait_for("the device to be done", lambda: traffic.done(stage.memory))
    traffic.check(stage.finish(), back)
    stage.check_healthy()
    back.child.check_running()


CASES = (
    ("F17 F15 every sharer is served on", served_on),
    ("F17 twenty workers, and as many descriptors", flat),
    ("F17 O11 one dies meanwhile", dies_meanwhile),
    ("F17 one leaves meanwhile", leaves_meanwhile),
    ("F16 one comes, a worker at a time", comes_in_between),
    ("F16 one has declared too early", too_early),
    ("F16 a hundred requests", hundred_requests),
    ("F15 a back-end of a VMM", back_end),
)

if __name__ == "__main__":
    missing = missing_programs()
    if missing:
        skip_all(f"not built: {', '.join(missing)}")
    main(CASES)
