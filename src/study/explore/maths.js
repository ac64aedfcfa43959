"use strict";
/* The few formulas that the page adds to the engine's: sums in logarithms, quantiles, directions, rules of quadrature. */

const LOG_2PI = Math.log(2 * Math.PI);

/* log Σ exp(v), with the largest taken out first. */
function logSumExp(values, first = 0, count = values.length) {
  let top = -Infinity;
  for (let i = first; i < first + count; i++) if (values[i] > top) top = values[i];
  if (top === -Infinity) return -Infinity;
  let sum = 0;
  for (let i = first; i < first + count; i++) sum += Math.exp(values[i] - top);
  return top + Math.log(sum);
}

/* Φ, the share of the standard normal below z (Abramowitz and Stegun 7.1.26 on erf; error below 2e-7). */
function normalShare(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const erf = 1 - poly * Math.exp(-x * x);
  return z < 0 ? (1 - erf) / 2 : (1 + erf) / 2;
}

/* Φ⁻¹ by Newton's steps on Φ, for shares that a picture has. */
function normalQuantile(share) {
  let z = 0;
  for (let i = 0; i < 40; i++) {
    const density = Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI);
    const step = (normalShare(z) - share) / Math.max(density, 1e-4);
    z -= Math.max(-0.5, Math.min(0.5, step));
    if (Math.abs(step) < 1e-7) break;
  }
  return z;
}

/* log N(z; m, diag(exp(logvar))), of the K numbers from `offset` on. */
function logNormal(z, offset, mean, logvar, at, K) {
  let sum = 0;
  for (let k = 0; k < K; k++) {
    const d = z[offset + k] - mean[at + k], v = logvar[at + k];
    sum -= 0.5 * (LOG_2PI + v + d * d * Math.exp(-v));
  }
  return sum;
}

/* KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²). */
function klToPrior(mu, logvar) {
  let sum = 0;
  for (let k = 0; k < mu.length; k++) sum += 0.5 * (mu[k] * mu[k] + Math.exp(logvar[k]) - 1 - logvar[k]);
  return sum;
}

/* Points and weights with ∫ N(t; 0, 1) f(t) dt ≈ Σ w f(t), exact for polynomials of degree 2n − 1 (Gauss and Hermite):
   the zeros of the n-th Hermite polynomial, found by halving between sign changes. */
function hermiteRule(n) {
  const both = (t) => {
    let before = 0, now = 1; // normalised: h_{k+1} = (t h_k − √k h_{k−1}) / √(k+1)
    for (let k = 0; k < n; k++) [before, now] = [now, (t * now - Math.sqrt(k) * before) / Math.sqrt(k + 1)];
    return [now, before];
  };
  // An odd number of parts: 0, the middle zero of an odd n, lies inside of one and not at an end.
  const edge = 2 * Math.sqrt(n) + 1, points = [], weights = [], parts = 400 * n + 1;
  let left = -edge;
  for (let i = 1; i <= parts; i++) {
    const right = -edge + (2 * edge * i) / parts;
    if (both(left)[0] * both(right)[0] < 0) {
      let a = left, b = right;
      for (let s = 0; s < 60; s++) {
        const m = (a + b) / 2;
        if (both(a)[0] * both(m)[0] <= 0) b = m; else a = m;
      }
      const t = (a + b) / 2, h = both(t)[1];
      points.push(t);
      weights.push(1 / (n * h * h));
    }
    left = right;
  }
  return { points, weights };
}

/* The two directions in which `count` points of K numbers vary most, by powers of their covariance. */
function principal(points, count, K) {
  const mean = new Float64Array(K);
  for (let i = 0; i < count; i++) for (let k = 0; k < K; k++) mean[k] += points[i * K + k] / count;
  const found = [];
  for (let which = 0; which < 2; which++) {
    let v = Float64Array.from({ length: K }, (_, k) => 1 + 0.1 * ((k * 7 + which * 3) % 5));
    for (let step = 0; step < 200; step++) {
      for (const u of found) project(v, u);
      const next = new Float64Array(K);
      for (let i = 0; i < count; i++) {
        let along = 0;
        for (let k = 0; k < K; k++) along += (points[i * K + k] - mean[k]) * v[k];
        for (let k = 0; k < K; k++) next[k] += along * (points[i * K + k] - mean[k]);
      }
      for (const u of found) project(next, u);
      const size = Math.hypot(...next) || 1;
      v = next.map((x) => x / size);
    }
    found.push(v);
  }
  return found;
}

/* Takes out of v what it has along the unit vector u. */
function project(v, u) {
  let along = 0;
  for (let k = 0; k < v.length; k++) along += v[k] * u[k];
  for (let k = 0; k < v.length; k++) v[k] -= along * u[k];
}
