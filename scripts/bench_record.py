"""Speed that is kept: `record` appends a commit's figures to bench/*.csv, `compare` holds two builds against each other in
interleaved runs. scripts/bench-record and scripts/bench-compare prepare what this needs."""
import argparse
import csv
import datetime
import json
import os
import re
import statistics
import subprocess
import sys

KERNELS = ("bf16", "int8", "nf4", "gptq4", "q4_0", "q8_0")
SHAPES = ((576, 1536), (2048, 2048), (4096, 4096))
BATCHES = (1, 4, 32, 256)
MODELS = ("bf16", "int8", "nf4", "nf4-dq", "gptq4")
COLUMNS = ("date", "commit", "processor", "isa", "threads", "activations", "kernel", "rows", "cols", "n", "share", "bound",
           "seconds")
LEAST = 0.97  # of the earlier median


def processor():
    with open("/proc/cpuinfo") as f:
        found = re.search(r"model name\s*: (.*)", f.read())
    return found.group(1).strip() if found else os.uname().machine


def nibble(program, *command):
    out = subprocess.run([program, *command, "--threads", str(os.cpu_count()), "--json"], capture_output=True, text=True,
                         check=True).stdout
    return json.loads(out)


def kernels(program, kernel, shape, activations):
    """The rows of `bench --kernels` for one format and shape, in all batches, with double quantization where there is one."""
    return nibble(program, "bench", "--kernels", "--format", kernel, "--rows", str(shape[0]), "--cols", str(shape[1]),
                  "--activations", activations)


def record(a):
    path = os.path.join("bench", re.sub(r"\W+", "-", processor()).strip("-").lower() + ".csv")
    os.makedirs("bench", exist_ok=True)
    is_new = not os.path.exists(path)
    with open(path, "a", newline="") as f:
        out = csv.DictWriter(f, COLUMNS)
        if is_new:
            out.writeheader()
        for activations in ("exact", "int8"):
            for kernel in KERNELS:
                for shape in SHAPES:
                    result = kernels(a.nibble, kernel, shape, activations)
                    for row in result["kernels"]:
                        if row["n"] in BATCHES:
                            out.writerow({
                                "date": datetime.date.today(), "commit": a.commit, "processor": processor(),
                                "isa": result["isa"], "threads": result["threads"], "activations": activations,
                                "kernel": kernel + ("-dq" if row["double_quant"] else ""), "rows": row["rows"],
                                "cols": row["cols"], "n": row["n"], "share": f"{row['share']:.3f}", "bound": row["bound"],
                                "seconds": f"{row['seconds']:.3g}"})
                    f.flush()
                    print(f"{kernel}, {shape[0]} x {shape[1]}, {activations}", file=sys.stderr, flush=True)
    print(path)


def measurements(a):
    """name, function of a program that returns {name: rate}; more is better"""
    def product(kernel, shape, activations):
        def measure(program):
            rows = kernels(program, kernel, shape, activations)["kernels"]
            return {f"{kernel}{'-dq' if r['double_quant'] else ''} {shape[0]}x{shape[1]} {activations}, {r['n']} rows": r["flops"]
                    for r in rows if r["n"] in BATCHES}
        return measure

    def model(name, activations):
        def measure(program):
            r = nibble(program, "bench", os.path.join(a.models, name), "--prompt", "512", "--gen", "64", "--repetitions", "1",
                       "--activations", activations)
            return {f"{name} {activations}, {what}": r[f"{what}_tokens_per_second"] for what in ("prefill", "decode")}
        return measure

    for activations in ("exact", "int8"):
        for name in MODELS:
            yield model(name, activations)
    if a.kernels:
        for activations in ("exact", "int8"):
            for kernel in KERNELS:
                yield product(kernel, (4096, 4096), activations)


def compare(a):
    rates = {}  # name -> (rates of the earlier program, of the later one)
    for done in range(a.rounds):
        for measure in measurements(a):
            for side, program in enumerate((a.before, a.nibble) if done % 2 == 0 else (a.nibble, a.before)):
                side = side if done % 2 == 0 else 1 - side
                for name, rate in measure(program).items():
                    rates.setdefault(name, ([], []))[side].append(rate)
                    if side == 1:
                        print(f"round {done + 1} of {a.rounds}: {name}", file=sys.stderr, flush=True)
    failed = 0
    print("| what | earlier | now | ratio |\n| --- | --- | --- | --- |")
    for name, (before, now) in rates.items():
        ratio = statistics.median(now) / statistics.median(before)
        failed += ratio < LEAST
        print(f"| {name} | {statistics.median(before):.4g} | {statistics.median(now):.4g} | {ratio:.2f}"
              f"{' SLOWER' if ratio < LEAST else ''} |")
    print(f"\n{processor()}, {os.cpu_count()} threads, {a.rounds} interleaved rounds: {failed} of {len(rates)} below {LEAST:.0%} "
          "of the earlier median")
    return 1 if failed else 0


def main():
    p = argparse.ArgumentParser()
    commands = p.add_subparsers(required=True)
    r = commands.add_parser("record")
    r.add_argument("--nibble", required=True)
    r.add_argument("--commit", required=True)
    r.set_defaults(run=record)
    c = commands.add_parser("compare")
    c.add_argument("--nibble", required=True)
    c.add_argument("--before", required=True)
    c.add_argument("--models", required=True)
    c.add_argument("--rounds", type=int, default=5)
    c.add_argument("--kernels", action="store_true", help="the products, too, which take longer than the models")
    c.set_defaults(run=compare)
    a = p.parse_args()
    sys.exit(a.run(a))


main()
