"use strict";
/* The plane of z: decoded images, regions, test points; pointer and keys move z in it. */

class PlaneView {
  constructor(canvas, space, moved) {
    Object.assign(this, { canvas, space, moved });
    this.layer = "images";
    this.scale = EVEN;
    this.perSide = 0; // 0: as many as fit
    this.line = new Line();
    this.at = [0.1, 0.5];
    this.path = null;
    this.drawn = () => {};
    painted(canvas, () => this.refresh());
    this.listen();
  }

  frame() {
    const surface = sharp(this.canvas), r = this.space.reach;
    const narrow = surface.width < 420;
    const ends = this.scale === QUANTILE ? [normalQuantile(0.005), normalQuantile(0.995)] : [-r, r];
    return new Frame(surface, ends, ends, narrow ? [20, 12, 32, 34] : [24, 16, 38, 40], this.scale, this.scale);
  }

  /* Computes the layer again, piece by piece, and draws as it comes. */
  async refresh() {
    const alive = this.line.begin();
    const frame = this.frame();
    const layer = document.createElement("canvas");
    const dots = window.devicePixelRatio || 1;
    layer.width = Math.round(frame.innerWidth * dots);
    layer.height = Math.round(frame.innerHeight * dots);
    const first = !this.picture;
    if (first) this.picture = layer;
    try {
      if (first) await this.decodeTiles(frame, layer, alive, 9); // something to see at once
      if (first && alive()) {
        this.draw();
        this.firstSeen = performance.now();
        await breath();
      }
      if (this.layer === "images") await this.decodeTiles(frame, layer, alive);
      else await this.shadeRegions(frame, layer, alive, this.layer === "regions" ? 0.62 : 0.22);
      if (!alive()) return;
      this.picture = layer;
      this.draw();
      this.drawn();
    } catch (error) { fail(error); }
  }

  tilesPerSide(frame) {
    return this.perSide || Math.max(12, Math.min(36, Math.round(frame.innerWidth / (24 * frame.type))));
  }

  /* A grid of decoded images: evenly in z, or at the quantiles of the prior. */
  async decodeTiles(frame, layer, alive, n = this.tilesPerSide(frame)) {
    const { model, info, K } = this.space, began = performance.now();
    const ctx = layer.getContext("2d"), side = layer.width / n, high = layer.height / n;
    ctx.imageSmoothingQuality = "high";
    const pixels = info.width * info.height;
    const z = new Float32Array(n * K), places = [];
    const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => Math.abs(a - n / 2) - Math.abs(b - n / 2));
    const done = await pieces(n, 1, (which) => {
      const row = order[which];
      for (let column = 0; column < n; column++) {
        const px = frame.left + ((column + 0.5) / n) * frame.innerWidth, py = frame.top + ((row + 0.5) / n) * frame.innerHeight;
        places[column] = frame.at(px, py);
        this.space.write(z, column * K, ...places[column]);
      }
      const { mean } = model.decode(z);
      ctx.clearRect(0, row * high, layer.width, high);
      for (let column = 0; column < n; column++) {
        const image = stamp(mean, info.width, info.height, this.space.ink(...places[column]), column * pixels);
        ctx.drawImage(image, column * side, row * high, side, high);
      }
    }, alive, () => { if (this.picture === layer) this.draw(); });
    if (done) this.spent = { images: n * n, ms: performance.now() - began };
  }

  /* Each place in the colour of its digits, as strong as it is certain and inhabited. */
  async shadeRegions(frame, layer, alive, strength) {
    const n = 150, small = document.createElement("canvas"), paint = looks();
    small.width = small.height = n;
    const ctx = small.getContext("2d"), data = ctx.createImageData(n, n);
    await pieces(n, 1, (row) => {
      for (let column = 0; column < n; column++) {
        const [a, b] = frame.at(frame.left + ((column + 0.5) / n) * frame.innerWidth, frame.top + ((row + 0.5) / n) * frame.innerHeight);
        const { shares, mass } = this.space.shares(a, b), best = shares.indexOf(Math.max(...shares));
        const ink = this.space.info.labels ? ofClass(best) : paint.accent;
        const sure = this.space.info.labels ? Math.max(0, (shares[best] - 0.1) / 0.9) : 1;
        data.data.set([...ink, 255 * strength * sure * Math.min(1, Math.sqrt(mass) * 3)], 4 * (row * n + column));
      }
    }, alive);
    ctx.putImageData(data, 0, 0);
    const out = layer.getContext("2d");
    out.imageSmoothingQuality = "high";
    out.drawImage(small, 0, 0, layer.width, layer.height);
  }

  draw() {
    const frame = this.shown = this.frame(), paint = looks();
    if (this.picture) frame.ctx.drawImage(this.picture, frame.left, frame.top, frame.innerWidth, frame.innerHeight);
    if (this.layer !== "images") this.drawPrior(frame);
    if (this.layer === "points") this.drawPoints(frame);
    if (this.layer === "regions") this.nameRegions(frame);
    const quantiles = this.scale === QUANTILE ? [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99].map((u) => [normalQuantile(u), `${100 * u} %`]) : null;
    const [x, y] = this.space.names, what = quantiles ? ", quantile of the prior" : "";
    frame.axes({ xName: x + what + " →", yName: "↑ " + y + what, xTicks: quantiles, yTicks: quantiles, font: frame.width < 420 ? 10.5 : 12 });
    if (this.path) {
      frame.curve(this.path, paint.paper, 5);
      frame.curve(this.path, paint.ink, 2, [6, 4]);
      this.path.forEach((p, i) => this.letter(frame, p, "AB"[i]));
    }
    frame.mark(...this.at);
  }

  /* The rings within which the prior has half, nine tenths and 99 hundredths of its mass. */
  drawPrior(frame) {
    if (this.space.K !== 2) return;
    for (const share of [0.5, 0.9, 0.99]) frame.ellipse([0, 0], [1, 1], Math.sqrt(-2 * Math.log(1 - share)), looks().faint, 1, [2, 4]);
  }

  /* Every test image as its digit, at the mean of its q. */
  drawPoints(frame) {
    const { flat, labels, count, info } = this.space, paint = looks(), size = Math.max(10, Math.min(15 * frame.type, frame.width / 46));
    frame.inside((ctx) => {
      ctx.font = `700 ${size}px ${getComputedStyle(document.body).fontFamily}`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.lineWidth = 3;
      ctx.lineJoin = "round";
      ctx.strokeStyle = css(paint.paper, 0.85);
      for (let i = 0; i < count; i++) {
        const px = frame.X(flat.means[2 * i]), py = frame.Y(flat.means[2 * i + 1]), glyph = info.labels ? String(labels[i]) : "•";
        ctx.strokeText(glyph, px, py);
        ctx.fillStyle = css(info.labels ? ofClass(labels[i]) : paint.accent);
        ctx.fillText(glyph, px, py);
      }
    });
  }

  /* A large digit where its images are densest. */
  nameRegions(frame) {
    if (!this.space.info.labels) return;
    const paint = looks();
    frame.inside((ctx) => {
      ctx.font = `700 ${Math.max(16, frame.width / 18)}px ${getComputedStyle(document.body).fontFamily}`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.lineWidth = 5;
      ctx.lineJoin = "round";
      for (let digit = 0; digit < this.space.classes; digit++) {
        const home = this.home(digit);
        if (!home) continue;
        ctx.strokeStyle = css(paint.paper, 0.8);
        ctx.strokeText(String(digit), frame.X(home[0]), frame.Y(home[1]));
        ctx.fillStyle = css(paint.ink);
        ctx.fillText(String(digit), frame.X(home[0]), frame.Y(home[1]));
      }
    });
  }

  /* The test image of a digit around which that digit is most at home. */
  home(digit) {
    const { flat, labels, count } = this.space;
    let best = null, most = -1;
    for (let i = 0; i < count; i++) {
      if (labels[i] !== digit) continue;
      const at = [flat.means[2 * i], flat.means[2 * i + 1]], { shares, mass } = this.space.shares(...at), here = shares[digit] ** 2 * mass;
      if (here > most) { most = here; best = at; }
    }
    return best;
  }

  letter(frame, [a, b], text) {
    const { ctx } = frame, paint = looks(), px = frame.X(a), py = frame.Y(b);
    ctx.save();
    ctx.beginPath();
    ctx.arc(px, py, 11 * frame.type, 0, 2 * Math.PI);
    ctx.fillStyle = css(paint.ink);
    ctx.fill();
    ctx.fillStyle = css(paint.paper);
    ctx.font = `700 ${12 * frame.type}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillText(text, px, py + 0.5);
    ctx.restore();
  }

  listen() {
    const { canvas } = this;
    const follow = (event) => {
      const box = canvas.getBoundingClientRect();
      this.moved(this.shown.at(event.clientX - box.left, event.clientY - box.top));
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.shown) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      this.held = true;
      follow(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (this.held) follow(event); });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.held = false; });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (event.key === "Home") this.moved([0, 0]);
      else if (!way) return;
      else {
        const step = event.shiftKey ? 0.5 : 0.05, reach = this.space.reach;
        this.moved(this.at.map((v, i) => Math.max(-reach, Math.min(reach, Math.round((v + way[i] * step) * 100) / 100))));
      }
      event.preventDefault();
    });
  }
}
