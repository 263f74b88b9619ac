#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of the other tests find what they are there to find, and live where those tests put them.

A guest that says "0 errors" proves something only if it says otherwise when a byte of its memory is wrong.
"""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
# pylint: disable=wrong-import-position
import guestmem
from harness import Failure, check, check_equal, main, skip_all, wait_for
from linuxguest import LinuxGuest
from machine import Machine, Storage
from vm import MIB, SYSTEM_QEMU, Vm, reserve_hugepages

DATA, MARKER = 6, 7                     # enum trouble of guest/disk.c
BUFFERS = 1 << 20
AHEAD = 128                             # reads before this buffer's turn, which is every 256


def writable(vm, case):
    """The same memory again, to be spoilt."""
    fd = os.open(f"/proc/{os.getpid()}/fd/{vm.low_ram()}", os.O_RDWR)
    case.defer(lambda: os.close(fd))
    return fd


def lives(case, **options):
    """A few rounds and a few reads without an error, and the memory is what it must be."""
    if options.get("backend") == "hugetlb":
        reserve_hugepages(case, 32)
    storage = Storage(case, "storage") if options["machine"].disk == "vhost-user" else None
    vm = Vm(case, storage=storage, **options)
    vm.wait_guest(rounds=2)
    if vm.machine.disk:
        vm.wait_reads(600)
    vm.qmp.command("stop")
    guestmem.verify(vm.ram_now())


def finds_a_lost_page(case, offset):
    """One word of a page that is live, or that never changes, is other than the guest left it."""
    vm = Vm(case)
    vm.wait_guest(rounds=1)
    os.pwrite(writable(vm, case), b"\x5a\x5a\x5a\x5a", offset)
    wait_for("the guest to find it", lambda: vm.guest().errors)
    check_equal(vm.guest().bad_page, offset & ~0x1FFF, "the page that it names")
    vm.qmp.command("stop")
    try:
        guestmem.verify(vm.ram_now())
    except Failure:
        return
    raise Failure("seen from outside, the memory is right")


def finds_a_bad_read(case, disk):
    """The disk says something else in one place."""
    path = guestmem.pattern_disk(case)
    with open(path, "r+b") as f:
        f.seek(MIB + 12)
        f.write(b"\x5a\x5a\x5a\x5a")
    storage = Storage(case, "storage") if disk == "vhost-user" else None
    vm = Vm(case, machine=Machine(disk=disk), storage=storage)
    vm.wait_guest(rounds=1)
    wait_for("the guest to find it", lambda: vm.disk() and vm.disk().errors)
    check_equal(vm.disk().bad_code, DATA, "what it says of it")


def finds_a_lost_marker(case):
    """The half of a buffer's page that no device may write has become zeroes."""
    vm = Vm(case, machine=Machine(disk="virtio"))
    vm.wait_guest(rounds=1)
    vm.wait_reads(300)
    fd = writable(vm, case)
    ahead = (vm.disk().reads + AHEAD) % 256
    os.pwrite(fd, bytes(2048), BUFFERS + ahead * guestmem.PAGE + 2048)
    wait_for("the guest to find it", lambda: vm.disk().errors)
    check_equal(vm.disk().bad_code, MARKER, "what it says of it")


def linux_lives(case):
    """It boots, checks its memory and its disk, and counts on its console."""
    guest = LinuxGuest(case, disk="/dev/vda")
    vm = Vm(case, machine=Machine(128, disk="virtio", guest=guest))
    guest.wait_started()
    vm.wait_guest(rounds=2)
    vm.wait_reads(100)
    check_equal(vm.guest().errors, 0, "errors the guest found")
    wait_for("two counts on its console", lambda: guest.console().count("count ") >= 2)


def linux_finds_a_lost_page(case):
    guest = LinuxGuest(case, spoil=True)
    vm = Vm(case, machine=Machine(128, guest=guest))
    guest.wait_started()
    wait_for("the guest to find it", lambda: vm.guest().errors)
    wait_for("it to say so", lambda: "is wrong" in guest.console())


def cases():
    partial = functools.partial
    yield "memory guest", partial(lives, machine=Machine())
    yield "memory in two nodes", partial(lives, machine=Machine(), backend="numa")
    yield "2 MiB pages", partial(lives, machine=Machine(), backend="hugetlb")
    yield "disk of QEMU", partial(lives, machine=Machine(disk="virtio"))
    yield "disk of a storage daemon", partial(lives, machine=Machine(disk="vhost-user"),
                                              backend="file")
    yield "it finds a lost page that is live", partial(finds_a_lost_page, offset=(20 << 20) + 12)
    yield "it finds a lost page that never changes", partial(
        finds_a_lost_page, offset=(20 << 20) + 0x1000 + 2048)
    yield "it finds a read that went wrong", partial(finds_a_bad_read, disk="virtio")
    yield "it finds a bad read of a storage daemon", partial(finds_a_bad_read, disk="vhost-user")
    yield "it finds a marker that a device destroyed", finds_a_lost_marker
    yield "Linux", linux_lives
    yield "Linux finds a lost page", linux_finds_a_lost_page


if __name__ == "__main__":
    if not os.access(SYSTEM_QEMU, os.X_OK):
        skip_all("no qemu-system-x86_64 here (package qemu-system-x86)")
    main(list(cases()), limit=180)
