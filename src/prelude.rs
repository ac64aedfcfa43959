//! What a program that builds, differentiates and trains a model of its own begins with: `use elbo::prelude::*;`.
//!
//! ```
//! use elbo::prelude::*;
//!
//! let g = Graph::new();
//! let x = g.tensor(&[2, 3], &[0.1, -0.4, 1.2, 0.8, -1.5, 0.3]);
//! let loss = Mlp::new("net", 3, &[8, 1], Activation::Tanh).apply(x).square().mean_all();
//! let slope = grad(loss, &[x])[0];
//! assert_eq!(Interp::<f64>::new(&g).eval(slope), [0.0; 6]); // parameters that were not set are zeros
//! ```

pub use crate::engine::device::{Array, Call, Device, Executor, Function, Key, Rows, Schedule, State};
pub use crate::engine::error::{Error, Result};
pub use crate::engine::grad::{grad, grad_with, hvp, jvp};
pub use crate::engine::gradcheck::{GradCheck, Point, gradcheck};
pub use crate::engine::graph::{Graph, Var};
pub use crate::engine::interp::Interp;
pub use crate::engine::nn::{Activation, Linear, Mlp};
pub use crate::engine::ops::custom::{CustomOp, Operand, custom_op, custom_vjp};
pub use crate::engine::optim::{Ema, LrSchedule, Optimizer};
pub use crate::engine::params::Params;
pub use crate::engine::shape::Shape;
