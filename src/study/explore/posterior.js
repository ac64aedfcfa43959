"use strict";
/* The posterior of one image: on a grid where z is a plane, by importance weights where it is more; and the bound. */

const COARSE = 32, FINE = 64, HERMITE = 16, IMPORTANCE = 2000;

/* Cell centres and log p(x | z) + log p(z) at each, of a square window. */
async function gridOf(model, x, centre, half, n, alive) {
  const cell = (2 * half) / n, logs = new Float64Array(n * n), z = new Float32Array(2 * n);
  const done = await pieces(n, 1, (row) => {
    for (let column = 0; column < n; column++) {
      z[2 * column] = centre[0] - half + (column + 0.5) * cell;
      z[2 * column + 1] = centre[1] + half - (row + 0.5) * cell;
    }
    const w = model.logWeights(x, z);
    for (let column = 0; column < n; column++) logs[row * n + column] = w.likelihood[column] + w.prior[column];
  }, alive);
  if (!done) return null;
  const logEvidence = logSumExp(logs) + 2 * Math.log(cell);
  return { centre, half, n, cell, logs, logEvidence };
}

/* The square that holds all cells within 14 nats of the best, and q out to four deviations. */
function tighter(grid, q) {
  const top = grid.logs.reduce((a, b) => Math.max(a, b), -Infinity), deviation = q.logvar.map((v) => Math.exp(0.5 * v));
  const low = [0, 1].map((k) => q.mu[k] - 4 * deviation[k]), high = [0, 1].map((k) => q.mu[k] + 4 * deviation[k]);
  for (let i = 0; i < grid.logs.length; i++) {
    if (grid.logs[i] < top - 14) continue;
    const at = [grid.centre[0] - grid.half + ((i % grid.n) + 0.5) * grid.cell, grid.centre[1] + grid.half - (Math.floor(i / grid.n) + 0.5) * grid.cell];
    for (const k of [0, 1]) {
      low[k] = Math.min(low[k], at[k] - grid.cell);
      high[k] = Math.max(high[k], at[k] + grid.cell);
    }
  }
  return { centre: [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2], half: Math.max(high[0] - low[0], high[1] - low[1]) / 2 };
}

/* The posterior of x in a plane: windows narrower and narrower until one fits, and that one finely. `seen` gets each. */
async function gridPosterior(model, x, q, alive, seen) {
  let window = { centre: [0, 0], half: Math.max(4.5, ...q.mu.map((m, k) => Math.abs(m) + 4 * Math.exp(0.5 * q.logvar[k]))) };
  for (let stage = 0; stage < 3; stage++) {
    const grid = await gridOf(model, x, window.centre, window.half, COARSE, alive);
    if (!grid) return null;
    seen(grid, false);
    const next = tighter(grid, q), fits = next.half > 0.4 * window.half;
    window = next;
    if (fits) break;
  }
  const grid = await gridOf(model, x, window.centre, window.half, FINE, alive);
  if (grid) seen(grid, true);
  return grid;
}

/* ELBO = E_q log p(x | z) − KL(q ‖ p): the expectation by Gauss and Hermite's rule, the divergence by its formula. */
function bound(model, x, q) {
  const { points, weights } = hermiteRule(HERMITE), z = new Float32Array(2 * HERMITE * HERMITE);
  for (let i = 0; i < HERMITE; i++)
    for (let j = 0; j < HERMITE; j++) {
      z[2 * (i * HERMITE + j)] = q.mu[0] + Math.exp(0.5 * q.logvar[0]) * points[i];
      z[2 * (i * HERMITE + j) + 1] = q.mu[1] + Math.exp(0.5 * q.logvar[1]) * points[j];
    }
  const { likelihood } = model.logWeights(x, z);
  let expected = 0;
  for (let i = 0; i < HERMITE; i++) for (let j = 0; j < HERMITE; j++) expected += weights[i] * weights[j] * likelihood[i * HERMITE + j];
  const kl = klToPrior(q.mu, q.logvar);
  return { expected, kl, elbo: expected - kl };
}

/* KL(q ‖ p(z | x)) on the grid: Σ q (log q − log posterior) · cell area, over the share of q that the window holds. */
function gapOnGrid(grid, q) {
  let sum = 0, held = 0;
  const z = [0, 0], logArea = 2 * Math.log(grid.cell);
  for (let i = 0; i < grid.logs.length; i++) {
    z[0] = grid.centre[0] - grid.half + ((i % grid.n) + 0.5) * grid.cell;
    z[1] = grid.centre[1] + grid.half - (Math.floor(i / grid.n) + 0.5) * grid.cell;
    const logQ = logNormal(z, 0, q.mu, q.logvar, 0, 2), share = Math.exp(logQ + logArea);
    held += share;
    if (share > 0) sum += share * (logQ - (grid.logs[i] - grid.logEvidence));
  }
  return { gap: sum / held, held };
}

/* Everything about x in a plane. */
async function posteriorInPlane(model, x, alive, seen) {
  const q = model.encode(x), began = performance.now();
  const grid = await gridPosterior(model, x, q, alive, (g, last) => seen({ q, grid: g, last }));
  if (!grid) return null;
  const { expected, kl, elbo } = bound(model, x, q), { gap } = gapOnGrid(grid, q);
  return { q, grid, expected, kl, elbo, gap, evidence: grid.logEvidence, differ: elbo + gap - grid.logEvidence, ms: performance.now() - began };
}

/* Everything about x where no grid can go: q's draws, weighted. log p(x) ≈ log (1/n) Σ w; errors are one standard error. */
async function posteriorByWeights(model, x, alive) {
  const q = model.encode(x), K = q.mu.length, z = model.encoderDraws(x, IMPORTANCE, 11), logs = new Float64Array(IMPORTANCE);
  let expected = 0;
  const done = await pieces(IMPORTANCE, 50, (first, count) => {
    const w = model.logWeights(x, z.subarray(first * K, (first + count) * K));
    for (let i = 0; i < count; i++) {
      logs[first + i] = w.likelihood[i] + w.prior[i] - w.posterior[i];
      expected += w.likelihood[i] / IMPORTANCE;
    }
  }, alive);
  if (!done) return null;
  const kl = klToPrior(q.mu, q.logvar), elbo = expected - kl, evidence = logSumExp(logs) - Math.log(IMPORTANCE);
  const weights = logs.map((v) => Math.exp(v - evidence)), squares = weights.reduce((s, w) => s + w * w, 0);
  const effective = (IMPORTANCE * IMPORTANCE) / squares;
  const error = Math.sqrt(Math.max(0, squares / IMPORTANCE - 1) / IMPORTANCE);
  return { q, draws: z, logs, expected, kl, elbo, gap: evidence - elbo, evidence, effective, error, differ: 0 };
}
