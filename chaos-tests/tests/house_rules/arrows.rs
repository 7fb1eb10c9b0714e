//! Who may use whom, from the manifests as Cargo understands them. All kinds of dependencies count: a test that reaches across
//! is an arrow too.

use std::process::Command;

use serde_json::Value;

use crate::source::none;

/// Each package of ours and the packages of ours that it may use. DESIGN: no other arrows exist.
const ARROWS: [(&str, &[&str]); 8] = [
    ("messages", &[]),
    ("journal", &["messages"]),
    ("link", &["messages", "journal", "broker-config"]),
    ("broker-config", &[]),
    ("server", &["messages", "journal", "link"]),
    ("agent", &["messages", "journal", "link"]),
    ("cli", &["messages", "journal", "link", "broker-config", "server", "agent"]),
    ("chaos-tests", &["messages", "journal", "link", "broker-config"]),
];

/// Foreign packages that only these may use, tests aside. The broker's and the store's ways stay behind one door each.
const KEEPERS: [(&str, &[&str]); 2] = [("lapin", &["link", "chaos-tests"]), ("sled", &["journal", "chaos-tests"])];

/// Foreign packages that a package must do without.
const WITHOUT: [(&str, &[&str]); 2] = [
    ("messages", &["tokio", "lapin", "sled", "getrandom", "rand"]),
    ("journal", &["tokio", "lapin", "async-trait", "futures-util"]),
];

/// What Cargo says about the workspace.
pub(crate) fn metadata(arguments: &[&str]) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1"]).args(arguments).current_dir(crate::source::root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One dependency of a package of ours.
struct Arrow<'a> {
    from: &'a str,
    to: &'a str,
    dev: bool,
}

fn dependencies(metadata: &Value) -> Vec<Arrow<'_>> {
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .flat_map(|package| {
            let from = package["name"].as_str().unwrap();
            let dependencies = package["dependencies"].as_array().unwrap();
            dependencies.iter().map(move |d| Arrow { from, to: d["name"].as_str().unwrap(), dev: d["kind"] == "dev" })
        })
        .collect()
}

fn broken_arrows(metadata: &Value) -> Vec<String> {
    let ours = |name: &str| ARROWS.iter().find(|(ours, _)| *ours == name);
    let mut offences = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if ours(name).is_none() {
            offences.push(format!("{name} is not in the house: draw its arrows in DESIGN and here first"));
        }
    }
    for arrow in dependencies(metadata) {
        let Some((_, allowed)) = ours(arrow.from) else { continue };
        if ours(arrow.to).is_some() && !allowed.contains(&arrow.to) {
            offences.push(format!("{} must not use {}", arrow.from, arrow.to));
        }
    }
    offences
}

fn broken_doors(metadata: &Value) -> Vec<String> {
    let mut offences = Vec::new();
    for arrow in dependencies(metadata) {
        let kept = KEEPERS.iter().any(|(name, keepers)| *name == arrow.to && !keepers.contains(&arrow.from));
        let without = WITHOUT.iter().any(|(name, without)| *name == arrow.from && without.contains(&arrow.to));
        if (kept && !arrow.dev) || without {
            offences.push(format!("{} must not depend on {}", arrow.from, arrow.to));
        }
    }
    offences
}

#[test]
fn every_dependency_between_our_packages_is_an_arrow_of_the_design() {
    none(broken_arrows(&metadata(&["--no-deps", "--offline"])));
}

#[test]
fn the_broker_library_and_the_store_engine_stay_behind_their_doors() {
    none(broken_doors(&metadata(&["--no-deps", "--offline"])));
}

mod tests {
    use super::*;

    fn world(from: &str, to: &str, kind: &Value) -> Value {
        serde_json::json!({ "packages": [{ "name": from, "dependencies": [{ "name": to, "kind": kind }] }] })
    }

    #[test]
    fn a_wrong_arrow_is_found() {
        for (from, to) in [("server", "agent"), ("agent", "server"), ("journal", "link"), ("chaos-tests", "server")] {
            assert_eq!(broken_arrows(&world(from, to, &Value::Null)).len(), 1, "{from} -> {to}");
            assert_eq!(broken_arrows(&world(from, to, &"dev".into())).len(), 1, "{from} -> {to} in tests");
        }
        assert_eq!(broken_arrows(&world("stranger", "serde", &Value::Null)).len(), 1);
        assert!(broken_arrows(&world("cli", "agent", &Value::Null)).is_empty());
    }

    #[test]
    fn a_wrong_foreigner_is_found() {
        for (from, to) in [("messages", "tokio"), ("journal", "lapin"), ("server", "lapin"), ("link", "sled")] {
            assert_eq!(broken_doors(&world(from, to, &Value::Null)).len(), 1, "{from} -> {to}");
        }
        assert!(broken_doors(&world("broker-config", "lapin", &"dev".into())).is_empty());
    }
}
