#!/usr/bin/env python3
"""Writes template/case_data.c: characters whose upper, title or lower case is more than one character, which is all in
which Python's case mapping differs from utf8proc's.

usage: make_case.py > template/case_data.c"""
import unicodedata

assert unicodedata.unidata_version == "14.0.0", "run it with Python 3.11, which has Unicode 14"


def quoted(text):
    return '"' + "".join(f"\\x{b:02x}" for b in text.encode()) + '"'


rows = []
for c in range(0x110000):
    if 0xD800 <= c < 0xE000:
        continue
    s = chr(c)
    if max(len(s.upper()), len(s.title()), len(s.lower())) > 1:
        rows.append(f"    {{0x{c:X}, {{{quoted(s.upper())}, {quoted(s.lower())}, {quoted(s.title())}}}}},")
print("/* Made by scripts/golden/make_case.py from Python 3.11 (Unicode 14); do not edit. */")
print('#include "template/case.h"\n')
print("const nb_case_row nb_case_rows[] = {")
print("\n".join(rows))
print("};\n")
print("const size_t nb_case_row_count = sizeof nb_case_rows / sizeof *nb_case_rows;")
