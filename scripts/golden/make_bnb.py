#!/usr/bin/env python3
"""Makes tests/golden/bnb-0.50.2: what bitsandbytes 0.50.2 stores on the CPU for many small weights.

Each case is quantized by Linear4bit or Linear8bitLt and read back from state_dict(), which is what save_pretrained
writes. The weights are not stored: weights() below and its twin in tests/kernels/quantize_test.cc make them from integers.
One torch thread, because torch's mean over 32768 or more values depends on how many there are.

usage: make_bnb.py OUT_FOLDER
"""
import json
import os
import sys
import zlib

import bitsandbytes
import numpy as np
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from safetensors.torch import save_file

VERSION = "0.50.2"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def splitmix64(seed, n):
    """n 64-bit integers (Steele, Lea, Flood 2014)."""
    mask = (1 << 64) - 1
    out, state = [], seed
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def weights(kind, seed, n, block):
    """float32 values, exact in binary, so that every language makes the same ones.

    normal   sum of four uniforms, a bell of width about 0.05
    zeros    every third block all zeros, half of those with negative zeros
    tiny     around the smallest float32 and bitsandbytes' clamp of absmax, 1e-38
    huge     up to 2^126
    half     multiples of a 32nd whose block maximum is 1: many exact ties and thresholds
    wide     exponents from 2^-24 to 2^8, few mantissa bits
    """
    values = []
    for i, z in enumerate(splitmix64(seed, n)):
        a, b, c, d = (z >> (16 * k) & 0xFFFF for k in range(4))
        bell = a + b + c + d - 131070
        if kind == "normal":
            values.append(bell * 2.0**-19)
        elif kind == "zeros":
            dead = i // block % 3 == 0
            values.append((-0.0 if i // block % 2 else 0.0) if dead else bell * 2.0**-19)
        elif kind == "tiny":
            values.append(bell * 2.0 ** (-146 + i // block % 5 * 3))
        elif kind == "huge":
            values.append(bell * 2.0 ** (109 if i // block % 2 else 104))
        elif kind == "half":
            values.append(1.0 if i % block == 7 else (a % 65 - 32) / 32)
        elif kind == "wide":
            values.append((b % 8 + 8) / 8 * (-1.0 if c & 1 else 1.0) * 2.0 ** (a % 33 - 24))
    return np.array(values, dtype=np.float32)


SHAPES = [
    (1, 1), (3, 5), (7, 63), (5, 65), (127, 33), (257, 31), (64, 64), (17, 129), (1, 4097), (33, 127), (2, 3),
    (255, 65), (9, 7), (1, 64), (63, 1), (16, 96),
]  # fmt: skip
KINDS = ["normal", "zeros", "wide", "half", "normal", "tiny", "normal", "huge"]
BLOCKS = [64, 64, 64, 128, 64, 32, 256, 64, 512, 1024, 64, 2048, 64, 4096, 64, 64]


def cases(int8):
    names = list(DTYPES)
    rows = []
    for i, shape in enumerate(SHAPES):
        kind, dtype = KINDS[i % len(KINDS)], names[i % 3]
        if dtype == "float16" and kind in ("tiny", "huge") or int8 and kind == "huge":
            kind = "wide"  # float16 has no such values, and int8 goes through it
        rows.append((shape, kind, dtype, BLOCKS[i]))
    # Every kind in every dtype that has it, over a block boundary and a short last block.
    for kind in dict.fromkeys(KINDS):
        for dtype in names:
            if kind in ("tiny", "huge") and dtype == "float16" or int8 and kind == "huge":
                continue
            rows.append(((11, 47), kind, dtype, 64))
    if not int8:
        rows.append(((257, 129), "normal", "bfloat16", 64))  # three blocks of absmax for double quantization
        rows.append(((131, 129), "wide", "float32", 32))
    return rows


def tensor_of(kind, seed, shape, block, dtype):
    values = torch.from_numpy(weights(kind, seed, shape[0] * shape[1], block)).reshape(shape)
    return values.to(DTYPES[dtype])


def dequantized_crc32(weight):
    """Of the weights as float32, by the reference's plain version: the AVX-512 one takes the scales of other blocks where
    a row is no multiple of a block."""
    state = weight.quant_state
    absmax = state.absmax
    if state.nested:
        absmax = bitsandbytes.functional.dequantize_blockwise(absmax, state.state2) + state.offset
    values = _dequantize_4bit_compute(
        weight.data.reshape(-1), absmax, state.code, state.blocksize, state.shape, torch.float32
    )
    return zlib.crc32(values.contiguous().numpy().tobytes())


def state_4bit(weight, quant_type, block, double):
    layer = Linear4bit(weight.shape[1], weight.shape[0], bias=False, quant_type=quant_type, compress_statistics=double)
    layer.weight = Params4bit(
        weight, requires_grad=False, blocksize=block, quant_type=quant_type, compress_statistics=double, module=layer
    )
    layer = layer.to("cpu")
    return layer.state_dict(), {"dequantized_crc32": dequantized_crc32(layer.weight)}


def state_int8(weight):
    layer = Linear8bitLt(weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False, threshold=6.0)
    layer.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return layer.to("cpu").state_dict(), {}


def main():
    assert bitsandbytes.__version__ == VERSION, bitsandbytes.__version__
    torch.set_num_threads(1)
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    methods = {
        "nf4": lambda w, block: state_4bit(w, "nf4", block, False),
        "fp4": lambda w, block: state_4bit(w, "fp4", block, False),
        "nf4-double": lambda w, block: state_4bit(w, "nf4", block, True),
        "fp4-double": lambda w, block: state_4bit(w, "fp4", block, True),
        "int8": lambda w, block: state_int8(w),
    }
    for method, quantize in methods.items():
        tensors, rows = {}, []
        for i, (shape, kind, dtype, block) in enumerate(cases(method == "int8")):
            if kind == "huge" and "double" in method:
                kind = "normal"  # the mean of absmax would overflow
            weight = tensor_of(kind, 1000 + i, shape, block, dtype)
            raw = weight.contiguous().view(torch.uint8 if dtype == "float32" else torch.int16).numpy().tobytes()
            row = {"name": f"case{i:02}", "rows": shape[0], "cols": shape[1], "kind": kind, "seed": 1000 + i}
            state, more = quantize(weight.clone(), block)
            rows.append(row | {"dtype": dtype, "block_size": block, "crc32": zlib.crc32(raw)} | more)
            for key, value in state.items():
                tensors[f"case{i:02}.{key}"] = value.contiguous().clone()
        meta = {"bitsandbytes": VERSION, "torch": torch.__version__, "cases": json.dumps(rows)}
        save_file(tensors, os.path.join(folder, method + ".safetensors"), metadata=meta)
        print(method, len(rows), "cases", os.path.getsize(os.path.join(folder, method + ".safetensors")), "bytes")


main()
