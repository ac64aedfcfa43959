//! Freezing: what is not given to the optimiser does not move, and costs nothing.

use elbo::engine::nn::Linear;
use elbo::engine::rng::Draw;
use elbo::{Call, Device, Fusion, Graph, Interp, Key, Optimizer, Params, Plan, Var, grad};

const NAMES: [&str; 4] = ["first.weight", "first.bias", "second.weight", "second.bias"];
const SIZES: [usize; 4] = [12, 4, 8, 2];

/// Two layers and their loss on noise; the parameters in the order of [`NAMES`].
fn network(g: &Graph) -> (Var<'_>, Vec<Var<'_>>) {
    let (first, second) = (Linear::new("first", 3, 4), Linear::new("second", 4, 2));
    let loss = second.apply(first.apply(g.normal(&[5, 3], 1)).tanh()).softplus().mean_all();
    (loss, [first.params(g), second.params(g)].concat())
}

/// The loss minimised in the parameters `moved`.
fn training(g: &Graph, rule: Optimizer, moved: &[usize]) {
    let (loss, params) = network(g);
    let wrt: Vec<Var> = moved.iter().map(|&i| params[i]).collect();
    let pairs: Vec<(Var, Var)> = wrt.iter().copied().zip(grad(loss, &wrt)).collect();
    g.optimize(rule, 1e-3, &pairs);
}

fn start(i: usize) -> Vec<f32> {
    let draw = Draw { seed: 3, step: 0, stream: 900 + i as u32 };
    (0..SIZES[i] as u64).map(|k| draw.uniform(k) - 0.5).collect()
}

/// Which parameters have other bits after some steps than before.
fn changed(after: impl Fn(&str) -> Vec<f32>) -> Vec<usize> {
    let bits = |values: Vec<f32>| -> Vec<u32> { values.into_iter().map(f32::to_bits).collect() };
    (0..4).filter(|&i| bits(after(NAMES[i])) != bits(start(i))).collect()
}

#[test]
fn parameters_that_are_not_given_to_the_optimiser_keep_their_bits() {
    for rule in [Optimizer::adam(), Optimizer::Sgd { momentum: 0.9 }] {
        for moved in [vec![0, 3], vec![1], vec![3, 2], vec![0, 1, 2, 3]] {
            let g = Graph::new();
            training(&g, rule, &moved);
            let mut expected = moved.clone();
            expected.sort_unstable();
            let mut run = Interp::<f32>::new(&g);
            for (i, name) in NAMES.iter().enumerate() {
                run.set(name, &start(i).iter().map(|&v| f64::from(v)).collect::<Vec<f64>>()).unwrap();
            }
            (0..3).for_each(|_| run.step());
            assert_eq!(changed(|name| run.get(name).unwrap().to_vec()), expected, "{rule:?}, interpreter");
            for fusion in [Fusion::all(), Fusion::none()] {
                let executor = Device::Cpu { threads: 2 }.open().unwrap();
                let mut step = executor.compile_with(&g, [], fusion).unwrap();
                let mut state = executor.state(&Params::of(&g), 0).unwrap();
                for (i, name) in NAMES.iter().enumerate() {
                    state.write(name, &start(i)).unwrap();
                }
                step.run(&mut state, &Call { steps: 3, ..Call::once(Key::new(0)) }).unwrap();
                assert_eq!(changed(|name| state.read(name).unwrap()), expected, "{rule:?}, {fusion:?}");
            }
        }
    }
}

/// Training the last layer alone needs no product for the gradient of the first.
#[test]
fn the_gradient_of_a_frozen_parameter_is_not_computed() {
    let products = |moved: &[usize]| {
        let g = Graph::new();
        training(&g, Optimizer::adam(), moved);
        Plan::build(&g, &[], Fusion::all()).unwrap().to_string().matches("·[").count()
    };
    // Forward: two. Backward: one for each weight, and one through the second layer to the first.
    assert_eq!((products(&[0, 1, 2, 3]), products(&[2, 3]), products(&[3])), (5, 3, 2));
}

#[test]
fn a_layer_applied_frozen_hands_the_gradient_through() {
    let g = Graph::new();
    let (x, layer) = (g.input(&[2, 3]), Linear::new("first", 3, 4));
    let [w, b] = layer.params(&g);
    let (open, frozen) = (layer.apply(x).tanh().sum_all(), layer.apply_frozen(x).tanh().sum_all());
    let mut run = Interp::<f64>::new(&g);
    run.set("first.weight", &start(0).iter().map(|&v| f64::from(v)).collect::<Vec<f64>>()).unwrap();
    assert_eq!(run.eval(grad(frozen, &[x])[0]), run.eval(grad(open, &[x])[0]));
    let [dw, db] = grad(frozen, &[w, b])[..] else { unreachable!() };
    assert_eq!((run.eval(dw), run.eval(db)), (vec![0.0; 12], vec![0.0; 4]));
}
