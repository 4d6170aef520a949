#!/usr/bin/env python3
"""Golden data for whole encodings, made by Hugging Face's tokenizers (its version goes into the data) on the lines of
make_tokenizer.py with the tokenizers that make_tokenizer.py and make_tokenizer_kinds.py have made.

  tests/golden/tokenizer/encodings.json.gz    "options": how texts are encoded; "cases": a base, a patch of its JSON, and for each
                                              of the options and each eight lines the CRC-32 of the encodings' tokens

What the CRC is taken of, all in int32, little-endian: for each text its number of encodings (-1: the reference refuses the
text), for each of them its number of tokens, for each token id, type id, word (-1: none), special tokens mask, attention mask, begin
and end in characters.

usage: make_encodings.py   (run in the repository's root)"""
import gzip
import json
import os
import struct
import zlib

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RUST_BACKTRACE"] = "0"
import encoding_kinds  # noqa: E402
import tokenizer_kinds as kinds  # noqa: E402
import tokenizers  # noqa: E402
from make_tokenizer import OUT, apply_patch, hard_lines, text_of  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

BATCH = 8
SHORT = 70  # bytes: longer lines are not cut, since each piece of one text comes with each of the other
PAD_ID = 3

# `batch`: encoded together; else each text by itself, as where one of them is refused.
OPTIONS = [
    {"pair": False, "batch": True, "special": True},
    {"pair": True, "batch": True, "special": False},
    {"pair": True, "batch": True, "special": True, "max_length": 14, "stride": 2, "strategy": "longest_first", "left": False},
    {"pair": False, "batch": True, "special": True, "max_length": 11, "stride": 3, "strategy": "longest_first", "left": True, "padding": "longest", "pad_left": True},
    {"pair": True, "batch": False, "special": True, "max_length": 40, "stride": 0, "strategy": "only_second", "left": False},
    {"pair": True, "batch": False, "special": False, "max_length": 25, "stride": 2, "strategy": "only_first", "left": True},
    {"pair": True, "batch": True, "special": True, "padding": "fixed", "pad_length": 20, "pad_multiple_of": 16, "pad_left": False, "pad_type_id": 2},
]


def attempt(f):
    """None where the reference refuses the text, or panics."""
    try:
        return f()
    except BaseException as e:  # a Rust panic is no Exception
        if isinstance(e, KeyboardInterrupt):
            raise
        return None


def prepare(t, o):
    t.no_truncation()
    t.no_padding()
    if "strategy" in o:
        t.enable_truncation(o["max_length"], stride=o["stride"], strategy=o["strategy"], direction="left" if o["left"] else "right")
    if "padding" in o:
        t.enable_padding(length=o.get("pad_length"), pad_to_multiple_of=o.get("pad_multiple_of"), direction="left" if o["pad_left"] else "right",
                         pad_id=PAD_ID, pad_type_id=o.get("pad_type_id", 0), pad_token="[PAD]")


def numbers(e):
    """Those of a text: its encodings, or None."""
    if e is None:
        return [-1]
    out = [1 + len(e.overflowing)]
    for each in [e] + e.overflowing:
        rows = encoding_kinds.tokens_of(each)
        out.append(len(rows))
        for row in rows:
            out += [-1 if x is None else x for x in row]
    return out


def crcs(t, o, lines):
    prepare(t, o)
    texts = [text_of(raw) for raw in lines if "strategy" not in o or len(raw) <= SHORT]
    items = list(zip(texts, texts[7:] + texts[:7])) if o["pair"] else texts
    out = []
    for i in range(0, len(items), BATCH):
        some = items[i:i + BATCH]
        if o["batch"]:
            encoded = attempt(lambda: t.encode_batch(some, add_special_tokens=o["special"])) or [None] * len(some)
        else:
            encoded = [attempt(lambda: t.encode(*(item if o["pair"] else (item,)), add_special_tokens=o["special"])) for item in some]
        flat = [n for e in encoded for n in numbers(e)]
        out.append(zlib.crc32(struct.pack("<%di" % len(flat), *flat)))
    return out


def main():
    lines, out = hard_lines(), []
    for name, base, patch in encoding_kinds.configurations():
        made = json.loads((OUT / f"{base}.json").read_text())
        t = Tokenizer.from_str(json.dumps(apply_patch(made, patch)))
        out.append({"name": name, "base": base, "patch": patch, "crc": [crcs(t, o, lines) for o in OPTIONS]})
    text = json.dumps({"tokenizers": tokenizers.__version__, "batch": BATCH, "short": SHORT, "pad_id": PAD_ID, "options": OPTIONS, "cases": out}, separators=(",", ":"))
    with open(OUT / "encodings.json.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        f.write(text.encode())
    print(len(out), "configurations,", len(lines), "lines,", len(text), "bytes of golden data before gzip")


if __name__ == "__main__":
    main()
