# SPDX-License-Identifier: GPL-2.0-or-later
"""What the self-checking guest (guest/boot.S, guest/disk.c) must have in its memory, seen from outside.

Everything works on a descriptor of the guest's RAM (offset == guest-physical address, which holds
below 3 GiB on the pc machine) and reads with pread(2), so it neither faults nor instantiates a page.
"""
import array
import collections
import os
import struct
import subprocess

from harness import PATIENCE, TOP_BUILDDIR, TOP_SRCDIR, Failure, check, for_everybody

PAGE = 4096
STATUS = 0x8000
MAGIC = 0x31474350
SALT = 0x5A5AA5A5
TAIL = PAGE - 16
CHUNK = 4 << 20
_U32 = 0xFFFFFFFF

DISK_STATUS = 0x8040
DISK_MAGIC = 0x4F494350
DISK_SALT = 0x50434430
DISK_LENGTH = 4 << 20

Status = collections.namedtuple(
    "Status", "magic round done beat errors bad_page bad_code start live step cursor")
DiskStatus = collections.namedtuple("DiskStatus", "magic reads errors bad_buffer bad_code in_flight")


def image(case, mib, kind=None):
    """The boot disk of a machine with @mib MiB, built on the spot when make did not.

    @kind: "disk" is the guest that reads a virtio disk, made by pattern_disk(); "probe" measures its touches.
    """
    name = f"guest-{mib}{'-' + kind if kind else ''}.img"
    ready = os.path.join(TOP_BUILDDIR, "tests", "lib", "guest", name)
    if os.path.exists(ready):
        return for_everybody(ready)
    path = case.path(name)
    if not os.path.exists(path):
        script = os.path.join(TOP_SRCDIR, "tests", "lib", "guest", "build.sh")
        done = subprocess.run(["/bin/sh", script, str(mib), path, *([kind] if kind else [])],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(done.returncode == 0, f"guest image: {done.stderr}")
    return path


def pattern_disk(case):
    """The disk that the guest reads and knows by heart."""
    path = case.path("pattern.raw")
    if not os.path.exists(path):
        words = array.array("I", (word * 2654435761 & _U32 ^ DISK_SALT
                                  for word in range(DISK_LENGTH // 4)))
        with open(path, "wb") as f:
            words.tofile(f)
    return path


def status(fd, at=STATUS):
    """The guest's status words; None before its first round."""
    words = Status(*struct.unpack("<11I", os.pread(fd, 44, at)))
    return words if words.magic == MAGIC else None


def disk_status(fd, at=DISK_STATUS):
    """What the guest says of its disk; None before its first read, and for a guest without a disk."""
    words = DiskStatus(*struct.unpack("<6I", os.pread(fd, 24, at)))
    return words if words.magic == DISK_MAGIC else None


def _sum(round_, visits, address):
    return ((round_ << 7 | round_ >> 25) & _U32) ^ visits ^ address ^ SALT


def _pattern(address, length):
    return struct.pack("<II", address, address ^ _U32) * (length // 8)


def _live_page(page, address, rounds):
    """None, or what is wrong with a live page that may be of one of these rounds."""
    head, tail = page[:16], page[TAIL:]
    if head != tail:
        return f"head {head.hex()} and tail {tail.hex()} differ"
    round_, where, visits, sum_ = struct.unpack("<4I", head)
    if where != address:
        return f"belongs to {where:#x}"
    if round_ not in rounds:
        return f"is of round {round_}, not {' or '.join(map(str, rounds))}"
    if visits != round_ or sum_ != _sum(round_, visits, address):
        return f"visits {visits}, sum {sum_:#x} do not fit round {round_}"
    if page[16:TAIL] != _pattern(address, TAIL - 16):
        return "has a damaged pattern"
    return None


def _idle_page(page, address):
    wanted = bytes(PAGE) if address & 0x1F000 == 0x1F000 else _pattern(address, PAGE)
    return None if page == wanted else "is not what the guest made"


def _done_in_round(st):
    """Which live pages were finished in the round under way."""
    done, index = bytearray(st.live), 0
    for _ in range(st.done):
        done[index] = 1
        index = (index + st.step) % st.live
    return done


def verify(fd, limit=5):
    """Hold all the guest's memory against its rules, while it is stopped.

    Returns its status; raises Failure with the first @limit pages that are wrong.
    """
    st = status(fd)
    check(st is not None, "the guest has not begun")
    check(st.errors == 0, f"the guest found {st.errors} errors itself, "
          f"first at {st.bad_page:#x}, code {st.bad_code}")
    bad = []
    done = _done_in_round(st)
    end = st.start + 2 * PAGE * st.live
    for base in range(st.start, end, CHUNK):
        chunk = os.pread(fd, min(CHUNK, end - base), base)
        for at in range(0, len(chunk), PAGE):
            wrong = _verify_page(st, done, chunk[at:at + PAGE], base + at)
            if wrong:
                bad.append(f"{base + at:#x} {wrong}")
    if bad:
        raise Failure(f"{len(bad)} pages break the guest's rules: " + "; ".join(bad[:limit]))
    return st


def _verify_page(st, done, page, address):
    if address & PAGE:
        return _idle_page(page, address)
    if address == st.cursor:
        return None                     # stopped in the middle of it
    wanted = st.round if done[(address - st.start) // (2 * PAGE)] else st.round - 1
    return _live_page(page, address, (wanted,))


def compare(fd_a, fd_b, length, page=PAGE):
    """Offsets of the pages in which two memories differ."""
    differ = []
    for base in range(0, length, CHUNK):
        count = min(CHUNK, length - base)
        a, b = os.pread(fd_a, count, base), os.pread(fd_b, count, base)
        if len(a) != count or len(b) != count:
            raise Failure(f"short read at {base:#x}: {len(a)} and {len(b)} of {count} bytes")
        if a != b:
            differ += [base + at for at in range(0, count, page)
                       if a[at:at + page] != b[at:at + page]]
    return differ
