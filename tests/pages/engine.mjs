// Runs the engine of a page that `elbo explore` wrote, and says how far its numbers are from the program's:
//   node engine.mjs explore.html [updates of the training]
// Prints one line of JSON.
import { readFileSync } from "node:fs";
import { runInThisContext } from "node:vm";

const [file, updates = "300"] = process.argv.slice(2);
const html = readFileSync(file, "utf8");
const bytes = (id) => {
  const found = html.match(new RegExp(`<script type="application/base64" id="${id}">([^<]*)</script>`));
  if (!found) throw new Error(`${file} has no bytes named ${id}`);
  return new Uint8Array(Buffer.from(found[1], "base64"));
};
const script = [...html.matchAll(/<script>\n([\s\S]*?)\n<\/script>/g)].map((m) => m[1]).find((s) => s.includes("class Engine"));
runInThisContext(`${script};globalThis.Engine = Engine;`);

// How many floats lie between two.
const ordered = (value) => {
  const bits = new DataView(new ArrayBuffer(4));
  bits.setFloat32(0, value);
  const int = bits.getInt32(0);
  return int < 0 ? -(int & 0x7fffffff) : int;
};
const ulps = (a, b) => Math.max(...Array.from(a, (x, i) => Math.abs(ordered(x) - ordered(b[i]))), a.length === b.length ? 0 : Infinity);

const timed = (work) => {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
};

const engine = await Engine.load(bytes("wasm"));
const model = engine.open(bytes("bundle"));
const { golden, latent, pixels } = model.info;
const x = model.testImage(0);
const shown = model.decode(golden.z.slice(0, latent));
const q = model.encode(x);
const weights = model.logWeights(x, golden.z);
const slopes = model.slopes(x, golden.z);
const draws = model.encoderDraws(x, golden.draws, golden.seed);
const w = model.logWeights(x, draws);
const logs = Array.from(w.likelihood, (l, i) => l + w.prior[i] - w.posterior[i]);
const top = Math.max(...logs);
const bound = top + Math.log(logs.reduce((sum, v) => sum + Math.exp(v - top), 0) / logs.length);
const at = (all) => golden.pixels.map((p) => all[p]);

const refused = (work) => {
  try {
    work();
    return "nothing was refused";
  } catch (error) {
    return error.message;
  }
};

const trainer = engine.trainer({});
const losses = golden.losses.map(() => trainer.step(golden.updates).loss);
const rest = Number(updates) - golden.updates * golden.losses.length;
const last = rest > 0 ? trainer.step(rest) : null;

const side = (n) => {
  const z = new Float32Array(n * n * latent);
  for (let i = 0; i < n * n; i++) [z[i * latent], z[i * latent + 1]] = [(i % n) / n * 6 - 3, Math.floor(i / n) / n * 6 - 3];
  return z;
};
model.decode(side(16));
model.logWeights(x, side(16));

console.log(JSON.stringify({
  simd: engine.simd,
  ulps: {
    mean: ulps(at(shown.mean), golden.mean),
    sigma: golden.sigma ? ulps(at(shown.sigma), golden.sigma) : 0,
    mu: ulps(q.mu, golden.mu),
    logvar: ulps(q.logvar, golden.logvar),
    likelihood: ulps(weights.likelihood, golden.likelihood),
    prior: ulps(weights.prior, golden.prior),
    posterior: ulps(weights.posterior, golden.posterior),
    likelihoodSlope: ulps(slopes.likelihood, golden.likelihoodSlope),
    priorSlope: ulps(slopes.prior, golden.priorSlope),
    posteriorSlope: ulps(slopes.posterior, golden.posteriorSlope),
  },
  bound: Math.abs(bound - golden.bound),
  losses: Math.max(...losses.map((loss, i) => Math.abs(loss - golden.losses[i]))),
  last,
  evaluation: trainer.evaluate(),
  command: trainer.command(),
  throws: model.throwImage(golden.z.slice(0, latent), 7).length === pixels,
  labels: [model.testLabel(0), model.testLabel(1e6)],
  refusals: {
    bundle: refused(() => engine.open(new Uint8Array([1, 2, 3]))),
    points: refused(() => model.decode(new Float32Array(latent + 1))),
    training: refused(() => engine.trainer({ hidden: 0 })),
    option: refused(() => engine.trainer({ depth: 3 })),
  },
  seconds: {
    decode60: timed(() => model.decode(side(60))),
    posterior100: timed(() => model.logWeights(x, side(100))),
    slopes20: timed(() => model.slopes(x, side(20))),
    updates100: timed(() => trainer.step(100)),
  },
}));
