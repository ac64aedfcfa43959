"use strict";
/* An image to ask about: one of the test set, or one drawn by hand and laid out as the data are. */

class Chooser {
  constructor(space, chosen) {
    Object.assign(this, { space, chosen });
    this.strokes = [];
    if (space.count) this.makeThumbs();
    else el("thumbs-name").parentElement.hidden = true;
    this.listenPad();
    painted(el("pad"), () => this.drawPad());
  }

  makeThumbs() {
    const box = el("thumbs"), { model, info, labels, count } = this.space;
    this.thumbs = Array.from({ length: count }, (_, i) => {
      const option = made("div", "thumb"), canvas = made("canvas");
      option.id = "thumb-" + i;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.setAttribute("aria-label", `test image ${i}` + (info.labels ? `, a ${labels[i]}` : ""));
      canvas.setAttribute("aria-hidden", "true");
      canvas.width = info.width;
      canvas.height = info.height;
      option.append(canvas);
      option.addEventListener("click", () => this.choose(i));
      box.append(option);
      return { option, canvas };
    });
    const paint = () => this.thumbs.forEach(({ canvas }, i) => {
      const ctx = canvas.getContext("2d"), ink = info.labels ? blend(looks().ink, ofClass(labels[i]), 0.75) : looks().ink;
      ctx.clearRect(0, 0, canvas.width, canvas.height);
      ctx.drawImage(stamp(model.testImage(i), info.width, info.height, ink), 0, 0);
    });
    repaints.add(paint);
    paint();
    box.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const columns = getComputedStyle(el("thumbs")).gridTemplateColumns.split(" ").length, last = this.thumbs.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -last, End: last }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(last, (this.index || 0) + step)));
  }

  choose(i) {
    this.index = i;
    this.thumbs.forEach(({ option }, j) => option.setAttribute("aria-selected", String(i === j)));
    const box = el("thumbs"), { option } = this.thumbs[i];
    box.setAttribute("aria-activedescendant", option.id);
    if (option.offsetTop < box.scrollTop + 4) box.scrollTop = option.offsetTop - 4;
    else if (option.offsetTop + option.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = option.offsetTop + option.offsetHeight - box.clientHeight + 4;
    const label = this.space.info.labels ? `, a ${this.space.labels[i]}` : "";
    this.chosen(Float32Array.from(this.space.model.testImage(i)), `Test image ${i}${label}`);
  }

  /* ---- The sheet ---- */

  listenPad() {
    const pad = el("pad");
    const place = (event) => {
      const box = pad.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      pad.setPointerCapture(event.pointerId);
      this.strokes.push([place(event)]);
      this.drawing = true;
      this.drawPad();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!this.drawing) return;
      for (const e of event.getCoalescedEvents ? event.getCoalescedEvents() : [event]) this.strokes[this.strokes.length - 1].push(place(e));
      this.drawPad();
    });
    for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => {
      if (!this.drawing) return;
      this.drawing = false;
      this.takeDrawing();
    });
    el("pad-clear").addEventListener("click", () => {
      this.strokes = [];
      this.drawPad();
      el("pad-note").textContent = "The sheet is empty.";
    });
  }

  drawPad() {
    const { ctx, width, height } = sharp(el("pad"));
    if (!this.strokes.length) {
      ctx.fillStyle = css(looks().faint);
      ctx.font = `15px ${getComputedStyle(document.body).fontFamily}`;
      ctx.textAlign = "center";
      ctx.fillText("draw here", width / 2, height / 2);
    }
    line(ctx, this.strokes, ([x, y]) => [x * width, y * height], width / 13, css(looks().ink));
  }

  takeDrawing() {
    const image = laidOut(this.strokes, this.space.info);
    if (!image) return;
    if (this.thumbs) this.thumbs.forEach(({ option }) => option.setAttribute("aria-selected", "false"));
    el("pad-note").textContent = "Centred and scaled as the data are.";
    this.chosen(image, "Your drawing");
  }
}

/* Draws strokes with a round pen. */
function line(ctx, strokes, to, width, ink) {
  ctx.lineCap = ctx.lineJoin = "round";
  ctx.lineWidth = width;
  ctx.strokeStyle = ink;
  for (const stroke of strokes) {
    ctx.beginPath();
    ctx.moveTo(...to(stroke[0]));
    for (const p of stroke) ctx.lineTo(...to(p));
    ctx.stroke();
  }
}

/* Strokes as an image of the data's kind: the longer side fills 20 of 28 pixels, the centre of mass is the centre of the
   image, each pixel is the mean of 8 × 8 finer ones. */
function laidOut(strokes, info) {
  const points = strokes.flat();
  if (!points.length) return null;
  const fine = 8, unit = Math.min(info.width, info.height) / 28, pen = 2.3 * unit;
  const span = (axis) => { const v = points.map((p) => p[axis]); return [Math.min(...v), Math.max(...v)]; };
  const [x0, x1] = span(0), [y0, y1] = span(1);
  const scale = Math.min((20 * unit - pen) / Math.max(x1 - x0, y1 - y0, 1e-6), 60 * unit);
  const canvas = document.createElement("canvas");
  canvas.width = info.width * fine;
  canvas.height = info.height * fine;
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (dx, dy) => {
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    line(ctx, strokes, ([x, y]) => [((x - (x0 + x1) / 2) * scale + info.width / 2 + dx) * fine,
      ((y - (y0 + y1) / 2) * scale + info.height / 2 + dy) * fine], pen * fine, "#000");
    return shrunk(ctx, info, fine);
  };
  const first = paint(0, 0), middle = centre(first, info);
  const image = paint(info.width / 2 - middle[0], info.height / 2 - middle[1]);
  return info.binary ? image.map((v) => (v > 0.5 ? 1 : 0)) : image;
}

function shrunk(ctx, info, fine) {
  const data = ctx.getImageData(0, 0, info.width * fine, info.height * fine).data, out = new Float32Array(info.width * info.height);
  for (let y = 0; y < info.height * fine; y++)
    for (let x = 0; x < info.width * fine; x++)
      out[Math.floor(y / fine) * info.width + Math.floor(x / fine)] += data[4 * (y * info.width * fine + x) + 3] / (255 * fine * fine);
  return out;
}

function centre(image, info) {
  let sum = 0, sx = 0, sy = 0;
  image.forEach((v, i) => { sum += v; sx += v * ((i % info.width) + 0.5); sy += v * (Math.floor(i / info.width) + 0.5); });
  return sum > 0 ? [sx / sum, sy / sum] : [info.width / 2, info.height / 2]; // a pen so thin that it left nothing
}
