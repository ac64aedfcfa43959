//! Quadrature against the bounds that stand beside it: a number that is called exact must not lie below a lower bound.

use serde_json::{Value, json};

use crate::study::evidence::{Estimate, Exact, Moments, Quadrature, Summary};

/// For a mean ŵ of weights with E ŵ = p(x), P(log ŵ > log p(x) + t) ≤ e^(−t) (Markov): 12 nats are 6e-6.
const NATS: f64 = 12.0;
/// Standard errors that a mean over images may lie above, by chance.
const ERRORS: f64 = 5.0;
/// What f32 may be wrong by: in nats, and of the value.
const ROUNDING: (f64, f64) = (0.01, 1e-5);
/// With a larger error than this, in nats, nothing is called exact.
pub(super) const EXACT: f64 = 0.1;

/// How the estimates, each a lower bound of its image's log p(x) in expectation, contradict quadrature; none if they do not.
pub(super) fn contradiction(exact: &[Exact], bounds: &[Estimate]) -> Option<String> {
    let pairs = exact.iter().zip(bounds).filter(|(e, _)| e.found());
    let mut above = Moments::default();
    let (mut errors, mut high, mut worst) = (0.0, 0, f64::NEG_INFINITY);
    for (exact, bound) in pairs {
        let by = bound.value - exact.log_p - exact.error - ROUNDING.0 - ROUNDING.1 * bound.value.abs();
        above.push(by);
        errors += bound.standard_error;
        worst = by.max(worst);
        high += usize::from(by > NATS);
    }
    // Draws from the prior are the same for all images: their errors do not average out, and add up as numbers do.
    let error = errors / above.count().max(1) as f64;
    if high > 0 {
        return Some(format!("above it for {high} of {} images, by up to {worst:.1} nats", above.count()));
    }
    // An error that is not known (one draw) refutes nothing.
    let refuted = above.mean() > ERRORS * error;
    refuted.then(|| format!("above it by {:.3} ± {error:.3} nats in the mean over images", above.mean()))
}

/// What a table says of quadrature.
pub(super) struct Verdict {
    pub name: &'static str,
    /// Over the images whose mass was found, if there are any.
    pub summary: Summary,
    pub notes: Vec<String>,
    pub more: Value,
}

/// The verdict, given how the other estimates contradict it.
pub(super) fn verdict(all: &[Exact], settings: &Quadrature, against: &[String]) -> Verdict {
    let found: Vec<&Exact> = all.iter().filter(|e| e.found()).collect();
    let lost = all.len() - found.len();
    let images = if found.is_empty() { all.iter().collect() } else { found.clone() };
    let within = all.iter().filter(|e| e.converged(settings)).count();
    let largest = |f: &dyn Fn(&Exact) -> f64| images.iter().map(|e| f(e)).fold(0.0, f64::max);
    let (error, elbo_error) = (largest(&|e| e.error), largest(&|e| e.elbo_error));
    let finest = images.iter().map(|e| e.spacing).fold(f64::INFINITY, f64::min);
    let mean = |f: &dyn Fn(&Exact) -> f64| images.iter().map(|e| f(e)).sum::<f64>() / images.len() as f64;
    let (elbo, gap) = (mean(&|e| e.elbo), mean(&|e| e.gap()));
    let finest_shown = if finest < 1e-3 { format!("{finest:.1e}") } else { format!("{finest}") };
    let mut notes = vec![format!(
        "{within} of {} images within {:e} nats; largest estimated error {error:.1e}, of the ELBO {elbo_error:.1e}; \
         finest grid {finest_shown}",
        all.len(),
        settings.tolerance,
    )];
    if lost > 0 {
        let rest = if found.is_empty() { "use ais" } else { "they are left out of this row; use ais for all" };
        notes.push(format!(
            "not found for {lost} of {} images: no grid that was tried holds their mass; {rest}",
            all.len()
        ));
    }
    notes
        .extend(against.iter().map(|said| format!("REFUTED: a lower bound, {said}; mass was missed; trust the bound")));
    let trusted = against.is_empty() && error < EXACT && elbo_error < EXACT;
    let word = if trusted { "exact −ELBO" } else { "not exact: −ELBO" };
    notes.push(format!("{word} {:.3}, gap KL(q ‖ p(z|x)) {gap:.3}", -elbo));
    let estimates: Vec<Estimate> = images.iter().map(|e| e.estimate()).collect();
    Verdict {
        name: match (against.is_empty(), lost) {
            (false, _) => "quadrature (refuted)",
            (true, 0) => "quadrature",
            (true, n) if n == all.len() => "quadrature (failed)",
            (true, _) => "quadrature (in part)",
        },
        summary: Summary::of_shared(&estimates),
        notes,
        more: json!({
            "neg_elbo": -elbo, "gap": gap, "within_tolerance": within, "tolerance": settings.tolerance,
            "largest_error": error, "largest_elbo_error": elbo_error, "finest_spacing": finest,
            "not_found": lost, "refuted_by": against,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(log_p: f64, error: f64) -> Exact {
        Exact {
            log_p,
            error,
            elbo: log_p - 1.0,
            elbo_error: 1e-9,
            mean: vec![0.0],
            covariance: vec![1.0],
            spacing: 0.1,
            points: 100,
            posterior: Vec::new(),
        }
    }

    fn bound(value: f64, standard_error: f64) -> Estimate {
        Estimate { value, standard_error, effective_samples: None, samples: 100 }
    }

    #[test]
    fn a_bound_above_the_exact_value_refutes_it() {
        let all = [exact(-100.0, 1e-7), exact(-101.0, 1e-7)];
        assert_eq!(contradiction(&all, &[bound(-100.3, 0.1), bound(-100.9, 0.2)]), None, "within its error");
        assert_eq!(
            contradiction(&all, &[bound(-99.0, f64::NAN), bound(-100.0, f64::NAN)]),
            None,
            "one draw, by chance"
        );
        let one = contradiction(&all, &[bound(-120.0, 0.1), bound(-60.0, f64::NAN)]).unwrap();
        assert!(one.contains("1 of 2 images") && one.contains("41.0 nats"), "{one}");
        let mean = contradiction(&all, &[bound(-99.0, 0.1), bound(-100.0, 0.1)]).unwrap();
        assert!(mean.contains("in the mean"), "{mean}");
        // Nothing is claimed of an image that was not found, and so nothing refuted.
        assert_eq!(contradiction(&[exact(-100.0, f64::INFINITY)], &[bound(-10.0, 0.1)]), None);
    }

    #[test]
    fn nothing_is_called_exact_beside_a_contradiction() {
        let settings = Quadrature::default();
        let good = verdict(&[exact(-100.0, 1e-7), exact(-102.0, 1e-7)], &settings, &[]);
        assert!(good.name == "quadrature" && good.notes[1].starts_with("exact −ELBO 102.000"), "{:?}", good.notes);
        let refuted = verdict(&[exact(-100.0, 1e-7)], &settings, &["iwae-10: above it by 9 nats".to_string()]);
        let said = refuted.notes.join("\n");
        assert!(refuted.name.contains("refuted") && said.contains("REFUTED: a lower bound, iwae-10"), "{said}");
        assert!(said.contains("not exact: −ELBO") && !said.contains("\nexact"), "{said}");
        let part = verdict(&[exact(-100.0, 1e-7), exact(-900.0, f64::INFINITY)], &settings, &[]);
        assert!(part.name.contains("in part") && part.notes[1].contains("not found for 1 of 2"), "{:?}", part.notes);
        assert!((part.summary.images, part.summary.nll) == (1, 100.0) && part.more["not_found"] == 1);
        let failed = verdict(&[exact(f64::NAN, f64::INFINITY)], &settings, &[]);
        assert!(failed.name.contains("failed") && !failed.notes.join("\n").contains("\nexact"), "{:?}", failed.notes);
    }
}
