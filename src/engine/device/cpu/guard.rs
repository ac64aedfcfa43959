//! Guard words between the scratch buffers of a plan: what a kernel does to memory that is not its own is seen.

use std::ops::Range;

use crate::engine::error::{Error, Result};
use crate::engine::plan::Plan;

/// Floats between two buffers: more than the widest vector, or the edge of a tile, could pass an end by.
const GUARD: usize = 64;
/// What guards and fresh buffers hold, a NaN.
const POISON: f32 = f32::from_bits(0x7fc0_dead);

/// The plan with its buffers apart, none of which shares memory with another.
pub(super) fn apart(plan: &Plan) -> Plan {
    let apart = plan.spread(GUARD);
    debug_assert_eq!(apart.verify(), Ok(()));
    apart
}

/// Fills guards and buffers, as before a run. Persistent buffers stay: where no kernel writes them they are zero for ever.
pub(super) fn poison(plan: &Plan, scratch: &mut [f32]) {
    guards(plan).for_each(|guard| scratch[guard].fill(POISON));
    plan.buffers.iter().filter(|b| !b.persistent).for_each(|b| scratch[b.offset..][..b.len].fill(POISON));
}

/// Checks the guards after a run.
pub(super) fn check(plan: &Plan, scratch: &[f32]) -> Result<()> {
    let mut outside = guards(plan).flatten();
    let Some(at) = outside.find(|&at| scratch[at].to_bits() != POISON.to_bits()) else { return Ok(()) };
    Err(Error::Device {
        device: "cpu".into(),
        reason: format!("a kernel wrote outside its buffers, to float {at} of its scratch memory"),
        remedy: "this is a mistake in the program; please report it with the graph".into(),
    })
}

/// Everything that belongs to no buffer.
fn guards(plan: &Plan) -> impl Iterator<Item = Range<usize>> {
    let ends = [0].into_iter().chain(plan.buffers.iter().map(|b| b.offset + b.len));
    let begins = plan.buffers.iter().map(|b| b.offset).chain([plan.arena]);
    ends.zip(begins).map(|(end, begin)| end..begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::Graph;
    use crate::engine::plan::Fusion;

    #[test]
    fn a_stray_write_is_an_error_that_says_where() {
        let g = Graph::new();
        let x = g.input(&[5, 7]);
        let plan = apart(&Plan::build(&g, &[x.matmul_t(true, x, false).exp().t()], Fusion::none()).unwrap());
        assert!(plan.buffers.len() > 1, "{plan}");
        let mut scratch = vec![0.0; plan.arena];
        poison(&plan, &mut scratch);
        check(&plan, &scratch).unwrap();
        for buffer in &plan.buffers {
            for at in [buffer.offset - 1, buffer.offset + buffer.len, plan.arena - 1, 0] {
                let kept = std::mem::replace(&mut scratch[at], f32::NAN);
                let message = check(&plan, &scratch).unwrap_err().to_string();
                assert!(message.contains(&format!("float {at} ")), "{message}");
                scratch[at] = kept;
            }
            scratch[buffer.offset] = 1.0;
        }
        check(&plan, &scratch).unwrap();
    }
}
