# SPDX-License-Identifier: GPL-2.0-or-later
"""A small, strict destination of a postcopy migration.

Written from the wire specification alone and sharing nothing with src/wire, so that an error there does
not hide here.  One thread; every connection is a generator that asks for the bytes it needs next.
"""
import json
import os
import random
import selectors
import socket
import struct
import tempfile
import time

from source_content import PAGE, content

ZERO, MEM_SIZE, DATA, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20


class Bad(Exception):
    """The source said something it must not."""


# --- one block ------------------------------------------------------------------------------------

class Block:
    def __init__(self, name, length, page_size):
        self.name, self.length, self.page_size = name, length, page_size
        self.data = {}              # target page number -> bytes
        self.discarded = []         # (start, length)
        self.stale = {}             # what the discarded pages held
        self.asked = set()          # host pages

    def fan(self):
        return self.page_size // PAGE

    def discard(self, start, length):
        if start % self.page_size or length % self.page_size or not length:
            raise Bad("discard range not of whole pages")
        if start + length > self.length:
            raise Bad("discard beyond the block")
        self.discarded.append((start, length))
        for page in [p for p in self.data if start <= p * PAGE < start + length]:
            self.stale[page] = self.data.pop(page)


class Channel:
    """Bytes of one connection, handed to a generator that yields how many it wants."""

    def __init__(self, sock, parser):
        self.sock, self.parser = sock, parser
        self.buffer, self.position, self.done = bytearray(), 0, False
        self.between = False        # no record has begun
        self.want = next(parser)

    def feed(self, data):
        self.buffer += data
        while not self.done and len(self.buffer) >= self.want:
            piece = bytes(self.buffer[:self.want])
            del self.buffer[:self.want]
            self.position += len(piece)
            try:
                self.want = self.parser.send(piece)
            except StopIteration:
                self.done = True

    def cut(self):
        """Did it end in the middle of a record?"""
        return not self.done and not (self.between and not self.buffer)


# --- the destination ------------------------------------------------------------------------------

class Receiver:
    """Policies are attributes; a test sets those it needs."""

    def __init__(self, family="unix"):
        self.blocks, self.order = {}, []
        self.events = []            # (record, position) of the main connection
        self.pages = []             # (lane, block, page) after the package, in order
        self.seen = set()           # the same as a set, without the lane
        self.duplicates = 0
        self.received = 0
        self.splits = 0             # large pages that went on in another section
        self.partial = {}           # lane -> (block, host page, next target page)
        self.package, self.description = None, None
        self.listening = self.advised = self.at_end = False
        self.summary = 0
        self.last_requested = None
        self.error, self.endings, self.endings_seen = None, {}, {}
        self.named = {"main": 0, "urgent": 0}
        self.urgent_eos = False
        # policy
        self.rng = random.Random(1)
        self.request_depth = 0      # requests in flight
        self.request_limit = 1 << 60
        self.wanted = []            # (block, host page): asked first
        self.pong_delay = {}        # value -> seconds
        self.shut = 0               # None: never
        self.after_shut = b""
        self.finish_anyway = False  # SHUT though pages are missing
        self.mute = set()           # PINGs that are not answered
        self.give_up_after = None   # seconds without a byte
        self.capture = None         # bytearray: everything from the main connection
        self.page_hooks = {}        # number of target pages received -> function
        self.inject = {}            # event -> bytes to send when it is seen
        self.close_at = None        # event at which to hang up
        self.accept_urgent = True
        self.later = []             # (time, bytes)
        self.requests = 0
        self.outstanding = set()
        self.listener, self.address = self.listen(family)

    # --- sockets

    def listen(self, family):
        if family == "unix":
            self.dir = tempfile.mkdtemp(prefix="source-")
            path = os.path.join(self.dir, "s")
            s = socket.socket(socket.AF_UNIX)
            s.bind(path)
            address = "unix:" + path
        elif family == "tcp6":
            s = socket.socket(socket.AF_INET6)
            s.bind(("::1", 0))
            address = "tcp:[::1]:%d" % s.getsockname()[1]
        else:
            s = socket.socket(socket.AF_INET)
            s.bind(("127.0.0.1", 0))
            address = "tcp:127.0.0.1:%d" % s.getsockname()[1]
        s.listen(4)
        s.setblocking(False)
        return s, address

    def close(self):
        if self.address.startswith("unix:"):
            os.unlink(self.address[5:])
            os.rmdir(self.dir)

    def say(self, data):
        try:
            self.main.sock.sendall(data)
        except ConnectionResetError:
            self.endings_seen["main"] = "rst"       # it is reported once, here or to recv()
        except OSError:
            pass

    # --- events

    def note(self, name):
        self.events.append((name, self.position()))
        if name in self.inject:
            self.say(self.inject[name])
        if name == self.close_at:
            raise ConnectionAbortedError(name)

    def position(self):
        return self.main.position if hasattr(self, "main") else 0

    def names(self):
        return [name for name, _ in self.events]

    # --- grammar of the main connection

    def main_stream(self):
        magic, version = struct.unpack(">II", (yield 8))
        if magic != 0x5145564d or version != 3:
            raise Bad("magic %#x version %d" % (magic, version))
        if (yield 1) != b"\x07":
            raise Bad("no configuration")
        size, = struct.unpack(">I", (yield 4))
        self.machine = (yield size).decode()
        self.note("header")
        yield from self.records()

    def records(self):
        while not self.at_end:
            self.main.between = True
            kind = (yield 1)[0]
            self.main.between = False
            if kind == 0x08:
                yield from self.command(self.names())
            elif kind in (0x02, 0x03):
                yield from self.section(kind)
            elif kind == 0x01:
                yield from self.start()
            elif kind == 0x04:
                yield from self.full()
            elif kind == 0x00:
                yield from self.end_of_stream()
            else:
                raise Bad("record type %#x" % kind)

    def command(self, before):
        number, size = struct.unpack(">HH", (yield 4))
        handler = self.commands().get(number)
        if not handler:
            raise Bad("command %d" % number)
        payload = (yield size) if size else b""
        yield from handler(payload, before)

    def commands(self):
        return {1: self.on_return_path, 2: self.on_ping, 3: self.on_advise, 6: self.on_discard,
                7: self.on_package, 11: self.on_switchover}

    def on_return_path(self, payload, before):
        self.note("return-path")
        return
        yield

    def on_ping(self, payload, before):
        value, = struct.unpack(">I", payload)
        self.note("ping%d" % value)
        self.pong(value)
        return
        yield

    def pong(self, value):
        message = struct.pack(">HHI", 2, 4, value)
        if value in self.pong_delay:
            self.later.append((time.monotonic() + self.pong_delay[value], message, "pong%d" % value))
        elif value not in self.mute:
            self.say(message)

    def on_advise(self, payload, before):
        self.summary, tps = struct.unpack(">QQ", payload)
        if tps != PAGE:
            raise Bad("target page size %d" % tps)
        if "blocks" in before:
            raise Bad("ADVISE after the block list")
        self.note("advise")
        return
        yield

    def on_switchover(self, payload, before):
        self.note("switchover")
        return
        yield

    def on_discard(self, payload, before):
        if payload[0] != 0:
            raise Bad("discard version")
        size = payload[1]
        name = payload[2:2 + size].decode()
        ranges = payload[3 + size:]
        if payload[2 + size] != 0 or not ranges or len(ranges) % 16 or len(ranges) > 12 * 16:
            raise Bad("discard of %d bytes" % len(payload))
        if name not in self.blocks:
            raise Bad("discard of unknown block " + name)
        if self.listening:
            raise Bad("discard after LISTEN")
        for at in range(0, len(ranges), 16):
            self.blocks[name].discard(*struct.unpack_from(">QQ", ranges, at))
        self.note("discard")
        return
        yield

    def on_package(self, payload, before):
        size, = struct.unpack(">I", payload)
        self.note("package")
        if size > 64 << 20:
            raise Bad("package of %d bytes" % size)
        if "discard" not in before:
            raise Bad("package without any discard")
        self.package = yield size
        self.open_package(self.package)
        self.listening = True
        self.started = time.monotonic()
        self.note("listening")

    def open_package(self, body):
        listen, run = b"\x08\x00\x04\x00\x00", b"\x08\x00\x05\x00\x00"
        if not body.startswith(listen) or not body.endswith(run):
            raise Bad("package does not go from LISTEN to RUN")
        rest, pings = body[len(listen):-len(run)], []
        while rest[-9:-4] == b"\x08\x00\x02\x00\x04":
            pings.insert(0, struct.unpack(">I", rest[-4:])[0])
            rest = rest[:-9]
        self.device, self.package_pings = rest, pings
        for value in pings:
            self.pong(value)

    # --- ram

    def start(self):
        section, = struct.unpack(">I", (yield 4))
        name = yield from self.cstr()
        if name != "ram" or struct.unpack(">II", (yield 8)) != (0, 4):
            raise Bad("START of " + name)
        self.section_id = section
        total, = struct.unpack(">Q", (yield 8))
        if total & (PAGE - 1) != MEM_SIZE:
            raise Bad("no block list")
        total -= MEM_SIZE
        yield from self.block_list(total)
        word, = struct.unpack(">Q", (yield 8))
        if word != EOS:
            raise Bad("block list does not end with EOS")
        yield from self.footer()
        self.note("blocks")

    def block_list(self, total):
        """The page size is there where it is not the default, which here is always 4096."""
        summary = 0
        while total:
            name = yield from self.cstr()
            length, = struct.unpack(">Q", (yield 8))
            page_size = PAGE
            if self.huge(name):
                page_size, = struct.unpack(">Q", (yield 8))
            if length > total or name in self.blocks:
                raise Bad("block list")
            total -= length
            summary |= page_size
            self.blocks[name] = Block(name, length, page_size)
            self.order.append(name)
        if summary != self.summary:
            raise Bad("ADVISE said %#x, the blocks say %#x" % (self.summary, summary))

    def huge(self, name):
        return name.startswith("huge")

    def footer(self):
        mark, section = struct.unpack(">BI", (yield 5))
        if mark != 0x7e or section != self.section_id:
            raise Bad("footer %#x of section %d" % (mark, section))

    def section(self, kind):
        section, = struct.unpack(">I", (yield 4))
        if section != self.section_id:
            raise Bad("section %d" % section)
        yield from self.page_records("main")
        yield from self.footer()
        if "main" in self.partial:
            self.splits += 1
        if kind == 0x03:
            self.note("end")

    def urgent_stream(self):
        yield 0                     # until self.urgent is there
        yield from self.page_records("urgent")
        self.urgent_eos = True

    def page_records(self, lane):
        """Until EOS.  The urgent lane has one only at its end."""
        channel = getattr(self, lane)
        while True:
            channel.between = lane == "urgent"
            word, = struct.unpack(">Q", (yield 8))
            channel.between = False
            flags, offset = word & (PAGE - 1), word & ~(PAGE - 1)
            if flags == EOS:
                return
            if not flags & CONTINUE:
                channel.block = yield from self.cstr()
                self.named[lane] += 1
            if flags & ~CONTINUE not in (ZERO, DATA):
                raise Bad("page flags %#x" % flags)
            data = yield (1 if flags & ZERO else PAGE)
            if flags & ZERO and data != b"\0":
                raise Bad("fill byte")
            self.page(lane, getattr(channel, "block", None), offset, bytes(PAGE) if flags & ZERO else data)

    def page(self, lane, name, offset, data):
        block = self.blocks.get(name)
        if not block:
            raise Bad("page of unknown block %s" % name)
        if offset >= block.length:
            raise Bad("offset %#x beyond %s" % (offset, name))
        number = offset // PAGE
        if self.listening:
            self.postcopy_page(lane, block, number)
        block.data[number] = data
        self.received += 1
        if self.received in self.page_hooks:
            self.page_hooks.pop(self.received)()

    def postcopy_page(self, lane, block, number):
        if (block.name, number) in self.seen:
            self.duplicates += 1
        self.seen.add((block.name, number))
        self.pages.append((lane, block.name, number))
        fan = block.fan()
        host, nth = divmod(number, fan)
        expected = self.partial.pop(lane, (block.name, host, 0))
        if expected != (block.name, host, nth):
            raise Bad("%s: target page %s/%d.%d where %s/%d.%d was due" % (
                (lane, block.name, host, nth) + expected))
        if nth + 1 < fan:
            self.partial[lane] = (block.name, host, nth + 1)
        else:
            self.outstanding.discard((block.name, host))

    def cstr(self):
        size = (yield 1)[0]
        return (yield size).decode() if size else ""

    # --- the end

    def full(self):
        """Naked device state: a section of ours, which has no footer inside."""
        if self.listening:
            raise Bad("device state after the package")
        section, = struct.unpack(">I", (yield 4))
        name = yield from self.cstr()
        yield 8
        body = b""
        while not body.endswith(struct.pack(">BI", 0x7e, section)):
            body += yield 1
        self.naked = (name, body[:-5])
        self.note("device")

    def end_of_stream(self):
        if "end" not in self.names():
            raise Bad("end of the stream without END of ram")
        if not self.listening:
            if (yield 1) != b"\x06":
                raise Bad("no description behind the device state")
            size, = struct.unpack(">I", (yield 4))
            self.description = json.loads((yield size))
        self.at_end = True
        self.ended = time.monotonic()
        self.note("eof")

    def finish(self):
        """Everything is here: say so."""
        if self.shut is not None:
            self.say(struct.pack(">HHI", 1, 4, self.shut) + self.after_shut)
        self.note("shut")

    def everything_here(self):
        lengths = sum(b.length // PAGE for b in self.blocks.values())
        return sum(len(b.data) for b in self.blocks.values()) == lengths

    # --- requests

    def request(self, name, start, length):
        self.requests += 1
        head = struct.pack(">QI", start, length)
        if name == self.last_requested:
            return struct.pack(">HH", 4, 12) + head
        self.last_requested = name
        text = bytes([len(name)]) + name.encode()
        return struct.pack(">HH", 3, 12 + len(text)) + head + text

    def next_wish(self):
        while self.wanted:
            wish = self.wanted.pop(0)
            block = self.blocks[wish[0]]
            if wish[1] * block.fan() not in block.data and wish[1] not in block.asked:
                return wish
        for _ in range(8 if self.request_depth else 0):
            block = self.blocks[self.rng.choice(self.order)]
            page = self.rng.randrange(block.length // block.page_size)
            if page not in block.asked and page * block.fan() not in block.data:
                return block.name, page
        return None

    def ask(self):
        if not self.listening or self.at_end or self.requests >= self.request_limit:
            return
        while len(self.outstanding) < max(self.request_depth, len(self.wanted) and 1):
            wish = self.next_wish()
            if not wish:
                return
            block = self.blocks[wish[0]]
            block.asked.add(wish[1])
            self.outstanding.add(wish)
            self.say(self.request(block.name, wish[1] * block.page_size, block.page_size))

    # --- loop

    def run(self, timeout=30.0):
        """Until the source has closed everything, an error, or the timeout (then self.error says so)."""
        self.heard = time.monotonic()
        deadline = self.heard + timeout
        self.sel = selectors.DefaultSelector()
        self.sel.register(self.listener, selectors.EVENT_READ, None)
        try:
            while not self.over():
                self.step(deadline)
        except (Bad, ConnectionAbortedError) as e:
            self.error = str(e)
        except (struct.error, IndexError, UnicodeDecodeError) as e:
            self.error = "malformed: %s" % e
        finally:
            self.hang_up()
            self.sel.close()
        return self

    def over(self):
        return hasattr(self, "main") and "main" in self.endings

    def step(self, deadline):
        if time.monotonic() > deadline:
            raise Bad("timeout in " + repr(self.names()[-1:]))
        ready = self.sel.select(0.02)
        if ready:
            self.heard = time.monotonic()
        elif hasattr(self, "main") and self.give_up_after and time.monotonic() - self.heard > self.give_up_after:
            raise ConnectionAbortedError("gave up")
        for key, _ in ready:
            if key.fileobj is self.listener:
                self.accept()
            else:
                self.receive(key.data)
        self.send_later()
        if hasattr(self, "main") and not self.over():
            self.ask()

    def send_later(self):
        now = time.monotonic()
        for due in [d for d in self.later if d[0] <= now]:
            self.later.remove(due)
            self.say(due[1])
            self.events.append((due[2], self.main.position))

    def accept(self):
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(True)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not hasattr(self, "main"):
            self.main = Channel(sock, self.main_stream())
            lane = "main"
        else:
            if not self.accept_urgent:
                raise Bad("a second connection")
            self.events.append(("urgent", self.main.position))
            self.urgent = Channel(sock, self.urgent_stream())
            lane = "urgent"
        self.sel.register(sock, selectors.EVENT_READ, lane)

    def receive(self, lane):
        channel = getattr(self, lane)
        try:
            data = channel.sock.recv(1 << 20)
        except ConnectionResetError:
            data, self.endings_seen[lane] = b"", "rst"
        if not data:
            self.endings[lane] = self.endings_seen.get(lane, "fin")
            self.sel.unregister(channel.sock)
            return
        if lane == "main" and self.at_end:
            raise Bad("%d bytes behind the end of the stream" % len(data))
        self.accept()               # what was sent after a connect() may have come with it
        if lane == "main" and self.capture is not None:
            self.capture += data
        channel.feed(data)
        if lane == "main" and channel.buffer and channel.done:
            raise Bad("%d bytes behind the end of the stream" % len(channel.buffer))
        self.maybe_finish()

    def maybe_finish(self):
        if self.at_end and "shut" not in self.names() and (self.finish_anyway or self.everything_here()):
            self.finish()

    def hang_up(self):
        for lane in ("main", "urgent"):
            if hasattr(self, lane):
                getattr(self, lane).sock.close()
        self.listener.close()

    # --- verdict

    def differences(self, seed, percent=None):
        """Target pages that do not hold what they should."""
        wrong = []
        for block in self.blocks.values():
            zero = (percent or {}).get(block.name, 0)
            for number, data in block.data.items():
                if data != content(seed, block.name, number, block.page_size, zero):
                    wrong.append((block.name, number))
        return wrong
