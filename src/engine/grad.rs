//! Differentiation: a graph-to-graph function.
//!
//! The chain rule in reverse. For L = f(x) computed by nodes 0 … n in topological order, start with ∂L/∂n = 1 and walk
//! down: when node y = op(a, b) is reached, every user of y has been visited, so its cotangent dy = ∂L/∂y is complete,
//! and op's rule turns it into contributions to ∂L/∂a and ∂L/∂b:
//!
//! ```text
//! ∂L/∂a = Σ over the uses y of a of (∂y/∂a)ᵀ ∂L/∂y
//! ```
//!
//! The first contribution is stored, later ones are added: there is no array of zeros. Only nodes on a path from
//! `wrt` to `y` take part. The result is made of ordinary nodes, so a gradient of a gradient needs nothing more.

use crate::engine::graph::{Id, Var};
use crate::engine::ops::{self, Cotangents};

/// ∂y/∂x for every x in `wrt`, for a scalar `y`; zeros where y does not depend on x.
///
/// # Panics
/// When `y` is not a scalar: use [`grad_with`] for other shapes.
#[track_caller]
pub fn grad<'g>(y: Var<'g>, wrt: &[Var<'g>]) -> Vec<Var<'g>> {
    assert!(y.shape().size() == 1, "grad of a value of shape {}, which is not a scalar; use grad_with", y.shape());
    grad_with(y, y.graph().full(&y.shape(), 1.0), wrt)
}

/// The vector-Jacobian product: Σᵢ dyᵢ ∂yᵢ/∂x for every x in `wrt`.
///
/// # Panics
/// When `dy` has not the shape of `y`.
#[track_caller]
pub fn grad_with<'g>(y: Var<'g>, dy: Var<'g>, wrt: &[Var<'g>]) -> Vec<Var<'g>> {
    assert_eq!(y.shape(), dy.shape(), "grad_with: y and its cotangent dy");
    let g = y.graph();
    wrt.iter().chain([&dy]).for_each(|x| y.meets("grad", *x));
    let on_path = depends_on(y, wrt);
    let mut cotangent: Vec<Option<Var<'g>>> = vec![None; y.id().index() + 1];
    cotangent[y.id().index()] = Some(dy);
    let mut out = Vec::new();
    for i in (0..=y.id().index()).rev() {
        let (true, Some(dy)) = (on_path[i], cotangent[i]) else { continue };
        let node = g.node(Id(i as u32));
        let y = g.var(Id(i as u32));
        ops::vjp(&node, &mut Cotangents { graph: g, ins: &node.ins, y, dy, out: &mut out });
        for (input, dx) in out.drain(..) {
            let sum = &mut cotangent[input.index()];
            *sum = Some(sum.map_or(dx, |earlier| earlier + dx));
        }
    }
    let of = |x: &Var<'g>| cotangent.get(x.id().index()).copied().flatten();
    wrt.iter().map(|x| of(x).unwrap_or_else(|| g.full(&x.shape(), 0.0))).collect()
}

/// Which nodes up to `y` depend on any of `wrt`.
fn depends_on(y: Var<'_>, wrt: &[Var<'_>]) -> Vec<bool> {
    let g = y.graph();
    let mut depends = vec![false; y.id().index() + 1];
    for x in wrt.iter().filter(|x| x.id() <= y.id()) {
        depends[x.id().index()] = true;
    }
    for i in 0..depends.len() {
        depends[i] |= g.node(Id(i as u32)).ins.iter().any(|input| depends[input.index()]);
    }
    depends
}

/// The Hessian-vector product: H v for H = ∂²y/∂x², by differentiating Σ ⟨∂y/∂x, v⟩ once more (Pearlmutter 1994).
/// One pair (x, v) each; costs about as much as two gradients, and H is never formed.
///
/// # Panics
/// When `y` is not a scalar, or the lists differ in length or shapes.
#[track_caller]
pub fn hvp<'g>(y: Var<'g>, wrt: &[Var<'g>], v: &[Var<'g>]) -> Vec<Var<'g>> {
    assert_eq!(wrt.len(), v.len(), "hvp: one direction per variable");
    let inner = grad(y, wrt).into_iter().zip(v).map(|(dx, &v)| {
        assert_eq!(dx.shape(), v.shape(), "hvp: a direction has the shape of its variable");
        (dx * v).sum_all()
    });
    match inner.reduce(|a, b| a + b) {
        Some(along) => grad(along, wrt),
        None => Vec::new(),
    }
}
