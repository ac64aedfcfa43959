#!/usr/bin/env python3
"""NLL by importance sampling in PyTorch, of a model that elbo trained: the same estimate as `elbo eval --estimators iwae`.

    nll_torch.py CHECKPOINT FOLDER [--images 100] [--samples 5000] [--threads N] [--mode eager|compile] [--chunk N]

CHECKPOINT is a run's checkpoint.safetensors (Bernoulli pixels, one stochastic layer; widths, nonlinearity, spread and
binarisation are read from it), FOLDER holds t10k-images-idx3-ubyte.gz. Per image: the encoder once, then z in chunks, the
decoder, log w, and a running log-sum-exp. Without --chunk every size is tried and the fastest taken. Needs torch, numpy and
safetensors. The last line of the output is JSON with images_per_s and nll.
"""
import argparse
import gzip
import json
import math
import os
import sys
import time

SIZES = [100, 250, 500, 1000, 2500, 5000]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint")
    p.add_argument("folder")
    p.add_argument("--images", type=int, default=100, help="test images, from the first on")
    p.add_argument("--samples", type=int, default=5000, help="draws of z per image")
    p.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    p.add_argument("--mode", choices=["eager", "compile"], default="eager")
    p.add_argument("--chunk", type=int, default=0, help="draws per pass; 0: the fastest of those that are tried")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


args = arguments()
if args.threads:
    # Before torch is imported, so that OpenMP and MKL see them too.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torch.nn import functional as F  # noqa: E402

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "silu": F.silu, "softplus": F.softplus}


class Model:
    """The parameters of a checkpoint, and what is computed with them."""

    def __init__(self, path):
        with safe_open(path, "pt", device=args.device) as file:
            config = json.loads(file.metadata()["elbo"])["config"]["model"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if config["likelihood"]["kind"] != "bernoulli" or config.get("upper"):
            sys.exit("only Bernoulli models with one stochastic layer")
        self.binarisation = config["binarisation"]
        self.activation = NONLINEARITIES[config["activation"]]
        self.log_sigma = config.get("spread") == "log_sigma"
        layer = lambda name: (tensors[name + ".weight"], tensors[name + ".bias"])
        hidden = lambda half: [layer(f"{half}.{i}") for i in range(len(config[half]))]
        self.encoder, self.decoder = hidden("encoder"), hidden("decoder")
        self.mu, self.logits = layer("encoder.mu"), layer("decoder.logits")
        self.spread = layer("encoder.log_sigma" if self.log_sigma else "encoder.logvar")

    def hidden(self, layers, h):
        for weight, bias in layers:
            h = self.activation(F.linear(h, weight, bias))
        return h

    def posterior(self, x):
        """Mean and log sigma of q(z|x), [B, K] each."""
        h = self.hidden(self.encoder, x)
        raw = F.linear(h, *self.spread)
        return F.linear(h, *self.mu), raw if self.log_sigma else raw / 2

    def log_weights(self, x, mu, log_sigma, noise):
        """log p(x, z)/q(z|x) of z = mu + sigma noise, [draws]; x [D], mu and log_sigma [K], noise [draws, K]."""
        z = mu + log_sigma.exp() * noise
        logits = F.linear(self.hidden(self.decoder, z), *self.logits)
        log_p = logits @ x - F.softplus(logits).sum(1)
        # log N(z; 0, 1) - log N(z; mu, sigma): the constants cancel.
        return log_p + 0.5 * (noise.square() - z.square()).sum(1) + log_sigma.sum()


def estimate(log_weights, x, mu, log_sigma, chunk, samples):
    """log (1/k) sum of w over k = samples draws, a number."""
    parts = []
    for first in range(0, samples, chunk):
        noise = torch.randn(min(chunk, samples - first), mu.shape[0], device=x.device)
        parts.append(log_weights(x, mu, log_sigma, noise).logsumexp(0))
    return float(torch.stack(parts).logsumexp(0)) - math.log(samples)


def read_images(binarisation):
    with gzip.open(os.path.join(args.folder, "t10k-images-idx3-ubyte.gz")) as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784)[: args.images]
    grey = torch.tensor(pixels, dtype=torch.float32, device=args.device) / 255
    if binarisation == "dynamic":
        return grey, lambda: torch.bernoulli(grey)
    if binarisation == "threshold":
        return grey, lambda: (grey > 0.5).float()
    if binarisation == "grey":
        return grey, lambda: grey
    sys.exit(f"{binarisation} pixels are drawn by elbo alone")


def run(model, log_weights, x, chunk, samples):
    """−log p(x) of each image."""
    mu, log_sigma = model.posterior(x)
    return [-estimate(log_weights, x[i], mu[i], log_sigma[i], chunk, samples) for i in range(len(x))]


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def fastest(model, log_weights, x):
    """The chunk with which a few images take the least time, the best of three after a warm-up."""
    few = x[: min(4, len(x))]
    times = {}
    for chunk in [c for c in SIZES if args.samples % c == 0] or [args.samples]:
        run(model, log_weights, few, chunk, args.samples)
        times[chunk] = min(seconds(lambda: run(model, log_weights, few, chunk, args.samples))[0] for _ in range(3))
        print(f"chunk {chunk:5d}: {len(few) / times[chunk]:8.2f} images/s", flush=True)
    return min(times, key=times.get)


@torch.inference_mode()
def main():
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    model = Model(args.checkpoint)
    grey, draw = read_images(model.binarisation)
    log_weights = torch.compile(model.log_weights, dynamic=False) if args.mode == "compile" else model.log_weights
    x = draw()
    chunk = args.chunk or fastest(model, log_weights, x)
    run(model, log_weights, x[:2], chunk, args.samples)
    took, nll = seconds(lambda: run(model, log_weights, x, chunk, args.samples))
    # How far two such means lie apart by chance. Where pixels are drawn that is the pixels' doing, and a tenth of the samples
    # is enough to see it.
    k = max(1, args.samples // 10) if model.binarisation == "dynamic" else args.samples
    pair = [np.array(run(model, model.log_weights, draw(), min(chunk, k), k)) for _ in range(2)]
    error = float((pair[0] - pair[1]).std() / math.sqrt(2 * len(nll)))
    print(json.dumps({
        "images_per_s": len(nll) / took, "seconds": took, "nll": float(np.mean(nll)), "error": error,
        "images": len(nll), "samples": args.samples, "chunk": chunk, "mode": args.mode,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "binarisation": model.binarisation,
    }))


main()
