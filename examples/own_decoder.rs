//! A VAE with a decoder of one's own, from the engine alone: its layer is gated, and every sample has its own spread.

use elbo::engine::rng::Draw;
use elbo::{Device, Executor, Graph, Key, Optimizer, Params, Result, Rows};

/// Learns 800 waves of 16 samples, of any phase and noisy; gives −ELBO by epoch, in nats per wave, and four new waves.
pub fn run(executor: &Executor) -> Result<(Vec<f32>, Vec<f32>)> {
    let (phase, noise) = (Draw { seed: 1, step: 0, stream: 0 }, Draw { seed: 1, step: 0, stream: 1 });
    let angle = |i: u64| std::f32::consts::TAU * (phase.uniform(i / 16) + (i % 16) as f32 / 16.0);
    let waves: Vec<f32> = (0..800 * 16).map(|i| angle(i).sin() + 0.1 * noise.normal(i)).collect();
    let mut params = Params::new();
    let (hidden, heads) = (params.linear("encoder", 16, 32), params.linear("heads", 32, 4));
    let (up, gate, out) = (params.linear("up", 2, 32), params.linear("gate", 2, 32), params.linear("out", 32, 16));
    params.declare("log sigma", &[16], |_| vec![0.0; 16]);
    let mut state = executor.state(&params, 0)?;
    state.load("waves", &waves[..], 16)?;
    let g = Graph::new();
    let mean = |z| out.apply(up.apply(z).tanh() * gate.apply(z).sigmoid()); // E[x|z]
    let mut sample = executor.compile(&g, [mean(g.normal(&[4, 2], 2))])?; // of z ~ N(0, I)
    let (x, log_sigma) = (g.batch("waves", 50, 16), g.param("log sigma", &[16]));
    let q = heads.apply(hidden.apply(x).tanh());
    let (mu, lv) = (q.slice_cols(0, 2), q.slice_cols(2, 2));
    let z = mu + (lv * 0.5).exp() * g.normal(&[50, 2], 1); // z ~ q(z|x) = N(μ, e^lv)
    let error = (x - mean(z)) / log_sigma.exp();
    let nll = error.square() * 0.5 + log_sigma + 0.5 * std::f64::consts::TAU.ln(); // −log p(x|z) of every sample
    let kl = (mu.square() + lv.expm1() - lv) * 0.5; // KL(q ‖ N(0, I)) of every dimension
    let loss = (nll.sum_all() + kl.sum_all()) / 50.0;
    g.minimise(loss, &params, Optimizer::adam(), 1e-2, None);
    let mut train = executor.compile(&g, [loss])?;
    let losses = (0..30).map(|epoch| {
        let key = Key { seed: 1, step: state.updates as u32 }; // every step has noise of its own
        train.epoch(&mut state, key, Rows::shuffled(epoch), &[]).map(|[loss]| loss[0])
    });
    let losses = losses.collect::<Result<Vec<f32>>>()?;
    sample.call(&mut state, Key::new(2), &[]).map(|[new]| (losses, new))
}

fn main() -> Result<()> {
    run(&Device::auto().open()?).map(|(losses, new)| println!("−ELBO {losses:.1?}\nnew waves {new:.2?}"))
}
