//! Runs that differ by their seed alone: how far their results lie apart.

use std::fmt::Write as _;

use super::{ReportedRun, named, number};
use crate::study::page::escaped;
use crate::study::seeds::{SeedSpread, by_seed};
use crate::train::TrainConfig;

/// A table for each group of runs that differ by their seed alone; nothing where there is none.
pub(super) fn table(runs: &[ReportedRun]) -> String {
    let configs: Vec<&TrainConfig> = runs.iter().map(|run| &run.config).collect();
    let groups: Vec<Vec<usize>> = by_seed(&configs).into_iter().filter(|group| group.len() > 1).collect();
    if groups.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section>\n<h2 id=\"seeds\">Over seeds</h2>\n<p>Runs that differ by their seed alone. A result is given as mean ± standard \
         deviation over seeds; a difference between two models that is smaller than this spread may be the seed’s.</p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Over seeds\">\n",
    );
    for group in groups {
        let names: Vec<String> = group.iter().map(|&i| named(runs, i)).collect();
        writeln!(
            html,
            "<table><caption>{}</caption>\n<thead><tr><th>nats per test image</th><th class=\"number\">seeds</th>\
             <th class=\"number\">mean ± sd</th><th class=\"number\">min</th><th class=\"number\">max</th></tr></thead>\n<tbody>",
            names.join(", ")
        )
        .expect("memory");
        for (what, part) in [("−ELBO", 0), ("rec, −log p(x|z)", 1), ("KL(q(z|x) ‖ p(z))", 2)] {
            let values: Vec<f64> = group.iter().filter_map(|&i| Some(last(&runs[i])?[part])).collect();
            let Some(spread) = SeedSpread::of(&values) else { continue };
            writeln!(
                html,
                "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                escaped(what),
                spread.n,
                spread.to_string().replace('-', "−"),
                number(spread.min, 2),
                number(spread.max, 2)
            )
            .expect("memory");
        }
        html += "</tbody></table>\n";
    }
    html + "</div>\n</section>\n"
}

/// −ELBO, rec and KL of the test images: as judged now, or as the journal says.
fn last(run: &ReportedRun) -> Option<[f64; 3]> {
    match &run.judged {
        Ok(judged) => Some([judged.result.neg_elbo(), judged.result.rec, judged.result.kl]),
        Err(_) => run.journals.epochs.last().map(|e| [e.test_neg_elbo, e.test_rec, e.test_kl]),
    }
}
