#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Linux for a guest: Debian's kernel, busybox, and guest/linux_check.c, which proves its memory.

The packages are downloaded and unpacked, never installed, and kept outside of the tree: POSTCOPY_CACHE, or
postcopyd in the user's cache folder.  Run as a program it fetches them and says where they are.
"""
import gzip
import os
import re
import subprocess
import sys
import tempfile

import guestmem
from harness import Failure, Skip, TOP_SRCDIR, built, check, wait_for

KERNEL = "linux-image-cloud-amd64"      # a package that only names the newest
BUSYBOX = "busybox-static"
#: In the order in which they need each other.
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
           "virtio_blk", "virtio_balloon")
PROGRAM = "tests/lib/guest/linux_check"
FOLDER, FILE = 0o040755, 0o100755
QUIET = ("console=ttyS0 quiet loglevel=0 nokaslr mitigations=off random.trust_cpu=on panic=-1 "
         "memhp_default_state=online")


def cache():
    folder = os.environ.get("POSTCOPY_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "postcopyd")
    os.makedirs(folder, exist_ok=True)
    return folder


# --- packages ----------------------------------------------------------------------------------


def apt(*words, cwd=None):
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


def _newest_kernel():
    """The package behind the name, None when apt knows none."""
    shown = apt("apt-cache", "show", "--no-all-versions", KERNEL).stdout
    found = re.search(r"^Depends:.*?(linux-image-[0-9]\S*-cloud-amd64)", shown, re.M)
    return found and found[1]


def _download(package, folder):
    """Unpacked below @folder/@package; what is there is used again."""
    target = os.path.join(folder, package)
    if os.path.isdir(target):
        return target
    with tempfile.TemporaryDirectory(dir=folder) as work:
        done = apt("apt-get", "-q", "download", package, cwd=work)
        debs = [name for name in os.listdir(work) if name.endswith(".deb")]
        if done.returncode or len(debs) != 1:
            raise Skip(f"cannot download {package}: {done.stderr.strip()[-300:]}")
        unpacked = os.path.join(work, "unpacked")
        done = apt("dpkg-deb", "-x", os.path.join(work, debs[0]), unpacked)
        check(done.returncode == 0, f"dpkg-deb: {done.stderr}")
        try:
            os.rename(unpacked, target)
        except OSError:
            check(os.path.isdir(target), f"{target} cannot be made")    # somebody else was faster
    return target


def find(folder, pattern):
    for where, _folders, names in os.walk(folder):
        for name in names:
            if re.fullmatch(pattern, name):
                return os.path.join(where, name)
    raise Failure(f"no {pattern} below {folder}")


def busybox():
    """The folder of its package."""
    return _download(BUSYBOX, cache())


def packages():
    """(folder of the kernel's package, folder of busybox's)"""
    folder = cache()
    kept = sorted(name for name in os.listdir(folder) if re.match(r"linux-image-[0-9]", name))
    kernel = kept[-1] if kept else _newest_kernel()
    if kernel is None and os.geteuid() == 0:
        apt("apt-get", "-q", "update")
        kernel = _newest_kernel()
    if kernel is None:
        raise Skip(f"apt knows no {KERNEL} (apt-get update)")
    return _download(kernel, folder), busybox()


# --- the archive that the kernel unpacks ---------------------------------------------------------


class Archive:
    """cpio as the kernel reads it ("newc")."""

    def __init__(self):
        self._bytes = bytearray()
        self._inode = 0

    def add(self, name, mode, data=b""):
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        self._bytes += b"070701" + b"".join(b"%08X" % field for field in fields)
        self._bytes += name.encode() + b"\0"
        self._pad()
        self._bytes += data
        self._pad()

    def _pad(self):
        self._bytes += bytes(-len(self._bytes) % 4)

    def packed(self):
        self.add("TRAILER!!!", 0)
        return gzip.compress(bytes(self._bytes), 1)


def _content(path):
    with open(path, "rb") as f:
        return f.read()


def initramfs(kernel, tools, program):
    archive = Archive()
    for folder in ("bin", "dev", "proc", "sys", "modules"):
        archive.add(folder, FOLDER)
    archive.add("bin/busybox", FILE, _content(os.path.join(tools, "bin", "busybox")))
    for module in MODULES:
        archive.add(f"modules/{module}.ko", FILE, _content(find(kernel, module + r"\.ko")))
    archive.add("modules/order", FILE, "".join(f"{m}\n" for m in MODULES).encode())
    archive.add("linux_check", FILE, _content(program))
    script = os.path.join(TOP_SRCDIR, "tests", "lib", "guest", "linux_init.sh")
    archive.add("init", FILE, _content(script))
    return archive.packed()


# --- the guest ---------------------------------------------------------------------------------


class LinuxGuest:
    """For machine.Machine(guest=...): the same on both sides, so that it knows there what it learned here.

    @pages of its memory are proven; @disk: the device that it reads, None for none.
    """

    def __init__(self, case, pages=8192, disk=None, spoil=False):
        self.case = case
        self._check = ",".join([str(pages), disk or "-", *(["spoil"] if spoil else [])])
        self._address = None
        self._consoles = []
        program = built(PROGRAM)
        check(program, f"{PROGRAM} is not built")
        kernel, tools = packages()
        self._kernel = find(kernel, r"vmlinuz-.*")
        self._initrd = case.path("initramfs")
        if not os.path.exists(self._initrd):
            with open(self._initrd, "wb") as f:
                f.write(initramfs(kernel, tools, program))

    def arguments(self, case, _mib):
        """Each side has a console of its own."""
        self._consoles.append(case.path(f"console{len(self._consoles)}"))
        return ["-kernel", self._kernel, "-initrd", self._initrd, "-append", f"{QUIET} check={self._check}",
                "-serial", "file:" + self._consoles[-1]]

    def console(self, side=0):
        """What it said there: the source is 0, the destination 1."""
        with open(self._consoles[side], encoding="ascii", errors="replace") as f:
            return f.read()

    def address(self):
        """Where its status is in its RAM, once it has said so."""
        if self._address is None:
            found = re.search(r"status at 0x(\w+)", self.console())
            self._address = int(found[1], 16) if found else None
        return self._address

    def status(self, vm):
        """As of the memory guest; None before its first round."""
        address = self.address()
        return None if address is None else guestmem.status(vm.low_ram(), address)

    def disk_status(self, vm):
        address = self.address()
        return None if address is None else guestmem.disk_status(vm.low_ram(), address + 64)

    def wait_started(self, timeout=90):
        wait_for("Linux to begin to check itself", self.address, timeout, 0.1)


if __name__ == "__main__":
    try:
        print("\n".join(packages()))
    except (Skip, Failure) as failure:
        sys.exit(str(failure))
