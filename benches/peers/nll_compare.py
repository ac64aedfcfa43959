#!/usr/bin/env python3
"""NLL by importance sampling: elbo and PyTorch in turn on one checkpoint, medians, and the ratio.

    nll_compare.py ROUNDS ELBO PYTHON CHECKPOINT FOLDER [--images 100] [--samples 5000] [--threads 2] [--modes eager,compile]

ELBO is the program, PYTHON one that has torch. Each round runs `elbo eval --estimators iwae` and nll_torch.py in every mode,
in chunks of the size that was fastest before the first round. Before anything is said of speed the two values have to
agree: within four standard errors of their difference, which comes from the draws of z and, for dynamic pixels, of the
pixels. Machines are noisy: only figures of one call may be compared, and the ratio is the median of the rounds' ratios.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def output(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("rounds", type=int)
    for name in ["elbo", "python", "checkpoint", "folder"]:
        p.add_argument(name)
    p.add_argument("--images", type=int, default=100)
    p.add_argument("--samples", type=int, default=5000)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--modes", default="eager,compile")
    a = p.parse_args()
    common = ["--images", str(a.images), "--samples", str(a.samples), "--threads", str(a.threads)]

    def elbo():
        text = output([a.elbo, "eval", a.checkpoint, "--data", a.folder, "--device", "cpu", "--estimators", "iwae",
                       "--json"] + common)
        found = json.loads(text)["estimators"][0]
        summary = found["summary"]
        return {"images_per_s": summary["images"] / found["seconds"], "nll": summary["nll"],
                "error": summary["monte_carlo_error"]}

    def torch(mode, chunk):
        text = output([a.python, os.path.join(HERE, "nll_torch.py"), a.checkpoint, a.folder, "--mode", mode, "--chunk",
                       str(chunk)] + common)
        return json.loads(text.strip().splitlines()[-1])

    modes = a.modes.split(",")
    chunks = {mode: torch(mode, 0)["chunk"] for mode in modes}
    rates = {name: [] for name in ["elbo"] + modes}
    for _ in range(a.rounds):
        ours = elbo()
        rates["elbo"].append(ours["images_per_s"])
        for mode in modes:
            theirs = torch(mode, chunks[mode])
            rates[mode].append(theirs["images_per_s"])
            error = math.sqrt(ours["error"] ** 2 + 2 * theirs["error"] ** 2)
            difference = ours["nll"] - theirs["nll"]
            if abs(difference) > 4 * error:
                sys.exit(f"NLL {ours['nll']:.3f} and {theirs['nll']:.3f} ({mode}) differ by more than 4 x {error:.3f}")
    print(f"NLL with {a.samples} samples of {a.images} images: elbo {ours['nll']:.3f}, PyTorch {theirs['nll']:.3f}, "
          f"difference {difference:+.3f}, standard error {error:.3f}")
    for name, r in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["elbo"], r))
        what = name if name == "elbo" else f"PyTorch {name}, chunks of {chunks[name]}"
        print(f"{what:<32} median {statistics.median(r):8.2f} images/s  min {min(r):8.2f}  max {max(r):8.2f}  "
              f"elbo/this {ratio:5.2f}")


main()
