#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Poorer kernels and stricter sandboxes: postcopyd works with what is left, or says at once what is missing.  (F06)

tests/lib/poorer makes chosen system calls answer with an errno.
"""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import built, check, check_equal, main, skip_all  # noqa: E402
from service import PAGE, Service, missing_programs  # noqa: E402

POORER = "tests/lib/poorer"
#: What is missing, for postcopyd, its sharers and nobody else; all of it works.
LEFT = {
    "userfaultfd(2) is forbidden": ["userfaultfd=EPERM"],
    "userfaultfd(2) is not known": ["userfaultfd=ENOSYS"],
    "no PROCMAP_QUERY": ["ioctl:PROCMAP_QUERY=ENOTTY"],
    "no PAGEMAP_SCAN": ["ioctl:PAGEMAP_SCAN=ENOTTY"],
    "no UFFDIO_POISON": ["ioctl:UFFDIO_POISON=EINVAL"],
    "no io_uring_register(2)": ["io_uring_register=EINVAL"],
    "no process_madvise(2), no process_vm_readv(2)": ["process_madvise=ENOSYS", "process_vm_readv=ENOSYS"],
    "no close_range(2), no openat2(2), no statx(2), no kcmp(2)": [
        "close_range=ENOSYS", "openat2=ENOSYS", "statx=ENOSYS", "kcmp=ENOSYS"],
    "all of that": ["userfaultfd=ENOSYS", "ioctl:PROCMAP_QUERY=ENOTTY", "ioctl:PAGEMAP_SCAN=ENOTTY",
                    "ioctl:UFFDIO_POISON=EINVAL", "io_uring_register=EINVAL", "process_madvise=ENOSYS",
                    "process_vm_readv=ENOSYS", "close_range=ENOSYS", "openat2=ENOSYS", "kcmp=ENOSYS"],
}
#: What is missing, what it says of that, and which way out it names.
REFUSED = {
    "no userfaultfd at all": (["userfaultfd=EPERM", "ioctl:USERFAULTFD_IOC_NEW=EPERM"],
                              "no userfaultfd here: Operation not permitted", "vm.unprivileged_userfaultfd"),
    "a userfaultfd without UFFDIO_API": (["ioctl:UFFDIO_API=EINVAL"], "no handshake of userfaultfd here", "CONFIG_USERFAULTFD"),
    "no io_uring": (["io_uring_setup=ENOSYS"], "no io_uring here: Function not implemented", "CONFIG_IO_URING"),
    "io_uring is forbidden": (["io_uring_setup=EPERM"], "no io_uring here: Operation not permitted",
                              "kernel.io_uring_disabled"),
    "no memory for io_uring": (["io_uring_setup=ENOMEM"], "no io_uring here: Cannot allocate memory", "io_uring"),
    "no pidfd_open(2)": (["pidfd_open=ENOSYS"], "no pidfd_open(2) here: Function not implemented", "Linux 5.3"),
    "pidfd_open(2) is forbidden": (["pidfd_open=EPERM"], "no pidfd_open(2) here: Operation not permitted", "sandbox"),
    "poison is asked for, and there is none": (["ioctl:UFFDIO_POISON=EINVAL"], "this kernel cannot poison pages",
                                               "Linux 6.6", "--on-loss=poison"),
}


def under(rules):
    return [built(POORER), *rules, "--"]


def works(case, rules, lane):
    """A whole session: faults of two processes, the rest, and every byte looked at."""
    service = Service(case, expect=("vm", "other"), wrapper=under(rules))
    vm = service.sharer("vm", "main", threads=2)
    other = service.sharer("other", threads=2)
    source = service.source("--rate", "16M", *lane)
    for sharer in (vm, other):
        touched = sharer.event("touched")
        check_equal(touched["pages"], service.size // PAGE, "pages that %s touched" % sharer.name)
        check(touched["faulted"] > 0, "nothing was missing for %s" % sharer.name)
    service.wait_state("complete")
    service.check_same(source)


def refused(case, rules, what, way_out, *options):
    """It says so, on its last line, before anybody could rely on it; nothing is left behind."""
    run_dir = case.path("run")
    incoming = case.path("incoming")
    child = case.spawn("postcopyd", [*under(rules), built("postcopyd"), "--incoming", "unix:" + incoming,
                                     "--run-dir", run_dir, "--expect=vm", *options])
    check_equal(child.wait(), 1, "exit status")
    said = child.errors().strip().splitlines()[-1]
    check(what in said and way_out in said, "it says: " + said)
    check(not os.path.exists(incoming), "its socket was left")


def cases():
    for number, (name, rules) in enumerate(LEFT.items()):
        lane = ("--preempt",) if number % 2 else ()
        yield "F06 works: " + name, functools.partial(works, rules=rules, lane=lane)
    for name, refusal in REFUSED.items():
        yield "F06 refused: " + name, lambda case, refusal=refusal: refused(case, *refusal)


if __name__ == "__main__":
    missing = missing_programs() + ([] if built(POORER) else [POORER])
    if missing:
        skip_all("not built: " + ", ".join(missing))
    main(list(cases()))
