//! `elbo plan`.

#[cfg(feature = "cuda")]
mod launches;

#[cfg(feature = "cuda")]
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::answer::Answer;
use super::options::{Machine, Overrides, effects};
use crate::engine::device::{Array, Call, Device, Function, Key, Schedule, State};
use crate::engine::error::{Error, Result};
use crate::engine::graph::Graph;
use crate::engine::isa::Isa;
use crate::engine::plan;
use crate::engine::rng::Draw;
use crate::train::Experiment;
use crate::vae::{BETA, LEARNING_RATE, Vae, streams, training_step};

/// Print a training step's kernels, shapes, bytes and FLOPs
#[derive(Args)]
pub struct Plan {
    /// Height and width of the images, in pixels
    #[arg(long, value_name = "HxW", default_value = "28x28", value_parser = image_size)]
    pub image: [usize; 2],
    /// Print the graph too: one line per node, with the source line that made it
    #[arg(long)]
    pub graph: bool,
    /// Plan without fusion, one kernel per node, to see what fusion does
    #[arg(long)]
    pub no_fusion: bool,
    /// Time every step, on the CPU on one thread, the best of N passes; 0 does not
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub time: usize,
    /// With --device cuda: draw the launches and what waits for what
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "FILE.svg", value_parser = super::output::ending("svg"))]
    pub draw: Option<PathBuf>,
    /// With --device cuda: the compute capability to plan for
    ///
    /// Without it that of the GPU, and 9.0 if there is none.
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = launches::capability)]
    pub capability: Option<(u32, u32)>,
    #[command(flatten)]
    pub answer: Answer,
    #[command(flatten)]
    pub training: Overrides<Experiment>,
    #[command(flatten)]
    pub machine: Machine,
}

fn image_size(text: &str) -> Result<[usize; 2]> {
    let sizes = text.split_once('x').and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
    sizes.ok_or_else(|| Error::argument("image size", format!("\"{text}\""), "HEIGHTxWIDTH, as in 28x28"))
}

impl Plan {
    /// Prints the plan of a training step.
    pub fn run(&self) -> Result<()> {
        let asked = self.training.over(Experiment::default());
        let config = asked.on(self.image, asked.config.batch)?;
        effects::of_training(&self.training, &asked, None)?;
        let vae = Vae::new(config.model.clone())?;
        let graph = Graph::new();
        let outputs = training_step(&graph, &vae, &config.objective, "train", config.batch);
        let fusion = if self.no_fusion { plan::Fusion::none() } else { plan::Fusion::all() };
        let plan = plan::Plan::build(&graph, &outputs, fusion)?;
        let mut text = if self.graph { format!("{graph}\n") } else { String::new() };
        let (model, parameters) = (config.model.describe(), vae.params().count());
        text += &format!(
            "one training step of {model}, batch {}: {parameters} parameters, {} nodes\n{plan}\n",
            config.batch,
            graph.len()
        );
        let mut report = json!({
            "model": model, "batch": config.batch, "parameters": parameters, "nodes": graph.len(),
            "graph": self.graph.then(|| graph.to_string()), "flops": plan.flops(), "bytes": plan.bytes(),
            "waves": plan.waves(), "steps": plan.steps().iter().map(step_report).collect::<Vec<_>>(),
            "launches": Value::Null,
        });
        #[cfg(feature = "cuda")]
        self.launches(&plan, &mut text, &mut report)?;
        if self.time == 0 {
            return self.answer.give(&text, &report);
        }
        // Chunks are run one after the other to be timed: more threads would only wait.
        let device = match self.machine.device()? {
            Device::Cpu { .. } => Device::Cpu { threads: 1 },
            Device::Tiles { precision, .. } => Device::Tiles { threads: 1, precision },
            gpu => gpu,
        };
        let executor = device.open()?;
        let state = executor.state(&vae.params(), 1)?;
        let step = executor.compile_with(&graph, outputs, fusion)?;
        let device = executor.describe();
        let seconds = times(step, state, &plan, config.model.pixels(), self.time)?;
        for (step, seconds) in report["steps"].as_array_mut().into_iter().flatten().zip(&seconds) {
            // What is made by the launch of an earlier step has no time of its own.
            step["seconds"] = if *seconds > 0.0 { (*seconds).into() } else { Value::Null };
        }
        report["device"] = device.as_str().into();
        self.answer.give(&(text + &table(&plan, &seconds, self.time, &device)), &report)
    }
}

#[cfg(feature = "cuda")]
impl Plan {
    /// What a GPU that is asked for is given.
    fn launches(&self, plan: &plan::Plan, text: &mut String, report: &mut Value) -> Result<()> {
        if matches!(self.machine.device.as_str(), "auto" | "cpu") {
            let useless = [("--draw", self.draw.is_some()), ("--capability", self.capability.is_some())];
            return match useless.iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(Error::argument("option", *name, "--device cuda with it: it is about launches")),
                None => Ok(()),
            };
        }
        self.machine.gpu()?.ok();
        let step = launches::launches(plan, self.machine.precision, self.capability, !self.no_fusion)?;
        let alone = launches::launches(plan, self.machine.precision, self.capability, false)?;
        *text += &launches::text(&step, &alone, plan);
        report["launches"] = launches::record(&step);
        if let Some(path) = &self.draw {
            super::output::spare_runs("--draw", path, None)?;
            let title =
                format!("One training step of {}, batch {}", report["model"].as_str().unwrap_or(""), report["batch"]);
            launches::draw(&step, &title, path)?;
        }
        Ok(())
    }
}

fn step_report(step: &plan::Step) -> Value {
    json!({
        "kernel": step.name(), "wave": step.wave(), "waits": step.waits(), "source": step.at(), "flops": step.flops(), "bytes": step.bytes(),
    })
}

/// The shortest time of every step, on random images, in seconds.
fn times(
    mut step: Function<Array<3>>,
    mut state: State,
    plan: &plan::Plan,
    pixels: usize,
    passes: usize,
) -> Result<Vec<f64>> {
    let mut grey = vec![0.0; plan.batch_rows() * pixels];
    Draw { seed: 1, step: 0, stream: streams::OPERANDS }.fill_uniform(Isa::detect(), 0, &mut grey);
    let bytes: Vec<u8> = grey.iter().map(|v| (v * 256.0) as u8).collect();
    state.load("train", &bytes[..], pixels)?;
    let schedules: &[(&str, Schedule<'_>)] = &[(LEARNING_RATE, &|_| 1e-3), (BETA, &|_| 1.0)];
    step.time_steps(&mut state, &Call { schedules, ..Call::once(Key::new(0)) }, passes)
}

fn table(plan: &plan::Plan, seconds: &[f64], passes: usize, device: &str) -> String {
    let mut text = format!("\nbest of {passes} passes on {device}\n");
    text += "step  kernel               µs    GFLOP/s       GB/s\n";
    for (i, (step, s)) in plan.steps().iter().zip(seconds).enumerate() {
        if *s == 0.0 {
            text += &format!("{:>4}  {:<13} in the launch of an earlier step\n", i + 1, step.name());
            continue;
        }
        let (flops, bytes) = (step.flops() as f64 / s / 1e9, step.bytes() as f64 / s / 1e9);
        text += &format!("{:>4}  {:<13} {:>9.1} {flops:>10.1} {bytes:>10.1}\n", i + 1, step.name(), s * 1e6);
    }
    let total: f64 = seconds.iter().sum();
    let rate = plan.flops() as f64 / total / 1e9;
    text + &format!("   all of them      {:>9.1} {rate:>10.1}\n", total * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_height_x_width() {
        assert_eq!(image_size("20x30").unwrap(), [20, 30]);
        assert!(image_size("20").is_err() && image_size("ax3").is_err());
    }
}
