"use strict";
/* L_k against k: the mean of log (1/k) Σ w over groups of k of the encoder's draws. */

const DRAWS_OF_BOUNDS = 4000;

class Bounds {
  constructor(view) {
    this.view = view;
    this.ks = [];
    for (let i = 0; i <= 30; i++) {
      const k = Math.round(1000 ** (i / 30));
      if (k !== this.ks[this.ks.length - 1]) this.ks.push(k);
    }
    el("k").max = String(this.ks.length - 1);
    el("k").addEventListener("input", () => this.show());
    painted(el("k-chart"), () => this.show());
    this.forget();
  }

  forget() {
    this.points = null;
    el("k-value").textContent = "k = …";
  }

  async prepare(alive) {
    const { space, x } = this.view, { model, K } = space, logs = new Float64Array(DRAWS_OF_BOUNDS);
    const z = model.encoderDraws(x, DRAWS_OF_BOUNDS, 5003);
    const done = await pieces(DRAWS_OF_BOUNDS, 50, (first, count) => {
      const w = model.logWeights(x, z.subarray(first * K, (first + count) * K));
      for (let i = 0; i < count; i++) logs[first + i] = w.likelihood[i] + w.prior[i] - w.posterior[i];
    }, alive);
    if (!done) return;
    this.points = this.ks.map((k) => this.boundOf(logs, k));
    this.show();
  }

  /* Mean and standard error over the groups. */
  boundOf(logs, k) {
    const groups = Math.floor(logs.length / k);
    let sum = 0, squares = 0;
    for (let g = 0; g < groups; g++) {
      const v = logSumExp(logs, g * k, k) - Math.log(k);
      sum += v;
      squares += v * v;
    }
    const mean = sum / groups;
    return { k, mean, error: Math.sqrt(Math.max(0, squares / groups - mean * mean) / Math.max(1, groups - 1)) };
  }

  show() {
    if (!this.points) return;
    const now = this.points[Number(el("k").value)], target = this.view.answer.evidence, paint = looks();
    el("k-value").textContent = `k = ${now.k}`;
    const text = `L${small(now.k)} = ${fixed(now.mean)} ± ${shown(now.error, 1)}, ${fixed(Math.max(0, target - now.mean))} below log p(x)`;
    el("k").setAttribute("aria-valuetext", `k ${now.k}: ${text} nats`);
    const surface = sharp(el("k-chart")), narrow = surface.width < 420;
    const low = Math.min(...this.points.map((p) => p.mean - p.error)), room = Math.max(target - low, 0.02);
    const frame = new Frame(surface, [1, 1000], [low - 0.12 * room, target + 0.22 * room], narrow ? [20, 16, 32, 44] : [24, 18, 38, 52], LOGARITHMIC);
    frame.axes({ xName: "k →", yName: "↑ Lₖ, nats", xTicks: [1, 3, 10, 30, 100, 300, 1000].map((k) => [k, String(k)]), grid: true, font: narrow ? 10.5 : 12 });
    frame.curve([[1, target], [1000, target]], paint.warm, 2, [7, 4]);
    this.band(frame, paint.accent);
    frame.curve(this.points.map((p) => [p.k, p.mean]), paint.accent, 2.4);
    const px = frame.X(now.k), py = frame.Y(now.mean);
    frame.curve([[now.k, now.mean], [now.k, target]], paint.ink, 1.5, [2, 3]);
    frame.mark(now.k, now.mean, 6);
    const right = px > frame.width * 0.55;
    label(frame, narrow ? `L${small(now.k)} = ${fixed(now.mean)} ± ${shown(now.error, 1)}` : text, right ? frame.width - frame.right - 6 : Math.max(px + 12, frame.left + 8), Math.min(py + 20, frame.height - frame.bottom - 12), paint.ink, right ? "right" : "left");
    el("k-chart").setAttribute("aria-label", `The bound rises from ${fixed(this.points[0].mean)} with one draw to ${fixed(this.points[this.points.length - 1].mean)} with a thousand. ${text}`);
    say("k-said", text);
  }

  /* One standard error to either side. */
  band(frame, ink) {
    frame.inside((ctx) => {
      ctx.beginPath();
      this.points.forEach((p, i) => ctx[i ? "lineTo" : "moveTo"](frame.X(p.k), frame.Y(p.mean + p.error)));
      for (const p of this.points.slice().reverse()) ctx.lineTo(frame.X(p.k), frame.Y(p.mean - p.error));
      ctx.fillStyle = css(ink, 0.2);
      ctx.fill();
    });
  }
}
