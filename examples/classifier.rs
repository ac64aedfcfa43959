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
    let t = g.batch("labels", 40, 1).reshape(&[40]); // the digit that is there
    let mut test = executor.compile(&g, [y.argmax(1).equal(t).mean_all()])?;
    let loss = -y.log_softmax(1).pick(t).mean_all(); // −log p(t|x)
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
