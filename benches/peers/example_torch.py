#!/usr/bin/env python3
"""PyTorch's own example of a VAE (github.com/pytorch/examples, vae/main.py), run for several seeds.

    example_torch.py --data FOLDER [--seeds 1 2 3] [--epochs 10] [--threads 1]

Model, loss, optimiser, batches and evaluation are the example's: nn.Linear 784-400-(20, 20), 20-400-784 with ReLU and a
sigmoid, binary cross-entropy plus KL summed over a batch of 128 grey images, Adam at 1e-3, a shuffled training set whose last
batch has 96 images, and after every epoch the mean loss of the 10000 test images in model.eval(), with one draw of z each.
Other than there, the images are read from MNIST's IDX files, without torchvision, and no pictures are written. Prints one
line of JSON per seed and one with their mean. Needs torch.
"""
import argparse
import gzip
import json
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, help="folder with MNIST's IDX files, gzip or plain")
parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
args = parser.parse_args()
if args.threads:
    # Before torch is imported, so that OpenMP and MKL see them too.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

BATCH = 128


def images(name):
    path = os.path.join(args.data, name)
    raw = gzip.open(path + ".gz").read() if os.path.exists(path + ".gz") else open(path, "rb").read()
    assert int.from_bytes(raw[:4], "big") == 2051, f"{path} is no file of images"
    return torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).reshape(-1, 784).float() / 255


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)

    def forward(self, x):
        h = F.relu(self.fc1(x))
        mu, logvar = self.fc21(h), self.fc22(h)
        std = torch.exp(0.5 * logvar)
        z = mu + torch.randn_like(std) * std
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


def loss_of(recon, x, mu, logvar):
    """Summed over pixels, dimensions and batch."""
    bce = F.binary_cross_entropy(recon, x, reduction="sum")
    return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def run(seed, train, test):
    """Mean loss per test image after every epoch."""
    torch.manual_seed(seed)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(args.epochs):
        model.train()
        for rows in torch.randperm(len(train)).split(BATCH):
            x = train[rows]
            optimizer.zero_grad()
            recon, mu, logvar = model(x)
            loss_of(recon, x, mu, logvar).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            total = 0.0
            for x in test.split(BATCH):
                recon, mu, logvar = model(x)
                total += loss_of(recon, x, mu, logvar).item()
        losses.append(total / len(test))
    return losses


def main():
    train, test = images("train-images-idx3-ubyte"), images("t10k-images-idx3-ubyte")
    last = []
    for seed in args.seeds:
        losses = run(seed, train, test)
        last.append(losses[-1])
        print(json.dumps({"peer": "torch", "seed": seed, "epochs": args.epochs, "images": len(test),
                          "test_loss": round(losses[-1], 2), "each_epoch": [round(v, 2) for v in losses]}), flush=True)
    print(json.dumps({"seeds": args.seeds, "mean_test_loss": round(sum(last) / len(last), 2),
                      "threads": torch.get_num_threads(), "version": torch.__version__}))


main()
