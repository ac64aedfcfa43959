//! Every kind of model with every bound: the fused plan, the plan without fusion and the CUDA executor against the
//! interpreter in f64.

mod common;

use elbo::engine::device::Precision;
use elbo::engine::nn::{Activation, Initialisation};
use elbo::engine::rng::Draw;
use elbo::vae::{
    Binarisation, Bound, Estimator, KlTerm, Likelihood, Objective, Spread, StochasticLayer, Vae, VaeConfig,
    evaluation_graph, training_graph,
};
use elbo::{Control, Cpu, Exec, Fusion, Graph, Interp, KlWarmup, Optimizer, Plan};

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
        ("shared sigma", with(Likelihood::GaussianShared { sigma_floor: 0.02 }), Bound::ELBO),
        ("shared sigma, importance", with(Likelihood::GaussianShared { sigma_floor: 0.02 }), Bound::iwae(3)),
        ("optimal sigma", with(Likelihood::GaussianOptimal { sigma_floor: 0.02 }), Bound::ELBO),
        ("continuous", with(Likelihood::ContinuousBernoulli), Bound::iwae(2)),
        ("logistic", with(Likelihood::DiscretisedLogistic { scale_floor: 0.01 }), Bound::ELBO),
        ("glorot", VaeConfig { init: Initialisation::GlorotEqual, ..base() }, Bound::iwae(2)),
    ]
}

fn data(pixels: usize) -> Vec<u8> {
    let draw = Draw { seed: 4, step: 0, stream: 0 };
    // Some exact zeros and ones, for the open cells of the logistic.
    let byte = |u: f32| ((u * 1.4 - 0.2).clamp(0.0, 1.0) * 255.0).round() as u8;
    (0..(ROWS * pixels) as u64).map(|i| byte(draw.uniform(i))).collect()
}

fn control() -> Control {
    Control { shuffle: true, warmup: KlWarmup { beta: 0.7, steps: 0 }, ..Control::new(77) }
}

/// All parameters and metrics after the steps. The parameters have moved by a descent with momentum, so that the gradients
/// of the second step are in them.
type Outcome = (Vec<(String, Vec<f64>)>, Vec<(String, f64)>);

const METRICS: [&str; 3] = ["rec", "kl", "loss"];

fn in_f64(vae: &Vae, g: &Graph) -> Outcome {
    let mut run = Interp::<f64>::new(g);
    run.set_data("train", &data(vae.config.pixels()), vae.config.pixels()).unwrap();
    run.control = control();
    for init in vae.init(1) {
        run.set(&init.name, &init.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
    }
    (0..STEPS).for_each(|_| run.step());
    let names = vae.parameters().into_iter().map(|(name, _)| name);
    let parameters = names.map(|name| (name.clone(), run.get(&name).unwrap().to_vec())).collect();
    (parameters, METRICS.iter().map(|m| (m.to_string(), run.metric(m).unwrap())).collect())
}

fn on(exec: &mut dyn Exec, vae: &Vae, g: &Graph, fusion: Fusion) -> Outcome {
    let plan = Plan::build(g, fusion).unwrap();
    plan.verify().unwrap();
    let step = exec.bind(&plan).unwrap();
    exec.set_data("train", &data(vae.config.pixels()), vae.config.pixels()).unwrap();
    vae.init(1).iter().for_each(|i| exec.write(&i.name, &i.values).unwrap());
    *exec.control_mut() = control();
    exec.run(step, STEPS).unwrap();
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    let names = vae.parameters().into_iter().map(|(name, _)| name);
    let parameters = names.map(|name| (name.clone(), wide(exec.read(&name).unwrap()))).collect();
    let metrics = exec.take_metrics(step).unwrap();
    (parameters, METRICS.iter().map(|m| (m.to_string(), metrics[*m])).collect())
}

fn compare(what: &str, found: &Outcome, expected: &Outcome) {
    for ((name, f), (_, e)) in found.0.iter().zip(&expected.0) {
        let scale = e.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        let error = f.iter().zip(e).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / scale;
        assert!(error < 2e-4, "{what}: {name} differs by {error:e}");
    }
    for ((name, f), (_, e)) in found.1.iter().zip(&expected.1) {
        assert!((f - e).abs() < 2e-5 * e.abs().max(1.0), "{what}: {name} is {f}, expected {e}");
    }
}

#[test]
fn every_objective_agrees_with_the_interpreter_on_every_executor() {
    let objective = |bound| Objective { optimizer: Optimizer::Sgd { momentum: 0.5 }, clip: None, bound };
    for (name, config, bound) in cases() {
        bound.validate(&config).unwrap_or_else(|e| panic!("{name}: {e}"));
        let vae = Vae::new(config).unwrap();
        let g = training_graph(&vae, &objective(bound), "train", BATCH);
        let expected = in_f64(&vae, &g);
        assert!(expected.0.iter().flat_map(|(_, v)| v).all(|v| v.is_finite()), "{name}");
        for fusion in [Fusion::all(), Fusion::none()] {
            compare(&format!("{name}, {fusion:?}"), &on(&mut Cpu::new(2), &vae, &g, fusion), &expected);
        }
        #[cfg(feature = "cuda")]
        if let Some(mut gpu) = common::cuda(Precision::F32) {
            compare(&format!("{name}, cuda"), &on(&mut gpu, &vae, &g, Fusion::all()), &expected);
        }
    }
}

/// The evaluation has no β in it and does not know the bound: it is −ELBO.
#[test]
fn the_reported_terms_are_those_of_the_elbo_with_beta_one() {
    for (name, config, _) in cases() {
        let vae = Vae::new(config).unwrap();
        let g = evaluation_graph(&vae, "train", BATCH);
        let sampled = Bound { kl: KlTerm::MonteCarlo, ..Bound::ELBO };
        let objective = Objective { optimizer: Optimizer::adam(), clip: None, bound: sampled };
        let trained = training_graph(&vae, &objective, "train", BATCH);
        let run = |g: &Graph| {
            let mut run = Interp::<f64>::new(g);
            run.set_data("train", &data(vae.config.pixels()), vae.config.pixels()).unwrap();
            run.control = control();
            for init in vae.init(1) {
                run.set(&init.name, &init.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()).unwrap();
            }
            run.step();
            ["rec", "kl"].map(|m| run.metric(m).unwrap())
        };
        let (evaluated, learned) = (run(&g), run(&trained));
        let optimal = matches!(vae.config.likelihood, Likelihood::GaussianOptimal { .. });
        assert!(optimal || (evaluated[0] - learned[0]).abs() < 1e-9, "{name}: {evaluated:?} {learned:?}");
        if !vae.upper.is_empty() {
            assert!((evaluated[1] - learned[1]).abs() < 1e-9, "{name}: the sampled KL");
        } else {
            assert!(evaluated[1] > 0.0, "{name}: a divergence in closed form is positive");
        }
    }
}
