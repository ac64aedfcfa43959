//! The estimators that are compared, all as the crate's [`bound_gradients`](crate::vae::bound_gradients) makes them.

use serde::Serialize;

use crate::vae::{Bound, BoundKind, Estimator, KlTerm};

/// Whose gradient is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// φ, of q(z|x).
    Encoder,
    /// θ, of p(x|z).
    Decoder,
}

/// A bound, an estimator of its gradient, and the parameters in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Contestant {
    /// The bound.
    pub bound: BoundKind,
    /// How KL(q ‖ p) enters it.
    pub kl: KlTerm,
    /// The estimator.
    pub estimator: Estimator,
    /// The parameters.
    pub side: Network,
}

impl Contestant {
    /// All of the encoder, then the decoder's gradient of L_k, which is the same for every estimator.
    pub const ALL: [Contestant; 9] = {
        use Estimator::*;
        const fn elbo(kl: KlTerm, estimator: Estimator) -> Contestant {
            Contestant { bound: BoundKind::Elbo, kl, estimator, side: Network::Encoder }
        }
        const fn iwae(estimator: Estimator, side: Network) -> Contestant {
            Contestant { bound: BoundKind::Iwae, kl: KlTerm::MonteCarlo, estimator, side }
        }
        [
            elbo(KlTerm::Analytic, Total),
            elbo(KlTerm::MonteCarlo, Total),
            elbo(KlTerm::MonteCarlo, StickingTheLanding),
            elbo(KlTerm::MonteCarlo, ScoreFunction),
            elbo(KlTerm::MonteCarlo, ScoreFunctionBaseline),
            iwae(Total, Network::Encoder),
            iwae(StickingTheLanding, Network::Encoder),
            iwae(DoublyReparameterised, Network::Encoder),
            iwae(Total, Network::Decoder),
        ]
    };

    /// The bound of k draws with this gradient.
    pub fn with_draws(&self, k: usize) -> Bound {
        Bound { kind: self.bound, samples: k, kl: self.kl, estimator: self.estimator, free_bits: None }
    }

    /// Its name in tables, without the bound.
    pub fn name(&self) -> &'static str {
        match (self.side, self.estimator, self.kl) {
            (Network::Decoder, ..) => "decoder, total",
            (_, Estimator::Total, KlTerm::Analytic) => "KL in closed form",
            (_, Estimator::Total, _) => "total",
            (_, Estimator::StickingTheLanding, _) => "sticking the landing",
            (_, Estimator::DoublyReparameterised, _) => "doubly reparameterised",
            (_, Estimator::ScoreFunction, _) => "score function",
            (_, Estimator::ScoreFunctionBaseline, _) => "score, baseline",
        }
    }

    /// The bound's name in tables.
    pub fn bound_name(&self) -> &'static str {
        match self.bound {
            BoundKind::Elbo => "ELBO",
            BoundKind::Iwae => "L_k",
        }
    }

    /// Whether its expectation is another than the gradient of its bound.
    pub fn is_biased(&self, k: usize) -> bool {
        self.bound == BoundKind::Iwae && self.estimator == Estimator::StickingTheLanding && k > 1
    }

    /// The exponent of k in its signal-to-noise ratio for k ≫ χ². For the ELBO, a mean of k equal terms, it is that at
    /// every k (for the baseline from k = 2 on, and nearly).
    pub fn law(&self) -> f64 {
        let falls =
            self.bound == BoundKind::Iwae && self.estimator == Estimator::Total && self.side == Network::Encoder;
        if falls { -0.5 } else { 0.5 }
    }

    /// The unbiased estimator of the same expectation with the least noise, and the k to use it at: for the ELBO, whose
    /// expectation does not depend on k, the largest.
    pub(super) fn reference(&self, k: usize, most: usize) -> (Contestant, usize) {
        let estimator = match (self.side, self.bound) {
            (Network::Decoder, _) => Estimator::Total,
            (_, BoundKind::Elbo) => Estimator::StickingTheLanding,
            (_, BoundKind::Iwae) => Estimator::DoublyReparameterised,
        };
        let k = if self.bound == BoundKind::Elbo { most } else { k };
        (Contestant { kl: KlTerm::MonteCarlo, estimator, ..*self }, k)
    }
}
