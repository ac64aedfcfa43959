//! The order of steps: which are over before which begin, whatever the order in which independent ones run.
//!
//! Steps wait for steps, and so are a directed graph without circles. On a GPU its edges are those of the recorded graph;
//! the waves of the CPU are its levels. Two steps that neither waits for the other, however far apart their waves are, may
//! run at the same time.

/// The transitive closure of what steps wait for.
pub(crate) struct Order {
    /// Bit j of row i: step j is over before step i begins.
    before: Vec<Vec<u64>>,
}

impl Order {
    /// Of steps that each wait for earlier ones of the list.
    pub(crate) fn of<'a>(waits: impl ExactSizeIterator<Item = &'a [usize]>) -> Order {
        let words = waits.len().div_ceil(64);
        let mut before: Vec<Vec<u64>> = Vec::with_capacity(waits.len());
        for (i, waits) in waits.enumerate() {
            let mut row = vec![0; words];
            for &j in waits {
                debug_assert!(j < i, "step {i} waits for step {j}");
                row.iter_mut().zip(&before[j]).for_each(|(to, from)| *to |= from);
                row[j / 64] |= 1 << (j % 64);
            }
            before.push(row);
        }
        Order { before }
    }

    /// Whether step `first` is over before step `then` begins.
    pub(crate) fn is_before(&self, first: usize, then: usize) -> bool {
        self.before[then][first / 64] >> (first % 64) & 1 == 1
    }

    /// Whether all steps of one list are over before any of the other begins, whichever list comes first.
    pub(crate) fn are_apart(&self, a: &[usize], b: &[usize]) -> bool {
        let all = |first: &[usize], then: &[usize]| first.iter().all(|&i| then.iter().all(|&j| self.is_before(i, j)));
        all(a, b) || all(b, a)
    }

    /// The steps that are waited for without those that another of them waits for.
    pub(crate) fn direct(&self, waits: &[usize]) -> Vec<usize> {
        waits.iter().copied().filter(|&j| !waits.iter().any(|&k| self.is_before(j, k))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_through_another_is_before_too() {
        // 0 → 1 → 3 and 0 → 2; 4 waits for nothing.
        let waits: [&[usize]; 5] = [&[], &[0], &[0], &[0, 1], &[]];
        let order = Order::of(waits.into_iter());
        assert!(order.is_before(0, 3) && order.is_before(1, 3) && !order.is_before(3, 1));
        assert!(!order.is_before(2, 3) && !order.is_before(3, 2) && !order.is_before(0, 4) && !order.is_before(0, 0));
        assert!(order.are_apart(&[0, 1], &[3]) && order.are_apart(&[3], &[0, 1]));
        assert!(!order.are_apart(&[0, 2], &[3]) && !order.are_apart(&[1, 3], &[1]));
        assert_eq!(order.direct(&[0, 1]), [1]);
        assert_eq!(order.direct(&[1, 2]), [1, 2]);
    }
}
