//! The chain rule on one graph, with every number: the tape with its values, the walk back, and the finite difference
//! beside each leaf.
//!
//! ```
//! use elbo::study::derive::Subject;
//!
//! let bce = Subject::expression("softplus(l) - x*l", "l=2, x=1")?;
//! let derivation = bce.derivation(1);
//! let slope = &derivation.leaves[0];
//! assert_eq!(slope.name, "l");
//! assert!((slope.gradient.values[0] - (1.0 / (1.0 + (-2f64).exp()) - 1.0)).abs() < 1e-15); // σ(l) − x
//! assert!(slope.error < 1e-9);
//! # Ok::<(), elbo::Error>(())
//! ```
//!
//! A [`Derivation`] is plain data: [`text()`](Derivation::text) prints it, [`svg`](Derivation::svg) draws it,
//! [`page`](Derivation::page) makes a page that steps through it, and any graph has one: [`Derivation::of`].

mod draw;
mod expression;
mod layout;
mod page;
mod point;
mod record;
mod subject;
mod text;

pub use layout::{Drawing, Wire};
pub use page::{WALK_SCRIPT, WALK_STYLE};
pub use record::{Derivation, LeafCheck, TapeContribution, TapeNode, TapeStep, TapeValue, ValueStats};
pub use subject::{BUILT_IN, BuiltIn, Subject};
