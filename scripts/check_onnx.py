#!/usr/bin/env python3
"""Compares what onnxruntime computes from exported models with what `elbo` computes.

    pip install numpy onnx onnxruntime
    scripts/check_onnx.py [--elbo target/release/elbo] [RUN ...]

Without runs it trains small ones of every likelihood, activation and spread. For each run it calls
`elbo export RUN --format onnx --check-values`, lets onnx's own checker look at both files, and runs them on the inputs of
that file, whole and row by row, because the number of rows is free. It fails where a number differs by more than 1e-5,
absolutely or, above 1, relatively.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-5

SMALL = "--train-size 300 --test-size 50 --epochs 1 --quiet --device cpu --hidden 24,16".split()
VARIANTS = [
    ["--latent", "2"],
    ["--latent", "20"],
    *(
        ["--latent", "3", "--likelihood", name]
        for name in (
            "gaussian", "gaussian-shared", "gaussian-optimal", "continuous-bernoulli", "discretised-logistic",
        )
    ),
    *(
        ["--latent", "2", "--activation", name]
        for name in ("identity", "leaky_relu", "tanh", "sigmoid", "softplus", "silu", "gelu")
    ),
    *(["--latent", "2", "--spread", name] for name in ("bounded_log_variance", "log_sigma")),
]


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")


def compare(file, inputs, expected):
    """The largest difference of any output from what is expected, as a share of the tolerance."""
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    named = {entry.key for entry in model.metadata_props}
    assert {"config", "seed"} <= named, f"{file} says of its origin only {named}"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (name, values), = inputs.items()
    outputs = [output.name for output in session.get_outputs()]
    assert set(expected) <= set(outputs), f"{file} has {outputs}, not {sorted(expected)}"
    whole = dict(zip(outputs, session.run(None, {name: values})))
    worst = 0.0
    for output, wanted in expected.items():
        found = whole[output]
        wanted = np.array(wanted, dtype=np.float32).reshape(found.shape)
        assert np.isfinite(found).all(), f"{file}: {output} is not finite"
        difference = np.abs(found - wanted) / (TOLERANCE * np.maximum(1.0, np.abs(wanted)))
        worst = max(worst, float(difference.max()))
        one = dict(zip(outputs, session.run(None, {name: values[:1]})))[output]
        assert np.allclose(one.reshape(-1), found.reshape(-1)[: one.size], rtol=1e-4, atol=1e-5), f"{file}: one row"
    return worst


def check(elbo, source, folder):
    check_values = folder / "check.json"
    run([elbo, "export", source, "--format", "onnx", "--out", folder, "--check-values", check_values])
    values = json.loads(check_values.read_text())
    worst = 0.0
    for part, given in (("encoder", "x"), ("decoder", "z")):
        expected = values[part]
        inputs = {given: np.array(expected.pop(given), dtype=np.float32).reshape(values["rows"], -1)}
        worst = max(worst, compare(folder / f"{part}.onnx", inputs, expected))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elbo", default="target/release/elbo", type=pathlib.Path)
    parser.add_argument("runs", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    elbo = arguments.elbo.resolve()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        work = [(str(path), path) for path in arguments.runs]
        if not work:
            for number, variant in enumerate(VARIANTS):
                path = folder / f"run{number}"
                run([elbo, "train", *SMALL, *variant, "--out", path])
                work.append((" ".join(variant), path))
        for number, (name, path) in enumerate(work):
            out = folder / f"out{number}"
            out.mkdir()
            worst = check(elbo, path, out)
            failed |= not worst <= 1.0
            print(f"{'ok' if worst <= 1.0 else 'WRONG':5}  {worst * TOLERANCE:.1e}  {name}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
