//! The model of a disk: files and folders as they are, and as a loss of power may leave them. What it takes for certain is what
//! POSIX promises at least: the content of a file after `fsync`, or after `fdatasync` except that it became shorter; a name after
//! `fsync` of its folder, and of nothing else. Names change in any order, a rename as one until one of its folders is synced, which
//! then speaks for itself alone. It opens nothing and judges nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::content::{Change, Content, Kept, Span, What};

/// A file or a folder, by its place in the list of all.
pub(crate) type Node = usize;

/// Names in a folder.
type Names = BTreeMap<OsString, Node>;

/// Files by their path, and folders, which have no content.
pub(crate) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What was done to the names of a folder.
#[derive(Debug, Clone)]
enum Naming {
    /// The name stands for this now.
    Set(OsString, Node),
    /// The name is gone.
    Gone(OsString),
    /// The first name is gone, and the second stands for this.
    Renamed(OsString, OsString, Node),
}

#[derive(Debug, Default)]
struct Folder {
    certain: Names,
    live: Names,
    changes: Vec<(Span, Naming)>,
}

#[derive(Debug)]
enum Kind {
    File(Content),
    Folder(Folder),
}

/// A change that a loss of power may undo.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// The begin of its call.
    pub(crate) change: u64,
    /// What it was, in words.
    pub(crate) what: String,
    /// The first and the last sector that it wrote; nothing for names and lengths.
    pub(crate) sectors: Option<(u64, u64)>,
    /// The folder whose names it changed; nothing for content.
    pub(crate) folder: Option<Node>,
}

/// A disk below one folder, which itself is certain.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: Vec<Kind>,
}

const ROOT: Node = 0;

fn rename(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Set(name, node) => {
            names.insert(name.clone(), *node);
        }
        Naming::Gone(name) => {
            names.remove(name);
        }
        Naming::Renamed(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

impl Disk {
    /// What lies in that folder, all of it on stable storage.
    pub(crate) fn load(dir: &Path) -> Self {
        let mut disk = Self { nodes: vec![Kind::Folder(Folder::default())] };
        disk.load_into(ROOT, dir);
        disk
    }

    fn load_into(&mut self, folder: Node, dir: &Path) {
        let mut names = Names::new();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let node = self.nodes.len();
            if entry.file_type().unwrap().is_dir() {
                self.nodes.push(Kind::Folder(Folder::default()));
                self.load_into(node, &entry.path());
            } else {
                self.nodes.push(Kind::File(Content::certain(fs::read(entry.path()).unwrap())));
            }
            names.insert(entry.file_name(), node);
        }
        let folder = self.folder(folder);
        (folder.certain, folder.live) = (names.clone(), names);
    }

    fn folder(&mut self, node: Node) -> &mut Folder {
        match &mut self.nodes[node] {
            Kind::Folder(folder) => folder,
            Kind::File(_) => panic!("a file is used as a folder"),
        }
    }

    pub(crate) fn file(&mut self, node: Node) -> &mut Content {
        match &mut self.nodes[node] {
            Kind::File(content) => content,
            Kind::Folder(_) => panic!("a folder is used as a file"),
        }
    }

    /// What has that path now, relative to the disk's own folder.
    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        path.components().try_fold(ROOT, |node, part| match (&self.nodes[node], part) {
            (Kind::Folder(folder), Component::Normal(name)) => folder.live.get(name).copied(),
            (_, Component::CurDir) => Some(node),
            (Kind::File(_) | Kind::Folder(_), _) => None,
        })
    }

    fn split(&self, path: &Path) -> (Node, OsString) {
        let folder =
            self.find(path.parent().unwrap_or(Path::new(""))).expect("the call would have failed without a folder");
        (folder, path.file_name().expect("a path with a name").to_owned())
    }

    fn change_names(&mut self, folder: Node, span: Span, naming: Naming) {
        let folder = self.folder(folder);
        rename(&mut folder.live, &naming);
        folder.changes.push((span, naming));
    }

    fn make(&mut self, path: &Path, span: Span, kind: Kind) -> Node {
        let (folder, name) = self.split(path);
        self.nodes.push(kind);
        let node = self.nodes.len() - 1;
        self.change_names(folder, span, Naming::Set(name, node));
        node
    }

    pub(crate) fn make_file(&mut self, path: &Path, span: Span) -> Node {
        self.make(path, span, Kind::File(Content::default()))
    }

    pub(crate) fn make_folder(&mut self, path: &Path, span: Span) {
        self.make(path, span, Kind::Folder(Folder::default()));
    }

    pub(crate) fn remove(&mut self, path: &Path, span: Span) {
        let (folder, name) = self.split(path);
        self.change_names(folder, span, Naming::Gone(name));
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path, span: Span) {
        let node = self.find(from).expect("the call would have failed without the file");
        let ((from, old), (to, new)) = (self.split(from), self.split(to));
        if from == to {
            self.change_names(from, span, Naming::Renamed(old, new, node));
        } else {
            // Both are of one call, so without a sync none comes without the other.
            self.change_names(to, span, Naming::Set(new, node));
            self.change_names(from, span, Naming::Gone(old));
        }
    }

    /// Makes certain what had ended before this sync began.
    pub(crate) fn sync(&mut self, node: Node, begin: u64, data_only: bool) {
        match &mut self.nodes[node] {
            Kind::File(content) => content.sync(begin, data_only),
            Kind::Folder(folder) => {
                let changes = std::mem::take(&mut folder.changes);
                let (covered, left): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(span, _)| span.end < begin);
                folder.changes = left;
                covered.iter().for_each(|(_, naming)| rename(&mut folder.certain, naming));
            }
        }
    }

    /// Everything as a process sees it.
    pub(crate) fn live(&self) -> Tree {
        self.tree(|folder| folder.live.clone(), |content| content.live().to_vec())
    }

    /// Everything as a loss of power leaves it when of the changes this has come to the disk.
    pub(crate) fn after(&self, kept: &dyn Kept) -> Tree {
        let names = |folder: &Folder| {
            let mut names = folder.certain.clone();
            let there = folder.changes.iter().filter(|(span, _)| kept.name(span.begin));
            there.for_each(|(_, naming)| rename(&mut names, naming));
            names
        };
        self.tree(names, |content| content.after(kept))
    }

    fn tree(&self, names: impl Fn(&Folder) -> Names, content: impl Fn(&Content) -> Vec<u8>) -> Tree {
        let mut tree = Tree::new();
        let mut open = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = open.pop() {
            let Kind::Folder(folder) = &self.nodes[node] else { continue };
            for (name, node) in names(folder) {
                let path = path.join(name);
                let bytes = match &self.nodes[node] {
                    Kind::File(bytes) => Some(content(bytes)),
                    Kind::Folder(_) => None,
                };
                // A folder that a lost rename left under two names is walked once for each.
                match (tree.entry(path.clone()), &self.nodes[node]) {
                    (Entry::Vacant(place), Kind::File(_)) => {
                        place.insert(bytes);
                    }
                    (Entry::Vacant(place), Kind::Folder(_)) => {
                        place.insert(bytes);
                        open.push((path, node));
                    }
                    (Entry::Occupied(_), _) => {}
                }
            }
        }
        tree
    }

    /// Every change that may be lost, in the order in which they began.
    pub(crate) fn pending(&self) -> Vec<Pending> {
        let mut paths = BTreeMap::new();
        let mut open = vec![(PathBuf::from("."), ROOT)];
        while let Some((path, node)) = open.pop() {
            if let Kind::Folder(folder) = &self.nodes[node] {
                let both = folder.certain.iter().chain(&folder.live);
                open.extend(
                    both.filter(|(_, child)| !paths.contains_key(*child))
                        .map(|(name, child)| (path.join(name), *child)),
                );
            }
            paths.insert(node, path);
        }
        let mut pending = Vec::new();
        for (node, kind) in self.nodes.iter().enumerate() {
            let path = paths.get(&node).map_or_else(|| format!("removed {node}"), |path| path.display().to_string());
            match kind {
                Kind::File(content) => pending.extend(content.changes.iter().map(|change| of_file(&path, change))),
                Kind::Folder(folder) => pending.extend(folder.changes.iter().map(|(span, naming)| Pending {
                    change: span.begin,
                    what: format!(
                        "{path}: {}",
                        match naming {
                            Naming::Set(name, _) => format!("new name {}", name.display()),
                            Naming::Gone(name) => format!("{} gone", name.display()),
                            Naming::Renamed(from, to, _) => format!("{} renamed to {}", from.display(), to.display()),
                        }
                    ),
                    sectors: None,
                    folder: Some(node),
                })),
            }
        }
        pending.sort_by_key(|pending| pending.change);
        pending
    }
}

fn of_file(path: &str, change: &Change) -> Pending {
    let (what, sectors) = match &change.what {
        What::Write(offset, bytes) => {
            let end = offset + bytes.len() as u64;
            let sectors = (offset / super::content::SECTOR, end.saturating_sub(1) / super::content::SECTOR);
            (format!("{path}: {} bytes at {offset}", bytes.len()), Some(sectors))
        }
        What::Resize(length) => (format!("{path}: length {length}"), None),
    };
    Pending { change: change.span.begin, what, sectors, folder: None }
}

/// Writes a tree below a folder.
pub(crate) fn write(tree: &Tree, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for (path, content) in tree {
        match content {
            Some(bytes) => fs::write(dir.join(path), bytes).unwrap(),
            None => fs::create_dir(dir.join(path)).unwrap(),
        }
    }
}

/// Reads a tree.
pub(crate) fn read(dir: &Path) -> Tree {
    Disk::load(dir).live()
}
