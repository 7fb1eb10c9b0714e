//! What `ARCHITECTURE.md` promises must be there: every test that it names as guarding an invariant exists by that name.

use crate::source::{none, root, sources};

/// Words of a name that can only be a test's.
const WORDS_MIN: usize = 4;

/// The names in backquotes that read like a test's.
fn named(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    quoted.filter(|name| name.chars().all(word) && name.split('_').count() >= WORDS_MIN).map(str::to_owned).collect()
}

fn missing(text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let missing = named(text).into_iter().filter(|name| !exists(name));
    missing.map(|name| format!("ARCHITECTURE.md names the test `{name}`, which does not exist")).collect()
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(named(&text).len() > 50, "the names are not found any more");
    let sources = sources();
    // As a function, or as the name under which a harness of our own runs it.
    let exists = |name: &str| {
        let (function, given) = (format!("fn {name}("), format!("\"{name}\""));
        sources.iter().any(|source| source.text.contains(&function) || source.text.contains(&given))
    };
    none(missing(&text, exists));
}

#[test]
fn a_name_without_its_test_is_found() {
    let text = "One: `this_test_is_there`, `this_test_is_not`, `Some::path`, `short_name`.";
    assert_eq!(named(text), ["this_test_is_there", "this_test_is_not"]);
    assert_eq!(missing(text, |name| name.ends_with("there")).len(), 1);
}
