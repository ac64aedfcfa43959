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

use super::Vae;
use super::decoder::SHARED_SIGMA;

/// One tensor of a checkpoint and the part of a slot it is: a range of columns of a weight `[in, out]`, transposed, or
/// the same range of a bias `[out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The name in the checkpoint.
    pub tensor: String,
    /// The parameter's slot.
    pub slot: String,
    /// The length of the slot's rows: the layer's output width.
    pub width: usize,
    /// The first column.
    pub start: usize,
    /// The number of columns.
    pub len: usize,
    /// The number of rows for a weight; none for a bias.
    pub rows: Option<usize>,
}

impl Piece {
    /// The tensor's shape in a checkpoint: `[len, rows]` or `[len]`.
    pub fn shape(&self) -> Vec<usize> {
        std::iter::once(self.len).chain(self.rows).collect()
    }

    /// The number of elements of the slot.
    pub fn slot_size(&self) -> usize {
        self.width * self.rows.unwrap_or(1)
    }

    /// The positions in the slot of the tensor's elements, in the tensor's order.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        let (width, rows) = (self.width, self.rows.unwrap_or(1));
        (self.start..self.start + self.len).flat_map(move |column| (0..rows).map(move |row| row * width + column))
    }
}

impl Vae {
    /// Every parameter tensor of a checkpoint.
    pub fn layout(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for layer in self.layers() {
            let own = [layer.name.clone()];
            let parts = if layer.parts.is_empty() { &own[..] } else { &layer.parts[..] };
            let (width, len) = (layer.fan_out, layer.fan_out / parts.len());
            for (i, part) in parts.iter().enumerate() {
                let piece = |kind: &str, slot: String, rows: Option<usize>| {
                    let tensor = format!("{part}.{kind}");
                    Piece { tensor, slot, width, start: i * len, len, rows }
                };
                pieces.push(piece("weight", layer.weight_name(), Some(layer.fan_in)));
                pieces.push(piece("bias", layer.bias_name(), None));
            }
        }
        if self.config.likelihood.has_shared_sigma() {
            let (tensor, slot) = (SHARED_SIGMA.to_string(), SHARED_SIGMA.to_string());
            pieces.push(Piece { tensor, slot, width: 1, start: 0, len: 1, rows: None });
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Likelihood, Spread, StochasticLayer, VaeConfig};
    use super::*;

    #[test]
    fn names_and_shapes_are_those_of_the_documented_module() {
        let vae = Vae::new(VaeConfig::new(20)).unwrap();
        let found: Vec<(String, Vec<usize>)> = vae.layout().iter().map(|p| (p.tensor.clone(), p.shape())).collect();
        let expected: [(&str, &[usize]); 10] = [
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
        assert_eq!(found, expected.map(|(name, shape)| (name.to_string(), shape.to_vec())));
    }

    #[test]
    fn the_pieces_cover_every_slot_once() {
        let upper = vec![StochasticLayer { encoder: vec![3], latent: 2, decoder: vec![4, 3] }];
        for likelihood in [Likelihood::Gaussian { sigma_floor: 0.1 }, Likelihood::GaussianShared { sigma_floor: 0.1 }] {
            let config = VaeConfig { image: [2, 3], likelihood, ..VaeConfig::new(2).hidden(&[5, 4]) };
            let vae = Vae::new(VaeConfig { upper: upper.clone(), spread: Spread::LogSigma, ..config }).unwrap();
            let (inits, layout) = (vae.init(0), vae.layout());
            for init in &inits {
                let mut seen = vec![0; init.values.len()];
                for piece in layout.iter().filter(|p| p.slot == init.name) {
                    assert_eq!(piece.slot_size(), seen.len());
                    piece.positions().for_each(|i| seen[i] += 1);
                }
                assert!(seen.iter().all(|&n| n == 1), "{}", init.name);
            }
            let named: Vec<(String, Vec<usize>)> = inits.into_iter().map(|i| (i.name, i.shape)).collect();
            assert_eq!(named, vae.parameters());
            assert!(layout.iter().any(|p| p.tensor == "encoder2.log_sigma.weight"));
        }
    }

    #[test]
    fn weights_are_transposed() {
        let (tensor, slot) = ("t".to_string(), "s".to_string());
        let piece = Piece { tensor, slot, width: 4, start: 2, len: 2, rows: Some(3) };
        assert_eq!(piece.shape(), [2, 3]);
        assert_eq!(piece.positions().collect::<Vec<_>>(), [2, 6, 10, 3, 7, 11]);
    }
}
