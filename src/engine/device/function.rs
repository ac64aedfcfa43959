//! A compiled function: what is called.

use std::marker::PhantomData;

use super::{Call, CompiledFunction, Executor, Key, Rows, Schedule, Snapshot, State};
use crate::engine::error::{Error, Result};
use crate::engine::graph::{Graph, Place, Slot, Var};
use crate::engine::plan::Plan;

/// Values that a function can be compiled to: `[Var; N]`, whose results are `[T; N]`, or `Vec<Var>`.
pub trait Outputs<'g> {
    /// How the results are handed over.
    type Layout: Layout;

    /// The values.
    fn vars(self) -> Vec<Var<'g>>;
}

/// How the results of a function are handed over; see [`Outputs`].
pub trait Layout {
    /// One result of each output.
    type Of<T>;

    /// From a list of as many as there are outputs.
    fn collect<T>(all: Vec<T>) -> Self::Of<T>;
}

/// An array of `N` results.
pub struct Array<const N: usize>;

/// A `Vec` of results.
pub struct Many;

impl<const N: usize> Layout for Array<N> {
    type Of<T> = [T; N];

    fn collect<T>(all: Vec<T>) -> [T; N] {
        all.try_into().unwrap_or_else(|_| unreachable!("a function has as many results as outputs"))
    }
}

impl Layout for Many {
    type Of<T> = Vec<T>;

    fn collect<T>(all: Vec<T>) -> Vec<T> {
        all
    }
}

impl<'g, const N: usize> Outputs<'g> for [Var<'g>; N] {
    type Layout = Array<N>;

    fn vars(self) -> Vec<Var<'g>> {
        self.to_vec()
    }
}

impl<'g> Outputs<'g> for Vec<Var<'g>> {
    type Layout = Many;

    fn vars(self) -> Vec<Var<'g>> {
        self
    }
}

/// A graph that was compiled: its [inputs](Graph::input) are written by the caller, its outputs are values. See
/// [`Executor::compile`].
///
/// ```
/// use elbo::engine::device::{Device, Key};
/// use elbo::engine::params::Params;
/// use elbo::Graph;
///
/// let executor = Device::Cpu { threads: 1 }.open()?;
/// let mut state = executor.state(&Params::new(), 0)?;
/// let g = Graph::new();
/// let x = g.input(&[3]);
/// let mut f = executor.compile(&g, [x * 2.0, x.sum_all()])?;
/// let [twice, sum] = f.call(&mut state, Key::new(0), &[&[1.0, 2.0, 3.0]])?;
/// assert_eq!((twice, sum), (vec![2.0, 4.0, 6.0], vec![6.0]));
/// # Ok::<(), elbo::Error>(())
/// ```
pub struct Function<L = Many> {
    executor: Executor,
    compiled: Box<dyn CompiledFunction>,
    inputs: Vec<Slot>,
    outputs: Vec<Place>,
    totals: usize,
    batch_rows: usize,
    data: Vec<String>,
    updates: bool,
    layout: PhantomData<L>,
}

impl<L: Layout> Function<L> {
    pub(super) fn new(executor: Executor, compiled: Box<dyn CompiledFunction>, graph: &Graph) -> Function<L> {
        let effects = graph.effects();
        let (batch_rows, data) = graph.batches();
        Function {
            executor,
            compiled,
            inputs: graph.inputs(),
            totals: effects.totals.len(),
            outputs: effects.outputs,
            batch_rows,
            data,
            updates: effects.optimize.is_some(),
            layout: PhantomData,
        }
    }

    /// The executor that compiled it.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Rows of data that a step reads; 0 without a batch.
    pub fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// The plan that is run, where there is one.
    pub fn plan(&self) -> Option<&Plan> {
        self.compiled.plan()
    }

    /// One step: writes the inputs, in the order in which the graph made them, and gives the value of every output.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are not as many inputs as the graph has; else as [`Function::run`] and
    /// [`Function::write`].
    pub fn call(&mut self, state: &mut State, key: Key, inputs: &[&[f32]]) -> Result<L::Of<Vec<f32>>> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::argument("inputs", inputs.len(), format!("{}, as the graph has", self.inputs.len())));
        }
        inputs.iter().enumerate().try_for_each(|(number, values)| self.write(number, values))?;
        self.take_totals()?;
        self.run(state, &Call::once(key))?;
        self.values()
    }

    /// Writes input number `input`, which keeps its values from call to call.
    ///
    /// # Panics
    /// When there is no such input.
    ///
    /// # Errors
    /// [`Error::Slot`] when the size differs.
    pub fn write(&mut self, input: usize, values: &[f32]) -> Result<()> {
        self.compiled.write(self.inputs[input], values)
    }

    /// Makes the steps of `call`. Results stay where they are until they are read.
    ///
    /// # Errors
    /// [`Error::Slot`] when the state lacks an array or a data set that the graph reads, or has it in another shape, when
    /// the rows would run over the end of a data set; [`Error::Index`], with which the state holds the results of all steps;
    /// [`Error::Argument`] when a schedule is missing, when the steps are too many to be counted, or when another kind of
    /// device or another executor of a GPU made the state. Other errors leave the state as it was.
    pub fn run(&mut self, state: &mut State, call: &Call<'_>) -> Result<()> {
        let updates = state.updates;
        let ended = self.compiled.run(state.memory(), call, updates);
        let done = ended.is_ok() || matches!(ended, Err(Error::Index { .. }));
        if self.updates && done {
            state.updates += call.steps as u64;
        }
        ended
    }

    /// One whole epoch: every batch of the data sets that the graph reads, in the order of `rows`, as long as there are
    /// whole ones: of 15 rows in batches of 4 the last 3 are left out, and a function for them is compiled of a graph with
    /// that batch. Gives the mean over the steps of every output of shape `[]`; others have their last value.
    ///
    /// # Errors
    /// As [`Function::run`]; [`Error::Argument`] when the graph has no batch, [`Error::Diverged`] when a mean is no number.
    pub fn epoch(
        &mut self,
        state: &mut State,
        key: Key,
        rows: Rows,
        schedules: &[(&str, Schedule<'_>)],
    ) -> Result<L::Of<Vec<f32>>> {
        let Some(name) = self.data.first().filter(|_| self.batch_rows > 0) else {
            return Err(Error::argument("graph", "no batch", "one that reads rows of a data set"));
        };
        let steps = (state.rows(name)?.saturating_sub(rows.cursor as usize)) / self.batch_rows;
        if steps == 0 {
            let expected = format!("at least the {} of a batch", self.batch_rows);
            return Err(Error::argument(&format!("rows of {name}"), state.rows(name)?, expected));
        }
        self.take_totals()?;
        let mut done = 0;
        while done < steps {
            let now = (steps - done).min(self.executor.steps_per_call());
            let key = Key { step: key.step.wrapping_add(done as u32), ..key };
            let rows = rows.from(rows.cursor + (done * self.batch_rows) as u32);
            self.run(state, &Call { key, rows, steps: now, schedules })?;
            done += now;
        }
        let means: Vec<f64> = self.take_totals()?.into_iter().map(|sum| sum / steps as f64).collect();
        if let Some(&found) = means.iter().find(|mean| !mean.is_finite()) {
            let field = format!("mean of an epoch after {} updates", state.updates);
            let remedy =
                "if the data holds only finite numbers, lower the learning rate or limit the gradient's norm".into();
            return Err(Error::Diverged { field, found, remedy });
        }
        self.collect(&means)
    }

    /// The value of every output: of one of shape `[]` its running sum, which starts again from 0; of any other its value
    /// after the last step.
    ///
    /// # Errors
    /// From the device.
    pub fn values(&mut self) -> Result<L::Of<Vec<f32>>> {
        let totals = self.take_totals()?;
        self.collect(&totals)
    }

    fn collect(&self, totals: &[f64]) -> Result<L::Of<Vec<f32>>> {
        let value = |place: &Place| match *place {
            Place::Total(i) => Ok(vec![totals[i] as f32]),
            Place::Cell(slot) => self.compiled.read(slot),
        };
        self.outputs.iter().map(value).collect::<Result<_>>().map(L::collect)
    }

    /// Output number `output` as the last step left it, row-major.
    ///
    /// # Panics
    /// When there is no such output, or it is of shape `[]`: see [`Function::take_totals`].
    ///
    /// # Errors
    /// From the device.
    pub fn read(&self, output: usize) -> Result<Vec<f32>> {
        match self.outputs[output] {
            Place::Cell(slot) => self.compiled.read(slot),
            Place::Total(_) => panic!("output {output} is a running sum"),
        }
    }

    /// Where output number `output` lies on a GPU, and how many numbers it has; none on another device, or of a running sum.
    #[cfg(all(feature = "cuda", feature = "mpi"))]
    pub(crate) fn output_address(&self, output: usize) -> Option<(u64, usize)> {
        match self.outputs[output] {
            Place::Cell(slot) => self.address(slot),
            Place::Total(_) => None,
        }
    }

    /// The same of input number `input`.
    #[cfg(all(feature = "cuda", feature = "mpi"))]
    pub(crate) fn input_address(&self, input: usize) -> Option<(u64, usize)> {
        self.address(self.inputs[input])
    }

    #[cfg(all(feature = "cuda", feature = "mpi"))]
    fn address(&self, slot: Slot) -> Option<(u64, usize)> {
        let size = self.plan()?.slots[slot.index()].shape.size();
        self.compiled.address(slot).map(|address| (address, size))
    }

    /// See [`CompiledFunction::set_totals`].
    ///
    /// # Panics
    /// When there are not as many as outputs of shape `[]`.
    ///
    /// # Errors
    /// From the device.
    pub fn set_totals(&mut self, totals: &[f64]) -> Result<()> {
        assert_eq!(totals.len(), self.totals, "one sum for every output of shape []");
        self.compiled.set_totals(totals)
    }

    /// See [`CompiledFunction::peek_totals`].
    ///
    /// # Errors
    /// What went wrong on the device, as far as it is known.
    pub fn peek_totals(&mut self) -> Result<Option<Snapshot>> {
        self.compiled.peek_totals()
    }

    /// See [`CompiledFunction::take_totals`].
    ///
    /// # Errors
    /// From the device.
    pub fn take_totals(&mut self) -> Result<Vec<f64>> {
        self.compiled.take_totals()
    }

    /// See [`CompiledFunction::synchronize`].
    ///
    /// # Errors
    /// What went wrong meanwhile.
    pub fn synchronize(&mut self) -> Result<()> {
        self.compiled.synchronize()
    }

    /// See [`CompiledFunction::time_steps`].
    ///
    /// # Errors
    /// As [`Function::run`].
    pub fn time_steps(&mut self, state: &mut State, call: &Call<'_>, repetitions: usize) -> Result<Vec<f64>> {
        let updates = state.updates;
        self.compiled.time_steps(state.memory(), call, updates, repetitions)
    }
}
