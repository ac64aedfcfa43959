"use strict";
/* What every part of the page uses: elements, colours, sharp canvases, work in small pieces, moments. */

const el = (id) => document.getElementById(id);

/* An element with a class and text in it. */
function made(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/* A list of numbers as people write a point: (0.10, −0.50). */
function pointText(z, decimals = 2) {
  return "(" + Array.from(z, (v) => fixed(v, decimals)).join(", ") + ")";
}

/* What went wrong, where it can be seen. The page stays usable where it can. */
function fail(error) {
  const place = el("error");
  place.hidden = false;
  place.textContent = "This page met an error: " + (error && error.message ? error.message : String(error));
  console.error(error);
}

/* ---- Colours: those of the style, as red, green and blue, for as long as the scheme stays. ---- */

let paints = null;

function rgb(name) {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  probe.fillStyle = colour(name) || "#888";
  probe.fillRect(0, 0, 1, 1);
  return Array.from(probe.getImageData(0, 0, 1, 1).data.slice(0, 3));
}

function looks() {
  if (!paints) {
    paints = { digits: Array.from({ length: 10 }, (_, d) => rgb("digit-" + d)) };
    for (const name of ["paper", "panel", "ink", "faint", "line", "accent", "warm", "good"]) paints[name] = rgb(name);
  }
  return paints;
}

/* The colour of a class. There are ten; the eleventh has that of the first. */
function ofClass(label) {
  return looks().digits[label % 10];
}

function css(rgbs, alpha = 1) {
  return `rgba(${rgbs[0]}, ${rgbs[1]}, ${rgbs[2]}, ${alpha})`;
}

function blend(a, b, share) {
  return a.map((v, i) => Math.round(v + (b[i] - v) * share));
}

/* ---- Canvases: as many dots as the screen has, drawn again when size or colours change. ---- */

const repaints = new Set(), sizes = new WeakMap();

/* How much larger than 16 CSS pixels the page's letters are: pictures grow with them. */
function scaleOfType() {
  return parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
}

/* The context of a canvas whose unit is the CSS pixel, cleared, with its size. */
function sharp(canvas) {
  const dots = window.devicePixelRatio || 1;
  const box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
  if (canvas.width !== Math.round(width * dots) || canvas.height !== Math.round(height * dots)) {
    canvas.width = Math.round(width * dots);
    canvas.height = Math.round(height * dots);
  }
  sizes.set(canvas, `${width}×${height}`);
  const ctx = canvas.getContext("2d");
  ctx.setTransform(dots, 0, 0, dots, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return { ctx, width, height, dots };
}

/* Draws `canvas` by `draw` when its size or the colours change. */
function painted(canvas, draw) {
  const size = () => { const box = canvas.getBoundingClientRect(); return `${Math.round(box.width)}×${Math.round(box.height)}`; };
  const again = () => { if (canvas.getBoundingClientRect().width > 0) draw(); };
  repaints.add(again);
  new ResizeObserver(() => { if (sizes.get(canvas) !== size()) again(); }).observe(canvas);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  paints = null;
  for (const again of repaints) again();
});

/* An image of `values` in [0, 1] as a small canvas: `ink` where the value is 1, nothing where it is 0. */
function stamp(values, width, height, ink, offset = 0) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const ctx = canvas.getContext("2d");
  const data = ctx.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    data.data[4 * i] = ink[0];
    data.data[4 * i + 1] = ink[1];
    data.data[4 * i + 2] = ink[2];
    data.data[4 * i + 3] = Math.max(0, Math.min(255, Math.round(255 * values[offset + i])));
  }
  ctx.putImageData(data, 0, 0);
  return canvas;
}

/* Shows an image on a canvas of the page, pixel by pixel. */
function showImage(canvas, values, info, ink) {
  const { ctx, width, height } = sharp(canvas);
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(stamp(values, info.width, info.height, ink || looks().ink), 0, 0, width, height);
}

/* ---- Work in pieces, so that the page answers while it computes. ---- */

const PIECE_MS = 24;

/* After the browser has had its turn. */
function breath() {
  return new Promise((done) => {
    if (document.hidden) setTimeout(done, 0);
    else requestAnimationFrame(() => setTimeout(done, 0));
  });
}

/* A line of work of which only the newest stays alive: `const alive = line.begin()`. */
class Line {
  constructor() { this.number = 0; }
  begin() {
    const mine = ++this.number;
    return () => mine === this.number;
  }
}

/* Calls work(first, count) over 0..n, a few at a time; stops early when `alive` says no. Before each rest it calls `resting`.
   Returns whether it came to the end. */
async function pieces(n, size, work, alive = () => true, resting = () => {}) {
  let since = performance.now();
  for (let first = 0; first < n; first += size) {
    if (!alive()) return false;
    work(first, Math.min(size, n - first));
    if (performance.now() - since > PIECE_MS) {
      if (alive()) resting();
      await breath();
      since = performance.now();
    }
  }
  return alive();
}

/* Says `text` to a screen reader, once the hand rests. */
const said = new Map();
function say(id, text) {
  clearTimeout(said.get(id));
  said.set(id, setTimeout(() => { el(id).textContent = text; }, 250));
}

/* Makes a set of buttons in which one is pressed: calls chosen(value) for it. */
function choices(group, chosen) {
  const buttons = Array.from(group.querySelectorAll("button[data-value]"));
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const b of buttons) b.setAttribute("aria-pressed", String(b === button));
      chosen(button.dataset.value);
    });
  }
}
