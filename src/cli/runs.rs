//! `elbo runs`: the runs in a folder, and what differs between them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use crate::engine::error::{Error, Result};
use crate::train::{EpochRecord, Run, TrainConfig};
use crate::vae::Vae;

/// Where runs are begun, unless another folder is asked for.
const USUAL: &str = "runs";

/// Folders within folders are looked into this far.
const DEPTH: usize = 4;

/// List runs, and what differs between them
///
/// A column for each part of the configuration in which not all are alike; a dash where the usual value is not written down.
#[derive(Args)]
pub struct Runs {
    /// The folder with the runs
    #[arg(value_name = "FOLDER", default_value = USUAL, value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
    /// In the order of their name, age, epochs, elbo (−ELBO, the best first) or parameters
    #[arg(long, value_name = "COLUMN", default_value = "name", hide_possible_values = true)]
    pub sort: SortColumn,
    /// The other way round
    #[arg(long)]
    pub reverse: bool,
    #[command(flatten)]
    pub answer: Answer,
}

/// By what the runs are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortColumn {
    Name,
    Age,
    Epochs,
    Elbo,
    Parameters,
}

/// A run of the list.
struct ListedRun {
    name: String,
    age: Option<Duration>,
    epochs: u32,
    /// −ELBO of the test images after the last epoch; none before the first.
    neg_elbo: Option<f64>,
    parameters: usize,
    config: TrainConfig,
}

impl Runs {
    /// Reads all runs of the folder and prints the table.
    pub fn run(&self) -> Result<()> {
        let (mut runs, mut unreadable) = (Vec::new(), Vec::new());
        for (path, looked) in self.folders()? {
            let name = path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string();
            let name = if name.is_empty() { self.folder.display().to_string() } else { name };
            match looked.and_then(|()| ListedRun::read(name.clone(), &path)) {
                Ok(run) => runs.push(run),
                Err(why) => unreadable.push((name, why.to_string())),
            }
        }
        self.sort(&mut runs);
        let columns = columns(&runs);
        let text = self.text(&runs, &columns, &unreadable);
        let because = |(name, why): &(String, String)| json!({ "name": name, "reason": why });
        let report = json!({
            "folder": self.folder,
            "runs": runs.iter().zip(0..).map(|(run, i)| run.report(&columns, i)).collect::<Vec<_>>(),
            "unreadable": unreadable.iter().map(because).collect::<Vec<_>>(),
        });
        self.answer.give(&text, &report)
    }

    /// The folders that are runs, or were to be, and those that cannot be looked into, in and below the one that is asked
    /// about, which may be a run itself. Where nothing was ever trained there is no usual folder, and that is no error.
    fn folders(&self) -> Result<Vec<(PathBuf, Result<()>)>> {
        if self.folder == Path::new(USUAL) && !self.folder.exists() {
            return Ok(Vec::new());
        }
        // Nothing below it is of use if it cannot be read itself.
        std::fs::read_dir(&self.folder).map_err(Error::io("read the runs in", &self.folder))?;
        let mut found = Vec::new();
        collect(&self.folder, DEPTH, &mut found);
        Ok(found)
    }

    fn sort(&self, runs: &mut [ListedRun]) {
        match self.sort {
            SortColumn::Name => runs.sort_by(|a, b| a.name.cmp(&b.name)),
            SortColumn::Age => runs.sort_by_key(|run| run.age),
            SortColumn::Epochs => runs.sort_by_key(|run| run.epochs),
            SortColumn::Elbo => {
                // What has no number yet is not the best.
                let key = |run: &ListedRun| run.neg_elbo.unwrap_or(f64::INFINITY);
                runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
            }
            SortColumn::Parameters => runs.sort_by_key(|run| run.parameters),
        }
        if self.reverse {
            runs.reverse();
        }
    }

    fn text(&self, runs: &[ListedRun], columns: &[Column], unreadable: &[(String, String)]) -> String {
        let mut text = String::new();
        if !runs.is_empty() {
            let usual = ["run", "age", "epochs", "−ELBO", "parameters"].map(String::from);
            let head = usual.into_iter().chain(columns.iter().map(|column| column.short.clone())).collect();
            let cells = |(run, i): (&ListedRun, usize)| run.cells(columns, i);
            text = table(&[head].into_iter().chain(runs.iter().zip(0..).map(cells)).collect::<Vec<_>>());
            text += "−ELBO: nats per test image after the last epoch\n";
            let scale =
                |c: &Column| ["model.likelihood", "model.binarisation"].iter().any(|part| c.field.starts_with(part));
            if columns.iter().any(scale) {
                text += "note: runs of another likelihood or binarisation have a −ELBO on another scale; compare those of one kind\n";
            }
        }
        for (name, why) in unreadable {
            writeln!(text, "not readable: {name}: {why}").expect("writing to a string");
        }
        if text.is_empty() {
            text = format!("no runs in {}; `elbo train` makes one\n", self.folder.display());
        }
        text
    }
}

/// Adds the runs in and below a folder, and what cannot be looked into with the reason.
fn collect(folder: &Path, depth: usize, found: &mut Vec<(PathBuf, Result<()>)>) {
    // Other programs have a file of this name too.
    let own = |name: &&str| *name != "config.json" && folder.join(name).is_file();
    if Run::FILES.iter().any(own) {
        return found.push((folder.into(), Ok(())));
    }
    if depth == 0 {
        return;
    }
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let mut below: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
            below.sort();
            below.iter().for_each(|path| collect(path, depth - 1, found));
        }
        Err(why) => found.push((folder.into(), Err(Error::io("look into", folder)(why)))),
    }
}

impl ListedRun {
    /// # Errors
    /// As [`Run::read`] and [`Run::records`].
    fn read(name: String, path: &Path) -> Result<ListedRun> {
        let checkpoint = Run::read(path)?;
        let records: Vec<EpochRecord> = Run::records(path)?;
        let changed = std::fs::metadata(Run::checkpoint_path(path)).and_then(|data| data.modified());
        Ok(ListedRun {
            name,
            // A clock that was set back makes no age.
            age: changed.ok().and_then(|at| at.elapsed().ok()),
            epochs: checkpoint.progress.epoch,
            neg_elbo: records.last().map(|record| record.test_neg_elbo),
            parameters: Vae::new(checkpoint.config.model.clone())?.params().count(),
            config: checkpoint.config,
        })
    }

    fn cells(&self, columns: &[Column], i: usize) -> Vec<String> {
        let age = self.age.map_or("–".into(), in_words);
        let nats = self.neg_elbo.map_or("–".into(), |nats| format!("{nats:.2}"));
        let epochs = match self.epochs == self.config.epochs {
            true => self.epochs.to_string(),
            false => format!("{} of {}", self.epochs, self.config.epochs),
        };
        let own = [self.name.clone(), age, epochs, nats, self.parameters.to_string()];
        own.into_iter().chain(columns.iter().map(|column| cell(&column.values[i]))).collect()
    }

    fn report(&self, columns: &[Column], i: usize) -> Value {
        let differs: Map<String, Value> = columns.iter().map(|c| (c.field.clone(), c.values[i].clone())).collect();
        json!({
            "name": self.name, "age_seconds": self.age.map(|age| age.as_secs()), "epochs": self.epochs,
            "epochs_wanted": self.config.epochs, "test_neg_elbo": self.neg_elbo, "parameters": self.parameters,
            "differs": differs,
        })
    }
}

/// A part of the configuration in which the runs differ.
struct Column {
    /// As in `config.json`, with dots.
    field: String,
    /// What stands above the column.
    short: String,
    /// Of each run; null where it is left out because it is usual.
    values: Vec<Value>,
}

/// The parts in which not all are alike. Epochs have a column of their own, and fingerprints are not for people.
fn columns(runs: &[ListedRun]) -> Vec<Column> {
    let Some(first) = runs.first() else { return Vec::new() };
    let differences: Vec<_> = runs.iter().map(|run| first.config.differences(&run.config)).collect();
    let mut columns: Vec<Column> = Vec::new();
    for difference in differences.iter().flatten() {
        let hidden = difference.field == "epochs" || difference.field == "data.images";
        if !hidden && !columns.iter().any(|column| column.field == difference.field) {
            let of = |d: &Vec<crate::train::Difference>| {
                d.iter().find(|d| d.field == difference.field).map(|d| d.second.clone())
            };
            let values = differences.iter().map(|d| of(d).unwrap_or_else(|| difference.first.clone())).collect();
            let short = difference.field.trim_start_matches("model.").trim_start_matches("objective.").to_string();
            columns.push(Column { field: difference.field.clone(), short, values });
        }
    }
    columns
}

/// A value as people write it: names without quotes, lists without brackets.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// `40 s`, `5 min`, `3 h`, `12 d`.
fn in_words(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// Rows of cells below each other: the first column to the left, the others to the right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(i, (cell, &width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        cells.collect::<String>() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::VaeConfig;

    fn run(name: &str, change: fn(&mut TrainConfig)) -> ListedRun {
        let mut config = TrainConfig::new(VaeConfig::new(2));
        change(&mut config);
        ListedRun { name: name.into(), age: None, epochs: 1, neg_elbo: None, parameters: 7, config }
    }

    #[test]
    fn only_what_differs_has_a_column() {
        let runs = [
            run("a", |_| ()),
            run("b", |c| (c.seed, c.epochs) = (9, 3)),
            run("c", |c| (c.model.latent, c.shuffle) = (5, false)),
        ];
        let found: Vec<(String, Vec<String>)> =
            columns(&runs).into_iter().map(|c| (c.short, c.values.iter().map(cell).collect())).collect();
        let values = |values: [&str; 3]| values.map(String::from).to_vec();
        assert_eq!(
            found,
            [
                ("seed".into(), values(["1", "9", "1"])),
                ("latent".into(), values(["2", "2", "5"])),
                ("shuffle".into(), values(["–", "–", "false"])),
            ]
        );
        assert!(columns(&runs[..1]).is_empty() && columns(&[]).is_empty());
    }

    #[test]
    fn what_is_no_run_is_passed_by_and_what_cannot_be_read_ends_nothing() {
        let at = tempfile::tempdir().unwrap();
        let (foreign, own) = (at.path().join("a/foreign"), at.path().join("b/own"));
        [&foreign, &own].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        std::fs::write(foreign.join("config.json"), "{}").unwrap();
        std::fs::write(own.join("metrics.jsonl"), "").unwrap();
        let mut found = Vec::new();
        collect(&at.path().join("nowhere"), DEPTH, &mut found);
        collect(at.path(), DEPTH, &mut found);
        let [(nowhere, Err(_)), (run, Ok(()))] = &found[..] else { panic!("{found:?}") };
        assert!(nowhere.ends_with("nowhere") && *run == own);
    }

    #[test]
    fn ages_have_one_unit() {
        let said = [5, 300, 10_000, 1_000_000].map(|s| in_words(Duration::from_secs(s)));
        assert_eq!(said, ["5 s", "5 min", "2 h", "11 d"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["run".to_string(), "−ELBO".into()], vec!["a-long-name".into(), "1.5".into()]];
        assert_eq!(table(&rows), "run          −ELBO\na-long-name    1.5\n");
    }
}
