# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting programs under libpostcopy-preload.so, and looking at what they have mapped."""
import os
import re

from harness import built, for_everybody

_BUILT = built(".libs/libpostcopy-preload.so")
LIBRARY = _BUILT and for_everybody(_BUILT)
NOBODY = 65534
#: What an operator puts before a program that should have no privilege.
SETPRIV = ("/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")


def asks(service, name, **keys):
    """The variable."""
    words = {"register": service.register, "name": name, **keys}
    return "POSTCOPY_PRELOAD=" + ",".join(f"{key}={value}" for key, value in words.items())


def preloaded(asked, *argv, library=LIBRARY):
    """A command line that starts @argv under it."""
    return ["/usr/bin/env", f"LD_PRELOAD={library}", asked, *argv]


def vmas(pid, path):
    """[(start, length, offset, VmFlags)] of a file in a process."""
    inode, found, mine = os.stat(path).st_ino, [], False
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+)", line)
            if head:
                start, end, offset = (int(head[i], 16) for i in (1, 2, 3))
                mine = int(head[4]) == inode
            elif line.startswith("VmFlags:") and mine:
                found.append((start, end - start, offset, line.split()[1:]))
    return found


def served(pid, path):
    """It maps the file, and all of that is registered."""
    found = vmas(pid, path)
    return bool(found) and all("um" in flags for *_, flags in found)
