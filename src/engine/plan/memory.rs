//! Scratch memory: buffers that are never alive at the same time share addresses.
//!
//! First fit by decreasing size: each buffer takes the lowest address at which it does not touch a buffer that is
//! already placed and alive at the same time. For the dozen buffers of a training step this is within a few percent of
//! the largest sum of live sizes, which no planner can beat.
//!
//! What is alive when depends on who runs the plan. The CPU goes wave by wave. On a GPU a step begins when what it waits for is
//! done, beside steps of other waves, and what is launched together runs in an order of its own: there one buffer's steps must
//! all be over, by the edges, before the other is touched.

use super::order::Order;
use super::{Buffer, Step};

/// Every buffer starts on a cache line, and ends with one of padding: wide loads and guard words have room.
pub(super) const ALIGN: usize = 16;

/// Sets every buffer's offset; returns the arena's size in f32 elements.
pub(super) fn place(buffers: &mut [Buffer], alive: &Alive<'_>) -> usize {
    let mut by_size: Vec<usize> = (0..buffers.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].len), i));
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for i in by_size {
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| alive.together(&buffers[i], &buffers[j]))
            .map(|&j| (buffers[j].offset, buffers[j].offset + padded(buffers[j].len)))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if at + padded(buffers[i].len) <= start {
                break;
            }
            at = at.max(end);
        }
        buffers[i].offset = at;
        size = size.max(at + padded(buffers[i].len));
        placed.push(i);
    }
    size
}

/// A buffer's length with its padding.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN) + ALIGN
}

/// Who runs the plan, and so which buffers may be alive at the same time.
pub(super) enum Alive<'a> {
    /// From the first wave in which a buffer is touched to the last.
    InWaves(&'a [Step]),
    /// Until all steps that touch it are over, by what waits for what. Of a group of steps each is as long as all of them.
    ByEdges(&'a Order, &'a [Vec<usize>]),
}

impl Alive<'_> {
    /// Whether two buffers must not share memory.
    pub(super) fn together(&self, a: &Buffer, b: &Buffer) -> bool {
        if a.persistent || b.persistent {
            return true;
        }
        match self {
            Alive::InWaves(steps) => {
                let waves = |buffer: &Buffer| {
                    let waves = || buffer.users.iter().map(|&i| steps[i].wave);
                    (waves().min().unwrap_or(0), waves().max().unwrap_or(0))
                };
                let (a, b) = (waves(a), waves(b));
                a.0 <= b.1 && b.0 <= a.1
            }
            Alive::ByEdges(order, groups) => {
                !order.are_apart(&with_groups(&a.users, groups), &with_groups(&b.users, groups))
            }
        }
    }
}

/// The steps with all that are launched with one of them.
fn with_groups(steps: &[usize], groups: &[Vec<usize>]) -> Vec<usize> {
    let touched = groups.iter().filter(|group| group.iter().any(|step| steps.contains(step)));
    steps.iter().chain(touched.flatten()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(len: usize, users: &[usize]) -> Buffer {
        Buffer { len, offset: 0, persistent: false, users: users.to_vec() }
    }

    /// Steps 0 → 1 → 2 → 3, and 4 beside them, after 0.
    fn order() -> Order {
        Order::of([&[][..], &[0], &[1], &[2], &[0]].into_iter())
    }

    fn place_by_edges(buffers: &mut [Buffer], groups: &[Vec<usize>]) -> usize {
        place(buffers, &Alive::ByEdges(&order(), groups))
    }

    #[test]
    fn disjoint_lives_share_memory_and_overlapping_ones_do_not() {
        let mut b = [buffer(100, &[0, 1]), buffer(100, &[2, 3]), buffer(50, &[1, 2])];
        let size = place_by_edges(&mut b, &[]);
        assert_eq!(b[0].offset, b[1].offset);
        assert!(b[2].offset >= 100);
        assert_eq!(size, padded(100) + padded(50));
    }

    #[test]
    fn steps_that_do_not_wait_for_each_other_share_nothing() {
        let mut b = [buffer(100, &[2, 3]), buffer(100, &[4])];
        place_by_edges(&mut b, &[]);
        assert_ne!(b[0].offset, b[1].offset);
        let mut b = [buffer(100, &[0]), buffer(100, &[4])];
        place_by_edges(&mut b, &[]);
        assert_eq!(b[0].offset, b[1].offset);
    }

    #[test]
    fn what_is_launched_together_is_alive_together() {
        let buffers = [buffer(100, &[0, 1]), buffer(100, &[2, 3])];
        let shared = |groups: &[Vec<usize>]| {
            let mut b = buffers.clone();
            place_by_edges(&mut b, groups);
            b[0].offset == b[1].offset
        };
        assert!(shared(&[]) && shared(&[vec![0, 1], vec![2, 3]]));
        assert!(!shared(&[vec![1, 2]]));
    }

    #[test]
    fn persistent_buffers_share_with_nothing() {
        let mut b = [buffer(10, &[0]), Buffer { persistent: true, ..buffer(10, &[3]) }];
        place_by_edges(&mut b, &[]);
        assert_ne!(b[0].offset, b[1].offset);
    }
}
