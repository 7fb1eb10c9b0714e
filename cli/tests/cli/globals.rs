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
fn only_formats_that_are_json_have_json_errors() {
    let home = Home::new();
    home.write("bad.toml", &crate::run::JOB.replace("name", "nmae"));
    for (format, json) in [("json", true), ("ndjson", true), ("csv", false), ("name", false), ("wide", false)] {
        let ran = home.run(&["job", "list", "-o", format]);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.starts_with('{')), (69, "", json), "{ran:?}");
        assert_eq!(ran.err.contains("\nnext:  "), !json, "{ran:?}");
        let ran = home.run(&["job", "run", "bad.toml", "-o", format]);
        assert_eq!((ran.code, ran.err.starts_with('{')), (2, json), "{ran:?}");
        assert_eq!(ran.err.contains("─[bad.toml:1:1]"), !json, "{ran:?}");
    }
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

#[test]
fn a_wrong_command_line_is_an_error_in_the_format_that_was_asked_for() {
    let home = Home::new();
    for (arguments, error, next) in [
        (
            &["job", "list", "--colour", "-o", "json"][..],
            "unexpected argument '--colour' found",
            "usage: longshore job list",
        ),
        (&["--json", "job", "shwo"], "unrecognized subcommand 'shwo'", "a similar subcommand exists: 'show'"),
        (
            &["job", "list", "-n", "0", "--output=ndjson"],
            "invalid value '0' for '--limit <N>': expected a whole number from 1 to",
            "`longshore job list --help`",
        ),
        (
            &["-ojson", "job", "list", "--time", "x"],
            "invalid value 'x' for '--time <HOW>' [possible values: utc",
            "`longshore job list --help`",
        ),
        (
            &["-qo", "json", "job", "resolve", "abcd"],
            "not provided: --as <DECISION>, --note <TEXT>",
            "`longshore job resolve --help`",
        ),
        (
            &["job", "-o", "json"],
            "'longshore job' requires a subcommand but one was not provided",
            "`longshore job --help`",
        ),
    ] {
        let ran = home.run(arguments);
        let json: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!((ran.code, ran.out.as_str(), &json["schema"]), (2, "", &"longshore.error/1".into()), "{ran:?}");
        assert_eq!((json["state"].as_str().unwrap(), ran.err.lines().count()), ("nothing was changed", 1), "{ran:?}");
        assert!(json["error"].as_str().unwrap().contains(error), "{ran:?}");
        assert!(json["next"].as_str().unwrap().contains(next), "{ran:?}");
    }
    for arguments in [&["job", "shwo"][..], &["job"], &[]] {
        let ran = with(&home, arguments, &[("LONGSHORE_FORMAT", "json")]);
        assert!(ran.code == 2 && ran.err.starts_with("{\"schema\":\"longshore.error/1\",\"error\":\""), "{ran:?}");
        assert!(!ran.err.contains("Commands:") && ran.err.lines().count() == 1, "{ran:?}");
    }
    for arguments in [&["job", "shwo"][..], &["job", "shwo", "-o", "csv"], &["-o", "xml", "version"]] {
        let ran = home.run(arguments);
        assert!(ran.code == 2 && ran.err.starts_with("error: "), "{ran:?}");
    }
    for arguments in [&["--help", "-o", "json"][..], &["--json", "job", "list", "-h"], &["-o", "json", "--version"]] {
        let ran = home.run(arguments);
        assert!(ran.code == 0 && !ran.out.starts_with('{') && ran.err.is_empty(), "{ran:?}");
    }
}
