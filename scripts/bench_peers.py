"""Measures nibble and its peers in interleaved rounds; scripts/bench-peers prepares what this needs.

A measurement is a row of the table `measurements`: a group, who, and a function that returns one number for one round.
What comes out are medians over the rounds, tables, the goals, and a plot."""
import argparse
import csv
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

from bench_plot import draw

PROMPT, GEN, GEN_LARGE, PRODUCT_ROWS = 512, 64, 24, (1, 32, 256)


def parse_arguments():
    p = argparse.ArgumentParser()
    for name in ("nibble", "models", "llama", "python", "text"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--isa", choices=("native", "avx2"), default="native", help="what both sides are held to")
    p.add_argument("--quick", action="store_true", help="one round, no 1B model, shorter texts")
    p.add_argument("--rounds", type=int)
    p.add_argument("--svg", default="docs/speed.svg")
    p.add_argument("--save", help="write the medians to this file")
    p.add_argument("--load", help="measure nothing: use the numbers of an earlier --save")
    a = p.parse_args()
    a.rounds = a.rounds or (1 if a.quick else 5)
    a.threads = str(os.cpu_count())
    a.windows = "4" if a.quick else "8"
    return a


args = parse_arguments()
# Each program waits in its own way.
for variable in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT"):
    os.environ.pop(variable, None)
if args.isa == "avx2":  # torch and oneDNN have names of their own for it; bitsandbytes' library goes by the processor
    os.environ.update(NIBBLE_ISA="avx2", ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2")
llama_programs = args.llama + ("/build-avx2/bin/" if args.isa == "avx2" else "/build/bin/")

with open("/proc/cpuinfo") as f:
    processor = re.search(r"model name\s*: (.*)", f.read())


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True)


def nibble(*command):
    return json.loads(run(args.nibble, *command, "--threads", args.threads, "--json").stdout)


class Torch:
    """The process of bench_torch.py, started when first asked."""

    process = None

    def __call__(self, *request):
        if not self.process:
            script = os.path.join(os.path.dirname(__file__), "bench_torch.py")
            self.process = subprocess.Popen([args.python, script, args.threads], text=True, bufsize=1,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdin.write(" ".join(str(r) for r in request) + "\n")
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("the torch side stopped at: " + " ".join(str(r) for r in request))
        return float(answer)


torch = Torch()


def model_path(name):
    return os.path.join(args.models, name)


EXACT = ("--activations", "exact")
ROUNDED = ("--activations", "int8")


def nibble_model(name, *options, gen=GEN):
    """Prefill and decode of one of nibble's folders; one run gives both."""
    r = nibble("bench", model_path(name), "--prompt", str(PROMPT), "--gen", str(gen), "--repetitions", "1",
               *options)
    return {"prefill": r["prefill_tokens_per_second"], "decode": r["decode_tokens_per_second"]}


def llama_bench(kind):
    out = run(f"{llama_programs}llama-bench", "-m", f"{args.llama}/smollm2-{kind}.gguf", "-p", str(PROMPT), "-n",
              str(GEN), "-t", args.threads, "-r", "1", "-o", "csv").stdout
    return {"decode" if int(r["n_gen"]) else "prefill": float(r["avg_ts"]) for r in csv.DictReader(io.StringIO(out))}


def torch_model(name):
    return {"prefill": torch("prefill", model_path(name), PROMPT), "decode": torch("decode", model_path(name), GEN // 2)}


def llama_perplexity():
    r = run(f"{llama_programs}llama-perplexity", "-m", f"{args.llama}/smollm2-Q4_0.gguf", "-f", args.text, "-c", "512",
            "--chunks", args.windows, "-t", args.threads)
    # What it prints of its progress may end in the middle of the line of the estimate.
    minutes, seconds = zip(*(re.search(rf"(\d+)\.(\d\d\.\d\d\d)\.\d+ I (?:perplexity: )?{line}", r.stderr + r.stdout).groups()
                             for line in ("calculating perplexity", "Final estimate")))
    return 512 * int(args.windows) / (60 * (int(minutes[1]) - int(minutes[0])) + float(seconds[1]) - float(seconds[0]))


def nibble_ppl(*options):
    return nibble("ppl", model_path("nf4"), "--text", args.text, "--ctx", "512", "--chunks", args.windows,
                  *options)["tokens_per_second"]


def nibble_product(rows):
    r = nibble("bench", "--kernels", "--format", "nf4", "--rows", "4096", "--cols", "4096", "--batch", str(rows))
    machine["isa"] = r["isa"]
    machine["read"].append(r["read_bytes_per_second"])
    machine["flops"].append(r["peak_flops"])
    return 1000 * r["kernels"][0]["seconds"]


def wall(*command):
    start = time.perf_counter()
    run(*command)
    return time.perf_counter() - start


def quantize_nibble():
    with tempfile.TemporaryDirectory() as folder:
        return wall(args.nibble, "quantize", model_path("bf16"), folder + "/q", "--method", "nf4", "--no-sync", "--threads",
                    args.threads)


def quantize_llama():
    with tempfile.TemporaryDirectory() as folder:
        return wall(f"{llama_programs}llama-quantize", f"{args.llama}/smollm2-F16.gguf", folder + "/q.gguf", "Q4_0",
                    args.threads)


def first_token_nibble(name):
    return 1000 * wall(args.nibble, "generate", model_path(name), "--prompt", "The", "--max-new-tokens", "1", "--threads",
                       args.threads)


def first_token_llama():
    return 1000 * wall(f"{llama_programs}llama-bench", "-m", f"{args.llama}/smollm2-Q4_0.gguf", "-p", "1", "-n", "0",
                       "-t", args.threads, "-r", "1", "--no-warmup")


FIRST_TOKEN_TRANSFORMERS = """
import sys, torch, transformers
m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
t = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
print(t.decode(m.generate(**t("The", return_tensors="pt"), max_new_tokens=1)[0]))"""


def measurements():
    """group, who, measure. A dict that comes back goes to several groups, each under its own name or after the one given; "+"
    is none."""
    for name in ("f32", "bf16", "int8", "nf4", "gptq4"):
        yield "+", f"nibble {name}", lambda n=name: nibble_model(n, *EXACT)
    for name in ("int8", "nf4", "gptq4"):
        yield "+", f"nibble {name}, int8 activations", lambda n=name: nibble_model(n, *ROUNDED)
        # As llama.cpp has it: its files of 4 bits and of 8 store the output embedding in 8.
        yield "+", f"nibble {name}, int8 head, int8 activations", lambda n=name: nibble_model(n, *ROUNDED, "--head", "int8")
    for kind in ("F16", "Q8_0", "Q4_0"):
        yield "+", f"llama.cpp {kind}", lambda k=kind: llama_bench(k)
    yield "+", "transformers f32", lambda: torch_model("bf16")
    yield "+", "transformers + bitsandbytes NF4", lambda: torch_model("nf4")

    yield "ppl", "nibble nf4", nibble_ppl
    yield "ppl", "nibble nf4, int8 activations", lambda: nibble_ppl(*ROUNDED)
    yield "ppl", "llama-perplexity Q4_0", llama_perplexity
    yield "ppl", "transformers f32", lambda: torch("ppl", model_path("bf16"), args.windows)
    yield "ppl", "transformers + bitsandbytes NF4", lambda: torch("ppl", model_path("nf4"), args.windows)

    for rows in PRODUCT_ROWS:
        yield f"product{rows}", "nibble NF4, float32", lambda r=rows: nibble_product(r)
        yield f"product{rows}", "torch dense float32", lambda r=rows: 1000 * torch("product", "dense", r)
        yield f"product{rows}", "bitsandbytes Linear4bit bf16", lambda r=rows: 1000 * torch("product", "nf4", r)

    yield "quantize", "nibble nf4, hashes and files", quantize_nibble
    yield "quantize", "llama-quantize Q4_0, files", quantize_llama
    yield "quantize", "bitsandbytes NF4, in memory", lambda: torch("quantize", model_path("bf16"))

    yield "first", "nibble nf4", lambda: first_token_nibble("nf4")
    yield "first", "llama.cpp Q4_0 (llama-bench -p 1)", first_token_llama
    if args.quick:
        return
    yield "first", "transformers + bitsandbytes NF4", lambda: 1000 * wall(args.python, "-c", FIRST_TOKEN_TRANSFORMERS,
                                                                           model_path("nf4"))
    for name in ("bf16", "int8", "nf4", "gptq4"):
        yield "1b", f"nibble {name}", lambda n=name: nibble_model("1b-" + n, *EXACT, gen=GEN_LARGE)
        if name != "bf16":
            yield "1b", f"nibble {name}, int8 activations", lambda n=name: nibble_model("1b-" + n, *ROUNDED,
                                                                                       gen=GEN_LARGE)


def bytes_per_token(name):
    """What a decoded token reads of a 1B folder: every tensor but the embedding, of which it takes one row."""
    total = 0
    for file in os.listdir(model_path(name)):
        if file.endswith(".safetensors"):
            with open(os.path.join(model_path(name), file), "rb") as f:
                header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
            total += sum(t["data_offsets"][1] - t["data_offsets"][0] for n, t in header.items()
                         if n != "__metadata__" and "embed_tokens" not in n)
    return total


machine = {"read": [], "flops": []}


def summary(numbers, rounds):
    """The medians so far."""
    result = {"rounds": rounds, "threads": args.threads, "groups": {}, "bytes": {}, "isa": machine["isa"],
              "processor": processor.group(1) if processor else "this processor"}
    for (group, who), values in numbers.items():
        result["groups"].setdefault(group, {})[who] = statistics.median(values)
    result.update((k, statistics.median(machine[k])) for k in ("read", "flops"))
    if not args.quick:
        result["bytes"] = {n: bytes_per_token("1b-" + n) for n in ("bf16", "int8", "nf4", "gptq4")}
    return result


def measure_all():
    numbers = {}  # (group, who) -> one number a round
    table = list(measurements())
    for done in range(1, args.rounds + 1):
        for group, who, measure in table:
            print(f"round {done} of {args.rounds}: {who}", file=sys.stderr, flush=True)
            value = measure()
            parts = value.items() if isinstance(value, dict) else [(group, value)]
            for part, number in parts:
                key = part if group in ("+", part) else group + " " + part
                numbers.setdefault((key, who), []).append(number)
        result = summary(numbers, done)
        if args.save:  # after each round, so that a run that is cut short is not lost
            with open(args.save, "w") as f:
                json.dump(result, f, indent=1)
    return result


def speed_table(title, group, best_of, unit, digits=0):
    best = max(v for who, v in group.items() if who.startswith(best_of))
    print(f"\n| {title} | {unit} | over {best_of}'s best |\n| --- | --- | --- |")
    for who, v in group.items():
        print(f"| {who} | {v:.{digits}f} | {v / best:.2f} |")


def print_tables(result):
    g = result["groups"]
    speed_table(f"prefill of {PROMPT}", g["prefill"], "llama.cpp", "tokens/s")
    speed_table("decode", g["decode"], "llama.cpp", "tokens/s")
    speed_table("perplexity, windows of 512", g["ppl"], "llama", "tokens/s")
    print("\n| one 4096x4096 product | " + " | ".join(f"{r} rows" for r in PRODUCT_ROWS) + " |\n| --- | --- | --- | --- |")
    for who in g["product1"]:
        print(f"| {who} | " + " | ".join(f"{g[f'product{r}'][who]:.2f} ms" for r in PRODUCT_ROWS) + " |")
    print("\n| quantize 135M parameters | seconds |\n| --- | --- |")
    for who, v in g["quantize"].items():
        print(f"| {who} | {v:.2f} |")
    print("\n| fresh process to the first token | ms |\n| --- | --- |")
    for who, v in g["first"].items():
        print(f"| {who} | {v:.0f} |")
    if result["bytes"]:
        print("\n| 1.1 billion weights | prefill of 512, tokens/s | decode, tokens/s | GB a token | share of "
              f"{result['read'] / 1e9:.1f} GB/s |\n| --- | --- | --- | --- | --- |")
        for who, v in g["1b decode"].items():
            size = result["bytes"][who.removeprefix("nibble ").split(",")[0]]
            print(f"| {who} | {g['1b prefill'][who]:.0f} | {v:.1f} | {size / 1e9:.2f} | {v * size / result['read']:.0%} |")


def goals(result):
    """what, measured, wanted; larger is better"""
    g = result["groups"]
    best = {k: max(v for who, v in g[k].items() if who.startswith("llama")) for k in ("prefill", "decode", "ppl")}
    rounded = ", int8 activations"
    for name, peer, exact in (("nf4", "Q4_0", 0.95), ("gptq4", "Q4_0", 0.95), ("int8", "Q8_0", 1.2)):
        for suffix, wanted in (("", exact), (rounded, 1.2), (", int8 head" + rounded, 1.2)):
            yield (f"decode, {name}{suffix}, over llama.cpp's {peer}",
                   g["decode"]["nibble " + name + suffix] / g["decode"]["llama.cpp " + peer], wanted)
    for suffix, wanted in (("", 1.3), (rounded, 1.6)):
        own = max(v for who, v in g["prefill"].items() if who.startswith("nibble") and who.endswith(rounded) == bool(suffix))
        yield f"prefill, best{suffix}, over llama.cpp's best", own / best["prefill"], wanted
        yield f"ppl, nf4{suffix}, over llama-perplexity on Q4_0", g["ppl"]["nibble nf4" + suffix] / best["ppl"], wanted
    for who, v in g.get("1b decode", {}).items():
        name = who.removeprefix("nibble ")
        if name != "bf16":
            share = v * result["bytes"][name.split(",")[0]] / result["read"]
            wanted = 0.85 if rounded in name else 0.8 if name == "int8" else 0.65
            yield f"decode, 1B, {name}, share of the read bandwidth", share, wanted
    product = {r: g[f"product{r}"]["torch dense float32"] / g[f"product{r}"]["nibble NF4, float32"] for r in PRODUCT_ROWS}
    yield "4096x4096 NF4 at 1 row, over torch's dense float32", product[1], 4
    yield "4096x4096 NF4 at 256 rows, over torch's dense float32", product[256], 1
    nibble_seconds = g["product256"]["nibble NF4, float32"] / 1000
    yield "256 rows, share of the multiply-add peak", 2 * 256 * 4096**2 / nibble_seconds / result["flops"], 0.8
    yield ("ppl, nf4, over transformers + bitsandbytes",
           g["ppl"]["nibble nf4"] / g["ppl"]["transformers + bitsandbytes NF4"], 1.6)
    quantize = g["quantize"]
    yield ("quantize, nf4, over llama-quantize to Q4_0",
           quantize["llama-quantize Q4_0, files"] / quantize["nibble nf4, hashes and files"], 3)
    yield "first token, nf4: 70 ms over the time taken", 70 / g["first"]["nibble nf4"], 1


def main():
    if args.load:
        with open(args.load) as f:
            result = json.load(f)
    else:
        result = measure_all()
    print_tables(result)
    print("\n| goal | measured | wanted | reached |\n| --- | --- | --- | --- |")
    for what, measured, wanted in goals(result):
        print(f"| {what} | {measured:.2f} | {wanted} | {'yes' if measured >= wanted else 'no'} |")
    print(f"\n{result['processor']}, {result['isa']}, {result['threads']} threads: medians of {result['rounds']} interleaved "
          f"rounds; it read {result['read'] / 1e9:.1f} GB/s and multiplied {result['flops'] / 1e9:.0f} GFLOP/s meanwhile.")
    with open(args.svg, "w") as f:
        f.write(draw(result))


main()
