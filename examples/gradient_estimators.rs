//! How noisy the gradients of a bound are: `cargo run --release --example gradient_estimators`.
//!
//! A small VAE is trained for a few epochs on drawn digits. Then, for one fixed batch of images, each estimator's gradient is
//! drawn many times with fresh noise. For the encoder's and the decoder's parameters the table shows
//!
//! ```text
//! size    ‖mean of the draws‖
//! noise   √(trace of the covariance of one draw)
//! ratio   size/noise, the signal-to-noise ratio of one step's gradient
//! ```
//!
//! For estimators of one bound the expectations are equal (but for sticking the landing with k > 1, which is biased), so
//! that only the noise differs. `--draws N` (default 400), `--epochs N` (default 3).

use std::sync::atomic::AtomicBool;

use elbo::engine::device::Schedule;
use elbo::train::{Source, TrainConfig, Trainer};
use elbo::vae::{BETA, Bound, DeviceVae, Estimator, KlTerm, VaeConfig, bound_gradients, pixels};
use elbo::{Call, Device, Graph, Key};

/// Images of the fixed batch.
const BATCH: usize = 50;

/// Mean, total variance of one draw, and the length of the mean with the noise's share taken out, of a gradient.
#[derive(Default)]
struct Moments {
    draws: usize,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn add(&mut self, gradient: &[f32]) {
        self.sum.resize(gradient.len(), 0.0);
        self.squares.resize(gradient.len(), 0.0);
        for ((sum, square), &g) in self.sum.iter_mut().zip(&mut self.squares).zip(gradient) {
            *sum += f64::from(g);
            *square += f64::from(g).powi(2);
        }
        self.draws += 1;
    }

    /// (size, noise). The square of a mean of n draws is too large by variance/n in expectation; that is subtracted.
    fn size_and_noise(&self) -> (f64, f64) {
        let n = self.draws as f64;
        let mean_square: f64 = self.sum.iter().map(|s| (s / n).powi(2)).sum();
        let variance = (self.squares.iter().sum::<f64>() / n - mean_square) * n / (n - 1.0);
        ((mean_square - variance / n).max(0.0).sqrt(), variance.max(0.0).sqrt())
    }
}

/// The gradients of the bound in the last layers of encoder and decoder, drawn `draws` times.
fn measure(model: &mut DeviceVae, bound: Bound, draws: u32) -> elbo::Result<[(f64, f64); 2]> {
    bound.validate(&model.vae.config)?;
    let g = Graph::new();
    let step = bound_gradients(&model.vae, &bound, pixels(&g, "train", BATCH, model.vae.config.pixels()));
    // The last are a weight and its bias.
    let mut gradients = model.executor.compile(&g, [&step.encoder, &step.decoder].map(|d| d[d.len() - 2]))?;
    let mut moments = [Moments::default(), Moments::default()];
    for step in 0..draws {
        let schedules: &[(&str, Schedule)] = &[(BETA, &|_| 1.0)];
        gradients.run(&mut model.state, &Call { schedules, ..Call::once(Key { seed: 1, step }) })?;
        moments.iter_mut().zip(gradients.values()?).for_each(|(moments, drawn)| moments.add(&drawn));
    }
    Ok(moments.map(|m| m.size_and_noise()))
}

/// The number after an option.
fn option(name: &str, usual: usize) -> usize {
    let mut args = std::env::args().skip_while(|a| a != name).skip(1);
    args.next().map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{name} {value}: not a number")))
}

fn main() -> elbo::Result<()> {
    let (draws, epochs) = (option("--draws", 400), option("--epochs", 3));
    let mut config = TrainConfig::new(VaeConfig::new(10).hidden(&[200]));
    config.data = Source::Digits { seed: 1, train: 10_000, test: 500 };
    config.epochs = epochs as u32;
    let images = config.data.load()?;
    let mut trainer = Trainer::new(config, &images, Device::Cpu { threads: 0 })?;
    trainer.run(&mut (), &AtomicBool::new(false))?;
    println!("784-200-10-200-784 after {epochs} epochs, {BATCH} images, {draws} draws of each gradient\n");

    let elbo = |estimator, samples| Bound { kl: KlTerm::MonteCarlo, estimator, samples, ..Bound::ELBO };
    let iwae = |estimator, k| Bound { estimator, ..Bound::iwae(k) };
    use Estimator::*;
    let mut rows = vec![("ELBO, KL in closed form", Bound::ELBO)];
    rows.push(("ELBO, all sampled", elbo(Total, 1)));
    rows.push(("  sticking the landing", elbo(StickingTheLanding, 1)));
    rows.push(("  score function", elbo(ScoreFunction, 1)));
    rows.push(("  score function, baseline", elbo(ScoreFunctionBaseline, 1)));
    for k in [4, 16, 64] {
        rows.push(("L_k, total derivative", iwae(Total, k)));
        rows.push(("  doubly reparameterised", iwae(DoublyReparameterised, k)));
        rows.push(("  sticking (biased)", iwae(StickingTheLanding, k)));
    }
    println!("{:<28}{:>4}   {:^27}   {:^27}", "", "", "last weights of the encoder", "last weights of the decoder");
    let columns = format!("{:>9}{:>9}{:>9}", "size", "noise", "ratio");
    println!("{:<28}{:>4}   {columns}   {columns}", "bound and estimator", "k");
    for (name, bound) in rows {
        let line = measure(trainer.model(), bound, draws as u32)?.map(|(size, noise)| {
            // Less than the noise of the mean cannot be told from 0.
            let seen = size > noise / (draws as f64).sqrt();
            let shown = if seen { format!("{size:>9.3}") } else { format!("{:>9}", "(lost)") };
            let ratio = if seen { format!("{:>9.3}", size / noise) } else { format!("{:>9}", "") };
            format!("{shown}{noise:>9.3}{ratio}")
        });
        println!("{name:<28}{:>4}   {}   {}", bound.samples, line[0], line[1]);
    }
    Ok(())
}
