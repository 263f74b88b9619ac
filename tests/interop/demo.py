#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/demo shows, with little memory: both demonstrations end well, and say so to a machine.

They judge themselves; here their exit code, and that what they report is what they are there for.
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
from harness import TOP_SRCDIR, check, check_equal, main  # noqa: E402


def run(script, *arguments):
    """The report of one that ended well."""
    done = subprocess.run([sys.executable, os.path.join(TOP_SRCDIR, "scripts", "lib", script), "--json", *arguments],
                          capture_output=True, text=True, check=False)
    check_equal(done.returncode, 0, f"exit status of {script}: {done.stderr[-2000:]}")
    report = json.loads(done.stdout)
    check(report["ok"], f"{script}: {report}")
    return report


def linux(_case):
    """A Linux moves between two QEMUs, with a storage daemon as second sharer that faults, too."""
    run("demo_vm.py", "--size", "512")


def processes(_case):
    """A guest's memory into two processes, every page compared."""
    run("demo_processes.py", "--size", "64")


if __name__ == "__main__":
    main([("the demonstration: a Linux between two QEMUs", linux),
          ("the demonstration with two processes", processes)], limit=120.0)
