#!/usr/bin/env python3
"""Writes tokenizer/script_data.c: the script of every code point, from Debian's unicode-data.

usage: make_scripts.py [Scripts.txt] > tokenizer/script_data.c   (default: /usr/share/unicode/Scripts.txt)"""
import re
import sys
from pathlib import Path

LINE = re.compile(r"([0-9A-F]+)(?:\.\.([0-9A-F]+))?\s*;\s*(\w+)")


def main():
    text = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/unicode/Scripts.txt").read_text()
    version = re.search(r"Scripts-([0-9.]+)\.txt", text)[1]
    parts = sorted((int(m[1], 16), int(m[2] or m[1], 16), m[3]) for m in map(LINE.match, text.splitlines()) if m)
    names = ["Unknown", "Common", "Inherited"] + sorted({p[2] for p in parts} - {"Common", "Inherited"})
    starts, end = [], 0
    for first, last, name in parts:
        if first > end:
            starts.append((end, "Unknown"))
        starts.append((first, name))
        end = last + 1
    starts.append((end, "Unknown"))
    kept = [s for i, s in enumerate(starts) if i == 0 or s[1] != starts[i - 1][1]]
    print("/* Made by scripts/golden/make_scripts.py from Unicode %s. */" % version)
    print('#include "tokenizer/script.h"\n')
    print("const char *const nb_script_names[] = {")
    print(",\n".join('    "%s"' % name.replace("_", " ") for name in names) + "};")
    print("const size_t nb_script_count = sizeof nb_script_names / sizeof *nb_script_names;\n")
    print("/* A row ends where the next one begins. */\nconst nb_script_start nb_script_starts[] = {")
    print(",\n".join("    {0x%X, %d}" % (c, names.index(name)) for c, name in kept) + "};")
    print("const size_t nb_script_start_count = sizeof nb_script_starts / sizeof *nb_script_starts;")


main()
