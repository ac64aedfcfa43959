//! Operations that move elements and compute nothing: each one's gradient moves them back.
//!
//! ```text
//! reshape        dx = dy reshaped back
//! transpose      dx = dyᵀ
//! slice columns  dx = dy between zeros          (pad is the transpose of slice)
//! concat columns da, db = the column blocks of dy
//! gather rows    dtable[r] = Σ over the i with index[i] = r of dy[i]     (in order of i: deterministic)
//! pick           dx[r, index[r]] = dy[r], 0 elsewhere        (place is the transpose of pick)
//! stop_gradient  nothing: the value is a constant to the reverse pass
//! ```

use std::panic::Location;

use super::{Cotangents, Op, OpRule};
use crate::engine::error::Error;
use crate::engine::graph::{Graph, Node, Var};
use crate::engine::math::Real;
use crate::engine::shape::Shape;

impl<'g> Var<'g> {
    /// The same elements, row-major, in another shape.
    ///
    /// # Panics
    /// When the number of elements differs.
    #[track_caller]
    pub fn reshape(self, shape: &[usize]) -> Var<'g> {
        let (from, to) = (self.shape(), Shape::new(shape));
        assert!(
            from.size() == to.size(),
            "reshape to {to} ({} elements) of {} ({})",
            to.size(),
            self.made(),
            from.size()
        );
        if from == to {
            return self;
        }
        let g = self.graph();
        let node = g.node(self.id());
        let source = if node.op == Op::Reshape { g.var(node.ins[0]) } else { self };
        if source.shape() == to { source } else { g.push(Op::Reshape, &[source], to) }
    }

    /// The transpose of a matrix. In front of a product use the flags of [`Var::matmul_t`] instead.
    ///
    /// # Panics
    /// When the value is not a matrix.
    #[track_caller]
    pub fn t(self) -> Var<'g> {
        let s = self.shape();
        assert!(s.len() == 2, "t() needs a matrix, not {}", self.made());
        let g = self.graph();
        let node = g.node(self.id());
        if node.op == Op::Transpose {
            return g.var(node.ins[0]);
        }
        g.push(Op::Transpose, &[self], Shape::new(&[s[1], s[0]]))
    }

    /// Columns `start .. start + len` of the last dimension.
    #[track_caller]
    pub fn slice_cols(self, start: usize, len: usize) -> Var<'g> {
        let s = self.shape();
        assert!(!s.is_empty(), "slice_cols of the scalar {}", self.made());
        let cols = s[s.len() - 1];
        assert!(start + len <= cols, "columns {start}..{} of {}", start + len, self.made());
        if len == cols {
            return self;
        }
        let g = self.graph();
        g.push(Op::SliceCols(start as u32), &[self], with_cols(s, len))
    }

    /// This value as columns `start …` of a value with `cols` columns, zero elsewhere.
    #[track_caller]
    pub(crate) fn pad_cols(self, start: usize, cols: usize) -> Var<'g> {
        let g = self.graph();
        g.push(Op::PadCols(start as u32), &[self], with_cols(self.shape(), cols))
    }

    /// Rows of this table `[n, columns]` by `index`, a vector of whole numbers in 0..n; the result is
    /// `[index length, columns]`. An index out of range fails when the graph runs.
    #[track_caller]
    pub fn gather_rows(self, index: Var<'g>) -> Var<'g> {
        let (t, i) = (self.shape(), index.shape());
        let both = || format!("{} and {}", self.made(), index.made());
        assert!(t.len() == 2 && i.len() == 1, "gather_rows needs a table and a vector of indices, not {}", both());
        let g = self.graph();
        g.push(Op::GatherRows, &[self, index], Shape::new(&[i[0], t[1]]))
    }

    /// Sums the rows of this value `[m, columns]` into a table of `rows` rows by `index`: the transpose of gathering.
    #[track_caller]
    pub fn scatter_rows(self, index: Var<'g>, rows: usize) -> Var<'g> {
        let (s, i) = (self.shape(), index.shape());
        let both = || format!("{} and {}", self.made(), index.made());
        let fits = s.len() == 2 && i.len() == 1 && s[0] == i[0];
        assert!(fits, "scatter_rows needs a matrix and an index for each of its rows, not {}", both());
        let g = self.graph();
        g.push(Op::ScatterRows, &[self, index], Shape::new(&[rows, s[1]]))
    }

    /// One element of each row, along the last axis: `y[r] = x[r, index[r]]`, for `index` of this value's shape without its
    /// last dimension, or with 1 in its place. An index that is no column fails when the graph runs.
    ///
    /// Of [`Var::log_softmax`] it is the log-likelihood of a class: `-logits.log_softmax(1).pick(labels).mean_all()` is the
    /// loss of a classifier.
    ///
    /// # Panics
    /// When `index` has another shape.
    #[track_caller]
    pub fn pick(self, index: Var<'g>) -> Var<'g> {
        let (s, i) = (self.shape(), index.shape());
        let both = || format!("{} and {}", self.made(), index.made());
        let lead = s.split_last().map(|(_, lead)| lead).unwrap_or_else(|| panic!("pick of the scalar {}", self.made()));
        let column = i.split_last().is_some_and(|(&last, rows)| last == 1 && rows == lead);
        let (one, other) = (Shape::new(lead), Shape::new(&[lead, &[1]].concat()));
        assert!(
            *i == *lead || column,
            "pick needs an index for each row of a value, of shape {one} or {other}, not {}",
            both()
        );
        let (rows, cols) = s.matrix();
        let g = self.graph();
        let (x, index) = (self.reshape(&[rows, cols]), index.reshape(&[rows]));
        g.push(Op::Pick, &[x, index], Shape::new(&[rows])).reshape(lead)
    }

    /// The value, treated as a constant by the reverse pass.
    #[track_caller]
    pub fn stop_gradient(self) -> Var<'g> {
        let g = self.graph();
        g.push(Op::StopGradient, &[self], self.shape())
    }
}

impl Graph {
    /// Values side by side along the last dimension; all other dimensions agree.
    ///
    /// # Panics
    /// When `parts` is empty or their rows differ.
    #[track_caller]
    pub fn concat_cols<'g>(&'g self, parts: &[Var<'g>]) -> Var<'g> {
        let (&first, rest) = parts.split_first().expect("concat_cols needs at least one value");
        self.owns("concat_cols", first);
        let mut whole = first;
        for &part in rest {
            self.owns("concat_cols", part);
            let (like, s) = (first.shape(), part.shape());
            let fits = !like.is_empty() && like.len() == s.len() && with_cols(like, s.matrix().1) == s;
            assert!(fits, "concat_cols: more than the columns differ, {} and {}", first.made(), part.made());
            let cols = whole.shape().matrix().1 + s.matrix().1;
            whole = self.push(Op::ConcatCols, &[whole, part], with_cols(s, cols));
        }
        whole
    }
}

fn with_cols(s: Shape, cols: usize) -> Shape {
    let mut dims = s.to_vec();
    *dims.last_mut().expect("a value with columns") = cols;
    Shape::new(&dims)
}

/// Two padded values that fill complementary columns add up to a concatenation: what the gradients of
/// `mu, logvar = heads.slice_cols(…)` come to.
pub(super) fn merge_padded<'g>(a: Var<'g>, b: Var<'g>) -> Option<Var<'g>> {
    let g = a.graph();
    let (na, nb) = (g.node(a.id()), g.node(b.id()));
    let (Op::PadCols(sa), Op::PadCols(sb)) = (na.op, nb.op) else { return None };
    let (left, right, start) = if sa < sb { (na, nb, sb) } else { (nb, na, sa) };
    let (xl, xr) = (g.var(left.ins[0]), g.var(right.ins[0]));
    let (cl, cr) = (xl.shape().matrix().1, xr.shape().matrix().1);
    let complementary = sa.min(sb) == 0 && cl == start as usize && cl + cr == na.shape.matrix().1;
    complementary.then(|| g.concat_cols(&[xl, xr]))
}

pub(super) fn vjp(op: Op, c: &mut Cotangents<'_, '_>) {
    let (x, dy) = (c.x(0), c.dy);
    let cols = x.shape().matrix().1;
    match op {
        Op::Reshape => c.give(0, dy.reshape(&x.shape())),
        Op::Transpose => c.give(0, dy.t()),
        Op::SliceCols(start) => c.give(0, dy.pad_cols(start as usize, cols)),
        Op::PadCols(start) => c.give(0, dy.slice_cols(start as usize, cols)),
        Op::ConcatCols => {
            let right = c.x(1).shape().matrix().1;
            c.give(0, dy.slice_cols(0, cols));
            c.give(1, dy.slice_cols(cols, right));
        }
        // By the same indices: a bad one is told with the line of the operation, even if that itself is not computed.
        Op::GatherRows | Op::ScatterRows | Op::Pick | Op::Place => {
            let back = match op {
                Op::GatherRows => Op::ScatterRows,
                Op::ScatterRows => Op::GatherRows,
                Op::Pick => Op::Place,
                _ => Op::Pick,
            };
            let at = c.graph.node(c.y.id()).at;
            c.give(0, c.graph.push_at(back, &[dy, c.x(1)], x.shape(), at));
        }
        _ => unreachable!("{op:?} moves no elements"),
    }
}

pub(super) fn reshape_rule() -> OpRule {
    OpRule::new("x in another shape", &[("x", "dy in the shape of x")])
}

pub(super) fn transpose_rule() -> OpRule {
    OpRule::new("xᵀ", &[("x", "dyᵀ")])
}

pub(super) fn slice_rule() -> OpRule {
    OpRule::new("columns of x", &[("x", "dy between columns of zeros")])
}

pub(super) fn pad_rule() -> OpRule {
    OpRule::new("x between columns of zeros", &[("x", "the columns of dy where x stands")])
}

pub(super) fn concat_rule() -> OpRule {
    OpRule::new("a and b side by side", &[("a", "the left columns of dy"), ("b", "the right columns of dy")])
}

pub(super) fn gather_rule() -> OpRule {
    OpRule::new("x[index], row by row", &[("x", "row r: Σ dy[i] over the i with index[i] = r"), ("index", "0")])
}

pub(super) fn scatter_rule() -> OpRule {
    OpRule::new("row r: Σ x[i] over the i with index[i] = r", &[("x", "dy[index], row by row"), ("index", "0")])
}

pub(super) fn pick_rule() -> OpRule {
    OpRule::new("x[r, index[r]] of each row r", &[("x", "dy[r] at [r, index[r]], 0 elsewhere"), ("index", "0")])
}

pub(super) fn place_rule() -> OpRule {
    OpRule::new("x[r] at [r, index[r]], 0 elsewhere", &[("x", "dy[r, index[r]] of each row r"), ("index", "0")])
}

pub(super) fn stop_rule() -> OpRule {
    OpRule::new("x, a constant to the walk back", &[("x", "0")])
}

/// The row or column, of `n`, whose number is held as a real number.
fn whole_index(value: f64, n: usize) -> Option<usize> {
    (value >= 0.0 && value < n as f64 && value.fract() == 0.0).then_some(value as usize)
}

/// What looks something up by index: where it was made, and how many rows or columns there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lookup {
    /// The node's number. Of those that meet a bad index in a step the first made is reported: the others are its gradient.
    pub node: usize,
    /// The node of the indices.
    pub indices: usize,
    pub op: &'static str,
    pub at: &'static Location<'static>,
    pub below: usize,
}

impl Lookup {
    /// That `index`, the `row`-th of all, is none.
    pub fn fails(&self, row: usize, index: f64) -> Error {
        let Lookup { op, at, below, .. } = *self;
        Error::Index { op, at, row, index, below }
    }
}

/// How node number `id` looks something up, if it does.
pub(crate) fn lookup(id: usize, node: &Node, x: Shape) -> Option<Lookup> {
    let below = match node.op {
        Op::GatherRows => x[0],
        Op::ScatterRows => node.shape[0],
        Op::Pick => x[1],
        Op::Place => node.shape[1],
        _ => return None,
    };
    let op = if node.op == Op::Place { Op::Pick } else { node.op }.name();
    Some(Lookup { node: id, indices: node.ins[1].index(), op, at: node.at, below })
}

/// The first of the indices that names no row or column.
pub(crate) fn bad_index<F: Real>(lookup: Lookup, indices: &[F]) -> Option<Error> {
    let all = indices.iter().map(|index| index.to_f64()).enumerate();
    all.into_iter()
        .find(|&(_, index)| whole_index(index, lookup.below).is_none())
        .map(|(row, index)| lookup.fails(row, index))
}

/// What [`bad_index`]es name is read as zeros, and not written.
pub(super) fn eval<F: Real>(node: &Node, shapes: &[Shape], ins: &[&[F]]) -> Vec<F> {
    let x = ins[0];
    let (rows, cols) = node.shape.matrix();
    let from = shapes[0].matrix().1;
    let mut out = vec![F::default(); node.shape.size()];
    match node.op {
        Op::Reshape | Op::StopGradient | Op::CustomVjp(_) => out.copy_from_slice(x),
        Op::Transpose => (0..rows * cols).for_each(|i| out[i] = x[i % cols * from + i / cols]),
        Op::SliceCols(start) => {
            let start = start as usize;
            (0..rows).for_each(|r| out[r * cols..][..cols].copy_from_slice(&x[r * from + start..][..cols]));
        }
        Op::PadCols(start) => {
            let start = start as usize;
            (0..rows).for_each(|r| out[r * cols + start..][..from].copy_from_slice(&x[r * from..][..from]));
        }
        Op::ConcatCols => {
            let right = cols - from;
            for (r, row) in out.chunks_exact_mut(cols.max(1)).enumerate() {
                row[..from].copy_from_slice(&x[r * from..][..from]);
                row[from..].copy_from_slice(&ins[1][r * right..][..right]);
            }
        }
        Op::GatherRows => {
            for (r, row) in out.chunks_exact_mut(cols.max(1)).enumerate() {
                if let Some(i) = whole_index(ins[1][r].to_f64(), shapes[0][0]) {
                    row.copy_from_slice(&x[i * cols..][..cols]);
                }
            }
        }
        Op::ScatterRows => {
            for (r, row) in x.chunks_exact(cols.max(1)).enumerate() {
                if let Some(i) = whole_index(ins[1][r].to_f64(), rows) {
                    out[i * cols..][..cols].iter_mut().zip(row).for_each(|(o, &v)| *o = *o + v);
                }
            }
        }
        Op::Pick => {
            for (r, y) in out.iter_mut().enumerate() {
                *y = whole_index(ins[1][r].to_f64(), from).map_or(F::default(), |i| x[r * from + i]);
            }
        }
        Op::Place => {
            for (r, row) in out.chunks_exact_mut(cols.max(1)).enumerate() {
                if let Some(i) = whole_index(ins[1][r].to_f64(), cols) {
                    row[i] = x[r];
                }
            }
        }
        _ => unreachable!("{:?} moves no elements", node.op),
    }
    out
}
