"""Makes `cli/first-functions.ld` out of a map of the linker and lists of the functions that ran. Measures nothing, and starts nothing.

    order.py starts MAP                    prints the address of every function
    order.py script MAP LISTS LISTS...     prints the linker's script; lists of one group are joined by commas, and of a group "a&b" is
                                           taken what is in both

Names hold a hash of each package, and places within the name, which another compiler makes otherwise: they become wildcards. A name is cut
where the functions that share its beginning ran, too, or are so small that the rest of the name is not worth it.
"""

import collections
import re
import struct
import sys

# As many bytes of functions that never ran are taken in for one byte that the script is shorter.
BYTES_FOR_A_LETTER = 1

HEAD = """/* Made by chaos-tests/scripts/first-functions.sh: what monitor, shim and agent run lies side by side in the program. A name that is
   not there any more does no harm, and a function that is missing here costs memory only. */
SECTIONS
{
  .text.first :
  {
"""
TAIL = "  }\n}\nINSERT BEFORE .text;\n"

sys.setrecursionlimit(10_000)


def wild(name):
    name = re.sub(r"Cs[0-9A-Za-z]{9,12}_(?=\d)", lambda found: "Cs" + "?" * (len(found[0]) - 3) + "_", name.split(".llvm.")[0])
    return re.sub(r"B([0-9A-Za-z]{0,3})_", lambda found: "B" + "?" * len(found[1]) + "_", name)


def functions(path):
    """Every function of the map: where it begins, its name with wildcards, and its bytes."""
    line = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+\s.*:\((\.text\.[^)]+)\)$")
    for found in map(line.match, open(path)):
        if found and int(found[2], 16):
            yield int(found[1], 16), wild(found[3]), int(found[2], 16)


def cover(names, cost_of, wanted, ran, depth):
    """The cheapest patterns for what is wanted of these sorted names, which share their beginning."""
    if not any(name in wanted for name in names):
        return 0, []
    if len(names) == 1:
        name = names[0]
        pattern = name if len(name) == depth else name[:depth].rstrip("*?") + "*"
        return BYTES_FOR_A_LETTER * len(pattern), [pattern]
    first, last, shared = names[0], names[-1], depth
    while shared < len(first) and shared < len(last) and first[shared] == last[shared]:
        shared += 1
    waste = sum(cost_of[name] for name in names if name not in ran)
    whole = waste + BYTES_FOR_A_LETTER * (depth + 1)
    parts, patterns, groups = 0, [], collections.defaultdict(list)
    for name in names:
        if len(name) > shared:
            groups[name[shared]].append(name)
        elif name in wanted:
            parts, patterns = parts + BYTES_FOR_A_LETTER * len(name), [*patterns, name]
    for group in groups.values():
        cost, more = cover(group, cost_of, wanted, ran, shared + 1)
        parts, patterns = parts + cost, patterns + more
    return (whole, [first[:depth].rstrip("*?") + "*"]) if whole <= parts else (parts, patterns)


def all_of(lists, starts):
    read = (struct.iter_unpack("Q", open(file, "rb").read()) for file in lists.split(","))
    return {starts[at] for places in read for (at,) in places if at in starts}


def script(path, groups):
    starts, bytes_of = {}, collections.Counter()
    for start, name, size in functions(path):
        starts[start] = name
        bytes_of[name] += size
    names, ran, wanted = sorted(bytes_of), set(), []
    for group in groups:
        here = set.intersection(*(all_of(lists, starts) for lists in group.split("&")))
        wanted.append((here - ran, ran | here))
        ran |= here
    print(HEAD, end="")
    for group, so_far in wanted:
        # What a later group wants is not to be taken in by this one.
        patterns = dict.fromkeys(cover(names, bytes_of, group, so_far, len(".text."))[1])
        print("    *(", *(f"      {pattern}" for pattern in patterns), "    )", sep="\n")
    print(TAIL, end="")


if sys.argv[1] == "starts":
    for start, _, _ in functions(sys.argv[2]):
        print(f"{start:x}")
else:
    script(sys.argv[2], sys.argv[3:])
