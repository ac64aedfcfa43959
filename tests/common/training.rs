//! A training step with everything that it is run with, on any executor.

use elbo::engine::device::{Array, Moment};
use elbo::vae::{BETA, KlWarmup, LEARNING_RATE, UpdateRule, Vae, training_step};
use elbo::{Call, Executor, Function, Fusion, Graph, Key, LrSchedule, Result, Rows, State};

/// The data set of the images that are learned from.
pub const TRAIN: &str = "train";

/// A training step and where it stands.
pub struct Training {
    /// The outputs are Σ rec, Σ kl and Σ loss.
    pub step: Function<Array<3>>,
    pub state: State,
    pub key: Key,
    pub rows: Rows,
    pub rate: LrSchedule,
    pub warmup: KlWarmup,
}

/// Compiles a training step on `rows` images.
pub fn compile(
    executor: &Executor,
    vae: &Vae,
    objective: &UpdateRule,
    rows: usize,
    fusion: Fusion,
) -> Function<Array<3>> {
    let g = Graph::new();
    let outputs = training_step(&g, vae, objective, TRAIN, rows);
    executor.compile_with(&g, outputs, fusion).unwrap()
}

impl Training {
    /// Steps of `rows` of `images`, shuffled, from the parameters of seed 1; all of it can be changed before the first.
    pub fn start(
        executor: &Executor,
        vae: &Vae,
        objective: &UpdateRule,
        (rows, images): (usize, &[u8]),
        fusion: Fusion,
    ) -> Training {
        let mut state = executor.state(&vae.params(), 1).unwrap();
        state.load(TRAIN, images, vae.config.pixels()).unwrap();
        Training {
            step: compile(executor, vae, objective, rows, fusion),
            state,
            key: Key::new(0x1234_5678_9abc),
            rows: Rows::shuffled(0),
            rate: LrSchedule::Constant { lr: 1e-3 },
            warmup: KlWarmup { beta: 1.0, steps: 0 },
        }
    }

    /// Makes `steps` steps, and goes on past them.
    pub fn try_run(&mut self, steps: usize) -> Result<()> {
        let (rate, beta) = (|done| self.rate.at(done), |done| self.warmup.at(done));
        let call = Call { key: self.key, rows: self.rows, steps, schedules: &[(LEARNING_RATE, &rate), (BETA, &beta)] };
        self.step.run(&mut self.state, &call)?;
        self.key.step += steps as u32;
        self.rows.cursor += (steps * self.step.batch_rows()) as u32;
        Ok(())
    }

    /// As [`Training::try_run`], where nothing can go wrong.
    pub fn run(&mut self, steps: usize) {
        self.try_run(steps).unwrap();
    }

    /// The number of updates made.
    pub fn updates(&self) -> u64 {
        self.state.updates
    }

    /// The loss since it was last taken.
    pub fn take_loss(&mut self) -> f64 {
        self.step.take_totals().unwrap()[2]
    }

    /// The bits of all parameters and moments, and of the sums, which start again.
    pub fn take_bits(&mut self) -> (Vec<u32>, Vec<u64>) {
        let moments = [Moment::Value, Moment::First, Moment::Second];
        let words = moments.iter().flat_map(|&moment| self.words(moment)).collect();
        (words, self.step.take_totals().unwrap().iter().map(|v| v.to_bits()).collect())
    }

    /// The bits of all parameters.
    pub fn parameters(&self) -> Vec<u32> {
        self.words(Moment::Value)
    }

    fn words(&self, moment: Moment) -> Vec<u32> {
        let names = self.state.params().iter().map(|p| &p.name);
        names.flat_map(|name| bits(&self.state.read_moment(name, moment).unwrap())).collect()
    }
}

/// The bits of numbers, for comparisons that also tell NaN from NaN and 0 from −0.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
