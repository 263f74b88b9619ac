#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The house's numbers: file, function, nesting, parameters, includes, and the form of a commit.

Exceptions, each with its reason, stand in tests/house/exceptions; one that is no longer needed is an
error, so that the list only gets shorter.  Prints the numbers of the tree as comments.
"""
import os
import re
import statistics

import tree

LIMITS = {"lines": 600, "columns": 100, "function": 60, "nesting": 3, "parameters": 6, "includes": 20}
MEDIAN = 12                     # lines of a function in src/
SUBJECT = re.compile(r"^[a-z][a-z0-9_/., -]*: [a-z0-9]")
SUBJECT_LENGTH = 72
LICENCES = (
    (r"^(src/(core|wire|client)|include|examples)/|^src/sys/(fdpass|uffd_open)\.|^src/sys/fd\.h$",
     "LGPL-2.1-or-later"),
    (r"", "GPL-2.0-or-later"),
)


def exceptions():
    """{(path, rule): limit}, and the commits that are let pass"""
    found, commits = {}, set()
    for line in tree.read("tests/house/exceptions").splitlines():
        if line.startswith("commit "):
            commits.add(line.split()[1])
        elif line and not line.startswith("#"):
            path, rule, limit, _why = line.split(None, 3)
            found[path, rule] = int(limit)
    return found, commits


class Measures:
    """The largest value of each rule in each file, and where it is."""

    def __init__(self):
        self.worst = {}

    def add(self, path, rule, value, where=""):
        if value > self.worst.get((path, rule), (0, ""))[0]:
            self.worst[path, rule] = (value, where)

    def broken(self, rule, excused):
        wrong = []
        for (path, name), (value, where) in sorted(self.worst.items()):
            limit = excused.get((path, rule), LIMITS[rule])
            if name == rule and value > limit:
                wrong.append(f"{path}{where}: {value}, limit {limit}")
        return wrong

    def stale(self, excused):
        """Exceptions that nothing needs any more."""
        return [f"{path} {rule} {limit}: it is {self.worst.get((path, rule), (0,))[0]}"
                for (path, rule), limit in sorted(excused.items())
                if self.worst.get((path, rule), (0,))[0] <= LIMITS[rule]]


def parameters(signature):
    """How many; a comma in the parameters of a pointer to a function does not count."""
    depth, count = 0, 1
    for char in signature[1:-1]:
        depth += (char == "(") - (char == ")")
        count += char == "," and depth == 0
    return count


def nesting(lines):
    """How deep statements stand in each other: by their tabs, which continued lines may not count."""
    deepest, parens, head, previous = 0, 0, "", "{"
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if parens == 0 and _ends_statement(head, previous):
            deepest = max(deepest, len(line) - len(line.lstrip("\t")) - 1)
            head = text
        parens += text.count("(") - text.count(")")
        previous = text
    return deepest


def _ends_statement(head, previous):
    """Whether a new statement follows the line @previous of the statement that began with @head."""
    return (previous[-1] in ";{}" or previous.endswith(("else", "do"))
            or previous[-1] == ":" and re.match(r"case\b|default\b|\w+:$", head)
            or previous[-1] == ")" and re.match(r"(\} )?(else )?(if|for|while|switch)\b", head))


def columns(text):
    """The widest line, and which; one with a string does not count, which is found best in one piece."""
    widths = ((len(line.expandtabs(8)), -number) for number, line in enumerate(text.split("\n"), 1)
              if '"' not in line)
    width, number = max(widths, default=(0, 0))
    return width, f":{-number}"


def measure(paths, functions):
    found = Measures()
    for path in paths:
        text = tree.read(path)
        lines = tree.without_comments(text, keep_text=False).split("\n")
        found.add(path, "lines", text.count("\n"))
        found.add(path, "columns", *columns(text))
        found.add(path, "includes", len(re.findall(r"^\s*#\s*include", text, re.M)))
        for f in functions[path]:
            where = f":{f['line']} {f['name']}"
            found.add(path, "function", f["end"] - f["line"] + 1, where)
            found.add(path, "parameters", parameters(f.get("signature", "()")), where)
            body = lines[f["line"]:f["end"] - 1]
            body = body[body.index("{") + 1:] if "{" in body else body
            found.add(path, "nesting", nesting(body), where)
    return found


def licences_broken(paths):
    wrong = []
    for path in paths:
        wanted = next(name for pattern, name in LICENCES if re.search(pattern, path))
        if f"SPDX-License-Identifier: {wanted}" not in "\n".join(tree.read(path).splitlines()[:3]):
            wrong.append(f"{path}: not {wanted} in its first lines")
    return wrong


def own_header_second(path):
    """None, or what is wrong with how a .c begins: config.h, then its own header where it has one, or
    the one that the files of one noun share (NOUN_parts.h)."""
    names = re.findall(r'^#\s*include\s+["<]([^">]+)[">]', tree.read(path), re.M)
    if names[:1] != ["config.h"]:
        return f"{path}: does not begin with config.h"
    header = re.sub(r"\.c$", ".h", path)
    parts = re.split(r"[_.]", os.path.basename(path))[0] + "_parts.h"
    if os.path.exists(os.path.join(tree.TOP, header)) and \
            os.path.basename(names[1]) not in (os.path.basename(header), parts):
        return f"{path}: its own header does not come second"
    return None


def whitespace_broken(paths):
    return [f"{path}:{number}" for path in paths
            for number, line in enumerate(tree.read(path).split("\n"), 1)
            if re.search(r"[ \t]$", line)
            or re.match(r" {8}.*[^\\]$", line) and path.endswith((".c", ".h"))]


def subjects_broken(excused):
    """Of the history that is here; a shallow clone has little, a tarball none."""
    lines = tree.git("log", "--no-merges", "--format=%H %s") or []
    wrong = []
    for line in lines:
        commit, subject = line.split(" ", 1)
        if any(commit.startswith(known) for known in excused):
            continue
        if len(subject) > SUBJECT_LENGTH:
            wrong.append(f"{commit[:7]} {subject}: {len(subject)} characters")
        if not SUBJECT.match(subject):
            wrong.append(f"{commit[:7]} {subject}: not `scope: verb …'")
    return wrong


def lengths(functions):
    return sorted(f["end"] - f["line"] + 1 for path, found in functions.items()
                  if path.startswith("src/") for f in found)


def main():
    tap = tree.Tap()
    paths = tree.files(r"^(src|include|tests|examples)/.*\.[ch]$")
    functions = tree.functions(paths)
    tap.check("licences stand on top", licences_broken(
        tree.files(r"^(src|include|tests|scripts|examples)/.*\.([chS]|py|sh)$")))
    tap.check("config.h, the own header, the others", list(filter(None, (
        own_header_second(p) for p in paths if re.match(r"src/.*\.c$", p)))))
    tap.check("no blanks at the end of a line, no blanks for tabs", whitespace_broken(
        tree.files(r"^(src|include|tests|scripts|examples)/.*\.([chS]|py|sh)$")))
    excused, commits = exceptions()
    tap.check("commits: `scope: verb …', 72 characters", subjects_broken(commits))
    if functions is None:
        tap.skip("the numbers", "no universal-ctags")
        tap.done()
    found = measure(paths, functions)
    for rule, limit in LIMITS.items():
        tap.check(f"{rule}: {limit} at most", found.broken(rule, excused))
    tap.check("no exception is needless", found.stale(excused))
    size = lengths(functions)
    median = int(statistics.median(size))
    tap.check(f"the median function has {MEDIAN} lines at most", [median] * (median > MEDIAN))
    print(f"# {len(size)} functions in src/: median {median}, "
          f"p90 {size[int(len(size) * .9)]}, longest {size[-1]} lines")
    tap.done()


if __name__ == "__main__":
    main()
