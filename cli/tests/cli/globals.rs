//! What holds for every command, however it is said.

use crate::run::{Home, Ran};

fn with(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    home.command(arguments).envs(variables.iter().copied()).output().unwrap().into()
}

#[test]
fn the_variable_of_a_steps_outputs_says_nothing_about_how_to_print() {
    let home = Home::new();
    let ran = with(&home, &["fleet", "list"], &[("LONGSHORE_OUTPUT", "/runs/1/output")]);
    assert!(ran.code == 69 && ran.err.starts_with("error: "), "{ran:?}");
    let ran = with(&home, &["fleet", "list"], &[("LONGSHORE_FORMAT", "json")]);
    assert!(ran.code == 69 && ran.err.starts_with('{'), "{ran:?}");
}

#[test]
fn a_server_without_a_token_is_told_how_to_give_one() {
    let ran = with(&Home::new(), &["fleet", "list"], &[("LONGSHORE_SERVER", "http://127.0.0.1:1")]);
    assert!(ran.code == 78 && ran.err.starts_with("error: there is no token for the server at http"), "{ran:?}");
    assert!(ran.err.contains("--token-file FILE"), "{ran:?}");
}

#[test]
fn no_color_holds_for_help_and_usage_errors_too() {
    for arguments in [&["--help"][..], &["job", "shwo"]] {
        let home = Home::new();
        let text = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            let ran: Ran = command.env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").output().unwrap().into();
            ran.out + &ran.err
        };
        assert!(text(arguments).contains('\u{1b}'), "{arguments:?}");
        assert!(!text(&[&["--no-color"], arguments].concat()).contains('\u{1b}'), "{arguments:?}");
    }
}
