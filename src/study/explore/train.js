"use strict";
/* A small model trained in the page: buttons, the loop that leaves the page free, and when to draw. */

const TRAINING = { latent: 2, batch: 64, trainSize: 2000, testSize: 200 };

class Training {
  constructor(engine) {
    this.engine = engine;
    this.plane = new GrowingPlane(el("train-plane"));
    this.chart = new LossChart(el("loss"));
    this.running = null; // what the loop that runs holds; another, or null, ends it
    el("train-go").addEventListener("click", () => (this.running ? this.pause() : this.go()));
    el("train-step").addEventListener("click", () => this.once());
    el("train-reset").addEventListener("click", () => this.restart());
    for (const id of ["train-hidden", "train-rate", "train-seed"]) el(id).addEventListener("change", () => this.restart());
    el("tape").addEventListener("toggle", () => { if (el("tape").open) this.openTape(); });
    // The untrained model is made when somebody comes near it.
    const near = new IntersectionObserver((seen) => {
      if (!seen.some((s) => s.isIntersecting)) return;
      near.disconnect();
      this.begin();
    }, { rootMargin: "200px" });
    near.observe(el("train"));
  }

  options() {
    const seed = Number(el("train-seed").value);
    return { ...TRAINING, hidden: Number(el("train-hidden").value), learningRate: Number(el("train-rate").value),
      seed: Number.isInteger(seed) && seed >= 0 && seed <= 4294967295 ? seed : 1 };
  }

  begin() {
    if (this.trainer) return true;
    try {
      this.trainer = this.engine.trainer(this.options());
      this.last = { updates: 0 };
      this.spent = 0;
      this.chart.clear(this.trainer.model());
      this.look();
      return true;
    } catch (error) {
      fail(error);
      return false;
    }
  }

  restart() {
    this.pause();
    if (this.trainer) this.trainer.close();
    this.trainer = null;
    this.plane.forget();
    el("tape").open = false;
    el("tape-body").replaceChildren();
    this.begin();
  }

  pause() {
    this.running = null;
    el("train-go").textContent = this.last && this.last.updates ? "Go on" : "Train";
    if (this.trainer) this.tell();
  }

  once() {
    this.pause();
    if (!this.begin()) return;
    try {
      this.advance();
      this.look();
    } catch (error) { fail(error); }
    this.pause();
  }

  /* Updates until paused: a piece of about PIECE_MS, then the browser's turn; pictures take at most a third of the time. */
  async go() {
    if (!this.begin()) return;
    const mine = this.running = {}, { trainer } = this;
    el("train-go").textContent = "Pause";
    let pictured = performance.now(), pictureCost = 100;
    try {
      while (this.running === mine && trainer === this.trainer) {
        const began = performance.now();
        while (performance.now() - began < PIECE_MS) this.advance();
        this.tell();
        this.chart.draw();
        if (performance.now() - pictured > Math.max(250, 3 * pictureCost)) {
          const start = performance.now();
          this.look();
          pictured = performance.now();
          pictureCost = pictured - start;
        }
        await breath();
      }
    } catch (error) {
      this.pause();
      fail(error);
    }
  }

  advance() {
    const began = performance.now();
    this.last = this.trainer.step(1);
    this.spent += performance.now() - began;
    this.chart.add(this.last);
  }

  /* The test set and the plane, as they are now. */
  look() {
    const test = this.trainer.evaluate();
    this.chart.addTest(this.last.updates, test.negElbo);
    this.test = test;
    this.plane.show(this.trainer.model());
    this.chart.draw();
    this.tell();
  }

  tell() {
    const { updates, loss, rec, kl } = this.last, place = el("train-now");
    const test = this.test ? `test −ELBO ${fixed(this.test.negElbo)} = rec ${fixed(this.test.rec)} + KL ${fixed(this.test.kl)} nats per image` : "";
    place.textContent = updates
      ? `Update ${updates}, ${shown(this.spent / updates, 2)} ms each. Batch: ${fixed(loss)} = rec ${fixed(rec)} + KL ${fixed(kl)}. ${test[0] ? test[0].toUpperCase() + test.slice(1) : ""}`
      : `Untrained: ${test}.`;
    place.setAttribute("aria-live", this.running ? "off" : "polite");
    el("train-same").hidden = this.running || !updates;
    if (!el("train-same").hidden) el("train-command").textContent = this.trainer.command();
  }

  /* The derivation of the next update, to be walked. */
  async openTape() {
    if (!this.begin()) return;
    this.pause();
    try {
      el("tape-body").replaceChildren(made("p", "faint", "Taking every derivative, and a difference beside it…"));
      await breath();
      const tape = this.trainer.tape(), place = made("div"); // a new one each time: `walk` listens to the keys in it
      el("tape-body").replaceChildren(place);
      walk(place, tape);
    } catch (error) { fail(error); }
  }
}
