//! `elbo`: reverse-mode automatic differentiation from scratch, with kernels written by hand, and a variational
//! autoencoder trained end to end on the evidence lower bound on top of it.
//!
//! # What to read first
//!
//! For the mathematics of gradients, about a thousand lines without `unsafe`:
//! [`graph`] (an arena of nodes) → [`grad`](mod@grad) (the chain rule as a graph-to-graph function) → [`ops::scalar`] (the table of
//! functions and their derivatives) → [`ops::matmul`], [`ops::reduce`] → [`interp`] (the reference executor).
//!
//! # Conventions
//!
//! `dy` is ∂loss/∂y, everywhere. Arrays are row-major; shapes stand in comments as `[rows, columns]`. Layers compute
//! y = x·W + b with W of shape `[in, out]`. Logarithms are natural, likelihoods in nats per image. Misuse of the graph
//! panics with the caller's line; files, arguments and devices give an [`Error`]. Same seed, same bits: for any number of
//! threads.

pub mod error;
pub mod grad;
pub mod graph;
pub mod interp;
pub mod isa;
pub mod math;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod shape;

pub use error::{Error, Result};
pub use grad::{grad, grad_with, hvp};
pub use graph::{Ctl, Graph, Var};
pub use interp::Interp;
pub use optim::{Control, KlWarmup, LrSchedule, Optimizer};
pub use shape::Shape;
