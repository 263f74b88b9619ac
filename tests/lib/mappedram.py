# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what `postcopyctl salvage` writes: QEMU's mapped-ram migration file, what is missing, and the index.

Nothing here knows how the daemon writes it: the format is QEMU's (docs/devel/migration/mapped-ram.rst) and the
manual's.
"""
import json
import os
import struct

from harness import Failure, check, check_equal

PAGE = 4096
ZEROES = bytes(PAGE)
MIB = 1 << 20


class Cursor:
    """Big-endian numbers and counted texts."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, size):
        got = self.data[self.at:self.at + size]
        if len(got) != size:
            raise Failure(f"the file ends at {len(self.data)}, {size} bytes behind {self.at} are missing")
        self.at += size
        return got

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def text(self):
        return self.take(self.number(1)).decode()


class Block:
    """One block of the migration file."""

    def __init__(self, data, cursor):
        self.name = cursor.text()
        self.length = cursor.number(8)
        check_equal(cursor.number(4), 1, "version of a block's places")
        check_equal(cursor.number(8), PAGE, "page size")
        self.bitmap_at = cursor.number(8)
        self.pages_at = cursor.number(8)
        check_equal(self.bitmap_at, cursor.at, f"{self.name}: its bitmap is behind its head")
        self.pages = self.length // PAGE
        size = (self.pages + 63) // 64 * 8
        self.bitmap = data[self.bitmap_at:self.bitmap_at + size]
        check_equal(self.pages_at, (self.bitmap_at + size + MIB - 1) // MIB * MIB, f"{self.name}: its pages")
        cursor.at = self.pages_at + self.length
        self.data = data

    def stored(self, page):
        return bool(self.bitmap[page // 8] >> page % 8 & 1)

    def page(self, page):
        """As who loads it sees it."""
        at = self.pages_at + page * PAGE
        return bytes(self.data[at:at + PAGE]) if self.stored(page) else ZEROES


class Salvage:
    """A folder of `postcopyctl salvage`, all of it checked against itself."""

    def __init__(self, folder):
        self.folder = folder
        self.index = json.loads(self._read("index.json"))
        check_equal(self.index["format"], "postcopy-salvage", "format")
        self.data = self._read(self.index["migration_file"])
        self._read_stream()
        self.missing_map = {b["name"]: self._read(b["missing_file"]) for b in self.index["blocks"]}
        check_equal(sorted(os.listdir(folder)),
                    sorted(["index.json", self.index["migration_file"],
                            *[b["missing_file"] for b in self.index["blocks"]]]), "files")
        for entry in self.index["blocks"]:
            self._check_block(entry)

    def _read(self, name):
        with open(os.path.join(self.folder, name), "rb") as src:
            return src.read()

    def _read_stream(self):
        cursor = Cursor(self.data)
        check_equal(cursor.take(8), b"QEVM\0\0\0\3", "magic and version")
        check_equal(cursor.number(1), 7, "configuration")
        self.machine = cursor.take(cursor.number(4)).decode()
        names = []
        while self.data[cursor.at] == 5:
            cursor.at += 1
            names.append(cursor.text())
            check_equal(cursor.number(4), 1, "version of a subsection")
            if names[-1] == "configuration/capabilities":
                check_equal([cursor.text() for _ in range(cursor.number(4))], ["mapped-ram"], "capabilities")
            else:
                cursor.at += 4
        check("configuration/capabilities" in names, f"subsections: {names}")
        check_equal(cursor.number(1), 1, "START")
        self.section = cursor.number(4)
        check_equal((cursor.text(), cursor.number(4), cursor.number(4)), ("ram", 0, 4), "section of ram")
        total = cursor.number(8)
        check_equal(total & 0xFFF, 4, "MEM_SIZE")
        self.blocks = {}
        while sum(b.length for b in self.blocks.values()) < total & ~0xFFF:
            block = Block(self.data, cursor)
            self.blocks[block.name] = block
        footer = struct.pack(">QBI", 0x10, 0x7E, self.section)
        for kind in (None, 2, 3):
            if kind:
                check_equal(cursor.take(5), struct.pack(">BI", kind, self.section), "section of ram")
            check_equal(cursor.take(13), footer, "end of a section of ram")
        check(self.data.endswith(b"\x00\x06\x00\x00\x00\x02{}"), "the end of the file")
        self.device = self.data[cursor.at:-8]
        check_equal(len(self.device), self.index["device_state"], "bytes of the device state")

    def _check_block(self, entry):
        block = self.blocks[entry["name"]]
        check_equal((block.length, block.pages, block.bitmap_at, block.pages_at),
                    (entry["length"], entry["pages"], entry["bitmap_offset"], entry["pages_offset"]),
                    f"{block.name} in the index")
        stored = sum(bin(byte).count("1") for byte in block.bitmap)
        missing = sum(bin(byte).count("1") for byte in self.missing_map[block.name])
        check_equal((stored, missing, entry["zero"]),
                    (entry["stored"], entry["missing"], block.pages - stored - missing), f"pages of {block.name}")
        for page in range(block.pages):
            if self.missing(block.name, page):
                check(not block.stored(page), f"{block.name}: page {page} is stored and missing")
            if block.stored(page):
                check(block.page(page) != ZEROES, f"{block.name}: page {page} of zeroes is stored")

    def missing(self, name, page):
        return bool(self.missing_map[name][page // 8] >> page % 8 & 1)

    def all_missing(self, name):
        return {page for page in range(self.blocks[name].pages) if self.missing(name, page)}
