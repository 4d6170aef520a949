"""The torch side of scripts/bench-peers: reads one measurement a line from stdin, answers with one number a line.
Models are loaded when first asked for and kept, so that rounds can be interleaved with other programs.

  prefill|decode|ppl MODEL COUNT     tokens a second of transformers; MODEL is a folder, bitsandbytes' if it is packed
  product dense|nf4 ROWS             seconds of one 4096x4096 product: torch in float32, or bitsandbytes in bfloat16
  quantize MODEL                     seconds to quantize the linear layers of a bf16 folder to NF4, in memory"""
import os
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
import bitsandbytes
import torch
import transformers

CTX = 512
models = {}
weights = {}


def model(path):
    if path not in models:
        # bitsandbytes is faster on a CPU in float32 than in bfloat16, unless the processor has AMX.
        models[path] = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return models[path]


def some_ids(path, rows, count):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(100, model(path).config.vocab_size, (rows, count), generator=generator)


def seconds(what):
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def prefill(path, count):
    ids = some_ids(path, 1, int(count))
    return int(count) / seconds(lambda: model(path)(ids, logits_to_keep=1, use_cache=False))


def decode(path, count):
    state = model(path)(some_ids(path, 1, 1), use_cache=True)

    def run():
        cache, ids = state.past_key_values, state.logits[:, -1:].argmax(-1)
        for _ in range(int(count)):
            out = model(path)(ids, past_key_values=cache, use_cache=True)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)

    return int(count) / seconds(run)


def ppl(path, count):
    windows = some_ids(path, int(count), CTX)

    def run():
        for window in windows:
            logits = model(path)(window[None], use_cache=False).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits, window[1:])

    return int(count) * CTX / seconds(run)


def make_weights(kind):
    if kind == "dense":  # as many as the caches do not hold
        return [torch.nn.Linear(4096, 4096, bias=False) for _ in range(8)]
    one = bitsandbytes.nn.Linear4bit(4096, 4096, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
    return [one.to("cpu")]


def product(kind, rows):
    if kind not in weights:
        weights[kind] = make_weights(kind)
    x = torch.randn(int(rows), 4096, dtype=torch.float32 if kind == "dense" else torch.bfloat16)
    times, begin = [], time.perf_counter()
    while len(times) < 8 or time.perf_counter() - begin < 0.5:
        times.append(seconds(lambda: weights[kind][len(times) % len(weights[kind])](x)))
    return sorted(times)[len(times) // 2]


def quantize(path):
    linears = [m.weight.data for n, m in model(path).named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    halves = [w.to(torch.bfloat16) for w in linears]
    return seconds(lambda: [bitsandbytes.functional.quantize_4bit(w, blocksize=64, quant_type="nf4") for w in halves])


torch.set_num_threads(int(sys.argv[1]))
with torch.inference_mode():
    for line in sys.stdin:
        what, *arguments = line.split()
        print(globals()[what](*arguments), flush=True)
