#!/usr/bin/env python3
"""Makes two whole artifacts in tests/golden/gptqmodel-7.7.0: tiny models quantized by GPTQModel, NAME/, and in NAME.safetensors `ids`
and the `logits` of their dequantized weights in float32.

    pip install gptqmodel==7.7.0 transformers==5.23.0 torch
    scripts/golden/make_gptq_models.py"""

import os
import tempfile
from pathlib import Path

import gptq_models

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "gptqmodel-7.7.0"
KINDS = {
    "llama-4bit-asym-act": dict(bits=4, group_size=32, sym=False, desc_act=True),
    "llama-3bit-sym-v2": dict(bits=3, group_size=32, sym=True, desc_act=False, format="gptq_v2"),
}

with tempfile.TemporaryDirectory() as source:
    os.chdir(source)  # GPTQModel writes logs into the current folder
    gptq_models.make_source(source)
    for name, config in KINDS.items():
        gptq_models.quantize(source, str(GOLDEN / name), **config)
        gptq_models.save_logits(str(GOLDEN / name), str(GOLDEN / f"{name}.safetensors"))
        gptq_models.strip(str(GOLDEN / name))
