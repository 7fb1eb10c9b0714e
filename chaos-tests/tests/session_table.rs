//! The table of states and inputs in `docs/session-table.md` is what the session does. The message of a failure names the
//! command that renews it.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use chaos_tests::explore::table;

#[test]
fn the_table_of_states_and_inputs_is_what_the_session_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/session-table.md");
    let (written, found) = (std::fs::read_to_string(path).unwrap(), table());
    let lines = written.lines().chain(std::iter::repeat("")).zip(found.lines());
    let differing = lines.enumerate().find(|(_, (written, found))| written != found);
    assert!(
        written == found,
        "first differing line, written and found: {differing:?}\n\
         if the change is meant: cargo run -p chaos-tests --bin longshore-chaos -- table > docs/session-table.md"
    );
}
