#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""tests/COVERAGE.md against the tree: no requirement is left out, and what it names is there."""
import os
import re

import tree

PAGE = "tests/COVERAGE.md"


def numbered(prefix, last, width=0):
    return [f"{prefix}{n:0{width}}" for n in range(1, last + 1)]


#: of the features that came later, and of the devices: rows of seeds 0, 2 and 3
F = """
22 24 25 26 27 28 29 30 31 32 34 36 38 39 41 42 45 46 47 48 49 50 51
52 54 55 56 60 61 63 64 65
"""
S0 = "01 02 04 08 09 14 17 19 20 21 22 25 26"
S2 = "02 06 10"
S3 = """
01 04 06 08 09 16 19 22 24 25 26 27 29 30 31 32 33 35 37 38 39 41 42 45 46 48
49 50 51 52 53 54 55 56 57 58 60 63 64 65 66 68 75 76 81 84 85 87 88
"""

#: what this stage of the project answers for
WANTED = (numbered("O", 15) + numbered("F", 19, 2)
          + [f"F{n}" for n in F.split()]
          + numbered("S1-", 40, 2) + ["S1-13b"] + numbered("P", 32, 2) + numbered("A", 12)
          + [f"S{seed}-{n}" for seed, which in ((0, S0), (2, S2), (3, S3)) for n in which.split()]
          + numbered("K1.", 10) + numbered("K2.", 10) + numbered("K9.", 6) + numbered("E", 26) + ["EN"])

#: of their state on its way, and of what they write
WANTED += """
F35 F40 S3-40 S3-43 S3-44 S4-22 S4-25 S4-36
F43 F44 F67 F68 S0-15 S0-16 S2-08 S2-09 S4-01 S4-02 S4-03 S4-04 S4-05 S4-06 S4-07 S4-08 S4-09 S4-10
S4-11 S4-12 S4-13 S4-14 S4-15 S4-16 S4-17 S4-18 S4-20 S4-24 S4-32 S4-35b S4-35c
""".split()

#: of who has a VM while its pages come (devices.md 4.2)
WANTED += ["I7"]

#: of the model of a device, and of what the kernel's own device shows
WANTED += """
F33 F34 F36 F66 S3-01 S3-02 S3-03 S3-18 S3-33 S3-35 S3-37 S3-38 S3-62 S3-79
""".split()


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
