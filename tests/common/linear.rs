//! Linear Gaussian models, of which log p(x) is known in closed form.

use elbo::engine::device::{Device, Executor};
use elbo::engine::nn::Activation;
use elbo::vae::{DeviceVae, Likelihood, Vae, VaeConfig};

/// The CPU with so many threads.
pub fn cpu(threads: usize) -> Executor {
    Device::Cpu { threads }.open().unwrap()
}

/// r with floor + softplus(r) = sigma.
pub fn raw_sigma(sigma: f64) -> f32 {
    (sigma - 0.01).exp_m1().ln() as f32
}

/// A linear Gaussian model of `latent` dimensions with the decoder's weights given, `[K, D]`, and q(z|x) = N(m, diag e^lv)
/// whatever x is.
pub fn linear(executor: Executor, w: &[f32], mu: &[f32], sigma: f64, m: &[f32], lv: &[f32]) -> DeviceVae {
    let latent = m.len();
    let config = VaeConfig {
        image: [1, mu.len()],
        activation: Activation::Identity,
        likelihood: Likelihood::gaussian_shared(0.01),
        ..VaeConfig::new(latent).hidden(&[])
    };
    let mut model = DeviceVae::initial_on(Vae::new(config).unwrap(), 1, executor).unwrap();
    let bias: Vec<f32> = m.iter().chain(lv).copied().collect();
    let mut write = |name: &str, values: &[f32]| model.state.write(name, values).unwrap();
    write("encoder.heads.weight", &vec![0.0; mu.len() * 2 * latent]);
    write("encoder.heads.bias", &bias);
    write("decoder.mu.weight", w);
    write("decoder.mu.bias", mu);
    write("decoder.sigma", &[raw_sigma(sigma)]);
    model
}
