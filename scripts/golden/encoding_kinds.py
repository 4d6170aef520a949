"""Tokenizers whose whole encodings are compared: those of tokenizer_kinds.py, and what changes offsets, type ids and masks.
For make_encodings.py and scripts/fuzz-tokenizer."""
import tokenizer_kinds as kinds
from make_tokenizer import BYTES, BYTES_REGEX, added, norm, seq, split

STRATEGIES = ["longest_first", "only_first", "only_second"]


def tokens_of(encoding):
    """A row a token: id, type id, word, special tokens mask, attention mask, begin, end."""
    e = encoding
    return [(*row, *span) for *row, span in zip(e.ids, e.type_ids, e.word_ids, e.special_tokens_mask, e.attention_mask, e.offsets)]


def trims(trim, prefix):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": True}


def ends(kind, trim=True, prefix=True):
    more = {"trim_offsets": trim, "add_prefix_space": prefix} if kind == "Roberta" else {}
    return {"type": f"{kind}Processing", "sep": ["</s>", 4], "cls": ["<s>", 3], **more}


def pieces(text):
    """"<s> A </s>:1 B:1": a template, each piece with its type id."""
    out = []
    for word in text.split():
        name, _, type_id = word.partition(":")
        kind = "Sequence" if name in "AB" else "SpecialToken"
        out.append({kind: {"id": name, "type_id": int(type_id or 0)}})
    return out


def template(single, pair):
    known = {"<s>": [3], "</s>": [4], "<two>": [0, 1]}
    return {"type": "TemplateProcessing", "single": pieces(single), "pair": pieces(pair),
            "special_tokens": {k: {"id": k, "ids": v, "tokens": [k] * len(v)} for k, v in known.items()}}


def processors(*steps):
    return {"post_processor": {"type": "Sequence", "processors": list(steps)}}


def byte_configurations():
    spaced = {"pre_tokenizer": dict(BYTES_REGEX, add_prefix_space=True)}
    yield "GPT-2", "bytes", {}
    for trim in (True, False):
        for prefix in (True, False):
            yield f"ByteLevel, trim {trim}, prefix {prefix}", "bytes", dict(spaced, post_processor=trims(trim, prefix))
            yield f"Roberta, trim {trim}, prefix {prefix}", "bytes", dict(spaced if prefix else {}, post_processor=ends("Roberta", trim, prefix))
    usual = template("<s> A </s>", "<s> A </s> B:1 </s>:1")
    yield "Bert around bytes", "bytes", {"post_processor": ends("Bert")}
    yield "template", "bytes", {"post_processor": usual}
    yield "template of odd types", "bytes", {"post_processor": template("<two>:2 A:1 </s>:5", "B:3 <s>:1 A:2 <two>:4")}
    yield "template of texts twice", "bytes", {"post_processor": template("A </s> A:1", "A B:1 </s> A")}
    yield "trim, then template", "bytes", dict(spaced, **processors(trims(True, True), usual))
    yield "template, then trim", "bytes", dict(spaced, **processors(usual, trims(True, True)))
    yield "Bert, then trim", "bytes", dict(spaced, **processors(ends("Bert"), trims(True, True)))
    yield "trim, Roberta, trim", "bytes", dict(spaced, **processors(trims(True, False), ends("Roberta", True, True), trims(True, True)))
    yield "trim twice", "bytes", dict(spaced, **processors(trims(True, True), trims(True, False)))
    for name in ("llama3", "qwen2", "smollm"):
        yield name, name, {}
    yield "prefix space, no pattern", "bytes", {"pre_tokenizer": dict(BYTES, add_prefix_space=True), "post_processor": trims(True, True)}
    yield "bytes twice", "bytes", {"pre_tokenizer": seq(BYTES_REGEX, BYTES), "post_processor": trims(True, False)}
    yield "ignore_merges", "bytes", {"model": {"ignore_merges": True}}
    yield "Falcon", "bytes", {"pre_tokenizer": seq({"type": "Punctuation", "behavior": "Contiguous"}, BYTES_REGEX, {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]"))}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield f"split, {behavior}", "bytes", {"pre_tokenizer": seq(split(r"\s+", behavior), BYTES), "post_processor": trims(True, True)}


def normalizer_configurations():
    trim = {"post_processor": trims(True, False)}
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "ByteLevel"):
        yield f"{name} before bytes", "bytes", dict(trim, normalizer={"type": name})
    for left, right in ((True, True), (True, False), (False, True)):
        yield f"strip {left} {right}", "bytes", {"normalizer": {"type": "Strip", "strip_left": left, "strip_right": right}}
    yield "replace a string", "bytes", norm({"type": "Replace", "pattern": {"String": "the"}, "content": "<T>"})
    yield "replace a pattern", "bytes", norm({"type": "Replace", "pattern": {"Regex": r"\s+|\p{M}"}, "content": "$1 "})
    yield "remove a pattern", "bytes", norm({"type": "NFD"}, {"type": "Replace", "pattern": {"Regex": r"\p{M}|e+"}, "content": ""}, {"type": "NFC"})
    yield "prepend", "bytes", dict(trim, **norm({"type": "Prepend", "prepend": "\u2581x"}))
    yield "normalizers in a row", "bytes", norm({"type": "NFKD"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": r"\p{Mn}"}, "content": ""},
                                               {"type": "Strip", "strip_left": True, "strip_right": True})
    yield "normalizers back and forth", "bytes", norm({"type": "NFD"}, {"type": "NFKC"}, {"type": "Prepend", "prepend": " "}, {"type": "NFKD"}, {"type": "StripAccents"})
    yield "Precompiled twice", "unigram", norm(kinds.PRECOMPILED, {"type": "Lowercase"}, kinds.PRECOMPILED, {"type": "NFC"})
    for name in ("NFD", "NFKD", "NFC"):
        yield f"{name}, Precompiled", "unigram", norm({"type": name}, kinds.PRECOMPILED)


def char_configurations():
    yield "Llama 2", "chars", {}
    yield "GPT-1: suffix and prefix", "suffix", {}
    yield "suffix, byte fallback", "suffix", {"model": {"byte_fallback": True}}
    for fuse in (True, False):
        yield f"unknown ones, fuse {fuse}", "chars", {"model": {"fuse_unk": fuse, "byte_fallback": False}}
        yield f"unknown ones apart, fuse {fuse}", "chars", dict({"model": {"fuse_unk": fuse, "byte_fallback": False}}, pre_tokenizer=kinds.SPACES, normalizer=None)
    yield "no unknown token", "chars", {"model": {"unk_token": None, "byte_fallback": False}}
    yield "no unknown token, of words", "chars", dict({"model": {"unk_token": None, "byte_fallback": False}}, pre_tokenizer=kinds.SPACES)
    for scheme in ("always", "first", "never"):
        for whether in (True, False):
            space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": whether}
            yield f"Metaspace {scheme}, split {whether}", "chars", {"normalizer": None, "pre_tokenizer": space, "decoder": space}
    yield "Roberta around pieces", "unigram", {"post_processor": ends("Roberta", True, True)}
    yield "trim around words", "wordlevel", {"pre_tokenizer": None, "post_processor": trims(True, False)}
    yield "trim around pieces, byte fallback", "unigram", {"normalizer": None, "pre_tokenizer": None, "model": {"byte_fallback": True}, "post_processor": trims(True, True)}


def added_configurations():
    specials = [added("<|endoftext|>", True), added("<|im_start|>", True), added("<|im_end|>", True)]
    flags = [added("[LEFT]", lstrip=True), added("[RIGHT]", rstrip=True), added("[BOTH]", lstrip=True, rstrip=True), added("word", single_word=True),
             added("[MASK]", True, lstrip=True), added("<|repo"), added("  ")]
    yield "added tokens, trim", "bytes", {"added_tokens": specials + flags, "post_processor": trims(True, True)}
    yield "added tokens, normalized", "bytes", dict({"added_tokens": specials + [dict(a, normalized=True) for a in flags]}, normalizer={"type": "Lowercase"}, post_processor=ends("Roberta"))
    yield "added tokens, NFKD", "bytes", dict({"added_tokens": specials + [dict(a, normalized=True) for a in flags] + [added("\ufb01", normalized=True)]}, normalizer={"type": "NFKD"})
    yield "added tokens, prepended", "chars", {"added_tokens": [added("<s>", True), added("</s>", True, normalized=True), added("the", normalized=True), added("of")]}


def configurations():
    """(name, base, patch)"""
    yield from kinds.configurations()
    yield from byte_configurations()
    yield from normalizer_configurations()
    yield from char_configurations()
    yield from added_configurations()
