use std::collections::BTreeMap;
use std::fs;

use super::power::{Image, Machine};
use super::*;
use crate::data::{Dataset, Split, Splits};
use crate::engine::device::Device;
use crate::vae::VaeConfig;

const CPU: Device = Device::Cpu { threads: 1 };

fn images(split: Split, rows: usize, seed: usize) -> Dataset {
    let images = (0..4 * rows).map(|i| ((seed + 31 * i) * 97 % 256) as u8).collect();
    Dataset { name: "few".into(), split, images, rows, cols: 4, width: 2, height: 2, labels: None }
}

fn data() -> Splits {
    Splits { train: images(Split::Train, 6, 0), test: images(Split::Test, 3, 1) }
}

/// Three epochs of two updates.
fn config() -> TrainConfig {
    let model = VaeConfig { image: [2, 2], ..VaeConfig::new(1).hidden(&[2]) };
    TrainConfig { batch: 4, epochs: 3, ..TrainConfig::new(model) }
}

/// Trains until `pause_at`, or to the end.
fn session(entry: Entry, pause_at: Option<u32>) -> Run {
    let (run, mut trainer) = entry.start(config(), &data(), CPU).unwrap();
    trainer.pause_at = pause_at;
    run.train(&mut trainer, &mut (), &AtomicBool::new(false)).unwrap();
    run
}

const PLACE: &str = "/runs/001-few";

fn at(name: &str) -> PathBuf {
    Path::new(PLACE).join(name)
}

/// The run as it is when nothing happens to it.
fn whole() -> Machine {
    let machine = Machine::with(&Image::new());
    session(Entry::at(machine.clone(), Path::new(PLACE)).unwrap(), None);
    machine
}

/// A run that is stopped in the middle of an epoch and taken up, and the updates that were saved by each operation.
fn in_two_sessions(machine: &Machine) -> impl Fn(usize) -> u32 + use<> {
    /// Notes when an epoch was saved: it is when the next one is heard of.
    struct Clock<'m>(&'m Machine, Vec<(usize, u32)>);
    impl Observer for Clock<'_> {
        fn step(&mut self, report: &StepReport) {
            if report.images == 4 {
                self.1.push((self.0.now(), 2 * (report.epoch - 1)));
            }
        }
    }
    let mut clock = Clock(machine, Vec::new());
    for (pause_at, updates) in [(Some(3), 3), (None, 6)] {
        let entry = Entry::at(machine.clone(), Path::new(PLACE)).unwrap();
        let (run, mut trainer) = entry.start(config(), &data(), CPU).unwrap();
        trainer.pause_at = pause_at;
        run.train(&mut trainer, &mut clock, &AtomicBool::new(false)).unwrap();
        clock.1.push((machine.now(), updates));
    }
    let saved = clock.1;
    move |operation| saved.iter().filter(|(at, _)| *at <= operation).map(|(_, updates)| *updates).max().unwrap_or(0)
}

/// What is wrong with a disk after a power cut at which `promised` updates were saved.
fn examine(image: &Image, promised: u32, whole: &Machine) -> std::result::Result<(), String> {
    let machine = Machine::with(image);
    let there = machine.read(&at(CHECKPOINT)).ok();
    let names = machine.list(Path::new(PLACE)).unwrap_or_default();
    if there.is_none()
        && (promised > 0 || !names.iter().all(|n| [LOCK, CONFIG].contains(&&n[..]) || entry::is_temporary(n)))
    {
        return Err(format!("no checkpoint among {names:?}"));
    }
    let progress = there.map(|bytes| Checkpoint::decode(&at(CHECKPOINT), &bytes).map(|c| c.progress));
    let progress = progress.transpose().map_err(|e| e.to_string())?.unwrap_or_default();
    if progress.updates < promised {
        return Err(format!("{} updates of {promised}", progress.updates));
    }
    let entry = Entry::at(machine.clone(), Path::new(PLACE)).map_err(|e| e.to_string())?;
    let (run, mut trainer) = entry.start(config(), &data(), CPU).map_err(|e| e.to_string())?;
    let lines = |machine: &Machine, name: &str| -> Vec<String> {
        let text = String::from_utf8(machine.read(&at(name)).unwrap_or_default()).unwrap();
        text.lines().map(String::from).collect()
    };
    let (epochs, journal) = (progress.epoch as usize, lines(whole, METRICS));
    if lines(&machine, METRICS) != journal[..epochs] || lines(&machine, TIMING).len() != epochs {
        return Err(format!("the journals do not end with epoch {epochs}"));
    }
    run.train(&mut trainer, &mut (), &AtomicBool::new(false)).map_err(|e| e.to_string())?;
    let differs =
        [CHECKPOINT, METRICS, CONFIG].into_iter().find(|n| machine.read(&at(n)).ok() != whole.read(&at(n)).ok());
    differs.map_or(Ok(()), |name| Err(format!("{name} differs in the end")))
}

/// Looks, one after the other, at all states that the run on `machine` may be found in.
fn power_cuts(machine: &Machine) -> impl Iterator<Item = std::result::Result<(), String>> + use<> {
    let (saved, whole) = (in_two_sessions(machine), whole());
    let mut states: BTreeMap<Image, (usize, u32)> = BTreeMap::new();
    for (operation, images) in machine.after_power_cuts().into_iter().enumerate() {
        // Promises are kept to the end: the last operation that can leave a state has made the most.
        states.extend(images.into_iter().map(|image| (image, (operation, saved(operation + 1)))));
    }
    states.into_iter().map(move |(image, (operation, promised))| {
        examine(&image, promised, &whole).map_err(|e| format!("after operation {operation}: {e}"))
    })
}

#[test]
fn a_run_goes_on_to_the_same_bytes_whenever_the_power_fails() {
    let empty = Image::from([("/runs".into(), None), (PLACE.into(), None)]);
    for disk in [Image::new(), empty] {
        let found: Vec<_> = power_cuts(&Machine::with(&disk)).collect();
        let wrong: Vec<&String> = found.iter().filter_map(|f| f.as_ref().err()).collect();
        assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), found.len());
        assert!(found.len() > 60, "{} states", found.len());
    }
}

#[test]
fn a_new_folder_has_its_checkpoint_from_the_beginning() {
    let machine = Machine::with(&Image::new());
    drop(in_two_sessions(&machine));
    for image in machine.after_power_cuts().into_iter().flatten() {
        assert_eq!(image.contains_key(Path::new(PLACE)), image.contains_key(&at(CHECKPOINT)), "{:?}", image.keys());
    }
}

/// The examination finds what it is there to find.
#[test]
fn each_sync_is_needed() {
    for (forgotten, loss) in [
        (".tmp", "a complete safetensors file"),
        ("/runs", "no checkpoint among"),
        (METRICS, "journals do not end"),
        (TIMING, "journals do not end"),
    ] {
        let mut losses = power_cuts(&Machine::without_syncs_of(forgotten)).filter_map(|found| found.err());
        assert!(losses.any(|found| found.contains(loss)), "without syncs of {forgotten}, \"{loss}\" is not found");
    }
}

#[test]
fn runs_are_numbered_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("deep/runs");
    let begin = |entry: Entry| entry.start(config(), &data(), CPU).map(|(run, _)| run.path().to_path_buf());
    assert_eq!(begin(Entry::numbered(Disk, &parent, "few")).unwrap(), parent.join("001-few"));
    fs::create_dir(parent.join("041-other")).unwrap();
    let (one, other) = (Entry::numbered(Disk, &parent, "few"), Entry::numbered(Disk, &parent, "few"));
    assert_eq!(one.path(), other.path(), "at the same moment");
    assert_eq!(begin(one).unwrap(), parent.join("042-few"));
    assert_eq!(begin(other).unwrap(), parent.join("043-few"));
    let message = begin(Entry::new(Disk, &parent.join("001-few"))).unwrap_err().to_string();
    assert!(message.contains("001-few") && message.contains("resume the run"), "{message}");
    let mut names = Disk.list(&parent).unwrap();
    names.sort();
    assert_eq!(names, ["001-few", "041-other", "042-few", "043-few"], "nothing else is left behind");
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = session(Entry::new(Disk, &path), Some(1));
    for entry in [Entry::at(Disk, &path), Entry::resumed(Disk, &path)] {
        let message = entry.err().expect("it is held").to_string();
        let owner = format!("process {}", std::process::id());
        for part in [path.to_str().unwrap(), &owner, "another folder"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }
    assert_eq!(Run::read(&path).unwrap().progress.updates, 1);
    drop(run);
    let run = session(Entry::at(Disk, &path).unwrap(), None);
    assert_eq!((Run::read(&path).unwrap().progress.epoch, run.timings().unwrap().len()), (3, 3));
}

#[test]
fn a_run_of_before_is_taken_up_and_what_was_being_written_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    drop(session(Entry::new(Disk, folder.path()), Some(4)));
    let at = |name: &str| folder.path().join(name);
    let checkpoint = Checkpoint { images: None, ..Run::read(folder.path()).unwrap() };
    checkpoint.save(&at(CHECKPOINT)).unwrap();
    fs::remove_file(at(LOCK)).unwrap();
    let journal = fs::read_to_string(at(METRICS)).unwrap();
    let next = journal.lines().last().unwrap().replace("\"epoch\":2", "\"epoch\":3");
    fs::write(at(METRICS), format!("{journal}{next}\n{{\"epo")).unwrap();
    fs::write(at("config.json.9.tmp"), "{").unwrap();
    let (run, _) = Entry::at(Disk, folder.path()).unwrap().start(config(), &data(), CPU).unwrap();
    assert_eq!(fs::read_to_string(at(METRICS)).unwrap(), journal);
    assert!(!at("config.json.9.tmp").exists() && run.path().join(LOCK).exists());
    fs::write(at(TIMING), format!("{}\n{{\"epoch\":2}}\n", fs::read_to_string(at(TIMING)).unwrap().trim())).unwrap();
    let lines = fs::read_to_string(at(TIMING)).unwrap().lines().count();
    let error = run.timings().unwrap_err().to_string();
    assert!(
        error.contains(TIMING) && error.contains(&format!("line {lines}")) && error.contains("missing field"),
        "{error}"
    );
}

#[test]
fn other_images_are_named() {
    let machine = Machine::with(&Image::new());
    session(Entry::at(machine.clone(), Path::new(PLACE)).unwrap(), Some(3));
    let other = |set: &str| match set {
        "training images" => Splits { train: images(Split::Train, 6, 5), ..data() },
        _ => Splits { test: images(Split::Test, 3, 5), ..data() },
    };
    for set in ["training images", "test images"] {
        let entry = Entry::resumed(machine.clone(), Path::new(PLACE)).unwrap();
        let message = entry.start(config(), &other(set), CPU).err().expect("others").to_string();
        assert!(message.contains(set) && message.contains("hash") && message.contains("trained on"), "{message}");
    }
}

#[test]
fn what_fails_before_anything_is_learned_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let wild = TrainConfig { lr: crate::engine::optim::LrSchedule::Constant { lr: 1e38 }, ..config() };
    let (run, mut trainer) = Entry::new(Disk, &path).start(wild, &data(), CPU).unwrap();
    assert!(Run::is_there(&path));
    run.train(&mut trainer, &mut (), &AtomicBool::new(false)).unwrap_err();
    assert!(!path.exists());
}
