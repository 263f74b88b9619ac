# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopy-device-state(7) once more, from its page: greetings and records as bytes; and what the device of
vfiouser-server saves."""
import socket
import struct
import uuid

from harness import PATIENCE

REGION, STREAM = 1, 2
HEAD, SEGMENT, CONFIG, ROUND, END = 1, 2, 3, 4, 5
MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579,
                      2870177450012600261)


def _rotl(v, n):
    return (v << n | v >> (64 - n)) & MASK


def _round(acc, lane):
    return _rotl((acc + lane * P2) & MASK, 31) * P1 & MASK


def _stripes(data, seed):
    acc = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
    for lanes in struct.iter_unpack("<4Q", data):
        acc = [_round(a, lane) for a, lane in zip(acc, lanes)]
    h = sum(_rotl(a, n) for a, n in zip(acc, (1, 7, 12, 18))) & MASK
    for a in acc:
        h = ((h ^ _round(0, a)) * P1 + P4) & MASK
    return h


def xxh64(data, seed=0):
    """XXH64, for small things."""
    whole = len(data) // 32 * 32
    h = _stripes(data[:whole], seed) if whole else (seed + P5) & MASK
    h = (h + len(data)) & MASK
    rest = data[whole:]
    while len(rest) >= 8:
        h = (_rotl(h ^ _round(0, struct.unpack("<Q", rest[:8])[0]), 27) * P1 + P4) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        h = (_rotl(h ^ struct.unpack("<I", rest[:4])[0] * P1 & MASK, 23) * P2 + P3) & MASK
        rest = rest[4:]
    for byte in rest:
        h = _rotl(h ^ byte * P5 & MASK, 11) * P1 & MASK
    for shift, prime in ((33, P2), (29, P3), (32, 1)):
        h = (h ^ h >> shift) * prime & MASK
    return h


def greeting(session, version=1, magic=b"PCDEVCH1"):
    head = magic + struct.pack(">II", version, 40) + uuid.UUID(session).bytes
    return head + struct.pack(">Q", xxh64(head))


class Device:
    """Makes the records of one device, in order."""

    def __init__(self, session, slot, name, kind=STREAM, compat=""):
        self.session = uuid.UUID(session).bytes
        self.slot, self.name, self.kind, self.compat = slot, name.encode(), kind, compat.encode()
        self.sequence = self.number = self.segments = self.bytes = 0

    def record(self, type_, body=b"", length=None):
        head = b"PCDS" + struct.pack(">BBHIIQ", 1, type_, self.slot, self.sequence, self.number,
                                     len(body) if length is None else length)
        seed = xxh64(head)
        self.number += 1
        return head + struct.pack(">Q", seed) + body + struct.pack(">Q", xxh64(body, seed))

    def head(self):
        self.sequence += 1
        self.number = self.segments = self.bytes = 0
        return self.record(HEAD, self.session + struct.pack("BB", self.kind, 0) +
                           struct.pack("B", len(self.name)) + self.name +
                           struct.pack("B", len(self.compat)) + self.compat)

    def segment(self, body, length=None):
        self.segments += 1
        self.bytes += len(body)
        return self.record(SEGMENT, body, length)

    def round(self):
        return self.record(ROUND)

    def end(self):
        return self.record(END, struct.pack(">QQ", self.segments, self.bytes))


def dial(uri):
    """A connection to unix:PATH or tcp:HOST:PORT."""
    kind, _, rest = uri.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)


def device_stream(seed, size):
    """All that the device of vfiouser-server with this seed and size saves (tests/lib/vfiouser_device.c)."""
    body = struct.pack("<QQQ", 0x5645444f4946, seed, size)
    state, words = seed, []
    for _ in range((size + 7) // 8):
        state = (state + 0x9e3779b97f4a7c15) & MASK
        z = state
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & MASK
        z = (z ^ z >> 27) * 0x94d049bb133111eb & MASK
        words.append(z ^ z >> 31)
    body += struct.pack(f"<{len(words)}Q", *words)[:size]
    h = 0xcbf29ce484222325
    for byte in body:
        h = (h ^ byte) * 0x100000001b3 & MASK
    return body + struct.pack("<Q", h)
