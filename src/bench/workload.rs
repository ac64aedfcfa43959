//! What is timed: graphs of one step, with operands, and what their results should be.

use crate::engine::device::cpu::Cpu;
use crate::engine::device::{Call, Executor, Function, Key, Precision, Rows, Schedule, State};
use crate::engine::error::Result;
use crate::engine::graph::{Graph, Var};
use crate::engine::interp::Interp;
use crate::engine::isa::Isa;
use crate::engine::optim::Optimizer;
use crate::engine::params::Params;
use crate::engine::plan::{Fusion, Plan};
use crate::engine::rng::Draw;
use crate::vae::{BETA, LEARNING_RATE, UpdateRule, Vae, streams, training_step};

/// A step to be timed, the same on every device.
pub trait Workload {
    /// The step compiled for a device, with its operands there.
    ///
    /// # Errors
    /// From the device, as for all functions with one.
    fn job(&self, executor: &Executor, fusion: Fusion) -> Result<Job>;

    /// The plan of the step.
    fn plan(&self, fusion: Fusion) -> Result<Plan>;

    /// Runs `times` steps on what is there.
    fn run(&self, job: &mut Job, times: usize) -> Result<()>;

    /// What a caller pays whose operands are on the host: operands to the device, one step, results back.
    fn round_trip(&self, job: &mut Job) -> Result<()>;

    /// Bytes that a round trip moves, both ways.
    fn transferred(&self) -> u64;

    /// What it comes to, right after [`Workload::job`].
    fn result(&self, job: &mut Job) -> Result<Vec<f64>>;

    /// What it should come to.
    fn truth(&self) -> Result<Truth>;

    /// The largest error that passes, relative to the largest number of the truth.
    fn bound(&self, precision: Precision) -> f64;
}

/// A step on a device.
pub struct Job {
    /// The step.
    pub function: Function,
    /// What it works on.
    pub state: State,
}

/// Results as they should be, and who says so.
pub struct Truth {
    /// The numbers.
    pub values: Vec<f64>,
    /// Where they are from.
    pub from: &'static str,
}

/// An operand: a parameter, or the next input of the graph.
struct BenchOperand {
    param: Option<&'static str>,
    rows: usize,
    cols: usize,
    values: Vec<f32>,
    /// Row i matters for row i of the result alone.
    by_row: bool,
}

/// Adds a step whose result has so many rows to a graph, and gives the result; none where it is the parameter.
type Build = dyn for<'g> Fn(&'g Graph, usize) -> Option<Var<'g>>;

/// A step from arrays to an array.
pub struct Arrays {
    build: Box<Build>,
    /// Rows of the result and of the inputs that go with it.
    rows: usize,
    operands: Vec<BenchOperand>,
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
    /// A step whose result has `rows` rows; `build` makes its graph for that and other numbers of rows, with the inputs in
    /// the order in which operands are added here.
    pub fn new(rows: usize, build: impl for<'g> Fn(&'g Graph, usize) -> Option<Var<'g>> + 'static) -> Arrays {
        Arrays { build: Box::new(build), rows, operands: Vec::new(), steps: 1, products: false, bound: F32_BOUND }
    }

    /// An input of which row i matters for row i of the result alone, normally distributed.
    pub fn row_input(mut self, cols: usize) -> Arrays {
        self.push(None, self.rows, cols, true);
        self
    }

    /// An input of which everything may matter for everything.
    pub fn input(mut self, rows: usize, cols: usize) -> Arrays {
        self.push(None, rows, cols, false);
        self
    }

    /// A parameter of as many rows as the result, which stays on the device.
    pub fn param(mut self, name: &'static str, cols: usize) -> Arrays {
        self.push(Some(name), self.rows, cols, true);
        self
    }

    fn push(&mut self, param: Option<&'static str>, rows: usize, cols: usize, by_row: bool) {
        let mut values = vec![0.0; rows * cols];
        let draw = Draw { seed: 3, step: self.operands.len() as u32, stream: streams::OPERANDS };
        draw.fill_normal(Isa::detect(), 0, &mut values);
        self.operands.push(BenchOperand { param, rows, cols, values, by_row });
    }

    /// Changes the numbers of the last operand.
    pub fn of(mut self, change: impl Fn(f32) -> f32) -> Arrays {
        let last = self.operands.last_mut().expect("of follows an operand");
        last.values.iter_mut().for_each(|v| *v = change(*v));
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
        let count = if self.operands.iter().any(|o| o.by_row) { self.rows.min(CHECKED_ROWS) } else { self.rows };
        (0..count).map(|i| i * self.rows / count).collect()
    }
}

impl Arrays {
    fn inputs(&self) -> impl Iterator<Item = &BenchOperand> {
        self.operands.iter().filter(|o| o.param.is_none())
    }

    fn write(&self, job: &mut Job) -> Result<()> {
        self.inputs().enumerate().try_for_each(|(number, input)| job.function.write(number, &input.values))
    }

    /// The result of the last step.
    fn read(&self, job: &mut Job) -> Result<Vec<f32>> {
        match self.operands.iter().find_map(|o| o.param) {
            Some(name) => job.state.read(name),
            None => Ok(job.function.values()?.swap_remove(0)),
        }
    }
}

impl Workload for Arrays {
    fn job(&self, executor: &Executor, fusion: Fusion) -> Result<Job> {
        let g = Graph::new();
        let outputs: Vec<Var> = (self.build)(&g, self.rows).into_iter().collect();
        let mut state = executor.state(&Params::of(&g), 0)?;
        for operand in &self.operands {
            operand.param.map_or(Ok(()), |name| state.write(name, &operand.values))?;
        }
        let mut job = Job { function: executor.compile_with(&g, outputs, fusion)?, state };
        self.write(&mut job)?;
        Ok(job)
    }

    fn plan(&self, fusion: Fusion) -> Result<Plan> {
        let g = Graph::new();
        let outputs: Vec<Var> = (self.build)(&g, self.rows).into_iter().collect();
        Plan::build(&g, &outputs, fusion)
    }

    fn run(&self, job: &mut Job, times: usize) -> Result<()> {
        job.function.run(&mut job.state, &Call { steps: times, ..Call::once(Key::new(0)) })
    }

    fn round_trip(&self, job: &mut Job) -> Result<()> {
        self.write(job)?;
        self.run(job, 1)?;
        self.read(job).map(drop)
    }

    fn transferred(&self) -> u64 {
        let g = Graph::new();
        let result = (self.build)(&g, self.rows).map(|y| y.shape().size());
        let param = self.operands.iter().find(|o| o.param.is_some()).map(|o| o.values.len());
        let up: usize = self.inputs().map(|o| o.values.len()).sum();
        4 * (up + result.or(param).unwrap_or(0)) as u64
    }

    fn result(&self, job: &mut Job) -> Result<Vec<f64>> {
        job.function.take_totals()?;
        self.run(job, self.steps)?;
        let all = self.read(job)?;
        let cols = all.len() / self.rows;
        let row = |r: usize| all[r * cols..][..cols].iter().map(|&v| f64::from(v));
        Ok(self.checked().into_iter().flat_map(row).collect())
    }

    /// The same graph for the checked rows alone, evaluated node by node in f64.
    fn truth(&self) -> Result<Truth> {
        let rows = self.checked();
        let g = Graph::new();
        let result = (self.build)(&g, rows.len());
        let mut run = Interp::<f64>::new(&g);
        let mut inputs = 0;
        for operand in &self.operands {
            let all: Vec<usize> = (0..operand.rows).collect();
            let wanted = if operand.by_row { &rows } else { &all };
            let row = |&r: &usize| operand.values[r * operand.cols..][..operand.cols].iter().map(|&v| f64::from(v));
            let name = operand.param.map_or_else(|| format!("input {inputs}"), str::to_string);
            inputs += usize::from(operand.param.is_none());
            run.set(&name, &wanted.iter().flat_map(row).collect::<Vec<f64>>())?;
        }
        let values = match (result, self.operands.iter().find_map(|o| o.param)) {
            (Some(y), _) => run.eval(y),
            (None, name) => {
                (0..self.steps).for_each(|_| run.step());
                run.get(name.expect("a step without a result moves a parameter")).expect("it was set").to_vec()
            }
        };
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

    fn step<'g>(&self, g: &'g Graph) -> Vec<Var<'g>> {
        let objective = UpdateRule::elbo(Optimizer::adam(), None);
        training_step(g, &self.vae, &objective, "train", self.batch).to_vec()
    }

    /// `steps` steps from the first batch of the epoch on, the first of them with the noise of step `from`.
    fn steps(&self, job: &mut Job, from: u32, rows: u32, steps: usize) -> Result<()> {
        let schedules: &[(&str, Schedule<'_>)] = &[(LEARNING_RATE, &|_| 1e-3), (BETA, &|_| 1.0)];
        let (key, rows) = (Key { seed: 1, step: from }, Rows::shuffled(0).from(rows));
        job.function.run(&mut job.state, &Call { key, rows, steps, schedules })
    }

    /// −ELBO per image of each of two steps: the second depends on the gradients and the update of the first.
    fn losses(&self, job: &mut Job) -> Result<Vec<f64>> {
        let step = |number: u32| {
            self.steps(job, number, number * self.batch as u32, 1)?;
            Ok(job.function.take_totals()?[2] / self.batch as f64)
        };
        (0..2).map(step).collect()
    }

    fn interpreted(&self) -> Result<Vec<f64>> {
        self.losses(&mut self.job(&Executor::reference(), Fusion::all())?)
    }
}

impl Workload for TrainingStep {
    fn job(&self, executor: &Executor, fusion: Fusion) -> Result<Job> {
        let g = Graph::new();
        let outputs = self.step(&g);
        let mut state = executor.state(&self.vae.params(), 0)?;
        state.load("train", &self.images[..], self.pixels)?;
        Ok(Job { function: executor.compile_with(&g, outputs, fusion)?, state })
    }

    fn plan(&self, fusion: Fusion) -> Result<Plan> {
        let g = Graph::new();
        let outputs = self.step(&g);
        Plan::build(&g, &outputs, fusion)
    }

    fn run(&self, job: &mut Job, times: usize) -> Result<()> {
        let per_epoch = self.images.len() / self.pixels / self.batch;
        let mut done = 0;
        while done < times {
            let now = (times - done).min(per_epoch);
            self.steps(job, done as u32, 0, now)?;
            done += now;
        }
        Ok(())
    }

    /// The batch's images to the device, the step, the loss back.
    fn round_trip(&self, job: &mut Job) -> Result<()> {
        job.state.load("train", &self.images[..self.batch * self.pixels], self.pixels)?;
        self.steps(job, 0, 0, 1)?;
        let totals = job.function.take_totals()?;
        debug_assert!(totals[2].is_finite());
        Ok(())
    }

    fn transferred(&self) -> u64 {
        (self.batch * self.pixels + 8) as u64
    }

    fn result(&self, job: &mut Job) -> Result<Vec<f64>> {
        self.losses(job)
    }

    fn truth(&self) -> Result<Truth> {
        if self.batch <= INTERPRETED_BATCH {
            return Ok(Truth { values: self.interpreted()?, from: "interpreter in f64" });
        }
        let mut job = self.job(&Executor::new(Cpu::new(1)), Fusion::none())?;
        Ok(Truth { values: self.losses(&mut job)?, from: "CPU, one thread, one kernel per node" })
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

    fn error(work: &dyn Workload, spoil: impl FnOnce(&mut Job)) -> f64 {
        let mut job = work.job(&Executor::new(Cpu::new(2)), Fusion::all()).unwrap();
        spoil(&mut job);
        let (found, truth) = (work.result(&mut job).unwrap(), work.truth().unwrap().values);
        super::super::measure::error(&found, &truth)
    }

    fn product() -> Arrays {
        Arrays::new(50, |g, m| Some(g.input(&[m, 40]).matmul(g.input(&[40, 30])))).row_input(40).input(40, 30).product()
    }

    #[test]
    fn few_rows_are_checked_and_a_wrong_one_is_found() {
        let work = product();
        assert_eq!(work.checked(), [0, 6, 12, 18, 25, 31, 37, 43]);
        assert!(error(&work, |_| ()) < work.bound(Precision::F32));
        assert!(error(&work, |job| job.function.write(0, &[0.5; 2000]).unwrap()) > work.bound(Precision::Bf16));
        assert_eq!(work.transferred(), 4 * (50 * 40 + 40 * 30 + 50 * 30));
    }

    #[test]
    fn both_truths_of_a_training_step_agree() {
        let work = TrainingStep::new(Vae::new(VaeConfig::new(2).hidden(&[16])).unwrap(), 8);
        assert!(error(&work, |_| ()) < work.bound(Precision::F32));
        let large = TrainingStep::new(Vae::new(VaeConfig::new(2).hidden(&[16])).unwrap(), INTERPRETED_BATCH + 1);
        let (kernels, interpreted) = (large.truth().unwrap().values, large.interpreted().unwrap());
        assert!(super::super::measure::error(&kernels, &interpreted) < large.bound(Precision::F32));
    }
}
