//! The engine: graphs, their derivatives, and what runs them. It knows no model, and of files only safetensors.
//!
//! For the mathematics of gradients: [`graph`] (an arena of nodes) → [`grad`](mod@grad) (the chain rule as a graph-to-graph
//! function) → [`ops::scalar`] (the table of functions and their derivatives) → [`ops::matmul`], [`ops::reduce`] → [`interp`]
//! (the reference executor).
//!
//! For the machine: [`plan`] (fusion, waves, memory) → [`steps`] (the kernels) → [`steps::gemm`] (the matrix product) →
//! [`device::cpu`] (threads).

pub(crate) mod clock;
pub mod device;
pub mod error;
pub mod file;
pub mod grad;
pub mod gradcheck;
pub mod graph;
pub mod interp;
pub mod isa;
pub mod math;
pub(crate) mod names;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod params;
pub mod plan;
pub mod rng;
pub mod shape;
pub mod steps;
pub mod tensors;
