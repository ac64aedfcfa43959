//! Every kind of model with every bound: the fused plan, the plan without fusion and the CUDA executor against the
//! interpreter in f64.

mod common;

use elbo::engine::device::{Call, Executor, Key, Precision, Rows, Schedule};
use elbo::engine::nn::{Activation, Initialisation};
use elbo::engine::rng::Draw;
use elbo::vae::{
    BETA, Binarisation, Bound, Estimator, KlTerm, LEARNING_RATE, Likelihood, Spread, StochasticLayer, UpdateRule, Vae,
    VaeConfig, evaluation, training_step,
};
use elbo::{Cpu, Fusion, Graph, Optimizer, Var};

const ROWS: usize = 12;
const BATCH: usize = 6;
const STEPS: usize = 2;

fn base() -> VaeConfig {
    VaeConfig { image: [4, 5], activation: Activation::Tanh, ..VaeConfig::new(3).hidden(&[9]) }
}

fn layer(encoder: &[usize], latent: usize, decoder: &[usize]) -> StochasticLayer {
    StochasticLayer { encoder: encoder.to_vec(), latent, decoder: decoder.to_vec() }
}

/// Model and bound, with a name for messages.
fn cases() -> Vec<(&'static str, VaeConfig, Bound)> {
    let binary = VaeConfig { binarisation: Binarisation::Dynamic, ..base() };
    let deep = VaeConfig { upper: vec![layer(&[7], 2, &[8])], spread: Spread::LogSigma, ..binary.clone() };
    let deeper = VaeConfig { upper: vec![layer(&[], 4, &[6]), layer(&[5], 1, &[])], ..binary.clone() };
    let with = |likelihood| VaeConfig { likelihood, ..base() };
    let sampled = Bound { kl: KlTerm::MonteCarlo, ..Bound::ELBO };
    let dreg = Bound { estimator: Estimator::DoublyReparameterised, ..Bound::iwae(4) };
    let stl = Bound { estimator: Estimator::StickingTheLanding, ..sampled };
    let score = |estimator, samples| Bound { estimator, samples, ..sampled };
    vec![
        ("bounded spread", VaeConfig { spread: Spread::BoundedLogVariance, ..base() }, Bound::ELBO),
        ("three draws", base(), Bound { samples: 3, ..Bound::ELBO }),
        ("free nats", base(), Bound { free_bits: Some(0.05), ..Bound::ELBO }),
        ("importance", binary.clone(), Bound::iwae(5)),
        ("doubly", binary.clone(), dreg),
        ("landing", binary.clone(), stl),
        ("score", binary.clone(), score(Estimator::ScoreFunction, 2)),
        ("score, one draw", binary, score(Estimator::ScoreFunctionBaseline, 1)),
        ("two layers", deep.clone(), sampled),
        ("two layers, importance", deep.clone(), Bound::iwae(3)),
        ("two layers, doubly", deep.clone(), dreg),
        ("two layers, landing", deep, stl),
        ("three layers", deeper.clone(), Bound::iwae(2)),
        ("three layers, doubly", deeper, dreg),
        ("shared sigma", with(Likelihood::gaussian_shared(0.02)), Bound::ELBO),
        ("shared sigma, importance", with(Likelihood::gaussian_shared(0.02)), Bound::iwae(3)),
        ("optimal sigma", with(Likelihood::gaussian_optimal(0.02)), Bound::ELBO),
        ("continuous", with(Likelihood::continuous_bernoulli()), Bound::iwae(2)),
        ("logistic", with(Likelihood::discretised_logistic(0.01)), Bound::ELBO),
        ("glorot", VaeConfig { init: Initialisation::GlorotEqual, ..base() }, Bound::iwae(2)),
    ]
}

fn data(pixels: usize) -> Vec<u8> {
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    // Some exact zeros and ones, for the open cells of the logistic.
    let byte = |u: f32| ((u * 1.4 - 0.2).clamp(0.0, 1.0) * 255.0).round() as u8;
    (0..(ROWS * pixels) as u64).map(|i| byte(draw.uniform(i))).collect()
}

/// All parameters after the steps, and the sums of the outputs. The parameters have moved by a descent with momentum, so
/// that the gradients of the second step are in them.
type Outcome = (Vec<(String, Vec<f32>)>, Vec<f64>);

fn run(executor: &Executor, vae: &Vae, g: &Graph, outputs: Vec<Var>, fusion: Fusion, steps: usize) -> Outcome {
    let mut step = executor.compile_with(g, outputs, fusion).unwrap();
    step.plan().map_or(Ok(()), |plan| plan.verify()).unwrap();
    let mut state = executor.state(&vae.params(), 1).unwrap();
    state.load("train", &data(vae.config.pixels())[..], vae.config.pixels()).unwrap();
    let schedules: &[(&str, Schedule)] = &[(LEARNING_RATE, &|_| 1e-3), (BETA, &|_| 0.7)];
    step.run(&mut state, &Call { key: Key::new(77), rows: Rows::shuffled(0), steps, schedules }).unwrap();
    let values = vae.params().iter().map(|p| (p.name.clone(), state.read(&p.name).unwrap())).collect();
    (values, step.take_totals().unwrap())
}

fn compare(what: &str, found: &Outcome, expected: &Outcome) {
    for ((name, f), (_, e)) in found.0.iter().zip(&expected.0) {
        let scale = e.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        let error = f.iter().zip(e).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
        assert!(error < 2e-4, "{what}: {name} differs by {error:e}");
    }
    for (name, (f, e)) in ["rec", "kl", "loss"].iter().zip(found.1.iter().zip(&expected.1)) {
        assert!((f - e).abs() < 2e-5 * e.abs().max(1.0), "{what}: {name} is {f}, expected {e}");
    }
}

#[test]
fn every_objective_agrees_with_the_interpreter_on_every_executor() {
    let objective = |bound| UpdateRule { optimizer: Optimizer::Sgd { momentum: 0.5 }, clip: None, bound };
    for (name, config, bound) in cases() {
        bound.validate(&config).unwrap_or_else(|e| panic!("{name}: {e}"));
        let vae = Vae::new(config).unwrap();
        let g = Graph::new();
        let outputs = training_step(&g, &vae, &objective(bound), "train", BATCH);
        let on = |executor: &Executor, fusion| run(executor, &vae, &g, outputs.to_vec(), fusion, STEPS);
        let expected = on(&Executor::reference(), Fusion::all());
        assert!(expected.0.iter().flat_map(|(_, v)| v).all(|v| v.is_finite()), "{name}");
        for fusion in [Fusion::all(), Fusion::none()] {
            compare(&format!("{name}, {fusion:?}"), &on(&Executor::new(Cpu::new(2)), fusion), &expected);
        }
        if let Some(gpu) = common::on_cuda(Precision::F32) {
            compare(&format!("{name}, cuda"), &on(&gpu, Fusion::all()), &expected);
        }
    }
}

/// The evaluation has no β in it and does not know the bound: it is −ELBO.
#[test]
fn the_reported_terms_are_those_of_the_elbo_with_beta_one() {
    for (name, config, _) in cases() {
        let vae = Vae::new(config).unwrap();
        let sampled = Bound { kl: KlTerm::MonteCarlo, ..Bound::ELBO };
        let objective = UpdateRule { optimizer: Optimizer::adam(), clip: None, bound: sampled };
        let (g, h) = (Graph::new(), Graph::new());
        let on = |g: &Graph, outputs| run(&Executor::reference(), &vae, g, outputs, Fusion::all(), 1).1;
        let evaluated = on(&g, evaluation(&g, &vae, "train", BATCH).to_vec());
        let learned = on(&h, training_step(&h, &vae, &objective, "train", BATCH).to_vec());
        let optimal = vae.config.likelihood.facts().needs_batch;
        assert!(optimal || (evaluated[0] - learned[0]).abs() < 1e-9, "{name}: {evaluated:?} {learned:?}");
        if !vae.upper.is_empty() {
            assert!((evaluated[1] - learned[1]).abs() < 1e-9, "{name}: the sampled KL");
        } else {
            assert!(evaluated[1] > 0.0, "{name}: a divergence in closed form is positive");
        }
    }
}
