//! How people write the ten digits: a table of strokes.
//!
//! A digit has several [`Style`]s (a 7 with a bar, a 4 with an open top), a style has one to three pen strokes, and a
//! stroke runs through [`StrokeKey`] points. Every key point is given twice, in two extreme poses of the same style; a
//! writer's hand lies somewhere between the two. The box is 0 … 0.7 wide and 0 … 1 high, y pointing down.

/// A point the pen passes, in both poses of its style.
#[derive(Clone, Copy, Debug)]
pub(super) struct StrokeKey {
    /// (x, y) in the first pose.
    pub one: [f32; 2],
    /// (x, y) in the second pose.
    pub two: [f32; 2],
    /// The pen changes direction at once here; elsewhere the path is smooth.
    pub corner: bool,
}

/// One way of writing one digit.
pub(super) struct Style {
    /// How often, relative to the other styles of the digit.
    pub weight: f32,
    /// Pen strokes in writing order.
    pub strokes: &'static [&'static [StrokeKey]],
}

/// A smooth key point: (x, y) in pose one, (x, y) in pose two.
const fn go(x1: f32, y1: f32, x2: f32, y2: f32) -> StrokeKey {
    StrokeKey { one: [x1, y1], two: [x2, y2], corner: false }
}

/// A corner: as [`go`].
const fn turn(x1: f32, y1: f32, x2: f32, y2: f32) -> StrokeKey {
    StrokeKey { one: [x1, y1], two: [x2, y2], corner: true }
}

/// The styles of each digit.
pub(super) static STYLES: [&[Style]; 10] = [ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, NINE];

#[rustfmt::skip]
const ZERO: &[Style] = &[
    // An oval that closes where it began: upright, or leaning and round.
    Style { weight: 0.65, strokes: &[&[
        go(0.36, 0.01, 0.46, 0.04), go(0.13, 0.15, 0.16, 0.10), go(0.04, 0.50, -0.06, 0.45), go(0.15, 0.87, 0.02, 0.86),
        go(0.37, 0.99, 0.30, 0.99), go(0.58, 0.83, 0.64, 0.84), go(0.66, 0.47, 0.78, 0.47), go(0.56, 0.14, 0.66, 0.12),
        go(0.34, 0.02, 0.36, 0.02),
    ]] },
    // Begun inside at the top right, the end crossing over the start.
    Style { weight: 0.35, strokes: &[&[
        go(0.52, 0.14, 0.60, 0.22), go(0.36, 0.02, 0.40, 0.05), go(0.12, 0.20, 0.14, 0.12), go(0.02, 0.56, 0.00, 0.50),
        go(0.16, 0.92, 0.14, 0.90), go(0.38, 0.98, 0.40, 0.99), go(0.60, 0.74, 0.66, 0.78), go(0.64, 0.36, 0.72, 0.40),
        go(0.50, 0.08, 0.52, 0.06), go(0.26, 0.06, 0.22, -0.02),
    ]] },
];

#[rustfmt::skip]
const ONE: &[Style] = &[
    // A bare stroke, straight or slightly bowed.
    Style { weight: 0.62, strokes: &[&[go(0.36, 0.00, 0.36, 0.00), go(0.36, 0.50, 0.31, 0.48), go(0.34, 1.00, 0.36, 1.00)]] },
    // With a flag.
    Style { weight: 0.23, strokes: &[&[
        go(0.20, 0.22, 0.06, 0.34), turn(0.38, 0.00, 0.40, 0.00), go(0.38, 0.50, 0.37, 0.50), go(0.38, 1.00, 0.35, 1.00),
    ]] },
    // With a flag and a foot.
    Style { weight: 0.15, strokes: &[
        &[go(0.18, 0.20, 0.06, 0.30), turn(0.37, 0.00, 0.38, 0.00), go(0.37, 0.50, 0.36, 0.50), go(0.36, 0.97, 0.36, 0.97)],
        &[go(0.12, 0.98, 0.00, 0.99), go(0.58, 0.98, 0.74, 0.96)],
    ] },
];

#[rustfmt::skip]
const TWO: &[Style] = &[
    // A sharp corner at the lower left, then a flat foot.
    Style { weight: 0.45, strokes: &[&[
        go(0.06, 0.22, 0.02, 0.30), go(0.18, 0.05, 0.14, 0.07), go(0.40, 0.00, 0.40, 0.02), go(0.58, 0.18, 0.60, 0.24),
        go(0.48, 0.46, 0.50, 0.52), go(0.26, 0.73, 0.24, 0.80), turn(0.02, 0.96, -0.02, 1.00), go(0.34, 0.95, 0.36, 0.92),
        go(0.68, 0.96, 0.74, 0.98),
    ]] },
    // A loop at the lower left.
    Style { weight: 0.40, strokes: &[&[
        go(0.10, 0.20, 0.04, 0.30), go(0.26, 0.02, 0.22, 0.06), go(0.48, 0.05, 0.50, 0.05), go(0.54, 0.28, 0.58, 0.30),
        go(0.42, 0.60, 0.42, 0.64), go(0.22, 0.90, 0.20, 0.93), go(0.04, 0.94, -0.04, 0.96), go(0.04, 0.82, 0.00, 0.76),
        go(0.22, 0.80, 0.24, 0.77), go(0.46, 0.94, 0.46, 0.96), go(0.72, 0.90, 0.80, 0.84),
    ]] },
    // Angular, like a Z.
    Style { weight: 0.10, strokes: &[&[
        go(0.02, 0.14, 0.06, 0.06), go(0.28, 0.02, 0.30, 0.03), turn(0.60, 0.05, 0.62, 0.10), go(0.34, 0.48, 0.34, 0.56),
        turn(0.02, 0.96, 0.00, 0.98), go(0.70, 0.96, 0.72, 0.98),
    ]] },
    // Round at the foot: one wave, no corner.
    Style { weight: 0.13, strokes: &[&[
        go(0.04, 0.16, 0.10, 0.26), go(0.30, 0.00, 0.32, 0.00), go(0.56, 0.16, 0.54, 0.22), go(0.40, 0.50, 0.36, 0.52),
        go(0.14, 0.76, 0.10, 0.80), go(0.12, 0.96, 0.14, 0.99), go(0.40, 0.97, 0.44, 0.95), go(0.66, 0.90, 0.68, 0.82),
    ]] },
];

#[rustfmt::skip]
const THREE: &[Style] = &[
    // Two bows that meet in a point.
    Style { weight: 0.55, strokes: &[&[
        go(0.08, 0.14, 0.02, 0.10), go(0.30, 0.00, 0.28, 0.00), go(0.54, 0.14, 0.60, 0.16), go(0.46, 0.37, 0.46, 0.38),
        turn(0.26, 0.45, 0.18, 0.48), go(0.50, 0.52, 0.48, 0.50), go(0.62, 0.73, 0.66, 0.72), go(0.42, 0.97, 0.42, 0.98),
        go(0.04, 0.88, -0.02, 0.92),
    ]] },
    // A flat top and a slanting neck.
    Style { weight: 0.18, strokes: &[&[
        go(0.06, 0.04, 0.04, 0.02), turn(0.56, 0.03, 0.60, 0.00), turn(0.26, 0.38, 0.30, 0.42), go(0.50, 0.46, 0.54, 0.52),
        go(0.62, 0.72, 0.60, 0.78), go(0.38, 0.98, 0.34, 1.00), go(0.02, 0.90, 0.00, 0.86),
    ]] },
    // Bows of very different size, the lower one rolling in.
    Style { weight: 0.15, strokes: &[&[
        go(0.16, 0.22, 0.02, 0.16), go(0.34, 0.03, 0.26, -0.02), go(0.50, 0.16, 0.64, 0.18), go(0.36, 0.34, 0.42, 0.48),
        turn(0.22, 0.38, 0.20, 0.52), go(0.58, 0.50, 0.46, 0.56), go(0.66, 0.82, 0.54, 0.78), go(0.30, 1.00, 0.26, 0.98),
        go(0.06, 0.84, 0.02, 0.82), go(0.20, 0.74, 0.06, 0.72),
    ]] },
    // A small loop at the waist.
    Style { weight: 0.24, strokes: &[&[
        go(0.10, 0.10, 0.06, 0.18), go(0.36, 0.00, 0.36, 0.00), go(0.56, 0.16, 0.58, 0.14), go(0.42, 0.40, 0.40, 0.42),
        go(0.24, 0.48, 0.20, 0.50), go(0.24, 0.41, 0.18, 0.42), go(0.44, 0.47, 0.42, 0.45), go(0.62, 0.70, 0.62, 0.66),
        go(0.44, 0.96, 0.44, 0.96), go(0.10, 0.98, 0.02, 0.92),
    ]] },
];

#[rustfmt::skip]
const FOUR: &[Style] = &[
    // Open top, two strokes.
    Style { weight: 0.45, strokes: &[
        &[go(0.10, 0.04, 0.06, 0.12), go(0.05, 0.34, 0.06, 0.40), turn(0.04, 0.54, 0.12, 0.54), go(0.34, 0.53, 0.38, 0.50),
          go(0.64, 0.50, 0.64, 0.44)],
        &[go(0.56, 0.00, 0.62, 0.06), go(0.53, 0.50, 0.56, 0.50), go(0.52, 1.00, 0.46, 1.00)],
    ] },
    // Open and round, one stroke: up to the right, then down.
    Style { weight: 0.27, strokes: &[&[
        go(0.12, 0.02, 0.10, 0.10), go(0.04, 0.30, 0.04, 0.34), go(0.16, 0.50, 0.22, 0.50), go(0.44, 0.40, 0.46, 0.38),
        turn(0.58, 0.04, 0.64, 0.10), go(0.54, 0.55, 0.56, 0.55), go(0.50, 1.00, 0.46, 1.00),
    ]] },
    // A cup, and a short mast on its right rim.
    Style { weight: 0.12, strokes: &[
        &[go(0.06, 0.06, 0.02, 0.16), go(0.10, 0.40, 0.02, 0.48), go(0.34, 0.52, 0.36, 0.60), go(0.60, 0.34, 0.70, 0.46)],
        &[go(0.62, 0.10, 0.70, 0.00), go(0.58, 0.60, 0.58, 0.52), go(0.58, 1.00, 0.50, 1.00)],
    ] },
    // Closed: a triangle and a mast.
    Style { weight: 0.28, strokes: &[
        &[go(0.46, 0.00, 0.50, 0.04), turn(0.02, 0.60, 0.00, 0.54), go(0.36, 0.61, 0.36, 0.55), go(0.72, 0.60, 0.74, 0.56)],
        &[go(0.48, 0.00, 0.52, 0.04), go(0.48, 0.50, 0.48, 0.50), go(0.48, 1.00, 0.42, 1.00)],
    ] },
];

#[rustfmt::skip]
const FIVE: &[Style] = &[
    // Body first, the roof as a second stroke.
    Style { weight: 0.40, strokes: &[
        &[turn(0.16, 0.04, 0.18, 0.08), turn(0.12, 0.42, 0.10, 0.46), go(0.36, 0.38, 0.34, 0.40), go(0.60, 0.56, 0.56, 0.58),
          go(0.54, 0.86, 0.52, 0.86), go(0.30, 0.99, 0.26, 1.00), go(0.02, 0.90, 0.00, 0.92)],
        &[go(0.15, 0.03, 0.20, 0.06), go(0.62, 0.02, 0.74, -0.04)],
    ] },
    // One stroke from the roof's right end.
    Style { weight: 0.35, strokes: &[&[
        go(0.62, 0.00, 0.70, 0.04), turn(0.17, 0.03, 0.22, 0.04), turn(0.11, 0.41, 0.16, 0.44), go(0.34, 0.38, 0.36, 0.42),
        go(0.58, 0.58, 0.56, 0.62), go(0.50, 0.88, 0.46, 0.88), go(0.26, 1.00, 0.22, 1.00), go(0.02, 0.88, -0.04, 0.92),
    ]] },
    // A short neck, a broad belly, and a roof that does not touch.
    Style { weight: 0.15, strokes: &[
        &[go(0.20, 0.14, 0.12, 0.10), turn(0.16, 0.38, 0.10, 0.36), go(0.42, 0.34, 0.40, 0.32), go(0.66, 0.58, 0.66, 0.62),
          go(0.44, 0.94, 0.46, 0.98), go(0.04, 0.98, 0.08, 0.94)],
        &[go(0.26, 0.08, 0.24, 0.02), go(0.56, 0.04, 0.72, 0.08)],
    ] },
    // Rounded like an S.
    Style { weight: 0.25, strokes: &[&[
        go(0.66, 0.02, 0.76, 0.02), go(0.36, 0.04, 0.40, 0.05), go(0.17, 0.18, 0.20, 0.22), turn(0.19, 0.40, 0.22, 0.42),
        go(0.42, 0.50, 0.44, 0.54), go(0.50, 0.74, 0.48, 0.76), go(0.32, 0.98, 0.28, 0.98), go(0.00, 0.92, -0.04, 0.88),
    ]] },
];

#[rustfmt::skip]
const SIX: &[Style] = &[
    // A bow down into a round belly.
    Style { weight: 0.60, strokes: &[&[
        go(0.46, 0.00, 0.58, 0.02), go(0.22, 0.24, 0.24, 0.24), go(0.07, 0.60, 0.06, 0.62), go(0.16, 0.92, 0.20, 0.95),
        go(0.40, 0.97, 0.46, 0.94), go(0.58, 0.76, 0.60, 0.72), go(0.42, 0.55, 0.42, 0.56), go(0.20, 0.66, 0.22, 0.70),
        go(0.10, 0.82, 0.14, 0.86),
    ]] },
    // A straighter back and a small belly that closes early.
    Style { weight: 0.40, strokes: &[&[
        go(0.28, 0.00, 0.44, 0.00), go(0.14, 0.34, 0.22, 0.34), go(0.06, 0.70, 0.06, 0.68), go(0.18, 0.96, 0.16, 0.95),
        go(0.40, 0.94, 0.38, 0.98), go(0.54, 0.76, 0.54, 0.82), go(0.40, 0.62, 0.40, 0.66), go(0.20, 0.76, 0.14, 0.78),
    ]] },
    // The belly rolls in and ends inside.
    Style { weight: 0.22, strokes: &[&[
        go(0.44, 0.02, 0.66, 0.06), go(0.20, 0.20, 0.30, 0.16), go(0.04, 0.62, 0.04, 0.54), go(0.20, 0.98, 0.14, 0.92),
        go(0.52, 0.92, 0.48, 0.98), go(0.60, 0.64, 0.62, 0.70), go(0.38, 0.52, 0.44, 0.50), go(0.22, 0.64, 0.26, 0.58),
        go(0.30, 0.80, 0.30, 0.72),
    ]] },
];

#[rustfmt::skip]
const SEVEN: &[Style] = &[
    // A roof and a leg.
    Style { weight: 0.58, strokes: &[&[
        go(0.02, 0.08, 0.00, 0.04), turn(0.62, 0.04, 0.66, 0.06), go(0.48, 0.46, 0.42, 0.44), go(0.38, 1.00, 0.22, 1.00),
    ]] },
    // A hook at the left of the roof, which sags, and a round shoulder.
    Style { weight: 0.20, strokes: &[&[
        go(0.02, 0.26, 0.06, 0.18), turn(0.06, 0.06, 0.08, 0.04), go(0.34, 0.08, 0.34, 0.10), go(0.60, 0.03, 0.60, 0.06),
        go(0.56, 0.30, 0.54, 0.36), go(0.40, 0.64, 0.38, 0.66), go(0.32, 1.00, 0.28, 1.00),
    ]] },
    // A long roof that dips at its left end, and a leg that bends under it.
    Style { weight: 0.15, strokes: &[&[
        go(0.00, 0.20, -0.04, 0.10), go(0.20, 0.06, 0.24, 0.12), go(0.56, 0.08, 0.60, 0.02), go(0.66, 0.24, 0.66, 0.26),
        go(0.54, 0.60, 0.44, 0.60), go(0.48, 1.00, 0.44, 1.00),
    ]] },
    // With a bar.
    Style { weight: 0.22, strokes: &[
        &[go(0.02, 0.08, 0.02, 0.02), turn(0.62, 0.03, 0.68, 0.06), go(0.46, 0.46, 0.42, 0.42), go(0.32, 1.00, 0.22, 1.00)],
        &[go(0.20, 0.52, 0.12, 0.46), go(0.64, 0.48, 0.66, 0.50)],
    ] },
];

#[rustfmt::skip]
const EIGHT: &[Style] = &[
    // One stroke: an S down, then back up.
    Style { weight: 0.70, strokes: &[&[
        go(0.54, 0.14, 0.60, 0.10), go(0.36, 0.00, 0.40, 0.00), go(0.13, 0.15, 0.14, 0.17), go(0.24, 0.39, 0.28, 0.42),
        go(0.48, 0.58, 0.44, 0.60), go(0.56, 0.82, 0.52, 0.84), go(0.34, 1.00, 0.26, 1.00), go(0.10, 0.84, 0.06, 0.86),
        go(0.22, 0.60, 0.22, 0.62), go(0.46, 0.40, 0.48, 0.40), go(0.58, 0.20, 0.66, 0.18), go(0.50, 0.06, 0.56, 0.02),
    ]] },
    // Begun in the middle and left open at the top right.
    Style { weight: 0.20, strokes: &[&[
        go(0.58, 0.10, 0.64, 0.20), go(0.40, 0.00, 0.44, 0.02), go(0.14, 0.10, 0.10, 0.16), go(0.24, 0.36, 0.26, 0.42),
        go(0.54, 0.62, 0.56, 0.64), go(0.54, 0.92, 0.56, 0.94), go(0.26, 1.00, 0.26, 1.00), go(0.10, 0.84, 0.08, 0.80),
        go(0.34, 0.54, 0.36, 0.50), go(0.62, 0.26, 0.72, 0.06),
    ]] },
    // Two rings, one upon the other.
    Style { weight: 0.25, strokes: &[
        &[go(0.36, 0.46, 0.36, 0.42), go(0.14, 0.30, 0.16, 0.28), go(0.22, 0.05, 0.22, 0.06), go(0.44, 0.02, 0.44, 0.00),
          go(0.56, 0.22, 0.56, 0.18), go(0.38, 0.45, 0.38, 0.42)],
        &[go(0.38, 0.46, 0.34, 0.42), go(0.12, 0.60, 0.06, 0.62), go(0.12, 0.88, 0.12, 0.92), go(0.36, 1.00, 0.40, 1.00),
          go(0.58, 0.84, 0.64, 0.80), go(0.56, 0.60, 0.58, 0.56), go(0.38, 0.45, 0.36, 0.42)],
    ] },
];

#[rustfmt::skip]
const NINE: &[Style] = &[
    // A ring, then a straight tail.
    Style { weight: 0.45, strokes: &[&[
        go(0.56, 0.14, 0.52, 0.10), go(0.34, 0.02, 0.32, 0.02), go(0.10, 0.20, 0.06, 0.24), go(0.16, 0.44, 0.16, 0.46),
        go(0.38, 0.42, 0.38, 0.40), turn(0.58, 0.12, 0.58, 0.16), go(0.54, 0.54, 0.54, 0.58), go(0.50, 1.00, 0.44, 1.00),
    ]] },
    // A ring and a tail that swings to the left.
    Style { weight: 0.30, strokes: &[&[
        go(0.56, 0.12, 0.58, 0.18), go(0.32, 0.01, 0.36, 0.02), go(0.10, 0.22, 0.08, 0.22), go(0.22, 0.46, 0.22, 0.44),
        go(0.48, 0.36, 0.48, 0.34), turn(0.58, 0.10, 0.60, 0.14), go(0.60, 0.52, 0.64, 0.56), go(0.48, 0.92, 0.50, 0.94),
        go(0.26, 1.00, 0.22, 1.00), go(0.06, 0.90, 0.00, 0.86),
    ]] },
    // Open at the top, the tail crooked like that of a g.
    Style { weight: 0.15, strokes: &[&[
        go(0.48, 0.06, 0.52, 0.02), go(0.22, 0.06, 0.20, 0.08), go(0.08, 0.30, 0.04, 0.30), go(0.26, 0.44, 0.30, 0.42),
        turn(0.56, 0.06, 0.56, 0.14), go(0.56, 0.56, 0.60, 0.60), go(0.44, 0.90, 0.50, 0.98), go(0.22, 0.98, 0.20, 1.02),
        go(0.16, 0.84, 0.08, 0.80),
    ]] },
    // Without lifting or turning: the ring flows into the tail.
    Style { weight: 0.25, strokes: &[&[
        go(0.46, 0.34, 0.50, 0.36), go(0.26, 0.48, 0.26, 0.48), go(0.08, 0.32, 0.06, 0.30), go(0.20, 0.06, 0.22, 0.05),
        go(0.46, 0.04, 0.48, 0.03), go(0.54, 0.26, 0.60, 0.28), go(0.46, 0.66, 0.50, 0.68), go(0.32, 1.00, 0.30, 1.00),
    ]] },
];
