//! Finding and unpacking RabbitMQ.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode};

use broker_config::node::{Node, NodeOptions, Origin, find_installed, find_unpacked, unpack};

use crate::support::{Test, cache};

/// Makes this program install into the directory that it names, instead of running tests.
pub(crate) const INSTALL_INTO: &str = "LONGSHORE_TEST_INSTALL_INTO";

pub(crate) fn install_into(cache: &OsStr) -> ExitCode {
    match unpack(Path::new(cache), &mut |step| println!("{step}")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn tests() -> Vec<Test> {
    // Unpacking is for Debian and its relatives.
    if !Path::new("/usr/bin/apt-get").exists() {
        return Vec::new();
    }
    vec![
        ("two_processes_that_install_at_once_leave_one_working_broker", at_once),
        ("a_broker_found_on_the_search_path_is_run_privately", on_the_path),
    ]
}

fn at_once() {
    let dir = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let start = || Command::new(&this).env(INSTALL_INTO, dir.path()).spawn().unwrap();
    let (mut first, mut second) = (start(), start());
    assert!(first.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    let found = find_unpacked(dir.path()).expect("it is complete");
    let names: Vec<_> = std::fs::read_dir(dir.path().join("rabbitmq"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "root" && name != "lock")
        .collect();
    assert!(names.is_empty(), "left behind: {names:?}");
    // Moving it must not break it: another checkout may be given a copy.
    let moved = dir.path().join("elsewhere");
    std::fs::create_dir(&moved).unwrap();
    std::fs::rename(dir.path().join("rabbitmq"), moved.join("rabbitmq")).unwrap();
    assert!(find_unpacked(dir.path()).is_none());
    let again = find_unpacked(&moved).expect("it was moved as a whole");
    assert_eq!(again.version, found.version);
    let mut node = Node::create(&dir.path().join("node"), again, NodeOptions::default()).unwrap();
    node.start().unwrap_or_else(|e| panic!("{e}"));
}

fn on_the_path() {
    let unpacked = unpack(&cache(), &mut |_| {}).unwrap();
    let root = std::fs::canonicalize(cache()).unwrap().join("rabbitmq/root/usr");
    let path = std::env::join_paths([root.join("sbin"), root.join("bin")]).unwrap();
    let found = find_installed(&path).expect("the wrapper in sbin leads to the script");
    assert_eq!((found.origin, &found.version), (Origin::Installed, &unpacked.version));
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::create(dir.path(), found, NodeOptions::default()).unwrap();
    node.start().unwrap_or_else(|e| panic!("{e}"));
    assert!(node.is_running());
}
