#!/usr/bin/env python3
"""The comparisons of scripts/interop --families. Prints a table, a row a model and method; exits 1 if a row fails.

Of each model that tests/golden/tiny has, and of one more a family whose sizes GPTQ can pack:
  nf4, fp4, int8, ...   nibble's artifact loads in transformers, no key missing, unexpected or of another shape; the
                        logits there are those of `nibble logits`; every tensor is the one that bitsandbytes saves
  rtn, gptq             transformers has no reader of its own for these (scripts/interop --gptq asks GPTQModel). They are
                        unpacked here by the published formula, and the plain weights loaded
  bfloat16, ...         what `nibble convert --dtype` writes loads and gives nibble's logits"""
import argparse
import json
import os
import shutil
import subprocess

import interop_check as check
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedTokenizerFast

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

# The ending of a class, and what opens it.
AUTO = {
    "ForCausalLM": transformers.AutoModelForCausalLM,
    "LMHeadModel": transformers.AutoModelForCausalLM,
    "ForMaskedLM": transformers.AutoModelForMaskedLM,
    "ForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "ForConditionalGeneration": transformers.AutoModelForSeq2SeqLM,
    "Model": transformers.AutoModel,
}

# Sizes that are multiples of 32, which GPTQ's layout needs. name: (class, model_type, config, dtype)
VOCAB, TOKENS = 64, 40
DECODER = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=None)
GPT2 = dict(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1)
BERT = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=128)
T5 = dict(vocab_size=VOCAB, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0)
QWEN3_MOE = dict(DECODER, head_dim=16, moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2)
WIDE = {
    "wide-gpt2-f32": ("GPT2LMHeadModel", "gpt2", GPT2, F32),
    "wide-gpt2-bf16": ("GPT2LMHeadModel", "gpt2", GPT2, BF16),
    "wide-bert-mlm-f32": ("BertForMaskedLM", "bert", BERT, F32),
    "wide-bert-classify-f16": ("BertForSequenceClassification", "bert", dict(BERT, num_labels=3), F16),
    "wide-bert-base-bf16": ("BertModel", "bert", BERT, BF16),
    "wide-t5-f32": ("T5ForConditionalGeneration", "t5", T5, F32),
    "wide-t5-gated-f16": ("T5ForConditionalGeneration", "t5", dict(T5, feed_forward_proj="gated-gelu"), F16),
    "wide-llama-f16": ("LlamaForCausalLM", "llama", DECODER, F16),
    "wide-mistral-bf16": ("MistralForCausalLM", "mistral", dict(DECODER, sliding_window=16), BF16),
    "wide-qwen2-f32": ("Qwen2ForCausalLM", "qwen2", DECODER, F32),
    "wide-qwen3-bf16": ("Qwen3ForCausalLM", "qwen3", dict(DECODER, head_dim=32), BF16),
    "wide-mixtral-bf16": ("MixtralForCausalLM", "mixtral", dict(DECODER, num_local_experts=4), BF16),
    "wide-qwen3-moe-bf16": ("Qwen3MoeForCausalLM", "qwen3_moe", dict(QWEN3_MOE, mlp_only_layers=[1]), BF16),
}

GRIDS = {
    "rtn 4": ["--method", "rtn", "--group-size", "32"],
    "rtn 3 asym": ["--method", "rtn", "--bits", "3", "--group-size", "32", "--asym"],
    "rtn 8 v2": ["--method", "rtn", "--bits", "8", "--group-size", "-1", "--asym", "--layout", "gptq_v2"],
    "gptq 4": ["--method", "gptq", "--group-size", "32"],
    "gptq 4 act": ["--method", "gptq", "--group-size", "32", "--desc-act", "--asym"],
}
LARGER_PERTURBATION, APART = 1e-4, 0.1  # of LLM.int8: see check_llm_int8
CALIBRATION = ["--nsamples", "8", "--seqlen", "64"]
LETTERS = [chr(ord("0") + i) for i in range(VOCAB)]
CALIBRATED = ("ForCausalLM", "LMHeadModel")  # what GPTQ calibrates


# ---- models ----


def config_of(folder):
    return json.load(open(os.path.join(folder, "config.json")))


def ending_of(folder):
    name = config_of(folder)["architectures"][0]
    return next(ending for ending in AUTO if name.endswith(ending))


def load(folder, **more):
    model, report = AUTO[ending_of(folder)].from_pretrained(folder, device_map="cpu", output_loading_info=True, **more)
    return model.eval(), {kind: sorted(map(str, keys)) for kind, keys in report.items() if keys}


def make_wide(name, folder):
    class_name, model_type, config, dtype = WIDE[name]
    torch.manual_seed(sum(map(ord, name)))
    model = getattr(transformers, class_name)(AutoConfig.for_model(model_type, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.to(dtype).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def sources(args):
    """name, folder, ids, ids of the decoder or None."""
    golden = os.path.join(args.golden, "tiny")
    for name in sorted(os.listdir(golden)):
        folder = os.path.join(golden, name)
        if os.path.isdir(folder) and "quantization_config" not in config_of(folder):
            given = load_file(folder + ".safetensors")
            decoder = given["decoder_ids"].tolist() if "decoder_ids" in given else None
            yield name, folder, given["ids"].tolist(), decoder
    for name in WIDE:
        folder = os.path.join(args.out, name)
        make_wide(name, folder)
        ids = [(i * i + 3 * i) % VOCAB for i in range(TOKENS)]
        yield name, folder, ids, [0, *ids[5:20]] if name.startswith("wide-t5") else None


# ---- outputs ----


def their_output(model, ids, decoder):
    more = {"decoder_input_ids": torch.tensor([decoder])} if decoder else {}
    with torch.no_grad():
        out = model(torch.tensor([ids]), **more)
    return (out.logits if "logits" in out else out.last_hidden_state).float()


def our_output(args, folder, ids, decoder, *options):
    out = os.path.join(args.out, "logits.safetensors")
    ids_of_decoder = ["--decoder-ids", ",".join(map(str, decoder))] if decoder else []
    ids = ",".join(map(str, ids))
    check.nibble(args, "logits", folder, "--ids", ids, *ids_of_decoder, "--out", out, "--force", *options)
    return next(iter(load_file(out).values()))


def as_float32(model):
    """What is not packed is loaded in the config's dtype, and 4-bit weights are rounded to it: both work in float32 here."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.weight.quant_state.dtype = F32
    return model


def without_llm_int8(model):
    """int8 weights as float32: LLM.int8 rounds activations, too, which is asked for in a row of its own."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ != "Linear8bitLt":
            continue
        scales = module.weight.SCB if module.weight.SCB is not None else module.state.SCB  # where a pass has moved them
        scales = scales.float() / 127
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        plain.weight.data = module.weight.data.float() * scales[:, None]
        if module.bias is not None:
            plain.bias.data = module.bias.data.float()
        model.set_submodule(name, plain)
    return model


# ---- rows ----


class Rows:
    """What is found out about one artifact, as one row."""

    def __init__(self, table, model, method):
        self.table, self.model, self.method = table, model, method
        self.parts, self.faults = [], []

    def note(self, text, ok=True):
        self.parts.append(text)
        if not ok:
            self.faults.append(text)

    def distance(self, ours, theirs, bound):
        if ours.numel() != theirs.numel():
            return self.note(f"shapes {tuple(ours.shape)} {tuple(theirs.shape)}", False)
        found = check.distance(ours.reshape(theirs.shape), theirs)
        self.note(f"{found:.1e}", found < bound)

    def end(self, what):
        self.table.row(self.model, self.method, what, ", ".join(self.faults or self.parts), not self.faults)


def compare_keys(rows, report, allowed):
    """Nothing but what transformers does not know of the source either."""
    new = {kind: [key for key in keys if key not in allowed.get(kind, [])] for kind, keys in report.items()}
    new = {kind: keys for kind, keys in new.items() if keys}
    rows.note(f"loads: {new}" if new else "loads", not new)


def compare_bytes(rows, ours, reference, is_usual):
    a, b = check.tensors(ours), check.tensors(reference)
    differ = [k for k in sorted(set(a) & set(b))
              if a[k].dtype != b[k].dtype or a[k].shape != b[k].shape or not torch.equal(check.raw(a[k]), check.raw(b[k]))]
    # Saving gives the usual names to all tensors, and leaves out what nothing reads: nibble keeps what it was given.
    other = sorted(set(a) ^ set(b)) if is_usual else []
    rows.note(f"differ {differ[:2]} {other[:2]}" if differ or other else f"{len(b)} tensors", not differ and not other)
    configs = [config_of(folder)["quantization_config"] for folder in (ours, reference)]
    if configs[0] != configs[1]:
        rows.note("quantization_config differs", False)


def check_bitsandbytes(table, args, case, method, allowed):
    name, source, ids, decoder = case
    ours = os.path.join(args.out, f"{name}-{method}".replace(", ", "-"))
    command, config = check.METHODS[method]
    check.nibble(args, "quantize", source, ours, *command, "--force")
    rows = Rows(table, name, method)
    model, report = load(ours)
    compare_keys(rows, report, allowed)
    as_float32(model)
    if method == "int8":
        check_llm_int8(rows, model, our_output(args, ours, ids, decoder, "--int8", "llm.int8"), ids, decoder)
        without_llm_int8(model)
    rows.distance(our_output(args, ours, ids, decoder), their_output(model, ids, decoder), check.FLOAT32_BOUND)
    reference = ours + "-bitsandbytes"
    shutil.rmtree(reference, ignore_errors=True)
    load(source, quantization_config=BitsAndBytesConfig(**config))[0].save_pretrained(reference)
    plain = check.tensors(source)
    unpacked = load(source)[0]
    unpacked.save_pretrained(reference + "-plain")
    is_usual = set(plain) == set(check.tensors(reference + "-plain"))
    compare_bytes(rows, ours, reference, is_usual)
    rows.end("loads, logits, bytes")


def check_llm_int8(rows, model, ours, ids, decoder):
    """LLM.int8 rounds activations to 127 steps, so a value that lies between two may take the other one, and what comes
    after it moves. Either the outputs agree as interop_check asks, or nearly all rows of them agree as float32 does, and
    the others as well as those of the reference itself do when its embeddings change enough for other steps."""
    theirs = their_output(model, ids, decoder)
    ours = ours.reshape(theirs.shape)
    found = check.distance(ours, theirs)
    if found < max(check.FLOAT32_BOUND, 2 * perturbed(model, ids, decoder, theirs, check.PERTURBATION)):
        return rows.note(f"{found:.1e}")
    apart = ((ours - theirs).abs().amax(-1) / theirs.abs().max() >= check.FLOAT32_BOUND).float().mean().item()
    rows.note(f"{apart:.0%} of rows apart", apart <= APART)
    rows.distance(ours, theirs, 2 * perturbed(model, ids, decoder, theirs, LARGER_PERTURBATION))


def perturbed(model, ids, decoder, reference, size):
    """How far the reference's own logits move when its embeddings do."""
    embedding = model.get_input_embeddings().weight
    original, most = embedding.data.clone(), 0.0
    for seed in range(check.PERTURBED_RUNS):
        torch.manual_seed(seed)
        embedding.data = original * (1 + size * torch.randn_like(original))
        most = max(most, check.distance(their_output(model, ids, decoder), reference))
    embedding.data = original
    return most


def check_converted(table, args, case, dtype, allowed):
    name, source, ids, decoder = case
    ours = os.path.join(args.out, f"{name}-{dtype}")
    check.nibble(args, "convert", source, ours, "--dtype", dtype, "--force")
    rows = Rows(table, name, dtype)
    model, report = load(ours)
    compare_keys(rows, report, allowed)
    wrong = {str(p.dtype) for n, p in model.named_parameters()} - {"torch." + dtype}
    if name.startswith(("t5", "wide-t5")) and dtype == "float16":
        wrong -= {"torch.float32"}  # wo
    rows.note(f"{wrong}" if wrong else dtype, not wrong)
    theirs = their_output(as_float32(model), ids, decoder)
    rows.distance(our_output(args, ours, ids, decoder), theirs, check.FLOAT32_BOUND)
    rows.end("loads, dtype, logits")


# ---- the layout of GPTQ ----


def fields(words, bits, count):
    """The first `count` fields of each column: a stream of bits down the rows, lowest first."""
    words = words.long() & 0xFFFFFFFF
    start = torch.arange(count) * bits
    low = words[start // 32] >> (start % 32)[:, None]
    next_word = words[torch.clamp(start // 32 + 1, max=words.shape[0] - 1)]
    return (low | next_word << (32 - start % 32)[:, None]) & (2**bits - 1)


def zero_points(words, bits, groups_by, version):
    """[groups, out]. In version 1 they are less one: of the whole word, but of 3 bits, whose fields cross words."""
    if version == 1 and bits != 3:
        one = sum(1 << shift for shift in range(0, 32, bits))
        words = (words.long() & 0xFFFFFFFF) + one
    zeros = fields(words.T, bits, groups_by).T
    return (zeros + 1) & 7 if version == 1 and bits == 3 else zeros


def unpack(folder):
    """The plain weights of an artifact, [out, in], and the names of the modules that were packed."""
    config = config_of(folder)["quantization_config"]
    bits, version = config["bits"], 2 if config["checkpoint_format"] == "gptq_v2" else 1
    stored, plain, packed = check.tensors(folder), {}, []
    for name, value in stored.items():
        module, _, part = name.rpartition(".")
        if part not in ("qweight", "qzeros", "scales", "g_idx"):
            plain[name] = value
        if part != "qweight":
            continue
        scales, groups = stored[module + ".scales"], stored[module + ".g_idx"].long()
        codes = fields(value, bits, groups.numel())
        zeros = zero_points(stored[module + ".qzeros"], bits, scales.shape[1], version)
        plain[module + ".weight"] = ((codes - zeros[groups]) * scales.float()[groups]).T.contiguous()
        packed.append(module)
    return plain, packed


def check_grid(table, args, case, method, allowed):
    name, source, ids, decoder = case
    ours = os.path.join(args.out, f"{name}-{method}".replace(" ", "-"))
    calibration = ["--calib", args.text, *CALIBRATION] if method.startswith("gptq") else []
    check.nibble(args, "quantize", source, ours, *GRIDS[method], *calibration, "--force")
    rows = Rows(table, name, method)
    plain, packed = unpack(ours)
    original, _ = load(source)
    config = config_of(ours)
    quantization = config.pop("quantization_config")
    if quantization != json.load(open(os.path.join(ours, "quantize_config.json"))):
        rows.note("quantize_config.json differs", False)
    modules = dict(original.named_modules())
    for module in packed:
        if type(modules.get(module)).__name__ == "Conv1D":
            plain[module + ".weight"] = plain[module + ".weight"].T.contiguous()
    unpacked = ours + "-unpacked"
    os.makedirs(unpacked, exist_ok=True)
    save_file(plain, os.path.join(unpacked, "model.safetensors"), metadata={"format": "pt"})
    json.dump(dict(config, dtype="float32"), open(os.path.join(unpacked, "config.json"), "w"))
    model, report = load(unpacked)
    compare_keys(rows, report, allowed)
    # What loads this layout replaces modules of blocks, and no others; a block's name has a number in it.
    outside = [module for module in packed if not any(part.isdigit() for part in module.split("."))]
    rows.note(f"outside of blocks {outside}" if outside else f"{len(packed)} packed", packed and not outside)
    rows.distance(our_output(args, ours, ids, decoder), their_output(as_float32(model), ids, decoder), check.FLOAT32_BOUND)
    rows.end("unpacked: loads, packed, logits")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ("--nibble", "--golden", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--only", default="", help="models whose names contain this")
    args = parser.parse_args()
    args.text = os.path.join(args.out, "calibration.txt")
    with open(args.text, "w") as text:
        text.write("".join(LETTERS[i * i % 61 % VOCAB] for i in range(4096)))
    table = check.Table(28)
    for case in sources(args):
        if args.only not in case[0]:
            continue
        allowed = load(case[1])[1]
        for method in check.METHODS:
            attempt(table, case[0], method, lambda m=method: check_bitsandbytes(table, args, case, m, allowed))
        for dtype in ("float32", "bfloat16", "float16"):
            attempt(table, case[0], dtype, lambda d=dtype: check_converted(table, args, case, d, allowed))
        for method in GRIDS if case[0] in WIDE else []:
            if method.startswith("rtn") or ending_of(case[1]) in CALIBRATED:
                attempt(table, case[0], method, lambda m=method: check_grid(table, args, case, m, allowed))
    table.end()


def attempt(table, model, method, row):
    """A row whatever happens: what nibble refuses, or transformers cannot load, is one that fails."""
    try:
        row()
    except (Exception, subprocess.CalledProcessError) as error:
        table.row(model, method, "works", f"{type(error).__name__}: {error}".splitlines()[0][:200], False)


if __name__ == "__main__":
    main()
