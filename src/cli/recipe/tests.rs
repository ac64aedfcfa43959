use std::collections::BTreeSet;
use std::fs;

use super::*;

fn no_options() -> ArgMatches {
    args::Train::augment_args(Command::new("train")).try_get_matches_from(["train"]).unwrap()
}

fn options(text: &str) -> ArgMatches {
    let words = ["train"].into_iter().chain(text.split_whitespace());
    args::Train::augment_args(Command::new("train")).try_get_matches_from(words).unwrap()
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
            let arguments = recipe.arguments(protocol, None, true, &no_options()).unwrap();
            let words = ["train".to_string()].into_iter().chain(arguments);
            let parsed = args::Train::augment_args(Command::new("train")).try_get_matches_from(words);
            assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
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
            let arguments = recipe.arguments(None, None, true, &no_options()).unwrap();
            let bound = if row == "vae" { "elbo" } else { "iwae" };
            let latent = if layers == 1 { 50 } else { 100 };
            let expected = [
                format!("--bound={bound}"),
                format!("--samples={k}"),
                format!("--latent={latent}"),
                "--kl=monte_carlo".into(),
                "--spread=log_sigma".into(),
                "--beta1=0.99".into(),
                "--second-moment=0.0025".into(),
                "--eps=0.000005".into(),
                "--train-images=59600".into(),
                "--epochs=3280".into(),
                "--no-shuffle".into(),
            ];
            expected.iter().for_each(|e| assert!(arguments.contains(e), "{}: {e} in {arguments:?}", recipe.name));
            assert_eq!(arguments.iter().any(|a| a.starts_with("--upper")), layers == 2);
            let paper = recipe.arguments(Some("paper"), None, true, &no_options()).unwrap();
            assert!(paper.contains(&"--beta1=0.9".into()) && paper.contains(&"--second-moment=0".into()), "{paper:?}");
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
    let arguments = recipe.arguments(None, Some(3), true, &no_options()).unwrap();
    assert!(arguments.contains(&"--epochs=13".into()));
    let schedule = arguments.iter().find(|a| a.starts_with("--lr-schedule")).unwrap();
    assert!(schedule.starts_with("--lr-schedule=steps:1=0.00072,4=0.00052,13=0.00037"), "{schedule}");
    assert!(schedule.ends_with("1093=0.0001"), "all stages, so that more can follow: {schedule}");
    for bad in [0, 9] {
        assert!(recipe.epochs(Some(bad)).unwrap_err().to_string().contains("from 1 to 8"));
    }
}

#[test]
fn options_of_the_command_line_come_before_the_recipes() {
    let recipe = Recipe::load("iwae-1l-vae-k1").unwrap();
    let given = options("--hidden 30 --epochs 2 --lr 0.01 --no-shuffle");
    let arguments = recipe.arguments(None, None, false, &given).unwrap();
    for absent in ["--hidden", "--epochs", "--lr=", "--lr-schedule", "--no-shuffle", "--train-images"] {
        assert!(!arguments.iter().any(|a| a.starts_with(absent)), "{absent} in {arguments:?}");
    }
    assert!(arguments.contains(&"--latent=50".into()) && arguments.contains(&"--batch=20".into()));
}

#[test]
fn mistakes_are_named_with_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let good = "title = \"t\"\n[model]\nlatent = 3\n[schedule]\nstages = [{ epochs = 1, lr = 1e-3 }]\n";
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
    refuses(good.replace("latent", "lattent"), &["model.lattent", "option of `elbo train`"]);
    refuses(good.replace("latent = 3", "lr = 3"), &["model.lr"]);
    refuses(good.replace("lr = 1e-3", "rate = 1e-3"), &["line 5", "rate"]);
    refuses(good.replace("latent = 3", "latent = { a = 1 }"), &["model.latent", "a text, a number"]);
    refuses(good.replace("title = \"t\"", "title = \"\""), &["title"]);
    refuses(good.replace("[{ epochs = 1, lr = 1e-3 }]", "[]"), &["schedule.stages"]);
    refuses(format!("{good}[expected]\nvalue = 3.0\n"), &["expected.band"]);
    refuses(format!("{good}[expected]\nvalue = 3.0\nband = 1.0\n"), &["evaluation.nll-samples"]);
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
    write("mine.toml", "base = \"iwae-1l-vae-k1\"\n[model]\nlatent = 7\n");
    write("more.toml", "base = \"mine\"\ntitle = \"mine too\"\n");
    let load = |name: &str| Recipe::load(folder.path().join(name).to_str().unwrap()).unwrap();
    let arguments = |name: &str| load(name).arguments(None, None, true, &no_options()).unwrap();
    assert!(arguments("mine.toml").contains(&"--latent=7".into()));
    assert_eq!(arguments("more.toml"), arguments("mine.toml"));
    assert_eq!(load("more.toml").title, "mine too");
}

#[test]
fn images_are_told_apart() {
    let recipe = Recipe::load("pytorch-example").unwrap();
    let message = recipe.check_images(&Splits::digits(1, 40, 10), Path::new("digits")).unwrap_err().to_string();
    assert!(message.contains("40 training") && message.contains("MNIST") && message.contains("60000"), "{message}");
}
