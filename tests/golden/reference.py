"""A small variational autoencoder trained in numpy, in f64, with the derivatives written by hand.

It shares no code with the crate, only the random numbers (philox.py). tests/golden.rs builds the same step from graph
nodes, lets the engine differentiate it, and must find the numbers in curve.json. To write that file again:

    python3 tests/golden/reference.py > tests/golden/curve.json

Needs numpy. What is computed:

* Data: 120 images of 6×6 pixels. Pixel (r, c) of image i is max(0, 255 − 45·|r − a| − 30·|c − b|), a = i mod 6,
  b = ⌊i/6⌋ mod 6: a blob at (a, b). Divided by 255.
* Model: 36-12-3-12-36. h = tanh(x W0 + b0); (μ, lv) = h W1 + b1 (three columns each); z = μ + e^(lv/2) ε;
  k = relu(z W2 + b2); logits l = k W3 + b3.
* Loss: (1/B) Σ [softplus(l) − x l] + β (1/B) Σ ½(μ² + expm1(lv) − lv), β = min(t/10, 1) after t updates.
* Parameters: array number j (W0, b0, W1, …) is (2u − 1)/√(fan in) for u uniform of seed 5, step 0, stream 0x2000 + j.
* Steps: 44 of batch 24, five to an epoch; the order of epoch e is permutation(5, e, 120); ε is normal(5, step, 1).
* Gradients are scaled by min(1, 2.5/‖g‖). Adam (0.9, 0.999, 1e-8) with rate 0.02, from update 30 on 0.005.
"""

import json

import numpy as np

from philox import normal, permutation, uniform

SEED, IMAGES, SIDE, BATCH, STEPS = 5, 120, 6, 24, 44
PIXELS, HIDDEN, LATENT = SIDE * SIDE, 12, 3
CLIP = 2.5
NAMES = ["w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3"]
SHAPES = [
    (PIXELS, HIDDEN),
    (HIDDEN,),
    (HIDDEN, 2 * LATENT),
    (2 * LATENT,),
    (LATENT, HIDDEN),
    (HIDDEN,),
    (HIDDEN, PIXELS),
    (PIXELS,),
]
FAN_IN = [PIXELS, PIXELS, HIDDEN, HIDDEN, LATENT, LATENT, HIDDEN, HIDDEN]


def images():
    i, r, c = np.ogrid[:IMAGES, :SIDE, :SIDE]
    blob = 255 - 45 * abs(r - i % SIDE) - 30 * abs(c - i // SIDE % SIDE)
    return np.maximum(blob, 0).astype(np.uint8).reshape(IMAGES, PIXELS)


def initial():
    params = []
    for j, (shape, fan_in) in enumerate(zip(SHAPES, FAN_IN)):
        u = uniform(SEED, 0, 0x2000 + j, int(np.prod(shape))).astype(np.float64)
        params.append(((2 * u - 1) / np.sqrt(float(fan_in))).reshape(shape))
    return params


def loss_and_gradients(params, x, eps, beta):
    w0, b0, w1, b1, w2, b2, w3, b3 = params
    n = len(x)
    # forward
    h = np.tanh(x @ w0 + b0)
    heads = h @ w1 + b1
    mu, lv = heads[:, :LATENT], heads[:, LATENT:]
    sigma = np.exp(lv / 2)
    z = mu + sigma * eps
    a2 = z @ w2 + b2
    k = np.maximum(a2, 0)
    logits = k @ w3 + b3
    rec = (np.logaddexp(0, logits) - x * logits).sum()
    kl = (mu**2 + np.expm1(lv) - lv).sum() / 2
    loss = (rec + beta * kl) / n
    # backward
    dlogits = (1 / (1 + np.exp(-logits)) - x) / n
    dw3, db3 = k.T @ dlogits, dlogits.sum(0)
    da2 = (dlogits @ w3.T) * (a2 > 0)
    dw2, db2 = z.T @ da2, da2.sum(0)
    dz = da2 @ w2.T
    dmu = dz + beta * mu / n
    dlv = dz * eps * sigma / 2 + beta * np.expm1(lv) / 2 / n
    dheads = np.hstack([dmu, dlv])
    dw1, db1 = h.T @ dheads, dheads.sum(0)
    da0 = (dheads @ w1.T) * (1 - h**2)
    dw0, db0 = x.T @ da0, da0.sum(0)
    return loss, rec, kl, [dw0, db0, dw1, db1, dw2, db2, dw3, db3]


def main():
    data, params = images(), initial()
    first = [np.zeros_like(p) for p in params]
    second = [np.zeros_like(p) for p in params]
    curve = {"loss": [], "rec": [], "kl": [], "norm": []}
    for t in range(STEPS):
        epoch, batch = divmod(t, IMAGES // BATCH)
        rows = permutation(SEED, epoch, IMAGES)[batch * BATCH : (batch + 1) * BATCH]
        x = data[rows] / 255.0
        eps = normal(SEED, t, 1, BATCH * LATENT).astype(np.float64).reshape(BATCH, LATENT)
        loss, rec, kl, grads = loss_and_gradients(params, x, eps, min(t / 10, 1.0))
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        for values, value in zip(curve.values(), (loss, rec, kl, norm)):
            values.append(float(value))
        rate = 0.02 if t < 30 else 0.005
        for p, g, m, v in zip(params, grads, first, second):
            g = g * min(1.0, CLIP / norm)
            m[...] = 0.9 * m + 0.1 * g
            v[...] = 0.999 * v + 0.001 * g**2
            p -= rate * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    # Of each array Σ p and Σ (1 + i mod 7) p, which an element in a wrong place changes.
    weight = [1 + np.arange(p.size) % 7 for p in params]
    curve["sums"] = {n: [float(p.sum()), float((w * p.ravel()).sum())] for n, p, w in zip(NAMES, params, weight)}
    print(json.dumps(curve, indent=1))


if __name__ == "__main__":
    main()
