//! The interpreter as a back end beside the CPU and the GPU.

use std::any::Any;
use std::collections::HashMap;

use super::Interp;
use crate::engine::device::call::{Call, Sequence};
use crate::engine::device::data::{DataSets, whole_rows};
use crate::engine::device::memory::{check_size, check_slot, no_moments, unknown};
use crate::engine::device::{
    Backend, CompiledFunction, Key, Memory, Moment, Rows, Snapshot, Values, check_rows, check_steps, foreign_memory,
};
use crate::engine::error::Result;
use crate::engine::graph::{Graph, Slot, SlotKind};
use crate::engine::math::Real;
use crate::engine::params::Params;
use crate::engine::plan::{Fusion, Plan};
use crate::engine::shape::Shape;

/// The arrays and data sets that a graph reads, by name.
pub(super) struct Memories<F> {
    pub(super) slots: HashMap<String, Vec<F>>,
    pub(super) moments: HashMap<String, [Vec<F>; 2]>,
    pub(super) data: DataSets<Vec<F>>,
    /// Whether an optimiser may move it, and its shape; of the arrays of a state.
    shapes: HashMap<String, (bool, Shape)>,
}

impl<F> Default for Memories<F> {
    fn default() -> Memories<F> {
        Memories { slots: HashMap::new(), moments: HashMap::new(), data: DataSets::default(), shapes: HashMap::new() }
    }
}

/// The back end that computes every function node by node, in `F`: in f64 the reference.
pub struct Interpreter<F>(std::marker::PhantomData<F>);

impl<F> Default for Interpreter<F> {
    fn default() -> Interpreter<F> {
        Interpreter(std::marker::PhantomData)
    }
}

struct InterpretedFunction<F> {
    graph: Graph,
    /// Inputs and outputs, by name.
    cells: HashMap<String, Vec<F>>,
    totals: Vec<f64>,
    position: (u32, u64),
}

impl<F: Real + 'static> Backend for Interpreter<F> {
    fn describe(&self) -> String {
        format!("interpreter (f{})", 8 * size_of::<F>())
    }

    fn steps_per_call(&self) -> usize {
        1
    }

    fn rows_per_step(&self) -> usize {
        100
    }

    fn memory(&self, params: &Params) -> Result<Box<dyn Memory>> {
        let mut memory = Memories::<F>::default();
        for param in params.iter() {
            memory.slots.insert(param.name.clone(), vec![F::default(); param.shape.size()]);
            memory.shapes.insert(param.name.clone(), (param.trainable, param.shape));
        }
        Ok(Box::new(memory))
    }

    fn compile(&self, graph: &Graph, _: Fusion) -> Result<Box<dyn CompiledFunction>> {
        // Nothing is fused, but a graph that no other back end would take is not taken here.
        Plan::of(graph, Fusion::none())?;
        let totals = vec![0.0; graph.effects().totals.len()];
        let cells = graph.slots().into_iter().filter(|s| s.kind == SlotKind::Cell);
        let cells = cells.map(|s| (s.name, vec![F::default(); s.shape.size()])).collect();
        Ok(Box::new(InterpretedFunction { graph: graph.clone(), cells, totals, position: (0, 0) }))
    }
}

impl<F: Real + 'static> InterpretedFunction<F> {
    fn check(&self, memory: &Memories<F>, call: &Call<'_>) -> Result<()> {
        let batch_rows = self.graph.batches().0;
        for slot in self.graph.slots_in_use() {
            match slot.kind {
                SlotKind::Param | SlotKind::Buffer => {
                    let known = memory.shapes.get(&slot.name);
                    let (is_param, shape) = *known.ok_or_else(|| unknown(&slot.name, memory.shapes.keys()))?;
                    check_slot(&slot, is_param, shape)?;
                }
                SlotKind::Data => {
                    let columns = slot.shape[1];
                    let rows = memory.data.get(&slot.name, columns)?.len() / columns.max(1);
                    check_rows(&slot.name, rows, call.rows.cursor, call.steps, batch_rows)?;
                }
                SlotKind::Cell => {}
            }
        }
        Ok(())
    }

    fn name(&self, cell: Slot) -> String {
        self.graph.slot(cell).name
    }
}

impl<F: Real + 'static> CompiledFunction for InterpretedFunction<F> {
    fn run(&mut self, memory: &mut dyn Memory, call: &Call<'_>, updates: u64) -> Result<()> {
        let memory = memory.as_any().downcast_mut::<Memories<F>>().ok_or_else(|| foreign_memory("interpreter"))?;
        self.check(memory, call)?;
        check_steps(call.steps)?;
        let (effects, batch_rows) = (self.graph.effects(), self.graph.batches().0);
        let update = effects.optimize.as_ref().map(|o| (o.rule, o.rate));
        let names = self.graph.schedules();
        let mut sequence = Sequence::of(&names, update, batch_rows, call, updates)?;
        let mut run = Interp::on(&self.graph, std::mem::take(memory));
        run.memory.slots.extend(self.cells.drain());
        for _ in 0..call.steps {
            let values = sequence.values();
            run.key = Key { seed: values.seed, step: values.step };
            run.rows = Rows { cursor: values.cursor, epoch: values.epoch, shuffle: values.shuffle };
            run.schedules = sequence.exact_schedules().map(F::from_f64);
            run.finish(update.map(|_| values.update), &mut self.totals);
            sequence.tick();
        }
        let bad = run.bad_index.take();
        let mut whole = run.memory;
        for slot in self.graph.slots().into_iter().filter(|s| s.kind == SlotKind::Cell) {
            self.cells.extend(whole.slots.remove_entry(&slot.name));
        }
        *memory = whole;
        self.position = sequence.position();
        bad.map_or(Ok(()), Err)
    }

    fn write(&mut self, cell: Slot, values: &[f32]) -> Result<()> {
        let slot = self.graph.slot(cell);
        check_size(&slot.name, values.len(), slot.shape)?;
        self.cells.insert(slot.name, values.iter().map(|&v| F::from_f32(v)).collect());
        Ok(())
    }

    fn read(&self, cell: Slot) -> Result<Vec<f32>> {
        Ok(self.cells[&self.name(cell)].iter().map(|v| v.to_f64() as f32).collect())
    }

    fn set_totals(&mut self, totals: &[f64]) -> Result<()> {
        self.totals.copy_from_slice(totals);
        Ok(())
    }

    fn peek_totals(&mut self) -> Result<Option<Snapshot>> {
        let (cursor, updates) = self.position;
        Ok(Some(Snapshot { cursor, updates, totals: self.totals.clone() }))
    }

    fn take_totals(&mut self) -> Result<Vec<f64>> {
        let none = vec![0.0; self.totals.len()];
        Ok(std::mem::replace(&mut self.totals, none))
    }
}

impl<F: Real + 'static> Memory for Memories<F> {
    fn read(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        let values = self.slots.get(name).ok_or_else(|| unknown(name, self.slots.keys()))?;
        let numbers = |values: &[F]| values.iter().map(|v| v.to_f64() as f32).collect();
        if moment == Moment::Value {
            return Ok(numbers(values));
        }
        if !self.shapes[name].0 {
            return Err(no_moments(name));
        }
        let which = usize::from(moment == Moment::Second);
        Ok(self.moments.get(name).map_or_else(|| vec![0.0; values.len()], |moments| numbers(&moments[which])))
    }

    fn write(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        let (trainable, shape) = *self.shapes.get(name).ok_or_else(|| unknown(name, self.shapes.keys()))?;
        check_size(name, values.len(), shape)?;
        let values: Vec<F> = values.iter().map(|&v| F::from_f32(v)).collect();
        match moment {
            Moment::Value => drop(self.slots.insert(name.into(), values)),
            _ if !trainable => return Err(no_moments(name)),
            _ => {
                let zeros = || [vec![F::default(); shape.size()], vec![F::default(); shape.size()]];
                let moments = self.moments.entry(name.into()).or_insert_with(zeros);
                moments[usize::from(moment == Moment::Second)] = values;
            }
        }
        Ok(())
    }

    fn load(&mut self, name: &str, values: Values<'_>, columns: usize) -> Result<()> {
        whole_rows(name, values, columns)?;
        let numbers = match values {
            Values::Bytes(bytes) => bytes.iter().map(|&b| F::from_f32(f32::from(b))).collect(),
            Values::Floats(floats) => floats.iter().map(|&x| F::from_f32(x)).collect(),
        };
        self.data.insert(name, numbers, columns);
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
