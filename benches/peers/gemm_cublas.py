#!/usr/bin/env python3
"""Square matrix products of cuBLAS, as PyTorch calls it, measured as `gemm_ladder products` measures ours.

    gemm_cublas.py REPETITIONS N [N …] [--device cuda]

C = A·B of [N, N] matrices of normal numbers in f32 (torch.float32, without TF32), tf32 (torch.float32 with it) and
bf16 (torch.bfloat16: factors already cut in memory and C cut as well, so that it moves half the bytes of elbo's bf16,
whose matrices are f32). Every product is checked in 32 of its rows against f64, with the bounds of elbo, before it is
timed. A repetition is as many launches as make 2³⁷ multiply-adds (128 at most), recorded as a CUDA graph, so that
Python's time per call does not count; one repetition goes ahead unmeasured. The last line has medians and shortest
times as JSON. Needs torch. `--device cpu` shows that the program works, and times one launch.
"""
import argparse
import json
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("repetitions", type=int)
parser.add_argument("sizes", type=int, nargs="+", metavar="N")
parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
args = parser.parse_args()
if args.repetitions < 1 or min(args.sizes) < 1:
    parser.error("REPETITIONS and N are numbers from 1 on")

import torch  # noqa: E402

CHECKED_ROWS = 32
# Relative errors of a product by the rounding of its factors; bf16 also of C, at most 2⁻⁸.
OF_FACTORS = {"f32": 0.0, "tf32": 6e-4, "bf16": 6e-3 + 2.0**-8}


def seconds(enqueue, launches):
    """Of one launch, on the device."""
    if args.device == "cpu":
        start = time.perf_counter()
        enqueue()
        return (time.perf_counter() - start) / launches
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    enqueue()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end) / launches


def recorded(multiply, launches):
    """Enqueues `launches` products."""
    if args.device == "cpu":
        return lambda: [multiply() for _ in range(launches)]
    # cuBLAS chooses and allocates at its first calls, which may not be recorded.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            multiply()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            multiply()
    return graph.replay


def measure(n, precision, a, b, truth, every):
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if precision == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
    c = torch.empty_like(a)
    launches = 1 if args.device == "cpu" else int(min(max(2**38 / (2 * n**3), 1), 128))
    torch.mm(a, b, out=c)
    error = float((c[::every].double() - truth).norm() / truth.norm())
    bound = OF_FACTORS[precision] + n * 2.0**-24
    assert error <= bound, f"a product of {n} in {precision} has error {error:.1e}, more than {bound:.1e}"
    enqueue = recorded(lambda: torch.mm(a, b, out=c), launches)
    seconds(enqueue, launches)
    times = sorted(seconds(enqueue, launches) for _ in range(args.repetitions))
    median = statistics.median(times)
    rate = 2e-12 * n**3 / median
    print(f"{n:6} {precision:9} error {error:.1e} {1e3 * median:11.4f} ms {rate:9.2f} TFLOP/s", flush=True)
    return {"n": n, "precision": precision, "error": error, "launches": launches, "median_s": median,
            "least_s": times[0]}


def main():
    products = []
    torch.manual_seed(1)
    for n in args.sizes:
        a, b = (torch.randn(n, n, device=args.device) for _ in range(2))
        every = -(-n // CHECKED_ROWS)
        truth = a[::every].double() @ b.double()
        products += [measure(n, precision, a, b, truth, every) for precision in ("f32", "tf32", "bf16")]
    print(json.dumps({"program": f"torch {torch.__version__}", "products": products}))


if __name__ == "__main__":
    main()
