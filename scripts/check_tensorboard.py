#!/usr/bin/env python3
"""Reads the files of `elbo train --tensorboard` with TensorBoard's own reader, and compares them with the run's journals.

    pip install tensorboard
    scripts/check_tensorboard.py [--elbo target/release/elbo]

A run is stopped and taken up, so that it has two files of events.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from tensorboard.backend.event_processing import event_file_loader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

TRAIN = "--train-size 400 --test-size 60 --epochs 3 --hidden 16 --latent 2 --batch 50 --quiet --device cpu".split()


def elbo(program, *words):
    done = subprocess.run([str(program), *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"elbo {' '.join(map(str, words))}\n{done.stderr}")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(accumulator, tag):
    """(step, value) of a curve; loaders of newer versions make tensors of scalars."""
    if tag in accumulator.Tags()["scalars"]:
        return [(event.step, event.value) for event in accumulator.Scalars(tag)]
    return [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in accumulator.Tensors(tag)]


def same(found, wanted, what):
    steps = [step for step, _ in found]
    assert steps == [step for step, _ in wanted], f"{what}: steps {steps}"
    assert steps == sorted(steps), f"{what}: steps go back"
    for (_, a), (step, b) in zip(found, wanted):
        assert abs(a - b) <= 1e-6 * max(1.0, abs(b)), f"{what} at {step}: {a} and {b}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elbo", default="target/release/elbo", type=pathlib.Path)
    program = parser.parse_args().elbo.resolve()
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        elbo(program, "train", *TRAIN, "--tensorboard", "--out", run, "--pause-at", 12)
        elbo(program, "train", "--resume", run, "--quiet", "--device", "cpu", "--tensorboard")
        files = sorted(run.glob("events.out.tfevents.*"))
        assert len(files) == 2, files
        for file in files:
            # The reader stops at the first record whose check is wrong.
            events = list(event_file_loader.RawEventFileLoader(str(file)).Load())
            assert events, file
        accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        accumulator.Reload()
        epochs, steps = lines(run / "metrics.jsonl"), lines(run / "steps.jsonl")
        assert len(epochs) == 3
        for tag, field in (
            ("neg_elbo/train", "train_neg_elbo"),
            ("neg_elbo/test", "test_neg_elbo"),
            ("rec/test", "test_rec"),
            ("kl/test", "test_kl"),
            ("schedule/beta", "beta"),
        ):
            same(curve(accumulator, tag), [(e["updates"], e[field]) for e in epochs], tag)
        same(curve(accumulator, "updates/rec"), [(s["updates"], s["rec"]) for s in steps], "updates/rec")
        assert accumulator.Tags()["images"] == ["samples"], accumulator.Tags()
        picture = accumulator.Images("samples")[0]
        assert picture.encoded_image_string.startswith(b"\x89PNG") and picture.step == epochs[-1]["updates"]
        text = accumulator.Tensors("configuration")[0].tensor_proto.string_val[0].decode()
        assert '"seed": 1' in text, text
        print(f"ok: {len(files)} files, {len(epochs)} epochs, {len(steps)} intervals, samples, configuration")


if __name__ == "__main__":
    main()
