#!/usr/bin/env python3
"""Makes tests/golden/artifacts: a tiny Llama with random weights in bfloat16, and what transformers and bitsandbytes
make of it on the CPU, each a folder that transformers loads: nf4, nf4-double, fp4, int8.

A byte-level tokenizer of 256 bytes and one special token comes along, so that a text can be run through them. Rows of
96 make blocks of 64 cross rows; 4 query heads on 2 key heads; an output embedding of its own.

usage: make_artifacts.py OUT_FOLDER
"""
import os
import sys

import bitsandbytes
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

METHODS = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4-double": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken("<|end|>", special=True)])
    return t


def main():
    assert bitsandbytes.__version__ == "0.50.2" and transformers.__version__ == "5.23.0"
    torch.set_num_threads(1)
    torch.manual_seed(7)
    out = sys.argv[1]
    config = LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False, initializer_range=0.12,
        bos_token_id=256, eos_token_id=256, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.1 * torch.randn(weight.shape))
    bf16 = os.path.join(out, "bf16")
    model.to(torch.bfloat16).save_pretrained(bf16)
    for name, quantization in METHODS.items():
        m = AutoModelForCausalLM.from_pretrained(
            bf16, quantization_config=quantization, device_map="cpu", dtype=torch.bfloat16
        )
        m.save_pretrained(os.path.join(out, name))
    for name in ["bf16", *METHODS]:
        tokenizer().save(os.path.join(out, name, "tokenizer.json"), pretty=False)


main()
