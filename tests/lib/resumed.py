# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration source told step by step what to send, which can be lost at any of them and come again.

    source = ScriptSource(uri, {"m": (4 << 20, 4096)}, seed)
    source.start(commit_ping=True)      # up to the package
    source.send("m", pages)             # urgent=True: on the urgent channel
    source.cut()
    source.connect()                    # a recovery: .ask(block) -> bitmap, .resume()
"""
import os
import random
import socket
import struct
import threading

from harness import PATIENCE, check, check_equal, wait_for
from relay import connect

PAGE = 4096
SECTION = 2
F_ZERO, F_PAGE, F_EOS, F_CONTINUE = 0x02, 0x08, 0x10, 0x20
(OPEN_RETURN_PATH, PING, ADVISE, LISTEN, RUN, DISCARD, PACKAGED, RESUME, RECV_BITMAP) = (1, 2, 3, 4, 5, 6, 7, 9, 10)
SHUT, PONG, REQ_ID, REQ, BITMAP, ACK = 1, 2, 3, 4, 5, 6
END_MARK = 0x0123456789ABCDEF
COMMIT = 0x42
DEVICE = b"device state " * 40


def command(number, payload=b""):
    return struct.pack(">BHH", 8, number, len(payload)) + payload


def cstr(name):
    return bytes([len(name)]) + name.encode()


class Back:
    """The return path of one connection, read as it comes."""

    def __init__(self, sock):
        self.sock, self.messages, self.bytes, self.ended = sock, [], 0, False
        self.problem = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _take(self, count):
        data = b""
        while len(data) < count:
            got = self.sock.recv(count - len(data))
            if not got:
                raise EOFError
            data += got
        self.bytes += count
        return data

    def _read(self):
        last = None
        try:
            while True:
                kind, length = struct.unpack(">HH", self._take(4))
                payload = self._take(length)
                if kind == REQ_ID:
                    start, size = struct.unpack(">QI", payload[:12])
                    last = payload[13:].decode()
                    self.messages.append((kind, last, start, size))
                elif kind == REQ:
                    self.messages.append((kind, last, *struct.unpack(">QI", payload)))
                elif kind == BITMAP:
                    name = payload[1:].decode()
                    size = struct.unpack(">Q", self._take(8))[0]
                    bitmap = self._take(size)
                    mark = struct.unpack(">Q", self._take(8))[0]
                    check_equal(mark, END_MARK, "end mark of a bitmap")
                    self.messages.append((kind, name, bitmap))
                else:
                    self.messages.append((kind, struct.unpack(">I", payload)[0]))
        except (EOFError, OSError):
            pass
        except Exception as problem:    # pylint: disable=broad-except
            self.problem = problem
        self.ended = True

    def of(self, *kinds):
        check(self.problem is None, f"the return path: {self.problem}")
        return [m for m in self.messages if m[0] in kinds]

    def requests(self):
        """(kind, block, page offset, length)"""
        return self.of(REQ_ID, REQ)

    def wait(self, kind, count=1, timeout=PATIENCE):
        wait_for(f"{count} messages of type {kind}", lambda: len(self.of(kind)) >= count, timeout)
        return self.of(kind)[count - 1]


class ScriptSource:
    """@blocks: {name: (bytes, page size)}"""

    def __init__(self, uri, blocks, seed=1):
        self.uri, self.blocks, self.seed = uri, blocks, seed
        self.main = self.urgent = self.back = None
        self._last = {}
        self.sent = []                  # (block, page)

    # --- content ---------------------------------------------------------------------------------

    def word(self, block, offset):
        """What is at the beginning of each 4 KiB; every fifth of them is zero."""
        number = offset // PAGE
        if number % 5 == 4:
            return 0
        return random.Random(f"{self.seed} {block} {number}").getrandbits(64) | 1

    def shown(self, block, offset):
        """The same as a sharer prints it."""
        return f"{self.word(block, offset):016x}"

    # --- a connection ------------------------------------------------------------------------------

    def connect(self, uri=None):
        self.main = connect(uri or self.uri)
        self.back = Back(self.main)
        self._last = {}

    def connect_urgent(self, uri=None):
        self.urgent = connect(uri or self.uri)

    def cut(self):
        for sock in (self.main, self.urgent):
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                sock.close()
        self.main = self.urgent = None

    def start(self, commit_ping=False, urgent=False):
        """A migration up to its package, everything owed."""
        self.connect()
        huge = 0
        for _, size in self.blocks.values():
            huge |= size
        say = struct.pack(">II", 0x5145564D, 3) + b"\x07" + struct.pack(">I", 6) + b"script"
        say += command(OPEN_RETURN_PATH) + command(PING, struct.pack(">I", 1))
        say += command(ADVISE, struct.pack(">QQ", huge, PAGE))
        say += struct.pack(">BI", 1, SECTION) + cstr("ram") + struct.pack(">II", 0, 4)
        say += struct.pack(">Q", sum(length for length, _ in self.blocks.values()) | 4)
        smallest = huge & -huge
        for name, (length, size) in self.blocks.items():
            say += cstr(name) + struct.pack(">Q", length)
            if size != smallest:
                say += struct.pack(">Q", size)
        say += struct.pack(">Q", F_EOS) + struct.pack(">BI", 0x7E, SECTION)
        self.main.sendall(say)
        if urgent:
            self.back.wait(PONG)
            self.connect_urgent()
        say = b""
        for name, (length, _) in self.blocks.items():
            say += command(DISCARD, b"\0" + cstr(name) + b"\0" + struct.pack(">QQ", 0, length))
        body = command(LISTEN) + DEVICE + command(PING, struct.pack(">I", 3))
        body += command(PING, struct.pack(">I", COMMIT)) if commit_ping else b""
        body += command(RUN)
        say += command(PING, struct.pack(">I", 2)) + command(PACKAGED, struct.pack(">I", len(body))) + body
        self.main.sendall(say)

    def _record(self, channel, block, offset):
        word = self.word(block, offset)
        name = b"" if self._last.get(channel) == block else cstr(block)
        flags = (F_PAGE if word else F_ZERO) | (0 if name else F_CONTINUE)
        self._last[channel] = block
        return struct.pack(">Q", offset | flags) + name + (struct.pack("<Q", word) * 512 if word else b"\0")

    def send(self, block, offsets, urgent=False, cut_short=0):
        """Target pages at these offsets, in a section of their own; without its last @cut_short bytes."""
        channel = "urgent" if urgent else "main"
        say = b"" if urgent else struct.pack(">BI", 2, SECTION)
        for offset in offsets:
            say += self._record(channel, block, offset)
            self.sent.append((block, offset))
        say += b"" if urgent else struct.pack(">Q", F_EOS) + struct.pack(">BI", 0x7E, SECTION)
        (self.urgent if urgent else self.main).sendall(say[:len(say) - cut_short])

    def end(self):
        self.main.sendall(struct.pack(">BI", 3, SECTION) + struct.pack(">Q", F_EOS)
                          + struct.pack(">BI", 0x7E, SECTION) + b"\0")

    # --- a recovery --------------------------------------------------------------------------------

    def ask(self, block):
        """What came of it: its bitmap, as it is sent."""
        count = len(self.back.of(BITMAP))
        self.main.sendall(command(RECV_BITMAP, cstr(block)))
        _, name, bitmap = self.back.wait(BITMAP, count + 1)
        check_equal(name, block, "block of the bitmap")
        check_equal(len(bitmap), (self.blocks[block][0] // PAGE + 63) // 64 * 8, "bytes of the bitmap")
        return bitmap

    def received(self, block):
        """Offsets of the target pages that came."""
        came = [at * 8 + bit for at, byte in enumerate(self.ask(block)) if byte for bit in range(8) if byte >> bit & 1]
        check(not came or came[-1] < self.blocks[block][0] // PAGE, "bits behind the end of the block")
        return [number * PAGE for number in came]

    def resume(self):
        self.main.sendall(command(RESUME))
        check_equal(self.back.wait(ACK), (ACK, 1), "RESUME_ACK")

    def recover(self, urgent=False, before=False, uri=None):
        """A whole handshake: {block: offsets that came}."""
        self.connect(uri)
        came = {}
        for name in self.blocks:
            came[name] = self.received(name)
        if urgent and before:
            self.connect_urgent(uri)
        self.resume()
        if urgent and not before:
            self.connect_urgent(uri)
        return came

    def rest(self, came):
        """All that did not come, and the end."""
        for name, (length, _) in self.blocks.items():
            here = set(came[name])
            self.send(name, [at for at in range(0, length, PAGE) if at not in here])
        self.end()

    def completed(self, timeout=PATIENCE):
        check_equal(self.back.wait(SHUT, timeout=timeout), (SHUT, 0), "SHUT")
        self.cut()


