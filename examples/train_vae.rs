//! A variational autoencoder through the library, without the command line: `cargo run --release --example train_vae`.
//!
//! Draws 10 000 digits, trains 784-200-2-200-784 for three epochs, and shows what the two latent numbers cost.

use std::sync::atomic::AtomicBool;

use elbo::engine::device::Device;
use elbo::train::{EpochRecord, EpochTiming, Observer, Source, TrainConfig, Trainer};
use elbo::vae::VaeConfig;

/// Prints a line per epoch.
struct Lines;

impl Observer for Lines {
    fn epoch(&mut self, _: &Trainer, r: &EpochRecord, t: &EpochTiming) -> elbo::Result<()> {
        let (rec, kl) = (r.test_rec, r.test_kl);
        println!("epoch {}: test −ELBO {:.1} = {rec:.1} + {kl:.1}, {:.1} s", r.epoch, r.test_neg_elbo, t.train_seconds);
        Ok(())
    }
}

fn main() -> elbo::Result<()> {
    let mut config = TrainConfig::new(VaeConfig::new(2).hidden(&[200]));
    config.data = Source::Digits { seed: 1, train: 10_000, test: 2_000 };
    config.epochs = 3;

    let images = config.data.load()?;
    let mut trainer = Trainer::new(config, &images, Device::Cpu { threads: 0 })?;
    trainer.run(&mut Lines, &AtomicBool::new(false))?;

    let collapse = trainer.config().model.likelihood.collapse_line(&images.test.histograms());
    let collapse = collapse.expect("of rates per pixel the best is known");
    println!("a model that ignores z would end at {collapse:.1}");
    let kl = trainer.model().encode("test", 1)?.kl_per_dimension();
    // KL = I(x;z_k) + KL(q(z_k) ‖ p(z_k)): what a number tells of an image is at most what it costs.
    println!("z₁ costs {:.2} nats per image, z₂ {:.2}, and none tells more; a digit is ln 10 = 2.30", kl[0], kl[1]);

    // A new image: z drawn from N(0, I) and decoded.
    let image = trainer.model().sample(1, 7)?;
    for row in image.chunks(28).step_by(2) {
        println!("{}", row.iter().map(|v| [' ', '·', 'o', '#'][(v * 3.99) as usize]).collect::<String>());
    }
    Ok(())
}
