# SPDX-License-Identifier: GPL-2.0-or-later
"""A destination QEMU that knows nothing of postcopyd, and postcopyd, which serves its memory.

    migration = Migration(case, binary, scenario, lambda uri, source: ServedQemu(case, uri, source, Setup()))

QEMU is started with the preload and -incoming defer -S, postcopyd with --qemu.  With a vhost-user disk
a storage daemon with the same preload is a second sharer.  run_served() is a whole migration with all
that has to hold asserted.
"""
import dataclasses
import os
import re

import guestmem
from dest import Counters, Postcopyd
from harness import PATIENCE, Failure, built, check, check_equal, for_everybody, wait_for
from machine import ExampleStorage, Storage
from relay import S2D
from scenario import Migration
from vm import SYSTEM_QEMU, Vm, version_of

PRELOAD = ".libs/libpostcopy-preload.so"
MAIN, SHARER = "vm", "storage"
#: Of the machine "pc": what is copied from ROMs, and the firmware below 4 GiB.
ROMS = ((0xC0000, 0x40000), (0xFFFC0000, 0x40000))


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is particular about a destination; the machine is the source's."""
    binary: str = None                  # None: the source's
    backend: str = "file"
    backend_options: str = ""           # ",prealloc=on"
    extra: tuple = ()                   # arguments of QEMU
    capabilities: tuple = ()            # of migration, that somebody had switched on
    wrapper: tuple = ()                 # programs in front of it
    changes: dict = dataclasses.field(default_factory=dict)     # of the first QEMU's machine
    preload: bool = True
    maps: bool = True                   # the storage daemon tells its mappings
    example: bool = False               # in its place, the example of a back-end
    interposed: str = None              # between QEMU and a storage daemon that knows nothing: more of --vhost-user
    ram_dir: str = "/dev/shm"
    qemu: str = ""                      # of --qemu, ",cont=no"
    daemon: tuple = ()                  # options of postcopyd
    trusted: bool = True                # False: QEMU is somebody else, whom the folders must let in


class ServedQemu(Postcopyd):
    """postcopyd and its QEMU.  start_qemu() may be called again when the first one is lost."""

    VERBS = (*Postcopyd.VERBS, "handover")

    def __init__(self, case, uri, source, setup=Setup(), tag=""):
        super().__init__(case, uri, source, tag)
        self.setup = setup
        self.monitor = case.path(f"daemon{tag}.qmp")
        self.attempts = 0
        self.vm = self.storage = None
        self._ram_file = None
        names = [MAIN, SHARER] if self._has_storage() and setup.interposed is None else [MAIN]
        incoming = case.path(f"qemu-in{tag}")
        self.child = self._start_daemon(
            names, [f"--qemu=qmp={self.monitor},incoming=unix:{incoming}{setup.qemu}", *setup.daemon,
                    *self._interposing()])
        if not setup.trusted:
            os.chmod(case.dir, 0o777)
            os.chmod(self.run_dir, 0o711)
        self.start_qemu(**setup.changes)

    @classmethod
    def missing_programs(cls):
        return super().missing_programs() + ([] if built(PRELOAD) else [PRELOAD])

    def register(self):
        return os.path.join(self.run_dir, "register")

    def _has_storage(self):
        return self.source.machine.disk == "vhost-user"

    def _interposing(self):
        """Every storage daemon of this destination listens at the same place."""
        if self.setup.interposed is None:
            return []
        front, back = (self.case.path(f"{end}{self.tag}.vhost") for end in ("front", "back"))
        return [f"--vhost-user=name={SHARER},front={front},back={back}{self.setup.interposed}"]

    def _preloaded(self, name, options):
        return {"LD_PRELOAD": for_everybody(built(PRELOAD)),
                "POSTCOPY_PRELOAD": f"register={self.register()},name={name},{options}"}

    def _start_storage(self, name):
        if self.setup.example:
            return ExampleStorage(self.case, name, self.register(), SHARER)
        if self.setup.interposed is not None:
            storage = Storage(self.case, name, path=self.case.path(f"back{self.tag}.vhost"))
            storage.path = self.case.path(f"front{self.tag}.vhost")     # where QEMU looks for it
            old = version_of(self.setup.binary or self.source.binary) < (9, 2)
            storage.chardev = ",reconnect=1" if old else ",reconnect-ms=1000"
            return storage
        env = self._preloaded(SHARER, "role=sharer,maps=on") if self.setup.maps else None
        return Storage(self.case, name, env=env)

    def start_qemu(self, **changes):
        """With a storage daemon of its own, where the machine has a disk of that kind.  @changes: of the machine."""
        self.attempts += 1
        setup, number = self.setup, f"{self.tag}{self.attempts}"
        machine = dataclasses.replace(self.source.machine, **changes)
        if self._has_storage():
            self.storage = self._start_storage("storage-destination" + number)
        self.vm = Vm(self.case, setup.binary or self.source.binary, name="destination" + number,
                     machine=machine, backend=setup.backend, backend_options=setup.backend_options,
                     incoming=True, wrapper=setup.wrapper, ram_dir=setup.ram_dir,
                     ram_file=self._ram_file, storage=self.storage,
                     extra=["-S", "-qmp", f"unix:{self.monitor},server=on,wait=off", *setup.extra],
                     env=self._preloaded(MAIN, "role=main") if setup.preload else None)
        self._ram_file = self.vm.files or None      # the next one gets what this one has
        if setup.capabilities:
            self.vm.set_capabilities(*setup.capabilities)

    # --- what a Migration asks ------------------------------------------------------------------

    def wait_listening(self, timeout=PATIENCE):
        self.wait_state("listening", "loading", "running", "complete", timeout=timeout)

    def wait_complete(self, timeout=PATIENCE):
        self.wait_state("complete", timeout=timeout)
        self.wait_phase("complete")

    def ram(self):
        return self.vm.ram_now()

    def runs_here(self):
        """The VM runs, or ran, here."""
        if not self.vm.child.running():
            return "cont" in self.timeline()
        return self.vm.vm_status() == "running"

    # --- the hand-over --------------------------------------------------------------------------

    def handover(self):
        return self.control("handover")

    def timeline(self):
        return [moment["phase"] for moment in self.handover()["timeline"]]

    def wait_phase(self, *wanted, timeout=PATIENCE):
        def reached():
            self.child.check_running()
            now = self.handover()
            return now if now["phase"] in wanted else None
        try:
            return wait_for(f"the hand-over to be {' or '.join(wanted)}", reached, timeout, 0.02)
        except Failure as failure:
            raise Failure(f"{failure}; it is {self.handover()}") from None

    def check_failed(self):
        """It gave up, and says why and what to do."""
        now = self.wait_phase("failed")
        check(now["error"], f"it does not say why it failed: {now}")
        check(now["advice"], f"it does not say what to do: {now}")
        return now

    # --- userfaultfd, by what the kernel says ---------------------------------------------------

    def mappings(self):
        """[(program, line of the mapping, is it registered)] of the RAM's files in every sharer."""
        files = {(st.st_dev, st.st_ino) for st in (os.fstat(fd) for _, fd, _ in self.vm.parts)}
        programs = {"QEMU": self.vm.pid}
        if self.storage:
            programs["storage daemon"] = self.storage.child.pid
        return [(name, line, um) for name, pid in programs.items()
                for line, um in mappings_of(pid, files)]

    def registered_ranges(self):
        """Mappings of QEMU that are registered, whatever they are of."""
        return [line for line, um in mappings_of(self.vm.pid, None) if um]

    def check_serving(self):
        """Every mapping of the RAM, in every sharer, is registered."""
        found = self.mappings()
        if self.vm.parts:
            check(any(name == "QEMU" for name, _, _ in found), "QEMU maps no RAM at all")
        else:
            check(self.registered_ranges(), "nothing of QEMU is registered")
        bare = [f"{name}: {line}" for name, line, um in found if not um]
        check(not bare, f"mapped without a userfaultfd: {bare}")
        return found

    def check_released(self):
        """And none is, when all is over."""
        left = [f"{name}: {line}" for name, line, um in self.mappings() if um]
        left += self.registered_ranges() if self.vm.child.running() else []
        check(not left, f"still registered: {left}")

    # --- verdicts -------------------------------------------------------------------------------

    def check_invariants(self, trace, faults=True):
        """What must hold at the end of every migration that goes well.  @faults: the VM ran here."""
        status = self.wait_state("complete")
        check_equal(status["stray_pages"], 0, "pages that nobody may have written")
        self.check_counters(trace, faults)
        self.check_released()
        check_equal(self.wait_phase("complete")["error"], None, "the hand-over's error")

    def faults_of_storage(self):
        stats = Counters(self.control("stats"), self.control("blocks"))
        return stats.faults_of(SHARER)

    def check_guest_goes_on(self):
        """A whole further round, the disk read on, and then, stopped, all of its memory."""
        self.vm.wait_guest(rounds=2)
        check_equal(self.vm.guest().errors, 0, "errors the guest found at the destination")
        if self.vm.machine.disk:
            self.vm.wait_reads(600)
        self.vm.qmp.command("stop")
        if self.vm.machine.is_memory_guest():
            guestmem.verify(self.vm.ram_now())
        self.vm.qmp.command("cont")

    def check_roms(self):
        """What was in the synthetic stream is what the source has.  Both must stand still."""
        for at, length in ROMS:
            here, there = self.vm.physical(at, length), self.source.physical(at, length)
            check(here == there, f"ROMs at {at:#x} differ")


def mappings_of(pid, files):
    """[(line, is it registered for missing pages)] of the mappings of these (device, inode); None: all."""
    found, head = [], None
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
        for line in smaps:
            if match := re.match(r"\w+-\w+ (\S+) \w+ (\w+):(\w+) (\d+)", line):
                file = os.makedev(int(match[2], 16), int(match[3], 16)), int(match[4])
                head = line.strip() if files is None or file in files else None
            elif head and line.startswith("VmFlags:"):
                found.append((head, "um" in line.split()))
    return found


def run_served(case, binary, scenario, setup=Setup(), after_switch=None):
    """One migration to its good end.  Held before the source's last byte, to see that all is registered while
    pages are served.  @after_switch is called with the migration.  Returns (migration, trace).
    """
    migration = Migration(case, binary, scenario,
                          lambda uri, source: ServedQemu(case, uri, source, setup))
    end = migration.relay.hold(S2D, before=lambda event: event.kind == "EOF")
    migration.start()
    migration.switch()
    if after_switch:
        after_switch(migration)
    migration.relay.wait_held(end, timeout=90)
    migration.destination.check_serving()
    migration.destination.wait_phase("running")
    check(migration.destination.vm.guest_runs(), "the guest does not run before the source's end")
    migration.destination.check_serving()       # a back-end may have mapped when the VM went on
    migration.relay.release(end)
    migration.finish()
    trace = migration.check_wire()
    migration.relay.wait_closed()
    return migration, trace


def check_ended_well(migration, trace):
    destination = migration.destination
    destination.check_invariants(trace)
    destination.check_guest_goes_on()
    migration.source.check_stopped()
    check_equal(migration.source.vm_status(), "postmigrate", "the source's VM")
