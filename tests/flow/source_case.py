# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs postcopy-source against the reference receiver, one case a line of TAP."""
import json
import os
import subprocess
import sys
import traceback

from source_receiver import Receiver

PROGRAM = os.path.join(os.environ.get("POSTCOPY_TOP_BUILDDIR", "."), "postcopy-source")
SEED = 20260                        # of the content; requests are seeded by each case


class Failed(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failed(text)


def equal(got, wanted, what):
    expect(got == wanted, "%s: %r, expected %r" % (what, got, wanted))


class Run:
    """One migration: .r is the receiver, .out the JSON summary, .status the exit status."""

    def __init__(self, family, *args, timeout=30.0, as_lines=False, receiver=Receiver, **policy):
        self.r = receiver(family)
        for name, value in policy.items():
            expect(hasattr(self.r, name), "no policy " + name)
            setattr(self.r, name, value)
        command = [PROGRAM, "--to", self.r.address, "--seed", str(SEED)] + list(args)
        command += [] if as_lines else ["--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True) as child:
            try:
                self.r.run(timeout)
                self.text, self.errors = child.communicate(timeout=timeout)
            finally:
                child.kill()
                self.r.close()
        self.status = child.returncode
        self.out = self.parse(as_lines)

    def parse(self, as_lines):
        if as_lines:
            return dict(line.split(": ", 1) for line in self.text.splitlines())
        return json.loads(self.text) if self.text else {}

    def completed(self):
        equal(self.r.error, None, "receiver")
        equal(self.out.get("violation"), None, "violation")
        equal(self.out.get("outcome"), "completed", "outcome")
        equal(self.status, 0, "exit status")
        equal(self.r.duplicates, 0, "pages sent twice")
        return self

    def same(self, **zero):
        """Every page is there and holds what it should; @zero: per cent by block."""
        expect(self.r.everything_here(), "pages are missing")
        equal(self.r.differences(SEED, zero), [], "pages that differ")
        return self

    def fired(self, *kinds):
        equal(self.out.get("faults_fired"), list(kinds), "faults fired")
        return self

    def ended(self, outcome, status=1):
        equal(self.out.get("outcome"), outcome, "outcome")
        equal(self.status, status, "exit status")
        return self


def usage(*args):
    """What postcopy-source says to arguments it refuses."""
    done = subprocess.run([PROGRAM] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=30)
    equal(done.returncode, 2, "exit status")
    equal(done.stdout, "", "standard output")
    return done.stderr


def output(*args):
    done = subprocess.run([PROGRAM] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=30)
    equal(done.returncode, 0, "exit status")
    return done.stdout


def main(cases):
    """@cases: (name, function without arguments).  Exit status 1 when one of them fails."""
    bad = 0
    print("1..%d" % len(cases))
    for number, (name, case) in enumerate(cases, 1):
        try:
            case()
            print("ok %d - %s" % (number, name), flush=True)
        except Exception as e:      # a case that breaks is a case that failed
            bad += 1
            print("not ok %d - %s" % (number, name))
            text = str(e) if isinstance(e, Failed) else traceback.format_exc()
            print("\n".join("# " + line for line in text.splitlines()), flush=True)
    sys.exit(1 if bad else 0)
