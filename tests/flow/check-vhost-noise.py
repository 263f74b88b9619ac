#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd between a VMM and a back-end of which one does not make sense, by chance (POSTCOPY_TESTS_SEED).

Frames come in pieces, with bits changed, with descriptors at the wrong byte, too many, too few, or another's.
Whatever comes: the daemon lives and keeps no descriptor, who behaves is served at once afterwards, and the memory is the
source's.  (F03, F21)
"""
import array
import collections
import functools
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
from harness import Failure, check, main, skip_all, wait_for
from interposed import Interposed
from scripted import Backend, Traffic
from service import PATIENT, missing_programs
from vhost_front import P_CONFIG, P_MQ
from vhostuser import HEADER, NEED_REPLY, SET_VRING_KICK, VERSION, FrontEnd

COMMON = P_MQ | P_CONFIG
#: What a back-end once opened is kept as long as it lives: each connection costs a sharer of 64.
ROUNDS, SHARERS = 40, "--max-sharers=64"
TIMES = 20 if os.environ.get("POSTCOPY_TESTS_LONG") == "1" else 1


class NoisyFrontEnd(FrontEnd):
    """@damage: from that request on one in three is damaged; each goes out in pieces."""

    def __init__(self, case, path, memory, regions, damage):
        super().__init__(path, memory, regions)
        case.defer(self.close)
        self._random, self._damage = case.random, damage
        self._sock.settimeout(2)        # to a damaged request there need not be an answer

    def _send(self, request, body=b"", fds=(), ack=False):
        if request == SET_VRING_KICK and self._damage is not None:
            return                      # nothing is to run that was told of by chance
        data = bytearray(HEADER.pack(request, VERSION | (NEED_REPLY if ack else 0), len(body)) + body)
        fds, late = list(fds), False
        if self._damage is not None:
            self._damage -= 1
            if self._damage < 0 and self._random.random() < 0.33:
                fds, late = self._damaged(data, fds)
        self._pieces(data, fds, late)

    def _damaged(self, data, fds):
        if self._random.random() < 0.5:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            return fds, False
        return self._random.choice(((fds, True), (fds + [self.call_fd], False), (fds[1:], False),
                                    ([self.call_fd] * len(fds), False), ([self.call_fd], True)))

    def _pieces(self, data, fds, late):
        cut = self._random.randrange(1, len(data))
        for part, piece in enumerate((data[:cut], data[cut:])):
            with_it = fds if part == int(late) and fds else []
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", with_it))] if with_it else []
            self._sock.sendmsg([piece], control)
            time.sleep(self._random.random() / 1000)


def talk(front, traffic):
    """All that a VMM says, as far as it gets.  False: its connection ended, or nothing came."""
    try:
        front.begin(COMMON)
        front.share_memory()
        for number, ring in enumerate(traffic.rings):
            front.hand_over(ring, number)
            front.enabled(number)
        return True
    except (Failure, OSError):
        return False


def connect(case, stage, damage):
    return NoisyFrontEnd(case, stage.path(), stage.memory, [(0, stage.size)], damage)


def idle_fds(stage):
    """Descriptors of the daemon with no VMM connected; of back-ends that are gone one may wait for its end."""
    stage.wait_device(state="listening")
    return stage.service.fds()


def check_kept(stage, before):
    """A sharer keeps its userfaultfd and its process, here and with the fault thread; nothing else is kept."""
    folder = f"/proc/{stage.service.pid}/fd"
    try:
        wait_for("descriptors to be closed", lambda: idle_fds(stage) - before <= 3 * stage.sharers())
    except Failure as failure:
        kinds = collections.Counter(re.sub(r"\d+", "", os.readlink(f"{folder}/{fd}")) for fd in os.listdir(folder))
        raise Failure(f"{failure}; they are {kinds}, for {stage.sharers()} sharers, and were {before}") from None


def behaves(case, stage, back, traffic):
    """Somebody who makes sense, in pieces all the same."""
    front = connect(case, stage, None)
    check(talk(front, traffic), "who behaves is not served")
    wait_for("the device to be done", lambda: traffic.done(stage.memory))
    traffic.check(stage.finish(), back)
    stage.check_healthy()


def noisy_vmm(case):
    back = Backend(case)
    stage = Interposed(case, {"disk": back.path}, daemon=[SHARERS])
    traffic = Traffic(case, stage.image)
    stage.begin(*PATIENT)
    before, ended = idle_fds(stage), 0
    for _ in range(ROUNDS):
        front = connect(case, stage, case.random.randrange(12))
        ended += not talk(front, traffic)
        front.hang_up()
        idle_fds(stage)
        stage.service.child.check_running()
        if not back.child.running():    # of memory that is beyond its file
            back.start_again()
    case.note(f"{ended} of {ROUNDS} connections came to nothing")
    check(ended > 0, "nothing was damaged")
    check_kept(stage, before)
    behaves(case, stage, back, traffic)


def noisy_backend(case):
    back = Backend(case, f"noise={case.random.randrange(1 << 32)}")
    stage = Interposed(case, {"disk": back.path}, {"disk": ",answer-timeout=1"}, daemon=[SHARERS])
    traffic = Traffic(case, stage.image)
    stage.begin(*PATIENT)
    before, ended = idle_fds(stage), 0
    for _ in range(ROUNDS):
        front = connect(case, stage, 1000)
        ended += not talk(front, traffic)
        front.hang_up()
        idle_fds(stage)
        stage.service.child.check_running()
    case.note(f"{ended} of {ROUNDS} connections came to nothing")
    check(ended > 0, "nothing was damaged")
    check_kept(stage, before)
    back.child.kill()
    back.child.wait()
    back.start_again()
    behaves(case, stage, back, traffic)


def several(function, number, case):
    case.random.seed(case.seed + number)
    function(case)


CASES = tuple((f"{who} that makes no sense, {number}", functools.partial(several, function, number))
              for who, function in (("a VMM", noisy_vmm), ("a back-end", noisy_backend)) for number in range(TIMES))

if __name__ == "__main__":
    if missing_programs():
        skip_all("not built: make check builds it")
    main(CASES, limit=120)
