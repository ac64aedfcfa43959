"use strict";
/* The program's own numbers, computed again by this page: golden numbers. */

/* Pairs of [name, the program's number, this page's number]. */
function goldenPairs(model, golden) {
  const pairs = [], K = model.info.latent, x = Float32Array.from(model.testImage(0)), z = Float32Array.from(golden.z);
  const all = (name, theirs, ours) => theirs.forEach((v, i) => pairs.push([`${name}[${i}]`, v, ours[i]]));
  const first = model.decode(z.slice(0, K)), q = model.encode(x), w = model.logWeights(x, z), slopes = model.slopes(x, z);
  const at = (values) => golden.pixels.map((p) => values[p]);
  all("f_μ(z)", golden.mean, at(first.mean));
  if (golden.sigma) all("f_σ(z)", golden.sigma, at(first.sigma));
  all("μ", golden.mu, q.mu);
  all("log σ²", golden.logvar, q.logvar);
  for (const name of ["likelihood", "prior", "posterior"]) {
    all(`log ${name}`, golden[name], w[name]);
    all(`slope of log ${name}`, golden[name + "Slope"], slopes[name]);
  }
  const draws = model.encoderDraws(x, golden.draws, golden.seed), d = model.logWeights(x, draws);
  const logs = Float64Array.from(d.likelihood, (v, i) => v + d.prior[i] - d.posterior[i]);
  pairs.push([`bound of ${golden.draws} draws`, golden.bound, logSumExp(logs) - Math.log(golden.draws)]);
  return pairs;
}

/* How far two numbers are apart, against their size where that is above one. */
function apart(a, b) {
  return Math.abs(a - b) / Math.max(1, Math.abs(a));
}

const GOLDEN_TOLERANCE = 1e-5;

/* Compares, and says so where a reader sees it. */
function checkGolden(model) {
  const place = el("golden"), golden = model.info.golden;
  if (!golden) {
    place.textContent = "This file holds no golden numbers.";
    return { count: 0, agree: 0 };
  }
  const pairs = goldenPairs(model, golden), worst = pairs.reduce((w, [, a, b]) => Math.max(w, apart(a, b)), 0);
  const wrong = pairs.filter(([, a, b]) => !(apart(a, b) <= GOLDEN_TOLERANCE)), agree = pairs.length - wrong.length;
  place.textContent = `${agree} of ${pairs.length} golden numbers agree to ${shown(GOLDEN_TOLERANCE, 1)}` + (worst === 0 ? ", and in every bit." : `; the farthest is ${shown(worst, 2)} away.`);
  place.classList.toggle("bad", wrong.length > 0);
  if (wrong.length) {
    const [name, theirs, ours] = wrong[0];
    fail(new Error(`${wrong.length} of ${pairs.length} golden numbers are wrong: ${name} should be ${shown(theirs, 8)} and is ${shown(ours, 8)}. Do not trust what this page shows.`));
  }
  return { count: pairs.length, agree, worst };
}
