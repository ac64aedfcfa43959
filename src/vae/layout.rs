//! How the parameters lie in a checkpoint: as PyTorch's `nn.Linear` has them.
//!
//! In memory W is `[in, out]` and two heads that read the same input are one matrix. In a file every layer stands by
//! itself, `{layer}.weight` as `[out, in]` and `{layer}.bias` as `[out]`, so that this module loads it:
//!
//! ```python
//! from torch import nn
//! from safetensors.torch import load_file
//!
//! class VAE(nn.Module):                               # 784-400-20-400-784
//!     def __init__(self):
//!         super().__init__()
//!         self.encoder = nn.ModuleDict({"0": nn.Linear(784, 400), "mu": nn.Linear(400, 20), "logvar": nn.Linear(400, 20)})
//!         self.decoder = nn.ModuleDict({"0": nn.Linear(20, 400), "logits": nn.Linear(400, 784)})
//!
//! tensors = load_file("checkpoint.safetensors")
//! VAE().load_state_dict({k: v for k, v in tensors.items() if k.startswith(("encoder.", "decoder."))})
//! ```
//!
//! More hidden layers are `"1"`, `"2"`, …; where every pixel has a spread of its own the decoder ends in `"mu"` and
//! `"sigma"` instead of `"logits"`, and where all share one it ends in `"mu"` beside the single number `decoder.sigma`. An
//! encoder whose spread is log σ has `"log_sigma"` for `"logvar"`. Further stochastic layers are `encoder2`, `decoder2`, …, like
//! the encoder. The optimiser's moments have the same shapes under `adam.m.…`, `adam.v.…` or `sgd.m.…`.
//!
//! `elbo export` writes the same names and shapes without the moments, in f32, bf16 or f16. The other way round, a file
//! whose tensors PyTorch made smaller is read as it is, if it keeps the metadata, which says what the model is:
//!
//! ```python
//! from safetensors import safe_open
//! from safetensors.torch import load_file, save_file
//!
//! metadata = safe_open("checkpoint.safetensors", "pt").metadata()
//! save_file({k: v.bfloat16() for k, v in tensors.items()}, "small.safetensors", metadata)
//! ```

#[cfg(test)]
mod tests {
    use super::super::{Likelihood, Spread, StochasticLayer, Vae, VaeConfig};

    #[test]
    fn names_and_shapes_are_those_of_the_documented_module() {
        let params = Vae::new(VaeConfig::new(20)).unwrap().params();
        let tensors = params.iter().flat_map(|p| &p.tensors);
        let mut found: Vec<(String, Vec<usize>)> = tensors.map(|t| (t.name.clone(), t.shape.clone())).collect();
        let mut expected: [(&str, &[usize]); 10] = [
            ("encoder.0.weight", &[400, 784]),
            ("encoder.0.bias", &[400]),
            ("encoder.mu.weight", &[20, 400]),
            ("encoder.mu.bias", &[20]),
            ("encoder.logvar.weight", &[20, 400]),
            ("encoder.logvar.bias", &[20]),
            ("decoder.0.weight", &[400, 20]),
            ("decoder.0.bias", &[400]),
            ("decoder.logits.weight", &[784, 400]),
            ("decoder.logits.bias", &[784]),
        ];
        found.sort();
        expected.sort();
        assert_eq!(found, expected.map(|(name, shape)| (name.to_string(), shape.to_vec())));
    }

    #[test]
    fn the_tensors_cover_every_parameter_once() {
        let upper = vec![StochasticLayer { encoder: vec![3], latent: 2, decoder: vec![4, 3] }];
        for likelihood in [Likelihood::gaussian(0.1), Likelihood::gaussian_shared(0.1)] {
            let config = VaeConfig { image: [2, 3], likelihood, ..VaeConfig::new(2).hidden(&[5, 4]) };
            let vae = Vae::new(VaeConfig { upper: upper.clone(), spread: Spread::LogSigma, ..config }).unwrap();
            let params = vae.params();
            for param in params.iter() {
                let mut seen = vec![0; param.shape.size()];
                assert_eq!((param.initial)(0).len(), seen.len());
                param.tensors.iter().flat_map(|t| t.positions()).for_each(|i| seen[i] += 1);
                assert!(seen.iter().all(|&n| n == 1), "{}", param.name);
            }
            let mut tensors = params.iter().flat_map(|p| &p.tensors);
            assert!(tensors.any(|t| t.name == "encoder2.log_sigma.weight"));
        }
    }
}
