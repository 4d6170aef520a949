"""The peers' products on the GPU, in the same way as nibble-kernels bench: torch's bfloat16 and, where it is installed,
bitsandbytes' nf4 and int8, over weights that together are several times the cache, as the median of replays of a graph
(of plain runs where a peer cannot be recorded). Prints one line that says so and succeeds where torch or a device is missing."""

import sys

ROUNDS, ROTATED = 15, 512 << 20
SHAPES = [(4096, 14336), (14336, 4096), (8192, 28672)]
COUNTS = [1, 4, 16, 32, 64, 512, 2048]

try:
    import torch
except ImportError:
    sys.exit(print("peers: skipped: python3 has no torch"))
if not torch.cuda.is_available():
    sys.exit(print("peers: skipped: torch sees no CUDA device"))
try:
    import bitsandbytes
    from bitsandbytes import functional
except ImportError:
    bitsandbytes = None


def seconds_of(work, copies):
    """Seconds of one run of work(copy), and whether a graph was replayed."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(2):
            work(0)
        torch.cuda.synchronize()

        def all_copies():
            for copy in range(copies):
                work(copy)

        try:
            with torch.cuda.graph(graph, stream=stream):
                all_copies()
            run, recorded = graph.replay, True
        except Exception:  # whatever a peer does that cannot be recorded
            torch.cuda.synchronize()
            run, recorded = all_copies, False
        times = []
        for i in range(ROUNDS + 2):
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record(stream)
            run()
            after.record(stream)
            after.synchronize()
            times.append(before.elapsed_time(after) * 1e-3 / copies)
    return sorted(times[2:])[ROUNDS // 2], recorded


def dense(weights):
    return lambda copy, x: torch.nn.functional.linear(x, weights[copy])


def nf4(weights):
    packed = [functional.quantize_4bit(w, quant_type="nf4") for w in weights]
    return lambda copy, x: bitsandbytes.matmul_4bit(x, packed[copy][0].t(), packed[copy][1])


def int8(weights):
    layers = []
    for w in weights:
        layer = bitsandbytes.nn.Linear8bitLt(w.shape[1], w.shape[0], bias=False, has_fp16_weights=False)
        layer.weight = bitsandbytes.nn.Int8Params(w.half().cpu(), requires_grad=False)
        layers.append(layer.cuda())
    return lambda copy, x: layers[copy](x)


def main():
    print(f"torch {torch.__version__}, bitsandbytes {bitsandbytes.__version__ if bitsandbytes else 'not installed'}")
    print(f"{'peer':<20}{'rows':>7}{'cols':>7}{'n':>6}{'us':>11}{'GB/s':>8}")
    peers = [("torch bf16", dense, 2.0)]
    if bitsandbytes:
        peers += [("bitsandbytes nf4", nf4, 0.5625), ("bitsandbytes int8", int8, 1.0)]
    for rows, cols in SHAPES:
        for name, make, bytes_a_weight in peers:
            copies = max(2, min(24, -(-ROTATED // int(rows * cols * bytes_a_weight))))
            dtype = torch.float16 if make is int8 else torch.bfloat16  # int8 takes activations of float16 only
            with torch.no_grad():
                weights = [torch.randn(rows, cols, device="cuda", dtype=dtype) * 0.02 for _ in range(copies)]
                product = make(weights)
                for n in COUNTS:
                    x = torch.randn(n, cols, device="cuda", dtype=dtype)
                    seconds, recorded = seconds_of(lambda copy: product(copy, x), copies)
                    note = "" if recorded else "  (no graph)"
                    rate = rows * cols * bytes_a_weight / seconds / 1e9
                    print(f"{name:<20}{rows:>7}{cols:>7}{n:>6}{seconds * 1e6:>11.1f}{rate:>8.0f}{note}", flush=True)


main()
