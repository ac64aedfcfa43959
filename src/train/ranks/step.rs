//! A training step, alone or together with other ranks.

use std::cell::RefCell;
use std::rc::Rc;

use super::gradients::{Gradients, SumWay};
use super::{Ranks, sum_numbers};
use crate::engine::device::{Array, Call, Function, Many, Snapshot, State};
use crate::engine::error::Result;
use crate::engine::graph::{Graph, Var};
use crate::train::{Sums, TRAIN, TrainConfig};
use crate::vae::{DeviceVae, Share, step_gradients, step_update, training_step};

/// The outputs of a function of gradients that come before them: the sums of a training step.
const SUMS: usize = 3;

/// Makes updates on batches of one size.
pub(in crate::train) enum TrainStep {
    /// In one function.
    Alone(Function<Array<SUMS>>),
    /// In two, with an exchange between them.
    Shared(SharedStep),
}

impl TrainStep {
    /// A step on `rows` images.
    pub fn alone(model: &DeviceVae, config: &TrainConfig, rows: usize) -> Result<TrainStep> {
        let g = Graph::new();
        let outputs = training_step(&g, &model.vae, &config.objective, TRAIN, rows);
        model.executor.compile(&g, outputs).map(TrainStep::Alone)
    }

    /// A step on `rows` images, of which this rank has its share.
    pub fn shared(
        model: &DeviceVae,
        config: &TrainConfig,
        rows: usize,
        update: &Rc<RefCell<SharedUpdate>>,
    ) -> Result<TrainStep> {
        let ranks = update.borrow().ranks.clone();
        let share = Share::of_rank(rows, ranks.rank(), ranks.size());
        let gradients = match share.rows {
            0 => None,
            _ => {
                let g = Graph::new();
                let step = step_gradients(&g, &model.vae, &config.objective.bound, TRAIN, share);
                let outputs: Vec<Var> = step.sums.into_iter().chain(step.gradients).collect();
                Some(model.executor.compile(&g, outputs)?)
            }
        };
        Ok(TrainStep::Shared(SharedStep { share, gradients, update: update.clone(), sums: Sums::default(), cursor: 0 }))
    }

    /// Images of a step.
    pub fn batch_rows(&self) -> usize {
        match self {
            TrainStep::Alone(step) => step.batch_rows(),
            TrainStep::Shared(step) => step.share.batch,
        }
    }

    /// See [`Function::run`].
    pub fn run(&mut self, state: &mut State, call: &Call<'_>) -> Result<()> {
        match self {
            TrainStep::Alone(step) => step.run(state, call),
            TrainStep::Shared(step) => step.run(state, call),
        }
    }

    /// See [`Function::set_totals`].
    pub fn set_totals(&mut self, totals: &[f64]) -> Result<()> {
        match self {
            TrainStep::Alone(step) => step.set_totals(totals),
            TrainStep::Shared(step) => {
                step.sums = Sums::from_totals(totals);
                Ok(())
            }
        }
    }

    /// See [`Function::peek_totals`]; `updates` were made.
    pub fn peek_totals(&mut self, updates: u32) -> Result<Option<Snapshot>> {
        match self {
            TrainStep::Alone(step) => step.peek_totals(),
            TrainStep::Shared(SharedStep { sums, cursor, .. }) => {
                Ok(Some(Snapshot { cursor: *cursor, updates: updates.into(), totals: sums.to_totals().to_vec() }))
            }
        }
    }

    /// See [`Function::take_totals`].
    pub fn take_totals(&mut self) -> Result<Vec<f64>> {
        match self {
            TrainStep::Alone(step) => step.take_totals(),
            TrainStep::Shared(step) => Ok(std::mem::take(&mut step.sums).to_totals().to_vec()),
        }
    }
}

/// A step of which this rank computes its share.
pub(in crate::train) struct SharedStep {
    share: Share,
    /// None for a share without rows.
    gradients: Option<Function<Many>>,
    update: Rc<RefCell<SharedUpdate>>,
    /// Over the whole batches.
    sums: Sums,
    /// Where the last step ended.
    cursor: u32,
}

impl SharedStep {
    fn run(&mut self, state: &mut State, call: &Call<'_>) -> Result<()> {
        let update = &mut *self.update.borrow_mut();
        for step in 0..call.steps as u32 {
            let (mut key, batch) = (call.key, call.rows.from(call.rows.cursor + step * self.share.batch as u32));
            key.step = key.step.wrapping_add(step);
            let own = Call { key, rows: batch.from(batch.cursor + self.share.first as u32), steps: 1, ..*call };
            let sums = match &mut self.gradients {
                Some(gradients) => {
                    gradients.run(state, &own)?;
                    update.gradients.take(Some(gradients), SUMS)?;
                    Sums::from_totals(&gradients.take_totals()?)
                }
                None => {
                    update.gradients.take(None, SUMS)?;
                    Sums::default()
                }
            };
            let [rec, kl, loss] = sum_numbers(&*update.ranks, sums.to_totals());
            let Sums { rec: r, kl: k, loss: l } = self.sums;
            self.sums = Sums { rec: r + rec, kl: k + kl, loss: l + loss };
            update.run(state, &own)?;
            self.cursor = batch.cursor + self.share.batch as u32;
        }
        Ok(())
    }
}

/// The second half of every step: the same on all ranks.
pub(in crate::train) struct SharedUpdate {
    ranks: Rc<dyn Ranks>,
    /// Makes the update; the gradients are its inputs.
    update: Function<Array<0>>,
    gradients: Gradients,
    /// How they are summed, where that is to be said.
    pub words: Option<String>,
}

impl SharedUpdate {
    /// Of a model that `ranks` train.
    pub fn new(model: &DeviceVae, config: &TrainConfig, ranks: Rc<dyn Ranks>) -> Result<SharedUpdate> {
        let (g, vae) = (Graph::new(), &model.vae);
        let params = vae.encoder_params(&g).into_iter().chain(vae.decoder_params(&g));
        let gradients: Vec<Var> = params.map(|param| g.input(&param.shape())).collect();
        step_update(&g, vae, &config.objective, &gradients);
        let sizes: Vec<usize> = gradients.iter().map(|gradient| gradient.shape().size()).collect();
        let update = model.executor.compile(&g, [])?;
        let SumWay { gradients, words } = SumWay::new(&model.executor, &*ranks, &sizes);
        Ok(SharedUpdate { ranks, update, gradients, words })
    }

    fn run(&mut self, state: &mut State, call: &Call<'_>) -> Result<()> {
        self.gradients.sum_into(&mut self.update, &*self.ranks)?;
        self.update.run(state, call)
    }
}
