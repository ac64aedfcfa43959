//! Where the runs come from: results at a glance, configuration, commands, machines, durations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::{ReportedRun, colour, duration, named, number, side_by_side};
use crate::study::page::escaped;
use crate::study::plural;
use crate::train::{TrainConfig, quoted};

/// A card for each run.
pub(super) fn summary(runs: &[ReportedRun]) -> String {
    let mut html = String::from("<div class=\"cards\">\n");
    for (i, run) in runs.iter().enumerate() {
        let mut facts = vec![format!("{} of {}", run.progress.epoch, plural(run.config.epochs as usize, "epoch"))];
        let seconds: f64 = run.journals.timings.iter().map(|t| t.train_seconds + t.test_seconds).sum();
        if seconds > 0.0 {
            facts.push(duration(seconds));
        }
        let (big, small) = match &run.judged {
            Ok(judged) => {
                let active: Vec<String> =
                    judged.layers.iter().map(|l| format!("{} of {}", l.active_units(), l.latent)).collect();
                facts.push(format!("{} dimensions active", active.join(" + ")));
                let bits = judged.bits.map_or(String::new(), |bits| format!("; {bits:.4} bits per dimension"));
                let r = judged.result;
                let parts = format!("nats per image = rec {} + KL {}{bits}", number(r.rec, 2), number(r.kl, 2));
                (number(r.neg_elbo(), 2), parts)
            }
            Err(_) => match run.journals.epochs.last() {
                Some(last) => (number(last.test_neg_elbo, 2), "nats per image, as its journal says".into()),
                None => ("–".into(), "no epoch is finished".into()),
            },
        };
        writeln!(
            html,
            "<div class=\"card {}\"><h2>{}</h2><p class=\"big\"><span class=\"faint\">test −ELBO</span> {big}</p><p>{small}</p>\
             <p class=\"faint\">{}</p><p class=\"faint\">{}</p></div>",
            colour(i),
            escaped(&run.name),
            escaped(&run.config.model.describe()),
            facts.join(" · ")
        )
        .expect("memory");
    }
    html + "</div>\n"
}

/// The configuration as a flat table: field → value as text.
fn fields(config: &TrainConfig) -> BTreeMap<String, String> {
    fn walk(name: String, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                    walk(inner, value, found);
                }
            }
            Value::String(text) => drop(found.insert(name, text.clone())),
            Value::Array(all) if all.iter().all(Value::is_number) => {
                let parts: Vec<String> = all.iter().map(Value::to_string).collect();
                found.insert(name, if parts.is_empty() { "none".into() } else { parts.join(", ") });
            }
            other => drop(found.insert(name, other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), &serde_json::to_value(config).expect("a configuration is plain data"), &mut found);
    found
}

/// A column for each run. Of several, rows that differ are marked; of one, those that are not usual.
pub(super) fn configuration(runs: &[ReportedRun]) -> String {
    let columns: Vec<BTreeMap<String, String>> = runs.iter().map(|run| fields(&run.config)).collect();
    let usual = fields(&TrainConfig::default());
    let mut names: Vec<&String> = columns.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let several = runs.len() > 1;
    let differs = |name: &String| match several {
        true => columns.iter().any(|column| column.get(name) != columns[0].get(name)),
        false => columns[0].get(name) != usual.get(name),
    };
    let (what, label) = match several {
        true => ("Rows in which the runs differ are marked.", "only differences"),
        false => {
            ("Rows that differ from the usual run, <code>elbo train</code> without options, are marked.", "only these")
        }
    };
    let mut html = format!(
        "<section>\n<h2 id=\"configuration\">Configuration</h2>\n<p>{what} A field that is not there has its usual value.</p>\n\
         <p class=\"screen-only\"><label><input type=\"checkbox\" id=\"only\"> {label}</label></p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Configuration\"><table class=\"configuration\">\n\
         <thead><tr><th>field</th>"
    );
    for i in 0..runs.len() {
        write!(html, "<th scope=\"col\">{}</th>", named(runs, i)).expect("memory");
    }
    html += "</tr></thead>\n<tbody>\n";
    for name in names {
        let class = if differs(name) { " class=\"differs\"" } else { "" };
        write!(html, "<tr{class}><th scope=\"row\" class=\"mono\">{}</th>", escaped(name)).expect("memory");
        for column in &columns {
            let value = column.get(name).map_or("–".into(), |value| escaped(value).replace(", ", ",<wbr> "));
            write!(html, "<td class=\"mono\">{value}</td>").expect("memory");
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n</section>\n"
}

/// The commands that made each run, and those that go on from it.
pub(super) fn commands(runs: &[ReportedRun]) -> String {
    let blocks = side_by_side(runs, |run| {
        let mut lines = String::new();
        for session in &run.journals.sessions {
            let from = match session.updates {
                0 => "made it".to_string(),
                n => format!("took it up at update {n}"),
            };
            writeln!(lines, "# {from} (elbo {})\n{}", session.version, session.command).expect("memory");
        }
        if lines.is_empty() {
            lines = "# the command was not written down by the version that trained it\n".into();
        }
        let path = quoted(&run.path);
        let more = 2 * run.config.epochs.max(1);
        writeln!(lines, "# to go on\nelbo train --resume {path} --epochs {more}").expect("memory");
        writeln!(lines, "# to judge it\nelbo eval {path}").expect("memory");
        format!("<pre tabindex=\"0\">{}</pre>\n", escaped(&lines))
    });
    format!(
        "<section>\n<h2 id=\"commands\">Commands</h2>\n<p>Equal seeds give equal bytes: its commands, in their order, make a \
         run again, on a processor of the same instruction set.</p>\n{blocks}</section>\n"
    )
}

/// What ran where, and how long.
pub(super) fn machines(runs: &[ReportedRun]) -> String {
    let row = |name: &str, value: &dyn Fn(&ReportedRun) -> String| {
        let cells: String = runs.iter().map(|run| format!("<td>{}</td>", escaped(&value(run)))).collect();
        format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n")
    };
    let timings = |run: &ReportedRun, of: &dyn Fn(&crate::train::EpochTiming) -> String| {
        let mut all: Vec<String> = run.journals.timings.iter().map(of).filter(|text| !text.is_empty()).collect();
        all.dedup();
        if all.is_empty() { "not written down".into() } else { all.join("; then ") }
    };
    let sum = |run: &ReportedRun, of: &dyn Fn(&crate::train::EpochTiming) -> f64| {
        duration(run.journals.timings.iter().map(of).sum())
    };
    let rate = |run: &ReportedRun| {
        let mut rates: Vec<f64> = run.journals.timings.iter().map(|t| t.images_per_second).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).map_or("–".into(), |rate| format!("{rate:.0}"))
    };
    let heads: String = (0..runs.len()).map(|i| format!("<th scope=\"col\">{}</th>", named(runs, i))).collect();
    format!(
        "<section>\n<h2 id=\"machine\">Machine and durations</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Machine and durations\"><table>\n<thead><tr><th><span class=\"hidden-text\">what</span></th>{heads}</tr></thead>\n<tbody>\n{}{}{}{}{}{}{}</tbody>\
         </table></div>\n</section>\n",
        row("device", &|run| timings(run, &|t| t.device.clone())),
        row("build", &|run| timings(run, &|t| t.build.clone())),
        row("version", &|run| {
            let mut all: Vec<&str> = run.journals.sessions.iter().map(|s| s.version.as_str()).collect();
            all.dedup();
            if all.is_empty() { "not written down".into() } else { format!("elbo {}", all.join(", then ")) }
        }),
        row("updates", &|run| run.progress.updates.to_string()),
        row("learning", &|run| sum(run, &|t| t.train_seconds)),
        row("evaluating", &|run| sum(run, &|t| t.test_seconds)),
        row("images per second, median of the epochs", &rate),
    )
}
