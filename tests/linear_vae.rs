//! A linear VAE trained by the engine reaches the maximum-likelihood solution of probabilistic PCA (Tipping & Bishop
//! 1999; Lucas et al. 2019, arXiv 1911.02469), which is known from the eigenvalues λ_1 ≥ λ_2 ≥ … of the data's covariance:
//!
//! ```text
//! σ² given:   unit i is active iff λ_i > σ²;  Var_x E[z_i|x] = 1 − σ²/λ_i,  E_x KL_i = ½ ln(λ_i/σ²)
//!             −2·(mean log p) = Σ_active (ln λ_i + 1) + Σ_others (ln σ² + λ_j/σ²) + D ln 2π
//! σ² learned: σ̂² is the mean of the λ that no unit has
//! ```
//!
//! Collapse of the other units is not the ELBO's fault: the exact likelihood has no use for them either.

use std::f64::consts::PI;

use elbo::data::{Dataset, Split};
use elbo::engine::device::{Device, Schedule};
use elbo::engine::nn::Activation;
use elbo::engine::rng::Draw;
use elbo::vae::{BETA, Bound, DeviceVae, Likelihood, Vae, VaeConfig, bound_gradients, pixels};
use elbo::{Call, Graph, Key, LrSchedule, Optimizer, Var};

const D: usize = 12;
const IMAGES: usize = 2000;
/// Standard deviations of the three directions that the data has, and of the noise around them; grey values in [0, 1].
const SIGNAL: [f64; 3] = [0.16, 0.11, 0.08];
const NOISE: f64 = 0.04;

/// Images x = ½ + Σ s_j a_j u_j + noise in three random orthonormal directions, as bytes.
fn images() -> Dataset {
    let normals = |stream: u32, n: usize| -> Vec<f64> {
        let draw = Draw { seed: 5, step: 0, stream };
        (0..n as u64).map(|i| f64::from(draw.normal(i))).collect()
    };
    let mut directions: Vec<Vec<f64>> = normals(0, 3 * D).chunks(D).map(<[f64]>::to_vec).collect();
    for i in 0..3 {
        for j in 0..i {
            let along: f64 = (0..D).map(|d| directions[i][d] * directions[j][d]).sum();
            (0..D).for_each(|d| directions[i][d] -= along * directions[j][d]);
        }
        let norm = directions[i].iter().map(|v| v * v).sum::<f64>().sqrt();
        directions[i].iter_mut().for_each(|v| *v /= norm);
    }
    let (causes, noise) = (normals(1, IMAGES * 3), normals(2, IMAGES * D));
    let pixel = |i: usize| {
        let (image, d) = (i / D, i % D);
        let signal: f64 = (0..3).map(|j| SIGNAL[j] * causes[image * 3 + j] * directions[j][d]).sum();
        ((0.5 + signal + NOISE * noise[i]).clamp(0.0, 1.0) * 255.0).round() as u8
    };
    let images = (0..IMAGES * D).map(pixel).collect();
    Dataset {
        name: "linear".into(),
        split: Split::Train,
        images,
        rows: IMAGES,
        cols: D,
        width: 4,
        height: 3,
        labels: None,
    }
}

/// The eigenvalues of the covariance of the bytes, largest first, by Jacobi's rotations.
fn eigenvalues(data: &Dataset) -> Vec<f64> {
    let mean = data.histograms().means();
    let mut s = vec![vec![0.0; D]; D];
    for image in data.images.chunks(D) {
        let r: Vec<f64> = image.iter().zip(&mean).map(|(&b, m)| f64::from(b) / 255.0 - m).collect();
        for (i, row) in s.iter_mut().enumerate() {
            row.iter_mut().zip(&r).for_each(|(v, b)| *v += r[i] * b / IMAGES as f64);
        }
    }
    for _ in 0..60 {
        for p in 0..D {
            for q in p + 1..D {
                if s[p][q].abs() < 1e-300 {
                    continue;
                }
                let angle = 0.5 * (2.0 * s[p][q]).atan2(s[q][q] - s[p][p]);
                let (sin, cos) = angle.sin_cos();
                for row in &mut s {
                    (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
                }
                let (upper, lower) = s.split_at_mut(q);
                for (a, b) in upper[p].iter_mut().zip(&mut lower[0]) {
                    (*a, *b) = (cos * *a - sin * *b, sin * *a + cos * *b);
                }
            }
        }
    }
    let mut values: Vec<f64> = (0..D).map(|i| s[i][i]).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Mean log p(x) of the best model with these active eigenvalues and σ².
fn best_log_likelihood(lambda: &[f64], active: usize, variance: f64) -> f64 {
    let used: f64 = lambda[..active].iter().map(|l| l.ln() + 1.0).sum();
    let others: f64 = lambda[active..].iter().map(|l| variance.ln() + l / variance).sum();
    -0.5 * (used + others + D as f64 * (2.0 * PI).ln())
}

/// A linear VAE with K units, trained on all images at a time; σ is fixed at `sigma`, or learned from there.
fn train(data: &Dataset, latent: usize, sigma: f64, learned: bool) -> DeviceVae {
    let floor = 1e-3;
    let config = VaeConfig {
        image: [3, 4],
        activation: Activation::Identity,
        likelihood: Likelihood::gaussian_shared(floor),
        ..VaeConfig::new(latent).hidden(&[])
    };
    let vae = Vae::new(config).unwrap();
    let mut model = DeviceVae::initial(vae.clone(), 3, Device::Cpu { threads: 2 }).unwrap();
    data.load_into(&mut model, "train").unwrap();
    let g = Graph::new();
    let step = bound_gradients(&vae, &Bound::ELBO, pixels(&g, "train", IMAGES / 4, D));
    let params: Vec<Var> = vae.encoder_params(&g).into_iter().chain(vae.decoder_params(&g)).collect();
    let grads: Vec<Var> = step.encoder.iter().chain(&step.decoder).copied().collect();
    // decoder.sigma is the last parameter.
    let moved = if learned { params.len() } else { params.len() - 1 };
    let pairs: Vec<(Var, Var)> = params.into_iter().zip(grads).take(moved).collect();
    g.optimize(Optimizer::adam(), g.schedule("rate"), &pairs);
    let mut epoch = model.executor.compile(&g, []).unwrap();
    model.state.write("decoder.sigma", &[(sigma - floor).exp_m1().ln() as f32]).unwrap();
    let epochs = 6000;
    let rate = LrSchedule::Cosine { lr: 0.02, lr_end: 1e-5, steps: 4 * epochs };
    let schedules: &[(&str, Schedule)] = &[("rate", &|done| rate.at(done)), (BETA, &|_| 1.0)];
    let call = Call { steps: 4, schedules, ..Call::once(Key::new(0)) };
    for _ in 0..epochs {
        let key = Key { step: model.state.updates as u32, ..call.key };
        epoch.run(&mut model.state, &Call { key, ..call }).unwrap();
    }
    model
}

/// Mean log p(x) that the trained model's ELBO reaches, averaged over many draws of z.
fn elbo(model: &mut DeviceVae) -> f64 {
    let runs = 40;
    -(0..runs).map(|seed| model.evaluate("train", seed).unwrap().neg_elbo()).sum::<f64>() / f64::from(runs as u32)
}

#[test]
fn with_sigma_given_the_active_units_are_those_above_it() {
    let data = images();
    let lambda = eigenvalues(&data);
    let variance = 2.0 * NOISE * NOISE;
    let active = lambda.iter().filter(|&&l| l > variance).count();
    assert_eq!(active, 3, "the construction of the data: {lambda:?}");
    let mut model = train(&data, 5, variance.sqrt(), false);
    let encoded = model.encode("train", 0).unwrap();
    assert_eq!(encoded.active_units(), active);
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(|a, b| b.total_cmp(a));
        values
    };
    let (kl, spread) = (sorted(encoded.kl_per_dimension()), sorted(encoded.variance_of_means()));
    for i in 0..5 {
        let (expected_kl, expected_spread) = match i < active {
            true => (0.5 * (lambda[i] / variance).ln(), 1.0 - variance / lambda[i]),
            false => (0.0, 0.0),
        };
        assert!((kl[i] - expected_kl).abs() < 0.02, "KL {kl:?}, unit {i} expected {expected_kl}");
        assert!(
            (spread[i] - expected_spread).abs() < 0.02,
            "variances {spread:?}, unit {i} expected {expected_spread}"
        );
    }
    let (found, best) = (elbo(&mut model), best_log_likelihood(&lambda, active, variance));
    assert!((found - best).abs() < 0.03, "mean log p(x) {found}, the best is {best}");
}

#[test]
fn a_learned_sigma_is_that_of_maximum_likelihood() {
    let data = images();
    let lambda = eigenvalues(&data);
    let variance = lambda[3..].iter().sum::<f64>() / (D - 3) as f64;
    let mut model = train(&data, 3, 0.3, true);
    let raw = f64::from(model.state.read("decoder.sigma").unwrap()[0]);
    let sigma = 1e-3 + raw.exp().ln_1p();
    assert!((sigma / variance.sqrt() - 1.0).abs() < 0.01, "sigma {sigma}, expected {}", variance.sqrt());
    let (found, best) = (elbo(&mut model), best_log_likelihood(&lambda, 3, variance));
    assert!((found - best).abs() < 0.03, "mean log p(x) {found}, the best is {best}");
    assert_eq!(model.encode("train", 0).unwrap().active_units(), 3);
}
