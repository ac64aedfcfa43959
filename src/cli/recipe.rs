//! Recipes: published experiments as files.
//!
//! A recipe is a TOML file. Its `[config]` is a run's configuration, as in the run's `config.json`: what is left out is
//! usual. Images, seed and schedules are asked for elsewhere: the schedule in `[schedule]`, in stages. What a file leaves
//! out it takes from the file named by `base`; a file with `template = true` is there to be a base only.
//! `[variants.NAME.config]` are settings on top, one of which is chosen with `--protocol NAME`. An option given on the
//! command line comes before all of it.

mod files;
mod format;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::options::Variants;
use crate::data::Splits;
use crate::engine::error::{Error, Result};
use crate::engine::optim::Optimizer;
use crate::train::{EpochSchedules, Experiment, RateSchedule, TrainConfig};
use crate::vae::Likelihood;
pub use format::{EvaluationSpec, Metric};
use format::{Expected, MeasuredHere, Publication, Published, Requirement, Stages, Variant};

/// What a recipe file may hold. Every field may be left out of a file; [`Recipe::check`] says what a whole recipe needs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// The file's name without `.toml`.
    #[serde(skip_deserializing)]
    pub name: String,
    #[serde(skip)]
    path: PathBuf,
    template: bool,
    base: Option<String>,
    /// One line for the list.
    pub title: String,
    /// The variant that is used unless another is asked for.
    pub protocol: Option<String>,
    /// Where code and paper differ, and this program from both.
    pub notes: Vec<String>,
    /// Who did it first.
    pub source: Publication,
    /// The images that the numbers are for.
    pub data: Requirement,
    /// What is not usual of a run's configuration.
    config: Table,
    schedule: Stages,
    variants: BTreeMap<String, Variant>,
    /// How the result is judged.
    pub evaluation: EvaluationSpec,
    /// The number to reach.
    pub expected: Expected,
    /// Numbers by others.
    pub published: Vec<Published>,
    /// Numbers by this program.
    pub measured: Vec<MeasuredHere>,
}

/// A field that a run's configuration has and a recipe's has not: the command and [`Stages`] say it.
fn asked_elsewhere(config: &Table) -> Option<&'static str> {
    let known = ["data", "seed", "epochs", "lr", "warmup"].into_iter().find(|field| config.contains_key(*field));
    known.or(config.get("model").and_then(|model| model.get("image")).map(|_| "model.image"))
}

/// Names of all recipes that come with the program, sorted.
pub fn names() -> Vec<&'static str> {
    let template = |text: &str| toml::from_str::<Recipe>(text).is_ok_and(|file| file.template);
    files::FILES.iter().filter(|(_, text)| !template(text)).map(|&(name, _)| name).collect()
}

impl Recipe {
    /// The recipe of this name, or in this file.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name, [`Error::File`] naming file and field, [`Error::Io`].
    pub fn load(name: &str) -> Result<Recipe> {
        let path = Path::new(name);
        let (folder, stem) = match path.extension() {
            Some(ending) if ending != "toml" => {
                let expected = "a name of `elbo recipes`, or a file that ends in .toml";
                return Err(Error::argument("recipe", format!("\"{name}\""), expected));
            }
            Some(_) => (path.parent().map(Path::to_path_buf), path.file_stem().unwrap_or_default().to_string_lossy()),
            None => (None, name.into()),
        };
        let (_, mut recipe) = assemble(&stem, folder.as_deref(), None, &mut Vec::new())?;
        recipe.name = stem.into_owned();
        recipe.check().map(|()| recipe)
    }

    /// What a whole recipe needs.
    fn check(&self) -> Result<()> {
        if self.template {
            let expected = "a recipe; this file is a template that recipes name as their base";
            return Err(self.wrong("template", "true", expected));
        }
        if self.title.is_empty() {
            return Err(self.wrong("title", "nothing", "one line that says what it is"));
        }
        if self.schedule.stages.is_empty() {
            return Err(self.wrong("schedule.stages", "none", "at least one { epochs = N, lr = RATE }"));
        }
        if self.expected.value.is_some() && self.expected.band <= 0.0 {
            return Err(self.wrong("expected.band", &self.expected.band.to_string(), "nats > 0"));
        }
        if self.expected.value.is_some() && self.expected.metric == Metric::Nll && self.evaluation.nll_samples == 0 {
            return Err(self.wrong("evaluation.nll_samples", "0", "the number of samples of the expected number"));
        }
        if let Some(name) = self.protocol.as_ref().filter(|name| !self.variants.contains_key(*name)) {
            return Err(self.wrong("protocol", &format!("\"{name}\""), "the name of one of the variants"));
        }
        for protocol in self.variants.keys().map(|name| Some(name.as_str())).chain([None]) {
            let asked = self.experiment(protocol, None, true)?;
            asked.config.validate().map_err(|e| self.wrong("config", &e.to_string(), "a valid configuration"))?;
        }
        Ok(())
    }

    fn wrong(&self, field: &str, found: &str, expected: &str) -> Error {
        wrong(&self.path, field, found, expected)
    }

    /// The variant asked for, or the usual one; none where the recipe has none.
    fn variant(&self, name: Option<&str>) -> Result<Option<(&str, &Variant)>> {
        let Some(name) = name.or(self.protocol.as_deref()) else { return Ok(None) };
        let found = self.variants.get_key_value(name).map(|(name, variant)| (name.as_str(), variant));
        found.map(Some).ok_or_else(|| {
            let names: Vec<&str> = self.variants.keys().map(String::as_str).collect();
            let expected = match names.is_empty() {
                true => format!("none: recipe {} has one protocol", self.name),
                false => format!("one of {}", names.join(", ")),
            };
            Error::argument("protocol", format!("\"{name}\""), expected)
        })
    }

    /// The protocol that is followed, with what it says of itself.
    ///
    /// # Errors
    /// [`Error::Argument`] for a protocol that the recipe does not have.
    pub fn protocol(&self, name: Option<&str>) -> Result<Option<(&str, &str)>> {
        Ok(self.variant(name)?.map(|(name, variant)| (name, variant.about.as_str())))
    }

    /// The number of stages.
    pub fn stages(&self) -> usize {
        self.schedule.stages.len()
    }

    /// The epochs of the first `stages` stages, or of all.
    ///
    /// # Errors
    /// [`Error::Argument`] for more stages than there are, or none.
    pub fn epochs(&self, stages: Option<usize>) -> Result<u32> {
        let all = &self.schedule.stages;
        let count = stages.unwrap_or(all.len());
        if !(1..=all.len()).contains(&count) {
            return Err(Error::argument("stages", count, format!("a number from 1 to {}", all.len())));
        }
        Ok(all[..count].iter().map(|stage| stage.epochs).sum())
    }

    /// The usual configuration with the recipe's and this variant's on top.
    fn config(&self, variant: Option<&Variant>) -> Result<TrainConfig> {
        let mut whole = Table::try_from(TrainConfig::default()).expect("a configuration is plain data");
        for config in [Some(&self.config), variant.map(|variant| &variant.config)].into_iter().flatten() {
            if let Some(field) = asked_elsewhere(config) {
                let expected = "no such field: images come with the command, rates and epochs in schedule.stages";
                return Err(self.wrong(&format!("config.{field}"), "a value", expected));
            }
            merge(&mut whole, config.clone());
        }
        let expected = "fields of a run's configuration, as in its config.json";
        whole.try_into().map_err(|e: toml::de::Error| self.wrong("config", &e.to_string(), expected))
    }

    /// What the recipe asks for, on its own images or (`own_images` false) on others, which may be fewer.
    ///
    /// # Errors
    /// As [`Recipe::protocol`] and [`Recipe::epochs`].
    pub fn experiment(&self, protocol: Option<&str>, stages: Option<usize>, own_images: bool) -> Result<Experiment> {
        let mut config = self.config(self.variant(protocol)?.map(|(_, variant)| variant))?;
        config.epochs = self.epochs(stages)?;
        config.train_images = config.train_images.filter(|_| own_images);
        let all = &self.schedule.stages;
        let mut done = 0;
        // Of all stages, so that more can follow.
        let steps = all.windows(2).map(|pair| {
            done += pair[0].epochs;
            (f64::from(done), pair[1].lr)
        });
        let steps: Vec<(f64, f64)> = steps.collect();
        let lr_schedule = if steps.is_empty() { RateSchedule::Constant } else { RateSchedule::Steps(steps) };
        let (beta, kl_warmup) = (self.schedule.beta, self.schedule.kl_warmup);
        Ok(Experiment { config, schedule: EpochSchedules { lr: all[0].lr, lr_schedule, beta, kl_warmup } })
    }

    /// Says whether these are the recipe's images, by their number and the mean of the training set's pixels.
    ///
    /// # Errors
    /// [`Error::File`] naming the folder and what differs.
    pub fn check_images(&self, data: &Splits, folder: &Path) -> Result<()> {
        let r = &self.data;
        let found = (data.train.rows, data.test.rows, data.train.histograms().mean());
        if (found.0, found.1) != (r.train, r.test) || (found.2 - r.train_mean).abs() > 5e-4 {
            let numbers = |(train, test, mean): (usize, usize, f64)| {
                format!("{train} training and {test} test images, mean pixel {mean:.4}")
            };
            let expected = numbers((r.train, r.test, r.train_mean));
            let expected = format!("{}, which recipe {} is for: {expected}", r.images, self.name);
            return Err(Error::File {
                path: folder.into(),
                field: "images".into(),
                found: numbers(found),
                expected,
                remedy: "give --data the folder with those images".into(),
            });
        }
        Ok(())
    }
}

/// A file on top of its base, as a table and as a recipe. `above` is the file that names this one as its base.
fn assemble(
    name: &str,
    folder: Option<&Path>,
    above: Option<&Path>,
    seen: &mut Vec<String>,
) -> Result<(Table, Recipe)> {
    let (text, path) = read(name, folder, above, seen.is_empty())?;
    seen.push(name.to_string());
    // Read as a recipe first: an unknown field is then reported with this file's line.
    let own: Recipe = parse(&text, &path)?;
    let mut table: Table = parse(&text, &path)?;
    if let Some(base) = own.base {
        if seen.contains(&base) {
            return Err(wrong(&path, "base", &format!("\"{base}\""), "a file that does not come back to this one"));
        }
        let (mut whole, _) = assemble(&base, folder, Some(&path), seen)?;
        whole.remove("template");
        table.remove("base");
        merge(&mut whole, table);
        table = whole;
    }
    let whole = table.clone().try_into::<Recipe>();
    let mut recipe = whole.map_err(|e| wrong(&path, "the file with its base", e.message(), "a recipe"))?;
    recipe.path = path;
    // After every file, so that the one that is wrong is named.
    for variant in recipe.variants.values().map(Some).chain([None]) {
        recipe.config(variant)?;
    }
    Ok((table, recipe))
}

/// Text and path of a file in the folder, where it must lie if it was `asked` for by its path, or of the program's own.
fn read(name: &str, folder: Option<&Path>, above: Option<&Path>, asked: bool) -> Result<(String, PathBuf)> {
    let file = folder.map(|folder| folder.join(format!("{name}.toml"))).filter(|path| path.is_file() || asked);
    if let Some(path) = file {
        return Ok((std::fs::read_to_string(&path).map_err(Error::io("read", &path))?, path));
    }
    if let Some((_, text)) = files::FILES.iter().find(|(known, _)| *known == name) {
        return Ok(((*text).to_string(), PathBuf::from(format!("recipes/{name}.toml"))));
    }
    let (found, names) = (format!("\"{name}\""), names().join(", "));
    Err(match above {
        Some(above) => {
            let expected = format!("one of {names}; or the name of a file beside this one, without .toml");
            wrong(above, "base", &found, &expected)
        }
        None => Error::argument("recipe", found, format!("one of {names}; or a file FILE.toml")),
    })
}

/// Lays `over` on `table`: tables are merged, everything else is replaced, and so is a choice by one of another kind, for
/// which the numbers of the first mean nothing.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        let choice = [Optimizer::OPTION, Likelihood::OPTION].contains(&key.as_str());
        let other =
            |below: &Table, above: &Table| above.get("kind").is_some_and(|kind| below.get("kind") != Some(kind));
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) if !(choice && other(below, &above)) => {
                merge(below, above)
            }
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start).min(text.len());
        let number = text[..at].matches('\n').count();
        let line = text.lines().nth(number).unwrap_or_default();
        wrong(path, &format!("line {}, `{}`", number + 1, line.trim()), e.message(), "a recipe")
    })
}

fn wrong(path: &Path, field: &str, found: &str, expected: &str) -> Error {
    Error::File {
        path: path.into(),
        field: field.into(),
        found: found.trim().replace('\n', " "),
        expected: expected.into(),
        remedy: "correct the file; docs/book/src/recipes.md describes the format".into(),
    }
}

#[cfg(test)]
mod tests;
