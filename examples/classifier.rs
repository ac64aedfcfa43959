//! An MLP that reads digits, saved and loaded again; `classifier_in_torch.py` opens the file in PyTorch.

use std::path::Path;

use elbo::data::digits::Digits;
use elbo::{Device, Executor, Graph, Key, Optimizer, Params, Result, Rows, State};

/// Trains, saves to `path`, loads, and gives the share of new digits that the loaded network reads rightly.
pub fn run(executor: &Executor, path: &Path) -> Result<f32> {
    let mut params = Params::new();
    let (up, down) = (params.linear("up", 784, 32), params.linear("down", 32, 10));
    let load = |state: &mut State, first, count| {
        let (images, labels) = Digits::generate(1, first, count);
        state.load("images", &images[..], 784).and_then(|()| state.load("labels", &labels[..], 1))
    };
    let g = Graph::new();
    let x = g.batch_in_units("images", 40, 784, 255.0); // bytes as 0 … 1
    let y = down.apply(up.apply(x).relu()); // [40, 10]
    let digits = g.tensor(&[1, 10], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let right = (y * g.batch("labels", 40, 1).equal(digits)).sum(&[1]); // the right digit's score
    let mut test = executor.compile(&g, [right.equal(y.max(&[1])).mean_all()])?;
    let loss = (y.log_sum_exp(&[1]) - right).mean_all(); // −log softmax(y) at the right digit
    g.minimise(loss, &params, Optimizer::adam(), 5e-3, None);
    let mut train = executor.compile(&g, [loss])?;
    let mut state = executor.state(&params, 0)?;
    load(&mut state, 0, 800)?;
    for epoch in 0..4 {
        train.epoch(&mut state, Key::new(1), Rows::shuffled(epoch), &[])?;
    }
    state.save(path)?; // in PyTorch's layout
    let mut again = executor.state(&params, 1)?; // other initial values
    again.restore(path)?;
    load(&mut again, 10_000, 400)?;
    test.epoch(&mut again, Key::new(0), Rows::in_order(), &[]).map(|[share]| share[0])
}

fn main() -> Result<()> {
    let right = run(&Device::auto().open()?, Path::new("classifier.safetensors"));
    right.map(|right| println!("{:.1} % of new digits are read rightly", 100.0 * right))
}
