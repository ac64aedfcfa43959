//! The built-in digits: handwriting made of strokes, so that nothing has to be downloaded.
//!
//! A digit is drawn the way a hand draws it: pick a style (`strokes.rs`), a pose between its two
//! extremes, let every key point wobble, lean and stretch the whole, bend the paper a little (elastic deformation), and
//! move a pen of varying pressure along the path. The result is laid out like MNIST: 28×28, white on black, the digit in
//! a box of 20×20 pixels whose centre of mass is the centre of the image.
//!
//! Image `index` of `seed` is a pure function of the two. Its randomness comes from [`Draw`] alone, and the arithmetic
//! is `+ - * /` and `sqrt` in a fixed order (angles are given by their half-tangents), so every computer draws the same
//! bytes.

use super::strokes::{STYLES, StrokeKey, Style};
use super::{Dataset, Split};
use crate::engine::isa::Isa;
use crate::engine::rng::Draw;
use crate::vae::streams;
use rayon::prelude::*;

/// Width and height of an image.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// The longer side of the digit's box, in pixels.
const BOX: f32 = 20.0;
/// Where the test images begin: far behind any training set, so that its size does not change them; a multiple of ten,
/// so that they are balanced.
const FIRST_TEST: u32 = 2_000_000_000;
/// Straight pieces per smooth stretch between two key points: each is then about a pixel long.
const PIECES: usize = 6;

/// The generator of built-in digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits;

impl Digits {
    /// Images `first .. first + count` of `seed`, 784 bytes each, and their labels.
    ///
    /// Drawn in parallel; the bytes depend on `seed` and on each image's own index only.
    ///
    /// # Panics
    /// If `first + count` exceeds 2³².
    pub fn generate(seed: u64, first: u32, count: usize) -> (Vec<u8>, Vec<u8>) {
        assert!(first as u64 + count as u64 <= 1 << 32, "built-in digits are numbered with 32 bits");
        let mut images = vec![0; count * PIXELS];
        let mut labels = vec![0; count];
        images.par_chunks_mut(PIXELS).zip(&mut labels).with_min_len(64).enumerate().for_each(|(i, (image, label))| {
            let index = first + i as u32;
            *label = Digits::label(seed, index);
            draw_digit(seed, index, *label, image);
        });
        (images, labels)
    }

    /// The digit that image `index` shows: each ten consecutive images hold each digit once, in an order of their own.
    pub fn label(seed: u64, index: u32) -> u8 {
        let draw = Draw { seed, step: index / 10, stream: streams::LABELS };
        let mut order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        for last in (1..10).rev() {
            let chosen = (draw.uniform(last as u64) * (last + 1) as f32) as usize;
            order.swap(last, chosen);
        }
        order[index as usize % 10]
    }

    /// `count` images as the training or the test set. The two never share an image.
    pub fn dataset(seed: u64, split: Split, count: usize) -> Dataset {
        let first = match split {
            Split::Train => 0,
            Split::Test => FIRST_TEST,
        };
        let (images, labels) = Digits::generate(seed, first, count);
        let name = format!("built-in digits, seed {seed}");
        Dataset { name, split, images, rows: count, cols: PIXELS, width: SIDE, height: SIDE, labels: Some(labels) }
    }
}

/// Draws `digit` into the zeroed `image`.
fn draw_digit(seed: u64, index: u32, digit: u8, image: &mut [u8]) {
    let mut hand = Hand::new(Draw { seed, step: index, stream: streams::HAND });
    let style = choose(STYLES[digit as usize], hand.uniform());
    let mut path = trace(style, &mut hand);
    let pen = Pen::choose(&mut hand);
    lean(&mut path, &pen, &mut hand);
    let strength = hand.between(0.03, 0.14);
    bend::<5>(&mut path, strength, &mut hand);
    let tremor = 0.03 * hand.uniform();
    bend::<11>(&mut path, tremor, &mut hand);
    pen.press(&mut path, &mut hand);
    place(&mut path, &pen, &mut hand);
    pen.ink(&path, image);
}

/// A stream of random numbers that one image consumes in order.
struct Hand {
    draw: Draw,
    numbers: [f32; Hand::BLOCK],
    next: usize,
    filled: u64,
}

impl Hand {
    /// Numbers drawn at once: more than most images need.
    const BLOCK: usize = 512;

    fn new(draw: Draw) -> Hand {
        Hand { draw, numbers: [0.0; Hand::BLOCK], next: Hand::BLOCK, filled: 0 }
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f32 {
        if self.next == Hand::BLOCK {
            self.draw.fill_uniform(Isa::detect(), self.filled, &mut self.numbers);
            self.filled += Hand::BLOCK as u64;
            self.next = 0;
        }
        self.next += 1;
        self.numbers[self.next - 1]
    }

    /// Uniform in [low, high).
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Bell-shaped with mean 0 and standard deviation `width`, never beyond three of them: hands have no long tails.
    fn bell(&mut self, width: f32) -> f32 {
        (self.uniform() + self.uniform() + self.uniform() - 1.5) * (2.0 * width)
    }
}

/// The style at `u` in [0, 1) of the cumulative weights.
fn choose(styles: &'static [Style], u: f32) -> &'static Style {
    let mut left = u * styles.iter().map(|style| style.weight).sum::<f32>();
    for style in styles {
        left -= style.weight;
        if left < 0.0 {
            return style;
        }
    }
    &styles[styles.len() - 1]
}

/// A point of the pen's path and the radius of the pen there; `down` if the pen draws from the point before it.
#[derive(Clone, Copy)]
struct Dot {
    x: f32,
    y: f32,
    radius: f32,
    down: bool,
}

/// The pen's path through the style's strokes, for one hand.
fn trace(style: &Style, hand: &mut Hand) -> Vec<Dot> {
    // Top and bottom take their own place between the two poses, so that the belly of a 6 is independent of its bow.
    let (top, bottom) = (hand.between(-0.5, 1.5), hand.between(-0.5, 1.5));
    let wobble = hand.between(0.012, 0.05);
    let mut path = Vec::with_capacity(128);
    let mut points = Vec::with_capacity(16);
    for stroke in style.strokes {
        points.clear();
        for key in *stroke {
            let height = 0.5 * (key.one[1] + key.two[1]);
            let blend = top + (bottom - top) * height;
            let mix = |axis: usize| key.one[axis] + (key.two[axis] - key.one[axis]) * blend;
            points.push([mix(0) + hand.bell(wobble), mix(1) + hand.bell(wobble)]);
        }
        smooth(&points, stroke, &mut path);
    }
    path
}

/// Appends a smooth curve through `points`, with kinks at corners: cubic Hermite pieces, tangents from the neighbours.
fn smooth(points: &[[f32; 2]], keys: &[StrokeKey], path: &mut Vec<Dot>) {
    let last = points.len() - 1;
    let dot = |p: [f32; 2], down| Dot { x: p[0], y: p[1], radius: 0.0, down };
    path.push(dot(points[0], false));
    for i in 0..last {
        let (p, q) = (points[i], points[i + 1]);
        let before = (i > 0 && !keys[i].corner).then(|| points[i - 1]);
        let after = (i + 1 < last && !keys[i + 1].corner).then(|| points[i + 2]);
        let (start, end) = tangents(before, p, q, after);
        for piece in 1..=PIECES {
            let t = piece as f32 / PIECES as f32;
            let hermite = |axis: usize| {
                let (a, b) = (p[axis], q[axis]);
                let bulge = (1.0 - t) * start[axis] - t * end[axis] + (2.0 * t - 1.0) * (b - a);
                a + t * (b - a) + t * (1.0 - t) * bulge
            };
            path.push(dot([hermite(0), hermite(1)], true));
        }
    }
}

/// Tangents of the piece p → q at its two ends; a missing neighbour is an end of the stroke or a corner.
///
/// Inside: the derivative at the middle of the parabola through three points at their chord lengths. At a free end: the
/// one that makes the end's curvature vanish.
fn tangents(before: Option<[f32; 2]>, p: [f32; 2], q: [f32; 2], after: Option<[f32; 2]>) -> ([f32; 2], [f32; 2]) {
    let chord = |a: [f32; 2], b: [f32; 2]| length(b[0] - a[0], b[1] - a[1]).max(1e-3);
    let here = chord(p, q);
    let inside = |a: [f32; 2], b: [f32; 2], c: [f32; 2]| {
        let (ab, bc) = (chord(a, b), chord(b, c));
        let slope = |k: usize| ((b[k] - a[k]) / ab * bc + (c[k] - b[k]) / bc * ab) / (ab + bc) * here;
        [slope(0), slope(1)]
    };
    let straight = [q[0] - p[0], q[1] - p[1]];
    let free = |other: [f32; 2]| [1.5 * straight[0] - 0.5 * other[0], 1.5 * straight[1] - 0.5 * other[1]];
    match (before.map(|a| inside(a, p, q)), after.map(|c| inside(p, q, c))) {
        (Some(start), Some(end)) => (start, end),
        (Some(start), None) => (start, free(start)),
        (None, Some(end)) => (free(end), end),
        (None, None) => (straight, straight),
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// The random affine map: width against height, slant, rotation. Who writes with a thick pen writes wider.
fn lean(path: &mut [Dot], pen: &Pen, hand: &mut Hand) {
    let wide = 1.0 + hand.bell(0.22) + 0.25 * (pen.radius - 1.3);
    let slant = 0.12 + hand.bell(0.24);
    // cos and sin of an angle of about 0.1 rad from the tangent of its half: exact arithmetic, no library sine.
    let half = hand.bell(0.07);
    let (cos, sin) = ((1.0 - half * half) / (1.0 + half * half), 2.0 * half / (1.0 + half * half));
    for dot in path {
        let (x, y) = (wide * (dot.x - 0.35) - slant * (dot.y - 0.5), dot.y - 0.5);
        (dot.x, dot.y) = (cos * x - sin * y, sin * x + cos * y);
    }
}

/// The elastic deformation: random displacements on a `GRID` × `GRID` grid, carried to the path by a uniform cubic
/// B-spline. A coarse grid bends the whole digit; a fine one is an unsteady hand.
fn bend<const GRID: usize>(path: &mut [Dot], strength: f32, hand: &mut Hand) {
    let mut shift = [[[0.0; 2]; GRID]; GRID];
    for cell in shift.as_flattened_mut() {
        *cell = [hand.bell(strength), hand.bell(strength)];
    }
    for dot in path {
        let (column, across) = spline_place(dot.x, GRID - 3);
        let (row, down) = spline_place(dot.y, GRID - 3);
        let mut moved = [0.0; 2];
        for (j, weight) in down.iter().enumerate() {
            for (i, other) in across.iter().enumerate() {
                let [dx, dy] = shift[row + j][column + i];
                moved[0] += weight * other * dx;
                moved[1] += weight * other * dy;
            }
        }
        dot.x += moved[0];
        dot.y += moved[1];
    }
}

/// First of the four control points that reach coordinate `x`, and their weights; `cells` cells cover [−½, ½].
fn spline_place(x: f32, cells: usize) -> (usize, [f32; 4]) {
    let place = ((x + 0.5) * cells as f32).clamp(0.0, cells as f32);
    let cell = (place as usize).min(cells - 1);
    let t = place - cell as f32;
    let s = 1.0 - t;
    let sixth = 1.0 / 6.0;
    let inner = |t: f32| (4.0 - 6.0 * t * t + 3.0 * t * t * t) * sixth;
    (cell, [s * s * s * sixth, inner(t), inner(s), t * t * t * sixth])
}

/// The pen of one image; lengths in pixels.
struct Pen {
    /// Half the width of a stroke at normal pressure.
    radius: f32,
    /// How much pressure varies along the path, relative.
    unsteady: f32,
    /// Width of the soft edge.
    soft: f32,
    /// Darkness of the ink: the grey value of a covered pixel, and a little more, since ink saturates.
    level: f32,
}

impl Pen {
    fn choose(hand: &mut Hand) -> Pen {
        let thick = hand.uniform();
        Pen {
            radius: 0.85 + 1.15 * thick * thick + hand.between(-0.1, 0.35),
            unsteady: hand.between(0.03, 0.22),
            soft: hand.between(1.0, 1.8),
            level: hand.between(249.0, 257.0),
        }
    }

    /// Sets the radius along the path: smooth pressure, and thin ends where the pen lands or lifts in flight.
    fn press(&self, path: &mut [Dot], hand: &mut Hand) {
        const KNOTS: usize = 6;
        let mut pressure = [0.0; KNOTS];
        pressure.fill_with(|| 1.0 + hand.bell(self.unsteady));
        let taper = hand.between(0.0, 0.45) * hand.uniform();
        let count = path.len();
        for i in 0..count {
            let place = i as f32 / count as f32 * (KNOTS - 1) as f32;
            let (knot, t) = (place as usize, place - place as usize as f32);
            let force = pressure[knot] + (pressure[knot + 1] - pressure[knot]) * t * t * (3.0 - 2.0 * t);
            let lifting = (0..4).find(|&k| path.get(i + k + 1).is_none_or(|next| !next.down));
            let thin = lifting.map_or(0.0, |k| taper * (4 - k) as f32 * 0.25);
            path[i].radius = (self.radius * force * (1.0 - thin)).max(0.4);
        }
    }

    /// Rasterises the path: a pixel is as bright as it lies deep inside the nearest piece's tapered outline.
    fn ink(&self, path: &[Dot], image: &mut [u8]) {
        let mut depth = [-8.0f32; PIXELS];
        for pair in path.windows(2).filter(|pair| pair[1].down) {
            self.cover(pair[0], pair[1], &mut depth);
        }
        for (pixel, depth) in image.iter_mut().zip(depth) {
            let t = (depth / self.soft + 0.5).clamp(0.0, 1.0);
            *pixel = (self.level * t * t * (3.0 - 2.0 * t)) as u8;
        }
    }

    /// Raises `depth` (radius − distance to the path) where the piece from `a` to `b` reaches.
    fn cover(&self, a: Dot, b: Dot, depth: &mut [f32; PIXELS]) {
        let reach = a.radius.max(b.radius) + 0.5 * self.soft;
        // Pixel i has its centre at i + ½; one row or column too many at either side does no harm.
        let range = |low: f32, high: f32| {
            let first = (low - reach).clamp(0.0, SIDE as f32) as usize;
            first..((high + reach).clamp(-1.0, SIDE as f32 - 1.0) + 1.0) as usize
        };
        let (columns, rows) = (range(a.x.min(b.x), a.x.max(b.x)), range(a.y.min(b.y), a.y.max(b.y)));
        let (dx, dy) = (b.x - a.x, b.y - a.y);
        let inverse = 1.0 / (dx * dx + dy * dy).max(1e-6);
        for row in rows {
            let y = row as f32 + 0.5 - a.y;
            for column in columns.clone() {
                let x = column as f32 + 0.5 - a.x;
                let t = ((x * dx + y * dy) * inverse).clamp(0.0, 1.0);
                let inside = a.radius + t * (b.radius - a.radius) - length(x - t * dx, y - t * dy);
                let pixel = &mut depth[row * SIDE + column];
                *pixel = if inside > *pixel { inside } else { *pixel };
            }
        }
    }
}

/// Moves the path from its own units to pixels: the longer side fills the box, the centre of mass is the image's.
fn place(path: &mut [Dot], pen: &Pen, hand: &mut Hand) {
    let mut low = [f32::MAX; 2];
    let mut high = [f32::MIN; 2];
    for dot in path.iter() {
        low = [low[0].min(dot.x), low[1].min(dot.y)];
        high = [high[0].max(dot.x), high[1].max(dot.y)];
    }
    let longer = (high[0] - low[0]).max(high[1] - low[1]).max(0.1);
    let scale = (BOX * hand.between(0.95, 1.0) - 2.0 * pen.radius) / longer;
    let centre = centre_of_mass(path);
    let middle = 0.5 * SIDE as f32;
    let mut offset = [0.0; 2];
    for axis in 0..2 {
        // The whole digit stays inside the image, a pixel from its border, however far out its mass lies.
        let margin = 1.0 + pen.radius;
        let free = (margin - scale * low[axis], SIDE as f32 - margin - scale * high[axis]);
        let wanted = middle - scale * centre[axis] + hand.bell(0.3);
        offset[axis] = wanted.max(free.0).min(free.1);
    }
    for dot in path {
        dot.x = scale * dot.x + offset[0];
        dot.y = scale * dot.y + offset[1];
    }
}

/// Mean position of the ink, each piece weighing its length times its width.
fn centre_of_mass(path: &[Dot]) -> [f32; 2] {
    let (mut mass, mut sum) = (1e-6, [0.0; 2]);
    for pair in path.windows(2).filter(|pair| pair[1].down) {
        let (a, b) = (pair[0], pair[1]);
        let weight = length(b.x - a.x, b.y - a.y) * (a.radius + b.radius);
        mass += weight;
        sum[0] += weight * 0.5 * (a.x + b.x);
        sum[1] += weight * 0.5 * (a.y + b.y);
    }
    [sum[0] / mass, sum[1] / mass]
}
