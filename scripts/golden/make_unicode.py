#!/usr/bin/env python3
"""Writes tokenizer/unicode_data.c: where the reference's Unicode differs from our libraries'.

Hugging Face's tokenizers knows Unicode three times over: Oniguruma (16.0) for patterns, Rust's standard library (17.0)
for letters' case and digits, and an old table (9.0) for normalization. PCRE2 knows 14.0 or later, utf8proc 15.0. The
differences are found by asking the reference about every code point; Python's own unicodedata must be of 14.0.

usage: make_unicode.py > tokenizer/unicode_data.c"""
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "run it with Python 3.11, which has Unicode 14"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

# Code points that every library knows; the nearest of the same general category, UTF-8 length and Alphabetic (and, where
# patterns name it, script) stands in for one that is new.
OLD = [0x10A0, 0xA640, 0x1D400, 0x1D02, 0xA731, 0x1D41A, 0x1D2C, 0x16B40, 0x1200, 0x10280, 0x104A0, 0x10107, 0x900, 0x1DC0,
       0x11001, 0x101FD, 0x903, 0x1CF7, 0x11000, 0x1D165, 0x964, 0x10100, 0x10EAD, 0x2400, 0x1D000, 0x1D6C1, 0x110BD]
SCRIPTS = {"Han": 0x20000, "Hiragana": 0x1B150, "Katakana": 0x1B164}
CATEGORIES = ["Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No", "Mn", "Mc", "Me", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
              "Sc", "Sk", "So", "Cf"]


def matching(points, pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return {c for c in points if not split.pre_tokenize_str(chr(c))}


def ranges(pairs):
    """[(code point, value)] in order, to [(first, last, value)]."""
    out = []
    for c, value in pairs:
        if out and out[-1][1] == c - 1 and out[-1][2] == value:
            out[-1][1] = c
        else:
            out.append([c, c, value])
    return out


def stand_ins():
    unknown = [c for c in POINTS if unicodedata.category(chr(c)) == "Cn"]
    alphabetic = matching(unknown + OLD, r"\p{Alphabetic}")
    scripts = {name: matching(unknown, r"\p{%s}" % name) for name in SCRIPTS}
    pairs = {0x180E: 0x200B}  # a space to PCRE2's \s, a format character since Unicode 6.3
    for category in CATEGORIES:
        for c in sorted(matching(unknown, r"\p{%s}" % category)):
            script = next((s for s in SCRIPTS if c in scripts[s] and category == "Lo"), None)
            like = [o for o in OLD if unicodedata.category(chr(o)) == category and len(chr(o).encode()) == len(chr(c).encode())
                    and (o in alphabetic) == (c in alphabetic)]
            pairs[c] = SCRIPTS[script] if script else min(like, key=lambda o: abs(o - c))
    other = matching(unknown, r"[\p{L}\p{N}\p{M}\p{P}\p{S}\p{Cf}]") - set(pairs)
    assert not other, [hex(c) for c in other]
    return pairs


def inert(new):
    """What the reference's old tables pass through although it decomposes, composes or is reordered today."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    out = {0x11930, 0x11935, 0x11938}  # the only composition since
    for c in POINTS:
        s = chr(c)
        if c in new or nfkd.normalize_str(s) != unicodedata.normalize("NFKD", s):
            out.add(c)
        elif unicodedata.combining(s):
            probe = "a\u0334\u0301" if unicodedata.combining(s) < 230 else "a\u0345"
            if nfd.normalize_str(probe + s) != unicodedata.normalize("NFD", probe + s):
                out.add(c)
    return out


def lower():
    low = normalizers.Lowercase()
    out = []
    for c in POINTS:
        got = low.normalize_str(chr(c))
        want = chr(c).lower() if c != 0x3A3 else "\u03c3"
        if got != want and len(got) == 1:
            out.append((c, ord(got) - c))
    return out


def dropped(normalizer):
    """What a normalizer takes out of a text."""
    return ranges([(c, 0) for c in POINTS if normalizer.normalize_str("a" + chr(c) + "a") == "aa"])


def script_numbers():
    """Numbers for what UnicodeScripts keeps together; characters that go with any have none."""
    step = pre_tokenizers.UnicodeScripts()
    together = lambda a, b: len(step.pre_tokenize_str(a + b)) == 1  # noqa: E731
    examples, out, last = [], [], 0
    for c in POINTS:
        if not step.pre_tokenize_str(chr(c)):
            continue
        if not examples or not together(examples[last], chr(c)):
            last = next((i for i, example in enumerate(examples) if together(example, chr(c))), len(examples))
            if last == len(examples):
                examples.append(chr(c))
        out.append((c, last + 1))
    return ranges(out)


def split_class(step, c):
    return len(step.pre_tokenize_str("a" + chr(c) + "a")) == 3


def is_punct(c):
    return unicodedata.category(chr(c))[0] == "P" or (c < 128 and chr(c) in "$+<=>^`|~")


def table(name, comment, rows, form="%d"):
    print(f"\n/* {comment} */")
    print(f"const nb_code_range {name}[] = {{")
    line = "   "
    for first, last, value in rows:
        item = f" {{0x{first:X}, 0x{last:X}, {form % value}}},"
        if len(line) + len(item) > 120:
            print(line)
            line = "   "
        line += item
    print(line)
    print("};")
    print(f"const size_t {name}_count = sizeof {name} / sizeof *{name};")


def main():
    new = stand_ins()
    digits = pre_tokenizers.Digits(individual_digits=True)
    punct = pre_tokenizers.Punctuation()
    extra = [c for c in POINTS if unicodedata.category(chr(c))[0] != "N" and c not in new and split_class(digits, c)]
    old = [c for c in POINTS if c not in new and is_punct(c) != split_class(punct, c)]
    print(f"/* Made by scripts/golden/make_unicode.py from tokenizers {tokenizers.__version__}; do not edit. */")
    print('#include "tokenizer/unicode.h"')
    table("nb_unicode_new", "Assigned after Unicode 14 (and U+180E): an older code point of the same kind and UTF-8 length.",
          ranges(sorted(new.items())), "0x%X")
    table("nb_unicode_inert", "Unchanged by the reference's normalization forms, which know Unicode 9.",
          ranges([(c, 0) for c in sorted(inert(new)) if c not in new or c == 0x180E]))
    table("nb_unicode_lower", "Lower case, as a distance, where it came after Unicode 14.", ranges(lower()))
    table("nb_unicode_numeric", "Digits to the reference though not to its patterns.", ranges([(c, 0) for c in extra]))
    table("nb_unicode_punct", "Not what Unicode 14 says for the reference's Punctuation (1: it is, 0: it is not).",
          ranges([(c, int(split_class(punct, c))) for c in old]))
    bert = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    table("nb_unicode_other", "Taken out by the reference's BertNormalizer.", dropped(normalizers.BertNormalizer(**dict(bert, clean_text=True))))
    table("nb_unicode_nonspacing", "Accents to the reference's BertNormalizer.", dropped(normalizers.BertNormalizer(**dict(bert, strip_accents=True))))
    table("nb_unicode_mark", "Accents to the reference's StripAccents.", dropped(normalizers.StripAccents()))
    table("nb_unicode_script", "Scripts by number.", script_numbers())


if __name__ == "__main__":
    sys.exit(main())
