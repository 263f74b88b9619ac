# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration from an unmodified QEMU, from the guest's boot to the verdict."""
import dataclasses

import guestmem
from harness import PATIENCE, check, check_equal, wait_for
from machine import Machine, Storage
from relay import D2S, Relay, S2D, free_tcp_uri
from vm import HUGE, MIB, NEVER_CONVERGE, RAM_BLOCK, Vm, reserve_hugepages
from wirecheck import Trace

PLAIN = ("postcopy-ram",)
PREEMPT = ("postcopy-ram", "postcopy-preempt")
ALL_BUFFERS = 256                       # of the guest that reads a disk: after so many reads each has been used
CONVERGE = {"max_bandwidth": 10_000 * MIB, "downtime_limit": 2000}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """when: later (after some precopy), at-once, or precopy (it converges before any switch)."""
    name: str
    capabilities: tuple = PLAIN
    transport: str = "unix"
    when: str = "later"
    mib: int = 64
    backend: str = "memfd"
    share: bool = True
    precopy_bytes: int = 8 * MIB        # for `later`: switch once that much went over
    machine: Machine = None             # None: the plain one, of so many MiB
    return_delay: float = 0             # seconds that what the destination says is under way
    bandwidth: int = 0                  # bytes a second after the switch; 0: no limit

    def the_machine(self):
        return self.machine or Machine(self.mib)


SCENARIOS = (
    Scenario("plain"),
    Scenario("plain tcp", transport="tcp"),
    Scenario("plain ipv6", transport="tcp6"),
    Scenario("preempt", PREEMPT),
    Scenario("preempt tcp", PREEMPT, "tcp"),
    Scenario("preempt ipv6", PREEMPT, "tcp6"),
    Scenario("postcopy at once", when="at-once"),
    Scenario("postcopy at once, preempt tcp", PREEMPT, "tcp", "at-once"),
    Scenario("completes as precopy", when="precopy"),
    Scenario("completes as precopy, preempt tcp", PREEMPT, "tcp", "precopy"),
    Scenario("private source memory", backend="private"),
    Scenario("2 MiB pages, preempt", PREEMPT, backend="hugetlb"),
    Scenario("2 MiB pages, private, tcp", transport="tcp", backend="hugetlb", share=False),
    Scenario("1 GiB", transport="tcp", mib=1024, precopy_bytes=100 * MIB),
    Scenario("1 GiB, preempt at once", PREEMPT, when="at-once", mib=1024),
)


def address(case, transport, name):
    if transport == "unix":
        return "unix:" + case.path(name + ".sock")
    return free_tcp_uri("::1" if transport == "tcp6" else "127.0.0.1")


class Migration:
    """A source, a relay in front of the destination, and the destination, ready to go."""

    def __init__(self, case, binary, scenario, make_destination, sides=2, through_relay=True):
        self.case = case
        self.scenario = scenario
        if scenario.backend == "hugetlb":
            reserve_hugepages(case, sides * scenario.the_machine().mib * MIB // HUGE)
        machine = scenario.the_machine()
        storage = Storage(case, "storage-source") if machine.disk == "vhost-user" else None
        self.source = Vm(case, binary, machine=machine, backend=scenario.backend,
                         share=scenario.share, storage=storage)
        self.source.wait_guest(rounds=1)
        if machine.disk:
            self.source.wait_reads(ALL_BUFFERS)
        uri = address(case, scenario.transport, "in")
        self.destination = make_destination(uri, self.source)
        self.relay = None
        if through_relay:
            self.relay = Relay(case, address(case, scenario.transport, "front"), uri,
                               delays={D2S: scenario.return_delay})
            uri = self.relay.uri
        self.uri = uri
        self.source.set_capabilities(*scenario.capabilities)
        self.source.set_parameters(max_postcopy_bandwidth=scenario.bandwidth, **NEVER_CONVERGE)

    def start(self):
        """Begin; with `later` also wait for the precopy phase to have moved something."""
        self.source.migrate(self.uri, at_once=self.scenario.when == "at-once")
        if self.scenario.when == "precopy":
            self.source.set_parameters(**CONVERGE)
        if self.scenario.when == "later":
            self.wait_precopy()

    def wait_precopy(self):
        """So much has gone over, and the VM still runs here."""
        def moved():
            info = self.source.info()
            check_equal(info["status"] in ("setup", "active"), True,
                        f"precopy goes on (it is {info['status']})")
            return info.get("ram", {}).get("transferred", 0) >= self.scenario.precopy_bytes
        wait_for("precopy to get going", moved)

    def switch(self):
        if self.scenario.when == "later":
            self.source.start_postcopy()

    def finish(self):
        """Both ends complete."""
        info = self.source.wait_migration("completed", timeout=PATIENCE + self.source.mib / 10)
        self.destination.wait_complete()
        return info

    def run(self):
        self.start()
        self.switch()
        return self.finish()

    def trace(self):
        self.relay.wait_finished()
        trace = Trace(self.relay)
        self.case.defer(trace.close)
        self.case.note(trace.describe())
        return trace

    # --- verdicts -------------------------------------------------------------------------------

    def check_wire(self):
        """What was on the wire was right; returns the trace."""
        trace = self.trace()
        if self.scenario.when == "precopy":
            trace.check_precopy()
        else:
            trace.check_postcopy()
            urgent = "postcopy-preempt" in self.scenario.capabilities
            check_equal(self.relay.urgent() is not None, urgent, "there is a preempt channel")
        check_equal(self.relay.main().directions[S2D].ended_by, "eof",
                    "how the main connection ended")
        self.check_replay(trace)
        return trace

    def check_replay(self, trace):
        """The stream carried the source's memory; else a difference would not be the receiver's."""
        if len(self.source.parts) > 1:
            differ = [at for block, fd, length in self.source.parts
                      for at in guestmem.compare(fd, trace.blocks[block].content, length)]
        else:
            differ = self._differences(trace.blocks[RAM_BLOCK].content)
        check(not differ, f"the recorded stream itself differs in {len(differ)} pages, first "
              + ", ".join(f"{at:#x}" for at in differ[:5]))

    def _differences(self, fd):
        """Where @fd differs from the source's RAM, which stands still since the switch."""
        differ = guestmem.compare(self.source.ram_now(), fd, self.source.length)
        if self.source.ram is None:
            differ = [at for at in differ if not 0xA0000 <= at < 0x100000]  # not RAM to the monitor
        return differ

    def check_memory(self):
        """0 pages differ, and the guest's own rules hold on both sides."""
        source_ram, ram = self.source.ram_now(), self.destination.ram()
        differ = self._differences(ram)
        check(not differ, f"{len(differ)} pages differ from the source's, first "
              + ", ".join(f"{at:#x}" for at in differ[:5]))
        status = guestmem.verify(source_ram)
        check_equal(guestmem.verify(ram), status, "state of the guest at the destination")
        self.check_held_blocks()

    def check_held_blocks(self):
        """Blocks no one maps but the destination (ROMs …), where it shows us their content."""
        blocks = getattr(self.destination, "held_blocks", None)
        if blocks is None or self.relay is None:
            return
        trace = Trace(self.relay)
        for name, fd in blocks().items():
            block = trace.blocks[name]
            differ = guestmem.compare(block.content, fd, block.length)
            check_equal(differ, [], f"{name}: pages that differ from the stream's")
        trace.close()
