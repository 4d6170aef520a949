#!/usr/bin/env python3
"""Quantizes a model with GPTQModel on the CPU, on the same windows of the same text as nibble, and prints what it cost.

    pip install gptqmodel==7.7.0 transformers==5.23.0 torch
    scripts/peer_gptqmodel.py MODEL DST --calib FILE [--nsamples 32] [--seqlen 512] [--bits 4] [--group-size 64] [--desc-act] [--asym] [--no-act-group-aware]"""

import argparse
import json
import os
import resource
import tempfile
import time

# With fewer than three processors its thread pool would get one worker, and refuses to start.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("dst")
parser.add_argument("--calib", required=True)
parser.add_argument("--nsamples", type=int, default=32)
parser.add_argument("--seqlen", type=int, default=512)
parser.add_argument("--bits", type=int, default=4)
parser.add_argument("--group-size", type=int, default=64)
parser.add_argument("--desc-act", action="store_true")
parser.add_argument("--asym", action="store_true")
parser.add_argument("--no-act-group-aware", action="store_true", help="groups in the order they lie, not in its default one")
args = parser.parse_args()
args.model, args.dst, args.calib = map(os.path.abspath, (args.model, args.dst, args.calib))
scratch = tempfile.TemporaryDirectory()
os.chdir(scratch.name)  # GPTQModel writes logs into the current folder

import torch
from gptqmodel import GPTQModel, QuantizeConfig
from transformers import AutoTokenizer

with open(args.calib, encoding="utf-8") as f:
    ids = AutoTokenizer.from_pretrained(args.model)(f.read())["input_ids"]
windows = [torch.tensor([ids[i * args.seqlen : (i + 1) * args.seqlen]]) for i in range(args.nsamples)]
assert windows[-1].shape[1] == args.seqlen, "the calibration text is too short"

start = time.monotonic()
order = {"act_group_aware": False} if args.no_act_group_aware else {}
config = QuantizeConfig(bits=args.bits, group_size=args.group_size, sym=not args.asym, desc_act=args.desc_act, **order)
model = GPTQModel.load(args.model, config, device="cpu", dtype=torch.bfloat16)
model.quantize([{"input_ids": w, "attention_mask": torch.ones_like(w)} for w in windows], batch_size=1)
model.save(args.dst)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": time.monotonic() - start, "cpu_seconds": used.ru_utime + used.ru_stime,
                  "peak_rss_bytes": used.ru_maxrss * 1024}))
