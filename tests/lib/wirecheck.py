# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge a recorded migration by what was on the wire, whoever the destination was.

O4 (ask once), O7, O15 (owed pages are exactly the discarded ones) and the order of the end are read
off the two directions here, independently of any counter of the destination.
"""
import collections
import os

import qwire
from harness import check, check_equal
from relay import D2S, S2D

FEED = 1 << 20


def _events(decoder, direction):
    with open(direction.path, "rb") as recording:
        while data := recording.read(FEED):
            yield from decoder.feed(data)


class BlockTrace:
    """What became of one block; arrays have an entry per 4 KiB page."""

    def __init__(self, name, length, page_size):
        self.name = name
        self.length = length
        self.page_size = page_size
        pages = length // qwire.PAGE
        self.ever = bytearray(pages)    # sent before the package
        self.owed = bytearray(pages)    # discarded: must be sent after the package
        self.after = bytearray(pages)   # times sent after the package
        self.asked = bytearray(pages)   # times requested
        self.content = os.memfd_create("replay-" + name)
        os.ftruncate(self.content, length)

    def mark_discard(self, start, length):
        first, count = start // qwire.PAGE, length // qwire.PAGE
        self.owed[first:first + count] = b"\1" * count

    def owed_pages(self):
        """Pages of the block's own size that had to come after the package."""
        return self.owed.count(1) * qwire.PAGE // self.page_size

    def write(self, offset, data):
        os.pwrite(self.content, data or bytes(qwire.PAGE), offset)


class Trace:
    """Both directions of a whole migration, decoded and replayed."""

    def __init__(self, relay):
        self.blocks = {}
        self.kinds = collections.Counter()
        self.pings = []
        self.positions = {}             # kind -> start of its first record on the main connection
        self.requests = []
        self.answers = []               # (kind, value, position) but for requests
        self.urgent_pages = 0
        self.finished_as = None
        self.package = b""              # the body of PACKAGED; naked device state after a precopy
        self._relay = relay
        self._main = relay.main()
        self._urgent = relay.urgent()
        self._take_main()
        self._take_urgent()
        self._take_return_path()

    def _take_main(self):
        stream = qwire.Stream()
        for event in _events(stream, self._main.directions[S2D]):
            self.kinds[event.kind] += 1
            self.positions.setdefault(event.kind, event.start)
            self._record(event)
        tail = stream.rest()
        if self.finished_as == "precopy":
            length = qwire.tail_length(b"\x04" + tail)
            check(length is not None, "the naked device state has no end")
            self.package = (b"\x04" + tail)[:length]
        else:
            check_equal(tail, b"", "bytes after the end of the stream")

    def _record(self, event):
        if event.kind in ("PAGE", "ZERO"):
            self._page(event)
        elif event.kind == "BLOCK":
            self.blocks[event.a] = BlockTrace(event.a, event.b, event.c)
        elif event.kind == "DISCARD":
            self.blocks[event.a].mark_discard(event.b, event.c)
        elif event.kind == "PING":
            self.pings.append(event.a)
        elif event.kind == "PACKAGED":
            self.package = event.a
            self.pings += qwire.package_pings(event.a)[0]
        elif event.kind in ("EOF", "TAIL"):
            self.finished_as = "precopy" if event.kind == "TAIL" else "postcopy"

    def _page(self, event):
        block = self.blocks[event.a]
        page = event.b // qwire.PAGE
        if self.kinds["PACKAGED"]:
            block.after[page] += 1
        else:
            block.ever[page] = 1
        block.write(event.b, event.c)

    def _take_urgent(self):
        if self._urgent is None:
            return
        for event in _events(qwire.Stream(urgent=True), self._urgent.directions[S2D]):
            if event.kind in ("PAGE", "ZERO"):
                self.urgent_pages += 1
                self._page(event)

    def _take_return_path(self):
        for event in _events(qwire.ReturnPath(), self._main.directions[D2S]):
            if event.kind == "REQUEST":
                self.requests.append(event)
            else:
                self.answers.append((event.kind, event.a, event.start))

    # --- verdicts -----------------------------------------------------------------------------

    def when(self, direction, position):
        return self._main.directions[direction].time_of(position)

    def check_pongs(self):
        """Every PING is answered, with its value, once."""
        got = [value for kind, value, _ in self.answers if kind == "PONG"]
        check_equal(sorted(got), sorted(self.pings), "values of the PONGs")

    def check_shut(self):
        """SHUT(0) once, as the last message, and not before the source's end of stream."""
        shuts = [(value, at) for kind, value, at in self.answers if kind == "SHUT"]
        check_equal([value for value, _ in shuts], [0], "values of SHUT")
        end = self._main.directions[D2S].forwarded
        check_equal(shuts[0][1] + 8, end, "SHUT is not the last message: its end")
        mark = "TAIL" if self.finished_as == "precopy" else "EOF"
        check(self.when(D2S, shuts[0][1]) >= self.when(S2D, self.positions[mark]),
              "SHUT before the end of the stream")

    def check_requests(self):
        """Whole pages that are owed, each asked for at most once, and none before LISTEN."""
        for request in self.requests:
            self._check_request(request)
        for block in self.blocks.values():
            twice = [i for i, n in enumerate(block.asked) if n > 1]
            check(not twice, f"{block.name}: {len(twice)} pages requested more than once, "
                  f"first page {twice[:1]}")
        if self.requests:
            check(self.when(D2S, self.requests[0].start)
                  >= self.when(S2D, self.positions["PACKAGED"]), "a request before LISTEN")

    def _check_request(self, request):
        check(request.a in self.blocks, f"request for an unknown block {request.a!r}")
        block = self.blocks[request.a]
        start, length = request.b, request.c
        check(start % block.page_size == 0 and length and length % block.page_size == 0
              and start + length <= block.length,
              f"{block.name}: request {start:#x}+{length:#x} of {block.page_size}-byte pages")
        for page in range(start // qwire.PAGE, (start + length) // qwire.PAGE):
            check(block.owed[page], f"{block.name}: page {page} was requested and is not owed")
            block.asked[page] += 1

    def check_source(self):
        """The source sent each owed page exactly once after the package (or the test means nothing)."""
        for block in self.blocks.values():
            check(block.after == block.owed,
                  f"{block.name}: the source did not send each owed page exactly once")

    def check_postcopy(self):
        check_equal(self.finished_as, "postcopy", "the stream finished as")
        self.check_pongs()
        self.check_source()
        self.check_requests()
        self.check_shut()

    def check_precopy(self):
        check_equal(self.finished_as, "precopy", "the stream finished as")
        check_equal(len(self.requests), 0, "requests without a postcopy phase")
        self.check_pongs()
        self.check_shut()

    def owed_pages(self):
        """Pages (of each block's own size) that had to come after the package."""
        return sum(block.owed_pages() for block in self.blocks.values())

    def requested_pages(self):
        return sum(event.c // self.blocks[event.a].page_size for event in self.requests)

    def describe(self):
        return (f"{self.finished_as}: {self.owed_pages()} pages owed, {len(self.requests)} requests, "
                f"{self.urgent_pages} urgent page records, {self.kinds['PAGE']} pages and "
                f"{self.kinds['ZERO']} zeros on the main channel")

    def close(self):
        """May be called twice."""
        blocks, self.blocks = self.blocks, {}
        for block in blocks.values():
            os.close(block.content)
