use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::vae::{BoundKind, KlTerm, Spread, StochasticLayer};

fn asked(name: &str) -> Experiment {
    Recipe::load(name).unwrap().experiment(None, None, true).unwrap()
}

#[test]
fn every_file_is_embedded_and_every_recipe_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let there: BTreeSet<String> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let embedded: BTreeSet<String> = files::FILES.iter().map(|(name, _)| format!("{name}.toml")).collect();
    assert_eq!(there, embedded);
    for name in names() {
        let recipe = Recipe::load(name).unwrap();
        let of_file = Recipe::load(folder.join(format!("{name}.toml")).to_str().unwrap()).unwrap();
        assert_eq!(recipe.title, of_file.title);
        let protocols = recipe.variants.keys().map(|p| Some(p.as_str())).chain([None]);
        for protocol in protocols {
            let images = recipe.data.train.max(1);
            recipe.experiment(protocol, None, true).unwrap().on([28, 28], images).unwrap();
        }
        for p in &recipe.published {
            assert!(!p.who.is_empty() && !p.place.is_empty() && (50.0..200.0).contains(&p.value), "{name}");
        }
    }
}

/// Table 1 of Burda et al. 2015 has twelve rows, of which k = 1 is one experiment for VAE and IWAE.
#[test]
fn table_1_is_there_in_full() {
    let table = [
        (1, "vae", [86.76, 86.47, 86.35]),
        (1, "iwae", [86.76, 85.54, 84.78]),
        (2, "vae", [85.33, 85.01, 84.78]),
        (2, "iwae", [85.33, 83.89, 82.90]),
    ];
    for (layers, model, values) in table {
        for (k, value) in [1, 5, 50].into_iter().zip(values) {
            let row = if k == 1 { "vae" } else { model };
            let recipe = Recipe::load(&format!("iwae-{layers}l-{row}-k{k}")).unwrap();
            assert_eq!(recipe.expected.value, Some(value), "{}", recipe.name);
            assert_eq!(recipe.published[0].value, value);
            let config = asked(&recipe.name).config;
            let bound = config.objective.bound;
            let kind = if row == "vae" { BoundKind::Elbo } else { BoundKind::Iwae };
            assert_eq!((bound.kind, bound.samples, bound.kl), (kind, k, KlTerm::MonteCarlo), "{}", recipe.name);
            let upper = StochasticLayer { encoder: vec![100; 2], latent: 50, decoder: vec![100; 2] };
            let (latent, upper) = if layers == 1 { (50, vec![]) } else { (100, vec![upper]) };
            assert_eq!((config.model.latent, config.model.spread), (latent, Spread::LogSigma));
            assert_eq!((config.model.encoder, config.model.decoder), (vec![200; 2], vec![200; 2]));
            assert_eq!(config.model.upper, upper);
            assert_eq!(config.objective.optimizer, Optimizer::Adam { beta1: 0.99, beta2: 0.999, eps: 5e-6 });
            assert_eq!((config.second_moment, config.train_images, config.epochs), (0.0025, Some(59_600), 3280));
            assert!(!config.shuffle && config.batch == 20);
            let paper = recipe.experiment(Some("paper"), None, true).unwrap().config;
            assert_eq!(paper.objective.optimizer, Optimizer::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-4 });
            assert_eq!(paper.second_moment, 0.0);
        }
    }
}

#[test]
fn the_stages_are_those_of_the_formula() {
    let recipe = Recipe::load("iwae-2l-iwae-k50").unwrap();
    assert_eq!(recipe.stages(), 8);
    for (i, stage) in recipe.schedule.stages.iter().enumerate() {
        assert_eq!(stage.epochs, 3u32.pow(i as u32));
        let rate = 1e-4 * (10f64.powf(1.0 - i as f64 / 7.0) * 10.0).round() / 10.0;
        assert!((stage.lr - rate).abs() < 1e-12, "{i}: {} against {rate}", stage.lr);
    }
    assert_eq!((recipe.epochs(Some(3)).unwrap(), recipe.epochs(None).unwrap()), (13, 3280));
    let three = recipe.experiment(None, Some(3), true).unwrap();
    assert_eq!((three.config.epochs, three.schedule.lr), (13, 1e-3));
    let RateSchedule::Steps(steps) = three.schedule.lr_schedule else { panic!("{three:?}") };
    assert_eq!(steps[..3], [(1.0, 7.2e-4), (4.0, 5.2e-4), (13.0, 3.7e-4)]);
    assert_eq!(steps.last(), Some(&(1093.0, 1e-4)), "all stages, so that more can follow");
    for bad in [0, 9] {
        assert!(recipe.epochs(Some(bad)).unwrap_err().to_string().contains("from 1 to 8"));
    }
}

#[test]
fn only_the_recipes_own_images_are_cut_down_to_its_number() {
    let recipe = Recipe::load("iwae-1l-fixed-vae-k1").unwrap();
    let images = |own: bool| recipe.experiment(None, None, own).unwrap().config.train_images;
    assert_eq!((images(true), images(false)), (Some(50_000), None));
}

#[test]
fn the_schedule_has_the_weight_of_the_kl_term() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warm.toml");
    let text = "base = \"pytorch-example\"\n[schedule]\nbeta = 2\nkl_warmup = 1.5\n";
    fs::write(&path, text).unwrap();
    let schedule = asked(path.to_str().unwrap()).schedule;
    assert_eq!((schedule.beta, schedule.kl_warmup, schedule.lr), (2.0, 1.5, 1e-3));
    assert_eq!(schedule.lr_schedule, RateSchedule::Constant);
}

/// Of a choice by another the numbers of the first go; of the rest what is not named stays.
#[test]
fn a_choice_is_replaced_and_everything_else_is_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.toml");
    let objective = "optimizer = { kind = \"sgd\", momentum = 0.5 }\nbound = { kind = \"iwae\" }\n";
    let variant = format!("[variants.sgd.config]\nsecond_moment = 0\n[variants.sgd.config.objective]\n{objective}");
    fs::write(&path, format!("base = \"iwae-1l-vae-k5\"\nprotocol = \"sgd\"\n{variant}")).unwrap();
    let objective = asked(path.to_str().unwrap()).config.objective;
    assert_eq!(objective.optimizer, Optimizer::Sgd { momentum: 0.5 });
    assert_eq!((objective.bound.kind, objective.bound.samples), (BoundKind::Iwae, 5));
}

#[test]
fn mistakes_are_named_with_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let good = "title = \"t\"\n[config.model]\nlatent = 3\n[schedule]\nstages = [{ epochs = 1, lr = 1e-3 }]\n";
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        Recipe::load(path.to_str().unwrap())
    };
    assert_eq!(load(good).unwrap().name, "own");
    let refuses = |text: String, words: &[&str]| {
        let message = load(&text).unwrap_err().to_string();
        words.iter().for_each(|w| assert!(message.contains(w), "{message}\ndoes not say {w}"));
        assert!(message.contains("own.toml"), "{message}");
    };
    refuses(good.replace("title", "titel"), &["titel", "line 1", "unknown field"]);
    refuses(good.replace("latent", "lattent"), &["config", "lattent", "in `model`"]);
    refuses(good.replace("latent = 3", "latent = \"3\""), &["config", "invalid type", "in `model.latent`"]);
    refuses(good.replace("latent = 3", "latent = 0"), &["config", "latent", "found 0"]);
    refuses(good.replace("[config.model]\nlatent", "[config]\nlr"), &["config.lr", "schedule.stages"]);
    refuses(good.replace("latent = 3", "image = [8, 8]"), &["config.model.image", "images come with the command"]);
    refuses(format!("{good}[variants.b.config]\nbatch = 0\n"), &["config", "batch", "found 0"]);
    refuses(format!("{good}[variants.b.config]\nbach = 1\n"), &["config", "bach"]);
    refuses(format!("protocol = \"a\"\n{good}"), &["protocol", "\"a\""]);
    refuses(good.replace("lr = 1e-3", "rate = 1e-3"), &["line 5", "rate"]);
    refuses(good.replace("title = \"t\"", "title = \"\""), &["title"]);
    refuses(good.replace("[{ epochs = 1, lr = 1e-3 }]", "[]"), &["schedule.stages"]);
    refuses(format!("{good}[expected]\nvalue = 3.0\n"), &["expected.band"]);
    refuses(format!("{good}[expected]\nvalue = 3.0\nband = 1.0\n"), &["evaluation.nll_samples"]);
    refuses(format!("template = true\n{good}"), &["template"]);
    refuses(good.replace("title", "base = \"own\"\ntitle"), &["base", "own"]);
    refuses("title = ".into(), &["line 1"]);
    let message = Recipe::load("iwae-3l").unwrap_err().to_string();
    assert!(message.contains("iwae-3l") && message.contains("iwae-1l-vae-k1"), "{message}");
    let message = Recipe::load("none.toml").unwrap_err().to_string();
    assert!(message.contains("none.toml") && message.contains("read"), "{message}");
    let one = Recipe::load("pytorch-example").unwrap();
    assert!(one.protocol(Some("paper")).unwrap_err().to_string().contains("one protocol"));
    let two = Recipe::load("iwae-1l-vae-k1").unwrap();
    assert!(two.protocol(Some("theano")).unwrap_err().to_string().contains("code, paper"));
}

#[test]
fn a_file_may_build_on_a_recipe_of_the_program_or_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("mine.toml", "base = \"iwae-1l-vae-k1\"\n[config.model]\nlatent = 7\n");
    write("more.toml", "base = \"mine\"\ntitle = \"mine too\"\n");
    let load = |name: &str| Recipe::load(folder.path().join(name).to_str().unwrap()).unwrap();
    let asked = |name: &str| load(name).experiment(None, None, true).unwrap();
    assert_eq!((asked("mine.toml").config.model.latent, asked("mine.toml").config.batch), (7, 20));
    assert_eq!(asked("more.toml"), asked("mine.toml"));
    assert_eq!(load("more.toml").title, "mine too");
}

#[test]
fn images_are_told_apart() {
    let recipe = Recipe::load("pytorch-example").unwrap();
    let message = recipe.check_images(&Splits::digits(1, 40, 10), Path::new("digits")).unwrap_err().to_string();
    assert!(message.contains("40 training") && message.contains("MNIST") && message.contains("60000"), "{message}");
}
