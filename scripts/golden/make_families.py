#!/usr/bin/env python3
"""Makes the models of tests/golden/tiny that are no plain Llama, and tests/golden/families-bnb: tiny random models, and
what transformers 5.24.0 and bitsandbytes 0.50.2 (torch 2.15.0) compute with them.

tiny/NAME/ is a model folder as save_pretrained writes it, with the changes that its row names; of "fused" models with
save_original_format=False, which leaves the experts of a layer in one tensor. tiny/NAME.safetensors
holds `ids` [tokens], for an encoder-decoder `decoder_ids`, and the result of one float32 forward pass of the class that
config.json names: `logits` ([tokens, vocab]; [1, labels] of a sequence classifier), or of a base class
`last_hidden_state` [tokens, width].

families-bnb/NAME-METHOD/ is what save_pretrained writes after tiny/NAME was loaded, in the dtype of its weights, with a
BitsAndBytesConfig. NAME-METHOD.safetensors holds the same things as tiny/NAME.safetensors, of the dequantized weights
in float32: a 4-bit weight is its code's value times the block's scale. `logits_as_loaded`, where it differs, has each
product rounded to the dtype in the quantization state, as bitsandbytes does before it multiplies; `logits_llm_int8` is
bitsandbytes' own LLM.int8.

usage: make_families.py GOLDEN_FOLDER [NAME...]      without names: all; a name of families-bnb needs tiny/ to be there
"""
import json
import math
import os
import shutil
import sys
import zlib

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BitsAndBytesConfig

torch.set_num_threads(1)
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
TOKENS, DECODER_TOKENS = 40, 17
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
GPT2 = dict(vocab_size=48, n_positions=56, n_embd=36, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1)
SMALL_GPT2 = dict(GPT2, n_embd=24, n_layer=1, n_head=3)
BERT = dict(vocab_size=48, hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=44,
            max_position_embeddings=56)
SMALL_BERT = dict(BERT, hidden_size=24, num_hidden_layers=1, intermediate_size=28, layer_norm_eps=1e-2)
T5 = dict(vocab_size=48, d_model=24, d_kv=6, d_ff=28, num_heads=3, num_layers=2, num_decoder_layers=3,
          relative_attention_num_buckets=8, relative_attention_max_distance=20, decoder_start_token_id=0)
DECODER = dict(vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
               max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=None)
QWEN3_MOE = dict(DECODER, head_dim=12, intermediate_size=40, moe_intermediate_size=20, num_experts=6,
                 num_experts_per_tok=3, rope_parameters=ROPE)
SMALL = dict(DECODER, hidden_size=16, num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=20)
LINEAR = {"rope_type": "linear", "factor": 3.0}


def no_prefix(prefix):
    return lambda tensors: {name.removeprefix(prefix): t for name, t in tensors.items()}


def published_gpt2(tensors):
    """openai-community/gpt2: no prefix, and the causal mask as a tensor of each layer."""
    mask = torch.tril(torch.ones(56, 56))[None, None]
    return {**no_prefix("transformer.")(tensors), "h.0.attn.bias": mask}


def published_bert(tensors):
    """google-bert/bert-base-uncased: old names of the norms, both tensors of the tied head, unused parts."""
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
           for n, t in tensors.items()}
    g = torch.Generator().manual_seed(5)
    for part, rows in (("bert.pooler.dense", 24), ("cls.seq_relationship", 2)):
        old[part + ".weight"], old[part + ".bias"] = torch.randn(rows, 24, generator=g), torch.randn(rows, generator=g)
    old["bert.embeddings.position_ids"] = torch.arange(56)[None]
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].clone()
    return old


def published_t5(tensors):
    """google-t5/t5-small: a table that nothing reads, and copies of the one embedding."""
    table = "decoder.block.0.layer.{}.relative_attention_bias.weight"
    tensors[table.format("1.EncDecAttention")] = tensors[table.format("0.SelfAttention")] * 3
    for copy in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        tensors[copy + ".weight"] = tensors["shared.weight"].clone()
    return tensors


def own_head(tensors):
    """google/t5-v1_1-small: a head of its own, though the class of transformers 5 ties it."""
    return {**tensors, "lm_head.weight": torch.randn(48, 24, generator=torch.Generator().manual_seed(6)).to(BF16) / 4}


# name: (class, model_type, config, dtype of the stored weights, changes to config.json, changes to the tensors)
TINY = {
    "gpt2-f32": ("GPT2LMHeadModel", "gpt2", GPT2, F32),
    "gpt2-switches-bf16": ("GPT2LMHeadModel", "gpt2", dict(
        GPT2, n_inner=28, activation_function="relu", scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True, layer_norm_epsilon=1e-2, tie_word_embeddings=False), BF16),
    "gpt2-base-f32": ("GPT2Model", "gpt2", dict(SMALL_GPT2, activation_function="gelu"), F32),
    "gpt2-published-f32": ("GPT2LMHeadModel", "gpt2", dict(SMALL_GPT2, n_inner=28), F32, {}, published_gpt2),
    "bert-mlm-f32": ("BertForMaskedLM", "bert", BERT, F32),
    "bert-classify-bf16": ("BertForSequenceClassification", "bert",
                           dict(BERT, num_labels=3, hidden_act="gelu_new", layer_norm_eps=1e-2), BF16),
    "bert-base-f32": ("BertModel", "bert", SMALL_BERT, F32),
    "bert-published-f32": ("BertForMaskedLM", "bert", SMALL_BERT, F32, {}, published_bert),
    "bert-no-prefix-f32": ("BertForMaskedLM", "bert", SMALL_BERT, F32, {}, no_prefix("bert.")),
    "t5-f32": ("T5ForConditionalGeneration", "t5", T5, F32),
    "t5-gated-bf16": ("T5ForConditionalGeneration", "t5", dict(
        T5, feed_forward_proj="gated-gelu", relative_attention_num_buckets=32, relative_attention_max_distance=128,
        layer_norm_epsilon=1e-3), BF16, {"tie_word_embeddings": False, "scale_decoder_outputs": None}, own_head),
    "t5-published-f32": ("T5ForConditionalGeneration", "t5", dict(T5, num_layers=1, num_decoder_layers=None), F32,
                         {"scale_decoder_outputs": None, "tie_word_embeddings": None}, published_t5),
    "t5-silu-f16": ("T5ForConditionalGeneration", "t5", dict(T5, num_layers=1, num_decoder_layers=1, num_heads=2,
                    feed_forward_proj="gated-silu"), F16),
    "mixtral-f32": ("MixtralForCausalLM", "mixtral",
                    dict(DECODER, intermediate_size=20, num_local_experts=4, num_experts_per_tok=2), F32),
    "mixtral-window-bf16": ("MixtralForCausalLM", "mixtral", dict(
        SMALL, num_local_experts=3, num_experts_per_tok=1, hidden_act="gelu", sliding_window=7), BF16),
    "qwen3-moe-bf16": ("Qwen3MoeForCausalLM", "qwen3_moe",
                       dict(QWEN3_MOE, mlp_only_layers=[1], norm_topk_prob=True), BF16),
    "qwen3-moe-sparse-step-bf16": ("Qwen3MoeForCausalLM", "qwen3_moe", dict(
        QWEN3_MOE, num_hidden_layers=3, decoder_sparse_step=2, norm_topk_prob=False, attention_bias=True,
        tie_word_embeddings=True), BF16),
    "mixtral-fused-f32": ("MixtralForCausalLM", "mixtral",
                          dict(DECODER, intermediate_size=20, num_local_experts=4, num_experts_per_tok=2), F32),
    "qwen3-moe-fused-bf16": ("Qwen3MoeForCausalLM", "qwen3_moe",
                             dict(QWEN3_MOE, mlp_only_layers=[1], norm_topk_prob=True), BF16),
    "llama-not-causal-bf16": ("LlamaForCausalLM", "llama", SMALL, BF16, {"is_causal": False}),
    "llama-two-ropes-bf16": ("LlamaForCausalLM", "llama",
                             dict(SMALL, rope_parameters=dict(ROPE, rope_theta=50.0)), BF16, {"rope_scaling": LINEAR}),
    "llama-unread-window-bf16": ("LlamaForCausalLM", "llama", SMALL, BF16,
                                 {"use_sliding_window": True, "sliding_window": 5}),
    "qwen2-unread-bias-bf16": ("Qwen2ForCausalLM", "qwen2", SMALL, BF16, {"attention_bias": False}),
}
SALT = {"qwen3-moe-bf16": 1, "qwen3-moe-sparse-step-bf16": 1}  # where chance made a router's choice too close
METHODS = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "int8": dict(load_in_8bit=True),
}
PACKED = {f"{name}-{method}": (name, method) for name, method in (
    ("gpt2-f32", "nf4"), ("gpt2-f32", "int8"), ("gpt2-switches-bf16", "nf4"), ("gpt2-base-f32", "nf4"),
    ("bert-mlm-f32", "nf4"), ("bert-classify-bf16", "fp4"), ("bert-classify-bf16", "int8"), ("bert-base-f32", "fp4"),
    ("t5-f32", "nf4"), ("t5-f32", "int8"), ("t5-gated-bf16", "nf4"), ("t5-gated-bf16", "int8"),
    ("t5-silu-f16", "nf4"), ("t5-silu-f16", "int8"),
    ("mixtral-f32", "nf4"), ("qwen3-moe-bf16", "nf4"), ("qwen3-moe-sparse-step-bf16", "int8"),
    ("mixtral-fused-f32", "nf4"), ("qwen3-moe-fused-bf16", "int8"))}


def random_weights(model, seed):
    """Large enough that every part matters. Rows of a Conv1D are inputs; T5 does not scale q times k."""
    g = torch.Generator().manual_seed(seed)
    linear = {module.weight: 0 if type(module).__name__ == "Conv1D" else 1 for module in model.modules()
              if type(module).__name__ in ("Linear", "Conv1D")}
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p in linear and not name.startswith("lm_head"):
                p.copy_(noise * 1.5 / math.sqrt(p.shape[linear[p]]))
                if "Attention.q." in name:
                    p.div_(math.sqrt(model.config.d_kv))
            elif p.ndim == 1:
                p.copy_(noise * 0.3 if name.endswith("bias") else 1 + 0.2 * noise)
            else:
                table = any(part in name for part in ("embed", "shared", "wte", "wpe", "relative"))
                p.copy_(noise * (1.0 if table else 1.5 / math.sqrt(p.shape[-1])))
    return model


def inputs(config, seed):
    g = torch.Generator().manual_seed(seed)
    tensors = {"ids": torch.randint(0, config.vocab_size, (TOKENS,), generator=g)}
    if config.is_encoder_decoder:
        tensors["decoder_ids"] = torch.randint(0, config.vocab_size, (DECODER_TOKENS,), generator=g)
        tensors["decoder_ids"][0] = config.decoder_start_token_id
    return tensors


def refuse_near_ties(router, _, output):
    """A router whose last chosen expert is hardly likelier than the next: rounding would decide on the logits."""
    likely = output[0].float().softmax(-1).sort(-1, descending=True).values
    gap = (likely[:, router.top_k - 1] - likely[:, router.top_k]).min()
    assert gap > 1e-4, f"another seed is needed: routes differ by {gap}"


def forward(model, tensors):
    """The name and the values of what the class computes."""
    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            module.register_forward_hook(refuse_near_ties)
    more = {"decoder_input_ids": tensors["decoder_ids"][None]} if "decoder_ids" in tensors else {}
    with torch.no_grad():
        result = model(tensors["ids"][None], **more)
    key = "logits" if "logits" in result else "last_hidden_state"
    values = result[key]
    return key, (values if values.ndim == 2 else values[0]).float().contiguous()


def load(folder, **kwargs):
    name = json.load(open(os.path.join(folder, "config.json")))["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, **kwargs)
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    return model.eval()


def change_config(folder, changes):
    path = os.path.join(folder, "config.json")
    values = json.load(open(path))
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    json.dump(values, open(path, "w"), indent=2)


def store(path, tensors, results):
    ids = {name: t.to(torch.int32) for name, t in tensors.items()}
    save_file({**ids, **results}, path + ".safetensors")


def save(model, folder, **how):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **how)
    unread = os.path.join(folder, "generation_config.json")
    if os.path.exists(unread):
        os.remove(unread)


def make_tiny(out, name, seed):
    class_name, model_type, config, dtype, *changes = TINY[name]
    folder = os.path.join(out, "tiny", name)
    model = getattr(transformers, class_name)(AutoConfig.for_model(model_type, **config)).to(F32)
    save(random_weights(model, seed).to(dtype), folder, save_original_format="fused" not in name)
    if changes:
        change_config(folder, changes[0])
    if len(changes) > 1:
        path = os.path.join(folder, "model.safetensors")
        tensors = changes[1](load_file(path))
        save_file(tensors, path, metadata={"format": "pt"})
    tensors = inputs(model.config, seed)
    key, values = forward(load(folder, dtype=F32), tensors)
    store(folder, tensors, {key: values})


def dequantized(folder, exact):
    """The model of an artifact as plain float32; exact: products of code and scale are not rounded."""
    model = load(folder, dtype=F32, device_map="cpu")
    for module in model.modules():
        if exact and type(module).__name__ == "Linear4bit":
            module.weight.quant_state.dtype = F32
    return model.dequantize(F32).float()


def make_packed(out, name):
    source, method = PACKED[name]
    folder = os.path.join(out, "families-bnb", name)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    model = load(os.path.join(out, "tiny", source), quantization_config=BitsAndBytesConfig(**METHODS[method]),
                 dtype=TINY[source][3], device_map="cpu")
    save(model, folder)
    tensors = load_file(os.path.join(out, "tiny", source + ".safetensors"))
    tensors = {n: tensors[n].long() for n in ("ids", "decoder_ids") if n in tensors}
    key, values = forward(dequantized(folder, True), tensors)
    results = {key: values}
    if method == "int8":
        packed = load(folder, dtype=F32, device_map="cpu")
        for p in packed.parameters():  # transformers leaves a weight that it did not pack in the dtype of the file
            if p.is_floating_point():
                p.data = p.data.float()
        results[key + "_llm_int8"] = forward(packed, tensors)[1]
    else:
        rounded = forward(dequantized(folder, False), tensors)[1]
        if not torch.equal(rounded, values):
            results[key + "_as_loaded"] = rounded
    store(folder, tensors, results)


def main():
    out, names = sys.argv[1], sys.argv[2:]
    for name in TINY:
        if name in names or not names:
            make_tiny(out, name, zlib.crc32(name.encode()) + SALT.get(name, 0))
    for name in PACKED:
        if name in names or not names:
            make_packed(out, name)


main()
