"""Tiny models quantized by GPTQModel, and the logits of their dequantized weights: for make_gptq_models.py, which keeps two of
them, and for scripts/interop_gptq.py, which tries every kind."""

import contextlib
import io
import json
import os
import shutil

# With fewer than three processors GPTQModel's thread pool would get one worker, and refuses to start.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB, SAMPLES, SEQLEN, TOKENS = 64, 16, 64, 40
IDS = torch.randint(0, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(1))


def make_source(folder, intermediate_size=96):
    """A Llama with random weights, and a tokenizer, without which GPTQModel refuses to work: a token a letter."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=64, intermediate_size=intermediate_size, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=32, max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
                         initializer_range=0.3, tie_word_embeddings=True)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    vocab = {chr(ord("0") + i): i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="0", eos_token="1").save_pretrained(folder)


def load(folder):
    """An artifact in GPTQModel on the CPU. Its modules want a dtype of 16 bits, but compute in what they are given then."""
    with contextlib.redirect_stdout(io.StringIO()):
        return GPTQModel.load(folder, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16).model.float().eval()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.as_tensor(ids)[None]).logits[0].float().contiguous()


def dequantized(folder):
    """The same model in float32 with plain layers, their weights as GPTQModel's own modules dequantize them."""
    packed = load(folder)
    config = LlamaConfig.from_pretrained(folder)
    config.__dict__.pop("quantization_config", None)
    plain = LlamaForCausalLM(config).float()
    state = {}
    for name, module in packed.named_modules():
        if hasattr(module, "dequantize_weight"):
            state[name + ".weight"] = module.dequantize_weight().T.float()
    for name, value in load_file(os.path.join(folder, "model.safetensors")).items():
        if name in plain.state_dict():
            state[name] = value.float()
    plain.load_state_dict(state, strict=False)
    return plain.eval()


def quantize(source, folder, **config):
    """Lets GPTQModel calibrate on random tokens."""
    rng = torch.Generator().manual_seed(2)
    windows = [torch.randint(0, VOCAB, (1, SEQLEN), generator=rng) for _ in range(SAMPLES)]
    with contextlib.redirect_stdout(io.StringIO()):
        model = GPTQModel.load(source, QuantizeConfig(act_group_aware=False, **config), device="cpu", dtype=torch.bfloat16)
        model.quantize([{"input_ids": w, "attention_mask": torch.ones_like(w)} for w in windows], batch_size=1)
        shutil.rmtree(folder, ignore_errors=True)
        model.save(folder)


def strip(folder):
    """Leaves what nibble reads."""
    for name in os.listdir(folder):
        if name not in ("config.json", "quantize_config.json", "model.safetensors"):
            os.remove(os.path.join(folder, name))
    for name in ("config.json", "quantize_config.json"):
        path = os.path.join(folder, name)
        values = json.load(open(path))
        for config in (values, values.get("quantization_config", {})):
            config.get("meta", {}).pop("offload_to_disk_path", None)
        json.dump(values, open(path, "w"), indent=2)


def save_logits(folder, path):
    save_file({"ids": IDS.to(torch.int32), "logits": logits_of(dequantized(folder), IDS)}, path)
