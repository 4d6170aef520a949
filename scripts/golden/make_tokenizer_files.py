#!/usr/bin/env python3
"""Golden data for the files that tokenizers come in beside tokenizer.json. Small vocabularies are trained here on
tests/golden/tokenizer/hard.txt and written in each format; the ids of its lines are those of the library that the
format belongs to (tiktoken) or of transformers, and the versions go into the data.

  tests/golden/tokenizer_files/CASE/...        a folder as it is published, or a lone file
  tests/golden/tokenizer_files/class_KIND.json  vocabularies that classes of transformers are put over
  tests/golden/tokenizer_files/expected.json.gz   for each case what to open and the ids of every line

usage: make_tokenizer_files.py   (run in the repository's root)"""
import base64
import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path

import sentencepiece
import tiktoken
import tiktoken_ext.openai_public as public
import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tokenizer_references  # noqa: E402

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


# ---- SentencePiece ---------------------------------------------------------------------------------------------------

RULES = "".join("%s\t%s\n" % (" ".join("%X" % ord(c) for c in a), " ".join("%X" % ord(c) for c in b))
                for a, b in [("\u00e9", "e"), ("e\u0301", "e"), ("\ufb01", "fi"), ("\u00a0", " "), ("\u3000", " "), ("A", "a"), ("\u212b", "\u00e5"), ("\u200b", "")])
SPM = {
    "spm_bpe": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True),
    "spm_bpe_gemma": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
                          user_defined_symbols=["\n\n", "\u2581\u2581", "<tag>", "(a+b)*", "the"], control_symbols=["<ctl>", "[MASK]"]),
    "spm_bpe_rules": dict(model_type="bpe", normalization_rule_tsv="rules", unk_piece="[UNK]", bos_id=-1, eos_id=-1, unk_id=0),
    "spm_bpe_keep": dict(model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False, pad_id=3, user_defined_symbols=["ing", "=", "=="]),
    "spm_unigram": dict(model_type="unigram", normalization_rule_tsv="rules"),
    "spm_unigram_bytes": dict(model_type="unigram", normalization_rule_name="identity", byte_fallback=True, user_defined_symbols=["<tag>", "\u2581\u2581"]),
    "spm_unigram_rules": dict(model_type="unigram", normalization_rule_tsv="rules", add_dummy_prefix=False, unk_id=2, bos_id=0, eos_id=1),
    "spm_char": dict(model_type="char", normalization_rule_name="identity"),
}
# Read by SentencePiece alone: transformers passes over what they are.
SPM_OWN = {
    "spm_word": dict(model_type="word", normalization_rule_tsv="rules"),
    "spm_word_bytes": dict(model_type="word", normalization_rule_name="identity", byte_fallback=True, user_defined_symbols=["the", "<tag>"]),
    "spm_word_keep": dict(model_type="word", normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False),
    "spm_word_suffix": dict(model_type="word", normalization_rule_name="identity", treat_whitespace_as_suffix=True),
    "spm_bpe_suffix": dict(model_type="bpe", normalization_rule_name="identity", treat_whitespace_as_suffix=True, byte_fallback=True),
    "spm_unigram_suffix": dict(model_type="unigram", normalization_rule_tsv="rules", treat_whitespace_as_suffix=True, remove_extra_whitespaces=False),
    "spm_char_suffix": dict(model_type="char", normalization_rule_name="identity", treat_whitespace_as_suffix=True, add_dummy_prefix=False),
}


def make_sentencepiece():
    text = OUT / "text.tmp"
    rules = OUT / "rules.tmp"
    rules.write_text(RULES)
    english = LINES[:13] * 60 # so that rare characters are not covered
    text.write_text("\n".join(line.replace("\0", "") for line in english + LINES[:75]) + "\n")
    for name, options in {**SPM, **SPM_OWN}.items():
        path = folder(name)
        if "normalization_rule_tsv" in options:
            options = {**options, "normalization_rule_tsv": str(rules)}
        size = {} if options["model_type"] == "char" else {"vocab_size": 700 if options.get("byte_fallback") else 500}
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(path / "tokenizer"), hard_vocab_limit=False, character_coverage=0.98,
                                                 minloglevel=2, max_sentence_length=20000, num_threads=1, **size, **options)
        (path / "tokenizer.vocab").unlink()
        own = sentencepiece.SentencePieceProcessor(str(path / "tokenizer.model"))
        if name in SPM_OWN:  # lines that spell a special token are transformers' alone
            case(name, path / "tokenizer.model", lambda line: None if any(t in line for t in ("<s>", "</s>", "<unk>", "\0")) else own.encode(line))
            continue
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
        case(name, path / "tokenizer.model", lambda line: tokenizer(line)["input_ids"])
        differ = sum(own.encode(line) != ids for line, ids in zip(LINES, cases[-1]["ids"]))
        print(f"{name}: {own.get_piece_size()} pieces; SentencePiece gives other ids than transformers for {differ} of {len(LINES)} lines")
    text.unlink()
    rules.unlink()


def make_gguf():
    """The vocabulary of a model trained above as GGUF's kind "t5", as llama.cpp's converter writes it, with llama.cpp's ids."""
    from gguf import GGUFWriter
    from sentencepiece import sentencepiece_model_pb2 as pb
    name = "spm_unigram"
    model = pb.ModelProto()
    model.ParseFromString((OUT / name / "tokenizer.model").read_bytes())
    path = folder("gguf_" + name) / "vocab.gguf"
    writer = GGUFWriter(path, "t5")
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p.piece.encode() for p in model.pieces])
    writer.add_token_scores([p.score for p in model.pieces])
    writer.add_token_types([p.type for p in model.pieces])
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_unk_token_id(model.trainer_spec.unk_id)
    writer.add_bos_token_id(model.trainer_spec.bos_id)
    writer.add_eos_token_id(model.trainer_spec.eos_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    ids = dict(zip(LINES, tokenizer_references.of(path).encode_all(LINES)))
    case("gguf " + name, path, ids.get)


# ---- folders: what stands beside the vocabulary ----------------------------------------------------------------------

def flags(content, **changes):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **changes}


def make_folder(name, files, config=None, **settings):
    """`files`: names and texts. Settings go to tokenizer_config.json."""
    path = folder(name)
    for file, text in files.items():
        (path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    if settings:
        write_json(path / "tokenizer_config.json", settings)
    write_json(path / "config.json", config or {})
    from_transformers(name, path)


def make_folders():
    digits = train_bytes(420)
    digits.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    digits.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    bytes_ = {"tokenizer.json": digits.to_str()}
    make_folder("folder_gpt2_class", bytes_, tokenizer_class="GPT2Tokenizer", add_prefix_space=True, bos_token="<s>")
    make_folder("folder_qwen2_class", bytes_, {"model_type": "qwen2"}, tokenizer_class="PreTrainedTokenizerFast")
    make_folder("folder_llama_class_of_bytes", bytes_, {"model_type": "llama"}, tokenizer_class="LlamaTokenizerFast", add_bos_token=True, bos_token="<|im_start|>")
    make_folder("folder_added", bytes_, tokenizer_class="PreTrainedTokenizerFast", pad_token="[PAD]", unk_token={**flags("the"), "__type": "AddedToken"},
                extra_special_tokens=["[SPACE]"], added_tokens_decoder={"500": flags("[MASK]", lstrip=True), "422": flags("WORD", single_word=True, special=False)})
    make_folder("folder_older", {**bytes_, "special_tokens_map.json": json.dumps({"bos_token": flags("<s>"), "additional_special_tokens": ["[LEFT]"]}),
                                 "added_tokens.json": json.dumps({"[BOTH]": 430, "word": 431})}, tokenizer_class="PreTrainedTokenizerFast")
    pieces = {"tokenizer.json": train_pieces().to_str()}
    make_folder("folder_llama_class", pieces, {"model_type": "llama"}, tokenizer_class="LlamaTokenizer", add_bos_token=True)
    make_folder("folder_llama_legacy", pieces, tokenizer_class="LlamaTokenizer", legacy=True, add_prefix_space=True)
    make_folder("folder_llama_no_prefix", pieces, tokenizer_class="LlamaTokenizerFast", add_prefix_space=False)
    words = train_words()
    make_folder("folder_bert_class", {"tokenizer.json": words.to_str()}, {"model_type": "bert"}, do_lower_case=False, tokenize_chinese_chars=False)
    lines = "".join(t + "\n" for t, _ in sorted(words.get_vocab().items(), key=lambda item: item[1]))
    make_folder("folder_vocab_txt", {"vocab.txt": lines}, {"model_type": "bert"}, tokenizer_class="BertTokenizer", strip_accents=False, do_lower_case=True)
    model = (OUT / "spm_bpe/tokenizer.model").read_bytes()
    make_folder("folder_spm", {"tokenizer.model": model}, tokenizer_class="TokenizersBackend", add_bos_token=True, add_eos_token=True, bos_token="<s>", eos_token="</s>")
    keep = (OUT / "spm_bpe_keep/tokenizer.model").read_bytes()
    make_folder("folder_spm_llama_class", {"tokenizer.model": keep}, {"model_type": "llama"}, tokenizer_class="LlamaTokenizer", add_bos_token=True)
    unigram = (OUT / "spm_unigram/tokenizer.model").read_bytes()
    make_folder("folder_spm_t5_class", {"spiece.model": unigram}, {"model_type": "t5"}, tokenizer_class="T5Tokenizer", extra_ids=12)
    make_folder("folder_spm_t5_type", {"spiece.model": unigram}, {"model_type": "mt5"}, eos_token="</s>", mask_token="<mask>")
    make_folder("folder_llama3", {"tokenizer.model": (OUT / "llama3/tokenizer.model").read_bytes()}, tokenizer_class="PreTrainedTokenizerFast",
                add_bos_token=True, bos_token="<|begin|>", eos_token="<|end|>", added_tokens_decoder={"500": flags("<|begin|>"), "501": flags("<|end|>")})
    gpt2 = {name: (OUT / "gpt2" / name).read_text() for name in ("vocab.json", "merges.txt")}
    make_folder("folder_vocab_json", gpt2, {"model_type": "gpt2"}, tokenizer_class="GPT2Tokenizer", add_prefix_space=True, add_bos_token=True)
    make_folder("folder_vocab_json_qwen", gpt2, {"model_type": "qwen3"}, tokenizer_class="Qwen2Tokenizer")


def train_pieces():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    t.train_from_iterator([line.replace(" ", "\u2581") for line in LINES[:60]], trainers.BpeTrainer(vocab_size=560, limit_alphabet=110, show_progress=False, special_tokens=special))
    made = json.loads(t.to_str())
    made["added_tokens"] = made["added_tokens"][:3]
    made["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                              "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                              "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return Tokenizer.from_str(json.dumps(made))


def train_words():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=420, limit_alphabet=150, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    return t


# ---- classes: steps of their own, over one vocabulary a kind of model ------------------------------------------------

NAMED = ["<pad>", "<s>", "</s>", "<unk>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "<mask>", "<cls>", "<sep>", "<|endoftext|>", "en_XX", "__fra__"]
CLASS_LINES = [line for i, line in enumerate(LINES) if i % 3 == 0 and "\0" not in line][:45] + [
    "Quoted ``text'' with  two   spaces, 12345 digits and\ttabs  ", "  <mask> one [MASK]two </s><s> three <unk> ", "caf\u00e9 \ufb01 \u2460 cafe\u0301 \u2581 \u2581\u2581x", "a", "One , two . n't ' ' do not 'm I 've ? ! . , ' s ' . 're seven , never"]


def class_bases():
    """Four vocabularies, whose own steps no class keeps."""
    bases = {}
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=460, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=NAMED))
    bases["bytes"] = t
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(LINES[:60], trainers.BpeTrainer(vocab_size=620, limit_alphabet=110, show_progress=False, special_tokens=NAMED + ["<0x%02X>" % b for b in range(256)]))
    bases["pieces"] = t
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator([line.lower() for line in LINES[:60]], trainers.BpeTrainer(vocab_size=420, limit_alphabet=110, show_progress=False, special_tokens=NAMED, end_of_word_suffix="</w>"))
    bases["ends"] = t
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=420, limit_alphabet=150, show_progress=False, special_tokens=NAMED))
    bases["words"] = t
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(base64.b64decode(charsmap())), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator([line for line in LINES[:60]], trainers.UnigramTrainer(vocab_size=400, show_progress=False, special_tokens=NAMED, unk_token="<unk>"))
    bases["unigram"] = t
    made = {}
    for name, t in bases.items():
        data = json.loads(t.to_str())
        data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in ("<s>", "</s>", "<unk>", "[MASK]", "<|endoftext|>")]
        made[name] = data
    return made


def charsmap():
    from sentencepiece import sentencepiece_model_pb2 as pb
    model = pb.ModelProto()
    model.ParseFromString((OUT / "spm_unigram/tokenizer.model").read_bytes())
    return base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()


ENDS = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
CLEAN = {"clean_up_tokenization_spaces": True}
SPACE = [{}, {"add_prefix_space": True}, {"add_prefix_space": False}]
LOWER = [{}, {"do_lower_case": True}, {"do_lower_case": False}]
CLASSES = {
    "bytes": {
        "GPT2Tokenizer": SPACE + [CLEAN, {**CLEAN, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}], "CodeGenTokenizer": SPACE, "Qwen2Tokenizer": SPACE, "Qwen3_5Tokenizer": SPACE, "RobertaTokenizer": SPACE, "MvpTokenizer": [{}],
        "LukeTokenizer": [{}, CLEAN, {"extra_special_tokens": ["<ent>", "<x>"]}], "BlenderbotTokenizer": SPACE, "DebertaTokenizer": SPACE + [{"cls_token": "<cls>"}],
        "GPTNeoXTokenizer": [{}, {"add_bos_token": True}], "CohereTokenizer": SPACE + [{"image_token": "<img>", "extra_special_tokens": {"x_token": "<x>"}, "bos_token": "<s>", "mask_token": "[MASK]"}], "NougatTokenizer": [{}],
        "WhisperTokenizer": [{}, {"task": "transcribe"}, {"predict_timestamps": True, "task": "translate"}],
    },
    "ends": {"CLIPTokenizer": [{}, {"bos_token": "<s>"}], "HerbertTokenizer": [{}], "OpenAIGPTTokenizer": [{}]},
    "pieces": {
        "LlamaTokenizer": SPACE + [{"legacy": True}], "CodeLlamaTokenizer": SPACE + [{"extra_special_tokens": ["x"], "prefix_token": "<PRE>"}], "GemmaTokenizer": [{}, {"bos_token": "<s>"}],
        "Siglip2Tokenizer": [{}], "Tipsv2Tokenizer": LOWER, "ReformerTokenizer": [{}],
        "NllbTokenizer": [{}, {"src_lang": "deu_Latn"}, {"legacy_behaviour": True, "extra_special_tokens": ["eng_Latn"]}, {"additional_special_tokens": ["<x>"], "src_lang": "<x>"}],
        "SeamlessM4TTokenizer": [{}, {"src_lang": "fra"}, {"src_lang": "__fra__"}],
    },
    "words": {
        "BertTokenizer": LOWER + [CLEAN] + [{"strip_accents": False}, {"tokenize_chinese_chars": False}], "DistilBertTokenizer": [{}], "ConvBertTokenizer": LOWER, "DPRQuestionEncoderTokenizer": [{}],
        "SplinterTokenizer": LOWER, "MPNetTokenizer": LOWER, "FunnelTokenizer": LOWER + [{"clean_text": False, "wordpieces_prefix": "#"}],
    },
    "unigram": {
        "T5Tokenizer": [{}, CLEAN, {"add_prefix_space": False}, {"extra_ids": 3}, {"extra_special_tokens": ["<x>"]}, {"additional_special_tokens": ["<extra_id_0>"]}], "VideoPrismTokenizer": [{}],
        "XLMRobertaTokenizer": SPACE, "CamembertTokenizer": SPACE + [{"extra_special_tokens": []}], "BarthezTokenizer": SPACE,
        "AlbertTokenizer": LOWER + SPACE + [{"keep_accents": True}], "FNetTokenizer": LOWER, "RemBertTokenizer": LOWER + SPACE + [{"keep_accents": False}],
        "XLNetTokenizer": LOWER + [{"unk_id": 3}], "BigBirdTokenizer": SPACE, "DebertaV2Tokenizer": LOWER + SPACE + [{"split_by_punct": True}, {"unk_id": 3}, {"unk_token": "<unk>"}],
        "MLukeTokenizer": [{}], "PegasusTokenizer": [{}, {"offset": 5}, {"additional_special_tokens": ["<x>"]}], "XGLMTokenizer": SPACE + [{"additional_special_tokens": ["<x>"]}],
        "MBartTokenizer": [{}, {"src_lang": "de_DE"}], "MBart50Tokenizer": [{}, {"src_lang": "gl_ES"}, {"additional_special_tokens": ["en_XX"]}],
    },
}


def make_classes():
    """Each class over the vocabulary of its kind of model: ids of lines, and the text that they decode to."""
    bases, out = class_bases(), []
    for name, data in bases.items():
        write_json(OUT / f"class_{name}.json", data)
    for base, classes in CLASSES.items():
        for name, variants in classes.items():
            for settings in variants + [{"mask_token": "<mask>", "added_tokens_decoder": {"9": flags("<mask>", lstrip=True), "2": flags("</s>")}}]:
                for ends in [None, ENDS] if settings == variants[0] else [None]:
                    with tempfile.TemporaryDirectory() as path:
                        path = Path(path)
                        write_json(path / "tokenizer.json", {**bases[base], "post_processor": ends})
                        write_json(path / "tokenizer_config.json", {"tokenizer_class": name, **settings})
                        write_json(path / "config.json", {})
                        try:
                            t = AutoTokenizer.from_pretrained(path)
                            ids = [t(line)["input_ids"] for line in CLASS_LINES]
                        except Exception as error:  # the reference does not open it
                            print(f"{name} {settings}: transformers: {error}")
                            continue
                        out.append({"base": base, "ends": ends, "settings": {"tokenizer_class": name, **settings}, "ids": ids, "texts": [t.decode(i) for i in ids],
                                    "tokens": t.special_tokens_map})
    return {"lines": CLASS_LINES, "cases": out}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    make_tiktoken()
    make_llama3()
    make_tekken()
    make_gpt2()
    make_sentencepiece()
    make_gguf()
    make_folders()
    classes = make_classes()
    versions = {m.__name__: m.__version__ for m in (sentencepiece, tiktoken, tokenizers, transformers)}
    with gzip.GzipFile(OUT / "expected.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps({"made_with": versions, "cases": cases, "classes": classes}, separators=(",", ":")).encode())


main()
