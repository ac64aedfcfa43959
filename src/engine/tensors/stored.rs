//! The number types that a tensor of a file can have. In memory all are f32: the master weights.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Stored {
    /// IEEE 754 binary32, as in memory.
    #[default]
    F32,
    /// The upper half of an f32: its range, and 7 bits after the point. Rounding is off by at most 2⁻⁸ of the number.
    Bf16,
    /// IEEE 754 binary16: 10 bits after the point, up to 65504. Rounding is off by at most 2⁻¹¹ of the number, below 2⁻¹⁴
    /// by at most 2⁻²⁵.
    F16,
}

impl Stored {
    /// Every type, widest first.
    pub const ALL: &'static [Stored] = &[Stored::F32, Stored::Bf16, Stored::F16];

    /// Bytes of a number.
    pub fn size(self) -> usize {
        if self == Stored::F32 { 4 } else { 2 }
    }

    /// The largest number.
    pub fn largest(self) -> f32 {
        match self {
            Stored::F32 => f32::MAX,
            Stored::Bf16 => bf16::MAX.to_f32(),
            Stored::F16 => f16::MAX.to_f32(),
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Stored::F32 => Dtype::F32,
            Stored::Bf16 => Dtype::BF16,
            Stored::F16 => Dtype::F16,
        }
    }

    pub(super) fn of(dtype: Dtype) -> Option<Stored> {
        Stored::ALL.iter().copied().find(|s| s.dtype() == dtype)
    }

    /// Numbers as little-endian bytes, each rounded to the nearest of this type, ties to even.
    ///
    /// # Errors
    /// The first finite number that rounds to infinity.
    pub fn encode(self, values: impl Iterator<Item = f32>) -> Result<Vec<u8>, f32> {
        let mut bytes = Vec::with_capacity(self.size() * values.size_hint().0);
        for value in values {
            let (fits, short) = match self {
                Stored::F32 => {
                    bytes.extend(value.to_le_bytes());
                    continue;
                }
                Stored::Bf16 => (bf16::from_f32(value).is_finite(), bf16::from_f32(value).to_le_bytes()),
                Stored::F16 => (f16::from_f32(value).is_finite(), f16::from_f32(value).to_le_bytes()),
            };
            if value.is_finite() && !fits {
                return Err(value);
            }
            bytes.extend(short);
        }
        Ok(bytes)
    }

    /// The numbers in little-endian bytes, exactly: every number of the smaller types is one of f32.
    pub fn decode(self, bytes: &[u8]) -> impl Iterator<Item = f32> {
        bytes.chunks_exact(self.size()).map(move |b| match (self, b) {
            (Stored::Bf16, &[low, high]) => bf16::from_le_bytes([low, high]).to_f32(),
            (Stored::F16, &[low, high]) => f16::from_le_bytes([low, high]).to_f32(),
            (_, b) => f32::from_le_bytes(b.try_into().expect("four bytes")),
        })
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stored::F32 => "f32",
            Stored::Bf16 => "bf16",
            Stored::F16 => "f16",
        })
    }
}

impl FromStr for Stored {
    type Err = String;

    fn from_str(name: &str) -> Result<Stored, String> {
        let known = Stored::ALL.iter().find(|s| s.to_string() == name).copied();
        known.ok_or_else(|| format!("\"{name}\" is no number type of a file; f32, bf16 and f16 are known"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Draw;

    /// Every pattern of 16 bits means what IEEE 754 says, computed here from sign, exponent and fraction in f64.
    #[test]
    fn all_numbers_of_sixteen_bits_are_read_exactly() {
        for (stored, fraction_bits, bias) in [(Stored::F16, 10, 15), (Stored::Bf16, 7, 127)] {
            let top = (1u16 << (15 - fraction_bits)) - 1;
            for bits in 0..=u16::MAX {
                let found = stored.decode(&bits.to_le_bytes()).next().unwrap();
                let (exponent, fraction) = (bits >> fraction_bits & top, bits & ((1 << fraction_bits) - 1));
                let part = f64::from(fraction) / f64::from(1u32 << fraction_bits);
                let size = match exponent {
                    0 => part * 2f64.powi(1 - bias),
                    e if e < top => (1.0 + part) * 2f64.powi(i32::from(e) - bias),
                    _ if fraction == 0 => f64::INFINITY,
                    _ => f64::NAN,
                };
                let expected = if bits >> 15 == 1 { -size } else { size };
                assert!(f64::from(found) == expected || found.is_nan() && expected.is_nan(), "{stored} {bits:#06x}");
                assert_eq!(found.is_sign_negative(), bits >> 15 == 1);
                if found.is_finite() {
                    assert_eq!(stored.encode([found].into_iter()).unwrap(), bits.to_le_bytes(), "and written back");
                }
            }
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_ties_to_even() {
        let round = |stored: Stored, v: f32| {
            let bytes = stored.encode([v].into_iter()).unwrap();
            stored.decode(&bytes).next().unwrap()
        };
        for (stored, step) in [(Stored::F16, 2f32.powi(-10)), (Stored::Bf16, 2f32.powi(-7))] {
            assert_eq!(round(stored, 1.0 + 0.5 * step), 1.0, "{stored}: down to even");
            assert_eq!(round(stored, 1.0 + 1.5 * step), 1.0 + 2.0 * step, "{stored}: up to even");
            assert_eq!(round(stored, 1.0 + 0.5 * step + f32::EPSILON), 1.0 + step, "{stored}: above the middle");
            assert_eq!(round(stored, -1.0 - 0.5 * step), -1.0);
            let draw = Draw { seed: 1, step: 0, stream: 0 };
            for i in 0..20_000 {
                // Magnitudes from 2⁻³⁰ to 2¹⁴.
                let v = draw.normal(i) * 2f32.powi((i % 40) as i32 - 28);
                let allowed = (0.5 * step * v.abs()).max(if stored == Stored::F16 { 2f32.powi(-25) } else { 0.0 });
                assert!((round(stored, v) - v).abs() <= allowed, "{stored}: {v:e} became {:e}", round(stored, v));
            }
        }
        assert_eq!(round(Stored::F32, 0.1), 0.1);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let encode = |stored: Stored, v: f32| stored.encode([1.0, v].into_iter()).map(|bytes| bytes.len());
        assert_eq!(encode(Stored::F16, 65519.99), Ok(4));
        assert_eq!(encode(Stored::F16, 65520.0), Err(65520.0));
        assert_eq!(encode(Stored::F16, -1e5), Err(-1e5));
        assert_eq!(encode(Stored::Bf16, 65520.0), Ok(4));
        assert_eq!(encode(Stored::Bf16, f32::MAX), Err(f32::MAX));
        assert_eq!(encode(Stored::F32, f32::MAX), Ok(8));
        assert_eq!([Stored::F16.largest(), Stored::F32.largest()], [65504.0, f32::MAX]);
    }

    #[test]
    fn names_are_read_back() {
        Stored::ALL.iter().for_each(|s| assert_eq!(s.to_string().parse(), Ok(*s)));
        assert!("f64".parse::<Stored>().unwrap_err().contains("bf16"));
    }
}
