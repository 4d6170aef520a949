#!/usr/bin/env python3
"""Makes tests/golden/tiny: tiny random models, and what transformers 5.23 and bitsandbytes 0.50.2 compute with them.

Each NAME/ is a model folder as save_pretrained writes it; NAME.safetensors holds `ids` [tokens] and `logits`
[tokens, vocab] of one float32 forward pass (and `logits_llm_int8`, by bitsandbytes' own LLM.int8). llama-f32 has a
tokenizer, and llama-f32.json perplexities of text.txt.

usage: make_tiny_models.py OUT_FOLDER
"""
import json
import math
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

torch.set_num_threads(1)
SIZES = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=None,
             tie_word_embeddings=False)
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
# name: (model_type, config, dtype of the stored weights, changes to config.json after saving)
PLAIN = {
    "llama-f32": ("llama", dict(hidden_size=24, rope_parameters=DEFAULT_ROPE), torch.float32, {}),
    "llama-tied-biases-f16": ("llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
                              torch.float16, {}),
    "llama-head-dim-llama3-bf16": ("llama", dict(head_dim=12, rope_parameters=LLAMA3), torch.bfloat16, {}),
    "llama-old-linear-bf16": ("llama", {}, torch.bfloat16,
                              {"rope_parameters": None, "rope_theta": 700.0,
                               "rope_scaling": {"type": "linear", "factor": 3.0}}),
    "llama-old-llama3-bf16": ("llama", {}, torch.bfloat16,
                              {"rope_parameters": None, "rope_theta": 500.0,
                               "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}),
    "llama-mha-gelu-f16": ("llama", dict(num_key_value_heads=4, hidden_act="gelu_new"), torch.float16, {}),
    "mistral-window-bf16": ("mistral", dict(sliding_window=7, head_dim=8), torch.bfloat16, {}),
    "qwen2-bf16": ("qwen2", dict(tie_word_embeddings=True), torch.bfloat16, {}),
    "qwen2-window-bf16": ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1),
                          torch.bfloat16, {}),
    "qwen3-bf16": ("qwen3", dict(head_dim=16), torch.bfloat16, {}),
}
PACKED = {
    "llama-nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "llama-nf4-double": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "llama-fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "llama-int8": dict(load_in_8bit=True),
}
# bitsandbytes' CPU kernel needs rows of whole blocks to multiply 4-bit weights rightly.
WHOLE_BLOCKS = dict(hidden_size=64, intermediate_size=64)
TOKENS = 40
TEXT = ("the cat sat on the mat, and the dog sat on the log. a bird sang 12 songs, then 345 more, while the rain fell. "
        "nobody heard it, for the wind was loud and the sea was near. in the end all went home and slept until 9. ") * 2


def random_weights(model, seed, outliers):
    """Large enough that every part matters; with outliers, some activations pass LLM.int8's threshold of 6."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.ndim == 2:
                p.copy_(noise * (1.0 if "embed" in name else 1.5 / math.sqrt(p.shape[1])))
            elif name.endswith("bias"):
                p.copy_(noise * 0.3)
            else:
                p.copy_(1 + 0.2 * noise)
                if outliers and "layernorm" in name:
                    p[3] = 4.0
    return model


def forward(folder, ids, **kwargs):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kwargs).eval()
    with torch.no_grad():
        return model, model(ids[None]).logits[0].float().contiguous()


def make_plain(out, name, seed):
    model_type, config, dtype, changes = PLAIN[name]
    sizes = dict(SIZES, **config)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)).to(torch.float32)
    folder = os.path.join(out, name)
    random_weights(model, seed, False).to(dtype).save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    values = json.load(open(path))
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    json.dump(values, open(path, "w"), indent=2)
    ids = torch.randint(0, sizes["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(seed))
    _, logits = forward(folder, ids)
    save_file({"ids": ids.to(torch.int32), "logits": logits}, os.path.join(out, name + ".safetensors"))


def make_packed(out, name, seed):
    sizes = dict(SIZES, rope_parameters=DEFAULT_ROPE, **({} if "int8" in name else WHOLE_BLOCKS))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes)).to(torch.float32)
    source = os.path.join(out, "source")
    random_weights(model, seed, True).save_pretrained(source)
    folder = os.path.join(out, name)
    packed = AutoModelForCausalLM.from_pretrained(source, quantization_config=BitsAndBytesConfig(**PACKED[name]),
                                                  dtype=torch.float32, device_map="cpu").eval()
    packed.save_pretrained(folder)
    shutil.rmtree(source)
    ids = torch.randint(0, sizes["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        tensors = {"ids": ids.to(torch.int32), "logits": packed(ids[None]).logits[0].float().contiguous()}
        if "int8" in name:
            tensors["logits_llm_int8"] = tensors["logits"]
            for module in packed.modules():  # the same weights, dequantized: what weight-only means
                if type(module).__name__ == "Linear8bitLt":
                    state, data = module.state, module.weight.data
                    scale = state.SCB if state.SCB is not None else module.weight.SCB
                    weight = data.float() * scale.float()[:, None] / 127
                    module.forward = lambda x, w=weight, b=module.bias: torch.nn.functional.linear(x, w, b)
            tensors["logits"] = packed(ids[None]).logits[0].float().contiguous()
    save_file(tensors, os.path.join(out, name + ".safetensors"))


def make_tokenizer(folder):
    """One token a character, and <s> before every text."""
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,") + ["\u0120"]
    vocab = {token: i for i, token in enumerate(["<s>", "</s>"] + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    return tokenizer


def perplexities(out, name, ctx=32, stride=12):
    """What nibble's conventions should give: see nibble.h."""
    folder = os.path.join(out, name)
    ids = torch.tensor(make_tokenizer(folder).encode(TEXT).ids)
    model, _ = forward(folder, ids[:2])

    def score(window, first):  # log p of tokens [first, ctx) of a window
        with torch.no_grad():
            logits = model(window[None]).logits[0].double()
        return -torch.log_softmax(logits[:-1], -1).gather(1, window[1:, None])[first - 1:, 0]

    hf, strided, llama = [], [], []
    for start in range(0, len(ids) - ctx + 1, ctx):
        window = ids[start:start + ctx].clone()
        hf.append(score(window, 1))
        window[0] = 0
        llama.append(score(window, ctx // 2 + 1))
    for start in range(0, len(ids) - ctx + 1, stride):
        strided.append(score(ids[start:start + ctx], 1 if start == 0 else ctx - stride))
    result = {"ctx": ctx, "stride": stride}
    for key, values in (("hf", hf), ("strided", strided), ("llama_cpp", llama)):
        nll = torch.cat(values)
        result[key] = {"perplexity": math.exp(nll.mean()), "tokens": len(nll), "chunks": len(values),
                       "stderr": math.exp(nll.mean()) * float(nll.std(unbiased=False)) / math.sqrt(len(nll) - 1)}
    json.dump(result, open(os.path.join(out, name + ".json"), "w"), indent=2)
    open(os.path.join(out, "text.txt"), "w").write(TEXT)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    for seed, name in enumerate(PLAIN):
        make_plain(out, name, seed)
    for seed, name in enumerate(PACKED):
        make_packed(out, name, 100 + seed)
    perplexities(out, "llama-f32")
    for folder, _, files in os.walk(out):
        for file in files:
            if file == "generation_config.json":
                os.remove(os.path.join(folder, file))


main()
