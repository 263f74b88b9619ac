# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's migration stream and return path, decoded a second time.

Written against the wire facts alone and sharing nothing with src/wire, so that the tests do not
believe postcopyd about what was on the wire.  Decoders are fed chunks of any size and hand out
Event(kind, start, end, ...): start and end are byte positions in the connection.
"""
import collections
import json
import struct

from harness import Failure

PAGE = 4096
MAGIC = 0x5145564D
RAM_VERSION = 4
F_ZERO, F_MEM_SIZE, F_PAGE, F_EOS, F_CONTINUE, F_XBZRLE = 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
START, PART, END, FULL, CONFIG, COMMAND, FOOTER = 1, 2, 3, 4, 7, 8, 0x7E
COMMANDS = {1: "OPEN_RETURN_PATH", 2: "PING", 3: "ADVISE", 4: "LISTEN", 5: "RUN", 6: "DISCARD",
            7: "PACKAGED", 9: "RESUME", 10: "RECV_BITMAP", 11: "SWITCHOVER_START"}
COMMIT_PING = 0x42
SUBSECTION = 5
SUBSECTIONS = {"configuration/target-page-bits": 4, "configuration/uuid": 16}  # body lengths

#: a, b, c by kind: PAGE block offset data | ZERO block offset | BLOCK name length page_size |
#: DISCARD block start length | PING value | ADVISE summary target_page | PACKAGED body |
#: HEADER machine | SECTION type id name | TAIL (naked device state begins)
Event = collections.namedtuple("Event", "kind start end a b c", defaults=(None, None, None))


class WireError(Failure):
    """The stream breaks its grammar."""


class _Decoder:
    """Incremental input for a parser written as a generator that yields when it lacks bytes."""

    def __init__(self):
        self._buf = bytearray()
        self._at = 0                    # consumed bytes of _buf
        self._base = 0                  # position of _buf[0] in the connection
        self._events = []
        self._parser = self._parse()
        self.finished = False
        self.boundary = 0               # everything before it is whole records
        next(self._parser)

    @property
    def position(self):
        return self._base + self._at

    def feed(self, data):
        """Events that are complete with these bytes."""
        self._buf += data
        if not self.finished:
            try:
                self._parser.send(None)
            except StopIteration:
                self.finished = True
        events, self._events = self._events, []
        if self._at > 1 << 20 or self._at == len(self._buf):
            del self._buf[:self._at]
            self._base += self._at
            self._at = 0
        return events

    def rest(self):
        """Bytes fed but not consumed."""
        return bytes(self._buf[self._at:])

    def _take(self, count):
        while len(self._buf) - self._at < count:
            yield
        data = bytes(self._buf[self._at:self._at + count])
        self._at += count
        return data

    def _peek(self):
        while len(self._buf) == self._at:
            yield
        return self._buf[self._at]

    def _int(self, fmt):
        data = yield from self._take(struct.calcsize(fmt))
        return struct.unpack(fmt, data)[0]

    def _cstr(self):
        length = yield from self._int(">B")
        return (yield from self._take(length)).decode("ascii")

    def _emit(self, kind, start, *fields):
        self._events.append(Event(kind, start, self.position, *fields))

    def _fail(self, text):
        raise WireError(f"at {self.position:#x}: {text}")


class Stream(_Decoder):
    """Source to destination.  urgent=True: the preempt channel (bare page records)."""

    def __init__(self, urgent=False):
        self.urgent = urgent
        self.blocks = {}                # name -> (length, page size), in the order of the list
        self.sections = {}
        self.summary = None
        self.packaged = False
        self._last = None
        super().__init__()

    def _parse(self):
        yield
        if self.urgent:
            yield from self._pages()
            return
        yield from self._header()
        yield from self._records()

    def _header(self):
        magic = yield from self._int(">I")
        version = yield from self._int(">I")
        if (magic, version) != (MAGIC, 3):
            self._fail(f"magic {magic:#x}, version {version}")
        marker = yield from self._int(">B")
        if marker != CONFIG:
            self._fail(f"no configuration but {marker:#x}")
        length = yield from self._int(">I")
        machine = (yield from self._take(length)).decode("ascii")
        while (yield from self._peek()) == SUBSECTION:
            yield from self._subsection()
        self._emit("HEADER", 0, machine)

    def _subsection(self):
        yield from self._take(1)
        name = yield from self._cstr()
        version = yield from self._int(">I")
        if version != 1 or name not in SUBSECTIONS:
            self._fail(f"configuration subsection {name!r} version {version}")
        yield from self._take(SUBSECTIONS[name])

    def _records(self):
        while True:
            start = self.boundary = self.position
            kind = yield from self._int(">B")
            if kind == COMMAND:
                yield from self._command(start)
            elif kind in (START, PART, END):
                yield from self._section(kind, start)
            elif kind == FULL:
                self._emit("TAIL", start)
                return
            elif kind == 0:
                self._emit("EOF", start)
                return
            else:
                self._fail(f"record {kind:#x}")

    def _command(self, start):
        number = yield from self._int(">H")
        length = yield from self._int(">H")
        payload = yield from self._take(length)
        name = COMMANDS.get(number)
        if name is None:
            self._fail(f"command {number}")
        if name == "PING":
            self._emit(name, start, struct.unpack(">I", payload)[0])
        elif name == "ADVISE":
            self.summary, target = struct.unpack(">QQ", payload)
            self._emit(name, start, self.summary, target)
        elif name == "DISCARD":
            self._discard(start, payload)
        elif name == "PACKAGED":
            yield from self._package(start, payload)
        elif name == "RECV_BITMAP":
            self._emit(name, start, payload[1:].decode("ascii"))
        else:
            self._emit(name, start)

    def _discard(self, start, payload):
        length = payload[1]
        name = payload[2:2 + length].decode("ascii")
        ranges = payload[3 + length:]
        if name not in self.blocks or len(ranges) % 16 or not ranges:
            self._fail(f"discard of {name!r} with {len(ranges)} bytes of ranges")
        for at, size in struct.iter_unpack(">QQ", ranges):
            self._emit("DISCARD", start, name, at, size)

    def _package(self, start, payload):
        body = yield from self._take(struct.unpack(">I", payload)[0])
        self.packaged = True
        self._last = None
        self._emit("PACKAGED", start, body)

    def _section(self, kind, start):
        number = yield from self._int(">I")
        if kind == START:
            name = yield from self._cstr()
            instance = yield from self._int(">I")
            version = yield from self._int(">I")
            self.sections[number] = name
            self._emit("SECTION", start, kind, number, name)
            if (name, instance, version) != ("ram", 0, RAM_VERSION):
                self._fail(f"section {name!r} instance {instance} version {version}")
        elif number not in self.sections:
            self._fail(f"section id {number} was never started")
        else:
            self._emit("SECTION", start, kind, number, self.sections[number])
        yield from self._pages()
        footer = yield from self._take(5)
        if footer != struct.pack(">BI", FOOTER, number):
            self._fail(f"footer {footer.hex()}")
        if kind == END:
            self._emit("RAM_END", start)

    def _pages(self):
        """Page words up to EOS."""
        while True:
            start = self.boundary = self.position
            word = yield from self._int(">Q")
            flags, offset = word & (PAGE - 1), word & ~(PAGE - 1)
            if flags == F_EOS:
                self._emit("EOS", start)
                return
            if flags & ~F_CONTINUE in (F_PAGE, F_ZERO):
                yield from self._page(start, flags, offset)
            elif flags == F_MEM_SIZE:
                yield from self._block_list(word & ~F_MEM_SIZE)
            else:
                self._fail(f"page word {word:#x}")

    def _page(self, start, flags, offset):
        if not flags & F_CONTINUE:
            self._last = yield from self._cstr()
        if self._last is None:
            self._fail("CONTINUE without a block before it")
        if flags & F_ZERO:
            fill = yield from self._int(">B")
            if fill:
                self._fail(f"zero page filled with {fill:#x}")
            self._emit("ZERO", start, self._last, offset)
        else:
            data = yield from self._take(PAGE)
            self._emit("PAGE", start, self._last, offset, data)

    def _block_list(self, total):
        huge = (self.summary or PAGE) & ~PAGE
        while total > 0:
            start = self.position
            name = yield from self._cstr()
            length = yield from self._int(">Q")
            size = PAGE
            if huge:
                while len(self._buf) - self._at < 8:
                    yield
                peek = struct.unpack_from(">Q", self._buf, self._at)[0]
                if peek & huge and peek & (peek - 1) == 0:
                    size = peek
                    self._at += 8
            total -= length
            self.blocks[name] = (length, size)
            self._emit("BLOCK", start, name, length, size)
        if total:
            self._fail("the block list does not add up")


def package_pings(body):
    """(pings, device part) of a package's body; raises WireError when it is not one."""
    listen, run = bytes.fromhex("0800040000"), bytes.fromhex("0800050000")
    if not body.startswith(listen) or not body.endswith(run):
        raise WireError("a package that does not run from LISTEN to RUN")
    device, pings = body[5:-5], []
    while len(device) >= 9 and device[-9:-4] == bytes.fromhex("0800020004"):
        pings.insert(0, struct.unpack(">I", device[-4:])[0])
        device = device[:-9]
    return pings, device


def tail_length(tail):
    """Length of naked device state when @tail ends exactly with its description, else None."""
    at = tail.rfind(b"\x00\x06")
    while at >= 0:
        if len(tail) >= at + 7 and tail[at + 6:at + 7] == b"{":
            size = struct.unpack_from(">I", tail, at + 2)[0]
            if at + 6 + size == len(tail):
                try:
                    json.loads(tail[at + 6:])
                    return at
                except ValueError:
                    pass
        at = tail.rfind(b"\x00\x06", 0, at)
    return None


class ReturnPath(_Decoder):
    """Destination to source: SHUT value | PONG value | REQUEST block start length | …"""

    NAMES = {1: "SHUT", 2: "PONG", 3: "REQUEST", 4: "REQUEST", 6: "RESUME_ACK",
             7: "SWITCHOVER_ACK"}

    def __init__(self):
        self._last = None
        super().__init__()

    def _parse(self):
        yield
        while True:
            start = self.boundary = self.position
            kind = yield from self._int(">H")
            length = yield from self._int(">H")
            payload = yield from self._take(length)
            if kind not in self.NAMES:
                self._fail(f"return path message {kind}")
            if kind in (3, 4):
                self._request(start, kind, payload)
            else:
                value = struct.unpack(">I", payload)[0] if payload else None
                self._emit(self.NAMES[kind], start, value)

    def _request(self, start, kind, payload):
        at, size = struct.unpack_from(">QI", payload)
        if kind == 3:
            self._last = payload[13:].decode("ascii")
            if len(payload) != 13 + payload[12]:
                self._fail("REQ_PAGES_ID with a wrong length")
        elif len(payload) != 12 or self._last is None:
            self._fail("REQ_PAGES with a wrong length or without a block")
        self._emit("REQUEST", start, self._last, at, size)
