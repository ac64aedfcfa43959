//! What is timed: graphs of one step, with operands, and what their results should be.

use std::collections::BTreeMap;

use crate::engine::device::cpu::Cpu;
use crate::engine::device::{Bound, Exec, Precision};
use crate::engine::error::Result;
use crate::engine::graph::Graph;
use crate::engine::interp::Interp;
use crate::engine::isa::Isa;
use crate::engine::optim::{Control, Optimizer};
use crate::engine::plan::{Fusion, Plan};
use crate::engine::rng::Draw;
use crate::vae::streams;
use crate::vae::{Objective, Vae, training_graph};

/// A step to be timed, the same on every device.
pub trait Workload {
    /// The graph of one step.
    fn graph(&self) -> Graph;

    /// Fills the memory of a bound plan: parameters, operands, data.
    ///
    /// # Errors
    /// From the executor, as for all functions with one.
    fn load(&self, exec: &mut dyn Exec) -> Result<()>;

    /// Runs `times` steps on what is there.
    fn run(&self, exec: &mut dyn Exec, plan: Bound, times: usize) -> Result<()>;

    /// What a caller pays whose operands are on the host: operands to the device, one step, results back.
    fn round_trip(&self, exec: &mut dyn Exec, plan: Bound) -> Result<()>;

    /// Bytes that a round trip moves, both ways.
    fn transferred(&self) -> u64;

    /// What it comes to, right after [`Workload::load`].
    fn result(&self, exec: &mut dyn Exec, plan: Bound) -> Result<Vec<f64>>;

    /// What it should come to.
    fn truth(&self) -> Result<Truth>;

    /// The largest error that passes, relative to the largest number of the truth.
    fn bound(&self, precision: Precision) -> f64;
}

/// Results as they should be, and who says so.
pub struct Truth {
    /// The numbers.
    pub values: Vec<f64>,
    /// Where they are from.
    pub from: &'static str,
}

/// An operand.
struct Input {
    name: &'static str,
    rows: usize,
    cols: usize,
    values: Vec<f32>,
    /// Row i matters for row i of the result alone.
    by_row: bool,
    /// Whether a round trip takes it along.
    travels: bool,
}

/// Adds a step whose result has so many rows to a graph.
type Build = dyn Fn(&Graph, usize);

/// A step from arrays to an array.
pub struct Arrays {
    build: Box<Build>,
    /// Rows of the result and of the inputs that go with it.
    rows: usize,
    inputs: Vec<Input>,
    output: &'static str,
    /// Steps of the check: one, and more where a step builds on the one before.
    steps: usize,
    products: bool,
    /// In f32.
    bound: f64,
}

/// Rows of the result that are checked where each depends on its own inputs only.
const CHECKED_ROWS: usize = 8;

/// Relative error of f32 results, about a hundred units in the last place.
const F32_BOUND: f64 = 1e-5;

impl Arrays {
    /// A step whose result has `rows` rows; `build` makes its graph for that and other numbers of rows.
    pub fn new(rows: usize, output: &'static str, build: impl Fn(&Graph, usize) + 'static) -> Arrays {
        let (build, inputs) = (Box::new(build), Vec::new());
        Arrays { build, rows, inputs, output, steps: 1, products: false, bound: F32_BOUND }
    }

    /// An operand of which row i matters for row i of the result alone, normally distributed.
    pub fn row_input(mut self, name: &'static str, cols: usize) -> Arrays {
        let rows = self.rows;
        self.push(name, rows, cols, true);
        self
    }

    /// An operand of which everything may matter for everything.
    pub fn input(mut self, name: &'static str, rows: usize, cols: usize) -> Arrays {
        self.push(name, rows, cols, false);
        self
    }

    fn push(&mut self, name: &'static str, rows: usize, cols: usize, by_row: bool) {
        let mut values = vec![0.0; rows * cols];
        let draw = Draw { seed: 3, step: self.inputs.len() as u32, stream: streams::OPERANDS };
        draw.fill_normal(Isa::detect(), 0, &mut values);
        self.inputs.push(Input { name, rows, cols, values, by_row, travels: true });
    }

    /// Changes the numbers of the last input.
    pub fn of(mut self, change: impl Fn(f32) -> f32) -> Arrays {
        let last = self.inputs.last_mut().expect("of follows an input");
        last.values.iter_mut().for_each(|v| *v = change(*v));
        self
    }

    /// The last input stays on the device.
    pub fn resident(mut self) -> Arrays {
        self.inputs.last_mut().expect("resident follows an input").travels = false;
        self
    }

    /// The work is a matrix product.
    pub fn product(mut self) -> Arrays {
        self.products = true;
        self
    }

    /// The check makes so many steps.
    pub fn steps(mut self, steps: usize) -> Arrays {
        self.steps = steps;
        self
    }

    /// The rows that are checked: a few from all over the result, or all where rows depend on each other.
    fn checked(&self) -> Vec<usize> {
        let count = if self.inputs.iter().any(|i| i.by_row) { self.rows.min(CHECKED_ROWS) } else { self.rows };
        (0..count).map(|i| i * self.rows / count).collect()
    }
}

impl Workload for Arrays {
    fn graph(&self) -> Graph {
        let g = Graph::new();
        (self.build)(&g, self.rows);
        g
    }

    fn load(&self, exec: &mut dyn Exec) -> Result<()> {
        self.inputs.iter().try_for_each(|i| exec.write(i.name, &i.values))
    }

    fn run(&self, exec: &mut dyn Exec, plan: Bound, times: usize) -> Result<()> {
        exec.run(plan, times)
    }

    fn round_trip(&self, exec: &mut dyn Exec, plan: Bound) -> Result<()> {
        self.inputs.iter().filter(|i| i.travels).try_for_each(|i| exec.write(i.name, &i.values))?;
        exec.run(plan, 1)?;
        exec.read(self.output).map(drop)
    }

    fn transferred(&self) -> u64 {
        let up: usize = self.inputs.iter().filter(|i| i.travels).map(|i| i.values.len()).sum();
        let slots = self.graph().slots();
        let down = slots.iter().find(|s| s.name == self.output).map_or(0, |s| s.shape.size());
        4 * (up + down) as u64
    }

    fn result(&self, exec: &mut dyn Exec, plan: Bound) -> Result<Vec<f64>> {
        exec.run(plan, self.steps)?;
        let all = exec.read(self.output)?;
        let cols = all.len() / self.rows;
        let row = |r: usize| all[r * cols..][..cols].iter().map(|&v| f64::from(v));
        Ok(self.checked().into_iter().flat_map(row).collect())
    }

    /// The same graph for the checked rows alone, evaluated node by node in f64.
    fn truth(&self) -> Result<Truth> {
        let rows = self.checked();
        let g = Graph::new();
        (self.build)(&g, rows.len());
        let mut run = Interp::<f64>::new(&g);
        run.control = Control::new(1);
        for input in &self.inputs {
            let all: Vec<usize> = (0..input.rows).collect();
            let wanted = if input.by_row { &rows } else { &all };
            let row = |&r: &usize| input.values[r * input.cols..][..input.cols].iter().map(|&v| f64::from(v));
            run.set(input.name, &wanted.iter().flat_map(row).collect::<Vec<f64>>())?;
        }
        (0..self.steps).for_each(|_| run.step());
        let values = run.get(self.output).expect("the graph stores its result").to_vec();
        Ok(Truth { values, from: "interpreter in f64" })
    }

    fn bound(&self, precision: Precision) -> f64 {
        match precision {
            _ if !self.products => self.bound,
            Precision::F32 => self.bound,
            // A few times the rounding of the factors, 2⁻¹⁶, 2⁻¹¹, 2⁻⁸: errors of a sum's terms partly cancel.
            Precision::Bf16x3 => 1e-4,
            Precision::Tf32 => 2e-3,
            Precision::Bf16 => 1.6e-2,
        }
    }
}

/// A whole training step of a VAE: batch, forward, backward, Adam.
pub struct TrainingStep {
    vae: Vae,
    batch: usize,
    /// The resident data set: several batches, so that they are gathered from all over it.
    images: Vec<u8>,
    pixels: usize,
}

/// Batches in the resident set, and the most images in it: MNIST's training set is about as large.
const BATCHES: usize = 64;
const MOST_IMAGES: usize = 65_536;

/// Up to this batch two steps are compared with the interpreter in f64, which is a thousand times slower; above it with
/// the CPU running one kernel per node on one thread, which is checked so itself.
const INTERPRETED_BATCH: usize = 128;

impl TrainingStep {
    /// Steps of `vae` on images of which about a fifth of the pixels is lit, as in MNIST.
    pub fn new(vae: Vae, batch: usize) -> TrainingStep {
        let (pixels, rows) = (vae.config.pixels(), (BATCHES * batch).min(MOST_IMAGES).max(batch));
        let mut noise = vec![0.0; pixels];
        let mut images = Vec::with_capacity(rows * pixels);
        for row in 0..rows as u32 {
            Draw { seed: 5, step: row, stream: streams::OPERANDS }.fill_uniform(Isa::detect(), 0, &mut noise);
            // Black and white alike for every binarisation.
            images.extend(noise.iter().map(|&v| if v < 0.2 { 255 } else { 0 }));
        }
        TrainingStep { vae, batch, images, pixels }
    }

    fn control() -> Control {
        Control { shuffle: true, ..Control::new(1) }
    }

    /// −ELBO per image of each of two steps: the second depends on the gradients and the update of the first.
    fn losses(&self, exec: &mut dyn Exec, plan: Bound) -> Result<Vec<f64>> {
        let step = |_| {
            exec.run(plan, 1)?;
            Ok(exec.take_metrics(plan)?["loss"] / self.batch as f64)
        };
        (0..2).map(step).collect()
    }

    fn interpreted(&self) -> Result<Vec<f64>> {
        let g = self.graph();
        let mut run = Interp::<f64>::new(&g);
        run.set_data("train", &self.images, self.pixels)?;
        for init in self.vae.init(0) {
            run.set(&init.name, &init.values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())?;
        }
        run.control = TrainingStep::control();
        run.step();
        let first = run.metric("loss").expect("a training step has a loss");
        run.step();
        let both = run.metric("loss").expect("a training step has a loss");
        Ok(vec![first / self.batch as f64, (both - first) / self.batch as f64])
    }
}

impl Workload for TrainingStep {
    fn graph(&self) -> Graph {
        let objective = Objective::elbo(Optimizer::adam(), None);
        training_graph(&self.vae, &objective, "train", self.batch)
    }

    fn load(&self, exec: &mut dyn Exec) -> Result<()> {
        exec.set_data("train", &self.images, self.pixels)?;
        self.vae.init(0).iter().try_for_each(|i| exec.write(&i.name, &i.values))?;
        *exec.control_mut() = TrainingStep::control();
        Ok(())
    }

    fn run(&self, exec: &mut dyn Exec, plan: Bound, times: usize) -> Result<()> {
        let per_epoch = self.images.len() / self.pixels / self.batch;
        let mut left = times;
        while left > 0 {
            let now = left.min(per_epoch);
            exec.control_mut().cursor = 0;
            exec.run(plan, now)?;
            left -= now;
        }
        Ok(())
    }

    /// The batch's images to the device, the step, the loss back.
    fn round_trip(&self, exec: &mut dyn Exec, plan: Bound) -> Result<()> {
        exec.set_data("train", &self.images[..self.batch * self.pixels], self.pixels)?;
        exec.control_mut().cursor = 0;
        exec.run(plan, 1)?;
        let sums: BTreeMap<String, f64> = exec.take_metrics(plan)?;
        debug_assert!(sums["loss"].is_finite());
        Ok(())
    }

    fn transferred(&self) -> u64 {
        (self.batch * self.pixels + 8) as u64
    }

    fn result(&self, exec: &mut dyn Exec, plan: Bound) -> Result<Vec<f64>> {
        self.losses(exec, plan)
    }

    fn truth(&self) -> Result<Truth> {
        if self.batch <= INTERPRETED_BATCH {
            return Ok(Truth { values: self.interpreted()?, from: "interpreter in f64" });
        }
        let mut cpu = Cpu::new(1);
        let plan = cpu.bind(&Plan::build(&self.graph(), Fusion::none())?)?;
        self.load(&mut cpu)?;
        Ok(Truth { values: self.losses(&mut cpu, plan)?, from: "CPU, one thread, one kernel per node" })
    }

    fn bound(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 => F32_BOUND,
            Precision::Bf16x3 => 1e-4,
            Precision::Tf32 => 1e-3,
            Precision::Bf16 => 5e-3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::VaeConfig;

    fn error(work: &dyn Workload, spoil: bool) -> f64 {
        let mut cpu = Cpu::new(2);
        let plan = cpu.bind(&Plan::build(&work.graph(), Fusion::all()).unwrap()).unwrap();
        work.load(&mut cpu).unwrap();
        if spoil {
            cpu.write("a", &vec![0.5; cpu.read("a").unwrap().len()]).unwrap();
        }
        let (found, truth) = (work.result(&mut cpu, plan).unwrap(), work.truth().unwrap().values);
        super::super::measure::error(&found, &truth)
    }

    fn product() -> Arrays {
        let build = |g: &Graph, m| g.store("c", g.state("a", &[m, 40]).matmul(g.state("b", &[40, 30])));
        Arrays::new(50, "c", build).row_input("a", 40).input("b", 40, 30).product()
    }

    #[test]
    fn few_rows_are_checked_and_a_wrong_one_is_found() {
        let work = product();
        assert_eq!(work.checked(), [0, 6, 12, 18, 25, 31, 37, 43]);
        assert!(error(&work, false) < work.bound(Precision::F32));
        assert!(error(&work, true) > work.bound(Precision::Bf16));
        assert_eq!(work.transferred(), 4 * (50 * 40 + 40 * 30 + 50 * 30));
    }

    #[test]
    fn both_truths_of_a_training_step_agree() {
        let work = TrainingStep::new(Vae::new(VaeConfig::new(2).hidden(&[16])).unwrap(), 8);
        assert!(error(&work, false) < work.bound(Precision::F32));
        let large = TrainingStep::new(Vae::new(VaeConfig::new(2).hidden(&[16])).unwrap(), INTERPRETED_BATCH + 1);
        let (kernels, interpreted) = (large.truth().unwrap().values, large.interpreted().unwrap());
        assert!(super::super::measure::error(&kernels, &interpreted) < large.bound(Precision::F32));
    }
}
