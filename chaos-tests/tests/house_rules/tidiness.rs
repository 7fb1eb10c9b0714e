//! What every file owes its readers and users, whatever part of the house it is in.

use crate::source::{Source, files, none, sources};
use crate::syntax::{Pattern, paths};

/// Lines of a file of source. Longer ones hold more than one subject.
const LINES_MAX: usize = 500;

/// What is only promised. Built from parts so that this file does not name it.
const PROMISES: [&str; 2] = ["todo", "unimplemented"];

fn too_long(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let script = path.ends_with(".rs") || path.ends_with(".sh");
    if script && lines > LINES_MAX { vec![format!("{path}: {lines} lines")] } else { Vec::new() }
}

fn without_opening(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") { Vec::new() } else { vec![format!("{}:1 does not open with //!", source.path)] }
}

fn shortcuts(source: &Source) -> Vec<String> {
    let mut offences = Vec::new();
    for (number, line) in source.production.lines().enumerate() {
        let dense: String = line.split_whitespace().collect();
        let promised = PROMISES.iter().any(|word| dense.contains(&format!("{word}!")));
        if dense.contains(".unwrap()") || promised {
            offences.push(format!(
                "{}:{} {}",
                source.path,
                number + 1,
                source.text.lines().nth(number).unwrap().trim()
            ));
        }
    }
    offences
}

fn switched_off(source: &Source) -> Vec<String> {
    let dense = |line: &str| line.split_whitespace().collect::<String>();
    let ignored = |line: &str| dense(line).contains("#[ignore");
    let lines = source.tests.lines().zip(source.production.lines()).enumerate();
    lines
        .filter(|(_, (test, shipped))| ignored(test) || ignored(shipped))
        .map(|(n, _)| format!("{}:{} is switched off", source.path, n + 1))
        .collect()
}

/// Where a test may sleep between two looks at something that announces nothing, and what that is. Each of them looks in a loop
/// with a deadline; none sleeps in the hope that something will have happened.
const LOOKS: [(&str, &str); 4] = [
    ("broker-config/src/node/process.rs", "the environment of a process that was just started"),
    ("link/src/amqp/tests.rs", "the end of a thread of the AMQP library"),
    ("link/tests/amqp_live/faults.rs", "the end of a thread of the AMQP library"),
    ("server/tests/full_disk.rs", "the API of a server whose journal may just be opened again"),
];

fn sleeps(source: &Source) -> Vec<String> {
    let sleep = [Pattern::Path("thread::sleep"), Pattern::Path("time::sleep")];
    let named = paths(&source.tests).into_iter().filter(|named| sleep.iter().any(|pattern| named.is(*pattern)));
    named.map(|named| format!("{}:{} sleeps", source.path, named.line)).collect()
}

/// Folders of one machine, and whether tests may make them up.
const FOLDERS: [(&str, bool); 4] =
    [(concat!("/wo", "rk/"), false), (concat!("/ro", "ot/"), false), ("/home/", true), ("/tmp/", true)];

fn machine_paths(path: &str, text: &str, shipped: impl Fn(usize) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (folder, free_in_tests) in FOLDERS {
            // After a word, a dot or a variable it is part of a relative path.
            let within = |c: char| c.is_alphanumeric() || "_-.})$*".contains(c);
            let absolute = line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(within));
            if absolute && (shipped(number) || !free_in_tests) {
                offences.push(format!("{path}:{} {}", number + 1, line.trim()));
            }
        }
    }
    offences
}

#[test]
fn no_file_of_source_is_longer_than_five_hundred_lines() {
    none(files().iter().flat_map(|(path, text)| too_long(path, text)).collect());
}

#[test]
fn every_source_file_opens_by_saying_what_it_is() {
    none(sources().iter().flat_map(without_opening).collect());
}

#[test]
fn nothing_that_ships_unwraps_or_is_left_to_do() {
    none(sources().iter().flat_map(shortcuts).collect());
}

#[test]
fn no_test_is_switched_off() {
    none(sources().iter().flat_map(switched_off).collect());
}

#[test]
fn no_test_sleeps_instead_of_waiting_for_what_it_needs() {
    let sources = sources();
    let looks = |source: &Source| LOOKS.iter().any(|(path, _)| *path == source.path);
    none(sources.iter().filter(|source| !looks(source)).flat_map(sleeps).collect());
    // One each, so that a second one in such a file, or an exception that has lost its reason, is found.
    for source in sources.iter().filter(|source| looks(source)) {
        assert_eq!(sleeps(source).len(), 1, "{}", source.path);
    }
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let mut offences = Vec::new();
    for (path, text) in files() {
        if path.ends_with(".rs") {
            let source = Source::new(&path, &text);
            let test = path.contains("/tests/");
            let module = source.text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
            offences.extend(machine_paths(&path, &text, |line| !test && line < module));
        } else {
            let test = path.contains("/tests/");
            offences.extend(machine_paths(&path, &text, |_| !test));
        }
    }
    none(offences);
}

mod tests {
    use super::*;

    #[test]
    fn long_files_and_silent_ones_are_found() {
        assert_eq!(too_long("a/src/x.rs", &"\n".repeat(501)).len(), 1);
        assert!(
            too_long("a/src/x.rs", &"\n".repeat(500)).is_empty() && too_long("a.json", &"\n".repeat(501)).is_empty()
        );
        assert_eq!(without_opening(&Source::new("a/src/x.rs", "use a::b;\n//! late")).len(), 1);
    }

    #[test]
    fn shortcuts_are_found_outside_tests_only() {
        let promise = format!("fn f() {{ {}!() }}", PROMISES[0]);
        for (text, count) in [
            ("fn f() { g() . unwrap(); }", 1),
            (promise.as_str(), 1),
            ("// x.unwrap()\nfn f() { \".unwrap()\" }", 0),
            ("#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }", 0),
            ("fn f() { g().unwrap_or(1) }", 0),
        ] {
            assert_eq!(shortcuts(&Source::new("a/src/x.rs", text)).len(), count, "{text}");
        }
    }

    #[test]
    fn sleeping_and_switched_off_tests_are_found() {
        let sleeping = "#[cfg(test)]\nmod tests { fn f() { std::thread::sleep(x) } }";
        assert_eq!(sleeps(&Source::new("a/src/x.rs", sleeping)).len(), 1);
        assert_eq!(sleeps(&Source::new("a/tests/x.rs", "use tokio::time::{sleep, timeout};")).len(), 1);
        assert!(sleeps(&Source::new("a/src/x.rs", "fn f() { thread::sleep(POLL) }")).is_empty());
        assert_eq!(switched_off(&Source::new("a/tests/x.rs", "#[test]\n#[ignore = \"later\"]\nfn f() {}")).len(), 1);
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        for (text, shipped, count) in [
            (format!("see {}x", FOLDERS[0].0), false, 1),
            ("dir = \"/home/a\"".to_owned(), true, 1),
            ("dir = \"/home/a\"".to_owned(), false, 0),
            (format!("agent{}x $dir{}y", FOLDERS[0].0, FOLDERS[1].0), true, 0),
        ] {
            assert_eq!(machine_paths("x", &text, |_| shipped).len(), count, "{text}");
        }
    }
}
