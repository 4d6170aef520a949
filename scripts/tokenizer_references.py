"""The reference of a tokenizer's file: tiktoken for *.tiktoken, llama.cpp for a .gguf, sentencepiece for a .model where it is asked for,
and transformers' AutoTokenizer for everything else; a lone file is put into a folder for it.

  reference = of(path)      encode(text) -> ids    encode_all(texts)    decode(ids) -> text, or decode is None    pieces: texts of tokens"""
import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path


class Reference:
    def __init__(self, encode, decode=None, pieces=(), encode_all=None):
        self.encode, self.decode, self.pieces = encode, decode, list(pieces)
        self.encode_all = encode_all or (lambda texts: [encode(text) for text in texts])


QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tiktoken_reference(path):
    import tiktoken
    from tokenizers import normalizers
    import tiktoken_ext.openai_public as public
    ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in path.read_bytes().splitlines() if line)}
    n = max(ranks.values()) + 1
    name = path.name.removesuffix(".tiktoken")
    sources = {"cl100k_base": public.cl100k_base, "o200k_base": public.o200k_base, "r50k_base": public.r50k_base, "p50k_base": public.p50k_base}
    nfc = False
    if name in sources:
        loaded = public.load_tiktoken_bpe
        public.load_tiktoken_bpe = lambda *a, **k: ranks
        made = sources[name]()
        public.load_tiktoken_bpe = loaded
        pattern, special = made["pat_str"], made["special_tokens"]
    elif name == "qwen":
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
        pattern, special, nfc = QWEN, {t: n + i for i, t in enumerate(names)}, True
    else:
        pattern, special = public.r50k_pat_str, {"<|endoftext|>": n, "<|startoftranscript|>": n + 1}
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    pieces = [t.decode("utf-8", "ignore") for t in ranks] + list(special) * 20
    normalize = normalizers.NFC().normalize_str if nfc else str
    return Reference(lambda text: encoding.encode(normalize(text), allowed_special="all"), encoding.decode, pieces)


def name_specials(path):
    """Files without a list have mistral-common's, which transformers asks that library for."""
    data = json.loads(path.read_text())
    names = ("<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] "
             "[PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]").split()
    data.setdefault("special_tokens", [{"rank": i, "token_str": name} for i, name in enumerate(names)])
    path.unlink()
    path.write_text(json.dumps(data))


def transformers_reference(path):
    from transformers import AutoTokenizer
    folder = path
    if path.is_file():
        folder = Path(tempfile.mkdtemp())
        name = "tekken.json" if "tekken" in path.name else "tokenizer.model" if ".model" in path.name else path.name
        os.symlink(path.resolve(), folder / name)
        if name == "tekken.json":
            name_specials(folder / name)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocab = tokenizer.get_vocab()
    pieces = [tokenizer.decode([i]) for i in list(vocab.values())[:30000]]
    pieces += [t.replace("\u2581", " ") for t in list(vocab)[:30000]] + [str(t) for t in tokenizer.added_tokens_decoder.values()][:300]
    return Reference(lambda text: tokenizer(text)["input_ids"], tokenizer.decode, [p for p in pieces if p], lambda texts: tokenizer(texts)["input_ids"])


def llama_program():
    """scripts/llama_tokenize.c, linked to the library that scripts/get-llama-cpp builds."""
    cache = Path(os.environ.get("NIBBLE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nibble")
    program, source = cache / "llama_tokenize", cache / "llama-cpp-0.3.36/source/vendor/llama.cpp"
    builds = [build for build in cache.glob("llama-cpp-0.3.36/build*") if (build / "src/libllama.a").exists()]
    if not builds:
        raise SystemExit("llama.cpp is not there; scripts/get-llama-cpp fetches it")
    if not program.exists():
        libraries = [builds[0] / "src/libllama.a"] + [builds[0] / f"ggml/src/libggml{part}.a" for part in ("", "-cpu", "-base")]
        with tempfile.TemporaryDirectory() as work:
            subprocess.run(["gcc", "-O1", "-c", "-o", f"{work}/o", f"-I{source}/include", f"-I{source}/ggml/include", Path(__file__).parent / "llama_tokenize.c"], check=True)
            subprocess.run(["g++", "-o", f"{work}/program", f"{work}/o", *libraries, "-fopenmp", "-lpthread", "-ldl"], check=True)
            os.replace(f"{work}/program", program)
    return program


def llama_reference(path):
    program = llama_program()

    def encode_all(texts):
        run = subprocess.run([program, path], input="\n".join(texts).encode() + b"\n", stdout=subprocess.PIPE, check=True)
        return [[int(i) for i in line.split()] for line in run.stdout.decode().split("\n")[:-1]]
    return Reference(lambda text: encode_all([text])[0], encode_all=encode_all)


def of(path):
    if path.suffix == ".tiktoken":
        return tiktoken_reference(path)
    return llama_reference(path) if path.suffix == ".gguf" else transformers_reference(path)
