#!/usr/bin/env python3
"""Loads a checkpoint into PyTorch's nn.Linear and evaluates -ELBO there: what `elbo eval` prints, up to the noise.

    checkpoint_in_torch.py RUN/checkpoint.safetensors FOLDER

FOLDER holds MNIST's t10k-images-idx3-ubyte.gz. Needs torch, numpy and safetensors. For Bernoulli models on grey pixels
with ReLU; the widths are read from the checkpoint.
"""
import gzip
import os
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn


class Vae(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        part = lambda half: nn.ModuleDict({name: nn.Linear(*reversed(shape)) for name, shape in shapes[half].items()})
        self.encoder, self.decoder = part("encoder"), part("decoder")

    def hidden(self, layers, x):
        for name in sorted(n for n in layers if n.isdigit()):
            x = torch.relu(layers[name](x))
        return x

    def forward(self, x):
        """The reconstruction term and the KL divergence, in nats per image."""
        h = self.hidden(self.encoder, x)
        mu, logvar = self.encoder["mu"](h), self.encoder["logvar"](h)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        logits = self.decoder["logits"](self.hidden(self.decoder, z))
        rec = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1).mean()
        kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(1).mean()
        return rec, kl


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tensors = {k: v for k, v in load_file(sys.argv[1]).items() if k.startswith(("encoder.", "decoder."))}
    shapes = {"encoder": {}, "decoder": {}}
    for name, tensor in tensors.items():
        half, layer, kind = name.split(".")
        if kind == "weight":
            shapes[half][layer] = tensor.shape
    model = Vae(shapes)
    print(model.load_state_dict(tensors))
    with gzip.open(os.path.join(sys.argv[2], "t10k-images-idx3-ubyte.gz")) as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784)
    images = torch.tensor(pixels / 255, dtype=torch.float32)
    with torch.no_grad():
        for seed in range(3):
            torch.manual_seed(seed)
            rec, kl = model(images)
            print(f"test -ELBO {rec + kl:.2f} nats per image = rec {rec:.2f} + KL {kl:.2f}")


main()
