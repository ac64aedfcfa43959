"use strict";

const escapedText = text => String(text).replace(/[&<>"']/g, c => "&#" + c.charCodeAt(0) + ";");

/* Powers of ten from `low` to `high`, with 2 and 5 times them where there are few. */
function logTicks(low, high) {
  const all = [];
  const digits = high / low > 200 ? [1] : [1, 2, 5];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high) + 1e-9; p++) {
    for (const digit of digits) {
      const value = digit * 10 ** p;
      if (value >= low * 0.999 && value <= high * 1.001) all.push(value);
    }
  }
  return all;
}

/* A table of all numbers of a chart, made when it is asked for. */
function numbers(series, across, xs) {
  const rows = xs.map(x => "<tr><th scope=row class=number>" + x + "</th>" + series.map(s => {
    const at = s.index.get(x);
    return "<td class=number>" + (at === undefined ? "" : shown(s.y[at], 6)) + "</td>";
  }).join("") + "</tr>").join("");
  const heads = series.map(s => "<th scope=col class=number>" + escapedText(s.name) + "</th>").join("");
  return `<table><thead><tr><th scope=col class=number>${across}</th>${heads}</tr></thead><tbody>${rows}</tbody></table>`;
}

/* What the values of a chart lie between. */
function range(series) {
  const sorted = series.flatMap(s => s.y).sort((a, b) => a - b);
  let low = sorted[0], high = sorted[sorted.length - 1];
  const highest = high;
  // The very beginning of a training is far above all the rest, which then would be a line at the bottom.
  const usual = sorted[Math.floor(0.97 * (sorted.length - 1))];
  const cut = high - low > 2 * (usual - low) && usual > low;
  if (cut) high = usual;
  if (high === low) { high += 1; low -= 1; }
  const room = 0.06 * (high - low);
  return { low: low - room, high: high + room, highest, cut };
}

/* Where values stand in a chart of the width that there is now. */
function placed(chart) {
  const { xs, low, high, log } = chart;
  const width = Math.max(240, Math.min(chart.canvas.clientWidth || 480, 760));
  const height = Math.round(Math.min(300, 120 + 0.28 * width));
  const yTicks = ticks(low, high, 5).values, labels = yTicks.map(t => shown(t, 6));
  const left = 14 + 7 * Math.max(...labels.map(l => l.length)), right = 10, top = 8, bottom = 36;
  const first = xs[0], last = xs[xs.length - 1];
  const scaled = log ? Math.log : v => v;
  const span = scaled(last) - scaled(first) || 1;
  const px = x => xs.length === 1 ? (left + width - right) / 2 : left + (scaled(x) - scaled(first)) / span * (width - left - right);
  const py = y => top + (high - y) / (high - low) * (height - top - bottom);
  const xTicks = xs.length === 1 ? xs : log ? logTicks(first, last) : ticks(first, last, Math.max(2, width / 90)).values.filter(t => t >= first);
  return { px, py, left, right, top, bottom, width, height, xTicks, yTicks, labels };
}

/* The grid of a chart with its numbers. */
function axes({ px, py, left, right, bottom, width, height, xTicks, yTicks, labels }, across) {
  const rows = yTicks.map((t, i) =>
    `<line class="grid" x1="${left}" x2="${width - right}" y1="${py(t)}" y2="${py(t)}"/><text x="${left - 6}" y="${py(t) + 4}" text-anchor="end">${labels[i]}</text>`);
  const columns = xTicks.map(t =>
    `<line class="grid" x1="${px(t)}" x2="${px(t)}" y1="${height - bottom}" y2="${height - bottom + 4}"/><text x="${px(t)}" y="${height - bottom + 17}" text-anchor="middle">${t}</text>`);
  return rows.concat(columns).join("") + `<text x="${width - right}" y="${height - 4}" text-anchor="end">${across}</text>`;
}

/* The curves of a chart, and the marks that lie within it. */
function lines({ series, marks, low, high }, { px, py, right, left, width }) {
  let svg = "";
  for (const mark of marks) {
    if (mark.y < high && mark.y > low) svg += `<line class="mark" x1="${left}" x2="${width - right}" y1="${py(mark.y)}" y2="${py(mark.y)}"/><text x="${width - right - 4}" y="${py(mark.y) - 4}" text-anchor="end">${mark.text}</text>`;
  }
  for (const s of series) {
    const path = s.x.map((x, i) => (i ? "L" : "M") + px(x).toFixed(1) + " " + py(s.y[i]).toFixed(1)).join("");
    svg += `<path class="curve ${s.colour} ${s.kind}" d="${path}"/>`;
    if (s.x.length === 1) svg += `<circle class="point ${s.colour}" r="4" cx="${px(s.x[0])}" cy="${py(s.y[0])}"/>`;
  }
  return svg;
}

/* Draws a chart anew. */
function drawChart(chart) {
  const place = chart.place = placed(chart);
  const { left, right, top, bottom, width, height } = place;
  const clip = "clip-" + chart.figure.dataset.number;
  chart.canvas.innerHTML = `<svg viewBox="0 0 ${width} ${height}" aria-hidden="true"><clipPath id="${clip}"><rect x="${left}" y="${top - 3}" width="${width - left - right + 3}" height="${height - top - bottom + 6}"/></clipPath>`
    + axes(place, chart.across) + `<g clip-path="url(#${clip})">` + lines(chart, place) + "</g><g class='reading'></g></svg>";
  readChart(chart, chart.at, false);
}

/* Shows the values at the x of number `i`, or the last ones. */
function readChart(chart, i, aloud) {
  chart.at = i;
  const { xs, across, place } = chart;
  const x = xs[i === null ? xs.length - 1 : i];
  let reading = "", html = `<span class="at">${across} ${x}</span>`;
  const words = [];
  if (i !== null) reading = `<line class="cursor" x1="${place.px(x)}" x2="${place.px(x)}" y1="${place.top}" y2="${place.height - place.bottom}"/>`;
  for (const s of chart.series) {
    let j = s.index.get(x);
    if (j === undefined) j = s.x.findLastIndex(own => own <= x);
    if (j < 0) continue;
    const y = s.y[j];
    if (i !== null && s.x[j] === x && y <= chart.high) reading += `<circle class="point ${s.colour}" r="4" cx="${place.px(x)}" cy="${place.py(y)}"/>`;
    const text = fixed(y);
    const dash = s.kind === "train" ? "4 3" : "none";
    html += `<span><svg class="${s.colour}" viewBox="0 0 24 10" aria-hidden="true"><line x1="0" x2="24" y1="5" y2="5" stroke="var(--own)" stroke-width="3" stroke-dasharray="${dash}"/></svg>${escapedText(s.name)} <b>${text}</b></span>`;
    words.push(s.name + " " + text);
  }
  chart.canvas.querySelector(".reading").innerHTML = reading;
  chart.legend.innerHTML = html;
  if (aloud) chart.live.textContent = across + " " + x + ": " + words.join(", ");
}

/* Lets pointer and keys move the cursor of a chart. */
function listenToChart(chart) {
  const { canvas, xs } = chart;
  canvas.addEventListener("pointermove", event => {
    const { px, width } = chart.place;
    const box = canvas.getBoundingClientRect(), x = (event.clientX - box.left) * width / box.width;
    let best = 0;
    xs.forEach((own, i) => { if (Math.abs(px(own) - x) < Math.abs(px(xs[best]) - x)) best = i; });
    readChart(chart, best, false);
  });
  canvas.addEventListener("pointerleave", () => readChart(chart, null, false));
  canvas.addEventListener("blur", () => readChart(chart, null, false));
  canvas.addEventListener("keydown", event => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -xs.length, End: xs.length };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const from = chart.at === null ? xs.length : chart.at;
    readChart(chart, Math.max(0, Math.min(xs.length - 1, from + moves[event.key])), true);
  });
}

/* Below a chart: the other axis, all numbers, what lies above. */
function addTools(chart, title, tools) {
  const { xs, across, series } = chart;
  if (xs.length > 4 && xs[0] > 0) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "logarithmic " + across.replace(/s$/, "") + " axis";
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      chart.log = !chart.log;
      button.setAttribute("aria-pressed", String(chart.log));
      drawChart(chart);
    });
    tools.append(button);
  }
  const details = document.createElement("details");
  details.innerHTML = `<summary>Numbers</summary><div class="scroll" tabindex="0" role="region" aria-label="Numbers: ${escapedText(title)}"></div>`;
  details.addEventListener("toggle", () => {
    const box = details.querySelector(".scroll");
    if (details.open && !box.firstChild) box.innerHTML = numbers(series, across, xs);
  });
  tools.append(details);
  if (chart.cut) tools.insertAdjacentHTML("beforeend", `<span class="faint">The largest values, up to ${shown(chart.highest, 4)}, lie above.</span>`);
}

/* Lines over the x of all series, with a cursor that reads all of them at once. */
function lineChart(figure, title, across, series, marks) {
  for (const s of series) s.index = new Map(s.x.map((x, i) => [x, i]));
  const xs = [...new Set(series.flatMap(s => s.x))].sort((a, b) => a - b);
  figure.insertAdjacentHTML("beforeend",
    `<div class="canvas" tabindex="0" role="group" aria-label="${escapedText(title)}: left and right arrow keys read the values"></div>
     <div class="legend"></div><p class="hidden-text" aria-live="polite"></p><div class="tools"></div>`);
  const [canvas, legend, live, tools] = ["canvas", "legend", "hidden-text", "tools"].map(name => figure.querySelector("." + name));
  const chart = { figure, across, series, marks, xs, canvas, legend, live, log: false, at: null, ...range(series) };
  listenToChart(chart);
  addTools(chart, title, tools);
  whenLooksChange(() => drawChart(chart));
}

function curves() {
  const runs = json("curve-data"), several = runs.length > 1;
  // A line that is not that of all runs would be read as if it were.
  const collapses = [...new Set(runs.map(run => run.collapse))];
  document.querySelectorAll(".chart").forEach((figure, number) => {
    figure.dataset.number = number;
    const term = Number(figure.dataset.term), steps = figure.dataset.kind === "steps";
    const series = [];
    runs.forEach((run, i) => {
      const colour = "c" + (i % 6 + 1), own = several ? run.name : "";
      const add = (kind, name, x, y) => { if (x.length) series.push({ kind, name: (own + " " + name).trim(), colour, x, y }); };
      if (steps) add("test", several ? "" : "training", run.updates, run.steps[term]);
      else {
        add("train", "train", run.epochs, run.train[term]);
        add("test", "test", run.epochs, run.test[term]);
      }
    });
    const marks = term === 0 && collapses.length === 1 && collapses[0] !== null ? [{ y: collapses[0], text: "collapse: z ignored" }] : [];
    lineChart(figure, figure.querySelector("figcaption").textContent, steps ? "updates" : "epoch", series, marks);
  });
}

/* The points of a scatter, and the square that shows the prior's circle of radius 2 and all of them but the farthest few. */
function square(data) {
  const z = [];
  for (let i = 0; i < data.points.length; i += 2) z.push([data.points[i] / 1000, data.points[i + 1] / 1000]);
  const ranges = [0, 1].map(k => {
    const own = z.map(p => p[k]).sort((a, b) => a - b), few = Math.floor(own.length / 1000);
    return [Math.min(-2.1, own[few]), Math.max(2.1, own[own.length - 1 - few])];
  });
  const reach = 1.03 * Math.max(...ranges.map(r => r[1] - r[0])) / 2;
  const middles = ranges.map(r => (r[0] + r[1]) / 2);
  const size = 560, left = 44, bottom = 34, side = size - left;
  const px = v => left + ((v - middles[0]) / reach + 1) / 2 * side, py = v => (1 - (v - middles[1]) / reach) / 2 * side;
  const classes = data.labels ? [...new Set(data.labels)].sort((a, b) => a - b) : [null];
  const of = c => z.filter((_, i) => c === null || data.labels[i] === c);
  return { z, labels: data.labels, classes, of, reach, middles, size, left, bottom, side, px, py };
}

/* The axes of a scatter. */
function squareAxes({ middles, reach, left, size, side, px, py }) {
  const around = middle => ticks(middle - reach, middle + reach, 8).values;
  const columns = around(middles[0]).map(t =>
    `<line class="axis" x1="${px(t)}" x2="${px(t)}" y1="0" y2="${side}"/><text x="${px(t)}" y="${side + 17}" text-anchor="middle">${shown(t)}</text>`);
  const rows = around(middles[1]).map(t =>
    `<line class="axis" x1="${left}" x2="${size}" y1="${py(t)}" y2="${py(t)}"/><text x="${left - 6}" y="${py(t) + 4}" text-anchor="end">${shown(t)}</text>`);
  return columns.concat(rows).join("") + `<text x="${size}" y="${side + 33}" text-anchor="end">z₁</text><text x="10" y="14">z₂</text>`;
}

/* The points in the colours of their classes, the circles of the prior, and the names of the classes in their middles. */
function cloud({ z, classes, of, reach, side, px, py }) {
  const dot = z.length > 1500 ? 4 : 5.5;
  let svg = "";
  for (const c of classes) {
    const path = of(c).map(p => "M" + px(p[0]).toFixed(1) + " " + py(p[1]).toFixed(1) + "h0").join("");
    svg += `<path d="${path}" stroke="var(--class-${c === null ? 0 : c % 10})" stroke-width="${dot}" stroke-linecap="round" stroke-opacity="0.62" fill="none"/>`;
  }
  for (const r of [1, 2, 3]) svg += `<circle class="ring" cx="${px(0)}" cy="${py(0)}" r="${r / reach * side / 2}"/>`;
  for (const c of classes.filter(c => c !== null)) {
    const own = of(c), middle = k => own.map(p => p[k]).sort((a, b) => a - b)[Math.floor(own.length / 2)];
    svg += `<text class="name" x="${px(middle(0))}" y="${py(middle(1)) + 5}">${c}</text>`;
  }
  return svg;
}

/* A row for each class: how many, mean and standard deviation. */
function classRows({ classes, of }) {
  return classes.map(c => {
    const own = of(c), mean = k => own.reduce((sum, p) => sum + p[k], 0) / own.length;
    const deviation = k => Math.sqrt(own.reduce((sum, p) => sum + (p[k] - mean(k)) ** 2, 0) / own.length);
    return `<tr><th scope="row">${c === null ? "all" : c}</th>` + [own.length, mean(0), mean(1), deviation(0), deviation(1)]
      .map(v => `<td class="number">${shown(v, 3)}</td>`).join("") + "</tr>";
  }).join("");
}

/* Marks the image nearest to a point, and says which it is. */
function readPlane(plot, point, aloud) {
  const { z, labels, px, py } = plot;
  plot.at = point;
  const far = p => (p[0] - point[0]) ** 2 + (p[1] - point[1]) ** 2;
  let best = 0;
  z.forEach((p, i) => { if (far(p) < far(z[best])) best = i; });
  const cross = aloud ? `<path class="hit" d="M${px(point[0]) - 9} ${py(point[1])}h18M${px(point[0])} ${py(point[1]) - 9}v18"/>` : "";
  plot.canvas.querySelector(".reading").innerHTML = `<circle class="hit" r="6" cx="${px(z[best][0])}" cy="${py(z[best][1])}"/>` + cross;
  const where = p => "(" + shown(p[0], 3) + ", " + shown(p[1], 3) + ")";
  const label = labels ? ", class " + labels[best] : "";
  plot.reading.textContent = `at ${where(point)}: nearest is image ${best} at ${where(z[best])}${label}`;
  if (aloud) plot.live.textContent = plot.reading.textContent;
}

/* Lets pointer and keys move over a scatter. */
function listenToPlane(plot, usual) {
  const { canvas, size, left, side, middles, reach } = plot;
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect(), scale = (size + 8) / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    readPlane(plot, [middles[0] + ((x - left) / side * 2 - 1) * reach, middles[1] + (1 - y / side * 2) * reach], false);
  });
  const leave = () => { canvas.querySelector(".reading").innerHTML = ""; plot.reading.textContent = usual; };
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("keydown", event => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const step = reach / 25, move = moves[event.key];
    const limited = k => Math.max(middles[k] - reach, Math.min(middles[k] + reach, plot.at[k] + step * move[k]));
    readPlane(plot, [limited(0), limited(1)], true);
  });
}

/* The means of test images, with axes, classes and circles of the prior. */
function scatterPlot(figure, data) {
  const plot = square(data), { left, side, size, bottom } = plot, clip = "square-" + figure.dataset.run;
  const svg = `<svg viewBox="0 0 ${size + 8} ${side + bottom + 6}" aria-hidden="true"><clipPath id="${clip}"><rect x="${left}" y="0" width="${side}" height="${side}"/></clipPath>`
    + squareAxes(plot) + `<g clip-path="url(#${clip})">` + cloud(plot) + `</g><g class="reading"></g></svg>`;
  figure.insertAdjacentHTML("beforeend",
    `<div class="canvas" tabindex="0" role="group" aria-label="means of test images in the plane of z: arrow keys move over it">${svg}</div>
     <div class="legend"><span class="at"></span></div><p class="hidden-text" aria-live="polite"></p>
     <div class="tools"><details><summary>Numbers by class</summary><div class="scroll" tabindex="0" role="region" aria-label="Numbers by class"><table><thead><tr><th>class</th><th class="number">images</th><th class="number">mean z₁</th><th class="number">mean z₂</th><th class="number">sd z₁</th><th class="number">sd z₂</th></tr></thead><tbody>${classRows(plot)}</tbody></table></div></details></div>`);
  const [canvas, reading, live] = [".canvas", ".at", "[aria-live]"].map(part => figure.querySelector(part));
  const usual = `${plot.z.length} test images`;
  Object.assign(plot, { canvas, reading, live, at: [0, 0] });
  reading.textContent = usual;
  listenToPlane(plot, usual);
}

curves();
json("plane-data").forEach((data, i) => {
  const figure = document.querySelector(`.scatter[data-run="${i}"]`);
  if (data && figure) scatterPlot(figure, data);
});
const only = document.getElementById("only");
only.addEventListener("change", () => document.querySelector(".configuration").classList.toggle("only", only.checked));
