//! `elbo`: reverse-mode automatic differentiation from scratch, with kernels written by hand, and a variational
//! autoencoder trained end to end on the evidence lower bound on top of it.
//!
//! # What to read first
//!
//! For the mathematics of gradients, about a thousand lines without `unsafe`:
//! [`engine::graph`] (an arena of nodes) → [`engine::grad`](mod@engine::grad) (the chain rule as a graph-to-graph function) → [`engine::ops::scalar`] (the table of
//! functions and their derivatives) → [`engine::ops::matmul`], [`engine::ops::reduce`] → [`engine::interp`] (the reference executor) →
//! `vae` (the model, the bound and its derivation).
//!
//! For the machine: [`engine::plan`] (fusion, waves, memory) → [`engine::steps`] (the kernels) → [`engine::steps::gemm`] (the matrix product) →
//! [`engine::device::cpu`] (threads).
//!
//! # Twenty lines
//!
//! ```
//! use elbo::{Call, Device, Graph, Interp, Key, Optimizer, Params, grad};
//!
//! let g = Graph::new();
//! let x = g.tensor(&[4, 1], &[0.0, 1.0, 2.0, 3.0]);
//! let y = g.tensor(&[4, 1], &[1.0, 3.0, 5.0, 7.0]); // y = 2x + 1
//! let (w, b) = (g.param("w", &[1, 1]), g.param("b", &[1]));
//! let loss = (x.matmul(w) + b - y).square().mean_all();
//! let gradient = grad(loss, &[w, b]);
//!
//! // One node at a time, in f64: the reference.
//! assert_eq!(Interp::<f64>::new(&g).eval(gradient[1]), [-8.0]);
//!
//! // Fused kernels over planned memory, in f32.
//! g.optimize(Optimizer::Sgd { momentum: 0.0 }, 0.1, &[(w, gradient[0]), (b, gradient[1])]);
//! let executor = Device::Cpu { threads: 1 }.open()?;
//! let mut state = executor.state(&Params::of(&g), 0)?;
//! let mut train = executor.compile(&g, [loss])?;
//! train.run(&mut state, &Call { steps: 300, ..Call::once(Key::new(0)) })?;
//! assert!((state.read("w")?[0] - 2.0).abs() < 1e-3 && (state.read("b")?[0] - 1.0).abs() < 1e-3);
//! # Ok::<(), elbo::Error>(())
//! ```
//!
//! # Conventions
//!
//! `dy` is ∂loss/∂y, everywhere. Arrays are row-major; shapes stand in comments as `[rows, columns]`. Layers compute
//! y = x·W + b with W of shape `[in, out]`. Logarithms are natural, likelihoods in nats per image. Misuse of the graph
//! panics with the caller's line; files, arguments and devices give an [`Error`]. Same seed, same bits: for any number of
//! threads.

#[cfg(feature = "vae")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "vae")]
pub mod data;
pub mod engine;
pub mod prelude;

#[cfg(feature = "vae")]
pub mod study;
#[cfg(feature = "vae")]
pub mod train;
#[cfg(feature = "vae")]
pub mod vae;

pub use engine::device::cpu::Cpu;
pub use engine::device::{Call, Device, Executor, Function, Key, Rows, State};
pub use engine::error::{Choice, Error, Remedy, Result};
pub use engine::grad::{grad, grad_with, hvp, jvp};
pub use engine::gradcheck;
pub use engine::graph::{Graph, Var};
pub use engine::interp::Interp;
pub use engine::ops::custom::{CustomOp, Operand, custom_op, custom_vjp};
pub use engine::optim::{LrSchedule, Optimizer};
pub use engine::params::Params;
pub use engine::plan::{Fusion, Plan};
pub use engine::shape::Shape;

/// What the README shows is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
