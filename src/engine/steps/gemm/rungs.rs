//! The ladder: matrix products for learners, of which every kernel but the first differs from the one before in one idea
//! (kernels/dev/). How each is launched, and where it can run; `device/cuda/ladder.rs` launches them.

/// One kernel of the ladder in kernels/dev/: C = A·B, stored, neither operand transposed.
pub(crate) struct Rung {
    pub name: &'static str,
    /// Rows and columns of C a block computes.
    pub tile: (usize, usize),
    pub threads: u32,
    pub shared_bytes: u32,
    /// m, n, k, lda, ldb and ldc must be multiples of this, and the pointers aligned to as many floats (at most 4).
    pub multiple: usize,
    /// Planes of bf16 that the operands are cut into first (kernels/dev/planes.cuh); 0: it takes the operands in f32.
    pub planes: usize,
    /// The least compute capability it runs on.
    pub cc: (u32, u32),
    /// Whether it copies tiles and multiplies by warpgroups (kernels/dev/warpgroup.cuh), on `cc` and on no later capability.
    pub tiles: bool,
    /// Whether it computes max(A·B + bias, 0) instead of A·B.
    pub epilogue: bool,
}

impl Rung {
    const fn of_floats(
        name: &'static str,
        (side, threads, shared_bytes): (usize, u32, u32),
        multiple: usize,
        cc: (u32, u32),
    ) -> Rung {
        let tile = (side, side);
        Rung { name, tile, threads, shared_bytes, multiple, planes: 0, cc, tiles: false, epilogue: false }
    }

    /// Three strips of 32 of k in bf16, of 128 rows and of 128 columns.
    const fn of_planes(name: &'static str, planes: usize) -> Rung {
        let shared_bytes = 3 * 2 * 128 * 32 * 2;
        let (tile, cc) = ((128, 128), (8, 0));
        Rung { name, tile, threads: 256, shared_bytes, multiple: 1, planes, cc, tiles: false, epilogue: false }
    }

    /// Three stages of 64 of k in bf16, of 128 rows and of 128 columns, two barriers for each, and what it takes to let them
    /// begin at a multiple of 1024.
    const fn of_tiles(name: &'static str, epilogue: bool) -> Rung {
        let shared_bytes = 1024 + 3 * (2 * 128 * 64 * 2 + 2 * 8);
        let (tile, cc) = ((128, 128), (9, 0));
        Rung { name, tile, threads: 288, shared_bytes, multiple: 1, planes: 1, cc, tiles: true, epilogue }
    }

    /// Why it cannot compute [m, n] = [m, k]·[k, n] on a GPU of compute capability `cc`, if it cannot.
    pub(crate) fn obstacle(&self, [m, n, k]: [usize; 3], cc: (u32, u32)) -> Option<String> {
        if self.cc > cc {
            let (major, minor) = self.cc;
            return Some(format!("needs compute capability {major}.{minor}"));
        }
        if self.tiles && self.cc != cc {
            let (major, minor) = self.cc;
            return Some(format!(
                "needs compute capability {major}.{minor} exactly: no later one has its instructions"
            ));
        }
        let fits = [m, n, k].iter().all(|size| size.is_multiple_of(self.multiple));
        (!fits).then(|| format!("takes multiples of {}", self.multiple))
    }

    /// Blocks along n and along m.
    pub(crate) fn grid(&self, m: usize, n: usize) -> (u32, u32) {
        (n.div_ceil(self.tile.1) as u32, m.div_ceil(self.tile.0) as u32)
    }
}

/// The matrix product as a ladder, from the first idea to sums of products on tensor cores that are as accurate as f32, and to
/// Hopper's own instructions.
pub(crate) const LADDER: &[Rung] = &[
    Rung::of_floats("dev_gemm_1", (16, 256, 0), 1, (7, 5)),
    Rung::of_floats("dev_gemm_2", (16, 256, 0), 1, (7, 5)),
    Rung::of_floats("dev_gemm_3", (16, 256, 2 << 10), 1, (7, 5)),
    Rung::of_floats("dev_gemm_4", (64, 512, 4 << 10), 1, (7, 5)),
    Rung::of_floats("dev_gemm_5", (128, 256, 8 << 10), 1, (7, 5)),
    Rung::of_floats("dev_gemm_6", (128, 256, 8448), 4, (7, 5)),
    Rung::of_floats("dev_gemm_7", (128, 256, 33792), 4, (7, 5)),
    Rung::of_floats("dev_gemm_8", (128, 256, 18944), 4, (8, 0)),
    Rung::of_planes("dev_gemm_9", 1),
    Rung::of_planes("dev_gemm_10_x3", 2),
    Rung::of_planes("dev_gemm_10_x6", 3),
    Rung::of_tiles("dev_gemm_11", false),
    Rung::of_tiles("dev_gemm_12", true),
];

#[cfg(test)]
mod tests {
    use super::super::cuda::{ARCHITECTURES, made};
    use super::*;

    #[test]
    fn what_is_assumed_of_rungs_is_what_the_compiler_made_of_them() {
        for rung in LADDER {
            for (architecture, _) in ARCHITECTURES.iter().filter(|(_, cc)| !rung.tiles || rung.cc == *cc) {
                let made = |figure: &str| made(rung.name, architecture, figure);
                assert_eq!(
                    (rung.threads as usize, rung.shared_bytes as usize),
                    (made("threads"), made("dynamic_shared"))
                );
            }
        }
    }

    #[test]
    fn the_ladder_has_a_kernel_for_every_rung() {
        let files = ladder_text();
        let declarations = ["ELBO_KERNEL(dev_gemm_", "ELBO_KERNEL_RESIDENT(dev_gemm_"];
        let declared: usize =
            files.iter().flat_map(|text| declarations.map(|declaration| text.matches(declaration).count())).sum();
        assert_eq!(declared, LADDER.len());
        for rung in LADDER {
            let number: usize = rung.name.split('_').nth(2).unwrap().parse().unwrap();
            let text = files[number - 1];
            assert!(text.contains(&format!("({}, {}, ", rung.name, rung.threads)), "{}", rung.name);
            assert!(rung.shared_bytes <= if rung.tiles { 227 << 10 } else { 48 << 10 }, "{}", rung.name);
            assert!(rung.multiple <= 4 && (rung.cc <= (8, 0) || rung.tiles), "{}", rung.name);
            assert_eq!(rung.grid(rung.tile.0 + 1, 3 * rung.tile.1), (3, 2));
        }
    }

    /// Each file says which rung it is, what limits it, and what to try.
    #[test]
    fn every_rung_says_what_limits_it_and_has_an_exercise() {
        for (i, text) in ladder_text().iter().enumerate() {
            let head: String = text.lines().take_while(|line| line.starts_with("//")).collect();
            assert!(head.starts_with(&format!("// The ladder, {} of 12: ", i + 1)), "rung {}", i + 1);
            assert!(head.contains("What limits it") && head.contains("Exercise: "), "rung {}", i + 1);
        }
    }

    #[test]
    fn a_rung_says_why_it_cannot_climb() {
        let vectorised = LADDER.iter().find(|rung| rung.name == "dev_gemm_6").unwrap();
        assert_eq!(vectorised.obstacle([4, 8, 12], (7, 5)), None);
        assert_eq!(vectorised.obstacle([4, 7, 12], (7, 5)).unwrap(), "takes multiples of 4");
        let planes = LADDER.iter().find(|rung| rung.name == "dev_gemm_9").unwrap();
        assert_eq!(planes.obstacle([1, 7, 3], (8, 0)), None);
        assert_eq!(planes.obstacle([1, 7, 3], (7, 5)).unwrap(), "needs compute capability 8.0");
        for tiles in LADDER.iter().filter(|rung| rung.tiles) {
            assert_eq!(tiles.obstacle([1, 7, 3], (9, 0)), None);
            assert_eq!(tiles.obstacle([1, 7, 3], (8, 9)).unwrap(), "needs compute capability 9.0");
            for later in [(10, 0), (12, 0)] {
                assert!(tiles.obstacle([1, 7, 3], later).unwrap().starts_with("needs compute capability 9.0 exactly"));
            }
        }
    }

    fn ladder_text() -> [&'static str; 12] {
        [
            include_str!("../../../../kernels/dev/gemm_1_naive.cu"),
            include_str!("../../../../kernels/dev/gemm_2_coalesced.cu"),
            include_str!("../../../../kernels/dev/gemm_3_shared.cu"),
            include_str!("../../../../kernels/dev/gemm_4_column_per_thread.cu"),
            include_str!("../../../../kernels/dev/gemm_5_square_per_thread.cu"),
            include_str!("../../../../kernels/dev/gemm_6_vectorised.cu"),
            include_str!("../../../../kernels/dev/gemm_7_pipelined.cu"),
            include_str!("../../../../kernels/dev/gemm_8_tensor_cores.cu"),
            include_str!("../../../../kernels/dev/gemm_9_planes.cu"),
            include_str!("../../../../kernels/dev/gemm_10_split.cu"),
            include_str!("../../../../kernels/dev/gemm_11_wgmma_sm90a.cu"),
            include_str!("../../../../kernels/dev/gemm_12_epilogue_sm90a.cu"),
        ]
    }
}
