//! Training steps per second, in the form that other frameworks' programs for the same work print:
//!
//! ```text
//! cargo run --release --example step_speed -- FOLDER v1|v2|v2-closed BATCH THREADS [STEPS [REPETITIONS [UPDATES,UPDATES,…]]]
//!     [--samples K] [--device cpu|cuda|cuda:N] [--precision f32|bf16x3|tf32|bf16]
//! ```
//!
//! v1 is 784-400-20-400-784 with ReLU on grey pixels and the ELBO with its KL term in closed form; v2 is
//! 784-200-200-50-200-200-784 with tanh on thresholded ones and −L_K with K draws of z per image (1 unless said otherwise), every
//! term of which is computed from the draws, as other programs do; v2-closed is the same model with the ELBO's KL term in closed
//! form, a little less work. Adam in all of them. FOLDER holds MNIST's IDX files, or is `digits` for the built-in ones. One step gathers a
//! shuffled batch, draws the noise, and runs forward, backward and the update.
//!
//! The speed is measured after each of the given numbers of updates, 500 and 10 000 unless said otherwise: a step may get
//! slower as a run goes on, where numbers that shrink become denormal. The mean loss of the 50 updates before is the check:
//! it must be what every correct program gets. Then the median over the repetitions is printed as one line of JSON. A
//! repetition ends when the device has done all its steps. On a GPU, THREADS is not used.

use std::path::Path;
use std::time::Instant;

use elbo::data::{self, Splits};
use elbo::engine::device::{Precision, Schedule};
use elbo::engine::isa::Isa;
use elbo::engine::nn::Activation;
use elbo::vae::{BETA, Binarisation, Bound, DeviceVae, LEARNING_RATE, UpdateRule, Vae, VaeConfig, training_step};
use elbo::{Call, Device, Graph, Key, Optimizer, Rows};

/// Steps that are given to the device at a time: an epoch of the usual batch fits, and a portion's start and end, a few
/// tens of microseconds on a GPU, are nothing beside it.
const PORTION: usize = 512;

const USAGE: &str = "usage: step_speed FOLDER|digits v1|v2|v2-closed BATCH THREADS [STEPS [REPETITIONS [UPDATES,UPDATES,…]]] \
                     [--samples K] [--device cpu|cuda|cuda:N] [--precision f32|bf16x3|tf32|bf16]";

/// Takes `name VALUE` out of the arguments.
fn take(args: &mut Vec<String>, name: &str) -> Option<String> {
    let at = args.iter().position(|arg| arg == name)?;
    assert!(at + 1 < args.len(), "{name} needs a value\n{USAGE}");
    args.drain(at..at + 2).nth(1)
}

fn main() -> elbo::Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let device = take(&mut args, "--device").unwrap_or("cpu".into());
    let precision = take(&mut args, "--precision").map_or(Precision::F32, |p| p.parse().expect(USAGE));
    let samples = take(&mut args, "--samples").map_or(1, |k| k.parse::<usize>().expect(USAGE));
    let [folder, workload, batch, threads, rest @ ..] = &args[..] else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{text} is not a number"));
    let (batch, threads) = (number(batch), number(threads));
    let or = |i: usize, default: usize| rest.get(i).map_or(default, |text| number(text));
    let (steps, repetitions) = (or(0, 200), or(1, 7));
    let points: Vec<usize> = rest.get(2).map_or("500,10000", String::as_str).split(',').map(number).collect();
    assert!(steps > 0 && repetitions > 0 && points.is_sorted(), "{USAGE}");

    let images = if folder == "digits" { Splits::digits(1, 60_000, 10) } else { data::load(Path::new(folder))? };
    let deep = || {
        let model = VaeConfig::new(50).hidden(&[200, 200]);
        VaeConfig { activation: Activation::Tanh, binarisation: Binarisation::Threshold, ..model }
    };
    let (config, eps, bound) = match workload.as_str() {
        "v1" => (VaeConfig::new(20), 1e-8, Bound::ELBO),
        "v2" => (deep(), 1e-4, Bound::iwae(samples)),
        "v2-closed" => (deep(), 1e-4, Bound::ELBO),
        other => panic!("workload {other}; v1, v2 and v2-closed are known"),
    };
    assert!(samples == 1 || workload == "v2", "--samples is for v2 alone");
    let wanted = match device.split_once(':').unwrap_or((&device, "0")) {
        ("cpu", _) => Device::Cpu { threads },
        ("cuda", ordinal) => Device::Cuda { ordinal: number(ordinal), precision },
        _ => panic!("{USAGE}"),
    };
    let mut model = DeviceVae::initial(Vae::new(config)?, 0, wanted)?;
    images.train.load_into(&mut model, "train")?;
    let objective = UpdateRule { optimizer: Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps }, clip: None, bound };
    let g = Graph::new();
    let mut step = model.executor.compile(&g, training_step(&g, &model.vae, &objective, "train", batch))?;
    let on = model.executor.describe().replace(['"', '\\'], "");

    let per_epoch = images.train.rows / batch;
    let mut run = |mut times: usize| -> elbo::Result<f64> {
        while times > 0 {
            let done = model.state.updates as usize;
            let (epoch, position) = (done / per_epoch, done % per_epoch);
            let steps = times.min(PORTION).min(per_epoch - position);
            let schedules: &[(&str, Schedule)] = &[(LEARNING_RATE, &|_| 1e-3), (BETA, &|_| 1.0)];
            let rows = Rows::shuffled(epoch as u32).from((position * batch) as u32);
            step.run(&mut model.state, &Call { key: Key { seed: 0, step: done as u32 }, rows, steps, schedules })?;
            times -= steps;
        }
        // Reading the sums waits for the device.
        let [_, _, loss] = step.take_totals()?[..] else { unreachable!("three outputs of shape []") };
        Ok(loss)
    };
    let (mut done, mut first_loss) = (0, None);
    for update in points {
        let tail = update.saturating_sub(done).min(50);
        run(update.saturating_sub(done + tail))?;
        let loss_check = run(tail)? / (tail * batch) as f64;
        // Once more untimed: caches and the processor's frequency are those of the timed repetitions.
        run(steps)?;
        let mut rates = Vec::new();
        let mut last = 0.0;
        for _ in 0..repetitions {
            let start = Instant::now();
            last = run(steps)? / (steps * batch) as f64;
            rates.push(steps as f64 / start.elapsed().as_secs_f64());
        }
        done = done.max(update) + steps * (repetitions + 1);
        rates.sort_by(f64::total_cmp);
        println!(
            "{{\"peer\":\"elbo\",\"workload\":\"{workload}\",\"samples\":{samples},\"batch\":{batch},\"threads\":{threads},\"isa\":\"{}\",\
             \"device\":\"{device}\",\"precision\":\"{precision}\",\"on\":\"{on}\",\"update\":{update},\"steps\":{steps},\
             \"reps\":{repetitions},\"steps_per_s\":{:.2},\"min\":{:.2},\"max\":{:.2},\"loss_check\":{loss_check:.3},\
             \"final_loss\":{last:.3}}}",
            Isa::detect(),
            rates[repetitions / 2],
            rates[0],
            rates[repetitions - 1],
        );
        let first_loss = *first_loss.get_or_insert(loss_check);
        assert!(loss_check.is_finite() && last < first_loss, "the loss must fall");
    }
    Ok(())
}
