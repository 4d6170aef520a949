#!/usr/bin/env python3
"""The comparisons of scripts/interop --gptq. Prints a table; exits 1 if a row fails."""

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "golden"))
import gptq_models
import interop_families as families
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPTQConfig

torch.set_num_threads(1)
logging.disable(logging.WARNING)

# Both sides multiply in float32.
OWN_BOUND, LOADED_BOUND = 1e-4, 1e-3
IDS = ",".join(map(str, gptq_models.IDS.tolist()))
TEXT = "".join(chr(ord("0") + i * i % 61 % gptq_models.VOCAB) for i in range(4096))


class Table:
    def __init__(self):
        self.failed = False
        print(f"{'artifact':<34} {'check':<46} {'result':<12} ok")

    def row(self, artifact, check, found, bound):
        ok = found < bound
        self.failed |= not ok
        print(f"{artifact:<34} {check + f' (< {bound:.0e})':<46} {found:<12.2e} {'yes' if ok else 'NO'}", flush=True)


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def nibble(args, *command):
    subprocess.run([args.nibble, *command, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def nibble_logits(args, folder):
    out = os.path.join(args.out, "logits.safetensors")
    nibble(args, "logits", folder, "--ids", IDS, "--out", out, "--force")
    return load_file(out)["logits"][0]


def load_in_transformers(folder):
    # By itself GPTQModel takes torch's int4 product for 4 bits without activation order, which computes more coarsely.
    config = GPTQConfig(bits=json.load(open(os.path.join(folder, "quantize_config.json")))["bits"], backend="torch")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float16, device_map="cpu", quantization_config=config
    ).eval()
    return torch.nn.Module.float(model)  # transformers forbids the method of the same name


def check_theirs(table, args, source):
    """GPTQModel's artifacts in nibble."""
    for bits in (2, 3, 4, 8):
        for sym in (True, False):
            for act in (False, True):
                for layout in ("gptq", "gptq_v2"):
                    if layout == "gptq_v2" and (sym or act):
                        continue
                    name = f"gptqmodel {bits}-bit {'sym' if sym else 'asym'}{' act' if act else ''} {layout}"
                    folder = os.path.join(args.out, name.replace(" ", "-"))
                    gptq_models.quantize(source, folder, bits=bits, group_size=32, sym=sym, desc_act=act, format=layout)
                    want = gptq_models.logits_of(gptq_models.dequantized(folder), gptq_models.IDS)
                    table.row(name, "nibble, logits of the dequantized", distance(nibble_logits(args, folder), want), OWN_BOUND)


def check_ours(table, args, source):
    """nibble's artifacts in GPTQModel and in transformers."""
    text = os.path.join(args.out, "text")
    Path(text).write_text(TEXT)
    plain = os.path.join(args.out, "source-float32")
    nibble(args, "convert", source, plain, "--dtype", "float32", "--force")
    for options in (["--bits", "2", "--group-size", "32"], ["--bits", "3", "--group-size", "32", "--asym"],
                    ["--bits", "4", "--group-size", "32", "--desc-act"], ["--bits", "4", "--group-size", "-1", "--mse"],
                    ["--bits", "4", "--group-size", "32", "--asym", "--layout", "gptq_v2"],
                    ["--bits", "8", "--group-size", "32", "--asym", "--desc-act"]):
        name = "nibble " + " ".join(o.removeprefix("--") for o in options if o != "--layout").replace("group-size ", "g")
        folder = os.path.join(args.out, name.replace(" ", "-"))
        nibble(args, "quantize", plain, folder, "--method", "gptq", "--calib", text, "--nsamples", "16", "--seqlen", "64",
               "--force", *options)
        ours = nibble_logits(args, folder)
        theirs = {"GPTQModel": gptq_models.load(folder), "transformers": load_in_transformers(folder)}
        for label, model in theirs.items():
            found = distance(ours, gptq_models.logits_of(model, gptq_models.IDS))
            table.row(name, f"loads in {label}, logits", found, LOADED_BOUND)


def check_families(table, args):
    """Of each family that GPTQModel knows a model whose 16 bits float16 holds, in which it loads all that is not packed."""
    for name in ("wide-gpt2-bf16", "wide-llama-f16", "wide-mistral-bf16", "wide-qwen3-bf16", "wide-mixtral-bf16", "wide-qwen3-moe-bf16"):
        source, folder = os.path.join(args.out, name), os.path.join(args.out, name + "-rtn")
        families.make_wide(name, source)
        nibble(args, "quantize", source, folder, *families.GRIDS["rtn 4"], "--force")
        found = distance(nibble_logits(args, folder), gptq_models.logits_of(gptq_models.load(folder), gptq_models.IDS))
        table.row(name + " rtn", "loads in GPTQModel, logits", found, LOADED_BOUND)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--nibble", "--out"):
        parser.add_argument(option, required=True)
    args = parser.parse_args()
    args.nibble, args.out = os.path.abspath(args.nibble), os.path.abspath(args.out)
    os.chdir(args.out)  # GPTQModel writes logs into the current folder
    table = Table()
    source = os.path.join(args.out, "source")
    gptq_models.make_source(source, intermediate_size=128)  # a group that kernels of torch take, also with -1
    check_families(table, args)
    check_ours(table, args, source)
    check_theirs(table, args, source)
    print("FAILED" if table.failed else "all rows hold")
    sys.exit(table.failed)


if __name__ == "__main__":
    main()
