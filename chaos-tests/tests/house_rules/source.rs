//! The files of the repository, as the rules look at them. Reads; never writes.

use std::path::{Path, PathBuf};

use crate::syntax::{blank, code_only, split_tests};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// One Rust file.
pub(crate) struct Source {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Code that ships, blank where comments, literals and tests are.
    pub(crate) production: String,
    /// Code of tests, blank elsewhere.
    pub(crate) tests: String,
    test_modules: Vec<String>,
}

impl Source {
    /// A file of this name and text. Files in a `tests` folder are tests as a whole.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let split = split_tests(&code_only(text));
        let (path, text) = (path.to_owned(), text.to_owned());
        let mut source =
            Self { path, text, production: split.production, tests: split.tests, test_modules: split.test_modules };
        if source.path.split('/').any(|folder| folder == "tests") {
            source.make_test();
        }
        source
    }

    fn make_test(&mut self) {
        self.tests = code_only(&self.text);
        self.production = blank(&self.text);
    }

    /// The places where a module of this file may live.
    fn module_files(&self, module: &str) -> [String; 2] {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let folder = match stem.rsplit_once('/') {
            Some((folder, "mod" | "lib" | "main")) => folder,
            _ => stem,
        };
        [format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")]
    }
}

/// All Rust files. What `#[cfg(test)] mod name;` pulls in is a test.
pub(crate) fn sources() -> Vec<Source> {
    let files = files().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    mark_tests(files.map(|(path, text)| Source::new(&path, &text)).collect())
}

fn mark_tests(mut sources: Vec<Source>) -> Vec<Source> {
    let named = |source: &Source| source.test_modules.iter().flat_map(|m| source.module_files(m)).collect::<Vec<_>>();
    let tests: Vec<String> = sources.iter().flat_map(named).collect();
    for source in &mut sources {
        if tests.contains(&source.path) {
            source.make_test();
        }
    }
    sources
}

/// All files that hold text: path from the root and contents. Build results and hidden folders other than CI's are left out.
pub(crate) fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                if name != "target" && (!name.starts_with('.') || name == ".ci") {
                    folders.push(entry.path());
                }
            } else if kind.is_file()
                && let Ok(text) = std::fs::read_to_string(entry.path())
            {
                let path = entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(found.iter().any(|(path, _)| path == "messages/src/lib.rs"), "the sources are not where they should be");
    found
}

/// Fails with a list when there is anything in it.
#[track_caller]
pub(crate) fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

mod tests {
    use super::*;

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_a_test() {
        let sources = mark_tests(vec![
            Source::new("a/src/x/mod.rs", "#[cfg(test)]\nmod far;"),
            Source::new("a/src/x/far.rs", "fn f() {}"),
            Source::new("a/src/y.rs", "fn f() {}"),
            Source::new("a/tests/z.rs", "fn f() {}"),
        ]);
        let shipped: Vec<bool> = sources.iter().map(|source| source.production.contains("fn f")).collect();
        assert_eq!(shipped, [false, false, true, false]);
        assert!(sources[1].tests.contains("fn f") && sources[3].tests.contains("fn f"));
    }
}
