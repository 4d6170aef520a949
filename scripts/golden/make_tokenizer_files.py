#!/usr/bin/env python3
"""Golden data for the files that tokenizers come in beside tokenizer.json. Small vocabularies are trained here on
tests/golden/tokenizer/hard.txt and written in each format; the ids of its lines are those of the library that the
format belongs to (tiktoken) or of transformers, and the versions go into the data.

  tests/golden/tokenizer_files/CASE/...        a folder as it is published, or a lone file
  tests/golden/tokenizer_files/expected.json.gz   for each case what to open and the ids of every line

usage: make_tokenizer_files.py   (run in the repository's root)"""
import base64
import gzip
import json
import shutil
from pathlib import Path

import tiktoken
import tiktoken_ext.openai_public as public
import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

OUT = Path("tests/golden/tokenizer_files")
LINES = [line.decode("utf-8", "replace") for line in Path("tests/golden/tokenizer/hard.txt").read_bytes().split(b"\n")]
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
          r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
cases = []


def case(name, path, encode):
    cases.append({"name": name, "path": str(path.relative_to(OUT)), "ids": [encode(line) for line in LINES]})


def folder(name):
    (OUT / name).mkdir(parents=True)
    return OUT / name


def from_transformers(name, path):
    tokenizer = AutoTokenizer.from_pretrained(path)
    case(name, path, lambda line: tokenizer(line)["input_ids"])


def write_json(path, data):
    path.write_text(json.dumps(data, ensure_ascii=False) + "\n")


# ---- byte-level BPE: tiktoken, tekken, vocab.json and merges.txt -----------------------------------------------------

def train_bytes(size, pattern=None):
    """Trained by `tokenizers`; the ranks are the ids, and merges are in their order."""
    t = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level]) if pattern else byte_level
    t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def ranks_of(t):
    back = {c: b for b, c in bytes_to_unicode().items()}
    return {bytes(back[c] for c in token): rank for token, rank in t.get_vocab().items()}


def write_tiktoken(path, ranks):
    path.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % r for t, r in sorted(ranks.items(), key=lambda item: item[1])))


def make_tiktoken():
    path = folder("tiktoken")
    for name, pattern in [("r50k_base", None), ("cl100k_base", QWEN.replace("}|\\p{N}", "}|\\p{N}{1,3}")), ("o200k_base", TEKKEN), ("qwen", QWEN), ("gpt2", None)]:
        ranks = ranks_of(train_bytes(480, pattern))
        n, nfc = len(ranks), False
        if name == "gpt2":
            ranks[b""] = n  # as Whisper's file has it
            n += 1
            pattern, special = public.r50k_pat_str, {"<|endoftext|>": n, "<|startoftranscript|>": n + 1}
        elif name == "qwen":
            names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
            special, nfc = {t: n + i for i, t in enumerate(names)}, True
        else:
            public.load_tiktoken_bpe = lambda *a, **k: ranks
            made = getattr(public, name)()
            pattern, special = made["pat_str"], made["special_tokens"]
        file = path / f"{name}.tiktoken"
        write_tiktoken(file, ranks)
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        case(f"tiktoken {name}", file, lambda line: encoding.encode(normalizers.NFC().normalize_str(line) if nfc else line, allowed_special="all"))


def make_llama3():
    """Llama 3's tokenizer.model: tiktoken's form, which transformers reads without special tokens."""
    path = folder("llama3")
    write_tiktoken(path / "tokenizer.model", ranks_of(train_bytes(500, QWEN)))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    case("llama 3 tokenizer.model", path / "tokenizer.model", lambda line: tokenizer(line)["input_ids"])


def make_tekken():
    ranks = sorted(ranks_of(train_bytes(470, TEKKEN)).items(), key=lambda item: item[1])
    vocab = [{"rank": r, "token_bytes": base64.b64encode(t).decode(), "token_str": t.decode("utf-8", "replace")} for t, r in ranks]
    special = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])]
    path = folder("tekken")
    write_json(path / "tekken.json", {"config": {"pattern": TEKKEN, "num_vocab_tokens": len(vocab), "default_vocab_size": 460, "default_num_special_tokens": 9,
                                                  "version": "v7"}, "vocab": vocab, "special_tokens": special})
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    case("tekken", path / "tekken.json", lambda line: tokenizer(line)["input_ids"])


def make_gpt2():
    path = folder("gpt2")
    model = json.loads(train_bytes(500).to_str())["model"]
    vocab = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    write_json(path / "vocab.json", vocab)
    (path / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"]))
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(path)
    case("gpt2 vocab.json", path / "vocab.json", lambda line: tokenizer(line)["input_ids"])


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    make_tiktoken()
    make_llama3()
    make_tekken()
    make_gpt2()
    versions = {m.__name__: m.__version__ for m in (tiktoken, tokenizers, transformers)}
    with gzip.GzipFile(OUT / "expected.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps({"made_with": versions, "cases": cases}, separators=(",", ":")).encode())


main()
