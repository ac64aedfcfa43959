//! The matrix product.
//!
//! ```text
//! Y = A·B        Y[i,j] = Σ_k A[i,k] B[k,j]          A [m, k], B [k, n], Y [m, n]
//! dA = dY·Bᵀ     ∂L/∂A[i,k] = Σ_j dY[i,j] B[k,j]     [m, n]·[n, k]
//! dB = Aᵀ·dY     ∂L/∂B[k,j] = Σ_i A[i,k] dY[i,j]     [k, m]·[m, n]
//! ```
//!
//! Derivation: L depends on `A[i,k]` only through row i of Y, with `∂Y[i,j]/∂A[i,k] = B[k,j]`; sum over j. The same for B.
//! Transposition is a flag of the product, never a copy, and the rule below closes over all four combinations: if A
//! entered transposed, its gradient is the transpose of the above, which is again a product with flags.

use super::{Cotangents, Op, OpRule};
use crate::engine::graph::Var;
use crate::engine::math::Real;
use crate::engine::shape::Shape;

impl<'g> Var<'g> {
    /// The matrix product self·other, [m, k]·[k, n] → [m, n].
    #[track_caller]
    pub fn matmul(self, other: Var<'g>) -> Var<'g> {
        self.matmul_t(false, other, false)
    }

    /// op(self)·op(other), each transposed if its flag is set. No copy is made.
    ///
    /// # Panics
    /// When an operand is not a matrix, or the inner sizes differ.
    #[track_caller]
    pub fn matmul_t(self, ta: bool, other: Var<'g>, tb: bool) -> Var<'g> {
        self.meets("matmul", other);
        let (a, b) = (self.shape(), other.shape());
        let both = || format!("{} and {}", self.made(), other.made());
        assert!(a.len() == 2 && b.len() == 2, "matmul needs two matrices, not {}", both());
        let (m, ka) = if ta { (a[1], a[0]) } else { (a[0], a[1]) };
        let (kb, n) = if tb { (b[1], b[0]) } else { (b[0], b[1]) };
        let mark = |t: bool| if t { "ᵀ" } else { "" };
        assert!(ka == kb, "matmul: inner sizes of {a}{} and {b}{} are {ka} and {kb}: {}", mark(ta), mark(tb), both());
        let g = self.graph();
        g.push(Op::MatMul { ta, tb }, &[self, other], Shape::new(&[m, n]))
    }
}

pub(super) fn vjp(ta: bool, tb: bool, c: &mut Cotangents<'_, '_>) {
    let (a, b, dy) = (c.x(0), c.x(1), c.dy);
    // d op(A) = dY·op(B)ᵀ; if A entered transposed, dA = (d op(A))ᵀ = op(B)·dYᵀ.
    let da = if ta { b.matmul_t(tb, dy, true) } else { dy.matmul_t(false, b, !tb) };
    let db = if tb { dy.matmul_t(true, a, ta) } else { a.matmul_t(!ta, dy, false) };
    c.give(0, da);
    c.give(1, db);
}

pub(super) fn rule(ta: bool, tb: bool) -> OpRule {
    let (value, da, db) = match (ta, tb) {
        (false, false) => ("a·b", "dy·bᵀ", "aᵀ·dy"),
        (false, true) => ("a·bᵀ", "dy·b", "dyᵀ·a"),
        (true, false) => ("aᵀ·b", "b·dyᵀ", "a·dy"),
        (true, true) => ("aᵀ·bᵀ", "bᵀ·dyᵀ", "dyᵀ·aᵀ"),
    };
    OpRule::new(value, &[("a", da), ("b", db)])
}

pub(super) fn eval<F: Real>(ta: bool, tb: bool, shapes: &[Shape], ins: &[&[F]]) -> Vec<F> {
    let (sa, sb) = (shapes[0], shapes[1]);
    let (m, k) = if ta { (sa[1], sa[0]) } else { (sa[0], sa[1]) };
    let n = if tb { sb[0] } else { sb[1] };
    let at = |i: usize, l: usize| ins[0][if ta { l * m + i } else { i * k + l }];
    let mut out = vec![F::default(); m * n];
    // Some rows at a time, so that a row of B is read once for all of them. The order of each sum is that of k.
    for (block, rows) in out.chunks_mut(ROWS * n.max(1)).enumerate() {
        for l in 0..k {
            for (i, row) in rows.chunks_exact_mut(n.max(1)).enumerate() {
                let a = at(block * ROWS + i, l);
                if tb {
                    row.iter_mut().enumerate().for_each(|(j, y)| *y = *y + a * ins[1][j * k + l]);
                } else {
                    row.iter_mut().zip(&ins[1][l * n..][..n]).for_each(|(y, &b)| *y = *y + a * b);
                }
            }
        }
    }
    out
}

/// Rows of the product that [`eval`] works on at a time.
const ROWS: usize = 8;
