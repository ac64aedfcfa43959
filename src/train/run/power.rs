//! A simulated computer whose power can fail at any moment, and every state in which its disk can be found then.
//!
//! The model is what POSIX promises and no more. Until a file is synced, any part of what was written to it may be there, or
//! zeros in its place. Until a folder is synced, any of the names that were made, changed or removed in it may be as before, each for
//! itself; a rename happens whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::engine::file::{Files, Lock};

/// What is on a disk: the bytes of every file, none for a folder.
pub type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;
type Names = BTreeMap<String, usize>;

#[derive(Clone)]
enum Node {
    File { now: Vec<u8>, synced: Vec<u8> },
    Folder { now: Names, synced: Names, changes: Vec<Vec<(String, Option<usize>)>> },
}

/// All files and folders that ever were; the first is the root.
#[derive(Clone)]
struct State(Vec<Node>);

/// The computer. Clones are handles of one.
#[derive(Clone)]
pub struct Machine {
    state: Arc<Mutex<State>>,
    /// The state after each operation.
    history: Arc<Mutex<Vec<State>>>,
    locked: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// What ends so is not synced.
    forgotten: Option<&'static str>,
}

impl Machine {
    /// One that was started with this on its disk.
    pub fn with(image: &Image) -> Machine {
        let mut state = State(vec![Node::folder()]);
        for (path, content) in image {
            let node = content.as_ref().map_or(Node::folder(), |b| Node::File { now: b.clone(), synced: b.clone() });
            state.add(path, node).expect("folders come before what is in them");
        }
        state.0.iter_mut().for_each(Node::sync);
        let (state, history) = (Arc::new(Mutex::new(state)), Arc::default());
        Machine { state, history, locked: Arc::default(), forgotten: None }
    }

    /// One that does nothing when it is to sync a file or folder whose path ends in `forgotten`.
    pub fn without_syncs_of(forgotten: &'static str) -> Machine {
        Machine { forgotten: Some(forgotten), ..Machine::with(&Image::new()) }
    }

    /// The number of operations so far.
    pub fn now(&self) -> usize {
        self.history.lock().unwrap().len()
    }

    /// What may be on the disk if the power fails after each operation.
    pub fn after_power_cuts(&self) -> Vec<BTreeSet<Image>> {
        let history = self.history.lock().unwrap();
        history.iter().map(|state| state.images(0, Path::new("/")).into_iter().collect()).collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock().unwrap();
        let done = change(&mut state)?;
        self.history.lock().unwrap().push(state.clone());
        Ok(done)
    }
}

impl Node {
    fn folder() -> Node {
        Node::Folder { now: Names::new(), synced: Names::new(), changes: Vec::new() }
    }

    fn sync(&mut self) {
        match self {
            Node::File { now, synced } => synced.clone_from(now),
            Node::Folder { now, synced, changes } => {
                synced.clone_from(now);
                changes.clear();
            }
        }
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        path.components().skip(1).try_fold(0, |at, part| match &self.0[at] {
            Node::Folder { now, .. } => {
                now.get(part.as_os_str().to_str().unwrap()).copied().ok_or(ErrorKind::NotFound.into())
            }
            Node::File { .. } => Err(ErrorKind::NotADirectory.into()),
        })
    }

    /// Changes names in the folder of `path`, all at once.
    fn rename(&mut self, path: &Path, names: Vec<(String, Option<usize>)>) -> io::Result<()> {
        let folder = self.find(path.parent().unwrap())?;
        let Node::Folder { now, changes, .. } = &mut self.0[folder] else {
            return Err(ErrorKind::NotADirectory.into());
        };
        apply(now, &names);
        changes.push(names);
        Ok(())
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        self.0.push(node);
        self.rename(path, vec![(name(path), Some(self.0.len() - 1))])?;
        Ok(self.0.len() - 1)
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut Vec<u8>> {
        let at = match self.find(path) {
            Ok(at) => at,
            Err(_) => self.add(path, Node::File { now: Vec::new(), synced: Vec::new() })?,
        };
        match &mut self.0[at] {
            Node::File { now, .. } => Ok(now),
            Node::Folder { .. } => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// All that may be left of a node and what is in it.
    fn images(&self, node: usize, path: &Path) -> Vec<Image> {
        let (synced, changes) = match &self.0[node] {
            Node::File { now, synced } => {
                return remains(now, synced).into_iter().map(|b| Image::from([(path.into(), Some(b))])).collect();
            }
            Node::Folder { synced, changes, .. } => (synced, changes),
        };
        let mut all = Vec::new();
        for happened in 0..1u32 << changes.len() {
            let mut names = synced.clone();
            changes.iter().enumerate().filter(|(i, _)| happened >> i & 1 == 1).for_each(|(_, c)| apply(&mut names, c));
            let own = if path == Path::new("/") { Image::new() } else { Image::from([(path.into(), None)]) };
            let mut some = vec![own];
            for (name, &inner) in &names {
                let inner = self.images(inner, &path.join(name));
                let both = |a: &Image| {
                    inner
                        .iter()
                        .map(|b| a.iter().chain(b).map(|(p, c)| (p.clone(), c.clone())).collect())
                        .collect::<Vec<Image>>()
                };
                some = some.iter().flat_map(both).collect();
            }
            all.extend(some);
        }
        all
    }
}

fn apply(names: &mut Names, changes: &[(String, Option<usize>)]) {
    for (name, node) in changes {
        match node {
            Some(node) => drop(names.insert(name.clone(), *node)),
            None => drop(names.remove(name)),
        }
    }
}

/// What may be left of a file.
fn remains(now: &[u8], synced: &[u8]) -> Vec<Vec<u8>> {
    if now == synced {
        return vec![now.to_vec()];
    }
    let kept = if now.starts_with(synced) { synced.len() } else { 0 };
    let half = now[..kept + (now.len() - kept) / 2].to_vec();
    let zeros = now[..kept].iter().copied().chain(now[kept..].iter().map(|_| 0)).collect();
    vec![synced.to_vec(), half, zeros, now.to_vec()]
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().into()
}

impl Files for Machine {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock().unwrap();
        match &state.0[state.find(path)?] {
            Node::File { now, .. } => Ok(now.clone()),
            Node::Folder { .. } => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock().unwrap();
        match &state.0[state.find(folder)?] {
            Node::File { .. } => Err(ErrorKind::NotADirectory.into()),
            Node::Folder { now, .. } => Ok(now.keys().cloned().collect()),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| state.file(path).map(|now| *now = bytes.to_vec()))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| state.file(path).map(|now| now.extend(bytes)))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let forgotten = self.forgotten.is_some_and(|end| path.to_str().unwrap().ends_with(end));
        self.change(|state| {
            let node = state.find(path)?;
            if !forgotten {
                state.0[node].sync();
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent());
        self.change(|state| {
            let node = state.find(from)?;
            let taken = state
                .find(to)
                .is_ok_and(|there| matches!(&state.0[there], Node::Folder { now, .. } if !now.is_empty()));
            if taken {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            state.rename(from, vec![(name(from), None), (name(to), Some(node))])
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            let node = state.find(path)?;
            match &state.0[node] {
                Node::Folder { now, .. } if !now.is_empty() => Err(ErrorKind::DirectoryNotEmpty.into()),
                _ => state.rename(path, vec![(name(path), None)]),
            }
        })
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.change(|state| match state.find(path) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => state.add(path, Node::folder()).map(drop),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        struct Held(Arc<Mutex<BTreeSet<PathBuf>>>, PathBuf);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.lock().unwrap().remove(&self.1);
            }
        }
        if !self.locked.lock().unwrap().insert(path.into()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let held = Lock::new(Held(self.locked.clone(), path.into()));
        self.write(path, b"7\n").map(|()| held)
    }

    fn exists(&self, path: &Path) -> bool {
        self.state.lock().unwrap().find(path).is_ok()
    }
}
