//! Random numbers that are a pure function of (seed, step, stream, element index).
//!
//! There is no generator state: element `i` of a draw is computed from its coordinates alone, so it does not depend on
//! threads, on batch splits or on the device, and a backward pass draws the forward pass's noise again instead of
//! storing it. The arithmetic is fixed to the last rounding, so the same seed gives the same bits on every processor.
//! To write a twin of this file in another language, follow these steps; ⊕ ⊖ ⊗ are single correctly rounded `f32`
//! operations (in CUDA C `__fadd_rn`, `__fsub_rn`, `__fmul_rn`), nothing is fused, nothing is reordered.
//! `tests/golden/philox.py` is such a twin in numpy.
//!
//! 1. **Words.** Elements 4b … 4b+3 come from the block w₀ w₁ w₂ w₃ = Philox4x32-10 of counter (b, step, stream, 0)
//!    and key (low half of the seed, high half).
//! 2. **Uniform.** Element 4b+j is ⌊wⱼ/2⁸⌋ ⊗ 2⁻²⁴ (exact), in [0, 1).
//! 3. **Normal.** Elements 4b, 4b+1 come from (w₀, w₁) and 4b+2, 4b+3 from (w₂, w₃) by Box and Muller:
//!    v = (2²⁴ − ⌊w₀/2⁸⌋) ⊗ 2⁻²⁴ in (0, 1], radius = √(−2 ⊗ ln v) ([`unit_log`]; √ correctly rounded),
//!    (s, c) = [`sincospi`]`(⌊w₁/2⁸⌋)`; the elements are radius ⊗ c and radius ⊗ s. |element| ≤ 5.77.
//! 4. **Permutation.** See [`Permutation`].
//!
//! The cipher and its test vectors: Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, 2011.

/// The stream of operands of timings, whose values do not matter.
pub const OPERANDS: u32 = 0;
/// The streams of initial parameters, one per array, from this one on: far from those of a step, because a run begins
/// with the same seed.
pub const PARAMETERS: u32 = 0x1000;

use crate::engine::isa::Isa;
use crate::engine::math::single;

/// Philox4x32-10: 128 random bits for each counter and key, by ten rounds of multiplication and exclusive or.
#[inline]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    rounds(counter.map(u64::from), key).map(|word| word as u32)
}

/// Multipliers of the two halves, and what is added to the key after each round (golden ratio, √3 − 1).
const MULTIPLY: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const KEY_STEP: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The rounds of Philox on words kept in the low halves of `u64`; the high halves hold leftovers that never come down.
///
/// In this form a round of a vectorised loop is two widening multiplications, two shifts and the exclusive ors;
/// splitting each product into two `u32` would cost shuffles.
#[inline(always)]
fn rounds(counter: [u64; 4], key: [u32; 2]) -> [u64; 4] {
    const LOW: u64 = 0xffff_ffff;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let a = (c0 & LOW) * MULTIPLY[0];
        let b = (c2 & LOW) * MULTIPLY[1];
        (c0, c1, c2, c3) = ((b >> 32) ^ c1 ^ u64::from(k0), b, (a >> 32) ^ c3 ^ u64::from(k1), a);
        k0 = k0.wrapping_add(KEY_STEP[0]);
        k1 = k1.wrapping_add(KEY_STEP[1]);
    }
    [c0, c1, c2, c3]
}

/// The seed as a key of Philox: low half, high half.
#[inline(always)]
fn key_of(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// 2⁻²⁴, the distance of neighbouring uniform numbers.
const UNIT: f32 = 1.0 / 16_777_216.0;

/// ⌊word/2⁸⌋·2⁻²⁴ in [0, 1).
#[inline(always)]
fn unit(word: u32) -> f32 {
    (word >> 8) as i32 as f32 * UNIT
}

/// ln v for v in (0, 1] that is a multiple of 2⁻²⁴, within 0.9 ulp: [`single::log_normal`].
///
/// With bits as in C, i = bits(v) − 0x3f3504f3, k = i >> 23 (arithmetic), m = float(bits(v) − (k << 23)), f = m − 1,
/// z = f ⊗ f. With the coefficients c₀ … c₇ of `log_reduced`: even = ((c₆⊗z ⊕ c₄)⊗z ⊕ c₂)⊗z ⊕ c₀,
/// odd = ((c₇⊗z ⊕ c₅)⊗z ⊕ c₃)⊗z ⊕ c₁, q = even ⊕ f⊗odd. Then y = ((f⊗z)⊗q ⊕ k⊗LN2_LO) ⊖ ½⊗z
/// and the result is (f ⊕ y) ⊕ k⊗LN2_HI.
#[inline(always)]
pub fn unit_log(v: f32) -> f32 {
    single::log_normal(v)
}

/// (sin πx, cos πx) of x = j·2⁻²³ for j < 2²⁴, that is, of j/2²⁴ of a full turn; absolute error below 1e-7.
///
/// The nearest quarter turn is q = (j + 2²¹) >> 22 and the rest t = (j − q·2²²) ⊗ 2⁻²² in [−½, ½] quarters (exact),
/// z = t⊗t. sin(πt/2) = t⊗(((s₃⊗z ⊕ s₂)⊗z ⊕ s₁)⊗z ⊕ s₀) and cos(πt/2) = (((c₄⊗z ⊕ c₃)⊗z ⊕ c₂)⊗z ⊕ c₁)⊗z ⊕ 1; odd q
/// swaps them; bit 1 of q flips the sign of the sine, bit 1 of q + 1 that of the cosine.
#[inline(always)]
pub fn sincospi(j: u32) -> (f32, f32) {
    let q = j.wrapping_add(1 << 21) >> 22;
    let t = j.wrapping_sub(q << 22) as i32 as f32 * (1.0 / 4_194_304.0);
    let z = t * t;
    let s = horner(z, [-4.685_971_4e-3, 7.971_252_5e-2, -6.459_666_5e-1, 1.570_796_4]) * t;
    let c = horner(z, [8.944_734_6e-4, -2.085_559_4e-2, 2.536_685_5e-1, -1.233_700_5, 1.0]);
    let (s, c) = if q & 1 == 1 { (c, s) } else { (s, c) };
    let flip = |v: f32, q: u32| f32::from_bits(v.to_bits() ^ ((q & 2) << 30));
    (flip(s, q), flip(c, q.wrapping_add(1)))
}

/// c₀zᵈ + … + c_d by Horner's rule.
#[inline(always)]
fn horner<const N: usize>(z: f32, c: [f32; N]) -> f32 {
    let mut p = c[0];
    for c in &c[1..] {
        p = p * z + c;
    }
    p
}

/// Two independent normal numbers from two words.
#[inline(always)]
fn box_muller(w0: u32, w1: u32) -> [f32; 2] {
    let v = 0x0100_0000_u32.wrapping_sub(w0 >> 8) as i32 as f32 * UNIT;
    let radius = (-2.0 * unit_log(v)).sqrt();
    let (s, c) = sincospi(w1 >> 8);
    [radius * c, radius * s]
}

/// Which random numbers: they are a pure function of these three and the element index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draw {
    /// The run's seed: the key of the cipher.
    pub seed: u64,
    /// The step, so that every step draws new numbers.
    pub step: u32,
    /// Which of the draws within a step.
    pub stream: u32,
}

/// Blocks of four words that the `fill_*` functions compute at a time: one 512-bit vector of each word. 32 and 64 were
/// no faster (1.0 against 0.9 ns per normal on one Zen 4 core), and a draw of few elements pays for a whole group.
const BLOCKS: usize = 16;

impl Draw {
    /// Element `index` < 2³⁴, uniform in [0, 1).
    pub fn uniform(&self, index: u64) -> f32 {
        unit(self.block(index)[(index % 4) as usize])
    }

    /// Element `index` < 2³⁴, normal with mean 0 and variance 1.
    pub fn normal(&self, index: u64) -> f32 {
        let words = self.block(index);
        let pair = (index % 4 / 2 * 2) as usize;
        box_muller(words[pair], words[pair + 1])[(index % 2) as usize]
    }

    /// `out[i]` = [`uniform`](Self::uniform)`(first + i)`, bit for bit.
    pub fn fill_uniform(&self, isa: Isa, first: u64, out: &mut [f32]) {
        self.fill(
            isa,
            first,
            out,
            #[inline(always)]
            |w| w.map(unit),
        )
    }

    /// `out[i]` = [`normal`](Self::normal)`(first + i)`, bit for bit.
    pub fn fill_normal(&self, isa: Isa, first: u64, out: &mut [f32]) {
        self.fill(
            isa,
            first,
            out,
            #[inline(always)]
            |w| {
                let ([a, b], [c, d]) = (box_muller(w[0], w[1]), box_muller(w[2], w[3]));
                [a, b, c, d]
            },
        )
    }

    /// The four words that hold element `index`.
    #[inline(always)]
    fn block(&self, index: u64) -> [u32; 4] {
        debug_assert!(index < 1 << 34, "element {index} of a draw: the counter has room for 2^34");
        philox4x32_10([(index / 4) as u32, self.step, self.stream, 0], key_of(self.seed))
    }

    /// Writes elements `first..` of the sequence whose block b is `f(words of b)`.
    #[inline(always)]
    fn fill(&self, isa: Isa, first: u64, out: &mut [f32], f: impl Fn([u32; 4]) -> [f32; 4] + Copy) {
        debug_assert!(first + out.len() as u64 <= 1 << 34, "a draw has 2^34 elements");
        isa.run(
            #[inline(always)]
            || {
                let skip = (first % 4) as usize;
                let mut block = (first / 4) as u32;
                let mut rest = out;
                if skip > 0 {
                    let here = rest.len().min(4 - skip);
                    let (head, tail) = rest.split_at_mut(here);
                    head.copy_from_slice(&f(self.block(first))[skip..skip + here]);
                    (rest, block) = (tail, block.wrapping_add(1));
                }
                for chunk in rest.chunks_mut(4 * BLOCKS) {
                    self.fill_chunk(block, chunk, f);
                    block = block.wrapping_add(BLOCKS as u32);
                }
            },
        )
    }

    /// At most `4·BLOCKS` elements that begin with a block: the words in one loop, `f` in a second, each vectorised.
    #[inline(always)]
    fn fill_chunk(&self, block: u32, out: &mut [f32], f: impl Fn([u32; 4]) -> [f32; 4]) {
        let mut words = [[0_u32; BLOCKS]; 4];
        let mut values = [[0.0_f32; 4]; BLOCKS];
        let [w0, w1, w2, w3] = &mut words;
        for i in 0..BLOCKS {
            let counter = u64::from(block.wrapping_add(i as u32));
            let w = rounds([counter, u64::from(self.step), u64::from(self.stream), 0], key_of(self.seed));
            (w0[i], w1[i], w2[i], w3[i]) = (w[0] as u32, w[1] as u32, w[2] as u32, w[3] as u32);
        }
        for i in 0..BLOCKS {
            values[i] = f([w0[i], w1[i], w2[i], w3[i]]);
        }
        out.copy_from_slice(&values.as_flattened()[..out.len()]);
    }
}

/// Rounds of the permutation's network. Four are enough in theory for independent round functions (Luby and Rackoff);
/// eight leave room for short words, where a half has few bits.
const ROUNDS: usize = 8;

/// A permutation of 0..n that is computed, not stored: which image stands at position i of an epoch.
///
/// A Feistel network on words of B = ⌈log₂ n⌉ bits is a bijection of 0..2ᴮ. A result that is not below n goes through
/// the network again until it is (cycle walking, fewer than two passes on average), which leaves a bijection of 0..n.
///
/// The word is cut into its low ⌊B/2⌋ bits and the high rest. Round r = 0 … 7 has a key kᵣ: the words of the Philox
/// blocks of counters (0, epoch, 0, 1) and (1, epoch, 0, 1) under the seed, in order. Even rounds do
/// high ^= F(low, kᵣ), odd ones low ^= F(high, kᵣ), cut to the width of the half, with
/// F(x, k) = fold(fold(x ^ k, 0xd2511f53), 0xcd9e8d57), where fold(a, m) is the exclusive or of both halves of the
/// 64-bit product a·m.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u32,
    low_bits: u32,
    low_mask: u32,
    high_mask: u32,
    keys: [u32; ROUNDS],
}

impl Permutation {
    /// The order of `epoch` under `seed`: a permutation of 0..n.
    pub fn new(seed: u64, epoch: u32, n: u32) -> Self {
        let [a, b] = [0, 1].map(|i| philox4x32_10([i, epoch, 0, 1], key_of(seed)));
        let keys = std::array::from_fn(|r| if r < 4 { a[r] } else { b[r - 4] });
        let bits = u32::BITS - n.saturating_sub(1).leading_zeros();
        let low_bits = bits / 2;
        let mask = |bits: u32| (1 << bits) - 1;
        Permutation { n, low_bits, low_mask: mask(low_bits), high_mask: mask(bits - low_bits), keys }
    }

    /// What stands at position `i`.
    ///
    /// # Panics
    /// If `i` is not below n.
    #[inline]
    #[track_caller]
    pub fn at(&self, i: u32) -> u32 {
        assert!(i < self.n, "position {i} of a permutation of 0..{}", self.n);
        let mut x = i;
        loop {
            let (mut low, mut high) = (x & self.low_mask, x >> self.low_bits);
            for keys in self.keys.chunks_exact(2) {
                high ^= mix(low, keys[0]) & self.high_mask;
                low ^= mix(high, keys[1]) & self.low_mask;
            }
            x = high << self.low_bits | low;
            if x < self.n {
                return x;
            }
        }
    }
}

/// The round function F of [`Permutation`]. One folded product would leave its low bits linear in those of x.
#[inline(always)]
fn mix(x: u32, key: u32) -> u32 {
    let fold = |a: u32, m: u64| {
        let product = u64::from(a) * m;
        (product >> 32) as u32 ^ product as u32
    };
    fold(fold(x ^ key, MULTIPLY[0]), MULTIPLY[1])
}
