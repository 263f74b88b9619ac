# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks of our own: namespaces, joined by pairs of virtual interfaces, gone when the case is over.

    net = Net(case)
    here, there = net.add("here"), net.add("there")
    net.join(here, "h0", "10.77.1.2/24", there, "t0", "10.77.1.1/24")
    case.spawn("daemon", [*here.within, …])
    here.ip("link", "set", "h0", "down")
"""
import itertools
import os
import subprocess

from harness import Failure, Skip

_numbers = itertools.count()


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    """One of them.  @within: put in front of a command, that runs there then (as the same process)."""

    def __init__(self, name):
        self.name = name
        self.within = ("nsenter", f"--net=/run/netns/{name}")

    def ip(self, *arguments):
        return run("ip", "-n", self.name, *arguments)

    def sysctl(self, key, value):
        path = "/proc/sys/net/" + key
        run(*self.within, "sh", "-c", f"echo {value} > {path}")

    def forward(self, on):
        self.sysctl("ipv4/ip_forward", int(on))


class Net:
    """Those of one case."""

    def __init__(self, case):
        self.case = case
        if os.geteuid() != 0:
            raise Skip("only root can make network namespaces")

    def add(self, name):
        namespace = Namespace(f"pc{os.getpid()}-{next(_numbers)}-{name}")
        run("ip", "netns", "add", namespace.name)
        self.case.defer(lambda: run("ip", "netns", "del", namespace.name))
        namespace.ip("link", "set", "lo", "up")
        for which in ("all", "default"):
            namespace.sysctl(f"ipv4/conf/{which}/rp_filter", 0)
            namespace.sysctl(f"ipv6/conf/{which}/accept_dad", 0)
            namespace.sysctl(f"ipv6/conf/{which}/keep_addr_on_down", 1)
        return namespace

    def join(self, one, name, address, other, other_name, other_address):
        """A cable between the two, with an address at each end."""
        run("ip", "link", "add", name, "netns", one.name, "type", "veth", "peer", "name", other_name, "netns", other.name)
        for at, link, where in ((one, name, address), (other, other_name, other_address)):
            at.ip("address", "add", where, "dev", link, *(["nodad"] if ":" in where else []))
            at.ip("link", "set", link, "up")
