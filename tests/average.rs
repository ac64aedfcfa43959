//! Exponential moving averages of parameters, on every executor.

use elbo::engine::device::Precision;
use elbo::engine::optim::Ema;
use elbo::{Call, Cpu, Executor, Graph, Key, Optimizer, Params};

mod common;

const EMA: Ema = Ema { decay: 0.8 };

/// w ← w − 0.1·w for some steps from (1, 2), with its average; gives (w, average).
fn descended(executor: &Executor, steps: usize) -> (Vec<f32>, Vec<f32>) {
    let mut params = Params::new();
    params.declare("w", &[2], |_| vec![1.0, 2.0]);
    let all = params.averaged();
    assert_eq!((all.iter().count(), all.count()), (2, 2), "an average is no parameter");
    let g = Graph::new();
    let loss = g.param("w", &[2]).square().sum_all() * 0.5;
    g.minimise(loss, &params, Optimizer::Sgd { momentum: 0.0 }, 0.1, None);
    g.average(&params, g.schedule("ema"));
    let mut state = executor.state(&all, 0).unwrap();
    let mut train = executor.compile(&g, []).unwrap();
    let schedules: &[(&str, elbo::engine::device::Schedule<'_>)] = &[("ema", &|done| EMA.schedule(done))];
    train.run(&mut state, &Call { steps, schedules, ..Call::once(Key::new(0)) }).unwrap();
    let w = state.read("w").unwrap();
    state.swap_averages().unwrap();
    let average = state.read("w").unwrap();
    state.swap_averages().unwrap();
    assert_eq!(state.read("w").unwrap(), w, "a second exchange undoes the first");
    let refused = executor.state(&params, 0).unwrap().swap_averages().unwrap_err().to_string();
    assert!(refused.contains("Params::averaged"), "{refused}");
    (w, average)
}

#[test]
fn the_average_is_the_weighted_mean_of_the_parameters_before_the_last_update() {
    let host = [Executor::reference(), Executor::new(Cpu::new(1)), Executor::new(Cpu::new(2))];
    for executor in host.into_iter().chain(common::on_cuda(Precision::F32)) {
        for steps in [1usize, 2, 3, 10] {
            let (w, average) = descended(&executor, steps);
            let at = |t: usize| 0.9f64.powi(t as i32);
            // After step n the average is of p₁ … p₍ₙ₋₁₎, or of p₀ alone.
            let weights: Vec<(f64, f64)> =
                (1..steps).map(|t| (EMA.decay.powi((steps - 1 - t) as i32), at(t))).collect();
            let total: f64 = weights.iter().map(|(d, _)| d).sum();
            let mean = if steps == 1 { 1.0 } else { weights.iter().map(|(d, p)| d * p).sum::<f64>() / total };
            for (i, scale) in [1.0, 2.0].into_iter().enumerate() {
                assert!((f64::from(w[i]) - scale * at(steps)).abs() < 1e-6, "{steps}: {w:?}");
                assert!((f64::from(average[i]) - scale * mean).abs() < 1e-6, "{steps}: {average:?}, not {mean}");
            }
        }
    }
}
