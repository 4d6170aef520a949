#!/usr/bin/env python3
"""Writes tests/golden/gguf: a tiny llama in GGUF with a tensor of every block format, and what the gguf package reads
from it.

    pip install gguf==0.19.0 safetensors numpy transformers==5.23.0
    python scripts/golden/make_gguf.py tests/golden/gguf

tiny.gguf holds two layers; Q4_0 to Q8_0 are quantized by the package, the blocks of the K-quants are random bytes with
sane scales (the package reads but does not write them). expected.safetensors holds every tensor as float32 under its
Hugging Face name, rows of Q and K put back in order.
spm.gguf is a vocabulary of SentencePiece's kind without merges, with ties among its scores; spm_merges.json holds the
merges that transformers derives from it."""
import importlib.metadata
import json
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter, TokenType, dequantize, quantize
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import save_file

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, LAYERS = 256, 2, 1, 4, 4, 2
random = np.random.default_rng(7)

# Where the float16 scales of a block lie, in bytes.
SCALES = {T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}


def blocks(shape, kind):
    """Random blocks [rows, bytes] of a K-quant."""
    weights, size = GGML_QUANT_SIZES[kind]
    count = shape[0] * shape[1] // weights
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scale = (random.standard_normal((count, 1)) * 0.01).astype(np.float16)
        data[:, at : at + 2] = scale.view(np.uint8)
    return data.reshape(shape[0], -1)


def tensor(shape, kind):
    if kind in SCALES:
        return blocks(shape, kind)
    data = random.standard_normal(shape).astype(np.float32)
    if kind == T.F32:
        return data
    if kind == T.F16:
        return data.astype(np.float16)
    return quantize(data, kind)


def permuted(rows, heads):
    """As llama.cpp's converter orders the rows of Q and K: the two halves of a head interleaved."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def back(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


Q, KV = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
KINDS = [
    {"q": T.Q4_0, "k": T.Q4_1, "v": T.Q5_0, "gate": T.Q5_1, "up": T.Q8_0, "o": T.BF16, "down": T.F32},
    {"q": T.Q2_K, "k": T.Q3_K, "v": T.Q4_K, "gate": T.Q5_K, "up": T.Q6_K, "o": T.F16, "down": T.F16},
]


def layer_tensors(layer, kinds):
    g, h = f"blk.{layer}.", f"model.layers.{layer}."
    yield g + "attn_norm.weight", h + "input_layernorm.weight", (HIDDEN,), T.F32, 0
    yield g + "ffn_down.weight", h + "mlp.down_proj.weight", (HIDDEN, INTERMEDIATE), kinds["down"], 0
    yield g + "ffn_gate.weight", h + "mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN), kinds["gate"], 0
    yield g + "ffn_up.weight", h + "mlp.up_proj.weight", (INTERMEDIATE, HIDDEN), kinds["up"], 0
    yield g + "ffn_norm.weight", h + "post_attention_layernorm.weight", (HIDDEN,), T.F32, 0
    yield g + "attn_k.weight", h + "self_attn.k_proj.weight", (KV, HIDDEN), kinds["k"], KV_HEADS
    yield g + "attn_output.weight", h + "self_attn.o_proj.weight", (HIDDEN, Q), kinds["o"], 0
    yield g + "attn_q.weight", h + "self_attn.q_proj.weight", (Q, HIDDEN), kinds["q"], HEADS
    yield g + "attn_v.weight", h + "self_attn.v_proj.weight", (KV, HIDDEN), kinds["v"], 0


def metadata(writer, tokens):
    writer.add_name("Tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_array("test.nested", [[1, 2], [3]])
    for kind, value in (("uint8", 200), ("int8", -3), ("uint16", 60000), ("int16", -300), ("int32", -70000)):
        getattr(writer, f"add_{kind}")(f"test.{kind}", value)
    writer.add_uint64("test.uint64", 1 << 60)
    writer.add_int64("test.int64", -(1 << 60))
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL, TokenType.USER_DEFINED] + [TokenType.NORMAL] * (len(tokens) - 2))
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")


def sentencepiece(folder):
    from transformers.tokenization_utils_base import generate_merges

    special = ["<unk>", "<s>", "</s>", "<0x0A>"]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE]
    letters = ["\u2581", "a", "b", "\u00e9"]
    pieces = {letter: -100.0 for letter in letters}
    while len(pieces) < 60:
        piece = "".join(random.choice(letters, random.integers(2, 6)))
        pieces.setdefault(piece, -float(random.integers(0, 25)))
    tokens = special + list(pieces)
    writer = GGUFWriter(f"{folder}/spm.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(special) + list(pieces.values()))
    writer.add_token_types(types + [TokenType.NORMAL] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    merges = generate_merges({piece: tokens.index(piece) for piece in pieces}, pieces)
    with open(f"{folder}/spm_merges.json", "w", encoding="utf-8") as out:
        json.dump({"transformers": importlib.metadata.version("transformers"), "merges": merges}, out, ensure_ascii=False)


def main(folder):
    sentencepiece(folder)
    tokens = ["<|end|>", "<tag>", "a", "b", "c", "ab", "abc", "\u0120"]
    writer = GGUFWriter(f"{folder}/tiny.gguf", "llama")
    metadata(writer, tokens)
    rows = [("token_embd.weight", "model.embed_tokens.weight", (len(tokens), HIDDEN), T.Q6_K, 0)]
    for layer, kinds in enumerate(KINDS):
        rows += layer_tensors(layer, kinds)
    rows.append(("output_norm.weight", "model.norm.weight", (HIDDEN,), T.F32, 0))
    rows.append(("output.weight", "lm_head.weight", (len(tokens), HIDDEN), T.Q4_K, 0))
    expected = {}
    for name, hf_name, shape, kind, heads in rows:
        data = tensor(shape, kind)
        values = dequantize(data, kind).reshape(shape)
        if heads:
            data, expected[hf_name] = permuted(data, heads), values
            assert np.array_equal(back(dequantize(data, kind).reshape(shape), heads), values)
        else:
            expected[hf_name] = values
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, f"{folder}/expected.safetensors", {"gguf": importlib.metadata.version("gguf")})


main(sys.argv[1])
