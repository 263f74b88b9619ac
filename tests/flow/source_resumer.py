# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference receiver, which survives lost connections as a destination in postcopy does (qemu-wire 13.2, 13.3)."""
import struct
import time

from source_receiver import PAGE, Bad, Channel, Receiver

END_MARK = 0x0123456789abcdef


class Cut(Exception):
    """We close every connection, and wait for the source to come back."""


class Resumer(Receiver):
    def __init__(self, family="unix"):
        super().__init__(family)
        self.losses, self.resumed = 0, 0
        self.dials = 0              # main connections
        self.asked_bitmaps = []     # on this connection
        self.resuming = False
        self.kept = 0               # host pages that came before the switch-over and stayed
        self.lacking = []           # (block, target page) at each RESUME
        # policy
        self.cut_after = []         # numbers of target pages received, ascending
        self.cut_at = []            # events, in order
        self.refuse = 0             # so many recoveries are closed at once
        self.twist = []             # functions of (name, answer), one for each recovery
        self.acks = []              # values, one for each recovery; then 1
        self.before_ack = b""       # once
        self.patience = 1 << 60     # so many losses are survived
        self.old_urgent = False     # the urgent connection comes before the bitmaps

    def open_package(self, body):
        super().open_package(body)
        self.kept = sum(len(b.data) // b.fan() for b in self.blocks.values())

    # --- losing it

    def page(self, lane, name, offset, data):
        super().page(lane, name, offset, data)
        if self.listening and self.cut_after and self.received >= self.cut_after[0]:
            self.cut_after.pop(0)
            raise Cut

    def note(self, name):
        super().note(name)
        if self.cut_at and name == self.cut_at[0]:
            self.cut_at.pop(0)
            raise Cut

    def pause(self):
        """Nothing is kept of a page that did not come whole."""
        self.losses += 1
        for lane in ("main", "urgent"):
            if not hasattr(self, lane):
                continue
            sock = getattr(self, lane).sock
            if lane not in self.endings:
                self.sel.unregister(sock)
            sock.close()
            delattr(self, lane)
        self.endings = {}
        for name, host, nth in self.partial.values():
            block = self.blocks[name]
            for page in range(host * block.fan(), host * block.fan() + nth):
                del block.data[page]
                self.seen.discard((name, page))
                self.received -= 1
        self.partial = {}
        self.at_end = False
        self.last_requested = None

    def step(self, deadline):
        try:
            super().step(deadline)
            lost = hasattr(self, "main") and "main" in self.endings
            if lost and self.listening and "shut" not in self.names():
                raise Cut
        except Cut:
            self.pause()
        if not hasattr(self, "main") and self.give_up_after and time.monotonic() - self.heard > self.give_up_after:
            raise ConnectionAbortedError("nobody came back")

    def over(self):
        return self.losses > self.patience or super().over()

    def ask(self):
        if not self.resuming:
            super().ask()

    # --- the handshake

    def accept(self):
        """A source that has gone may be back before we have seen it go: it waits."""
        before = hasattr(self, "main")
        if before and (hasattr(self, "urgent") or not self.accept_urgent):
            return
        super().accept()
        if not before and hasattr(self, "main"):
            self.dials += 1
            if self.listening and self.refuse:
                self.refuse -= 1
                raise Cut

    def main_stream(self):
        if not self.listening:
            yield from super().main_stream()
            return
        self.asked_bitmaps, self.resuming = [], True
        self.note("recovery")
        self.answer = self.twist.pop(0) if self.twist else lambda name, answer: answer
        yield 0                     # until self.main is there
        yield from self.records()

    def commands(self):
        return super().commands() if not self.resuming else {9: self.on_resume, 10: self.on_recv_bitmap}

    def on_recv_bitmap(self, payload, before):
        name = payload[1:].decode()
        if payload[0] != len(name) or name != self.order[len(self.asked_bitmaps)]:
            raise Bad("RECV_BITMAP of %s where %s is due" % (name, self.order[len(self.asked_bitmaps)]))
        if hasattr(self, "urgent") != self.old_urgent:
            raise Bad("the urgent connection is early or late")
        self.asked_bitmaps.append(name)
        self.note("recv-bitmap")
        self.say(self.answer(name, self.bitmap(name)))
        return
        yield

    def bitmap(self, name):
        """The answer for what has come of a block."""
        block = self.blocks[name]
        bits = bytearray((block.length // PAGE + 63) // 64 * 8)
        for page in block.data:
            bits[page // 8] |= 1 << page % 8
        return answer(name, bits)

    def on_resume(self, payload, before):
        if payload or self.asked_bitmaps != self.order:
            raise Bad("RESUME behind bitmaps of %r" % self.asked_bitmaps)
        self.lacking.append(sum(b.length // PAGE - len(b.data) for b in self.blocks.values()))
        early, self.before_ack = self.before_ack, b""
        self.say(early + struct.pack(">HHI", 6, 4, self.acks.pop(0) if self.acks else 1))
        self.resuming = False
        self.resumed += 1
        for name, page in sorted(self.outstanding):
            size = self.blocks[name].page_size
            self.say(self.request(name, page * size, size))
        self.note("resume")
        return
        yield


def answer(name, bits, size=None, mark=END_MARK):
    head = struct.pack(">HHB", 5, 1 + len(name), len(name)) + name.encode()
    return head + struct.pack(">Q", len(bits) if size is None else size) + bytes(bits) + struct.pack(">Q", mark)


__all__ = ["Resumer", "answer", "Channel"]
