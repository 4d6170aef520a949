#!/usr/bin/env python3
"""Writes gptq_v1.safetensors and gptq_v2.safetensors in tests/golden/gptqmodel-7.7.0: weights packed by GPTQModel for every bit width,
symmetric and not, with and without activation order, in both versions of its zero points.

    pip install gptqmodel==7.7.0 transformers==5.23.0 torch
    scripts/golden/make_gptq.py

Beside the four tensors of each module stand what went in: NAME.codes U8 [out, in], NAME.zeros U8 [groups, out]."""

from pathlib import Path

import torch
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.quantization import FORMAT, QuantizeConfig
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from gptqmodel.utils.model_dequant import unpack_cols, unpack_rows
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "gptqmodel-7.7.0"
IN, OUT, VERSION = 96, 32, "gptqmodel 7.7.0"

def pack(bits, sym, act_order, group_size, version, rng):
    size = IN if group_size == -1 else group_size
    groups = -(-IN // size)
    codes = torch.randint(0, 2**bits, (OUT, IN), generator=rng)
    # A stored zero point of 2**bits - 1 means 2**bits to a reader that adds one; the quantizer never makes one.
    zeros = torch.full((OUT, groups), 2 ** (bits - 1)) if sym else torch.randint(0, 2**bits, (OUT, groups), generator=rng)
    scales = (torch.rand(OUT, groups, generator=rng) * 0.02 + 0.001).half().float()
    g_idx = (torch.randperm(IN, generator=rng) if act_order else torch.arange(IN)) // size
    g_idx = g_idx.to(torch.int32)
    weight = (codes - zeros[:, g_idx.long()]) * scales[:, g_idx.long()]
    linear = torch.nn.Linear(IN, OUT, bias=False)
    linear.weight.data = weight.float()
    config = QuantizeConfig(bits=bits, group_size=group_size, sym=sym, desc_act=act_order, act_group_aware=False)
    module = TorchLinear(bits=bits, group_size=group_size, sym=sym, desc_act=act_order, in_features=IN,
                         out_features=OUT, bias=False)
    module.pack_original(linear, scales=scales, zeros=zeros.float(), g_idx=g_idx)
    assert torch.equal(unpack_rows(module.qweight, bits)[:IN].T.int(), codes.int())
    assert torch.equal(unpack_cols(module.qzeros, bits).int(), zeros.T.int())
    if version == 1:
        convert_gptq_v2_to_v1_format_module(module, config)
    return {"qweight": module.qweight, "qzeros": module.qzeros, "scales": module.scales, "g_idx": module.g_idx,
            "codes": codes.to(torch.uint8), "zeros": zeros.T.to(torch.uint8)}

for version in (1, 2):
    rng = torch.Generator().manual_seed(4)
    tensors = {}
    for bits in (2, 3, 4, 8):
        for sym in (True, False):
            for act_order in (False, True):
                for group_size in (32, 64, -1):  # 64 leaves a short last group
                    name = f"b{bits}_{'sym' if sym else 'asym'}_{'act' if act_order else 'plain'}_g{group_size}"
                    for part, t in pack(bits, sym, act_order, group_size, version, rng).items():
                        tensors[f"{name}.{part}"] = t.contiguous()
    save_file(tensors, GOLDEN / f"gptq_v{version}.safetensors", metadata={"made_by": VERSION})
