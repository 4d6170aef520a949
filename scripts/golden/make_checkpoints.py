#!/usr/bin/env python3
"""Makes tests/golden/checkpoints: the files that torch and transformers write, and what is in them.

Needs torch, transformers, safetensors and huggingface_hub; the versions used are kept in expected.json. Values are
written as the bytes of each tensor in hexadecimal, so that a reader is compared bit by bit.

    scripts/golden/make_checkpoints.py tests/golden/checkpoints
"""
import collections
import json
import pathlib
import shutil
import sys

import huggingface_hub
import safetensors.torch
import torch
import transformers


def describe(state):
    """name -> dtype, shape, bytes (contiguous, little-endian)."""
    out = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        flat = tensor.detach().clone().contiguous().reshape(-1)
        data = bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
        out[name] = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "hex": data.hex()}
    return out


def every_dtype():
    state = collections.OrderedDict()
    torch.manual_seed(1)
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    for dtype in floats:
        state[f"a.{str(dtype)[6:]}"] = torch.randn(3, 5).to(dtype)
    ints = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
    for dtype in ints:
        state[f"b.{str(dtype)[6:]}"] = torch.arange(7).to(dtype)
    state["c.bool"] = torch.tensor([True, False, True])
    state["d.scalar"] = torch.tensor(1.25)
    state["d.empty"] = torch.zeros(0, 4)
    state["e.parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    return state


def views():
    """Shared storages and views into them: what tied weights and careless slicing leave behind."""
    torch.manual_seed(2)
    base = torch.randn(6, 8)
    wide = torch.arange(24, dtype=torch.int64)
    return {
        "embed": base,
        "tied": base,
        "rows": base[2:4],
        "columns": base[:, 3:5],
        "transposed": base.t(),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "steps": wide[1::3],
        "half": base.to(torch.float16)[1:].t(),
        "one_row": base[5],
        "step": 1000,
        "name": "not a tensor",
        "nothing": None,
        "rates": [0.1, 0.2],
        "nested": {"deep": (1, 2.5, True)},
    }


class Small(torch.nn.Module):
    """Has a buffer, and its state_dict carries _metadata."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.linear = torch.nn.Linear(4, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.register_buffer("position_ids", torch.arange(5).expand((1, -1)))


def save_pretrained(folder):
    torch.manual_seed(4)
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=40, tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="6KB")
    (folder / "generation_config.json").unlink()
    return model


def main(out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    expected = {
        "made_by": {m.__name__: m.__version__ for m in (torch, transformers, safetensors, huggingface_hub)},
        "files": {},
    }
    small = Small().state_dict()
    for name, state, protocol in (
        ("dtypes.bin", every_dtype(), 2), ("views.bin", views(), 2), ("module.bin", small, 2),
        ("protocol4.bin", small, 4)):
        torch.save(state, out / name, pickle_protocol=protocol)
        expected["files"][name] = describe(state)
    safetensors.torch.save_file(every_dtype(), out / "dtypes.safetensors", metadata={"format": "pt"})
    expected["files"]["dtypes.safetensors"] = {"same_as": "dtypes.bin"}
    torch.save(small, out / "legacy.bin", _use_new_zipfile_serialization=False)

    model = save_pretrained(out / "sharded")
    expected["files"]["sharded"] = describe(model.state_dict())
    # The same model as pytorch_model.bin shards, which transformers no longer writes itself.
    state = model.state_dict()
    split = huggingface_hub.split_torch_state_dict_into_shards(
        state, max_shard_size="6KB", filename_pattern="pytorch_model{suffix}.bin")
    folder = out / "sharded_bin"
    folder.mkdir()
    for file, names in split.filename_to_tensors.items():
        torch.save({n: state[n] for n in names}, folder / file)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    shutil.copy(out / "sharded/config.json", folder)
    expected["files"]["sharded_bin"] = {"same_as": "sharded"}
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
