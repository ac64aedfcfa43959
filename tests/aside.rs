//! A model in the middle of a training is looked at: whatever an evaluation does, and wherever it fails, the training's
//! seed and counters are as before.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use elbo::data::{Split, digits::Digits};
use elbo::engine::device::{Bound, Moment, Snapshot};
use elbo::engine::shape::Shape;
use elbo::study::evidence::{Annealing, Observed, Proposal, Sampling, ais, importance, sandwich, simulate};
use elbo::vae::{Model, Vae, VaeConfig};
use elbo::{Control, Cpu, Error, Exec, Plan, Result};

/// A CPU whose runs fail once the given number of them is used up.
struct Failing {
    cpu: Cpu,
    runs: Rc<Cell<usize>>,
}

impl Exec for Failing {
    fn describe(&self) -> String {
        "failing".into()
    }
    fn steps_per_call(&self) -> usize {
        self.cpu.steps_per_call()
    }
    fn rows_per_step(&self) -> usize {
        self.cpu.rows_per_step()
    }
    fn control(&self) -> &Control {
        self.cpu.control()
    }
    fn control_mut(&mut self) -> &mut Control {
        self.cpu.control_mut()
    }
    fn set_data(&mut self, name: &str, bytes: &[u8], cols: usize) -> Result<()> {
        self.cpu.set_data(name, bytes, cols)
    }
    fn write_moment(&mut self, name: &str, moment: Moment, values: &[f32]) -> Result<()> {
        self.cpu.write_moment(name, moment, values)
    }
    fn read_moment(&self, name: &str, moment: Moment) -> Result<Vec<f32>> {
        self.cpu.read_moment(name, moment)
    }
    fn params(&self) -> Vec<(String, Shape)> {
        self.cpu.params()
    }
    fn bind(&mut self, plan: &Plan) -> Result<Bound> {
        self.cpu.bind(plan)
    }
    fn run(&mut self, plan: Bound, times: usize) -> Result<()> {
        let left = self.runs.get();
        self.runs.set(left.saturating_sub(1));
        match left {
            0 => Err(Error::Device { device: "failing".into(), reason: "it fails here".into(), remedy: "none".into() }),
            _ => self.cpu.run(plan, times),
        }
    }
    fn synchronize(&mut self) -> Result<()> {
        self.cpu.synchronize()
    }
    fn time_steps(&mut self, plan: Bound, repetitions: usize) -> Result<Vec<f64>> {
        self.cpu.time_steps(plan, repetitions)
    }
    fn set_metrics(&mut self, plan: Bound, sums: &BTreeMap<String, f64>) -> Result<()> {
        self.cpu.set_metrics(plan, sums)
    }
    fn peek_metrics(&mut self, plan: Bound) -> Result<Option<Snapshot>> {
        self.cpu.peek_metrics(plan)
    }
    fn take_metrics(&mut self, plan: Bound) -> Result<BTreeMap<String, f64>> {
        self.cpu.take_metrics(plan)
    }
}

#[test]
fn counters_come_back_whether_an_evaluation_fails_or_not() {
    let runs = Rc::new(Cell::new(usize::MAX));
    let vae = Vae::new(VaeConfig::new(2).hidden(&[8])).unwrap();
    let mut model = Model::initial_on(vae, 1, Box::new(Failing { cpu: Cpu::new(1), runs: runs.clone() })).unwrap();
    model.load("test", &Digits::dataset(1, Split::Test, 12)).unwrap();
    let observed = Observed::read(&mut model, "test", 3, 1).unwrap();
    let simulated = simulate(&mut model, 2, 1).unwrap();
    let training = Control { step: 77, epoch: 3, cursor: 500, updates: 77, shuffle: true, ..Control::new(42) };
    *model.exec.control_mut() = training.clone();

    let sampling = Sampling { samples: 10, bounds: Vec::new(), seed: 1 };
    let annealing = Annealing { chains: 2, temperatures: 4, leapfrog: 2, seed: 1 };
    type Work<'a> = Box<dyn Fn(&mut Model) -> Result<()> + 'a>;
    let works: Vec<(&str, Work<'_>)> = vec![
        ("evaluate", Box::new(|m| m.evaluate("test", 1).map(drop))),
        ("encode", Box::new(|m| m.encode("test", 1).map(drop))),
        ("encode_layers", Box::new(|m| m.encode_layers("test", 5, 1).map(drop))),
        ("sample", Box::new(|m| m.sample(3, 1).map(drop))),
        ("reconstruct", Box::new(|m| m.reconstruct("test", 3, 1).map(drop))),
        ("decode", Box::new(|m| m.decode(&[0.5; 4]).map(drop))),
        ("dead_units", Box::new(|m| m.dead_units("test", 1).map(drop))),
        ("observe", Box::new(|m| Observed::read(m, "test", 3, 1).map(drop))),
        ("encode given", Box::new(|m| Observed::encode(m, observed.x.clone()).map(drop))),
        ("importance", Box::new(|m| importance(m, &observed, Proposal::Posterior, &sampling).map(drop))),
        ("importance", Box::new(|m| importance(m, &observed, Proposal::Prior, &sampling).map(drop))),
        ("simulate", Box::new(|m| simulate(m, 2, 1).map(drop))),
        ("ais", Box::new(|m| ais(m, &observed, &annealing).map(drop))),
        ("sandwich", Box::new(|m| sandwich(m, &simulated, &annealing).map(drop))),
    ];
    for (name, work) in works {
        runs.set(usize::MAX);
        work(&mut model).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(model.exec.control(), &training, "{name}");
        let needed = usize::MAX - runs.get();
        for before_failure in [0, needed / 2, needed - 1] {
            runs.set(before_failure);
            let error = work(&mut model).expect_err(name).to_string();
            assert!(error.contains("it fails here"), "{name}: {error}");
            assert_eq!(model.exec.control(), &training, "{name} after {before_failure} of {needed} runs");
        }
    }
}
