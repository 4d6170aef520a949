#!/usr/bin/env python3
"""Golden data for the tokenizer, made by Hugging Face's tokenizers (its version goes into the data).

  tests/golden/tokenizer/hard.txt        lines that are hard to tokenize; bytes, not all of them UTF-8
  tests/golden/tokenizer/<base>.json     small tokenizers, trained here on those lines unless they are there
  tests/golden/tokenizer/cases.json.gz   cases: a base, a patch of its JSON, and for each line the ids and the decoded text

usage: make_tokenizer.py SMOLLM2/tokenizer.json   (run in the repository's root)"""
import copy
import gzip
import hashlib
import json
import struct
import sys
import unicodedata
import zlib
from pathlib import Path

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path("tests/golden/tokenizer")

# ---- the lines -----------------------------------------------------------------------------------------------------

ENGLISH = """The tokenizer that I've got isn't slow: it's what they'd call quick, and we'll see how it does. He said "don't!"
WE'LL SEE WHAT THEY'VE DONE; IT'S THE SAME, ISN'T IT? I'M SURE YOU'RE RIGHT, SHE'D SAY. 'tis 'Twas rock'n'roll o'clock
Numbers: 0 1 12 123 1234 12345 123456 1234567890 3.14159 -42 1e-10 0x7fffffff 1,000,000 50% $9.99 2024-05-17T12:34:56Z
camelCaseWords snake_case_words SCREAMING_CASE kebab-case-words dotted.names.here path/to/some/file.txt C:\\dir\\file.exe
https://example.org/a/b?c=d&e=f#g user@example.org @someone #hashtag ~/.bashrc $HOME ${VAR:-default} `code` **bold** _it_
if (x[i] != NULL && *p++ == '\\0') { return foo(bar->baz, &qux); } // comment /* block */ #define MAX(a,b) ((a)>(b)?(a):(b))
def f(x: int = 3, *args, **kwargs) -> dict[str, list[int]]:  return {"a": [1, 2, 3], "b": None, 'c': lambda y: y ** 2}
{"key": "value", "list": [1, 2.5, true, null], "nested": {"a\\u00e9": "\\n\\t"}} <div class="x">&nbsp;&lt;</div>
== Heading == = Sub = @-@ @,@ @.@ <unk> -- --- ... !!! ??? ?! ,;:. (()) [[]] {{}} <<>> ||| &&& *** +++ === ~~~ ^^^ ### $$$ %%%
and the of to in is was that for it with as his on be at by had not are but from or have an they which one you were all her
"""

SPACES = [
    "", " ", "  ", "   leading", "trailing   ", "two  three   four    five     ", "\ttab\t\ttabs\t \t mixed \t",
    "space before , comma", " a  b   c", "x \t\r\v\f y", "carriage return\r", "\rfirst", "a\r\rb\r", "\x0b\x0c",
    "nbsp\u00a0\u00a0here \u00a0 \u00a0x", "nel\u0085x \u0085 y", "line\u2028sep\u2029par", "ideographic\u3000space\u3000\u3000x",
    "thin\u2009\u200a\u202f\u205fx", "ogham\u1680x", "mongolian\u180e \u180ex\u180e", "zero\u200bwidth\u200c\u200d\u2060\ufeffx",
    "\ufeffbom first", " \u2003 \u3000 mixed spaces \u00a0", "soft\u00adhyphen", "a \u0301b", " \u0301", "word  \u00a0 .", "1  2   3",
    "   \t   ", "end with space then mark \u0301", "x" + " " * 120 + "y", "\t" * 33 + "z",
]

CONTROLS = [
    "".join(chr(c) for c in range(1, 10)), "".join(chr(c) for c in range(11, 32)), "a\x00b\x00\x00c", "\x00", "del\x7f\x80\x81\x9f",
    "esc\x1b[31mred\x1b[0m", "\ue000\uf8ff\U000f0000\U0010fffd private", "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff",
    "bidi \u202eoverride\u202c \u2066isolate\u2069 \u200e\u200f", "tags \U000e0001\U000e0041\U000e007f", "\ufffd replacement \ufffd\ufffd",
]

NUMBERS = [
    "12345 ١٢٣٤٥ ۱۲۳ १२३ ১২৩ ๑๒๓ 〇一二三 ⅠⅡⅢⅷ ½¼¾ ²³¹ ①②⑳ ㊿ 𝟎𝟏𝟐𝟿 １２３ ៛៤៥ ߁߂߃", "1½ x² 10⁻³ H₂O 5′10″ 3×4 №5 ㎏ ㏒", "1st 2nd 3rd 4th 0b1010 0o17 1_000_000",
    "9" * 100, "1.2.3.4 12:34 1/2 1-2 (555) 123-4567", "a1b2c3 1a 2b3 x86_64 utf8 3D 4K", "𐒠𐒡𐒢 𐄇𐄈𐄉 𑁦𑁧 𞥐𞥑 \U00011f50\U00011f51 \U0001e4f0\U00016d70",
    "\U00011de0\U00011de1a\U00016ff4b", "ⅰ ↀↁ 𐅀𐅁 ㈠㈡ 𒐀𒐁 𐩀 𑿀",
]

MARKS = [
    "e\u0301 \u00e9 a\u0323\u0301 a\u0301\u0323 \u1ea1\u0301 o\u0302\u0301 \u1ed1 n\u0303 \u00f1 A\u030a \u00c5 \u212b",
    "Z\u0351\u036b\u0343a\u0321\u0489l\u0334\u0322g\u0334\u0321o\u0338\u0327 " + "\u0301\u0323\u0334" * 8,
    "a" + "".join("\u0301\u0323\u05b0\u3099"[i % 4] for i in range(40)) + "b",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00 \uac00\u11a8 \u1100\uac00 \u3133 \uffa1\uffc2",
    "\u0915\u094d\u0937\u093f \u0915\u093c \u0958 \u09c7\u09be \u09cb \u0b47\u0b56 \u0bc6\u0bbe \u0cc6\u0cc2\u0cd5 \u0dd9\u0dcf",
    "\u304b\u3099 \u304c \uff76\uff9e \u30cf\u309a \uff8a\uff9f \u30fc \u3099 \u309b", "\u0344 \u0374 \u037e \u0387 \u1f71 \u03ac \u1fee \u1ffd",
    "\ufb01 \ufb03 \ufb06 \u0132 \u01c4 \u2460 \u3300 \u33ff \u32ff \u00bd \u2075 \uff21\uff42\uff11 \u2126 \u212a \u2057 \u2a74",
    "K\u212a \u017f\u00df\u1e9e \u0130I\u0131i \u03a3\u03c3\u03c2 \u01c5 \u10d0\u1c90 \u13a0\uab70 \u2c2f\ua64a\u1c88",
    "\u0f73 \u0f71\u0f72 \u0f71\u0f74\u0f80 \U0001d15e \U0001d157\U0001d165 \U000110ab \U00011131\U00011127",
    "\U00011938 \U00011935\U00011930 \U0001193e \u07fd\u0334 \u0898\u0301\u0897 \u1abf\u0316 \U00010efd\u0301 \U0001e08f \ua7f2\ua7f4 \U00010781",
    "\u1c89\u1c8a \ua7cb\ua7cc\ua7da\ua7dc \U00010d50\U00010d65 \U00016ea0 \ua7ce\ua7d2\ua7d4", "\ufdfa \ufdfb \ufb4f \ufe70 \ufefb",
]

EMOJI = [
    "😀 😃😄 🙂🙃 👍👍🏽👍🏿 👨‍👩‍👧‍👦 👩🏾‍🚀 🏳️‍🌈 🏴‍☠️ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "🇩🇪🇫🇷🇯🇵 1️⃣#️⃣*️⃣ ❤️❤ ☎︎☎️ ©®™ ✔✖ ♀♂ 🫠🫡🫶🏼 🫨🩷🪿 🫩🫆", "text😀text😀😀 😀. 😀! (😀) 😀1 a😀b", "🧑‍🤝‍🧑🧑🏻‍❤️‍💋‍🧑🏿 👁️‍🗨️ 🐻‍❄️ 🤷🏽‍♀️",
    "←↑→↓ ∀x∈ℝ: ∑∏∫√∞≠≤≥ αβγδ ℵ₀ ⌘⌥⇧ ░▒▓█ ┌─┐│└┘ ★☆♠♣ ♩♪♫ ⠓⠑⠇⠇⠕ ¿¡ «» „“”‚‘’ – — … ‰ € £ ¥ ₹ ₿",
]

SPECIALS = [
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|im_start|>user\thi<|im_end|>",
    "<|im_ start|> <|im_start <|endoftext| <<|endoftext|>>", "<s> hello </s><s>x</s>  <s>", "the [MASK] is [MASK], x[MASK]y [mask]s  [MASK]  .",
    "[LEFT]a  [LEFT]b\u3000[LEFT]", "[RIGHT]  a[RIGHT]\t\u2003b[RIGHT]", "  [BOTH]  [BOTH]\t[BOTH]x[BOTH]", "WORD word Word wordy sword a_word word1 -word- \u0301word word\u0301 wordé",
    "longest longestmatch longestmatchwins longestmatc", "<unk> <0x41> <0x0A> ##b a##b b</w>", "ab\u2581cd \u2581\u2581x \u2581", "Ġthe Ċ ĠĠ Ā ā ŀ Ń éĠ", "STRASSE Straße STRAẞE ŠTRASSE",
    "[SPACE] a  b   [SPACE]c", "<|repo|><|repo_name|><|repo_",
]

LONG = ["a" * 300, "ab" * 200, "the" * 100, "=" * 80 + "-" * 80, "x" + "é" * 150, "汉" * 120, "😀" * 40, "\u0301" * 90, "!?" * 60, "aA" * 50, "Donaudampfschifffahrtsgesellschaftskapitän" * 3,
        "\u0915\u094d" * 50, "1a" * 60]

INVALID = [
    b"lone \x80 \xbf \xff \xfe bytes", b"overlong \xc0\x80 \xc1\xbf \xe0\x80\x80 \xf0\x80\x80\x80", b"surrogates \xed\xa0\x80 \xed\xb0\x80 \xed\xa0\xbd\xed\xb8\x80",
    b"too large \xf4\x90\x80\x80 \xf5\x80\x80\x80 \xf8\x88\x80\x80\x80", b"cut \xc3", b"cut \xe2\x82", b"cut \xf0\x9f\x98", b"cut \xe2\x82x \xf0\x9f\x98y \xf0\x9fz \xc3\xc3\xa9",
    b"\xe9t\xe9 latin-1 \xfcber", b"\xff\xfeu\x00t\x00f\x00", bytes(range(128, 256)), b"\xf0\x9f\x98\x80\x80\xf0\x9f\x98\x80", b"\x80", b"\xf4\x8f\xbf\xbf ok \xf4\x8f\xbf",
]


def scripts():
    """Some letters of every script that Unicode names, eight scripts a line, and code points newer than that."""
    found = {}
    for c in range(0x80, 0x32400):
        name = unicodedata.name(chr(c), "")
        if unicodedata.category(chr(c))[0] in "LMN" and name:
            found.setdefault(name.split("-")[0].split()[0], []).append(chr(c))
    words = [" ".join(("".join(v[:5]), "".join(v[len(v) // 2:len(v) // 2 + 5]))) for k, v in sorted(found.items()) if len(v) > 3]
    lines = [" ".join(words[i:i + 8]) for i in range(0, len(words), 8)]
    new = [0x1c89, 0xa7cb, 0x105c0, 0x10d40, 0x10d4a, 0x10d50, 0x10d69, 0x10d6e, 0x10d8e, 0x11241, 0x11380, 0x113b8, 0x113d4, 0x116d0, 0x11b00, 0x11bc0,
           0x11f02, 0x11f34, 0x11f43, 0x11f50, 0x13439, 0x13441, 0x13460, 0x16100, 0x1611e, 0x16130, 0x16d40, 0x16d6d, 0x1b132, 0x1b155, 0x1cc00, 0x1ccf0,
           0x1d2c0, 0x1df25, 0x1e030, 0x1e08f, 0x1e4d0, 0x1e4ec, 0x1e4f0, 0x1e5d0, 0x1e5f1, 0x1e5ff, 0x1f6dc, 0x1fae8, 0x2b739, 0x2ebf0, 0x31350]
    text = [chr(c) for c in new]
    return lines + [" ".join(a + b for a, b in zip(text, text[1:])), "".join(text), " ".join("a" + c + "1" for c in text)]


def hard_lines():
    strings = ENGLISH.splitlines() + SPACES + CONTROLS + NUMBERS + MARKS + EMOJI + SPECIALS + LONG + scripts()
    lines = [s.encode("utf-8", "surrogatepass") for s in strings] + INVALID
    assert not any(b"\n" in line for line in lines)
    return lines


def text_of(raw):
    return raw.decode("utf-8", errors="replace")


# ---- the small tokenizers ------------------------------------------------------------------------------------------

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+")


def train_byte_level(texts):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=620, show_progress=False, min_frequency=2,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                     special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]))
    return t


def train_chars(texts):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = ["<0x%02X>" % b for b in range(256)]
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, show_progress=False, limit_alphabet=110, min_frequency=2,
                                                     special_tokens=["<unk>", "<s>", "</s>"] + bytes_))
    t.add_special_tokens(["<s>", "</s>"])
    d = json.loads(t.to_str())
    d["added_tokens"] = [a for a in d["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(d))


def train_suffix(texts):
    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Lowercase()
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.decoder = decoders.BPEDecoder()
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, show_progress=False, limit_alphabet=80, min_frequency=2, special_tokens=["<unk>"],
                                                     continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    return t


def dump(t):
    return json.loads(t.to_str())


# ---- the cases -----------------------------------------------------------------------------------------------------

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTES_REGEX = dict(BYTES, use_regex=True)


def seq(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def added(content, special=False, normalized=False, **flags):
    return dict({"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}, **flags)


def norm(*steps):
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def template(single, tokens):
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p, "type_id": 0}} for p in single]
    return {"type": "TemplateProcessing", "single": pieces, "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {k: {"id": k, "ids": v, "tokens": [k] * len(v)} for k, v in tokens.items()}}


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

ODD_PATTERNS = [
    r"\w+", r"\W+", r"\bw", r"o\B", r"\h+", r"\H+", r"\d+", r"\D+", r"\s", r"\S+", r"\v", r"\p{Han}+", r"\p{Letter}+", r"\p{^L}+", r"\P{Ll}+", r"\p{Lowercase_Letter}",
    r"\p{Greek}|\p{Hebrew}", r"\p{Hiragana}+|\p{Katakana}+", r"\p{M}+", r"\p{P}", r"\p{S}+", r"[[:alpha:]]+", r"[[:^space:]]+", r"[[:digit:]x]+", r"[\w'-]+", r"[^\w\s]+",
    r"[\h\s]+", r"[^\p{L}\p{M}]+", r"(?i)the|of", r"a(?i)b|c", r"(?i:THE|x(?-i)Y)", r"(?m:.)+", r".+", r".", r"^.", r".$", r"\A.", r".\z", r"a{,2}b", r"\p{N}{1,3}+", r"\p{N}{2}?", r"[a-c]{2,}?",
    r"\x41|\x{e9}|\u00e8", r"a++b|e*+x", r"(?>a|ab)c", r"(?<=t)h", r"(?<!t)h", r"(?=e)", r"x*", r"|", r"(?:)", r"(a)(b)\1?", r"(?<name>t)h\k<name>?".replace(r"\k<name>?", ""), r"\R", r"\X", r"{}|{x", r"\{|\}|\-|\/",
    r"[\]\[\\-]", r"[a\-z]", r"[&&&]".replace("&&&", "&|"), r"(?#comment)th", r"\t| {2,}", r"[\x00-\x1f]", r"[一-龥぀-ゟ゠-ヿ]+", r"\p{sc=Han}".replace("sc=Han", "Thai") + "+", r"[^\x00-\x7f]+", r"\e\[", r"\a|\f", r"]|}|[\d-]", r"[😀-😎é-ü]", r"[[:punct:]]", r"[\w]+", r"[[:alnum:]_]+", r"\p{Punct}|\p{Alphabetic}+",
]


def cases():
    yield "plain GPT-2", "bytes", {}
    for name in ("llama3", "qwen2"):
        yield name, name, {}
    yield "SmolLM: single digits, merges as strings", "smollm", {}
    yield "Llama 2", "chars", {}
    yield "GPT-1: suffix and prefix", "suffix", {}
    yield "prefix space", "bytes", {"pre_tokenizer": dict(BYTES_REGEX, add_prefix_space=True)}
    yield "prefix space, no pattern", "bytes", {"pre_tokenizer": dict(BYTES, add_prefix_space=True)}
    yield "no pre-tokenizer", "bytes", {"pre_tokenizer": None}
    yield "digits together", "bytes", {"pre_tokenizer": seq({"type": "Digits", "individual_digits": False}, BYTES)}
    yield "digits apart", "bytes", {"pre_tokenizer": seq({"type": "Digits", "individual_digits": True}, BYTES)}
    for behavior in BEHAVIORS:
        for invert in (False, True):
            yield f"split at spaces, {behavior}, invert {invert}", "bytes", {"pre_tokenizer": seq(split(r"\s+", behavior, invert), BYTES)}
        yield f"split at a string, {behavior}", "bytes", {"pre_tokenizer": seq(split("th", behavior, False, "String"), BYTES)}
        yield f"punctuation, {behavior}", "bytes", {"pre_tokenizer": seq({"type": "Punctuation", "behavior": behavior}, BYTES)}
        yield f"split at one character, {behavior}", "bytes", {"pre_tokenizer": seq(split(r"[aeiou]", behavior), BYTES)}
    for pattern in ODD_PATTERNS:
        yield f"pattern {pattern}", "bytes", {"pre_tokenizer": seq(split(pattern, "Removed"), BYTES)}
    for name, pattern in (("GPT-4o", GPT4O), ("DeepSeek 3", DEEPSEEK3)):
        yield name, "bytes", {"pre_tokenizer": seq(split(pattern), BYTES)}
    yield "DeepSeek Coder", "bytes", {"pre_tokenizer": seq(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                                                          {"type": "Digits", "individual_digits": True}, BYTES)}
    yield "StarCoder 2", "bytes", {"pre_tokenizer": seq({"type": "Digits", "individual_digits": True}, BYTES_REGEX), "model": {"ignore_merges": True}}
    yield "Falcon", "bytes", {"pre_tokenizer": seq({"type": "Punctuation", "behavior": "Contiguous"}, BYTES_REGEX, {"type": "Digits", "individual_digits": False},
                                                  split("[0-9][0-9][0-9]"))}
    yield "bytes twice", "bytes", {"pre_tokenizer": seq(BYTES_REGEX, BYTES)}
    for name in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer"):
        yield name, "bytes", {"pre_tokenizer": seq({"type": name}, BYTES)}
    yield "CharDelimiterSplit", "bytes", {"pre_tokenizer": seq({"type": "CharDelimiterSplit", "delimiter": "e"}, BYTES)}
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield name, "bytes", {"normalizer": {"type": name}}
    for left in (False, True):
        for right in (False, True):
            yield f"strip {left} {right}", "bytes", {"normalizer": {"type": "Strip", "strip_left": left, "strip_right": right}}
    yield "replace a string", "bytes", norm({"type": "Replace", "pattern": {"String": "the"}, "content": "<T>"})
    yield "replace a pattern", "bytes", norm({"type": "Replace", "pattern": {"Regex": r"\s+|\p{M}"}, "content": "$1 "})
    yield "prepend", "bytes", norm({"type": "Prepend", "prepend": "\u2581x"})
    yield "bytes as normalizer", "bytes", dict(norm({"type": "NFC"}, {"type": "ByteLevel"}), pre_tokenizer=split("Ġ", "MergedWithNext"))
    yield "normalizers in a row", "bytes", norm({"type": "NFKD"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": r"\p{Mn}"}, "content": ""},
                                               {"type": "Strip", "strip_left": True, "strip_right": True})
    for scheme in ("always", "first", "never"):
        for whether in (True, False):
            space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": whether}
            yield f"Metaspace {scheme}, split {whether}", "chars", {"normalizer": None, "pre_tokenizer": space, "decoder": space}
    yield "Metaspace first after Strip", "chars", dict(norm({"type": "Strip", "strip_left": True, "strip_right": False}),
                                                       pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True})
    for fuse in (True, False):
        for fallback in (True, False):
            yield f"fuse {fuse}, byte fallback {fallback}", "chars", {"model": {"fuse_unk": fuse, "byte_fallback": fallback}}
    yield "no unknown token", "chars", {"model": {"unk_token": None, "byte_fallback": False}}
    yield "no decoder", "bytes", {"decoder": None}
    yield "decoder of a sequence", "bytes", {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "Ġt"}, "content": "ĠT"}, BYTES,
                                                                                       {"type": "Strip", "content": " ", "start": 2, "stop": 1}]}}
    specials = [added("<|endoftext|>", True), added("<|im_start|>", True), added("<|im_end|>", True)]
    flags = [added("[LEFT]", lstrip=True), added("[RIGHT]", rstrip=True), added("[BOTH]", lstrip=True, rstrip=True), added("longest"), added("longestmatch"),
             added("word", single_word=True), added("[MASK]", True, lstrip=True), added("<|repo"), added("<|repo_name|>", True), added("[SPACE]", single_word=True, rstrip=True), added("  ")]
    yield "added tokens", "bytes", {"added_tokens": specials + flags}
    yield "added tokens, normalized", "bytes", dict({"added_tokens": specials + [dict(a, normalized=True) for a in flags]}, normalizer={"type": "Lowercase"})
    yield "added tokens, normalized, prepended", "chars", {"added_tokens": [added("<s>", True), added("</s>", True, normalized=True), added("the", normalized=True), added("of")]}
    yield "no added tokens", "bytes", {"added_tokens": []}
    yield "BOS and EOS", "bytes", {"post_processor": template(["<s>", "A", "</s>"], {"<s>": [3], "</s>": [4, 4]})}
    yield "text twice", "bytes", {"post_processor": template(["A", "<s>", "A"], {"<s>": [3]})}
    yield "Roberta", "bytes", {"post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 4], "cls": ["<s>", 3], "trim_offsets": True, "add_prefix_space": True}}
    yield "Bert", "bytes", {"post_processor": {"type": "BertProcessing", "sep": ["</s>", 4], "cls": ["<s>", 3]}}


def apply_patch(base, patch):
    d = copy.deepcopy(base)
    for key, value in patch.items():
        if key == "model":
            d["model"].update(value)
        else:
            d[key] = value
    return d


def bases(texts):
    t = train_byte_level(texts)
    out = {"bytes": dump(t)}
    small = copy.deepcopy(out["bytes"])
    small["model"]["vocab"] = {k: v for k, v in small["model"]["vocab"].items() if v < 480}
    small["model"]["merges"] = [m for m in small["model"]["merges"] if "".join(m) in small["model"]["vocab"]]
    llama3 = copy.deepcopy(small)
    llama3["pre_tokenizer"] = seq(split(LLAMA3), BYTES)
    llama3["model"]["ignore_merges"] = True
    llama3["model"]["vocab"].update({"Ġtokenizer": 480, "'ve": 481, "123": 482})
    llama3["added_tokens"] = [added("<|endoftext|>", True)] + [added(f"<|reserved_{i}|>", True) for i in range(8)]
    llama3["post_processor"] = {"type": "Sequence", "processors": [BYTES_REGEX, template(["<s>", "A"], {"<s>": [3]})]}
    qwen2 = copy.deepcopy(small)
    qwen2["normalizer"] = {"type": "NFC"}
    qwen2["pre_tokenizer"] = seq(split(QWEN2), BYTES)
    qwen2["post_processor"] = BYTES
    smollm = copy.deepcopy(small)
    smollm["pre_tokenizer"] = seq({"type": "Digits", "individual_digits": True}, BYTES_REGEX)
    smollm["model"]["merges"] = ["#version: 0.2"] + [" ".join(m) for m in smollm["model"]["merges"]]
    out.update(llama3=llama3, qwen2=qwen2, smollm=smollm, suffix=dump(train_suffix(texts)))
    chars = dump(train_chars(texts))
    chars["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    chars["pre_tokenizer"] = None
    chars["post_processor"] = template(["<s>", "A"], {"<s>": [chars["model"]["vocab"]["<s>"]]})
    chars["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                         {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    out["chars"] = chars
    return out


def sha256(ids):
    return hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).hexdigest()


def attempt(f):
    """None where the reference panics: nothing to compare with."""
    try:
        return f()
    except BaseException as e:  # a Rust panic is no Exception
        if type(e).__name__ != "PanicException":
            raise
        return None


def encode(t, raw, **options):
    return attempt(lambda: t.encode(text_of(raw), **options).ids)


def decode(t, raw, ids, skip):
    """1 if it is the text itself, else its bytes in hex."""
    text = attempt(lambda: t.decode(ids, skip_special_tokens=skip)) if ids else ""
    return 1 if text == text_of(raw) else text if text is None else text.encode().hex()


def crc(ids):
    return ids if ids is None else zlib.crc32(struct.pack("<%di" % len(ids), *ids))


def run(t, lines, whole, base, patch):
    """ids of each line and their decoded text (the ids' CRC-32 in the many cases of which only the words differ), ids
    without the template's, and the hash of the whole file's."""
    ids = [encode(t, raw) for raw in lines]
    all_ids = encode(t, whole)
    out = {"whole": all_ids and sha256(all_ids), "plain": [encode(t, raw, add_special_tokens=False) for raw in lines[:3]]}
    if patch and set(patch) <= {"pre_tokenizer", "normalizer", "model"}:
        out["crc"] = [crc(some) for some in ids]
    else:
        out["ids"] = ids
        out["decoded"] = [[decode(t, raw, some, skip) for skip in (True, False)] for raw, some in zip(lines, ids)]
    return out


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    lines = hard_lines()
    whole = b"\n".join(lines)
    (OUT / "hard.txt").write_bytes(whole)
    texts = [text_of(raw) for raw in lines if b"\0" not in raw] * 2
    made = {path.stem: json.loads(path.read_text()) for path in OUT.glob("*.json")}
    if not made:  # training is not the same every time
        made = bases(texts)
        for name, base in made.items():
            (OUT / f"{name}.json").write_text(json.dumps(base, ensure_ascii=False, separators=(",", ":")) + "\n")
    out = []
    for name, base, patch in cases():
        t = Tokenizer.from_str(json.dumps(apply_patch(made[base], patch)))
        out.append(dict(name=name, base=base, patch=patch, **run(t, lines, whole, base, patch)))
        panics = sum(some is None for some in out[-1].get("ids", out[-1].get("crc")))
        if panics:
            print(f"{name}: the reference panics on {panics} of {len(lines)} lines")
    out.append(dict(name="SmolLM2", base="smollm2-135m", patch={}, **run(Tokenizer.from_file(sys.argv[1]), lines, whole, '', {})))
    text = json.dumps({"tokenizers": tokenizers.__version__, "cases": out}, separators=(",", ":"))
    with open(OUT / "cases.json.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        f.write(text.encode())
    print(len(out), "cases,", len(lines), "lines,", len(whole), "bytes;", len(text), "bytes of golden data before gzip")


if __name__ == "__main__":
    main()
