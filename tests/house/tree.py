# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of the tree share: its files, C without comments, the functions in it, and TAP."""
import json
import os
import re
import subprocess
import sys

TOP = os.environ.get("POSTCOPY_TOP_SRCDIR") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("POSTCOPY_TOP_BUILDDIR") or os.getcwd()
FOLDERS = ("src", "include", "examples", "tests", "scripts", "man", ".ci")

_COMMENT_OR_TEXT = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def git(*arguments):
    """Lines git prints, None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-c", "safe.directory=*", "-C", TOP, *arguments],
                              capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()


def files(pattern):
    """Files of the tree that match: those git knows, or all that lie there (a tarball)."""
    known = git("ls-files") if os.path.exists(os.path.join(TOP, ".git")) else None
    if known is None:
        known = [os.path.relpath(os.path.join(where, name), TOP)
                 for folder in FOLDERS
                 for where, _, names in os.walk(os.path.join(TOP, folder)) for name in names]
    return sorted(f for f in known if re.search(pattern, f)
                  and os.path.exists(os.path.join(TOP, f)))


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def without_comments(text, keep_text=True):
    """The same lines with comments blanked out; what stands between quotes too, unless it is kept."""
    def blank(match):
        found = match.group(0)
        if found[0] == "/":
            return re.sub(r"[^\n]", " ", found)
        return found if keep_text else found[0] + "x" * (len(found) - 2) + found[-1]
    return _COMMENT_OR_TEXT.sub(blank, text)


def functions(paths):
    """{path: [ctags entry]} with name, line, end, signature; None without universal-ctags."""
    tool = os.environ.get("CTAGS", "ctags")
    try:
        out = subprocess.run(
            [tool, "--output-format=json", "--languages=C", "--langmap=C:.c.h", "--kinds-C=f",
             "--fields=+neS", "-f", "-", *paths],
            capture_output=True, text=True, check=True, cwd=TOP).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = {path: [] for path in paths}
    for line in out.splitlines():
        entry = json.loads(line)
        if entry.get("kind") == "function" and "end" in entry:
            found[entry["path"]].append(entry)
    return found


class Tap:
    """One line for each rule; what breaks it as comments."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def check(self, name, wrong):
        """@wrong: what breaks the rule, nothing when it is kept."""
        self.count += 1
        self.failed += bool(wrong)
        print(f"{'not ok' if wrong else 'ok'} {self.count} - {name}")
        for text in wrong:
            print(f"# {text}")

    def skip(self, name, reason):
        self.count += 1
        print(f"ok {self.count} - {name} # SKIP {reason}")

    def done(self):
        print(f"1..{self.count}")
        sys.exit(1 if self.failed else 0)
