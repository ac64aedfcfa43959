//! dbg
use elbo::vae::{Objective, Vae, VaeConfig, training_graph};
use elbo::{Fusion, Optimizer, Plan};
#[test]
fn dbg() {
    for (image, hidden, latent, rows) in
        [([28, 28], &[400][..], 20, 128), ([5, 7], &[19, 33], 3, 13), ([3, 3], &[1], 1, 2)]
    {
        let vae = Vae::new(VaeConfig { image, ..VaeConfig::new(latent).hidden(hidden) }).unwrap();
        let adam = Objective { optimizer: Optimizer::adam(), clip: None };
        let g = training_graph(&vae, &adam, "train", rows);
        for f in [Fusion::all(), Fusion::none()] {
            println!("{image:?} {f:?}");
            let Ok(plan) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Plan::build(&g, f).unwrap()))
            else {
                println!("{g}");
                continue;
            };
            if rows == 2 {
                println!("{plan}");
                println!("{g}");
                for (i, s) in plan.steps.iter().enumerate() {
                    println!(
                        "{} {:?}\n   reads {:?}\n   writes {:?}",
                        i + 1,
                        s.kind.name(),
                        s.kind.reads(),
                        s.kind.writes()
                    );
                }
            }
        }
    }
}
