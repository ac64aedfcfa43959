use elbo::isa::Isa;
use elbo::vae::{Objective, Vae, VaeConfig, training_graph};
use elbo::{Control, Cpu, Fusion, Optimizer, Plan, Interp};
#[test]
fn dbg() {
    let vae = Vae::new(VaeConfig::new(20)).unwrap();
    let adam = Objective { optimizer: Optimizer::adam(), clip: None };
    let g = training_graph(&vae, &adam, "train", 128);
    let data: Vec<u8> = (0..256 * 784u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    let mut run = Interp::<f64>::new(&g);
    run.set_data("train", &data, 784);
    vae.init(3).iter().for_each(|i| run.set(&i.name, &i.values.iter().map(|&v| v as f64).collect::<Vec<_>>()).unwrap());
    run.control = Control { shuffle: true, ..Control::new(9) };
    run.step();
    println!("interp {:?}", run.metric("rec"));
    for isa in Isa::available() {
        for f in [Fusion::all(), Fusion::none()] {
            let plan = Plan::build(&g, f).unwrap();
            for t in [1, 2, 2, 2, 3] {
                let mut cpu = Cpu::with_isa(t, isa);
                cpu.set_data("train", &data, 784).unwrap();
                let b = cpu.bind(&plan).unwrap();
                vae.init(3).iter().for_each(|i| cpu.write(&i.name, &i.values).unwrap());
                *cpu.control_mut() = Control { shuffle: true, ..Control::new(9) };
                cpu.run(b, 1).unwrap();
                println!("{isa:?} all={} t={t} {:?}", f == Fusion::all(), cpu.take_metrics(b)["rec"]);
            }
        }
    }
}
