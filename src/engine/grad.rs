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
    assert!(y.shape().size() == 1, "grad of {}, which is not a scalar; use grad_with", y.made());
    grad_with(y, y.graph().full(&y.shape(), 1.0), wrt)
}

/// The vector-Jacobian product: Σᵢ dyᵢ ∂yᵢ/∂x for every x in `wrt`.
///
/// # Panics
/// When `dy` has not the shape of `y`.
#[track_caller]
pub fn grad_with<'g>(y: Var<'g>, dy: Var<'g>, wrt: &[Var<'g>]) -> Vec<Var<'g>> {
    walk_back(y, dy, wrt, |_, _, _| ())
}

/// One stop on the way back: a node whose every user has been visited.
#[derive(Clone, Debug)]
pub struct WalkStep<'g> {
    /// y, the node.
    pub node: Var<'g>,
    /// dy = ∂L/∂y, complete.
    pub cotangent: Var<'g>,
    /// What it hands on to its inputs, in the order in which the rule gives it; to an input that stands there twice, twice.
    /// Inputs that depend on no variable of the differentiation are left out: what arrives there goes nowhere.
    pub contributions: Vec<Contribution<'g>>,
}

/// What one use of an input adds to its cotangent.
#[derive(Clone, Copy, Debug)]
pub struct Contribution<'g> {
    /// The input x.
    pub input: Var<'g>,
    /// Which of the node's inputs it is, from 0.
    pub position: usize,
    /// (∂y/∂x)ᵀ dy.
    pub value: Var<'g>,
    /// The sum of all contributions to x so far, with this one.
    pub sum: Var<'g>,
}

/// The walk of reverse mode as data, from `y` back, and the gradients it ends with.
#[derive(Clone, Debug)]
pub struct Walk<'g> {
    /// Every node that was visited, in order.
    pub steps: Vec<WalkStep<'g>>,
    /// ∂L/∂x for each variable, as [`grad_with`] gives it.
    pub gradients: Vec<Var<'g>>,
}

/// [`grad_with`], written down: the same nodes are pushed in the same order, and every step is kept.
///
/// ```
/// use elbo::engine::grad::walk;
/// use elbo::{Graph, Interp, grad};
/// let g = Graph::new();
/// let x = g.tensor(&[], &[3.0]);
/// let y = x.square() * x;
/// let walked = walk(y, g.constant(1.0), &[x]);
/// // x is used by the product and by the square: its cotangent is a sum of two, x² + 2x·x.
/// let to_x: Vec<_> = walked.steps.iter().flat_map(|s| &s.contributions).filter(|c| c.input.id() == x.id()).collect();
/// let mut run = Interp::<f64>::new(&g);
/// assert_eq!(to_x.iter().map(|c| run.eval(c.value)[0]).collect::<Vec<_>>(), [9.0, 18.0]);
/// assert_eq!(run.eval(to_x[1].sum), [27.0]);
/// assert_eq!(walked.gradients[0].id(), grad(y, &[x])[0].id());
/// ```
///
/// # Panics
/// As [`grad_with`].
#[track_caller]
pub fn walk<'g>(y: Var<'g>, dy: Var<'g>, wrt: &[Var<'g>]) -> Walk<'g> {
    let mut steps: Vec<WalkStep<'g>> = Vec::new();
    let gradients = walk_back(y, dy, wrt, |node, cotangent, contribution| match contribution {
        None => steps.push(WalkStep { node, cotangent, contributions: Vec::new() }),
        Some(c) => steps.last_mut().expect("a node gives after it is reached").contributions.push(c),
    });
    Walk { steps, gradients }
}

/// The walk. `visit` is told every node that is reached, with its complete cotangent, and then each of its contributions.
#[track_caller]
fn walk_back<'g>(
    y: Var<'g>,
    dy: Var<'g>,
    wrt: &[Var<'g>],
    mut visit: impl FnMut(Var<'g>, Var<'g>, Option<Contribution<'g>>),
) -> Vec<Var<'g>> {
    let g = y.graph();
    for x in wrt.iter().chain([&dy]) {
        y.meets("grad", *x);
    }
    y.has_shape_of("grad_with: y and its cotangent dy", dy);
    let on_path = depends_on(y, wrt);
    let mut cotangent: Vec<Option<Var<'g>>> = vec![None; y.id().index() + 1];
    cotangent[y.id().index()] = Some(dy);
    let mut out = Vec::new();
    for i in (0..=y.id().index()).rev() {
        let (true, Some(dy)) = (on_path[i], cotangent[i]) else { continue };
        let id = Id(i as u32);
        visit(g.var(id), dy, None);
        let ins = g.differentiated(id);
        ops::vjp(&g.node(id), &mut Cotangents { graph: g, ins: &ins, y: g.var(id), dy, out: &mut out });
        for (position, value) in out.drain(..) {
            let input = ins[position];
            let slot = &mut cotangent[input.index()];
            let sum = slot.map_or(value, |earlier| earlier + value);
            *slot = Some(sum);
            if on_path[input.index()] {
                let input = g.var(input);
                visit(g.var(id), dy, Some(Contribution { input, position, value, sum }));
            }
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
        depends[i] |= g.differentiated(Id(i as u32)).iter().any(|input| depends[input.index()]);
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
    match inner("hvp", &grad(y, wrt), wrt, v) {
        Some(along) => grad(along, wrt),
        None => Vec::new(),
    }
}

/// The Jacobian-vector product, the derivative of `y` along a direction: J v = Σ (∂y/∂x) v over the pairs (x, v) of `wrt`
/// and `v`, with the shape of `y`. What forward mode computes, by two reverse passes (Townsend 2017, "A new trick for
/// calculating Jacobian vector products"): g(u) = Jᵀu is linear in the cotangent u, so that
///
/// ```text
/// d/du ⟨g(u), v⟩ = d/du ⟨u, J v⟩ = J v        whatever u is
/// ```
///
/// The value of u is never needed and the nodes that would compute Jᵀu from it are dropped with all dead code: J v costs
/// about as much as one to two evaluations of `y`, for any number of inputs. Use it where `y` has many elements and there
/// are few directions; [`grad`] and [`grad_with`] where it is the other way round.
///
/// ```
/// use elbo::{jvp, Graph, Interp};
/// let g = Graph::new();
/// let x = g.tensor(&[3], &[1.0, 2.0, 3.0]);
/// let v = g.tensor(&[3], &[1.0, 0.0, -1.0]);
/// let along = jvp(x.square() * x.sum_all(), &[x], &[v]); // 2x·v Σx + x² Σv
/// assert_eq!(Interp::<f64>::new(&g).eval(along), [12.0, 0.0, -36.0]);
/// ```
///
/// # Panics
/// When the lists differ in length or shapes.
#[track_caller]
pub fn jvp<'g>(y: Var<'g>, wrt: &[Var<'g>], v: &[Var<'g>]) -> Var<'g> {
    let g = y.graph();
    // A fresh array is folded into nothing and equals no other node, so that products of products stay apart.
    let u = g.tensor(&y.shape(), &vec![0.0; y.shape().size()]);
    match inner("jvp", &grad_with(y, u, wrt), wrt, v) {
        Some(along) => grad(along, &[u])[0],
        None => g.full(&y.shape(), 0.0),
    }
}

/// Σ ⟨dx, v⟩ over the gradients `dx` of `wrt`; `None` for empty lists.
#[track_caller]
fn inner<'g>(what: &str, dx: &[Var<'g>], wrt: &[Var<'g>], v: &[Var<'g>]) -> Option<Var<'g>> {
    assert!(wrt.len() == v.len(), "{what}: {} variables and {} directions", wrt.len(), v.len());
    let mut sum = None;
    for ((x, v), dx) in wrt.iter().zip(v).zip(dx) {
        x.meets(what, *v);
        x.has_shape_of(&format!("{what}: a variable and its direction"), *v);
        let product = (*dx * *v).sum_all();
        sum = Some(sum.map_or(product, |sum| sum + product));
    }
    sum
}
