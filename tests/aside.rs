//! A model in the middle of a training is looked at: whatever is done with it between two updates, and wherever that fails,
//! the training goes on as if nobody had looked.

use std::sync::atomic::AtomicBool;

use elbo::data::Splits;
use elbo::engine::device::Device;
use elbo::study::evidence::{Annealing, Observed, Proposal, Sampling, ais, importance, sandwich, simulate};
use elbo::train::checkpoint::Checkpoint;
use elbo::train::{EpochRecord, EpochTiming, Observer, TEST, TRAIN, TrainConfig, Trainer};
use elbo::vae::{DeviceVae, VaeConfig};
use elbo::{Graph, Key, Result};

#[derive(Default)]
struct Records(Vec<EpochRecord>);

impl Observer for Records {
    fn epoch(&mut self, _: &Trainer, record: &EpochRecord, _: &EpochTiming) -> Result<()> {
        self.0.push(record.clone());
        Ok(())
    }
}

/// Two epochs of three updates, the last on a smaller batch, with a look at the model after every update.
fn train(mut look: impl FnMut(&mut DeviceVae)) -> (Checkpoint, Vec<EpochRecord>) {
    let config = TrainConfig { epochs: 2, batch: 10, ..TrainConfig::new(VaeConfig::new(2).hidden(&[8])) };
    let mut trainer = Trainer::new(config, &Splits::digits(1, 25, 12), Device::Cpu { threads: 1 }).unwrap();
    let mut records = Records::default();
    for updates in 1..=6 {
        trainer.pause_at = Some(updates);
        trainer.run(&mut records, &AtomicBool::new(false)).unwrap();
        look(trainer.model());
    }
    trainer.pause_at = None;
    trainer.run(&mut records, &AtomicBool::new(false)).unwrap();
    (trainer.checkpoint().unwrap(), records.0)
}

type Look<'a> = (&'a str, Box<dyn Fn(&mut DeviceVae) -> Result<()> + 'a>);

#[test]
fn what_is_done_with_a_model_between_updates_leaves_its_training_alone() {
    let sampling = Sampling { samples: 10, bounds: Vec::new(), seed: 1 };
    let annealing = Annealing { chains: 2, temperatures: 4, leapfrog: 2, seed: 1 };
    let estimate = |m: &mut DeviceVae, proposal| {
        let observed = Observed::read(m, TEST, 3, 1)?;
        importance(m, &observed, proposal, &sampling).map(drop)
    };
    let looks: Vec<Look<'_>> = vec![
        ("evaluate", Box::new(|m| m.evaluate(TEST, 1).map(drop))),
        ("evaluate what is trained on", Box::new(|m| m.evaluate(TRAIN, 1).map(drop))),
        ("encode", Box::new(|m| m.encode(TEST, 1).map(drop))),
        ("encode_layers", Box::new(|m| m.encode_layers(TEST, 5, 1).map(drop))),
        ("sample", Box::new(|m| m.sample(3, 1).map(drop))),
        ("reconstruct", Box::new(|m| m.reconstruct(TEST, 3, 1).map(drop))),
        ("decode", Box::new(|m| m.decode(&[0.5; 4]).map(drop))),
        ("dead_units", Box::new(|m| m.dead_units(TEST, 1).map(drop))),
        ("posterior", Box::new(|m| estimate(m, Proposal::Posterior))),
        ("prior", Box::new(|m| estimate(m, Proposal::Prior))),
        (
            "ais",
            Box::new(|m| {
                let observed = Observed::read(m, TEST, 3, 1)?;
                ais(m, &observed, &annealing).map(drop)
            }),
        ),
        (
            "sandwich",
            Box::new(|m| {
                let simulated = simulate(m, 2, 1)?;
                sandwich(m, &simulated, &annealing).map(drop)
            }),
        ),
    ];
    let undisturbed = train(|_| {});
    let disturbed = train(|model| {
        looks.iter().for_each(|(name, look)| look(model).unwrap_or_else(|e| panic!("{name}: {e}")));
    });
    assert_eq!(disturbed.1, undisturbed.1);
    assert!(disturbed == undisturbed, "other parameters, moments or counters");
}

#[test]
fn a_look_that_fails_leaves_a_training_alone() {
    let sampling = Sampling { samples: 10, bounds: vec![0], seed: 1 };
    // (what fails, the words of the error)
    let looks: Vec<(Look<'_>, &str)> = vec![
        (("no such data", Box::new(|m| m.evaluate("nobody", 1).map(drop))), "nobody"),
        (("images of another size", Box::new(|m| m.evaluate("narrow", 1).map(drop))), "rows of 10 numbers"),
        (("encode", Box::new(|m| m.encode("narrow", 1).map(drop))), "narrow"),
        (("dead_units", Box::new(|m| m.dead_units("narrow", 1).map(drop))), "narrow"),
        (("more than there are", Box::new(|m| m.encode_layers(TEST, 13, 1).map(drop))), "from 1 to 12"),
        (("reconstruct nothing", Box::new(|m| m.reconstruct(TEST, 0, 1).map(drop))), "from 1 to 12"),
        (("reconstruct others", Box::new(|m| m.reconstruct("narrow", 3, 1).map(drop))), "narrow"),
        (("observe", Box::new(|m| Observed::read(m, "narrow", 3, 1).map(drop))), "narrow"),
        (
            (
                "group sizes",
                Box::new(|m| {
                    let observed = Observed::read(m, TEST, 3, 1)?;
                    importance(m, &observed, Proposal::Posterior, &sampling).map(drop)
                }),
            ),
            "group sizes",
        ),
        (("simulate nothing", Box::new(|m| simulate(m, 0, 1).map(drop))), "at least one"),
        (("a z of another size", Box::new(|m| decode_one(m, &[0.5; 3]))), "3 numbers were given for shape [1, 2]"),
        (("write too much", Box::new(|m| m.state.write("decoder.logits.bias", &[0.0; 9]))), "9 numbers"),
    ];
    let undisturbed = train(|_| {});
    let disturbed = train(|model| {
        model.state.load("narrow", &[7u8; 50][..], 10).unwrap();
        for ((name, look), words) in &looks {
            let error = look(model).expect_err(name).to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    });
    assert!(disturbed == undisturbed, "other parameters, moments or counters");
}

/// E[x|z] of one z, by a function of its own.
fn decode_one(model: &mut DeviceVae, z: &[f32]) -> Result<()> {
    let g = Graph::new();
    let mut decode = model.executor.compile(&g, [model.vae.decoder.mean(g.input(&[1, 2]))])?;
    decode.call(&mut model.state, Key::new(0), &[z]).map(drop)
}
