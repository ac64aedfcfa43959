"use strict";
/* The latent space as a plane: coordinates (a, b), the z they stand for, and which digits lie where. */

class Space {
  /* `around` holds the means of q of all test images and then a byte for the label of each, where the page has them. */
  constructor(model, around = new Uint8Array(0)) {
    this.model = model;
    this.info = model.info;
    this.K = model.info.latent;
    this.count = model.info.images;
    this.means = this.count ? model.testMeans() : new Float32Array(0);
    this.logvars = this.means.length ? this.allLogvars() : new Float32Array(0);
    this.labels = Array.from({ length: this.count }, (_, i) => (this.info.labels ? model.testLabel(i) : 0));
    this.around = this.surroundings(around);
    this.classes = this.around.labels.reduce((most, label) => Math.max(most, label + 1), 10); // ten, or more if there are
    this.base = new Float32Array(this.K);
    this.ways = this.possibleWays();
    this.choose(this.K > 2 && this.count > 2 ? "principal" : "0,1");
  }

  /* What the nearest digits are counted among: all test images, or else those in the page. */
  surroundings(bytes) {
    if (bytes.length === 0) return { means: this.means, labels: this.labels, count: this.count };
    const count = bytes.length / (4 * this.K + (this.info.labels ? 1 : 0)), means = new Float32Array(count * this.K);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0; i < means.length; i++) means[i] = view.getFloat32(4 * i, true);
    const labels = Array.from({ length: count }, (_, i) => (this.info.labels ? bytes[4 * means.length + i] : 0));
    return { means, labels, count };
  }

  /* log σ² of q for every test image. */
  allLogvars() {
    const { pixels } = this.info, all = new Float32Array(this.count * pixels);
    for (let i = 0; i < this.count; i++) all.set(this.model.testImage(i), i * pixels);
    return this.model.encode(all).logvar;
  }

  possibleWays() {
    const ways = this.K > 2 && this.count > 2 ? [["principal", "where the test set varies most (two principal directions)"]] : [];
    const spread = Array.from({ length: this.K }, (_, k) => [k, this.spread(k)]).sort((a, b) => b[1] - a[1]);
    const named = this.K === 2 ? [0, 1] : spread.slice(0, 8).map(([k]) => k).sort((a, b) => a - b);
    for (let i = 0; i < named.length; i++)
      for (let j = i + 1; j < named.length; j++) ways.push([`${named[i]},${named[j]}`, `z${small(named[i] + 1)} and z${small(named[j] + 1)}`]);
    return ways;
  }

  spread(k) {
    let sum = 0, squares = 0;
    for (let i = 0; i < this.count; i++) { const v = this.means[i * this.K + k]; sum += v; squares += v * v; }
    return this.count ? squares / this.count - (sum / this.count) ** 2 : -k;
  }

  /* Lays the plane along two directions; the rest of z stays what it is. */
  choose(way) {
    this.way = way;
    if (way === "principal") this.directions = principal(this.means, this.count, this.K);
    else {
      this.directions = way.split(",").map((k) => Float64Array.from({ length: this.K }, (_, j) => (j === Number(k) ? 1 : 0)));
    }
    this.names = way === "principal" ? ["along principal direction 1", "along principal direction 2"]
      : way.split(",").map((k) => "z" + small(Number(k) + 1));
    this.through(this.base);
    this.flat = this.projectTests();
    let reach = 3;
    for (const v of this.flat.means) reach = Math.max(reach, Math.min(6, Math.abs(v) * 1.02));
    this.reach = Math.ceil(reach * 2) / 2;
  }

  /* The plane goes through z. */
  through(z) {
    const base = Float64Array.from(z);
    for (const u of this.directions) project(base, u);
    this.base = base;
  }

  point(a, b) {
    const z = new Float32Array(this.K);
    this.write(z, 0, a, b);
    return z;
  }

  write(out, offset, a, b) {
    const [u, v] = this.directions;
    for (let k = 0; k < this.K; k++) out[offset + k] = this.base[k] + a * u[k] + b * v[k];
  }

  coordinates(z, offset = 0) {
    return this.directions.map((u) => u.reduce((sum, x, k) => sum + x * z[offset + k], 0));
  }

  /* Means and variances of q for every test image, as the plane sees them. */
  projectTests() {
    const means = new Float32Array(2 * this.count), variances = new Float32Array(2 * this.count);
    for (let i = 0; i < this.count; i++) {
      means.set(this.coordinates(this.means, i * this.K), 2 * i);
      this.directions.forEach((u, axis) => {
        for (let k = 0; k < this.K; k++) variances[2 * i + axis] += u[k] * u[k] * Math.exp(this.logvars[i * this.K + k]);
      });
    }
    return { means, variances };
  }

  /* Share of each digit at (a, b): the ellipses of q over the labelled test images, widened by WIDER, summed per digit.
     Returns the shares and how much there is at all, against one image's peak. */
  shares(a, b) {
    const sums = new Float64Array(this.classes), { means, variances } = this.flat;
    for (let i = 0; i < this.count; i++) {
      const va = variances[2 * i] + WIDER * WIDER, vb = variances[2 * i + 1] + WIDER * WIDER;
      const da = a - means[2 * i], db = b - means[2 * i + 1];
      sums[this.labels[i]] += Math.exp(-0.5 * ((da * da) / va + (db * db) / vb)) / Math.sqrt(va * vb);
    }
    const total = sums.reduce((s, v) => s + v, 0);
    return { shares: total > 0 ? Array.from(sums, (v) => v / total) : Array(this.classes).fill(0), mass: total * WIDER * WIDER };
  }

  /* The test images whose mean of q lies nearest to z, and what share of them each digit is. */
  nearest(z) {
    const { means, labels, count } = this.around;
    const near = Array.from({ length: count }, (_, i) => {
      let squares = 0;
      for (let k = 0; k < this.K; k++) squares += (z[k] - means[i * this.K + k]) ** 2;
      return [i, Math.sqrt(squares)];
    }).sort((a, b) => a[1] - b[1]).slice(0, NEIGHBOURS);
    const shares = Array(this.classes).fill(0);
    for (const [i] of near) shares[labels[i]] += 1 / near.length;
    return { images: near, shares };
  }

  /* The ink of a place: the colour of its most likely digit, paler where it is uncertain. */
  ink(a, b) {
    const paint = looks();
    if (!this.info.labels) return paint.ink;
    const { shares } = this.shares(a, b);
    const best = shares.indexOf(Math.max(...shares));
    return shares[best] > 0 ? blend(paint.faint, ofClass(best), Math.max(0, Math.min(1, shares[best] * 1.6 - 0.3))) : paint.faint;
  }
}

/* By how much an ellipse is widened before the shares are taken, so that 200 images cover the plane. */
const WIDER = 0.2;

/* How many of the nearest images are asked for their digit: as many as `elbo decode` asks. */
const NEIGHBOURS = 20;

/* A count in subscript. */
function small(n) {
  return String(n).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);
}
