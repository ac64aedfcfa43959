//! Recipes: published experiments as files, and what they ask of `elbo train`.
//!
//! A recipe is a TOML file. Its sections `[model]`, `[objective]`, `[optimiser]` and `[schedule]` hold options of `elbo
//! train` without their dashes, so that there is one vocabulary, and an option given on the command line replaces the
//! recipe's. What a file leaves out it takes from the file named by `base`; a file with `template = true` is there to be a
//! base only. `[variants.NAME]` are settings on top, one of which is chosen with `--protocol NAME`.

mod files;
mod format;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::args;
use crate::data::Splits;
use crate::engine::error::{Error, Result};
pub use format::{Evaluation, Metric};
use format::{Expected, Measured, Published, Requirement, Schedule, Source, Variant};

/// What a recipe file may hold. Every field may be left out of a file; [`Recipe::check`] says what a whole recipe needs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Recipe {
    /// The file's name without `.toml`.
    #[serde(skip_deserializing)]
    pub name: String,
    #[serde(skip)]
    path: PathBuf,
    /// The files below it, in the order in which they name each other.
    #[serde(skip)]
    bases: Vec<String>,
    template: bool,
    base: Option<String>,
    /// One line for the list.
    pub title: String,
    /// The variant that is used unless another is asked for.
    pub protocol: Option<String>,
    /// Where code and paper differ, and this program from both.
    pub notes: Vec<String>,
    /// Who did it first.
    pub source: Source,
    /// The images that the numbers are for.
    pub data: Requirement,
    model: Table,
    objective: Table,
    optimiser: Table,
    schedule: Schedule,
    variants: BTreeMap<String, Variant>,
    /// How the result is judged.
    pub evaluation: Evaluation,
    /// The number to reach.
    pub expected: Expected,
    /// Numbers by others.
    pub published: Vec<Published>,
    /// Numbers by this program.
    pub measured: Vec<Measured>,
}

/// An option of `elbo train` and its values; none for a flag.
type Setting = (String, Vec<String>);

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
        let mut files = Vec::new();
        let (table, path) = assemble(&stem, folder.as_deref(), None, &mut files)?;
        let whole = table.try_into::<Recipe>();
        let mut recipe = whole.map_err(|e| wrong(&path, "the file with its bases", e.message(), "a recipe"))?;
        (recipe.name, recipe.path, recipe.bases) = (stem.into_owned(), path, files.split_off(1));
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
            return Err(self.wrong("evaluation.nll-samples", "0", "the number of samples of the expected number"));
        }
        if let Some(name) = &self.protocol {
            self.variant(Some(name))?;
        }
        let known = settable();
        let variants = self.variants.iter().flat_map(|(name, v)| {
            let of = |part: &str| format!("variants.{name}.{part}");
            [(of("model"), &v.model), (of("objective"), &v.objective), (of("optimiser"), &v.optimiser)]
        });
        let own = [("model", &self.model), ("objective", &self.objective), ("optimiser", &self.optimiser)];
        for (section, table) in own.map(|(name, table)| (name.to_string(), table)).into_iter().chain(variants) {
            for (key, value) in table {
                if !known.contains(key) {
                    let expected = format!("an option of `elbo train` without its dashes: {}", known.join(", "));
                    return Err(self.wrong(&format!("{section}.{key}"), &value.to_string(), &expected));
                }
                if texts(value).is_none() {
                    let expected = "a text, a number, true or false, or a list of texts or numbers";
                    return Err(self.wrong(&format!("{section}.{key}"), &value.to_string(), expected));
                }
            }
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

    /// The recipe as options of `elbo train`, for its own images or (`own_images` false) for others, which may be fewer.
    ///
    /// # Errors
    /// As [`Recipe::protocol`] and [`Recipe::epochs`].
    fn settings(&self, protocol: Option<&str>, stages: Option<usize>, own_images: bool) -> Result<Vec<Setting>> {
        let mut merged = [&self.model, &self.objective, &self.optimiser].map(Clone::clone);
        if let Some((_, variant)) = self.variant(protocol)? {
            for (table, more) in merged.iter_mut().zip([&variant.model, &variant.objective, &variant.optimiser]) {
                table.extend(more.clone());
            }
        }
        let mut settings = Vec::new();
        for (key, value) in merged.into_iter().flatten() {
            let values = texts(&value).expect("checked when the recipe was loaded");
            if value != Value::Boolean(false) {
                settings.push((key, values));
            }
        }
        let s = &self.schedule;
        let mut set = |key: &str, values: Vec<String>| settings.push((key.to_string(), values));
        s.batch.iter().for_each(|b| set("batch", vec![b.to_string()]));
        s.train_images.iter().filter(|_| own_images).for_each(|n| set("train-images", vec![n.to_string()]));
        if s.no_shuffle == Some(true) {
            set("no-shuffle", Vec::new());
        }
        set("epochs", vec![self.epochs(stages)?.to_string()]);
        set("lr", vec![s.stages[0].lr.to_string()]);
        if s.stages.len() > 1 {
            let mut done = 0;
            let steps = s.stages.windows(2).map(|pair| {
                done += pair[0].epochs;
                format!("{done}={}", pair[1].lr)
            });
            set("lr-schedule", vec![format!("steps:{}", steps.collect::<Vec<_>>().join(","))]);
        }
        Ok(settings)
    }

    /// Arguments of `elbo train` that follow the recipe, except for the options given in `matches`, the user's own.
    ///
    /// # Errors
    /// As [`Recipe::protocol`] and [`Recipe::epochs`].
    pub fn arguments(
        &self,
        protocol: Option<&str>,
        stages: Option<usize>,
        own_images: bool,
        matches: &ArgMatches,
    ) -> Result<Vec<String>> {
        let given = |option: &str| {
            let id = option.replace('-', "_");
            matches.try_contains_id(&id).is_ok() && matches.value_source(&id) == Some(ValueSource::CommandLine)
        };
        let mut arguments = Vec::new();
        for (option, values) in self.settings(protocol, stages, own_images)? {
            // A rate of one's own is a constant one, unless a schedule is given with it.
            if given(&option) || (option == "lr-schedule" && given("lr")) {
                continue;
            }
            match values.is_empty() {
                true => arguments.push(format!("--{option}")),
                false => arguments.extend(values.iter().map(|value| format!("--{option}={value}"))),
            }
        }
        Ok(arguments)
    }

    /// Says whether these are the recipe's images, by their number and the mean of the training set's pixels.
    ///
    /// # Errors
    /// [`Error::File`] naming the folder and what differs.
    pub fn check_images(&self, data: &Splits, folder: &Path) -> Result<()> {
        let r = &self.data;
        let found = (data.train.rows, data.test.rows, data.train.mean_pixel());
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

    /// What of the file an option is, for messages: it may stand in one of its bases.
    pub fn an_option(&self) -> String {
        match self.bases.is_empty() {
            true => "an option".into(),
            false => format!("an option, of this file or of its base {}", self.bases.join(" or ")),
        }
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The recipe's options where the user gave none: `args` as if all had been typed.
///
/// # Errors
/// [`Error::File`] when a value is not what the option takes; and as [`Recipe::load`] and [`Recipe::arguments`].
pub fn complete(args: &args::Train, matches: &ArgMatches, parse: Parse) -> Result<args::Train> {
    let name = args.recipe.as_deref().expect("a recipe was asked for");
    if args.stages.is_some() && args.epochs.is_some() {
        return Err(Error::argument("stages", "--stages beside --epochs", "one of the two"));
    }
    let recipe = Recipe::load(name)?;
    let options = recipe.arguments(args.protocol.as_deref(), args.stages, args.data.data.is_some(), matches)?;
    let own = std::env::args_os().skip(1);
    parse(own.chain(options.into_iter().map(OsString::from)).collect()).map_err(|message| {
        let expected = "a value that `elbo train` takes, together with the others given";
        wrong(recipe.path(), &recipe.an_option(), &message, expected)
    })
}

/// Reads the arguments after the program's name, `train` being the first, or says what is wrong.
pub type Parse = fn(Vec<OsString>) -> std::result::Result<args::Train, String>;

/// The options that a recipe's sections may set: those of model and optimisation, but not what the schedule says.
fn settable() -> Vec<String> {
    let command = args::Optimise::augment_args(args::Model::augment_args(Command::new("")));
    let names = command.get_arguments().filter_map(|arg| arg.get_long().map(String::from));
    let of_the_schedule = ["batch", "lr", "lr-schedule", "train-images", "no-shuffle"];
    names.filter(|name| !of_the_schedule.contains(&name.as_str())).collect()
}

/// A value as it is typed; nothing for a flag.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(s) => Some(vec![s.clone()]),
        Value::Integer(n) => Some(vec![n.to_string()]),
        Value::Float(x) => Some(vec![x.to_string()]),
        Value::Boolean(_) => Some(Vec::new()),
        Value::Array(all) if !all.is_empty() => {
            let one = |v: &Value| texts(v).filter(|t| t.len() == 1).map(|mut t| t.remove(0));
            all.iter().map(one).collect()
        }
        _ => None,
    }
}

/// The table of a file on top of that of its base, and the file's path. `above` is the file that names this one as its base.
fn assemble(
    name: &str,
    folder: Option<&Path>,
    above: Option<&Path>,
    seen: &mut Vec<String>,
) -> Result<(Table, PathBuf)> {
    let file =
        folder.map(|folder| folder.join(format!("{name}.toml"))).filter(|path| path.is_file() || seen.is_empty());
    let (text, path) = match file {
        Some(path) => (std::fs::read_to_string(&path).map_err(Error::io("read", &path))?, path),
        None => {
            let known = files::FILES.iter().find(|(known, _)| *known == name);
            let text = known.map(|(_, text)| (*text).to_string()).ok_or_else(|| {
                let (found, names) = (format!("\"{name}\""), names().join(", "));
                match above {
                    Some(above) => {
                        let expected = format!("one of {names}; or the name of a file beside this one, without .toml");
                        wrong(above, "base", &found, &expected)
                    }
                    None => Error::argument("recipe", found, format!("one of {names}; or a file FILE.toml")),
                }
            })?;
            (text, PathBuf::from(format!("recipes/{name}.toml")))
        }
    };
    seen.push(name.to_string());
    // Read as a recipe first: an unknown field is then reported with this file's line.
    let own: Recipe = parse(&text, &path)?;
    let mut table: Table = parse(&text, &path)?;
    let Some(base) = own.base else { return Ok((table, path)) };
    if seen.contains(&base) {
        return Err(wrong(&path, "base", &format!("\"{base}\""), "a file that does not come back to this one"));
    }
    let (mut whole, _) = assemble(&base, folder, Some(&path), seen)?;
    whole.remove("template");
    table.remove("base");
    merge(&mut whole, table);
    Ok((whole, path))
}

/// Lays `over` on `table`: tables are merged, everything else is replaced.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
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
        remedy: "correct the file; docs/recipes.md describes the format".into(),
    }
}

#[cfg(test)]
mod tests;
