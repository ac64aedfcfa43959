"use strict";
/* One image: the encoder's ellipse and the true posterior, in the whole plane and near; the bound and its gap. */

class DigitView {
  constructor(space, plane) {
    Object.assign(this, { space, plane });
    this.line = new Line();
    this.flat = space.K === 2;
    this.race = new Race(this);
    this.bounds = new Bounds(this);
    painted(el("whole"), () => this.drawWhole());
    painted(el("zoom"), () => this.drawZoom());
    painted(el("bound"), () => this.drawBound());
    painted(el("now"), () => this.drawImages());
    el("arrows").addEventListener("change", () => this.drawZoom());
  }

  /* Asks about x. What was asked before is dropped. */
  async ask(x, name) {
    const alive = this.line.begin(), { model } = this.space;
    this.race.forget();
    this.bounds.forget();
    el("sum").textContent = "…";
    try {
      Object.assign(this, { x, name, q: model.encode(x), grid: null, answer: null, heat: null });
      this.drawImages();
      const seen = ({ grid }) => { this.grid = grid; this.heat = null; this.drawBoth(); };
      const answer = this.flat ? await posteriorInPlane(model, x, alive, seen) : await posteriorByWeights(model, x, alive);
      if (!answer) return;
      this.answer = answer;
      this.tell();
      this.drawBoth();
      await this.race.prepare(alive);
      await this.bounds.prepare(alive);
    } catch (error) { if (alive()) fail(error); }
  }

  drawBoth() {
    this.drawWhole();
    this.drawZoom();
    this.drawBound();
  }

  drawImages() {
    if (!this.x) return;
    const { model, info } = this.space;
    showImage(el("now"), this.x, info);
    showImage(el("back"), model.decode(this.q.mu).mean, info, this.space.ink(...this.space.coordinates(this.q.mu)));
    el("now-name").textContent = this.name;
    el("now").setAttribute("aria-label", `${this.name}. Its q has the mean ${pointText(this.q.mu)}`);
  }

  /* Mean and deviations of q as the plane sees them. */
  ellipse() {
    const { directions } = this.space;
    const deviation = directions.map((u) => Math.sqrt(u.reduce((sum, v, k) => sum + v * v * Math.exp(this.q.logvar[k]), 0)));
    return { mean: this.space.coordinates(this.q.mu), deviation };
  }

  window() {
    if (this.grid) return { centre: this.grid.centre, half: this.grid.half };
    const { mean, deviation } = this.ellipse();
    return { centre: mean, half: 5 * Math.max(...deviation) };
  }

  /* The posterior as a small picture: the stronger, the denser. Opacity is 0.92 (density / peak)^0.7, so that the flanks are seen. */
  heatPicture() {
    if (!this.heat) {
      const { logs, n } = this.grid, top = logs.reduce((a, b) => Math.max(a, b), -Infinity);
      this.heat = stamp(Float64Array.from(logs, (v) => 0.92 * Math.exp(0.7 * (v - top))), n, n, looks().warm);
      this.heat.ink = looks().warm;
    }
    return this.heat.ink === looks().warm ? this.heat : (this.heat = null, this.heatPicture());
  }

  drawHeat(frame) {
    if (!this.grid) return;
    const { centre, half } = this.grid;
    frame.inside((ctx) => {
      ctx.imageSmoothingQuality = "high";
      const x = frame.X(centre[0] - half), y = frame.Y(centre[1] + half);
      ctx.drawImage(this.heatPicture(), x, y, frame.X(centre[0] + half) - x, frame.Y(centre[1] - half) - y);
    });
  }

  frameOf(canvas, centre, half) {
    const surface = sharp(canvas), narrow = surface.width < 420;
    return new Frame(surface, [centre[0] - half, centre[0] + half], [centre[1] - half, centre[1] + half], narrow ? [20, 4, 32, 34] : [24, 6, 38, 42]);
  }

  drawWhole() {
    if (!this.x) return;
    const r = this.space.reach, frame = this.frameOf(el("whole"), [0, 0], r), paint = looks(), [xName, yName] = this.space.names;
    const { mean, deviation } = this.ellipse(), window = this.window();
    frame.axes({ xName: xName + " →", yName: "↑ " + yName, font: frame.width < 420 ? 10.5 : 12 });
    if (this.flat) for (const share of [0.5, 0.9, 0.99]) frame.ellipse([0, 0], [1, 1], Math.sqrt(-2 * Math.log(1 - share)), paint.line, 1);
    this.drawHeat(frame);
    this.race.dots(frame, "prior");
    frame.ellipse(mean, deviation, 2, paint.accent, 1.5);
    frame.inside((ctx) => {
      ctx.strokeStyle = css(paint.ink);
      ctx.lineWidth = 1.5;
      const x = frame.X(window.centre[0] - window.half), y = frame.Y(window.centre[1] + window.half);
      ctx.strokeRect(x, y, frame.X(window.centre[0] + window.half) - x, frame.Y(window.centre[1] - window.half) - y);
    });
    el("whole-caption").textContent = this.race.caption();
    el("whole").setAttribute("aria-label", `The whole plane, with draws from the prior and the frame of the near view around ${pointText(window.centre)}, half a side ${fixed(window.half, 2)}. ${this.race.caption()}`);
  }

  drawZoom() {
    if (!this.x) return;
    const { centre, half } = this.window(), frame = this.frameOf(el("zoom"), centre, half), paint = looks(), [xName, yName] = this.space.names;
    const { mean, deviation } = this.ellipse();
    frame.axes({ xName: xName + " →", yName: "↑ " + yName, font: frame.width < 420 ? 10.5 : 12 });
    this.drawHeat(frame);
    if (el("arrows").checked) this.race.arrows(frame);
    this.race.dots(frame, "encoder");
    for (const sigmas of [1, 2, 3]) frame.ellipse(mean, deviation, sigmas, paint.accent, 2.4 - 0.5 * sigmas, sigmas > 1 ? [5, 4] : []);
    const text = `q has the mean ${pointText(mean)} and the deviations ${pointText(deviation, 3)}.`;
    el("zoom").setAttribute("aria-label", `The near view, around ${pointText(centre)}. ${text} ${this.peak()}`);
  }

  /* Where the posterior is highest, in words. */
  peak() {
    if (!this.grid) return "";
    const { logs, n, centre, half, cell } = this.grid, top = logs.indexOf(logs.reduce((a, b) => Math.max(a, b), -Infinity));
    return `The posterior is highest at ${pointText([centre[0] - half + ((top % n) + 0.5) * cell, centre[1] + half - (Math.floor(top / n) + 0.5) * cell], 3)}.`;
  }

  /* ELBO + gap = log p(x), as a sum of numbers. */
  tell() {
    const a = this.answer, place = el("sum");
    place.replaceChildren();
    const part = (className, name, value) => {
      const node = made("span", "part " + className, name + " ");
      node.append(made("b", "", value));
      return node;
    };
    place.append(part("elbo", "ELBO", fixed(a.elbo)), " + ", part("gap", "gap", fixed(a.gap)), " = ",
      part("evidence", this.flat ? "log p(x)" : "log p(x) (estimated)", fixed(a.elbo + a.gap)), " nats");
    const parts = `ELBO = <b>E</b><sub><i>q</i></sub> log <i>p</i>(<i>x</i> | <i>z</i>) − KL(<i>q</i> ‖ <i>p</i>) = ${fixed(a.expected)} − ${fixed(a.kl)}`;
    el("bound-note").innerHTML = this.flat
      ? `${parts}, the expectation by Gauss and Hermite’s rule with ${HERMITE} × ${HERMITE} points. Gap = KL(<i>q</i> ‖ <i>p</i>(<i>z</i> | <i>x</i>)) on the grid of ${FINE} × ${FINE}. The same grid says log <i>p</i>(<i>x</i>) = ${fixed(a.evidence, 4)}: the two sides differ by ${shown(Math.abs(a.differ), 2)} nats.`
      : `${parts}. <i>z</i> has ${this.space.K} numbers, too many for a grid: log <i>p</i>(<i>x</i>) is estimated by ${IMPORTANCE} weighted draws of <i>q</i>, which count as ${shown(a.effective, 3)} equal ones (standard error ${shown(a.error, 2)} nats; such an estimate is low on average).`;
  }

  drawBound() {
    if (!this.answer) return;
    const { elbo, gap } = this.answer, evidence = elbo + gap, paint = looks(), room = Math.max(gap, 0.5);
    const surface = sharp(el("bound")), font = (surface.width < 420 ? 11 : 13) * scaleOfType(), x = [elbo - 1.6 * room, evidence + 0.9 * room];
    const frame = new Frame(surface, x, [0, 1], [22, 2, 32, 2]), { ctx } = frame;
    const family = getComputedStyle(document.body).fontFamily, from = frame.X(elbo), to = frame.X(evidence), high = frame.innerHeight;
    ctx.fillStyle = css(paint.accent);
    ctx.fillRect(frame.left, frame.top, from - frame.left, high);
    ctx.fillStyle = css(paint.warm);
    ctx.fillRect(from, frame.top, Math.max(1, to - from), high);
    ctx.fillStyle = css(paint.paper);
    for (let i = 0; i < 3; i++) ctx.fillRect(frame.left + 6 + 5 * i, frame.top, 2, high); // the bar begins far to the left
    ctx.font = `600 ${font}px ${family}`;
    ctx.textBaseline = "middle";
    ctx.fillText("ELBO", frame.left + 26, frame.top + high / 2);
    ctx.textAlign = "center";
    if (to - from > 40) ctx.fillText("gap", (from + to) / 2, frame.top + high / 2);
    ctx.fillStyle = css(paint.ink);
    ctx.textBaseline = "bottom";
    ctx.textAlign = "right";
    ctx.fillText(fixed(elbo), from - 3, frame.top - 4);
    ctx.textAlign = "left";
    ctx.fillText(`log p(x) ${fixed(evidence)}`, Math.min(to + 3, frame.width - 10 * font), frame.top - 4);
    ctx.fillRect(to - 1, frame.top - 4, 2, high + 8);
    this.boundTicks(frame, font, family);
    el("bound").setAttribute("aria-label", `A bar: the ELBO ${fixed(elbo)} and the gap ${fixed(gap)} add to log p(x), ${fixed(evidence)} nats`);
  }

  boundTicks(frame, font, family) {
    const { ctx } = frame, paint = looks();
    ctx.font = `${font - 1.5}px ${family}`;
    ctx.fillStyle = css(paint.faint);
    ctx.strokeStyle = css(paint.line);
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    for (const [v, text] of frame.round(frame.x, frame.width / 70)) {
      const px = frame.X(v);
      frame.stroke(px, frame.height - frame.bottom, px, frame.height - frame.bottom + 5);
      if (px > 14 && px < frame.width - 14) ctx.fillText(text, px, frame.height - frame.bottom + 8);
    }
  }
}
