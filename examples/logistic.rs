//! Logistic regression on float features: `cargo run --release --example logistic`.

use elbo::engine::rng::Draw;
use elbo::{Device, Executor, Graph, Key, Optimizer, Params, Result, Rows};

const POINTS: usize = 1000;
/// w₁, w₂ and b.
pub const TRUTH: [f32; 3] = [2.0, -1.0, 0.5];

/// Draws x ~ N(0, I₂) and y ∈ {0, 1} with P(y = 1) = σ(w·x + b), and finds w and b again.
pub fn run(executor: &Executor) -> Result<[f32; 3]> {
    let (normal, coin) = (Draw { seed: 1, step: 0, stream: 0 }, Draw { seed: 1, step: 0, stream: 1 });
    let x: Vec<f32> = (0..2 * POINTS as u64).map(|i| normal.normal(i)).collect();
    let p = |x: &[f32]| 1.0 / (1.0 + (-TRUTH[0] * x[0] - TRUTH[1] * x[1] - TRUTH[2]).exp());
    let y: Vec<f32> = x.chunks(2).zip(0..).map(|(x, i)| f32::from(coin.uniform(i) < p(x))).collect();

    let mut params = Params::new();
    let layer = params.linear("logit", 2, 1); // logit.weight [2, 1], logit.bias [1]
    let mut state = executor.state(&params, 0)?; // their values, in the memory of the device
    state.load("x", &x[..], 2)?;
    state.load("y", &y[..], 1)?;

    let g = Graph::new();
    let (x, y) = (g.batch("x", 100, 2), g.batch("y", 100, 1));
    let logit = layer.apply(x); // [100, 1]
    let loss = (logit.softplus() - y * logit).mean_all(); // −log P(y)
    g.minimise(loss, &params, Optimizer::adam(), 0.05, None);
    let mut train = executor.compile(&g, [loss])?;
    for epoch in 0..30 {
        let [loss] = train.epoch(&mut state, Key::new(1), Rows::shuffled(epoch), &[])?;
        println!("epoch {epoch:2}: {:.4} nats per point", loss[0]);
    }
    let (w, b) = (state.read("logit.weight")?, state.read("logit.bias")?);
    Ok([w[0], w[1], b[0]])
}

fn main() -> Result<()> {
    run(&Device::auto().open()?).map(|found| println!("found {found:.2?}, drawn with {TRUTH:?}"))
}
