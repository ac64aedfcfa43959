"use strict";
/* Draws from the prior race draws from the encoder: running means of the weights, and where the draws fell. */

const RACERS = 1000, ARROWS = 40;

class Race {
  constructor(view) {
    this.view = view;
    this.forget();
    el("race").addEventListener("click", () => this.run());
    el("race-n").addEventListener("change", () => this.showUpTo(this.limit()));
    painted(el("race-chart"), () => this.draw());
  }

  forget() {
    this.sides = null;
    this.count = 0;
    el("race-now").textContent = "";
    el("race").disabled = true;
  }

  limit() { return Number(el("race-n").value); }

  /* Draws all racers and weighs them, piece by piece. */
  async prepare(alive) {
    const { space, x } = this.view, { model, K } = space, seed = 100 + Math.floor(Math.random() * 1e6);
    const side = (z) => ({ z, logs: new Float64Array(RACERS), running: new Float64Array(RACERS), top: -Infinity, sum: 0 });
    const sides = { prior: side(model.priorDraws(RACERS, seed)), encoder: side(model.encoderDraws(x, RACERS, seed)) };
    const done = await pieces(RACERS, 50, (first, count) => {
      for (const name of ["prior", "encoder"]) {
        const s = sides[name], w = model.logWeights(x, s.z.subarray(first * K, (first + count) * K));
        for (let i = 0; i < count; i++) {
          add(s, first + i, name === "prior" ? w.likelihood[i] : w.likelihood[i] + w.prior[i] - w.posterior[i]);
        }
      }
    }, alive);
    if (!done) return;
    const few = sides.encoder.z.subarray(0, ARROWS * K), slopes = model.slopes(x, few);
    sides.encoder.slopes = few.map((_, i) => slopes.likelihood[i] + slopes.prior[i] - slopes.posterior[i]);
    this.sides = sides;
    el("race").disabled = false;
    this.showUpTo(this.limit());
  }

  /* The draws arrive one after another, ever faster. */
  async run() {
    if (!this.sides) return;
    const mine = this.sides, began = performance.now(), limit = this.limit();
    const quick = matchMedia("(prefers-reduced-motion: reduce)").matches, lasts = quick ? 0 : 5000;
    for (;;) {
      const share = lasts ? Math.min(1, (performance.now() - began) / lasts) : 1;
      if (mine !== this.sides) return;
      this.showUpTo(Math.max(1, Math.round(limit ** share)));
      if (share === 1) return;
      await breath();
    }
  }

  showUpTo(count) {
    if (!this.sides) return;
    this.count = count;
    const { prior, encoder } = this.sides;
    el("race-now").textContent = `after ${count}: prior ${fixed(prior.running[count - 1])}, encoder ${fixed(encoder.running[count - 1])}, grid ${fixed(this.target())}`.replace("grid", this.view.flat ? "grid" : `${IMPORTANCE} draws`);
    say("race-said", el("race-now").textContent);
    this.draw();
    this.view.drawWhole();
    this.view.drawZoom();
  }

  target() { return this.view.answer.evidence; }

  /* How few of the prior's draws count. */
  caption() {
    if (!this.sides) return "";
    const s = this.sides.prior, n = this.count, whole = s.running[n - 1] + Math.log(n);
    let squares = 0, most = 0;
    for (let i = 0; i < n; i++) { const share = Math.exp(s.logs[i] - whole); squares += share * share; most = Math.max(most, share); }
    return `${n} draws from the prior, each as large as its weight: one holds ${fixed(100 * most, 0)} % of the weight; together they count as ${shown(1 / squares, 2)} equal draws.`;
  }

  /* The draws, with an area that follows their share of all weight. */
  dots(frame, name) {
    if (!this.sides) return;
    const s = this.sides[name], { space } = this.view, n = this.count, whole = s.running[n - 1] + Math.log(n), paint = looks();
    const ink = name === "prior" ? paint.good : paint.accent, size = frame.width / 30;
    frame.inside((ctx) => {
      ctx.fillStyle = css(ink, 0.55);
      ctx.strokeStyle = css(paint.paper, 0.9);
      for (let i = 0; i < n; i++) {
        const [a, b] = space.coordinates(s.z, i * space.K), radius = 1.3 + size * Math.sqrt(Math.exp(s.logs[i] - whole));
        ctx.beginPath();
        ctx.arc(frame.X(a), frame.Y(b), radius, 0, 2 * Math.PI);
        ctx.fill();
        if (radius > 3) ctx.stroke();
      }
    });
  }

  /* ∂ log w / ∂z at the encoder's first draws: where the weight would grow. */
  arrows(frame) {
    if (!this.sides) return;
    const { z, slopes } = this.sides.encoder, { space } = this.view, ends = [];
    for (let i = 0; i < Math.min(ARROWS, this.count); i++) ends.push([space.coordinates(z, i * space.K), space.coordinates(slopes, i * space.K)]);
    const sizes = ends.map(([, s]) => Math.hypot(...s)).sort((a, b) => a - b), usual = sizes[Math.floor(sizes.length / 2)] || 1;
    frame.inside((ctx) => {
      ctx.strokeStyle = ctx.fillStyle = css(looks().ink, 0.75);
      ctx.lineWidth = 1.3;
      for (const [at, slope] of ends) {
        const size = Math.hypot(...slope) || 1, length = Math.min(2.5, size / usual) * frame.width * 0.045;
        arrow(ctx, frame.X(at[0]), frame.Y(at[1]), (slope[0] / size) * length, (-slope[1] / size) * length);
      }
    });
  }

  draw() {
    if (!this.sides) return;
    const { prior, encoder } = this.sides, paint = looks(), target = this.target(), limit = this.limit(), n = this.count;
    const surface = sharp(el("race-chart")), narrow = surface.width < 420;
    let low = target - 4;
    for (let i = 4; i < limit; i++) low = Math.min(low, prior.running[i]);
    low = Math.max(low, target - 90);
    let high = target + 0.16 * (target - low);
    for (const side of [prior, encoder]) for (let i = 0; i < limit; i++) high = Math.max(high, side.running[i] + 0.3);
    const frame = new Frame(surface, [1, limit], [low - 0.06 * (target - low), high], narrow ? [20, 16, 32, 38] : [24, 18, 38, 46], LOGARITHMIC);
    const xTicks = [1, 3, 10, 30, 100, 300, 1000].filter((k) => k <= limit).map((k) => [k, String(k)]);
    frame.axes({ xName: "draws →", yName: "↑ log (1/n) Σ w, nats", xTicks, grid: true, font: narrow ? 10.5 : 12 });
    frame.curve([[1, target], [limit, target]], paint.warm, 2, [7, 4]);
    for (const [side, ink] of [[prior, paint.good], [encoder, paint.accent]]) {
      frame.curve(Array.from({ length: n }, (_, i) => [i + 1, side.running[i]]), ink, 2.4);
    }
    el("race-chart").setAttribute("aria-label", `Running estimates of log p(x), which is ${fixed(target)}. ${el("race-now").textContent}`);
  }
}

/* Takes one more log weight into a running log mean. */
function add(side, i, log) {
  side.logs[i] = log;
  if (log > side.top) {
    side.sum = side.sum * Math.exp(side.top - log) + 1;
    side.top = log;
  } else side.sum += Math.exp(log - side.top);
  side.running[i] = side.top + Math.log(side.sum / (i + 1));
}

function arrow(ctx, x, y, dx, dy) {
  const size = Math.hypot(dx, dy);
  if (size < 1) return;
  const head = Math.min(5, size / 2), ux = dx / size, uy = dy / size;
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(x + dx, y + dy);
  ctx.stroke();
  ctx.beginPath();
  ctx.moveTo(x + dx + ux * head, y + dy + uy * head);
  ctx.lineTo(x + dx - uy * head * 0.7, y + dy + ux * head * 0.7);
  ctx.lineTo(x + dx + uy * head * 0.7, y + dy - ux * head * 0.7);
  ctx.fill();
}

/* Text in a chart, with a halo of paper. */
function label(frame, text, x, y, ink, align) {
  const { ctx } = frame;
  ctx.save();
  ctx.font = `600 ${12.5 * frame.type}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  const room = ctx.measureText(text).width + 4, least = frame.left + 4, most = frame.width - frame.right - 4;
  if (align === "left") x = Math.max(least, Math.min(x, most - room));
  else x = Math.min(most, Math.max(x, least + room));
  ctx.lineWidth = 4;
  ctx.lineJoin = "round";
  ctx.strokeStyle = css(looks().paper, 0.9);
  ctx.strokeText(text, x, y);
  ctx.fillStyle = css(ink);
  ctx.fillText(text, x, y);
  ctx.restore();
}
