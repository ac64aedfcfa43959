"use strict";
/* A picture with axes: from numbers to places on a canvas and back. */

/* How an axis runs: evenly in its numbers, in their logarithms, or in the prior's quantiles. */
const EVEN = { to: (v) => v, from: (s) => s };
const LOGARITHMIC = { to: Math.log, from: Math.exp };
const QUANTILE = { to: normalShare, from: normalQuantile };

class Frame {
  /* x and y are [low, high]; margin is [top, right, bottom, left] in CSS pixels. */
  constructor(surface, x, y, margin, xScale = EVEN, yScale = EVEN) {
    Object.assign(this, { ctx: surface.ctx, width: surface.width, height: surface.height, x, y, xScale, yScale });
    this.type = scaleOfType();
    [this.top, this.right, this.bottom, this.left] = margin.map((side) => side * this.type);
    this.innerWidth = Math.max(1, this.width - this.left - this.right);
    this.innerHeight = Math.max(1, this.height - this.top - this.bottom);
    this.xEnds = x.map(xScale.to);
    this.yEnds = y.map(yScale.to);
  }

  X(v) {
    const [a, b] = this.xEnds;
    return this.left + ((this.xScale.to(v) - a) / (b - a)) * this.innerWidth;
  }

  Y(v) {
    const [a, b] = this.yEnds;
    return this.top + (1 - (this.yScale.to(v) - a) / (b - a)) * this.innerHeight;
  }

  /* The numbers at a place. */
  at(px, py) {
    const [a, b] = this.xEnds, [c, d] = this.yEnds;
    const u = Math.max(0, Math.min(1, (px - this.left) / this.innerWidth));
    const v = Math.max(0, Math.min(1, 1 - (py - this.top) / this.innerHeight));
    return [this.xScale.from(a + u * (b - a)), this.yScale.from(c + v * (d - c))];
  }

  inside(draw) {
    const { ctx } = this;
    ctx.save();
    ctx.beginPath();
    ctx.rect(this.left, this.top, this.innerWidth, this.innerHeight);
    ctx.clip();
    draw(ctx);
    ctx.restore();
  }

  /* The box, its numbers and its names; `grid` draws thin lines across. */
  axes({ xName, yName, xTicks, yTicks, grid = false, font = 12 }) {
    const { ctx } = this, paint = looks();
    font *= this.type;
    const near = font * 0.45;
    xTicks = xTicks || this.round(this.x, this.innerWidth / (font * 5));
    yTicks = yTicks || this.round(this.y, this.innerHeight / (font * 3.2));
    ctx.save();
    ctx.font = `${font}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.strokeStyle = css(paint.line);
    ctx.lineWidth = 1;
    ctx.fillStyle = css(paint.faint);
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    for (const [v, text] of xTicks) {
      const px = this.X(v);
      this.stroke(px, grid ? this.top : this.height - this.bottom, px, this.height - this.bottom + 4);
      ctx.fillText(text, px, this.height - this.bottom + near + 2);
    }
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (const [v, text] of yTicks) {
      const py = this.Y(v);
      this.stroke(this.left - 4, py, grid ? this.width - this.right : this.left, py);
      ctx.fillText(text, this.left - near - 3, py);
    }
    ctx.strokeRect(this.left + 0.5, this.top + 0.5, this.innerWidth - 1, this.innerHeight - 1);
    ctx.fillStyle = css(paint.ink);
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    if (xName) ctx.fillText(xName, this.width - this.right, this.height - 1);
    ctx.textAlign = "left";
    ctx.textBaseline = "top";
    if (yName) ctx.fillText(yName, 1, 0);
    ctx.restore();
  }

  round(range, count) {
    const { values, decimals } = ticks(range[0], range[1], Math.max(2, Math.min(9, count)));
    return values.map((v) => [v, fixed(v, decimals)]);
  }

  stroke(x0, y0, x1, y1) {
    this.ctx.beginPath();
    this.ctx.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
    this.ctx.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
    this.ctx.stroke();
  }

  /* A line through [x, y] pairs. */
  curve(points, ink, width = 2, dash = []) {
    this.inside((ctx) => {
      ctx.beginPath();
      points.forEach(([x, y], i) => { if (i) ctx.lineTo(this.X(x), this.Y(y)); else ctx.moveTo(this.X(x), this.Y(y)); });
      ctx.setLineDash(dash);
      ctx.lineJoin = "round";
      ctx.lineWidth = width;
      ctx.strokeStyle = css(ink);
      ctx.stroke();
    });
  }

  /* The ring of `sigmas` standard deviations around a point. */
  ellipse(mean, deviation, sigmas, ink, width = 2, dash = []) {
    const points = [];
    for (let i = 0; i <= 72; i++) {
      const a = (i / 72) * 2 * Math.PI;
      points.push([mean[0] + sigmas * deviation[0] * Math.cos(a), mean[1] + sigmas * deviation[1] * Math.sin(a)]);
    }
    this.curve(points, ink, width, dash);
  }

  /* Where z is: a ring with a halo that is seen on any ground. */
  mark(x, y, radius = 8) {
    radius *= this.type;
    const { ctx } = this, paint = looks(), px = this.X(x), py = this.Y(y);
    ctx.save();
    for (const [ink, width] of [[paint.paper, 6], [paint.ink, 2.5]]) {
      ctx.strokeStyle = css(ink);
      ctx.lineWidth = width;
      ctx.beginPath();
      ctx.arc(px, py, radius, 0, 2 * Math.PI);
      ctx.stroke();
    }
    ctx.restore();
  }
}
