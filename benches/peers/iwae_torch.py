#!/usr/bin/env python3
"""Trains a row of Burda et al. 2015, table 1, in PyTorch with the protocol of the recipes, and estimates NLL-5000.

    iwae_torch.py --data FOLDER [--layers 1] [--bound iwae] [--k 5] [--stages 4] [--images 1000] [--threads 2]

Nothing is shared with the program that it stands beside but the protocol: tanh 784-200-200-50-200-200-784 (one
stochastic layer), sigma = exp(linear), Glorot initial weights, output bias from the data, pixels drawn anew at every use,
batches of 20 in file order, the first 59600 images, Adam (0.99, 0.999, eps 1e-4) whose second moment starts at 1, stages of
1, 3, 9, ... epochs. Prints one line of JSON per stage and one at the end.
"""
import argparse
import gzip
import json
import math
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True, help="folder with MNIST's IDX files, gzip or plain")
parser.add_argument("--bound", choices=["elbo", "iwae"], default="iwae")
parser.add_argument("--k", type=int, default=1)
parser.add_argument("--stages", type=int, default=4)
parser.add_argument("--images", type=int, default=1000, help="test images of the estimate")
parser.add_argument("--samples", type=int, default=5000, help="importance samples of the estimate")
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()
if args.threads:
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402
from torch import nn  # noqa: E402

BATCH, TRAIN = 20, 59_600


def images(name):
    path = os.path.join(args.data, name)
    raw = gzip.open(path + ".gz").read() if os.path.exists(path + ".gz") else open(path, "rb").read()
    assert int.from_bytes(raw[:4], "big") == 2051, f"{path} is no file of images"
    return torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).reshape(-1, 784).float() / 255


class Model(nn.Module):
    """784 -> 200 -> 200 -> (50, 50) -> 200 -> 200 -> 784."""

    def __init__(self, mean):
        super().__init__()
        sizes = {"e1": (784, 200), "e2": (200, 200), "mu": (200, 50), "log_sigma": (200, 50),
                 "d1": (50, 200), "d2": (200, 200), "d3": (200, 784)}
        for name, (fan_in, fan_out) in sizes.items():
            layer = nn.Linear(fan_in, fan_out)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.add_module(name, layer)
        rate = mean.clamp(0.001, 0.999)
        with torch.no_grad():
            self.d3.bias.copy_(torch.log(rate / (1 - rate)))

    def log_weights(self, x, k):
        """log p(x, z)/q(z|x), [k, B], for k draws of z per image."""
        h = torch.tanh(self.e2(torch.tanh(self.e1(x))))
        mu, log_sigma = self.mu(h), self.log_sigma(h)
        eps = torch.randn(k, len(x), 50)
        z = mu + torch.exp(log_sigma) * eps
        h = torch.tanh(self.d2(torch.tanh(self.d1(z.reshape(-1, 50)))))
        logits = self.d3(h).reshape(k, len(x), 784)
        log_px = (x * logits - nn.functional.softplus(logits)).sum(-1)
        return log_px + (0.5 * (eps * eps - z * z) + log_sigma).sum(-1)


def nll(model, x):
    """Mean of -log (1/samples) sum of w over the images, and its standard error over them."""
    values = []
    with torch.inference_mode():
        for image in x.split(20):
            chunks = [model.log_weights(image, 50) for _ in range(args.samples // 50)]
            values.append(math.log(args.samples) - torch.logsumexp(torch.cat(chunks).double(), 0))
    values = torch.cat(values)
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def main():
    torch.manual_seed(args.seed)
    train, test = images("train-images-idx3-ubyte")[:TRAIN], images("t10k-images-idx3-ubyte")[:args.images]
    model = Model(train.mean(0))
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3, betas=(0.99, 0.999), eps=1e-4, fused=True)
    for p in parameters:
        optimizer.state[p] = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.ones_like(p)}
    start, steps = time.perf_counter(), 0
    for stage in range(1, args.stages + 1):
        optimizer.param_groups[0]["lr"] = 1e-4 * round(10 ** (1 - (stage - 1) / 7), 1)
        for _ in range(3 ** (stage - 1)):
            total = 0.0
            for grey in train.split(BATCH):
                x = (torch.rand_like(grey) < grey).float()
                log_w = model.log_weights(x, args.k)
                if args.bound == "iwae":
                    bound = torch.logsumexp(log_w, 0) - math.log(args.k)
                else:
                    bound = log_w.mean(0)
                # The sum over the batch, as in the original code: Adam's eps and its start are meant for it.
                loss = -bound.sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()
                steps += 1
        seconds = time.perf_counter() - start
        print(json.dumps({"stage": stage, "train_loss": round(total.item() / TRAIN, 3), "seconds": round(seconds, 1),
                          "steps_per_s": round(steps / seconds, 1)}), flush=True)
    binary = (torch.rand_like(test) < test).float()
    start = time.perf_counter()
    value, error = nll(model, binary)
    print(json.dumps({"peer": "torch", "bound": args.bound, "k": args.k, "stages": args.stages, "images": len(test),
                      "samples": args.samples, "nll": round(value, 3), "standard_error": round(error, 3),
                      "nll_seconds": round(time.perf_counter() - start, 1), "threads": torch.get_num_threads(),
                      "version": torch.__version__}))


main()
