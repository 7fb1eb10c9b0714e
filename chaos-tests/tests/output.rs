//! What becomes of the harness when nobody reads what it prints: it ends as it would have, and says nothing of that.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::process::{Command, Output, Stdio};

fn harness(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-chaos"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The end of a pipe from which nobody reads.
fn cut() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn output_that_is_cut_off_ends_nothing_and_is_not_complained_of() {
    for arguments in [&["bench"][..], &["bench", "-o", "json"], &["simulate", "--seed", "7", "--trace"]] {
        let ran = harness(arguments).stdout(cut()).output().unwrap();
        assert_eq!((ran.status.code(), errors(&ran).as_str()), (Some(0), ""), "{arguments:?}");
    }
    // The code is the verdict also when the errors go nowhere.
    for (arguments, code) in [(&["bench", "R0"][..], 2), (&["bench"], 0)] {
        let status = harness(arguments).stdout(cut()).stderr(cut()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = harness(&["bench"]).stdout(full).output().unwrap();
    let said = errors(&ran);
    assert!(ran.status.code() == Some(1) && said.starts_with("The output cannot be written: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
