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
# LLM.int8 rounds every layer's activations to 127 steps: a sum whose last bit differs now and then puts a value on the
# next step, and thirty layers carry that on. So the bound is measured: twice what the reference's own logits move when
# its embeddings are changed by one part in a million. (Where no value changes its step, the two agree to 1e-5.)
PERTURBATION, PERTURBED_RUNS = 1e-6, 8

# "The capital of France is the city of France, and it is known for itsaim", after the first token of a chat
IDS = [1, 504, 3575, 282, 4649, 314, 260, 2240, 282, 4649, 28, 284, 357, 314, 1343, 327, 624, 2170]


class Table:
    def __init__(self, model_width=16):
        self.failed, self.width = False, model_width
        print(f"{'model':<{self.width}} {'method':<14} {'check':<38} {'result':<30} ok")

    def row(self, model, method, check, result, ok):
        self.failed |= not ok
        print(f"{model:<{self.width}} {method:<14} {check:<38} {result:<30} {'yes' if ok else 'NO'}", flush=True)

    def end(self):
        print("FAILED" if self.failed else "all rows hold")
        sys.exit(self.failed)


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


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def perturbed_distance(model, ids, reference):
    embedding = model.get_input_embeddings().weight
    original, most = embedding.data.clone(), 0.0
    for seed in range(PERTURBED_RUNS):
        torch.manual_seed(seed)
        embedding.data = original * (1 + PERTURBATION * torch.randn_like(original))
        most = max(most, distance(first_output(model, ids), reference))
    embedding.data = original
    return most


def compare_outputs(table, args, model_name, method, ours, ids):
    """nibble's artifact in transformers, in float32, against nibble itself."""
    model = load(AutoModelForCausalLM, ours)
    for parameter in model.parameters():  # transformers loads what is not packed in the config's dtype
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    reference = first_output(model, ids)
    int8 = method == "int8"
    bound = max(FLOAT32_BOUND, 2 * perturbed_distance(model, ids, reference)) if int8 else FLOAT32_BOUND
    out = os.path.join(args.out, "logits.safetensors")
    options = ["--int8", "llm.int8"] if int8 else []
    nibble(args, "logits", ours, "--ids", ",".join(map(str, ids)), "--out", out, "--force", *options)
    found = distance(load_file(out)["logits"], reference)
    table.row(model_name, method, f"logits, by the largest (< {bound:.1e})", f"{found:.2e}", found < bound)


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
    for method in METHODS:
        ours, reference = quantize_both(table, args, "smollm2", source, method, AutoModelForCausalLM)
        same = torch.equal(
            first_output(load(AutoModelForCausalLM, ours), IDS), first_output(load(AutoModelForCausalLM, reference), IDS)
        )
        table.row("smollm2", method, "loads; logits of the reference's own", "equal" if same else "differ", same)
        compare_outputs(table, args, "smollm2", method, ours, IDS)


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
    table.end()


if __name__ == "__main__":
    main()
