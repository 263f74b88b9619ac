# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees of a demo."""
import time


class Screen:
    """Lines with the time since the start; nothing at all when @quiet."""

    def __init__(self, quiet):
        self.quiet = quiet
        self.began = time.monotonic()

    def elapsed(self):
        return time.monotonic() - self.began

    def say(self, text=""):
        if not self.quiet:
            print(text, flush=True)

    def step(self, text):
        self.say(f"{self.elapsed():6.1f} s  {text}")

    def table(self, rows):
        """The first row is the head; the first column is text, the others stand right."""
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            cells = [str(cell).ljust(w) if i == 0 else str(cell).rjust(w)
                     for i, (cell, w) in enumerate(zip(row, widths))]
            self.say("  " + "  ".join(cells).rstrip())

    def sharers(self, sharers):
        """Whose faults were served, from what `postcopyctl stats` says."""
        self.table([("sharer", "faults served", "p50", "p90", "p99", "max")]
                   + [(s["name"], s["faults"],
                       *(human_time(s["latency"]["total"][key])
                         for key in ("p50_ns", "p90_ns", "p99_ns", "max_ns")))
                      for s in sharers])

    def lanes(self, lanes):
        self.table([("lane", "received", "pages copied", "zero pages")]
                   + [(name, human_bytes(lane["bytes"]), lane["pages"]["copy"],
                       lane["pages"]["zero"] + lane["pages"]["noted"])
                      for name, lane in lanes.items() if name != "store"])


def human_time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 100 * size else f"{ns / size:.0f} {unit}"
    return f"{ns} ns"


def human_bytes(count):
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
