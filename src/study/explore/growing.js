"use strict";
/* What training looks like: the plane forming, and the loss on its scale. */

class GrowingPlane {
  constructor(canvas) {
    this.canvas = canvas;
    this.forget();
    painted(canvas, () => this.draw());
  }

  /* A new model: its plane may be smaller. Within one training it only grows, so that the picture does not jump. */
  forget() {
    this.reach = 3;
  }

  show(model) {
    this.space = new Space(model);
    this.reach = Math.max(this.reach, this.space.reach);
    this.draw();
  }

  draw() {
    if (!this.space) return;
    const surface = sharp(this.canvas), narrow = surface.width < 420, { info, K, model, flat, labels, count } = this.space;
    const r = this.reach, frame = new Frame(surface, [-r, r], [-r, r], narrow ? [20, 8, 32, 28] : [24, 12, 38, 36]);
    const n = Math.max(10, Math.min(18, Math.round(frame.innerWidth / 30))), pixels = info.width * info.height, z = new Float32Array(n * K), paint = looks();
    const side = frame.innerWidth / n, high = frame.innerHeight / n;
    frame.ctx.imageSmoothingQuality = "high";
    for (let row = 0; row < n; row++) {
      for (let column = 0; column < n; column++) {
        this.space.write(z, column * K, ...frame.at(frame.left + (column + 0.5) * side, frame.top + (row + 0.5) * high));
      }
      const { mean } = model.decode(z);
      for (let column = 0; column < n; column++) {
        frame.ctx.drawImage(stamp(mean, info.width, info.height, blend(paint.faint, paint.paper, 0.35), column * pixels), frame.left + column * side, frame.top + row * high, side, high);
      }
    }
    PlaneView.prototype.drawPoints.call({ space: this.space }, frame);
    frame.axes({ xName: "z₁ →", yName: "↑ z₂", font: narrow ? 10.5 : 12 });
    this.canvas.setAttribute("aria-label", `The plane of the model in training. ${this.homes(flat, labels, count)}`);
  }

  /* The middle of each digit, in words. */
  homes(flat, labels, count) {
    const sums = Array.from({ length: this.space.classes }, () => [0, 0, 0]);
    for (let i = 0; i < count; i++) { const s = sums[labels[i]]; s[0] += flat.means[2 * i]; s[1] += flat.means[2 * i + 1]; s[2]++; }
    return "Middles of the digits: " + sums.map(([a, b, n], digit) => (n ? `${digit} at ${pointText([a / n, b / n], 1)}` : "")).filter(Boolean).join("; ");
  }
}

class LossChart {
  constructor(canvas) {
    this.canvas = canvas;
    this.losses = [];
    this.tests = [];
    painted(canvas, () => this.draw());
  }

  /* A new model: no losses yet, and the lines of its scale. */
  clear(model) {
    this.losses = [];
    this.means = [];
    this.tests = [];
    // Three models without z; the fourth line is the floor, far below what so short a training reaches.
    this.scale = model.info.baselines.slice(0, 3).map(({ nats, what }) => [nats, what.split(":")[0]]);
  }

  add({ updates, loss }) {
    this.losses.push([updates, loss]);
    const recent = this.losses.slice(-Math.max(1, Math.min(50, Math.floor(updates / 6))));
    this.means.push([updates, recent.reduce((sum, [, l]) => sum + l, 0) / recent.length]);
    if (this.losses.length > 6000) { // half of the older ones are dropped; the eye does not see it
      const thin = (list) => list.filter((_, i) => i % 2 === 0 || i > list.length - 500);
      this.losses = thin(this.losses);
      this.means = thin(this.means);
    }
  }

  addTest(updates, loss) {
    const last = this.tests[this.tests.length - 1];
    if (!last || updates > last[0] * 1.05) this.tests.push([updates, loss]);
  }

  draw() {
    if (!this.scale) return;
    const surface = sharp(this.canvas), narrow = surface.width < 420, paint = looks(), top = this.scale[0][0] * 1.06;
    const end = Math.max(100, ...this.losses.slice(-1).map(([u]) => u)), least = Math.min(...this.losses.map(([, l]) => l), ...this.tests.map(([, l]) => l), this.scale[2][0]);
    const frame = new Frame(surface, [1, end], [Math.max(0, least - 0.1 * (top - least)), top], narrow ? [20, 16, 32, 34] : [24, 18, 38, 42], LOGARITHMIC);
    const xTicks = [1, 10, 100, 1000, 10000, 100000].filter((k) => k <= end).map((k) => [k, String(k)]);
    frame.axes({ xName: "updates →", yName: "↑ −ELBO, nats per image", xTicks, grid: true, font: narrow ? 10.5 : 12 });
    for (const [value, name] of this.scale) {
      frame.curve([[1, value], [end, value]], paint.faint, 1, [3, 4]);
      const first = value === this.scale[0][0]; // the curve starts at the top and ends at the bottom
      label(frame, `${fixed(value, 0)} ${name}`, first ? frame.width : 0, frame.Y(value) - 9, paint.faint, first ? "right" : "left");
    }
    frame.curve(this.losses, blend(paint.faint, paint.paper, 0.45), 1);
    frame.curve(this.means, paint.accent, 2.6);
    frame.inside((ctx) => {
      for (const [updates, loss] of this.tests) {
        ctx.beginPath();
        ctx.arc(frame.X(Math.max(1, updates)), frame.Y(loss), 4, 0, 2 * Math.PI);
        ctx.fillStyle = css(paint.warm);
        ctx.fill();
        ctx.strokeStyle = css(paint.paper);
        ctx.stroke();
      }
    });
    const last = this.losses[this.losses.length - 1], test = this.tests[this.tests.length - 1];
    this.canvas.setAttribute("aria-label", `The loss against updates. ${last ? `Update ${last[0]}: batch ${fixed(last[1])} nats. ` : "No update yet. "}${test ? `Test set: ${fixed(test[1])} nats at update ${test[0]}. ` : ""}Scale: ${this.scale.map(([v, name]) => `${fixed(v, 0)} ${name}`).join(", ")}.`);
  }
}
