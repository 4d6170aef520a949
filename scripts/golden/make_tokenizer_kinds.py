#!/usr/bin/env python3
"""Golden data for the models WordPiece, Unigram and WordLevel and the steps that come with them, made by Hugging Face's
tokenizers (its version goes into the data) on the lines of make_tokenizer.py.

  tests/golden/tokenizer/<base>.json      small tokenizers, trained here on those lines unless they are there
  tests/golden/tokenizer/kinds.json.gz    configurations: a base, a patch of its JSON, and for each line the CRC-32 of its
                                          ids and of its decoded text, with and without special tokens

usage: make_tokenizer_kinds.py   (run in the repository's root)"""
import gzip
import json
import zlib

import tokenizer_kinds as kinds
import tokenizers
from make_tokenizer import OUT, apply_patch, attempt, crc, encode, hard_lines
from tokenizers import Tokenizer


def decoded(t, ids):
    texts = [attempt(lambda: t.decode(ids, skip_special_tokens=skip)) for skip in (True, False)]
    return None if None in texts else zlib.crc32("\0".join(texts).encode())


def main():
    bases = {}
    for name, train in kinds.BASES.items():
        path = OUT / f"{name}.json"
        if not path.exists():  # training is not the same every time
            path.write_text(json.dumps(train(), ensure_ascii=False, separators=(",", ":")) + "\n")
        bases[name] = json.loads(path.read_text())
    lines, out = hard_lines(), []
    for name, base, patch in kinds.configurations():
        t = Tokenizer.from_str(json.dumps(apply_patch(bases[base], patch)))
        ids = [encode(t, raw) for raw in lines]
        out.append({"name": name, "base": base, "patch": patch, "ids": [crc(some) for some in ids],
                    "decoded": [some and decoded(t, some) for some in ids]})
    text = json.dumps({"tokenizers": tokenizers.__version__, "cases": out}, separators=(",", ":"))
    with open(OUT / "kinds.json.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        f.write(text.encode())
    print(len(out), "configurations,", len(lines), "lines,", len(text), "bytes of golden data before gzip")


if __name__ == "__main__":
    main()
