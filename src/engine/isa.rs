//! Which vector instructions this processor has, asked once at run time.
//!
//! The crate is compiled for the baseline of its target and picks wider code when it runs, so that one binary is
//! fast everywhere. (WebAssembly cannot be asked: there the features it is compiled with decide, and a module with others
//! than its host knows is refused whole.) Two ways to use the answer: [`Isa::run`] compiles a plain loop once per instruction set and lets
//! the compiler vectorise it; the matrix product has hand-written micro-kernels and matches on [`Isa`] itself. Which
//! *tile unit* a processor has is another question, asked in [`tiles`](crate::engine::steps::gemm::tiles).

use std::fmt;
use std::sync::OnceLock;

use crate::engine::error::{Error, Result};

/// An instruction set the CPU kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Whatever the compilation target guarantees (SSE2 on x86-64).
    Portable,
    /// WebAssembly's 128-bit vectors, without a fused multiply-add: the bits are those of [`Isa::Portable`].
    Simd128,
    /// Advanced SIMD of 64-bit Arm: 128-bit vectors, fused multiply-add.
    Neon,
    /// AVX2 and FMA: 256-bit vectors.
    Avx2,
    /// AVX-512 F, VL, DQ and BW: 512-bit vectors and masks.
    Avx512,
}

impl Isa {
    /// The widest instruction set of this processor; `ELBO_ISA=portable|neon|avx2|avx512` asks for a narrower one.
    ///
    /// The environment is read once. A name the processor lacks is ignored, so that the result can always be executed;
    /// the command refuses it first ([`Isa::asked`]).
    pub fn detect() -> Isa {
        static FOUND: OnceLock<Isa> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let widest = *Isa::available().last().expect("portable is always there");
            Isa::asked().ok().flatten().unwrap_or(widest)
        })
    }

    /// What `ELBO_ISA` asks for; `None` when it is not set.
    ///
    /// # Errors
    /// [`Error::Argument`] when this processor has no such instruction set.
    pub fn asked() -> Result<Option<Isa>> {
        let Ok(name) = std::env::var("ELBO_ISA") else { return Ok(None) };
        let all = Isa::available();
        let named = all.iter().find(|isa| isa.to_string() == name.to_lowercase());
        let names: Vec<String> = all.iter().map(Isa::to_string).collect();
        let wrong = || Error::argument("the variable ELBO_ISA", format!("\"{name}\""), names.join(", "));
        named.copied().map(Some).ok_or_else(wrong)
    }

    /// Every instruction set this processor can execute, narrowest first.
    pub fn available() -> Vec<Isa> {
        #[cfg_attr(all(target_arch = "wasm32", not(target_feature = "simd128")), expect(unused_mut))]
        let mut all = vec![Isa::Portable];
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        all.push(Isa::Simd128);
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            all.push(Isa::Neon);
        }
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                all.push(Isa::Avx2);
            }
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                all.push(Isa::Avx512);
            }
        }
        all
    }

    /// Runs `f` compiled for this instruction set: plain loops inside are vectorised to its width.
    ///
    /// No fused multiply-add is introduced (Rust never contracts), so every instruction set gives the same bits.
    #[inline]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            // SAFETY: `detect` and `available` return this variant only where the processor has these features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { run_avx512(f) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_avx2(f) },
            _ => f(),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Simd128 => "simd128",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}

/// # Safety
/// The processor must have AVX-512 F, VL, DQ, BW, AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn run_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}
