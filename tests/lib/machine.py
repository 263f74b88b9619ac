# SPDX-License-Identifier: GPL-2.0-or-later
"""What both ends of a migration must have alike: the machine, its devices, and the guest in it.

What may differ (where the RAM lies, what is preloaded, which version) is vm.Vm's.
"""
import dataclasses
import functools
import os

import guestmem
from harness import Failure, built, wait_for

STORAGE_DAEMON = "/usr/bin/qemu-storage-daemon"


class MemoryGuest:
    """guest/boot.S from a disk of that interface; its status words are in its RAM."""

    def __init__(self, disk=False, interface="ide"):
        self.disk = disk
        self.interface = interface

    def kind(self):
        """Of its image."""
        return "disk" if self.disk else None

    def arguments(self, case, mib):
        path = guestmem.image(case, mib, self.kind())
        return ["-drive", f"file={path},format=raw,if={self.interface},snapshot=on"]

    @staticmethod
    def status(vm):
        return guestmem.status(vm.low_ram())

    @staticmethod
    def disk_status(vm):
        return guestmem.disk_status(vm.low_ram())

    @staticmethod
    def address():
        """Where the status words are."""
        return guestmem.STATUS


@dataclasses.dataclass(frozen=True)
class Machine:
    """disk: None, "virtio" (served by QEMU) or "vhost-user" (by a storage daemon that shares the RAM).

    guest: None is the memory guest, with a disk the one that reads it.
    """
    mib: int = 64
    type: str = "pc"
    disk: str = None
    devices: tuple = ()
    guest: object = None

    def the_guest(self):
        return self.guest or MemoryGuest(disk=self.disk is not None)

    def is_memory_guest(self):
        """Does guestmem.verify() know its memory?"""
        return isinstance(self.the_guest(), MemoryGuest)

    def arguments(self, case, storage=None):
        """Without the RAM, which is each side's own; @storage: this side's storage daemon."""
        return ["-m", str(self.mib), *self.the_guest().arguments(case, self.mib),
                *self._disk(case, storage), *self.devices]

    def _disk(self, case, storage):
        if self.disk == "virtio":
            path = guestmem.pattern_disk(case)
            return ["-blockdev", f"driver=file,node-name=d,filename={path},read-only=on",
                    "-device", "virtio-blk-pci,drive=d,disable-legacy=on"]
        if self.disk == "vhost-user":
            return ["-chardev", f"socket,id=storage,path={storage.path}{storage.chardev}",
                    "-device", "vhost-user-blk-pci,chardev=storage,disable-legacy=on"]
        return []


class Storage:
    """A qemu-storage-daemon that serves the pattern disk to one QEMU by vhost-user-blk."""

    path = None
    chardev = ""                        # more of QEMU's connection to it

    def __init__(self, case, name, env=None, path=None):
        self.path = path
        if not os.access(STORAGE_DAEMON, os.X_OK):
            raise Failure(f"no {STORAGE_DAEMON} here (package qemu-system-common)")
        self._begin(case, name, lambda disk: [
            STORAGE_DAEMON, "--blockdev", f"driver=file,node-name=f,read-only=on,filename={disk}",
            "--export", f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={self.path}"], env)

    def _begin(self, case, name, words, env=None):
        self.path = self._socket = self.path or case.path(name + ".vhost")
        self._spawn = functools.partial(case.spawn, argv=words(guestmem.pattern_disk(case)), env=env)
        self._start(name)

    def _start(self, name):
        self.child = self._spawn(name)
        wait_for(f"{name} to listen", self._listens)

    def start_again(self):
        """It is killed, and another process takes its place."""
        self.child.kill()
        self.child.wait()
        os.unlink(self._socket)
        self._start(self.child.name + "-again")

    def _listens(self):
        self.child.check_running()
        return os.path.exists(self._socket)


class ExampleStorage(Storage):
    """The same by examples/vhost-user-blk, which tells postcopyd itself what it maps."""

    def __init__(self, case, name, register, sharer):    # pylint: disable=super-init-not-called
        self._begin(case, name, lambda disk: [built("examples/vhost-user-blk"), "-r", "-p", register, "-n", sharer,
                                              self.path, disk])
