#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyd --fd-store under a service manager, which this test plays: it keeps what it is sent, and passes it on.  (F59)

A manager takes descriptors with FDSTORE=1 under FDNAME, forgets those of a name with FDSTOREREMOVE=1, and gives what it
has to the next process as LISTEN_FDS and LISTEN_FDNAMES; what is sent is taken before a death is looked at.
"""
import array
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, signals_end, skip_all, wait_for  # noqa: E402
from service import Service, missing_programs  # noqa: E402

FIRST = 3                               # descriptor of the first that is passed
#: Becomes the daemon: what is to be passed stands at FIRST, and LISTEN_PID is who looks.
LAUNCH = """import os, sys
fds = [int(f) for f in sys.argv[1].split(",") if f]
high = [os.dup2(fd, 500 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(fds))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """What systemd does for a service with FileDescriptorStoreMax=."""

    def __init__(self, case):
        self.case = case
        self.path = case.path("notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.setblocking(False)
        self.store = []                 # (name, descriptor)
        self.ready = 0
        self.child = None
        case.defer(self.close)

    def close(self):
        self.read()
        for _, fd in self.store:
            os.close(fd)
        self.sock.close()

    def read(self):
        """All that was sent."""
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(4))
            except BlockingIOError:
                return
            fds = array.array("i")
            for _, _, content in ancillary:
                fds.frombytes(content)
            self.take(dict(line.split("=", 1) for line in data.decode().splitlines()), list(fds))

    def take(self, said, fds):
        self.ready += said.get("READY") == "1"
        if "FDSTORE" in said:
            check_equal((said.get("FDPOLL"), len(fds)), ("0", 1), "FDPOLL, descriptors")
            self.store.append((said["FDNAME"], fds[0]))
        if "FDSTOREREMOVE" in said:
            for entry in [e for e in self.store if e[0] == said["FDNAME"]]:
                self.store.remove(entry)
                os.close(entry[1])

    def names(self):
        self.read()
        return sorted(name.rpartition(".")[0] for name, _ in self.store)

    def start(self, *options):
        self.read()
        ready = self.ready
        fds = [fd for _, fd in self.store]
        argv = [sys.executable, "-c", LAUNCH, ",".join(map(str, fds)), built("postcopyd"), "--incoming",
                "unix:" + self.case.path("in"), "--run-dir", self.case.path("run"), "--fd-store", "--stay", *options]
        number = sum(child.name.startswith("postcopyd") for child in self.case.children)
        self.child = self.case.spawn(f"postcopyd{number}", argv, pass_fds=fds,
                                     env={"NOTIFY_SOCKET": self.path,
                                          "LISTEN_FDNAMES": ":".join(name for name, _ in self.store)})
        self.case.defer(self.child.kill)
        wait_for("READY=1", lambda: self.read() or self.ready > ready or not self.child.running())
        self.child.check_running()

    def restart(self, sig):
        self.child.kill(sig)
        self.child.wait()
        self.start()


class Kept(Service):
    """The daemon is the manager's child."""

    def __init__(self, case, manager):          # pylint: disable=super-init-not-called
        self.case, self.size, self.sharers, self.wrapper = case, 4 << 20, [], ()
        self.run_dir = case.path("run")
        self.register = os.path.join(self.run_dir, "register")
        self.uri = "unix:" + case.path("in")
        self.manager = manager


def goes_on(case):
    """Killed with pages owed: who serves next has the sharers and the memory; it ends with nothing kept."""
    manager = Manager(case)
    manager.start("--expect=vm")
    service = Kept(case, manager)
    vm = service.sharer("vm", "main")
    service.patient_source("--reconnect=60")
    vm.event("running")
    for sig in (signal.SIGSEGV, signal.SIGKILL):
        manager.restart(sig)
        status = service.status()
        check_equal(status["worker"]["keeper"], "fd-store", "keeper")
        wait_for("its source to come back", lambda: service.status()["state"] == "running")
        check_equal(service.of("vm")["state"], "active", "the main sharer")
        names = manager.names()
        check_equal(len(names), len(set(names)), "names, each once")
    check(vm.has("running") and not vm.has("disconnected"), "the sharer noticed")


def ends(case):
    """On purpose: nothing is left to the next one."""
    manager = Manager(case)
    manager.start()
    check("record" in manager.names() and "incoming" in manager.names(), f"kept: {manager.names()}")
    manager.child.kill(signal.SIGTERM)
    check_equal(manager.child.wait(), 0, "status")
    check_equal(manager.names(), [], "kept")


CASES = (
    ("F59 the service manager starts it again", goes_on),
    ("what ends on purpose leaves nothing", ends),
)

if __name__ == "__main__":
    signals_end()
    if missing_programs():
        skip_all("not built: " + ", ".join(missing_programs()))
    main(CASES)
