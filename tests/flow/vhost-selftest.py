#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The scripted vhost-user back-end does what it says: in every dialect it moves data through pages that are
missing, and each of its vices shows.  (P01, P09, P10, P11, P14, P15, P16, P24, P26)
"""
import functools
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import Failure, check, check_equal, main
from preload import served
from scripted import Backend, Traffic
from vhost_front import (ADD_MEM_REG, GET_MAX_MEM_SLOTS, GET_QUEUE_NUM, GET_VRING_BASE, P_CONFIG, P_MEM_SLOTS, P_MQ,
                         P_PAGEFAULT, POSTCOPY_ADVISE, POSTCOPY_END, POSTCOPY_LISTEN, Memory, ServedFrontEnd)
from vhostuser import GET_FEATURES, GET_PROTOCOL_FEATURES, SET_MEM_TABLE, USER_BASE

MIB, PAGE = 1 << 20, 4096
COMMON = P_MQ | P_CONFIG | P_MEM_SLOTS | P_PAGEFAULT


def joined(case, *words, protocol=COMMON):
    back = Backend(case, *words)
    front = ServedFrontEnd(case, back.path, Memory(case, 4 * MIB))
    front.begin(protocol)
    return back, front


# --- dialects -------------------------------------------------------------------------------------


def plain_table(front):
    check_equal(front.share_memory(), 0, "answer to the memory table")


def universal(front):
    front.advise()
    plain_table(front)
    front.register()


def slot(front):
    front.advise()
    body = bytes(8) + front.memory.region()
    check_equal(front.ask_u64(ADD_MEM_REG, body, [front.memory.fd], ack=True), 0, "answer to the slot")
    front.register()


def spec(front):
    front.advise()
    check_equal(front.ask_u64(POSTCOPY_LISTEN, ack=True), 0, "answer to LISTEN")
    check_equal(front.exchange_bases(), front.memory.mappings(front.pid)[0][0], "the address in the answer")


def rust(front):
    plain_table(front)
    front.advise()
    check_equal(front.ask_u64(POSTCOPY_LISTEN, ack=True), 0, "answer to LISTEN")


def works(case, dialect, words=(), queues=1):
    back, front = joined(case, f"queues={queues}", *words)
    check(front.ask_u64(GET_MAX_MEM_SLOTS) > 0, "no slots")
    check_equal(front.ask_u64(GET_QUEUE_NUM), queues, "queues")
    dialect(front)
    check(served(back.child.pid, f"/proc/{os.getpid()}/fd/{front.memory.fd}"), "not registered")
    traffic = Traffic(case, front.memory.shadow, queues)
    for number, ring in enumerate(traffic.rings):
        front.start(ring, number)
        front.wait_used(ring)
        front.ask(GET_VRING_BASE, struct.pack("<II", number, 0))
    check_equal(set(front.faults), traffic.pages(), "pages that faulted")
    check_equal(len(front.faults), len(traffic.pages()), "faults")
    front.memory.place_rest(front.faults)
    traffic.check(front.memory.content(), back)
    check_equal(front.ask_u64(POSTCOPY_END, ack=True), 0, "answer to END")
    check_equal(back.asked()[-1], POSTCOPY_END, "the last request")


def comes_again(case):
    """A second connection starts from nothing."""
    back, front = joined(case)
    universal(front)
    front.hang_up()
    back.event("disconnected")
    again = ServedFrontEnd(case, back.path, Memory(case, 4 * MIB))
    again.begin(COMMON)
    spec(again)
    check_equal(again.ask_u64(POSTCOPY_END, ack=True), 0, "answer to END")


# --- vices ----------------------------------------------------------------------------------------


def fails(part, function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except Failure as failure:
        check(part in str(failure), f"found another fault than {part!r}: {failure}")
        return
    raise Failure(f"did not find {part!r}")


def vice(case, words, part, what):
    _, front = joined(case, *words.split())
    fails(part, what, front)


def hangs_up(case):
    _, front = joined(case, f"answer-{POSTCOPY_ADVISE}=eof")
    fails("hung up", front.advise)


def silent(case):
    _, front = joined(case, f"answer-{GET_QUEUE_NUM}=silent")
    front.send(GET_QUEUE_NUM)
    check(front.is_silent(), "it answered")


def lacks_features(case):
    back = Backend(case, "lack=30")
    front = ServedFrontEnd(case, back.path, Memory(case, MIB))
    check_equal(front.ask_u64(GET_FEATURES) >> 30 & 1, 0, "bit 30")


def lacks_pagefault(case):
    back = Backend(case, "lack-protocol=8")
    front = ServedFrontEnd(case, back.path, Memory(case, MIB))
    check_equal(front.ask_u64(GET_PROTOCOL_FEATURES) & P_PAGEFAULT, 0, "PAGEFAULT")


def echoes(case):
    _, front = joined(case, "bases=echo")
    front.advise()
    front.ask_u64(POSTCOPY_LISTEN, ack=True)
    check_equal(front.exchange_bases(), USER_BASE, "the address in the answer")


def does_not_register(case):
    back, front = joined(case, "register=no")
    spec(front)
    check(not served(back.child.pid, f"/proc/{os.getpid()}/fd/{front.memory.fd}"), "it is registered")


def populates(case):
    """With zeroes, in pages that were still to come."""
    _, front = joined(case, "populate")
    universal(front)
    check_equal(os.fstat(front.memory.fd).st_blocks * 512, 4 * MIB, "bytes that are there")


def memory_tricks(case):
    """What the console makes it do."""
    back, front = joined(case)
    universal(front)
    front.memory.shadow[PAGE:PAGE + 8] = b"PAGE ONE"
    back.tell("touch 0x1000")
    front.serve_fault()
    check_equal(bytes.fromhex(back.event("saw", what="touch")["word"]), b"PAGE ONE", "what it saw")
    back.tell(f"again {2 * PAGE}")
    front.serve_fault()
    back.event("saw", what="again")
    back.tell(f"stray {3 * PAGE}")
    check_equal(back.event("saw", what="stray")["word"], "00" * 8, "what it saw of a missing page")
    back.tell("elsewhere")
    fails("no mapping holds", front.serve_fault)
    back.tell(f"touch {4 * PAGE}")
    front.wait_fault()
    back.tell("unmap")
    back.event("done", line="unmap")
    check_equal(len(front.memory.mappings(front.pid)), 2, "mappings left")


CASES = (
    *((f"P15 P26 {name}", functools.partial(works, dialect=dialect, words=words, queues=queues))
      for name, dialect, words, queues in (
          ("a table, registered from outside", universal, (), 1), ("a slot, registered from outside", slot, (), 1),
          ("P16 the text's dialect", spec, (), 1), ("LISTEN registers", rust, ("dialect=rust",), 1),
          ("four queues", universal, (), 4))),
    ("need_reply comes back", functools.partial(works, dialect=universal, words=(f"answer-{GET_FEATURES}=flags",))),
    ("a second connection", comes_again),
    ("no protocol features", lacks_features), ("no PAGEFAULT", lacks_pagefault),
    ("ADVISE: no descriptor", functools.partial(
        vice, words=f"answer-{POSTCOPY_ADVISE}=no-fd", part="0 descriptors", what=ServedFrontEnd.advise)),
    ("ADVISE: two descriptors", functools.partial(
        vice, words=f"answer-{POSTCOPY_ADVISE}=two-fds", part="2 descriptors", what=ServedFrontEnd.advise)),
    ("ADVISE: the end of the connection", hangs_up),
    ("an answer that does not come", silent),
    ("LISTEN: not 0", functools.partial(vice, words=f"answer-{POSTCOPY_LISTEN}=error", part="answer to LISTEN", what=spec)),
    ("table: another number", functools.partial(vice, words=f"answer-{SET_MEM_TABLE}=number", part="answer", what=spec)),
    ("table: longer", functools.partial(vice, words=f"answer-{SET_MEM_TABLE}=size", part="answer", what=spec)),
    ("table: shorter", functools.partial(vice, words=f"answer-{SET_MEM_TABLE}=short", part="answer", what=spec)),
    ("table: the addresses that were sent", echoes), ("nothing is registered", does_not_register),
    ("memory is touched as it is mapped", populates), ("P24 tricks with memory", memory_tricks),
)

if __name__ == "__main__":
    main(CASES)
