//! One transition of Hamiltonian Monte Carlo as one plan.
//!
//! ```text
//! U(z) = −log p(z) − β log p(x|z)            target ∝ e^(−U)
//! p ~ N(0, I);  p ← p − ½ε∇U(z);  L times: z ← z + εp, p ← p − ε∇U(z) (the last time half);
//! accept with probability min(1, e^(H − H′)),  H = U(z) + ½‖p‖²
//! ```
//!
//! (Duane et al. 1987; Neal 2011, arXiv 1206.1901.) The leapfrog steps are unrolled, the gradients are the graph's own, noise and
//! decision are part of it; β, ε and z are inputs that the host writes. All stochastic layers move together, as
//! one vector.

use crate::engine::device::{Call, Function, Key, State};
use crate::engine::error::Result;
use crate::engine::grad::grad;
use crate::engine::graph::{Graph, Var};
use crate::vae::{DeviceVae, Vae, streams};

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
}

/// The chains' state: z of every layer, `[rows, K]`, and log p(x|z), `[rows]`.
#[derive(Clone, Debug)]
pub(super) struct Chains {
    pub z: Vec<Vec<f32>>,
    pub log_p: Vec<f32>,
    /// The probability that the last transition was accepted with, `[rows]`; empty before the first.
    pub accepted: Vec<f32>,
}

/// The functions of a block of chains.
pub(super) struct Sampler {
    pub block: Block,
    start: Function,
    given: Function,
    transition: Function,
    layers: usize,
}

impl Sampler {
    pub fn compile(model: &DeviceVae, block: Block, leapfrog: usize) -> Result<Sampler> {
        let (vae, executor) = (&model.vae, &model.executor);
        let (start, given, transition) = (Graph::new(), Graph::new(), Graph::new());
        let started = start_step(&start, vae, block);
        let likelihood = likelihood_step(&given, vae, block);
        let moved = transition_step(&transition, vae, block, leapfrog);
        Ok(Sampler {
            block,
            start: executor.compile(&start, started)?,
            given: executor.compile(&given, vec![likelihood])?,
            transition: executor.compile(&transition, moved)?,
            layers: vae.config.latents().len(),
        })
    }

    /// The images of the chains.
    pub fn write_images(&mut self, x: &[f32]) -> Result<()> {
        [&mut self.start, &mut self.given, &mut self.transition].into_iter().try_for_each(|f| f.write(0, x))
    }

    /// Chains that begin with a draw from the prior.
    pub fn begin_at_the_prior(&mut self, state: &mut State, key: Key) -> Result<Chains> {
        self.start.run(state, &Call::once(key))?;
        let mut z = self.start.values()?;
        let log_p = z.pop().expect("log p is the last output");
        Ok(Chains { z, log_p, accepted: Vec::new() })
    }

    /// Chains that begin where they are told.
    pub fn begin_at(&mut self, state: &mut State, key: Key, z: Vec<Vec<f32>>) -> Result<Chains> {
        z.iter().enumerate().try_for_each(|(layer, z)| self.given.write(1 + layer, z))?;
        self.given.run(state, &Call::once(key))?;
        Ok(Chains { z, log_p: self.given.read(0)?, accepted: Vec::new() })
    }

    /// A transition at the inverse temperature `beta` with a step size for each chain.
    pub fn transition(
        &mut self,
        state: &mut State,
        key: Key,
        chains: &mut Chains,
        beta: f32,
        steps: &[f32],
    ) -> Result<()> {
        self.transition.write(1, &[beta])?;
        self.transition.write(2, steps)?;
        chains.z.iter().enumerate().try_for_each(|(layer, z)| self.transition.write(3 + layer, z))?;
        self.transition.run(state, &Call::once(key))?;
        let mut outputs = self.transition.values()?;
        chains.accepted = outputs.pop().expect("a probability");
        chains.log_p = outputs.pop().expect("a likelihood");
        debug_assert_eq!(outputs.len(), self.layers);
        chains.z = outputs;
        Ok(())
    }
}

fn images<'g>(g: &'g Graph, vae: &Vae, block: Block) -> Var<'g> {
    g.input(&[block.images, vae.config.pixels()])
}

fn latents<'g>(g: &'g Graph, vae: &Vae, block: Block) -> Vec<Var<'g>> {
    vae.config.latents().into_iter().map(|k| g.input(&[block.rows(), k])).collect()
}

/// Of the images: z drawn from the prior, and log p(x|z), `[rows, 1]`.
fn start_step<'g>(g: &'g Graph, vae: &Vae, block: Block) -> Vec<Var<'g>> {
    let x = images(g, vae, block);
    let mut outputs = vae.ancestral(g, block.rows(), streams::PRIOR);
    outputs.push(vae.log_likelihood(x, outputs[0]));
    outputs
}

/// Of the images and z: log p(x|z), `[rows, 1]`.
fn likelihood_step<'g>(g: &'g Graph, vae: &Vae, block: Block) -> Var<'g> {
    let x = images(g, vae, block);
    vae.log_likelihood(x, latents(g, vae, block)[0])
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

/// Of the images, the inverse temperature β, `[1]`, the step sizes, `[rows, 1]`, and z: the z after a transition, log p(x|z)
/// and the probability of acceptance, `[rows, 1]`.
fn transition_step<'g>(g: &'g Graph, vae: &Vae, block: Block, leapfrog: usize) -> Vec<Var<'g>> {
    let rows = block.rows();
    let x = images(g, vae, block);
    let beta = g.input(&[1]).reshape(&[]);
    let step = g.input(&[rows, 1]);
    let start = latents(g, vae, block);
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
    let moved = z.iter().zip(&start).map(|(&new, &old)| accepted.select(new, old));
    moved.chain([accepted.select(end, likelihood), probability]).collect()
}
