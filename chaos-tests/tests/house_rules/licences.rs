//! The licences of everything that is locked, against the list in `deny.toml`. cargo-deny says the same and more; this one runs
//! wherever the tests run.

use std::collections::BTreeSet;

use crate::arrows::metadata;
use crate::source::{none, root};

fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let deny: toml::Value = toml::from_str(&text).unwrap();
    let allow = deny["licenses"]["allow"].as_array().unwrap();
    allow.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Can this SPDX expression be met with the licences that are allowed? An expression that cannot be read cannot be met.
fn acceptable(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // The old way of writing OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&tokens, &mut at, allowed).unwrap_or(false) && at == tokens.len()
}

fn either(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = both(tokens, at, allowed)?;
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(tokens, at, allowed)?;
    }
    Some(met)
}

fn both(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(tokens, at, allowed)?;
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(tokens, at, allowed)?;
    }
    Some(met)
}

fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> Option<bool> {
    let token = *tokens.get(*at)?;
    *at += 1;
    if token == "(" {
        let met = either(tokens, at, allowed)?;
        let closed = tokens.get(*at) == Some(&")");
        *at += 1;
        return closed.then_some(met);
    }
    if tokens.get(*at) == Some(&"WITH") {
        let exception = tokens.get(*at + 1)?;
        *at += 2;
        return Some(allowed.contains(&format!("{token} WITH {exception}")));
    }
    Some(allowed.contains(token))
}

#[test]
fn every_locked_package_has_a_licence_that_is_allowed() {
    let allowed = allowed();
    let metadata = metadata(&["--locked"]);
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "only {} packages are locked", packages.len());
    let offends = packages.iter().filter(|package| !acceptable(package["license"].as_str().unwrap_or(""), &allowed));
    none(
        offends.map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"])).collect(),
    );
}

mod tests {
    use super::*;

    #[test]
    fn expressions_are_weighed_as_they_are_written() {
        let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
        for (expression, met) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT/GPL-2.0", true),
            ("GPL-2.0 OR MIT", true),
            ("MIT AND GPL-2.0", false),
            ("(MIT OR GPL-2.0) AND ISC", true),
            ("(MIT OR ISC) AND GPL-2.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT MIT", false),
        ] {
            assert_eq!(acceptable(expression, &allowed), met, "{expression}");
        }
    }
}
