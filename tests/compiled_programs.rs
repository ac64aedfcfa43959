//! kernels/programs.cuh, the programs that the CUDA kernels are compiled for, against the plans of the usual models.

#![cfg(feature = "cuda")]

use std::path::Path;

use elbo::engine::device::cuda::compiled;
use elbo::engine::nn::Activation;
use elbo::vae::{Bound, BoundKind, KlTerm, UpdateRule, Vae, VaeConfig, training_step};
use elbo::{Fusion, Graph, Optimizer, Plan};

fn plan(config: VaeConfig, bound: Bound) -> Plan {
    let g = Graph::new();
    let rule = UpdateRule { bound, ..UpdateRule::elbo(Optimizer::adam(), None) };
    let outputs = training_step(&g, &Vae::new(config).unwrap(), &rule, "train", 20);
    Plan::build(&g, &outputs, Fusion::all()).unwrap()
}

/// One and two hidden layers, the activations that have an epilogue written by hand, the bounds that recipes take.
fn usual() -> Vec<Plan> {
    let mut plans = Vec::new();
    let monte_carlo = Bound { kl: KlTerm::MonteCarlo, ..Bound::ELBO };
    let iwae = Bound { kind: BoundKind::Iwae, samples: 50, ..monte_carlo };
    for bound in [Bound::ELBO, monte_carlo, iwae] {
        for activation in [Activation::Relu, Activation::Tanh] {
            for hidden in [&[400][..], &[200, 200]] {
                plans.push(plan(VaeConfig { activation, ..VaeConfig::new(20).hidden(hidden) }, bound));
            }
        }
    }
    plans
}

#[test]
fn the_list_is_that_of_the_usual_models() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/programs.cuh");
    let text = compiled::text(&usual());
    if std::env::var_os("ELBO_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == text, "kernels/programs.cuh is stale: ELBO_WRITE=1 cargo test --test compiled_programs");
    let forms = text.matches("struct ").count();
    assert!((3..=24).contains(&forms), "{forms} programs: each takes time of the compiler and room in the kernels");
}
