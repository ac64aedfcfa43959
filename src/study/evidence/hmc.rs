//! One transition of Hamiltonian Monte Carlo as one plan.
//!
//! ```text
//! U(z) = −log p(z) − β log p(x|z)            target ∝ e^(−U)
//! p ~ N(0, I);  p ← p − ½ε∇U(z);  L times: z ← z + εp, p ← p − ε∇U(z) (the last time half);
//! accept with probability min(1, e^(H − H′)),  H = U(z) + ½‖p‖²
//! ```
//!
//! (Duane et al. 1987; Neal 2011, arXiv 1206.1901.) The leapfrog steps are unrolled, the gradients are the graph's own, noise and
//! decision are part of it; β and ε come from small states that the host writes. All stochastic layers move together, as
//! one vector.

use super::observed::name;
use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::vae::Vae;
use crate::vae::streams;

/// Chains for a block of images: row s·B + i is chain s of image i.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub images: usize,
    pub chains: usize,
}

impl Block {
    pub fn rows(self) -> usize {
        self.images * self.chains
    }

    /// The state with something of these chains.
    pub fn name(self, what: &str) -> String {
        name(&format!("{what}/{}", self.chains), self.images)
    }

    /// The state with z of a layer.
    pub fn z(self, layer: usize) -> String {
        self.name(&format!("z{layer}"))
    }
}

fn images<'g>(g: &'g Graph, vae: &Vae, block: Block) -> Var<'g> {
    g.state(&name("x", block.images), &[block.images, vae.config.pixels()])
}

fn latents<'g>(g: &'g Graph, vae: &Vae, block: Block) -> Vec<Var<'g>> {
    let layers = vae.config.latents().into_iter().enumerate();
    layers.map(|(layer, k)| g.state(&block.z(layer), &[block.rows(), k])).collect()
}

/// z drawn from the prior into the states of z, and their log p(x|z), `[rows, 1]`.
pub(super) fn start_graph(vae: &Vae, block: Block) -> Graph {
    let g = Graph::new();
    let z = vae.ancestral(&g, block.rows(), streams::PRIOR);
    z.iter().enumerate().for_each(|(layer, &z)| g.store(&block.z(layer), z));
    g.store(&block.name("log p"), vae.log_likelihood(images(&g, vae, block), z[0]));
    g
}

/// log p(x|z) of the z in the states.
pub(super) fn likelihood_graph(vae: &Vae, block: Block) -> Graph {
    let g = Graph::new();
    let z = latents(&g, vae, block);
    g.store(&block.name("log p"), vae.log_likelihood(images(&g, vae, block), z[0]));
    g
}

/// (log p(x|z), U(z)), `[rows, 1]` each.
fn energy<'g>(vae: &Vae, x: Var<'g>, beta: Var<'g>, z: &[Var<'g>]) -> (Var<'g>, Var<'g>) {
    let likelihood = vae.log_likelihood(x, z[0]);
    (likelihood, -(vae.log_prior(z) + beta * likelihood))
}

/// ½‖p‖², `[rows, 1]`.
fn kinetic<'g>(momentum: &[Var<'g>]) -> Var<'g> {
    let squares = momentum.iter().map(|p| p.square().sum_keep(&[1]));
    squares.reduce(|a, b| a + b).expect("a model has a stochastic layer") * 0.5
}

/// A transition from z to z in the states at the inverse temperature in `beta`, `[1]`, with the step sizes in `step`,
/// `[rows, 1]`. Leaves log p(x|z) and the probability of acceptance, `[rows, 1]`.
pub(super) fn transition_graph(vae: &Vae, block: Block, leapfrog: usize) -> Graph {
    let g = Graph::new();
    let rows = block.rows();
    let x = images(&g, vae, block);
    let beta = g.state(&block.name("beta"), &[1]).reshape(&[]);
    let step = g.state(&block.name("step"), &[rows, 1]);
    let start = latents(&g, vae, block);
    let (likelihood, potential) = energy(vae, x, beta, &start);
    let noise = start.iter().zip(streams::MOMENTUM..).map(|(z, stream)| g.normal(&z.shape(), stream));
    let momentum: Vec<Var> = noise.collect();
    let before = potential + kinetic(&momentum);

    let (mut z, mut p) = (start.clone(), momentum);
    let (mut end, mut u) = (likelihood, potential);
    let mut slope = grad(u.sum_all(), &z);
    for l in 0..leapfrog {
        for layer in 0..z.len() {
            // Two half kicks between two moves are one whole kick.
            p[layer] = p[layer] - step * slope[layer] * if l == 0 { 0.5 } else { 1.0 };
            z[layer] = z[layer] + step * p[layer];
        }
        (end, u) = energy(vae, x, beta, &z);
        slope = grad(u.sum_all(), &z);
    }
    for layer in 0..z.len() {
        p[layer] = p[layer] - step * slope[layer] * 0.5;
    }
    let change = before - (u + kinetic(&p));
    let probability = change.minimum(g.full(&[rows, 1], 0.0)).exp();
    // A trajectory that left the numbers has a probability of NaN, which is not above any.
    let accepted = g.uniform(&[rows, 1], streams::ACCEPTANCE).lt(probability);
    for (layer, (&new, &old)) in z.iter().zip(&start).enumerate() {
        g.store(&block.z(layer), accepted.select(new, old));
    }
    g.store(&block.name("log p"), accepted.select(end, likelihood));
    g.store(&block.name("accepted"), probability);
    g
}
