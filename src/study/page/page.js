"use strict";

/* The data of the page that stands under this id. */
function json(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/* The bytes of the page that stand under this id. */
function bytes(id) {
  const text = atob(document.getElementById(id).textContent);
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}

/* A number in as few characters as `digits` significant ones need, with a true minus sign. */
function shown(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6)
    ? value.toExponential(digits - 1)
    : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "−");
}

/* A number with a fixed count of decimals and a true minus sign. */
function fixed(value, decimals = 2) {
  if (!Number.isFinite(value)) return shown(value);
  return value.toFixed(decimals).replace("-", "−");
}

/* Numbers from `low` to `high` at distances of 1, 2 or 5 times a power of ten, at most about `most` of them; and how many
   decimals tell them apart. */
function ticks(low, high, most) {
  const rough = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(digit => digit * power >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-6 * step; i++) values.push(Number((i * step).toPrecision(12)));
  return { values, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/* A colour of the style, as it is now (light or dark). */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

/* Calls `draw` now and whenever the colours or the window change. */
function whenLooksChange(draw) {
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", draw);
}
