"use strict";
/* What the model makes of one z: f_μ(z), f_σ(z), a thrown x, log p(z), the digits that live there. */

class PointView {
  constructor(space, plane) {
    Object.assign(this, { space, plane });
    this.seed = 1;
    this.z = space.point(0.1, 0.5);
    el("z").addEventListener("change", () => this.typed());
    el("z").addEventListener("keydown", (event) => { if (event.key === "Enter") this.typed(); });
    el("throw").addEventListener("click", () => { this.seed++; this.show(); });
    el("sigma-figure").hidden = !space.info.sigma;
    this.makeShares();
    painted(el("mean"), () => this.show());
  }

  /* A bar for each digit; pressing one goes to where it lives. */
  makeShares() {
    const list = el("shares");
    if (!this.space.info.labels) { el("shares-block").hidden = true; return; }
    this.bars = Array.from({ length: this.space.classes }, (_, digit) => {
      const item = made("li"), button = made("button", "share"), name = made("span", "share-digit", String(digit));
      const track = made("span", "share-track"), bar = made("span", "share-bar"), value = made("span", "share-value");
      bar.style.background = `var(--digit-${digit % 10})`;
      track.append(bar);
      button.append(name, track, value);
      button.type = "button";
      button.title = `Go to where ${digit} lives`;
      const home = this.plane.home(digit);
      button.disabled = !home;
      button.addEventListener("click", () => this.goTo(this.plane.home(digit)));
      item.append(button);
      list.append(item);
      return { bar, value, button };
    });
  }

  /* The numbers in the box, or what is wrong with them. */
  typed() {
    const text = el("z").value.replace(/[()[\]]/g, " ").replace(/−/g, "-").trim();
    const parts = text.split(/[\s,;]+/).filter(Boolean), K = this.space.K;
    const z = Float32Array.from(parts, Number);
    const wrong = parts.find((part) => !Number.isFinite(Math.fround(Number(part))));
    let problem = "";
    if (wrong !== undefined) problem = Number.isNaN(Number(wrong)) ? `“${wrong}” is not a number.` : `“${wrong}” is too large for the engine’s numbers of 32 bits.`;
    else if (z.length !== K) problem = `This z has ${K} numbers; the box has ${z.length}. Write them as in ${exampleOf(K)}.`;
    el("z").setAttribute("aria-invalid", String(Boolean(problem)));
    el("z-problem").textContent = problem;
    if (!problem) this.setZ(z, true);
  }

  setZ(z, throughIt = false) {
    this.z = Float32Array.from(z);
    if (throughIt && this.space.K > 2) {
      this.space.through(this.z);
      this.plane.refresh();
    }
    this.show();
  }

  goTo(place) {
    this.setZ(this.space.point(...place));
  }

  show() {
    const { model, info, K } = this.space, z = this.z;
    try {
      const { mean, sigma } = model.decode(z);
      const thrown = model.throwImage(z, this.seed);
      const place = this.space.coordinates(z), nearest = this.space.nearest(z), { shares } = nearest;
      showImage(el("mean"), mean, info, this.space.ink(...place));
      showImage(el("thrown"), thrown, info);
      if (sigma) showImage(el("sigma"), spread(sigma), info);
      const logPrior = -0.5 * (z.reduce((sum, v) => sum + v * v, 0) + K * LOG_2PI);
      el("log-prior").textContent = fixed(logPrior, 4);
      if (document.activeElement !== el("z") || el("z-problem").textContent === "") this.write();
      this.showShares(shares);
      this.showNearest(nearest);
      this.plane.at = place;
      this.plane.draw();
      const near = this.inWords(shares);
      say("z-said", `z is ${pointText(z)}, log p(z) is ${fixed(logPrior, 3)} nats. ${near}`);
      const ink = mean.reduce((sum, v) => sum + v, 0) / mean.length;
      el("mean").setAttribute("aria-label", `The mean image at z = ${pointText(z)}: ${fixed(100 * ink, 1)} % ink. ${near}`);
      this.now = { z, mean, thrown, logPrior, nearest };
    } catch (error) { fail(error); }
  }

  write() {
    el("z").value = Array.from(this.z, (v) => String(Math.round(v * 1e4) / 1e4)).join(", ");
    el("z").setAttribute("aria-invalid", "false");
    el("z-problem").textContent = "";
  }

  inWords(shares) {
    if (!this.space.info.labels) return "";
    const best = shares.map((share, digit) => [share, digit]).sort((a, b) => b[0] - a[0]).filter(([share], i) => i < 3 && share > 0);
    return "Nearest digits: " + best.map(([share, digit]) => `${digit} (${Math.round(100 * share)} %)`).join(", ") + ".";
  }

  showShares(shares) {
    if (!this.bars) return;
    shares.forEach((share, digit) => {
      const { bar, value, button } = this.bars[digit], text = `${Math.round(100 * share)} %`;
      bar.style.width = `${100 * share}%`;
      value.textContent = text;
      button.setAttribute("aria-label", `${digit}: ${text}. Go to where ${digit} lives`);
      button.classList.toggle("none", share === 0);
    });
  }

  /* The nearest test image of all; pressing it asks about it below. */
  showNearest({ images: [first] }) {
    const { info, around, count } = this.space;
    el("nearest").hidden = !first;
    if (!first) return;
    el("nearest-image").textContent = `test image ${first[0]}` + (info.labels ? `, a ${around.labels[first[0]]}` : "");
    el("nearest-image").disabled = first[0] >= count; // only the first images themselves are in the page
    el("nearest-distance").textContent = fixed(first[1], 4);
    this.nearestImage = first[0];
  }
}

function exampleOf(K) {
  return Array.from({ length: Math.min(K, 4) }, (_, k) => (k % 2 ? "0.5" : "0.1")).join(", ") + (K > 4 ? ", …" : "");
}

/* Deviations against the largest, so that they are seen. */
function spread(sigma) {
  const top = sigma.reduce((a, b) => Math.max(a, b), 1e-9);
  return sigma.map((v) => v / top);
}
