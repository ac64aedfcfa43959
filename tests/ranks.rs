//! `elbo train` as several processes: what it does under `mpirun`, what a rank that is killed leaves behind, and that everything
//! else refuses to be one of several.
#![cfg(all(unix, feature = "cli"))]

use std::path::Path;
use std::process::{Command, Output};

fn elbo(at: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbo"));
    command.current_dir(at).args(arguments.split_whitespace());
    command
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[test]
fn what_is_one_process_refuses_to_be_one_of_several() {
    let at = tempfile::tempdir().unwrap();
    for launcher in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let output = elbo(at.path(), "info").env(launcher, "2").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains("processes: found 2") && text(&output).contains("mpirun"), "{}", text(&output));
        assert!(elbo(at.path(), "info").env(launcher, "1").output().unwrap().status.success());
    }
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_training_without_mpi_says_how_it_is_built_with_it() {
    let at = tempfile::tempdir().unwrap();
    let output = elbo(at.path(), "train").env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--features mpi"), "{}", text(&output));
    assert!(std::fs::read_dir(at.path()).unwrap().next().is_none(), "and leaves nothing");
}

#[cfg(feature = "mpi")]
mod launched {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use elbo::engine::rng::Draw;
    use elbo::train::Run;
    use elbo::train::checkpoint::Checkpoint;

    use super::*;

    /// 600 images in batches of 64 and a rest of 24.
    const RUN: &str = "train --quiet --train-size 600 --test-size 50 --batch 64 --hidden 16 --latent 3 --threads 1";
    /// A training that lasts a while.
    const LONG: &str = "train --quiet --train-size 2000 --test-size 50 --batch 64 --hidden 48 --latent 3 --threads 1";
    /// Longer than anything here takes: what is not over by then hangs.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// `mpirun -n ranks elbo arguments`, on machines of any number of cores, and for root in a container.
    fn mpirun(at: &Path, ranks: usize, arguments: &str) -> Command {
        let mut command = Command::new("mpirun");
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
        command.envs([
            ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
            ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
        ]);
        // Between the namespaces of a container the kernel may forbid to read another process.
        command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
        command.current_dir(at).args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_elbo")]);
        command.args(arguments.split_whitespace()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn done(mut command: Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
        text(&output)
    }

    #[cfg(feature = "cuda")]
    #[track_caller]
    fn done_with(mut command: Command, settings: &[(&str, &str)]) -> String {
        command.envs(settings.iter().copied());
        done(command)
    }

    fn bytes(run: &Path) -> [Vec<u8>; 2] {
        ["checkpoint.safetensors", "metrics.jsonl"].map(|name| fs::read(run.join(name)).unwrap())
    }

    fn names(run: &Path) -> BTreeSet<String> {
        fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn two_ranks_leave_the_run_that_one_leaves_but_for_rounding() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        done(elbo(at, &format!("{RUN} --epochs 2 --out one")));
        let said = done(mpirun(at, 2, &format!("{RUN} --epochs 2 --out two")));
        assert_eq!(said.matches("2 epochs").count(), 1, "rank 0 alone speaks: {said}");
        done(mpirun(at, 2, &format!("{RUN} --epochs 2 --out again")));
        assert_eq!(bytes(&at.join("two")), bytes(&at.join("again")));
        assert_eq!(names(&at.join("two")), names(&at.join("one")));
        let [one, two] = ["one", "two"].map(|name| Run::read(&at.join(name)).unwrap());
        assert_eq!(one.config, two.config);
        assert_eq!(one.progress, two.progress);
        let [a, b] = ["one", "two"].map(|name| Run::records(&at.join(name)).unwrap());
        for (a, b) in a.iter().zip(&b) {
            // What rounding does to 20 updates at a rate of 1e-3; another batch would be nats away.
            assert!((a.train_loss - b.train_loss).abs() < 1e-2, "{} and {}", a.train_loss, b.train_loss);
            assert!((a.test_neg_elbo - b.test_neg_elbo).abs() < 1e-2, "{} and {}", a.test_neg_elbo, b.test_neg_elbo);
        }
        let journals = Run::journals(&at.join("two")).unwrap();
        assert!(journals.timings.iter().all(|timing| timing.ranks == 2) && journals.sessions[0].ranks == 2);
        let command = &journals.sessions[0].command;
        assert!(command.starts_with("mpirun -n 2 elbo train --quiet"), "{command}");
        let one = fs::read_to_string(at.join("one/sessions.jsonl")).unwrap();
        assert!(!one.contains("ranks"), "a run of one process is as it always was: {one}");
    }

    #[test]
    fn a_run_goes_on_with_any_number_of_ranks() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let said = done(mpirun(at, 2, &format!("{RUN} --epochs 3 --pause-at 13 --out run")));
        assert!(said.contains("elbo train --resume run"), "{said}");
        assert_eq!(Run::read(&at.join("run")).unwrap().progress.updates, 13);
        let said = done(elbo(at, "train --resume run --quiet --pause-at 17"));
        assert!(said.contains("epoch 1 ran on 2 ranks, this session runs on 1 rank"), "{said}");
        done(mpirun(at, 3, "train --resume run --quiet"));
        assert_eq!(Run::read(&at.join("run")).unwrap().progress.epoch, 3);
        let said = done(mpirun(at, 2, "train --resume run"));
        assert_eq!(said.matches("nothing was done").count(), 1, "{said}");
    }

    #[test]
    fn what_cannot_be_shared_is_refused_by_all_and_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (arguments, words) in [("--free-bits 0.5", "free bits"), ("--batch 1", "an image for each rank")] {
            let arguments = format!("train --train-size 60 --test-size 10 --out run {arguments}");
            let output = mpirun(folder.path(), 2, &arguments).output().unwrap();
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert_eq!(said.matches(words).count(), 1, "once, by rank 0: {said}");
            assert!(names(folder.path()).is_empty(), "{said}");
        }
    }

    #[test]
    fn a_sweep_is_spread_over_the_ranks_with_the_bytes_of_one_process() {
        const SWEEP: &str =
            "--train-size 200 --test-size 50 --hidden 10 --batch 50 --epochs 2 --device cpu --threads 1 --quiet --json";
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let answer = |mut command: Command| -> (Option<i32>, serde_json::Value) {
            let output = command.output().unwrap();
            let found = serde_json::from_slice(&output.stdout);
            (output.status.code(), found.unwrap_or_else(|e| panic!("{command:?}: {e} in {}", text(&output))))
        };
        let sweep = format!("sweep {SWEEP} --vary latent=2,3,4 --seed 3");
        let (_, alone) = answer(elbo(at, &format!("{sweep} --out alone")));
        let (_, spread) = answer(mpirun(at, 2, &format!("{sweep} --out spread")));
        assert_eq!(alone["combinations"], spread["combinations"]);
        for run in ["latent2-seed3", "latent3-seed3", "latent4-seed3"] {
            assert_eq!(bytes(&at.join("alone").join(run)), bytes(&at.join("spread").join(run)), "{run}");
            assert_eq!(names(&at.join("alone").join(run)), names(&at.join("spread").join(run)));
        }
        // Stopped on two, gone on with on three, of which one has nothing to do at the end.
        let (_, stopped) = answer(mpirun(at, 2, &format!("{sweep} --pause-at 3 --out parts")));
        assert_eq!(stopped["outcome"], "stopped");
        let (_, resumed) = answer(mpirun(at, 3, "sweep --resume parts --device cpu --threads 1 --quiet --json"));
        assert_eq!((&resumed["outcome"], &resumed["combinations"]), (&"finished".into(), &alone["combinations"]));
        let replicas = format!("train {SWEEP} --latent 2 --seed 3 --replicas 2 --out replicas");
        let (_, found) = answer(mpirun(at, 2, &replicas));
        assert_eq!(found["combinations"][0]["test_neg_elbo"]["n"], 2);
        assert_eq!(bytes(&at.join("replicas/seed3")), bytes(&at.join("alone/latent2-seed3")));
        // What one rank's run fails of, rank 0 tells.
        let (code, found) = answer(mpirun(at, 2, &format!("sweep {SWEEP} --vary lr=1e-3,1e30 --out bad")));
        assert_eq!((code, &found["outcome"]), (Some(1), &"failed".into()));
        let error = found["combinations"][1]["runs"][0]["error"].as_str().unwrap();
        assert!(error.contains("learning rate"), "{error}");
        // A sweep that cannot begin begins on no rank.
        let output = mpirun(at, 2, &format!("{sweep} --out alone")).output().unwrap();
        assert_eq!(text(&output).matches("choose another folder").count(), 1, "{}", text(&output));
    }

    /// Two folders stand for two machines that share none.
    #[test]
    fn ranks_that_see_another_sweep_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let tiny = "--train-size 100 --test-size 20 --hidden 8 --batch 50 --device cpu --threads 1 --quiet --epochs 1";
        for (machine, values) in [("a", "2,3"), ("b", "2,4")] {
            fs::create_dir(at.join(machine)).unwrap();
            done(elbo(&at.join(machine), &format!("sweep {tiny} --vary latent={values} --out s")));
        }
        let mut command = mpirun(at, 1, "sweep --resume a/s --device cpu --threads 1 --quiet");
        command.args([":", "-n", "1", env!("CARGO_BIN_EXE_elbo")]);
        command.args("sweep --resume b/s --device cpu --threads 1 --quiet".split_whitespace());
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("another one than rank 0 has there"), "{}", text(&output));
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn gpus_sum_their_gradients_to_the_bits_of_the_way_through_the_host() {
        let Ok(library) = elbo_emulator::library() else {
            println!("skipped: no emulated driver");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        // Batches of 64, 64 and 1, of which the last rank alone has a row.
        const RUN: &str =
            "train --train-size 129 --test-size 20 --batch 64 --hidden 12 --latent 2 --epochs 2 --device cuda";
        let train = |ranks: usize, out: &str, settings: &[(&str, &str)]| {
            let mut command = mpirun(at, ranks, &format!("{RUN} --out {out}"));
            command.env("LD_LIBRARY_PATH", library.parent().unwrap()).env("TMPDIR", at);
            done_with(command, settings)
        };
        for ranks in [2, 3] {
            let said = train(ranks, &format!("gpus{ranks}"), &[]);
            assert_eq!(said.matches("from GPU to GPU by NCCL").count(), 1, "{said}");
            let said = train(ranks, &format!("host{ranks}"), &[("ELBO_NCCL", "off")]);
            assert_eq!(said.matches("through the memory of the host: on rank 0, ELBO_NCCL=off").count(), 1, "{said}");
            assert_eq!(bytes(&at.join(format!("gpus{ranks}"))), bytes(&at.join(format!("host{ranks}"))));
        }
        for (setting, value, words) in [
            ("ELBO_EMU_NCCL", "duplicate", "ncclCommInitRank answers invalid usage"),
            ("ELBO_NCCL", "/nowhere/libnccl.so.2", "no NCCL could be opened (/nowhere/libnccl.so.2"),
        ] {
            let said = train(2, &setting.to_lowercase(), &[(setting, value)]);
            assert!(said.contains("through the memory of the host") && said.contains(words), "{said}");
            assert_eq!(bytes(&at.join(setting.to_lowercase())), bytes(&at.join("gpus2")));
        }
    }

    /// A training whose ranks can be found and killed.
    struct Training {
        mpirun: Child,
        /// What its command line has, and no other's.
        mark: PathBuf,
    }

    impl Training {
        /// Of the run `name`, taken up if it is there.
        fn start(at: &Path, name: &str, begin: &str) -> Training {
            let mark = at.join(name);
            let run = mark.display();
            let arguments = match Run::is_there(&mark) {
                true => format!("train --quiet --resume {run}"),
                false => format!("{begin} --out {run}"),
            };
            let mut command = mpirun(at, 2, &arguments);
            command.stdout(Stdio::null()).stderr(fs::File::create(at.join("stderr.txt")).unwrap());
            Training { mpirun: command.spawn().unwrap(), mark }
        }

        /// The processes of its ranks, as Linux shows them.
        fn ranks(&self) -> Vec<u32> {
            let (program, mark) = (env!("CARGO_BIN_EXE_elbo"), self.mark.display().to_string());
            let is_rank = |pid: &u32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
                words[0] == program && words.iter().any(|word| *word == mark)
            };
            let numbers =
                fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
            numbers.filter(is_rank).collect()
        }

        /// Whether it ended well, once it has ended, all ranks with it.
        fn ended(mut self) -> bool {
            let deadline = Instant::now() + PATIENCE;
            while self.mpirun.try_wait().unwrap().is_none() || !self.ranks().is_empty() {
                assert!(Instant::now() < deadline, "ranks {:?} wait for others that are gone", self.ranks());
                std::thread::sleep(Duration::from_millis(10));
            }
            self.mpirun.wait().unwrap().success()
        }
    }

    fn kill(signal: &str, pid: u32) {
        // It may have ended by itself meanwhile.
        let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
    }

    #[test]
    fn a_rank_that_is_asked_to_stop_stops_all_with_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let training = Training::start(folder.path(), "run", &format!("{LONG} --epochs 1000"));
        let deadline = Instant::now() + PATIENCE;
        while !Run::read(&training.mark).is_ok_and(|checkpoint| checkpoint.progress.epoch > 0) {
            assert!(Instant::now() < deadline, "no epoch in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let ranks = training.ranks();
        assert_eq!(ranks.len(), 2);
        kill("-TERM", ranks[1]);
        let run = training.mark.clone();
        assert!(training.ended(), "{}", fs::read_to_string(folder.path().join("stderr.txt")).unwrap());
        assert!(Run::read(&run).unwrap().progress.epoch < 1000);
    }

    /// As often as ELBO_KILLS says, or four times.
    #[test]
    fn ranks_killed_at_random_leave_a_run_that_goes_on_to_the_same_bits() {
        let kills = std::env::var("ELBO_KILLS").map_or(4, |n| n.parse().expect("ELBO_KILLS is a number"));
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let begin = format!("{LONG} --epochs 20");
        let start = Instant::now();
        assert!(Training::start(at, "whole", &begin).ended());
        let (whole, lasted) = (bytes(&at.join("whole")), start.elapsed());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let draw = Draw { seed: now.as_nanos() as u64, step: 0, stream: 0 };
        let (mut run, mut killed, mut ended_before, mut epochs) = (0, 0, 0, BTreeSet::new());
        for attempt in 0.. {
            let name = format!("run-{run}");
            let training = Training::start(at, &name, &begin);
            if killed < kills {
                std::thread::sleep(lasted.mul_f32(draw.uniform(2 * attempt)));
                let ranks = training.ranks();
                if !ranks.is_empty() {
                    kill("-KILL", ranks[(draw.uniform(2 * attempt + 1) * ranks.len() as f32) as usize]);
                    killed += 1;
                }
            }
            let path = training.mark.clone();
            let well = training.ended();
            if Run::is_there(&path) {
                // Whole files only, whenever it was.
                let Checkpoint { progress, .. } = Run::read(&path).unwrap();
                assert!(Run::journals(&path).unwrap().epochs.len() >= progress.epoch as usize);
                epochs.insert(progress.epoch);
            }
            if well {
                assert_eq!(bytes(&path), whole, "after {killed} kills");
                if killed == kills {
                    break;
                }
                (run, ended_before) = (run + 1, ended_before + 1);
            }
        }
        println!("{killed} kills, {} runs to their ends, last epochs {epochs:?}", ended_before + 1);
    }
}
