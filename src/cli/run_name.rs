//! What a run folder is called after its number: what differs from the usual run.

use serde_json::Value;

use crate::engine::optim::{LrSchedule, Optimizer};
use crate::train::{Source, TrainConfig};
use crate::vae::{Bound, Likelihood};

/// Longer names are cut between two words, and say so.
const LONGEST: usize = 60;

/// `latent2-seed3`, `mnist-gaussian-lr0.0001`: the images where they are not the program's own, and every choice that is
/// not the usual one; `usual` where there is none. The number of epochs is left out: a run
/// that goes on has more.
pub fn run_name(config: &TrainConfig) -> String {
    let mut words = images(&config.data);
    let mut usual = TrainConfig { data: config.data.clone(), epochs: config.epochs, ..TrainConfig::default() };
    usual.model.image = config.model.image;
    usual.model.encoder = config.model.encoder.clone();
    usual.model.decoder = config.model.encoder.iter().rev().copied().collect();
    if config.model.encoder != TrainConfig::default().model.encoder {
        words.push(format!("hidden{}", widths(&config.model.encoder)));
    }
    likelihood(config, &mut usual, &mut words);
    optimiser(config, &mut usual, &mut words);
    bound(config, &mut usual, &mut words);
    words.extend(usual.differences(config).into_iter().map(|differs| word(&differs.field, &differs.second)));
    joined(words)
}

fn images(data: &Source) -> Vec<String> {
    match (data, &Source::DIGITS) {
        (Source::Folder { path, .. }, _) => {
            let name = path.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
            vec![plain(&name.unwrap_or("data".into()))]
        }
        (Source::Digits { seed, train, test }, Source::Digits { seed: own, train: usual_train, test: usual_test }) => {
            let changed = [("train", *train, *usual_train), ("test", *test, *usual_test)];
            let sizes = changed.into_iter().filter(|(_, size, usual)| size != usual);
            let sizes = sizes.map(|(name, size, _)| format!("{name}{size}"));
            sizes.chain((seed != own).then(|| format!("digits{seed}"))).collect()
        }
        _ => Vec::new(),
    }
}

fn likelihood(config: &TrainConfig, usual: &mut TrainConfig, words: &mut Vec<String>) {
    let own = config.model.likelihood;
    let name = own.facts().suffix.trim_start_matches('-');
    if !name.is_empty() {
        words.push(name.into());
    }
    let floor = Likelihood::all().into_iter().find(|l| l.name() == own.name()).and_then(Likelihood::floor);
    if let Some(value) = own.floor().filter(|value| floor != Some(*value)) {
        words.push(format!("floor{value}"));
    }
    usual.model.likelihood = own;
}

fn optimiser(config: &TrainConfig, usual: &mut TrainConfig, words: &mut Vec<String>) {
    if let Optimizer::Sgd { momentum } = config.objective.optimizer {
        words.push(if momentum == 0.9 { "sgd".into() } else { format!("sgd-momentum{momentum}") });
        usual.objective.optimizer = config.objective.optimizer;
    }
    if config.lr.at(0) != usual.lr.at(0) {
        words.push(format!("lr{}", config.lr.at(0)));
    }
    match config.lr {
        LrSchedule::Constant { .. } => {}
        LrSchedule::Cosine { .. } => words.push("cosine".into()),
        LrSchedule::Steps { .. } => words.push("steps".into()),
    }
    usual.lr = config.lr.clone();
    if config.warmup.steps > 0 {
        words.push("warmup".into());
        usual.warmup.steps = config.warmup.steps;
    }
}

fn bound(config: &TrainConfig, usual: &mut TrainConfig, words: &mut Vec<String>) {
    let Bound { kind, samples, estimator, free_bits, kl } = config.objective.bound;
    let plain_bound = Bound::ELBO;
    if kind != plain_bound.kind {
        words.push(kind.to_string());
    }
    if samples != plain_bound.samples {
        words.push(format!("k{samples}"));
    }
    if estimator != plain_bound.estimator {
        words.push(plain(estimator.name()));
    }
    // Elsewhere there is no closed form, and nothing was chosen.
    if kl != plain_bound.kl && config.objective.bound.has_closed_form(&config.model) {
        words.push(plain(kl.name()));
    }
    words.extend(free_bits.map(|nats| format!("freebits{nats}")));
    usual.objective.bound = config.objective.bound;
}

/// A field and its value; a name says by itself what it is a name of.
fn word(field: &str, value: &Value) -> String {
    let field = plain(field.rsplit('.').next().unwrap_or(field));
    match value {
        Value::String(name) => plain(name),
        Value::Bool(false) => format!("no-{field}"),
        Value::Array(values) if values.iter().all(Value::is_number) => {
            format!("{field}{}", values.iter().map(Value::to_string).collect::<Vec<_>>().join("x"))
        }
        Value::Array(values) => format!("{field}{}", values.len()),
        value => format!("{field}{value}"),
    }
}

fn widths(all: &[usize]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// Letters that no shell and no file system takes for something else.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect()
}

fn joined(words: Vec<String>) -> String {
    let mut name = String::new();
    for (i, word) in words.iter().enumerate() {
        if name.len() + word.len() > LONGEST {
            return format!("{name}-and{}", words.len() - i).trim_start_matches('-').into();
        }
        name += if i == 0 { "" } else { "-" };
        name += word;
    }
    if name.is_empty() { "usual".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vae::{Binarisation, StochasticLayer, VaeConfig};

    fn named(change: fn(&mut TrainConfig)) -> String {
        let mut config = TrainConfig::default();
        change(&mut config);
        run_name(&config)
    }

    #[test]
    fn what_is_not_usual_is_in_the_name() {
        assert_eq!(named(|_| ()), "usual");
        assert_eq!(named(|c| (c.model.latent, c.seed) = (2, 3)), "latent2-seed3");
        assert_eq!(named(|c| c.model = VaeConfig::new(2).hidden(&[300, 100])), "hidden300x100-latent2");
        assert_eq!(named(|c| c.model.decoder = vec![7]), "decoder7");
        assert_eq!(named(|c| c.model.binarisation = Binarisation::Dynamic), "dynamic");
        assert_eq!(named(|c| c.model.likelihood = Likelihood::gaussian(0.2)), "gaussian-floor0.2");
        assert_eq!(named(|c| c.model.likelihood = Likelihood::gaussian(0.1)), "gaussian");
        assert_eq!(named(|c| c.objective.optimizer = Optimizer::Sgd { momentum: 0.9 }), "sgd");
        assert_eq!(named(|c| c.lr = LrSchedule::Cosine { lr: 1e-4, lr_end: 0.0, steps: 9 }), "lr0.0001-cosine");
        assert_eq!(named(|c| (c.warmup.beta, c.warmup.steps) = (4.0, 9)), "warmup-beta4.0");
        assert_eq!(named(|c| c.objective.bound = Bound::iwae(5)), "iwae-k5");
        assert_eq!(named(|c| c.shuffle = false), "no-shuffle");
        let upper = |c: &mut TrainConfig| {
            c.model.upper = vec![StochasticLayer { encoder: vec![30], latent: 5, decoder: vec![40] }];
            c.objective.bound.kl = crate::vae::KlTerm::MonteCarlo;
        };
        assert_eq!(named(upper), "upper1");
        assert_eq!(named(|c| c.data = Source::Digits { seed: 4, train: 300, test: 5_000 }), "train300-digits4");
    }

    #[test]
    fn long_names_are_cut_between_words() {
        let name = named(|c| {
            c.model = VaeConfig::new(7).hidden(&[1000, 900, 800, 700, 600, 500, 400]);
            (c.seed, c.batch, c.second_moment) = (123_456_789, 77, 0.0025);
        });
        assert!(name.len() <= LONGEST + 6 && name.starts_with("hidden1000x900") && name.contains("-and"), "{name}");
    }

    #[test]
    fn folders_of_images_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my images");
        std::fs::create_dir(&path).unwrap();
        let config = TrainConfig { data: Source::Folder { path, images: None }, ..TrainConfig::default() };
        assert_eq!(run_name(&config), "my_images");
    }
}
