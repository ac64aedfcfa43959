"use strict";
/* Two images and the straight path between their z: z(t) = (1 − t) z_A + t z_B. */

class PathView {
  constructor(space, plane, point) {
    Object.assign(this, { space, plane, point });
    const first = this.start(0), second = this.start(1);
    this.ends = [first, second];
    this.t = 0;
    el("set-a").addEventListener("click", () => this.setEnd(0));
    el("set-b").addEventListener("click", () => this.setEnd(1));
    el("t").addEventListener("input", () => this.walk(Number(el("t").value) / 100));
    el("show-path").addEventListener("change", () => this.show());
    painted(el("strip"), () => this.show());
  }

  /* Two different digits of the test set to begin with. */
  start(which) {
    const { count, labels, K, means } = this.space;
    if (count < 2) return new Float32Array(K).fill(which ? 1 : -1);
    const other = labels.findIndex((label) => label !== labels[0]);
    const i = which ? (other < 0 ? 1 : other) : 0;
    return means.slice(i * K, (i + 1) * K);
  }

  setEnd(which) {
    this.ends[which] = Float32Array.from(this.point.z);
    el("show-path").checked = true;
    this.show();
  }

  between(t) {
    return this.ends[0].map((v, k) => (1 - t) * v + t * this.ends[1][k]);
  }

  walk(t) {
    this.t = t;
    el("show-path").checked = true;
    this.show();
    this.point.setZ(this.between(t));
  }

  show() {
    const { space } = this, canvas = el("strip"), { ctx, width, height } = sharp(canvas), paint = looks();
    const n = Math.max(5, Math.min(15, Math.floor(width / height))), side = Math.min(height, width / n);
    const z = new Float32Array(n * space.K);
    for (let i = 0; i < n; i++) z.set(this.between(i / (n - 1)), i * space.K);
    try {
      const { mean } = space.model.decode(z), pixels = space.info.width * space.info.height;
      for (let i = 0; i < n; i++) {
        const place = space.coordinates(z, i * space.K);
        const image = stamp(mean, space.info.width, space.info.height, space.ink(...place), i * pixels);
        ctx.imageSmoothingQuality = "high";
        ctx.drawImage(image, (i * width) / n + (width / n - side) / 2, (height - side) / 2, side, side);
      }
    } catch (error) { fail(error); }
    ctx.fillStyle = css(paint.accent);
    const at = (0.5 + this.t * (n - 1)) * (width / n);
    ctx.fillRect(at - side / 2, height - 3, side, 3);
    el("t-value").textContent = `t = ${fixed(this.t, 2)}`;
    el("t").setAttribute("aria-valuetext", `t ${fixed(this.t, 2)}, z ${pointText(this.between(this.t))}`);
    canvas.setAttribute("aria-label", `Images along the path from A at ${pointText(this.ends[0])} to B at ${pointText(this.ends[1])}`);
    this.plane.path = el("show-path").checked ? this.ends.map((z) => space.coordinates(z)) : null;
    this.plane.draw();
  }
}
