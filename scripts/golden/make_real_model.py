#!/usr/bin/env python3
"""Perplexities of a real model, SmolLM2-135M-Instruct, by transformers, bitsandbytes and llama.cpp over the first windows of a
text, for tests/cli/real_model_test.cc.

usage: scripts/golden/make_real_model.py MODEL_FOLDER TEXT LLAMA_OUTPUT [WINDOWS] >tests/golden/real_model.json

MODEL_FOLDER is what `nibble convert GGUF MODEL_FOLDER --to hf` makes of the model that scripts/get-model fetches, TEXT is
WikiText-2's test split. Windows of 512 tokens; in each, the 511 that have one before them are scored. LLAMA_OUTPUT is what
`llama-perplexity -m F16.gguf -f TEXT -c 512 --chunks 24` printed to stdout (scripts/get-llama-cpp builds it): the perplexity
after each window, of which half the tokens are scored.
"""
import json
import math
import re
import sys

import bitsandbytes
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

CTX = 512
KINDS = {
    "nf4_double_quant": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8_llm_int8": {"load_in_8bit": True},
}  # fmt: skip


def perplexity(model, ids):
    total, count = 0.0, 0
    with torch.no_grad():
        for window in ids:
            logits = model(window[None]).logits[0, :-1].double()
            total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
            count += len(window) - 1
    return math.exp(total / count)


def int8_weights(model):
    """The weights that bitsandbytes' codes and scales stand for, multiplied as float32 ones."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(module.weight.data.half())
            module.weight.data = codes.float() * (scales.float() / 127)[:, None]


def main():
    folder, text, llama = sys.argv[1:4]
    windows = int(sys.argv[4]) if len(sys.argv) > 4 else 6
    ids = Tokenizer.from_file(folder + "/tokenizer.json").encode(open(text, encoding="utf-8").read()).ids
    ids = torch.tensor(ids[: windows * CTX]).reshape(windows, CTX)
    out = {"by": f"torch {torch.__version__}, transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}",
           "ctx": CTX, "windows": windows}  # fmt: skip
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        out["float32"] = perplexity(model, ids)
        int8_weights(model)
        out["int8_weight_only"] = perplexity(model, ids)
    for name, options in KINDS.items():
        config = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.float32, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=config)
        out[name] = perplexity(model, ids)
    out["llama_cpp_f16"] = float(re.search(rf"\[{windows}\]([0-9.]+)", open(llama, encoding="utf-8").read())[1])
    json.dump(out, sys.stdout, indent=1)
    print()


main()
