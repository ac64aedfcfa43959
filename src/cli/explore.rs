//! `elbo explore`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::answer::Answer;
use super::output::{self, ending};
use super::{say, use_run};
use crate::data::Dataset;
use crate::engine::device::Device;
use crate::engine::error::{Error, Remedy, Result};
use crate::study::explore::{Bundle, Caption, Surroundings, site};
use crate::train::checkpoint::Checkpoint;
use crate::train::{Source, quoted};

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Bytes of the means of test images that go with a model: ten thousand in a plane, some hundred in twenty dimensions.
const MOST_SURROUNDINGS: usize = 200_000;

/// A page larger than this is not handed around.
const LARGEST: usize = 3_000_000;

/// Write a page in which a run's model can be explored
///
/// One HTML file that opens from disk. The page computes by this program's own engine, compiled to WebAssembly: images of any z, posteriors, bounds and their
/// gradients, and a small training. It asks nothing of a network. Weights are rounded to 16 bits; 200 test images go with them.
#[derive(Args)]
pub struct Explore {
    /// Run folder, or a checkpoint file
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Page to write (HTML)
    #[arg(long, short, value_name = "FILE", default_value = "explore.html", value_parser = ending("html"))]
    pub out: PathBuf,
    /// Folder with other images [default: those of the run]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub answer: Answer,
}

impl Explore {
    /// Writes the page.
    pub fn run(&self) -> Result<()> {
        output::spare_runs("out", &self.out, Some(&self.run))?;
        let engine = engine()?;
        super::warn_if_debug_build();
        let checkpoint = use_run::open(&self.run)?;
        let test = use_run::images(&self.run, &checkpoint, &self.data)?.test;
        let bundle = Bundle::of(&checkpoint, &test, self.caption(&checkpoint))?.sealed()?;
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        let engine = packed.write_all(engine).and_then(|()| packed.finish()).expect("memory can be written");
        let page = site::page(&bundle, &engine, surroundings(&checkpoint, &test)?.as_ref());
        let bytes = page.html().len();
        if bytes > LARGEST {
            say(format_args!(
                "warning: the page has {:.1} MB, because the model has {} parameters; one with smaller --hidden makes a page \
                 that is easier to hand around",
                bytes as f64 / 1e6,
                bundle.parameters.iter().map(|(_, values)| values.len()).sum::<usize>()
            ));
        }
        page.write(&self.out)?;
        let bytes = fs::metadata(&self.out).map_err(Error::io("read", &self.out))?.len();
        let text = format!("{} ({:.2} MB): open it in a browser\n", self.out.display(), bytes as f64 / 1e6);
        self.answer.give(&text, &json!({ "page": self.out, "bytes": bytes }))
    }

    fn caption(&self, checkpoint: &Checkpoint) -> Caption {
        let name = run_name(&self.run);
        let own_data = self.data.as_deref().map(|folder| format!(" --data {}", quoted(&last_name(folder))));
        let data = match (&self.data, &checkpoint.config.data) {
            (None, Source::Digits { seed, .. }) => format!("built-in digits, seed {seed}"),
            (None, Source::Folder { path, .. }) | (Some(path), _) => {
                // A page travels; where this machine keeps its images is nobody's business.
                last_name(path)
            }
        };
        Caption {
            title: format!("{name}: {}", checkpoint.config.model.describe()),
            data,
            command: format!("elbo explore {}{}", quoted(&name), own_data.unwrap_or_default()),
            updates: checkpoint.progress.updates,
        }
    }
}

/// The name of a run: that of its folder, for a checkpoint file too.
fn run_name(run: &Path) -> String {
    let folder = if run.is_file() { run.parent().filter(|folder| !folder.as_os_str().is_empty()) } else { Some(run) };
    last_name(folder.unwrap_or(Path::new(".")))
}

/// The last part of a path, as it is called where it lies: `.` and `..` have names too.
fn last_name(path: &Path) -> String {
    let lies = if path.file_name().is_none() { path.canonicalize().ok() } else { None };
    let name = lies.as_deref().unwrap_or(path).file_name().or(path.file_name());
    name.map_or("run".into(), |name| name.to_string_lossy().into_owned())
}

/// Where all test images lie, by the same means as `elbo decode` looks around with; none where they would take too much room.
fn surroundings(checkpoint: &Checkpoint, test: &Dataset) -> Result<Option<Surroundings>> {
    if 4 * test.rows * checkpoint.config.model.latent > MOST_SURROUNDINGS {
        return Ok(None);
    }
    let mut model = checkpoint.model(Device::Cpu { threads: 0 })?;
    test.load_into(&mut model, "test")?;
    let means = model.encode("test", checkpoint.config.seed)?.mu;
    Ok(Some(Surroundings { means, labels: test.labels.clone().unwrap_or_default() }))
}

/// The engine for pages.
fn engine() -> Result<&'static [u8]> {
    ENGINE.map_err(|reason| Error::Device {
        device: "WebAssembly".into(),
        reason: format!("this program has no engine for pages: {reason}"),
        remedy: Remedy::from(REMEDY),
    })
}

/// How a program with the engine for pages comes about.
const REMEDY: &str = "run `rustup target add wasm32-unknown-unknown` and build it again in release mode, without ELBO_WASM=off and with \
                      ELBO_REQUIRE_WASM=1, which says all that fails";

/// The row of `elbo info` about it.
pub fn row() -> (&'static str, String) {
    let value = match ENGINE {
        Ok(engine) => format!("engine of {:.2} MB (WebAssembly, 128-bit vectors)", engine.len() as f64 / 1e6),
        Err(reason) => format!("none: {reason}; {REMEDY}"),
    };
    ("pages", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_called_as_its_folder() {
        let top = std::env::temp_dir().join(format!("elbo-names-{}", std::process::id()));
        let run = top.join("003-lr0.0001");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("checkpoint.safetensors"), "").unwrap();
        let found = [run.clone(), run.join("checkpoint.safetensors"), run.join("."), top.join("none/../003-lr0.0001")];
        let found = found.map(|path| run_name(&path));
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(found, ["003-lr0.0001"; 4]);
        assert_eq!(run_name(Path::new(".")), std::env::current_dir().unwrap().file_name().unwrap().to_string_lossy());
    }
}
