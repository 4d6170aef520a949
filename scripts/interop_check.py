#!/usr/bin/env python3
"""The comparisons of scripts/interop. Prints a table; exits 1 if a row fails."""
import argparse
import json
import logging
import os
import subprocess
import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

# One thread: torch's mean over 32768 values or more depends on how many there are.
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
logging.disable(logging.WARNING)

FOUR = {"load_in_4bit": True}
METHODS = {
    "nf4": (["--method", "nf4"], FOUR | {"bnb_4bit_quant_type": "nf4"}),
    "nf4, double": (
        ["--method", "nf4", "--double-quant"],
        FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    ),
    "fp4": (["--method", "fp4"], FOUR | {"bnb_4bit_quant_type": "fp4"}),
    "fp4, double": (
        ["--method", "fp4", "--double-quant"],
        FOUR | {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
    ),
    "int8": (["--method", "int8"], {"load_in_8bit": True}),
}

# How far nibble's logits may be from the reference's, by the largest of them. Both work in float32 on the same weights,
# and differ in the order of their sums.
FLOAT32_BOUND = 1e-4
# LLM.int8 rounds each layer's activations to 127 steps by way of float16: where a sum's last bits differ, a value now
# and then falls on the step beside it, which is 1/127 of its row's largest, and thirty layers carry that on.
LLM_INT8_BOUND = 5e-2

IDS = [1, 504, 3575, 282, 4649, 314, 260, 2, 28, 416, 253, 1028, 4649, 282, 198, 11, 99, 1000, 20000, 49151]


class Table:
    def __init__(self):
        self.failed = False
        print(f"{'model':<16} {'method':<14} {'check':<34} {'result':<30} ok")

    def row(self, model, method, check, result, ok):
        self.failed |= not ok
        print(f"{model:<16} {method:<14} {check:<34} {result:<30} {'yes' if ok else 'NO'}", flush=True)


def nibble(args, *command):
    subprocess.run([args.nibble, *command, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def tensors(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            found |= load_file(os.path.join(folder, name))
    return found


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def compare_tensors(table, model, method, ours, reference):
    a, b = tensors(ours), tensors(reference)
    # Buffers that an old version of a class saved (position_ids) come along; transformers leaves them out.
    missing = [k for k in sorted(set(a) ^ set(b)) if k in b or a[k].is_floating_point()]
    differ = [
        k
        for k in sorted(set(a) & set(b))
        if a[k].dtype != b[k].dtype or a[k].shape != b[k].shape or not torch.equal(raw(a[k]), raw(b[k]))
    ]
    size = sum(t.numel() * t.element_size() for t in b.values())
    result = f"{len(b)} tensors, {size} bytes"
    if missing or differ:
        result = f"missing {missing[:2]}, differ {differ[:2]}"
    table.row(model, method, "bytes of every tensor", result, not missing and not differ)

    configs = [json.load(open(os.path.join(f, "config.json")))["quantization_config"] for f in (ours, reference)]
    for config in configs:
        if config["llm_int8_skip_modules"] is not None:
            config["llm_int8_skip_modules"].sort()
    table.row(model, method, "quantization_config", "", configs[0] == configs[1])


def load(auto, folder, **more):
    return auto.from_pretrained(folder, device_map="cpu", **more).eval()


def first_output(model, ids):
    with torch.no_grad():
        out = model(torch.tensor([ids]))
    return (out.logits if "logits" in out else out.last_hidden_state).float()


def compare_outputs(table, args, model, method, ours, auto, ids):
    """nibble's artifact in transformers, in float32, against nibble itself."""
    reference = first_output(load(auto, ours, dtype=torch.float32), ids)
    int8 = method == "int8"
    out = os.path.join(args.out, "logits.safetensors")
    options = ["--int8", "llm.int8"] if int8 else []
    nibble(args, "logits", ours, "--ids", ",".join(map(str, ids)), "--out", out, *options)
    mine = load_file(out)["logits"]
    distance = ((mine - reference).abs().max() / reference.abs().max()).item()
    bound = LLM_INT8_BOUND if int8 else FLOAT32_BOUND
    check = f"logits, by the largest (< {bound:g})"
    table.row(model, method, check, f"{distance:.2e}", distance < bound)


def quantize_both(table, args, model, source, method, auto, options=(), skip=None):
    ours = os.path.join(args.out, f"{model}-{method}-nibble".replace(", ", "-"))
    reference = os.path.join(args.out, f"{model}-{method}-bitsandbytes".replace(", ", "-"))
    command, config = METHODS[method]
    nibble(args, "quantize", source, ours, *command, *options, "--force")
    config = BitsAndBytesConfig(**config, llm_int8_skip_modules=skip)
    load(auto, source, quantization_config=config).save_pretrained(reference)
    compare_tensors(table, model, method, ours, reference)
    return ours, reference


def tiny_llama(folder, dtype, tied):
    """Odd sizes, so that blocks run across rows and end in a short one."""
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=90, intermediate_size=131, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1,
        head_dim=18, vocab_size=203, tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)


def check_tiny(table, args):
    for name, dtype, tied in [
        ("tiny float32", torch.float32, True),
        ("tiny float16", torch.float16, False),
        ("tiny bfloat16", torch.bfloat16, False),
    ]:
        source = os.path.join(args.out, name.replace(" ", "-"))
        tiny_llama(source, dtype, tied)
        for method in METHODS:
            quantize_both(table, args, name.replace(" ", "-"), source, method, AutoModelForCausalLM)
    shards = ["--max-shard-size", "30kB"]
    ours, reference = quantize_both(table, args, "tiny-shards", source, "nf4, double", AutoModelForCausalLM, shards)
    ids = [5, 17, 100, 202, 3]
    same = torch.equal(*[first_output(load(AutoModelForCausalLM, f), ids) for f in (ours, reference)])
    table.row("tiny-shards", "nf4, double", "loads; logits of the reference's own", "equal" if same else "differ", same)
    skip = ["model.layers.1.mlp.down_proj", "lm_head"]
    options = ["--exclude", r"layers\.1\.mlp\.down_proj"]
    ours, _ = quantize_both(table, args, "tiny-exclude", source, "nf4", AutoModelForCausalLM, options, skip)
    kept = load(AutoModelForCausalLM, ours).model.layers[1].mlp
    ok = type(kept.down_proj) is torch.nn.Linear and type(kept.up_proj).__name__ == "Linear4bit"
    table.row("tiny-exclude", "nf4", "loads with the layer left out", "", ok)
    options = ["--include", "lm_head"]
    ours, _ = quantize_both(table, args, "tiny-include", source, "nf4", AutoModelForCausalLM, options, [])
    ok = type(load(AutoModelForCausalLM, ours).lm_head).__name__ == "Linear4bit"
    table.row("tiny-include", "nf4", "loads with the head quantized", "", ok)


def check_smollm2(table, args):
    source = os.path.join(args.out, "smollm2")
    nibble(args, "convert", args.gguf, source, "--force")
    can_run = subprocess.run([args.nibble, "logits", "--help"], capture_output=True).returncode == 0
    for method in METHODS:
        ours, reference = quantize_both(table, args, "smollm2", source, method, AutoModelForCausalLM)
        same = torch.equal(
            first_output(load(AutoModelForCausalLM, ours), IDS), first_output(load(AutoModelForCausalLM, reference), IDS)
        )
        table.row("smollm2", method, "loads; logits of the reference's own", "equal" if same else "differ", same)
        if can_run:
            compare_outputs(table, args, "smollm2", method, ours, AutoModelForCausalLM, IDS)
        else:
            print("smollm2: comparing nibble's logits is skipped: this nibble has no `logits`")


def check_minilm(table, args):
    for method in METHODS:
        ours, reference = quantize_both(table, args, "minilm", args.minilm, method, AutoModel)
        ids = [101, 7592, 1010, 2088, 999, 102]
        same = torch.equal(first_output(load(AutoModel, ours), ids), first_output(load(AutoModel, reference), ids))
        table.row("minilm", method, "loads; states of the reference's own", "equal" if same else "differ", same)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--nibble", "--gguf", "--minilm", "--out"):
        parser.add_argument(option, required=True)
    args = parser.parse_args()
    table = Table()
    check_tiny(table, args)
    check_minilm(table, args)
    check_smollm2(table, args)
    print("FAILED" if table.failed else "all rows hold")
    sys.exit(table.failed)


main()
