//! Estimators of log p(x) on models where log p(x) is known.
//!
//! The linear Gaussian model with W = [[1, ½], [0, −1], [2, ¼]], μ = (.1, −.2, .3), σ² = ½ and the image x = (.7, .4, −1.1) has
//! log p(x) = −5.268787639681589 and the posterior N((−.3721, −.1533), ·) by closed forms (Tipping & Bishop 1999; see
//! `ppca.rs`), computed elsewhere.

mod common;

use common::linear::{cpu, linear};
use elbo::data::{Dataset, Split};
use elbo::engine::device::Precision;
use elbo::engine::nn::Activation;
use elbo::study::evidence::{
    Annealing, Estimate, Moments, Observed, Proposal, Quadrature, Sampling, Summary, ais, harmonic_mean, importance,
    log_weights, nll, pairwise_log_likelihood, quadrature, resample, sandwich, simulate,
};
use elbo::vae::{Binarisation, DeviceVae, DiagonalGaussian, Likelihood, StochasticLayer, Vae, VaeConfig};
use elbo::{Executor, Graph, Interp, Key, Rows};

const LOG_P: f64 = -5.268787639681589;
const POSTERIOR_MEAN: [f64; 2] = [-0.3721254355400697, -0.15331010452961674];
const POSTERIOR_COVARIANCE: [f64; 4] =
    [0.10104529616724739, -0.05574912891886063, -0.05574912891886063, 0.30662020905923343];
const X: [f32; 3] = [0.7, 0.4, -1.1];

/// The model of the golden vector with q = N((.2, −.3), diag(.3, .6)), or another.
fn golden(executor: Executor, m: [f32; 2], d: [f32; 2]) -> DeviceVae {
    let w = [1.0, 0.0, 2.0, 0.5, -1.0, 0.25];
    linear(executor, &w, &[0.1, -0.2, 0.3], 0.5f64.sqrt(), &m, &d.map(f32::ln))
}

const Q: ([f32; 2], [f32; 2]) = ([0.2, -0.3], [0.3, 0.6]);
const ELBO: f64 = -7.745119042820065;

/// One dimension, one pixel: z ~ N(0, 1), x ~ N(z, 0.5625) with x = 0.46875: the posterior is N(.3, .6²) exactly, and log p(x)
/// that of N(0, 1.5625).
fn one(executor: Executor, m: f32, sigma: f32) -> (DeviceVae, f64) {
    let log_p = -0.5 * (0.46875f64.powi(2) / 1.5625 + (2.0 * std::f64::consts::PI * 1.5625).ln());
    (linear(executor, &[1.0], &[0.0], 0.75, &[m], &[2.0 * sigma.ln()]), log_p)
}

fn sampling(samples: usize, bounds: &[usize]) -> Sampling {
    Sampling { samples, bounds: bounds.to_vec(), seed: 11 }
}

#[track_caller]
fn within(found: Estimate, expected: f64, errors: f64) {
    let off = (found.value - expected).abs();
    assert!(off <= errors * found.standard_error + 1e-5, "{found:?}, expected {expected}");
    assert!(found.standard_error < 0.1, "{found:?} says nothing");
}

#[test]
fn importance_sampling_and_the_prior_find_the_closed_form() {
    let mut model = golden(cpu(2), Q.0, Q.1);
    let x = Observed::encode(&mut model, X.to_vec()).unwrap();
    assert_eq!((x.images(), &x.mu[..]), (1, &Q.0[..]));
    for (proposal, samples) in [(Proposal::Posterior, 40_000), (Proposal::Prior, 60_000)] {
        let found = importance(&mut model, &x, proposal, &sampling(samples, &[])).unwrap()[0].estimate;
        within(found, LOG_P, 4.0);
        assert_eq!(found.samples, samples as u64);
        assert!(found.effective_samples.unwrap() < 0.9 * samples as f64);
    }
}

#[test]
fn the_bounds_rise_with_k_and_the_first_is_the_elbo() {
    let mut model = golden(cpu(2), Q.0, Q.1);
    let x = Observed::encode(&mut model, X.to_vec()).unwrap();
    let found = importance(&mut model, &x, Proposal::Posterior, &sampling(400_000, &[1, 10, 100])).unwrap();
    let bounds = &found[0].bounds;
    assert_eq!(bounds.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 10, 100]);
    within(bounds[0].1, ELBO, 4.0);
    for pair in bounds.windows(2) {
        let (low, high) = (pair[0].1, pair[1].1);
        let error = low.standard_error.hypot(high.standard_error);
        assert!(high.value - low.value > 2.0 * error, "L_{} = {low:?}, L_{} = {high:?}", pair[0].0, pair[1].0);
        assert!(high.value < LOG_P + 3.0 * high.standard_error, "{high:?}");
    }
}

#[test]
fn with_the_posterior_as_q_every_weight_is_p_of_x() {
    let (mut model, log_p) = one(cpu(2), 0.3, 0.6);
    let x = Observed::encode(&mut model, vec![0.46875; 3]).unwrap();
    let found = importance(&mut model, &x, Proposal::Posterior, &sampling(500, &[1, 500])).unwrap();
    for image in &found {
        // Nothing but rounding is left of the variance.
        assert!((image.estimate.value - log_p).abs() < 1e-5, "{image:?}, expected {log_p}");
        assert!(image.estimate.standard_error < 1e-6 && image.estimate.effective_samples.unwrap() > 499.99);
        assert!((image.bounds[0].1.value - log_p).abs() < 1e-5 && image.bounds[0].1.standard_error < 1e-6);
    }
}

#[test]
fn the_gap_falls_as_chi_square_over_two_k() {
    // p(z|x) = N(.3, .6²), q = N(0, .8²): 1 + χ² = t²/(s√(2t² − s²)) exp((m − n)²/(2t² − s²)).
    let (m, s, n, t) = (0.3f64, 0.6f64, 0.0f64, 0.8f64);
    let wide = 2.0 * t * t - s * s;
    let chi = t * t / (s * wide.sqrt()) * ((m - n).powi(2) / wide).exp() - 1.0;
    assert!((chi - 0.22636610766339516).abs() < 1e-12);
    let (mut model, log_p) = one(cpu(2), 0.0, 0.8);
    let x = Observed::encode(&mut model, vec![0.46875]).unwrap();
    let found = importance(&mut model, &x, Proposal::Posterior, &sampling(1_600_000, &[1, 10, 20])).unwrap();
    let bounds = &found[0].bounds;
    within(bounds[0].1, log_p - 0.22620681643710805, 4.0);
    for &(k, bound) in &bounds[1..] {
        let rate = chi / (2 * k) as f64;
        // The next term of the expansion is of the order k⁻².
        let tolerance = 4.0 * bound.standard_error + 0.25 / (k * k) as f64;
        assert!((log_p - bound.value - rate).abs() < tolerance, "k = {k}: {} against {rate}", log_p - bound.value);
        assert!(tolerance < 0.6 * rate, "k = {k} is not resolved: ± {tolerance} of {rate}");
    }
}

#[test]
fn quadrature_is_exact_in_one_and_two_dimensions() {
    let (mut model, log_p) = one(cpu(2), 0.0, 0.8);
    let x = Observed::encode(&mut model, vec![0.46875]).unwrap();
    let found = &quadrature(&mut model, &x, &Quadrature::default()).unwrap()[0];
    // σ went through f32: 0.75 is exact to 1e-7, log p(x) to as much.
    assert!((found.log_p - log_p).abs() < 1e-6, "{found:?}, expected {log_p}");
    assert!((found.gap() - 0.22620681643710805).abs() < 2e-6 && found.error < 1e-6);

    let mut model = golden(cpu(2), Q.0, Q.1);
    let x = Observed::encode(&mut model, X.repeat(2)).unwrap();
    let settings = Quadrature { keep_posterior: true, ..Quadrature::default() };
    for found in quadrature(&mut model, &x, &settings).unwrap() {
        assert!((found.log_p - LOG_P).abs() < 1e-6, "{}", found.log_p);
        assert!((found.elbo - ELBO).abs() < 2e-6 && (found.gap() - 2.4763314031384756).abs() < 2e-6);
        assert!(found.converged(&settings));
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(&found.mean, &POSTERIOR_MEAN) && close(&found.covariance, &POSTERIOR_COVARIANCE), "{found:?}");
        // Draws from the grid have the posterior's mean.
        let mut first = Moments::default();
        found.draw(20_000, 3, 0).into_iter().for_each(|i| first.push(found.posterior[i].0[0]));
        assert!((first.mean() - POSTERIOR_MEAN[0]).abs() < 4.0 * first.standard_error());
        assert!((first.variance() - POSTERIOR_COVARIANCE[0]).abs() < 0.05 * POSTERIOR_COVARIANCE[0]);
    }
}

#[test]
fn quadrature_refines_and_widens_its_grid_as_the_mass_demands() {
    // σ = 0.02: the posterior is a needle between the points of the first grid. A pixel at 7 puts the mass near 7.
    let mut model = linear(cpu(2), &[1.0], &[0.0], 0.02, &[0.1], &[-6.0]);
    let x = Observed::encode(&mut model, vec![0.131, 7.0]).unwrap();
    let settings = Quadrature::default();
    let found = quadrature(&mut model, &x, &settings).unwrap();
    let variance = 1.0 + 0.02f64 * 0.02;
    for (image, pixel) in found.iter().zip([0.131f32, 7.0]) {
        let exact = -0.5 * (f64::from(pixel).powi(2) / variance + (2.0 * std::f64::consts::PI * variance).ln());
        assert!((image.log_p - exact).abs() < 2e-5, "{image:?}, expected {exact}");
        assert!(image.spacing < 0.1 && image.error < 1e-6, "{image:?}");
    }
    let coarse = Quadrature { finest: 0.1, ..settings };
    let found = &quadrature(&mut model, &x, &coarse).unwrap()[0];
    assert!(!found.converged(&coarse) && found.error > 1e-3, "{found:?} claims what it has not");

    // A decoder with kinks: the difference to the coarser grid is the estimate, not its square.
    let mut kinked = kinked();
    let x = Observed::encode(&mut kinked, vec![1.0; 12]).unwrap();
    let settings = Quadrature { tolerance: 0.0, ..Quadrature::of(&kinked.vae) };
    let mut at = |finest: f64| quadrature(&mut kinked, &x, &Quadrature { finest, ..settings }).unwrap().remove(0);
    let (coarse, fine) = (at(0.05), at(0.0125));
    let off = (coarse.log_p - fine.log_p).abs();
    assert!(off > coarse.error.powi(2) && off < coarse.error && fine.error < coarse.error, "{coarse:?}, {fine:?}");
    assert_eq!(Quadrature::of(&kinked.vae).tolerance, 1e-3);

    let mut deep = trained_like(3, Vec::new());
    let x = Observed::encode(&mut deep, vec![0.0; 12]).unwrap();
    let message = quadrature(&mut deep, &x, &settings).unwrap_err().to_string();
    assert!(message.contains("latent dimensions") && message.contains("ais"), "{message}");
}

/// A tanh Bernoulli model of 3 × 4 pixels with weights several times larger than initial ones, as training makes them.
fn trained_like(latent: usize, upper: Vec<StochasticLayer>) -> DeviceVae {
    scaled(latent, upper, Likelihood::bernoulli(), cpu(2))
}

fn scaled(latent: usize, upper: Vec<StochasticLayer>, likelihood: Likelihood, executor: Executor) -> DeviceVae {
    let binary = likelihood == Likelihood::bernoulli();
    let config = VaeConfig {
        image: [3, 4],
        activation: Activation::Tanh,
        likelihood,
        upper,
        binarisation: if binary { Binarisation::Dynamic } else { Binarisation::Grey },
        ..VaeConfig::new(latent).hidden(&[8])
    };
    let vae = Vae::new(config).unwrap();
    let mut model = DeviceVae::initial_on(vae.clone(), 4, executor).unwrap();
    let decoder = |name: &str| name.starts_with("decoder") && name != "decoder.sigma";
    for param in vae.params().iter().filter(|param| decoder(&param.name)) {
        let larger: Vec<f32> = (param.initial)(4).iter().map(|v| 3.0 * v).collect();
        model.state.write(&param.name, &larger).unwrap();
    }
    model
}

/// The same with ReLU.
fn kinked() -> DeviceVae {
    let mut model = trained_like(2, Vec::new());
    model.vae = Vae::new(VaeConfig { activation: Activation::Relu, ..model.vae.config.clone() }).unwrap();
    model
}

/// Gives the decoder of an interpreted graph the model's numbers.
fn set_decoder(run: &mut Interp<'_, f64>, model: &DeviceVae) {
    for param in model.vae.params().iter().filter(|param| param.name.starts_with("decoder")) {
        let values: Vec<f64> = model.state.read(&param.name).unwrap().into_iter().map(f64::from).collect();
        run.set(&param.name, &values).unwrap();
    }
}

/// Some grey images, `[n, 12]`.
fn grey(n: usize) -> Dataset {
    let images = (0..n * 12).map(|i| (i * 97 % 256) as u8).collect();
    let (name, split, labels) = ("test".to_string(), Split::Test, None);
    Dataset { name, split, images, rows: n, cols: 12, width: 4, height: 3, labels }
}

const LIKELIHOODS: [Likelihood; 5] = [
    Likelihood::bernoulli(),
    Likelihood::continuous_bernoulli(),
    Likelihood::gaussian(0.3),
    Likelihood::gaussian_optimal(0.3),
    Likelihood::discretised_logistic(0.1),
];

#[test]
fn all_estimators_agree_with_quadrature_on_nonlinear_decoders() {
    for likelihood in LIKELIHOODS {
        let mut model = scaled(2, Vec::new(), likelihood, cpu(2));
        grey(3).load_into(&mut model, "test").unwrap();
        let x = Observed::read(&mut model, "test", 3, 1).unwrap();
        let exact = quadrature(&mut model, &x, &Quadrature::default()).unwrap();
        let (q, prior) = (Proposal::Posterior, Proposal::Prior);
        let by_q = importance(&mut model, &x, q, &sampling(60_000, &[1])).unwrap();
        let by_prior = importance(&mut model, &x, prior, &sampling(60_000, &[])).unwrap();
        let settings = Annealing { chains: 200, temperatures: 30, leapfrog: 4, seed: 2 };
        let annealed = ais(&mut model, &x, &settings).unwrap();
        for (i, exact) in exact.iter().enumerate() {
            assert!(exact.error < 1e-6, "{likelihood}: {exact:?}");
            for found in [by_q[i].estimate, by_prior[i].estimate, annealed[i]] {
                let off = (found.value - exact.log_p).abs();
                assert!(off < 4.0 * found.standard_error + 2e-4, "{likelihood}: {found:?}, expected {}", exact.log_p);
                assert!(found.standard_error < 0.1, "{likelihood}: {found:?} says nothing");
            }
            let elbo = by_q[i].bounds[0].1;
            assert!(
                (elbo.value - exact.elbo).abs() < 4.0 * elbo.standard_error + 2e-4,
                "{likelihood}: {elbo:?}, {exact:?}"
            );
        }
    }
}

#[test]
fn every_image_with_every_point_is_the_likelihood_row_by_row() {
    for likelihood in LIKELIHOODS {
        let model = scaled(2, Vec::new(), likelihood, cpu(1));
        let g = Graph::new();
        let z: Vec<f64> = (0..10).map(|i| f64::from(i) * 0.4 - 2.0).collect();
        let x: Vec<f64> = (0..36).map(|i| f64::from(i * 89 % 256) / 255.0).collect();
        let (points, images) = (g.tensor(&[5, 2], &z), g.tensor(&[3, 12], &x));
        let all = pairwise_log_likelihood(&model.vae, points, images.t());
        let mut run = Interp::<f64>::new(&g);
        set_decoder(&mut run, &model);
        let found = run.eval(all);
        for c in 0..5 {
            for b in 0..3 {
                let point = points.gather_rows(g.tensor(&[1], &[c as f64]));
                let image = images.gather_rows(g.tensor(&[1], &[b as f64]));
                let exact = run.eval(model.vae.log_likelihood(image, point))[0];
                assert!((found[c * 3 + b] - exact).abs() < 1e-10, "{likelihood}: {} against {exact}", found[c * 3 + b]);
            }
        }
    }
}

#[test]
fn annealing_is_a_sandwich_around_log_p() {
    let mut model = golden(cpu(2), Q.0, Q.1);
    let simulated = simulate(&mut model, 4, 1).unwrap();
    let settings = Annealing { chains: 300, temperatures: 200, leapfrog: 5, seed: 3 };
    let observed = Observed::encode(&mut model, simulated.x.clone()).unwrap();
    let exact = quadrature(&mut model, &observed, &Quadrature::default()).unwrap();
    for (both, exact) in sandwich(&mut model, &simulated, &settings).unwrap().iter().zip(exact) {
        let (low, high) = (both.forward, both.reverse);
        assert!(low.value < exact.log_p + 4.0 * low.standard_error, "{low:?}, log p(x) {}", exact.log_p);
        // All chains begin at one draw, so that their spread says less about the error than it seems.
        assert!(high.value > exact.log_p - 0.1, "{high:?}, log p(x) {}", exact.log_p);
        assert!((high.value - low.value).abs() < 0.15, "{low:?} and {high:?} are far apart");
    }
    // A path of two temperatures is a plain average over the prior; the sandwich is open.
    let short = Annealing { temperatures: 2, ..settings };
    let wide = sandwich(&mut model, &simulated, &short).unwrap();
    let mean = |f: &dyn Fn(&elbo::study::evidence::Sandwich) -> f64| wide.iter().map(f).sum::<f64>() / 4.0;
    let width = mean(&|s| s.reverse.value) - mean(&|s| s.forward.value);
    assert!(width > 0.1, "two temperatures leave {width} nats");
}

#[test]
fn annealing_goes_through_several_stochastic_layers() {
    let upper = vec![StochasticLayer { encoder: vec![6], latent: 2, decoder: vec![6] }];
    let mut model = trained_like(3, upper);
    let simulated = simulate(&mut model, 3, 2).unwrap();
    assert_eq!(simulated.z.iter().map(Vec::len).collect::<Vec<_>>(), [9, 6]);
    let x = Observed::encode(&mut model, simulated.x.clone()).unwrap();
    let settings = Annealing { chains: 400, temperatures: 150, leapfrog: 5, seed: 3 };
    let both = sandwich(&mut model, &simulated, &settings).unwrap();
    let by_q = importance(&mut model, &x, Proposal::Posterior, &sampling(60_000, &[])).unwrap();
    let by_prior = importance(&mut model, &x, Proposal::Prior, &sampling(60_000, &[])).unwrap();
    for i in 0..3 {
        for found in [by_q[i].estimate, by_prior[i].estimate] {
            let error = found.standard_error.hypot(both[i].forward.standard_error);
            assert!((found.value - both[i].forward.value).abs() < 4.0 * error, "{found:?} against {:?}", both[i]);
        }
        assert!((both[i].reverse.value - both[i].forward.value).abs() < 0.1, "{:?}", both[i]);
    }
    let bad = Annealing { chains: 0, ..settings };
    assert!(ais(&mut model, &x, &bad).unwrap_err().to_string().contains("chains"));
}

#[test]
fn the_harmonic_mean_overestimates_whatever_one_draws() {
    // Likelihood variance 0.02² in z: the variance of 1/p(x|z) is infinite. log p(x) is known.
    let mut model = linear(cpu(2), &[1.0], &[0.0], 0.02, &[0.131], &[-7.9]);
    let x = Observed::encode(&mut model, vec![0.131]).unwrap();
    let settings = Quadrature { keep_posterior: true, ..Quadrature::default() };
    let exact = &quadrature(&mut model, &x, &settings).unwrap()[0];
    let of_draws = |seed| {
        let drawn = exact.draw(10_000, seed, 0);
        harmonic_mean(&drawn.into_iter().map(|i| exact.posterior[i].1).collect::<Vec<_>>())
    };
    for seed in 0..5 {
        let found = of_draws(seed);
        assert!(found.value > exact.log_p + 1.0, "{found:?}, log p(x) {}", exact.log_p);
        // And it does not know: its own error would exclude the truth.
        assert!(found.value - exact.log_p > 4.0 * found.standard_error, "{found:?}");
    }
    // Resampled draws behave alike.
    let (mut log_w, mut log_p) = (Vec::new(), Vec::new());
    log_weights(&mut model, &x, Proposal::Posterior, 5000, 1, |_, w, p| {
        log_w.extend(w.iter().map(|&v| f64::from(v)));
        log_p.extend(p.iter().map(|&v| f64::from(v)));
    })
    .unwrap();
    let resampled: Vec<f64> = resample(&log_w, 5000, 1, 0).into_iter().map(|i| log_p[i]).collect();
    assert!(harmonic_mean(&resampled).value > exact.log_p + 1.0);
}

#[test]
fn equal_seeds_give_equal_bits_for_any_number_of_threads() {
    let all = |threads: usize, seed: u64| {
        let mut model = scaled(2, Vec::new(), Likelihood::bernoulli(), cpu(threads));
        grey(5).load_into(&mut model, "test").unwrap();
        let x = Observed::read(&mut model, "test", 5, seed).unwrap();
        let s = Sampling { samples: 1500, bounds: vec![1, 10], seed };
        let by_q = importance(&mut model, &x, Proposal::Posterior, &s).unwrap();
        let by_prior = importance(&mut model, &x, Proposal::Prior, &s).unwrap();
        let settings = Annealing { chains: 4, temperatures: 8, leapfrog: 3, seed };
        let annealed = ais(&mut model, &x, &settings).unwrap();
        let exact = quadrature(&mut model, &x, &Quadrature::default()).unwrap();
        (x, by_q, by_prior, annealed, exact)
    };
    let run = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| all(threads, seed))
    };
    let (a, b) = (run(1, 7), run(2, 7));
    assert!(a == b);
    assert!(run(1, 8).1 != a.1);
}

#[test]
fn images_are_drawn_once_and_draws_do_not_depend_on_their_number() {
    let mut model = trained_like(2, Vec::new());
    grey(6).load_into(&mut model, "test").unwrap();
    let all = Observed::read(&mut model, "test", 6, 1).unwrap();
    assert!(all.x.iter().all(|&x| x == 0.0 || x == 1.0));
    assert_eq!(Observed::read(&mut model, "test", 2, 1).unwrap(), all.part(0..2));
    assert_ne!(Observed::read(&mut model, "test", 6, 2).unwrap().x, all.x);
    let (originals, _) = model.reconstruct("test", 6, 1).unwrap();
    assert_eq!(originals, all.x, "the images of elbo reconstruct");
    // 1300 draws are two steps of 650 for one image; the count is exact.
    let s = sampling(1301, &[]);
    let whole = importance(&mut model, &all, Proposal::Posterior, &s).unwrap();
    assert_eq!(importance(&mut model, &all.part(0..2), Proposal::Posterior, &s).unwrap(), whole[..2]);
    assert!(whole.iter().all(|image| image.estimate.samples == 1301));

    let summary = nll(&mut model, "test", 6, 1301, 1).unwrap();
    assert_eq!((summary.images, summary.samples), (6, 1301.0));
    let message = nll(&mut model, "test", 7, 10, 1).unwrap_err().to_string();
    assert!(message.contains("images") && message.contains("from 1 to 6"), "{message}");
    let bad = Sampling { bounds: vec![10, 15], ..s };
    assert!(importance(&mut model, &all, Proposal::Posterior, &bad).unwrap_err().to_string().contains("multiple"));
}

#[test]
fn a_summary_has_both_errors() {
    let estimate = |value: f64| Estimate { value, standard_error: 0.3, effective_samples: Some(5.0), samples: 10 };
    let all = [estimate(-1.0), estimate(-3.0), estimate(-2.0)];
    let summary = Summary::of(&all);
    assert!((summary.nll - 2.0).abs() < 1e-12 && (summary.standard_error - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
    assert!((summary.monte_carlo_error - 0.3 / 3f64.sqrt()).abs() < 1e-12);
    assert!((Summary::of_shared(&all).monte_carlo_error - 0.3).abs() < 1e-12);
    assert_eq!((summary.effective_samples, summary.samples), (Some(5.0), 10.0));
}

#[test]
fn the_stream_in_f64_is_the_stream_of_the_plan() {
    // The same noise through the reference interpreter.
    let mut model = golden(cpu(1), Q.0, Q.1);
    let x = Observed::encode(&mut model, X.to_vec()).unwrap();
    let mut found = Vec::new();
    log_weights(&mut model, &x, Proposal::Posterior, 40, 5, |_, w, p| {
        found.extend(w.iter().zip(p).map(|(&w, &p)| (f64::from(w), f64::from(p))));
    })
    .unwrap();
    let g = Graph::new();
    let of = |v: &[f32]| g.tensor(&[1, v.len()], &v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    let first = DiagonalGaussian { mu: of(&x.mu), logvar: of(&x.logvar) };
    let z = model.vae.draw_from(first, 40).z;
    let w = model.vae.log_weights(of(&X), first, &z, false, false);
    let (log_w, log_p) = (w.log_weight(None), w.likelihood);
    let mut run = Interp::<f64>::new(&g);
    set_decoder(&mut run, &model);
    // Seeds of evaluations are moved away from those of training.
    run.at(Key::new(5u64.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(1)), Rows::in_order());
    let (log_w, log_p) = (run.eval(log_w), run.eval(log_p));
    assert_eq!(found.len(), 40);
    for (i, (w, p)) in found.into_iter().enumerate() {
        assert!((w - log_w[i]).abs() < 1e-4 && (p - log_p[i]).abs() < 1e-4, "{w} against {}", log_w[i]);
    }
}

#[test]
fn the_device_says_the_same() {
    let Some(cuda) = common::on_cuda(Precision::F32) else { return };
    let mut model = golden(cuda, Q.0, Q.1);
    let x = Observed::encode(&mut model, X.to_vec()).unwrap();
    for proposal in [Proposal::Posterior, Proposal::Prior] {
        within(importance(&mut model, &x, proposal, &sampling(3000, &[])).unwrap()[0].estimate, LOG_P, 4.0);
    }
    let exact = &quadrature(&mut model, &x, &Quadrature { spacing: 0.2, ..Quadrature::default() }).unwrap()[0];
    assert!((exact.log_p - LOG_P).abs() < 1e-6, "{exact:?}");
    let settings = Annealing { chains: 32, temperatures: 20, leapfrog: 3, seed: 1 };
    let annealed = ais(&mut model, &x, &settings).unwrap()[0];
    assert!((annealed.value - LOG_P).abs() < 4.0 * annealed.standard_error, "{annealed:?}");
}
