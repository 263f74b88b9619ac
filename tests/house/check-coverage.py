#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tests/COVERAGE.md against the tree: no requirement is left out, and what it names is there."""
import os
import re

import tree

PAGE = "tests/COVERAGE.md"


def numbered(prefix, last, width=0):
    return [f"{prefix}{n:0{width}}" for n in range(1, last + 1)]


#: of the features that came later, and of the devices
F = """
20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51
52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69
"""

#: of devices and what they reach: all rows of these seeds, with those that came between them
S = (numbered("S0-", 27, 2) + numbered("S2-", 11, 2) + numbered("S3-", 91, 2) + numbered("S4-", 36, 2)
     + "S3-49b S3-49c S3-49d S3-49e S4-35b S4-35c".split())

#: what this stage of the project answers for
WANTED = (numbered("O", 15) + numbered("F", 19, 2)
          + [f"F{n}" for n in F.split()]
          + numbered("S1-", 40, 2) + ["S1-13b"] + numbered("P", 32, 2) + numbered("A", 12)
          + S
          + numbered("K1.", 10) + numbered("K2.", 10) + numbered("K9.", 6) + numbered("E", 26) + ["EN"])

#: of who has a VM while its pages come (devices.md 4.2)
WANTED += ["I7"]


def rows():
    """[(id, held by)]"""
    return re.findall(r"^\| ([A-Z][\w.-]*) \| [^|]* \| (.*) \|$", tree.read(PAGE), re.M)


def list_broken(table):
    ids = [row[0] for row in table]
    return ([f"{i} has no row" for i in WANTED if i not in ids]
            + [f"{i} has {ids.count(i)} rows" for i in sorted(set(ids)) if ids.count(i) > 1]
            + [f"{i} is nobody's requirement" for i in ids if i not in WANTED])


def claims(held):
    """[(file, words to be found in it or '')]"""
    return [claim.partition(":")[::2] for claim in re.findall(r"`([^`]+)`", held)]


def claims_broken(table):
    wrong = []
    for name, held in table:
        if not claims(held) and not re.match(r"— \S+ \S+ \S+", held):
            wrong.append(f"{name}: neither a test nor a reason")
        for path, words in claims(held):
            if not os.path.exists(os.path.join(tree.TOP, "tests", path)):
                wrong.append(f"{name}: no file tests/{path}")
            elif words not in tree.read(f"tests/{path}"):
                wrong.append(f"{name}: '{words}' is not in tests/{path}")
    return wrong


def probes(pattern, paths):
    return {name for path in paths for name in re.findall(pattern, tree.read(path), re.M)}


def probes_broken():
    """HACKING.md lists the probes that the code has."""
    fired = probes(r"\bPROBE\d\(([a-z_]+), ", [f for f in tree.files(r"^src/.*\.c$")])
    told = probes(r"^\| `([a-z_]+)` \| [^|]+ \| [^|]+ \|$", ["HACKING.md"])
    return [f"{name} is {'not in HACKING.md' if name in fired else 'not in the code'}"
            for name in sorted(fired ^ told)] or [] if fired else ["no probe at all"]


def main():
    tap = tree.Tap()
    table = rows()
    tap.check("every requirement has its row", list_broken(table))
    tap.check("every claim is true as far as it can be looked up", claims_broken(table))
    tap.check("HACKING.md lists the probes", probes_broken())
    held = sum(bool(claims(row[1])) for row in table)
    print(f"# {held} of {len(table)} requirements are held by a test; "
          f"{sum('—' in row[1] for row in table)} rows say what is missing")
    tap.done()


if __name__ == "__main__":
    main()
