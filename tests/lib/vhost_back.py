#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""vhost_back.py SOCKET DISK [WORD...]: a vhost-user-blk back-end with real mappings and a real userfaultfd, that
keeps to the protocol but for what its words say.

    lack=N, lack-protocol=N   a bit that is not offered
    answer-N=HOW              to request N: silent, eof, number, size, short, flags (need_reply comes back), twice,
                              error (a u64 that is not 0), no-fd, two-fds
    dialect=rust              LISTEN registers what is mapped already, and no table is answered with addresses
    bases=HOW                 in the answer to a table: echo (as libvhost-user), reversed, foreign
    register=no               acknowledges everything and registers nothing
    populate                  touches memory when it maps it
    queues=N
    noise=SEED                each answer goes out in pieces, and one in four of them is damaged

Tells on standard output what it is asked and what it does, a line of JSON each.  On standard input:

    touch ADDRESS      a thread reads the word at this address of the guest: event `saw'
    elsewhere          the same at memory that nobody was told of, registered with the same userfaultfd
    again OFFSET       the same through a second mapping of the first region, registered by itself
    stray OFFSET       the same, not registered
    unmap              the first region goes, whoever waits in it
    before ADDRESS     as touch, in what the first connection that was over with somebody waiting left mapped
    close              its userfaultfd, which then only the front-end has
    forget             that is unmapped
"""
import array
import json
import os
import random
import socket
import struct
import sys
import threading
import time

import vhost_memory
from vhost_memory import Regions, load
from vhost_ring import Queue

HEADER = struct.Struct("<3I")
VERSION, REPLY, NEED_REPLY = 1, 4, 8
FEATURES, PROTOCOL = 1 << 32 | 1 << 30 | 1 << 26, sum(1 << bit for bit in (0, 1, 3, 8, 9, 12, 15))
MAX_FDS, SLOTS = 8, 32
NOBODY = (1 << 64) - 1
GET_FEATURES, SET_FEATURES, SET_MEM_TABLE, GET_VRING_BASE, GET_PROTOCOL, SET_PROTOCOL = 1, 2, 5, 11, 15, 16
GET_QUEUE_NUM, GET_CONFIG, ADVISE, LISTEN, END, GET_INFLIGHT, SET_INFLIGHT = 17, 24, 28, 29, 30, 31, 32
MAX_SLOTS, ADD_SLOT, DROP_SLOT = 36, 37, 38


class Words:
    """What was asked of it on the command line."""

    def __init__(self, words):
        self._said = dict(word.partition("=")[::2] for word in words)
        self.noise = random.Random(int(self._said["noise"])) if "noise" in self._said else None

    def get(self, name, default=None):
        return self._said.get(name, default)

    def has(self, name):
        return name in self._said


_out = threading.Lock()


def say(event, **fields):
    with _out:
        print(json.dumps({"event": event, **fields}), flush=True)


class Line:
    """One connection: whole messages with their descriptors, and answers as bad as they should be."""

    def __init__(self, sock, words):
        self._sock, self._words = sock, words
        self._noise = words.noise

    def receive(self):
        """(number, flags, body, descriptors); None at the end"""
        fds, head = [], b""
        while len(head) < HEADER.size:
            part, controls, _, _ = self._sock.recvmsg(HEADER.size - len(head), socket.CMSG_SPACE(MAX_FDS * 4))
            if not part:
                return None
            head += part
            for *_, values in controls:
                found = array.array("i")
                found.frombytes(values)
                fds += list(found)
        number, flags, size = HEADER.unpack(head)
        body = b""
        while len(body) < size:
            body += self._sock.recv(size - len(body)) or b"\0" * (size - len(body))
        return number, flags, body, fds

    def answer(self, number, body, fds=()):
        how = self._words.get(f"answer-{number}")
        if how == "silent":
            return
        if how == "eof":
            self._sock.shutdown(socket.SHUT_RDWR)
            return
        body = {"size": body + bytes(8), "short": body[:-8], "error": struct.pack("<Q", 1)}.get(how, body)
        if self._noise:
            self._answer_noisily(number, body, list(fds))
            return
        head = HEADER.pack(number + (how == "number"), VERSION | REPLY | (NEED_REPLY if how == "flags" else 0), len(body))
        fds = {"no-fd": [], "two-fds": list(fds) * 2}.get(how, list(fds))
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        for _ in range(2 if how == "twice" else 1):
            self._sock.sendmsg([head + body], control)

    def _answer_noisily(self, number, body, fds):
        data = bytearray(HEADER.pack(number, VERSION | REPLY, len(body)) + body)
        first = 0                       # the piece that the descriptors come with
        if self._noise.random() < 0.25:
            if self._noise.random() < 0.5:
                data[self._noise.randrange(len(data))] ^= 1 << self._noise.randrange(8)
            else:
                first, fds = self._noise.choice(((1, fds), (0, fds + [0]), (0, fds * 2), (0, [])))
            say("noise", number=number)
        cut = self._noise.randrange(1, len(data))
        for part, piece in enumerate((data[:cut], data[cut:])):
            with_it = fds if part == first and fds else []
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", with_it))] if with_it else []
            self._sock.sendmsg([piece], control)
            time.sleep(self._noise.random() / 1000)

    def close(self):
        self._sock.close()


class Device:
    """What a connection drives; a new one begins anew."""

    def __init__(self, line, disk, words):
        self._line, self._disk, self._words = line, disk, words
        self.regions = Regions()
        self._count = int(words.get("queues", 1))
        self._queues = [Queue(n, self.regions, disk, say) for n in range(self._count)]
        self.uffd, self._listening = None, False
        self.looking = 0                # threads of the console's that wait for a page
        self._answers_all = False       # REPLY_ACK was agreed

    def close(self):
        """What somebody waits in stays as it is."""
        if self.looking or None in [queue.stop(0.2) for queue in self._queues]:
            say("left", looking=self.looking)
            return False
        self.clear()
        return True

    def clear(self):
        self.regions.clear()
        self.close_uffd()

    def close_uffd(self):
        if self.uffd is not None:
            os.close(self.uffd)
            self.uffd = None

    # --- requests ---------------------------------------------------------------------------------

    def run(self):
        while True:
            got = self._line.receive()
            if got is None:
                return
            number, flags, body, fds = got
            say("request", number=number, size=len(body), fds=len(fds), need_reply=bool(flags & NEED_REPLY))
            data = self.TABLE.get(number, Device._nothing)(self, body, fds)
            if isinstance(data, tuple):
                self._line.answer(number, *data)
            elif data is not None:
                self._line.answer(number, data)
            elif flags & NEED_REPLY and self._answers_all:
                self._line.answer(number, struct.pack("<Q", 0))

    def _nothing(self, _body, _fds):
        return None

    def _offer(self, name, bits):
        lack = self._words.get(name)
        return struct.pack("<Q", bits & ~(1 << int(lack)) if lack else bits)

    def _get_features(self, _body, _fds):
        return self._offer("lack", FEATURES | (1 << 12 if self._count > 1 else 0))

    def _set_features(self, body, _fds):
        if not struct.unpack("<Q", body)[0] & 1 << 30:
            for queue in self._queues:
                queue.enable(True)

    def _get_protocol(self, _body, _fds):
        return self._offer("lack-protocol", PROTOCOL)

    def _set_protocol(self, body, _fds):
        agreed = struct.unpack("<Q", body)[0]
        self._answers_all = bool(agreed & 1 << 3)
        say("agreed", protocol=agreed)

    def _queue_num(self, _body, _fds):
        return struct.pack("<Q", self._count)

    def _config(self, body, _fds):
        offset, size, flags = struct.unpack_from("<III", body)
        content = bytearray(offset + size)
        struct.pack_into("<Q", content, 0, os.fstat(self._disk).st_size // 512)
        if len(content) >= 36:
            struct.pack_into("<H", content, 34, self._count)
        return struct.pack("<III", offset, size, flags) + bytes(content[offset:])

    # --- memory -----------------------------------------------------------------------------------

    def _map(self, raw, fd):
        region = self.regions.add(raw, fd)
        if self._words.has("populate"):
            for at in range(0, region.size, vhost_memory.PAGE):
                load(region.base + at, 1)
        say("mapped", base=region.base, size=region.size, guest=region.guest)
        return region

    def _register(self, regions):
        if self._words.get("register") != "no":
            for region in regions:
                vhost_memory.register(self.uffd, region.base, region.size)

    def _answered_raw(self, raw, region):
        how = self._words.get("bases")
        base = {"echo": region.user, "foreign": 0x10000}.get(how, region.base)
        return raw[:16] + struct.pack("<Q", base) + raw[24:]

    def _mem_table(self, body, fds):
        raws = [body[8 + 32 * n:40 + 32 * n] for n in range(struct.unpack_from("<I", body)[0])]
        for queue in self._queues:
            queue.stop()
        self.regions.clear()
        regions = [self._map(raw, fd) for raw, fd in zip(raws, fds)]
        if not self._listening or self._words.get("dialect") == "rust":
            return None
        answers = [self._answered_raw(raw, region) for raw, region in zip(raws, regions)]
        if self._words.get("bases") == "reversed":
            answers.reverse()
        self._line.answer(SET_MEM_TABLE, body[:8] + b"".join(answers))
        got = self._line.receive()
        say("acknowledged", right=bool(got) and got[0] == SET_MEM_TABLE and got[2] == bytes(8) and not got[3])
        self._register(regions)
        return None

    def _add_slot(self, body, fds):
        region = self._map(body[8:40], fds[0])
        if not self._listening or self._words.get("dialect") == "rust":
            return None
        self._register([region])
        return body[:8] + self._answered_raw(body[8:40], region)

    def _drop_slot(self, body, fds):
        for fd in fds:
            os.close(fd)
        self.regions.drop(body[8:40])

    def _slots(self, _body, _fds):
        return struct.pack("<Q", SLOTS)

    # --- postcopy ---------------------------------------------------------------------------------

    def _advise(self, _body, _fds):
        self.uffd = vhost_memory.userfaultfd()
        return b"", [self.uffd]

    def _listen(self, _body, _fds):
        if self._words.get("dialect") == "rust":
            self._register(self.regions.list)
        elif self.regions.list:
            return struct.pack("<Q", NOBODY)
        self._listening = True
        return struct.pack("<Q", 0)

    def _end(self, _body, _fds):
        os.close(self.uffd)
        self.uffd, self._listening = None, False
        return struct.pack("<Q", 0)

    # --- rings ------------------------------------------------------------------------------------

    def _queue(self, index):
        return self._queues[index & 0xFF]

    def _num(self, body, _fds):
        index, value = struct.unpack("<II", body)
        self._queue(index).entries = value

    def _base(self, body, _fds):
        index, value = struct.unpack("<II", body)
        self._queue(index).next = value

    def _addr(self, body, _fds):
        index, _flags, desc, used, avail, _log = struct.unpack("<II4Q", body)
        self._queue(index).set_addresses(desc, used, avail)

    def _stop(self, body, _fds):
        index, _ = struct.unpack("<II", body)
        return struct.pack("<II", index, self._queue(index).stop())

    def _kick(self, body, fds):
        self._queue(struct.unpack("<Q", body)[0]).set_kick(fds[0])

    def _call(self, body, fds):
        self._queue(struct.unpack("<Q", body)[0]).call = fds[0] if fds else None

    def _enable(self, body, _fds):
        index, on = struct.unpack("<II", body)
        self._queue(index).enable(bool(on))

    def _get_inflight(self, body, _fds):
        _size, _offset, queues, entries = struct.unpack_from("<QQHH", body)
        fd = os.memfd_create("inflight")
        os.ftruncate(fd, vhost_memory.PAGE)
        say("inflight", inode=os.fstat(fd).st_ino)
        return struct.pack("<QQHHI", vhost_memory.PAGE, 0, queues, entries, 0), [fd]

    def _set_inflight(self, _body, fds):
        say("inflight_back", inode=os.fstat(fds[0]).st_ino)

    TABLE = {GET_FEATURES: _get_features, SET_FEATURES: _set_features, GET_PROTOCOL: _get_protocol,
             SET_PROTOCOL: _set_protocol, GET_QUEUE_NUM: _queue_num, GET_CONFIG: _config,
             SET_MEM_TABLE: _mem_table, ADD_SLOT: _add_slot, DROP_SLOT: _drop_slot, MAX_SLOTS: _slots,
             ADVISE: _advise, LISTEN: _listen, END: _end, 8: _num, 9: _addr, 10: _base, GET_VRING_BASE: _stop, 12: _kick,
             13: _call, 18: _enable, GET_INFLIGHT: _get_inflight, SET_INFLIGHT: _set_inflight}


class Console:
    """What memory is told to do from outside, while a device is there."""

    def __init__(self):
        self.device, self.left = None, None

    def run(self):
        for line in sys.stdin:
            word, *arguments = line.split()
            try:
                self.TABLE[word](self, *(int(argument, 0) for argument in arguments))
                say("done", line=line.strip())
            except (OSError, LookupError) as error:
                say("done", line=line.strip(), error=str(error))

    def _see(self, what, base, offset, device=None):
        device = device or self.device

        def look():
            word = load(base + offset, 8)
            device.looking -= 1
            say("saw", what=what, offset=offset, word=word.hex())
        device.looking += 1
        threading.Thread(target=look, daemon=True).start()

    def _first(self):
        return self.device.regions.list[0]

    def _touch(self, offset):
        self._see("touch", self.device.regions.guest(offset) - offset, offset)

    def _elsewhere(self):
        base = vhost_memory.map_nothing(1 << 20)
        vhost_memory.register(self.device.uffd, base, 1 << 20)
        self._see("elsewhere", base, 0)

    def _again(self, offset):
        base = self._first().again()
        vhost_memory.register(self.device.uffd, base, self._first().size)
        self._see("again", base, offset)

    def _stray(self, offset):
        self._see("stray", self._first().again(), offset)

    def _unmap(self):
        vhost_memory.unmap(self._first().base, self._first().size)

    def _before(self, offset):
        self._see("before", self.left.regions.guest(offset) - offset, offset, self.left)

    def _close(self):
        self.left.close_uffd()

    def _forget(self):
        self.left.clear()

    TABLE = {"touch": _touch, "elsewhere": _elsewhere, "again": _again, "stray": _stray, "unmap": _unmap,
             "before": _before, "close": _close, "forget": _forget}


def main():
    path, disk_path, words = sys.argv[1], sys.argv[2], Words(sys.argv[3:])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    console = Console()
    threading.Thread(target=console.run, daemon=True).start()
    disk = os.open(disk_path, os.O_RDWR)
    say("listening")
    while True:
        sock, _ = listener.accept()
        line = Line(sock, words)
        console.device = Device(line, disk, words)
        say("connected")
        try:
            console.device.run()
        except (OSError, LookupError, ValueError, TypeError, struct.error) as error:    # a VMM may say anything
            say("broken", error=str(error))
        say("disconnected")
        line.close()
        if not console.device.close():
            console.left = console.left or console.device


if __name__ == "__main__":
    main()
