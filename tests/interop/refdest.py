#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A reference destination: the least that completes a postcopy migration from an unmodified QEMU.

It has no VMM and serves no faults; it keeps the memory in one memfd per block, asks for random pages
from LISTEN on, and says what happens in JSON lines.  The interop tests run their machinery against
it first, so that a failure against postcopyd is postcopyd's.

    refdest.py --incoming unix:/path|tcp:HOST:PORT [--seed S] [--outstanding N] [--misbehave HOW]

--misbehave makes one mistake, for the tests of the tests: ask-twice, ask-beyond (a page that is not
owed), lose-pong, place-wrong (one byte of one page).
"""
import argparse
import json
import mmap
import os
import random
import selectors
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import qwire
from harness import Failure
from relay import listen

MISTAKES = ("ask-twice", "ask-beyond", "lose-pong", "place-wrong")


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Block:
    """Memory of one block and what of it has arrived."""

    def __init__(self, name, length, page_size):
        self.name = name
        self.length = length
        self.page_size = page_size
        self.fd = os.memfd_create(name)
        os.ftruncate(self.fd, length)
        self.memory = mmap.mmap(self.fd, length)
        self.received = bytearray(length // qwire.PAGE)
        self.owed = bytearray(length // qwire.PAGE)     # discarded: must come again

    def place(self, offset, data):
        self.memory[offset:offset + qwire.PAGE] = data or bytes(qwire.PAGE)
        self.received[offset // qwire.PAGE] = 1

    def discard(self, start, length):
        first, count = start // qwire.PAGE, length // qwire.PAGE
        self.received[first:first + count] = bytes(count)
        self.owed[first:first + count] = b"\1" * count

    def complete(self, offset):
        """The whole host page around @offset is here."""
        first = offset // self.page_size * self.page_size // qwire.PAGE
        return all(self.received[first:first + self.page_size // qwire.PAGE])


class Destination:
    """One incoming migration."""

    def __init__(self, uri, seed, outstanding, mistake=None):
        self.random = random.Random(seed)
        self.outstanding = outstanding
        self.mistake = mistake
        self.listener = listen(uri)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.undecided = []             # connections that have not said anything
        self.main = self.urgent = None
        self.decoders = {}
        self.blocks = {}
        self.asked = set()              # (block, offset of the host page)
        self.to_ask = []
        self.last_asked = None
        self.pings = []
        self.listening = self.eof = self.urgent_done = self.shut = False
        self.tail = None
        self.package = b""
        self.counts = {"pages": 0, "zeros": 0, "duplicates": 0, "requests": 0, "urgent": 0}

    def run(self):
        tell("bound")
        while not self.shut:
            for key, _ in self.selector.select(timeout=30):
                if key.fileobj is self.listener:
                    self.accept()
                else:
                    self.receive(key.fileobj)
        self.finish()

    def accept(self):
        sock, _ = self.listener.accept()
        self.undecided.append(sock)
        self.selector.register(sock, selectors.EVENT_READ)

    def receive(self, sock):
        try:
            data = sock.recv(1 << 20)
        except OSError as error:
            data = b""
            tell("error", text=str(error))
        if not data:
            self.selector.unregister(sock)
            if sock is self.main and not self.shut:
                raise Failure("the source closed the connection")
            return
        if sock in self.undecided:
            self.undecided.remove(sock)
            self.adopt(sock, data)
        for event in self.decoders[sock].feed(data):
            getattr(self, "on_" + event.kind.lower(), self.ignore)(event, sock)
        if self.tail is not None:
            self.look_for_end(sock, data)
        self.ask_more()
        self.end_if_complete()

    def adopt(self, sock, data):
        """The first bytes decide which channel it is."""
        if data[:4] == b"QEVM"[:len(data)] and self.main is None:
            self.main = sock
            self.decoders[sock] = qwire.Stream()
        else:
            self.urgent = sock
            self.decoders[sock] = qwire.Stream(urgent=True)

    # --- records ----------------------------------------------------------------------------

    def ignore(self, event, sock):
        pass

    def on_ping(self, event, _sock):
        if self.mistake != "lose-pong" or event.a != 2:
            self.main.sendall(struct.pack(">HHI", 2, 4, event.a))

    def once(self, mistake):
        """True the first time, if that is the mistake to make."""
        if self.mistake != mistake:
            return False
        self.mistake = None
        return True

    def on_block(self, event, _sock):
        block = Block(event.a, event.b, event.c)
        self.blocks[event.a] = block
        tell("memfd", block=event.a, length=event.b, page_size=event.c,
             path=f"/proc/{os.getpid()}/fd/{block.fd}")

    def on_discard(self, event, _sock):
        self.blocks[event.a].discard(event.b, event.c)

    def on_page(self, event, sock):
        block = self.blocks[event.a]
        if self.listening and block.received[event.b // qwire.PAGE]:
            self.counts["duplicates"] += 1
        block.place(event.b, event.c)
        if self.listening and event.c and self.once("place-wrong"):
            block.memory[event.b + 1000] ^= 1
        self.counts["pages" if event.c else "zeros"] += 1
        self.counts["urgent"] += sock is self.urgent
        if self.listening and block.complete(event.b):
            self.asked.discard((event.a, event.b // block.page_size * block.page_size))

    on_zero = on_page

    def on_packaged(self, event, _sock):
        pings, self.package = qwire.package_pings(event.a)
        self.listening = True
        self.to_ask = [(b.name, at) for b in self.blocks.values()
                       for at in range(0, b.length, b.page_size)
                       if not b.received[at // qwire.PAGE]]
        self.random.shuffle(self.to_ask)
        tell("listening", missing=len(self.to_ask), package=len(event.a))
        for ping in pings:
            self.main.sendall(struct.pack(">HHI", 2, 4, ping))

    def on_eos(self, _event, sock):
        if sock is self.urgent:
            self.urgent_done = True

    def on_eof(self, _event, _sock):
        self.eof = True

    def on_tail(self, _event, sock):
        self.tail = bytearray(b"\x04")  # the byte that told
        self.tail += self.decoders[sock].rest()

    def look_for_end(self, sock, data):
        if sock is self.main and self.decoders[sock].rest() != bytes(self.tail[1:]):
            self.tail += data
        length = qwire.tail_length(bytes(self.tail))
        if length is not None:
            self.package = bytes(self.tail[:length])
            self.eof = True

    # --- requests and the end -----------------------------------------------------------------

    def ask_more(self):
        while self.to_ask and len(self.asked) < self.outstanding and not self.eof:
            name, at = self.to_ask.pop()
            block = self.blocks[name]
            if any(block.received[at // qwire.PAGE:(at + block.page_size) // qwire.PAGE]):
                continue                # here, or on its way
            self.asked.add((name, at))
            self.request(name, at, block.page_size)
            if self.once("ask-twice"):
                self.request(name, at, block.page_size)
            if self.once("ask-beyond"):
                self.ask_for_received()

    def ask_for_received(self):
        block = next(b for b in self.blocks.values() if 0 in b.owed)
        self.request(block.name, block.owed.index(0) * qwire.PAGE, block.page_size)

    def request(self, name, at, length):
        body = struct.pack(">QI", at, length)
        if name != self.last_asked:
            body += struct.pack(">B", len(name)) + name.encode()
        kind = 4 if name == self.last_asked else 3
        self.last_asked = name
        self.main.sendall(struct.pack(">HH", kind, len(body)) + body)
        self.counts["requests"] += 1

    def end_if_complete(self):
        """SHUT(0) once nothing is owed: every discarded page is here."""
        if self.shut or not self.eof or self.asked:
            return
        if self.tail is None and not self.listening:
            raise Failure("the stream ends before it has begun")
        if self.tail is None and self.lacking():
            if self.urgent is None or self.urgent_done:
                raise Failure(f"{self.lacking()} discarded pages never came")
            return
        self.main.sendall(struct.pack(">HHI", 1, 4, 0))
        self.shut = True

    def lacking(self):
        return sum(owed and not got for b in self.blocks.values()
                   for owed, got in zip(b.owed, b.received))

    def finish(self):
        """Let the source close first: an early close could look like a loss to it."""
        for sock in [*self.decoders, *self.undecided]:
            sock.settimeout(10)
            while sock.recv(4096):
                pass
            sock.close()
        never = sum(b.received.count(0) for b in self.blocks.values())
        tell("complete", finished_as="precopy" if self.tail is not None else "postcopy",
             never_sent=never, package=len(self.package), **self.counts)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--incoming", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--outstanding", type=int, default=16)
    parser.add_argument("--misbehave", choices=MISTAKES)
    options = parser.parse_args()
    destination = Destination(options.incoming, options.seed, options.outstanding,
                              options.misbehave)
    try:
        destination.run()
    except (Failure, OSError) as failure:
        tell("failed", text=str(failure))
        sys.exit(1)
    while True:
        time.sleep(3600)                # the memory is read through /proc until we are ended


if __name__ == "__main__":
    main()
