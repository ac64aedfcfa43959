//! The part of a batch that one of several ranks learns from.
//!
//! An image meets the same noise wherever it is computed: a share takes its rows of the noise of the whole batch. Drawing the rest
//! for nothing costs B·k·K numbers beside products of B·k·K·H multiply-adds.

use std::ops::Range;

use crate::engine::graph::Var;

/// Rows `first .. first + rows` of a batch of `batch` images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The first row.
    pub first: usize,
    /// How many.
    pub rows: usize,
    /// Rows of the whole batch, B, over which means are taken.
    pub batch: usize,
}

impl Share {
    /// The whole batch.
    pub const fn whole(batch: usize) -> Share {
        Share { first: 0, rows: batch, batch }
    }

    /// What rank `rank` of `ranks` has of a batch: shares follow one another in the order of the ranks and differ by at most
    /// one row; with more ranks than rows some have none.
    pub const fn of_rank(batch: usize, rank: usize, ranks: usize) -> Share {
        let first = batch * rank / ranks;
        Share { first, rows: batch * (rank + 1) / ranks - first, batch }
    }

    /// The rows as a range.
    pub const fn range(self) -> Range<usize> {
        self.first..self.first + self.rows
    }

    /// The noise of k draws for these rows, `[k·rows, columns]`, row s·rows + i being draw s for row i: its part of the noise
    /// of the whole batch, `[k·B, columns]`, which `noise` draws in the shape that it is given.
    #[track_caller]
    pub(super) fn of_noise<'g>(self, draws: usize, columns: usize, noise: impl FnOnce(&[usize]) -> Var<'g>) -> Var<'g> {
        if self == Share::whole(self.batch) {
            return noise(&[draws * self.batch, columns]);
        }
        // The same elements, with those of one draw side by side: rows of the batch are columns then.
        let whole = noise(&[draws, self.batch * columns]);
        whole.slice_cols(self.first * columns, self.rows * columns).reshape(&[draws * self.rows, columns])
    }
}

impl From<usize> for Share {
    fn from(batch: usize) -> Share {
        Share::whole(batch)
    }
}

/// Images x, `[rows, D]`, and which rows of their batch they are; a plain value is a whole batch.
#[derive(Clone, Copy, Debug)]
pub struct Minibatch<'g> {
    /// The images.
    pub x: Var<'g>,
    /// Which they are.
    pub share: Share,
}

impl<'g> From<Var<'g>> for Minibatch<'g> {
    fn from(x: Var<'g>) -> Minibatch<'g> {
        Minibatch { x, share: Share::whole(x.shape()[0]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::Graph;
    use crate::engine::interp::Interp;

    #[test]
    fn shares_follow_one_another_and_differ_by_at_most_one_row() {
        for (batch, ranks) in [(7, 3), (128, 2), (5, 5), (2, 4), (1, 3)] {
            let shares: Vec<Share> = (0..ranks).map(|rank| Share::of_rank(batch, rank, ranks)).collect();
            let rows: Vec<usize> = shares.iter().flat_map(|share| share.range()).collect();
            assert_eq!(rows, (0..batch).collect::<Vec<_>>(), "{batch} rows on {ranks} ranks");
            let sizes = shares.iter().map(|share| share.rows);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{shares:?}");
        }
        assert_eq!(Share::of_rank(9, 0, 1), 9.into());
    }

    #[test]
    fn a_row_has_the_noise_that_it_has_in_the_whole_batch() {
        let (batch, draws, columns) = (5, 3, 2);
        let g = Graph::new();
        let of = |share: Share| share.of_noise(draws, columns, |shape| g.normal(shape, 7));
        let mut run = Interp::<f64>::new(&g);
        let whole = run.eval(of(batch.into())).to_vec();
        for share in [0, 1].map(|rank| Share::of_rank(batch, rank, 2)) {
            let part = run.eval(of(share)).to_vec();
            for draw in 0..draws {
                let rows = |at: usize, n: usize| (draw * n + at) * columns..(draw * n + at + share.rows) * columns;
                assert_eq!(part[rows(0, share.rows)], whole[rows(share.first, batch)], "{share:?}, draw {draw}");
            }
        }
    }
}
