"""Small tokenizers of every kind, trained by Hugging Face's tokenizers, and what can be changed about them: for the
golden data (make_tokenizer_kinds.py) and for scripts/fuzz-tokenizer."""
import base64
import json
import struct
from collections import Counter

from make_tokenizer import added, hard_lines, norm, seq, split, text_of
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIALS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
BYTE_TOKENS = ["<0x%02X>" % b for b in range(256)]


def texts():
    return [text_of(raw) for raw in hard_lines() if b"\0" not in raw] * 2


def common_texts(least):
    """Without the characters that come less often: every one of Unigram's becomes a piece."""
    counts = Counter("".join(texts()))
    return ["".join(c for c in text if counts[c] >= least) for text in texts()]


def train_wordpiece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(texts(), trainers.WordPieceTrainer(vocab_size=800, show_progress=False, limit_alphabet=250, special_tokens=SPECIALS))
    d = json.loads(t.to_str())
    ids = d["model"]["vocab"]
    d["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]]}
    return d


def train_unigram():
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(common_texts(6), trainers.UnigramTrainer(vocab_size=900, show_progress=False, unk_token="<unk>", max_piece_length=12,
                                                           special_tokens=["<unk>", "<s>", "</s>", "<pad>"]))
    d = json.loads(t.to_str())
    d["model"]["vocab"] += [[b, -12.5] for b in BYTE_TOKENS]
    return d


def train_wordlevel():
    t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    t.normalizer = normalizers.Lowercase()
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train_from_iterator(texts(), trainers.WordLevelTrainer(vocab_size=300, show_progress=False, special_tokens=SPECIALS))
    return json.loads(t.to_str())


BASES = {"wordpiece": train_wordpiece, "unigram": train_unigram, "wordlevel": train_wordlevel}


# ---- a charsmap -----------------------------------------------------------------------------------------------------

MAPPED = {"\r": " ", "\u00a0": " ", "\u3000": " ", "e\u0301": "\u00e9", "a\u0308\u0301": "\u00e4\u0301", "\ufb01": "fi", "\u00bd": "1\u20442", "\u200b": "",
          "\uff21": "A", "\u212b": "\u00c5", "\uff76": "\u30ab", "\u1100\u1161": "\uac00", "\u0344": "\u0308\u0301", "\x01": "", "#": "\uff03\uff03", "\u00ad": "",
          "\u0130": "i\u0307", "\U0001d400": "A", "\u0e33": "\u0e4d\u0e32", "\u0958": "\u0915\u093c"}


def charsmap(pairs):
    """The base64 of SentencePiece's format: a double array (tokenizer/charsmap.h), made by first fit."""
    texts, trie = b"", {}
    for text, by in pairs.items():
        node = trie
        for byte in text.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += by.encode() + b"\0"
    units, used, bases, queue = {}, {0}, set(), [(trie, 0, 0)]  # the queue: a node, its unit and its label
    while queue:
        node, at, label = queue.pop(0)
        base = next(b for b in range(1, 1 << 16) if b not in bases and not any(b ^ byte in used for byte in node))
        bases.add(base)
        used.update(base ^ byte for byte in node)
        units[at] = (at ^ base) << 10 | (0 in node) << 8 | label
        for byte, child in node.items():
            if byte == 0:
                units[base] = 1 << 31 | child
            else:
                queue.append((child, base ^ byte, byte))
    size = (max(units) | 255) + 1
    array = [units.get(i, 1 << 31) for i in range(size)]
    return base64.b64encode(struct.pack("<%dI" % (size + 1), 4 * size, *array) + texts).decode()


# ---- what can be changed --------------------------------------------------------------------------------------------

SPACES = {"type": "WhitespaceSplit"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def configurations():
    """(name, base, patch)"""
    yield from model_configurations()
    yield from step_configurations()


def model_configurations():
    yield "BERT", "wordpiece", {}
    yield "WordPiece of bytes", "wordpiece", {"normalizer": None, "pre_tokenizer": seq(SPACES, BYTES)}
    yield "WordPiece, no prefix", "wordpiece", {"model": {"continuing_subword_prefix": ""}}
    yield "WordPiece, a strange prefix", "wordpiece", {"model": {"continuing_subword_prefix": "t"}}
    yield "WordPiece, short words", "wordpiece", {"model": {"max_input_chars_per_word": 5}}
    yield "WordPiece of whole texts", "wordpiece", {"pre_tokenizer": None, "model": {"max_input_chars_per_word": 1000}}
    yield "Unigram", "unigram", {}
    yield "Unigram, byte fallback", "unigram", {"model": {"byte_fallback": True}, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}]}}
    yield "Unigram of whole texts", "unigram", {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}}
    yield "Unigram without steps", "unigram", {"normalizer": None, "pre_tokenizer": None, "decoder": None}
    yield "Unigram of bytes", "unigram", {"normalizer": None, "pre_tokenizer": BYTES, "model": {"byte_fallback": True}}
    yield "WordLevel", "wordlevel", {}
    yield "WordLevel of bytes", "wordlevel", {"normalizer": None, "pre_tokenizer": seq(SPACES, BYTES)}


def bert(**options):
    return {"type": "BertNormalizer", **dict(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True), **options}


METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
FIRST = dict(METASPACE, prepend_scheme="first")
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": charsmap(MAPPED)}


def step_configurations():
    for off in ("clean_text", "handle_chinese_chars", "lowercase"):
        yield f"BERT without {off}", "wordpiece", {"normalizer": bert(**{off: False})}
    for accents in (True, False):
        yield f"BERT, strip_accents {accents}", "wordpiece", {"normalizer": bert(strip_accents=accents, lowercase=not accents)}
    for name in ("StripAccents", "Nmt"):
        yield name, "unigram", {"normalizer": {"type": name}}
    yield "NFD, StripAccents", "unigram", norm({"type": "NFD"}, {"type": "StripAccents"})
    yield "Precompiled", "unigram", {"normalizer": PRECOMPILED}
    yield "T5", "unigram", norm(PRECOMPILED, {"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"})
    yield "XLM-R", "unigram", dict(norm(PRECOMPILED, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}), pre_tokenizer=seq(SPACES, METASPACE))
    yield "ALBERT", "unigram", norm({"type": "Replace", "pattern": {"String": "``"}, "content": '"'}, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, PRECOMPILED)
    for name, normalizer in (("nothing", None), ("Nmt", {"type": "Nmt"}), ("BERT", bert()), ("Precompiled", PRECOMPILED), ("StripAccents", {"type": "StripAccents"})):
        yield f"Metaspace first after {name}", "unigram", {"normalizer": normalizer, "pre_tokenizer": FIRST}
    yield "FixedLength", "wordpiece", {"pre_tokenizer": seq({"type": "FixedLength", "length": 3}, {"type": "Punctuation", "behavior": "Isolated"})}
    yield "FixedLength of bytes", "wordlevel", {"normalizer": None, "pre_tokenizer": seq(BYTES, {"type": "FixedLength", "length": 1})}
    yield "UnicodeScripts", "unigram", {"pre_tokenizer": {"type": "UnicodeScripts"}}
    yield "UnicodeScripts, then Metaspace", "unigram", {"pre_tokenizer": seq({"type": "UnicodeScripts"}, METASPACE)}
    yield "WordPiece decoder without cleanup", "wordpiece", {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False}}
    yield "WordPiece decoder without prefix", "wordpiece", {"normalizer": None, "decoder": {"type": "WordPiece", "prefix": "", "cleanup": True}}
    for cleanup in (True, False):
        yield f"CTC, cleanup {cleanup}", "unigram", {"decoder": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "\u2581", "cleanup": cleanup}}
    yield "CTC, empty tokens", "wordlevel", {"decoder": {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}}
    yield "BPEDecoder, empty suffix", "wordlevel", {"decoder": {"type": "BPEDecoder", "suffix": ""}}
    flags = [added("[LEFT]", lstrip=True), added("[RIGHT]", rstrip=True, normalized=True), added("[BOTH]", lstrip=True, rstrip=True, normalized=True),
             added("word", single_word=True, normalized=True), added("[MASK]", True, lstrip=True), added("the", single_word=True), added("  ")]
    yield "added tokens, BERT", "wordpiece", {"added_tokens": flags}
    yield "added tokens, Unigram", "unigram", {"normalizer": PRECOMPILED, "added_tokens": flags + [added("\ufb01n", normalized=True)]}
