//! A command line that cannot be understood, in the form that was asked for: a program that wants JSON gets the same object as of
//! any other failure. Help and versions are no failures, and stay text. Never decides what can be asked for.

use std::ffi::OsString;
use std::io::Write as _;

use clap::{CommandFactory as _, ValueEnum as _};

use crate::args::{Cli, Format};
use crate::exit::Exit;
use crate::failure::Failure;

/// Short options that take no value, so that others may follow in the same word.
const FLAGS: &str = "fhnqvyV";

/// Prints what the parser has to say, and answers how the process ends.
pub(crate) fn print(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
    let variable = std::env::var("LONGSHORE_FORMAT").ok();
    // Nothing better can be done when the message cannot be printed.
    let _ = match format(arguments, variable.as_deref()) {
        Some(Format::Json | Format::Ndjson) if exit == Exit::Usage => {
            writeln!(std::io::stderr().lock(), "{}", failure(error, arguments).json())
        }
        Some(Format::Table | Format::Wide | Format::Json | Format::Ndjson | Format::Csv | Format::Name) | None => {
            error.print()
        }
    };
    exit
}

/// The format that a command line asks for, although it cannot be understood as a whole.
fn format(arguments: &[OsString], variable: Option<&str>) -> Option<Format> {
    let mut asked = variable.map(str::to_owned);
    let mut words = arguments.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--");
    while let Some(word) = words.next() {
        if word == "--json" {
            return Some(Format::Json);
        }
        let value = match word.strip_prefix("--") {
            Some("output") => Some(""),
            Some(long) => long.strip_prefix("output=").filter(|value| !value.is_empty()),
            None => word
                .strip_prefix('-')
                .and_then(|short| short.trim_start_matches(|c| FLAGS.contains(c)).strip_prefix('o')),
        };
        match value.map(|value| value.strip_prefix('=').unwrap_or(value)) {
            Some("") => asked = words.next().map(|word| word.into_owned()),
            Some(value) => asked = Some(value.to_owned()),
            None => {}
        }
    }
    asked.and_then(|asked| Format::from_str(&asked, false).ok())
}

/// What the parser says, taken apart: what happened, and what to do next.
fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim);
    let what = parts.next().unwrap_or_default();
    let mut next = Vec::new();
    for part in parts {
        match part.strip_prefix("Usage: ") {
            Some(usage) => next.push(format!("usage: {}", one_line(usage))),
            None => next.extend(part.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned)),
        }
    }
    next.push(format!("`{} --help` says what can be given", command(arguments)));
    let what = one_line(what.strip_prefix("error: ").unwrap_or(what));
    Failure::words(Exit::Usage, what, "nothing was changed", next.join("; "))
}

/// A sentence and the list below it.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.collect();
    let between = if first.ends_with(':') { ", " } else { " " };
    format!("{first} {}", rest.join(between)).trim_end().to_owned()
}

/// The command as far as it is one: `longshore job run`.
fn command(arguments: &[OsString]) -> String {
    let mut found = Cli::command();
    let mut path = found.get_name().to_owned();
    for word in arguments {
        if let Some(below) = word.to_str().and_then(|word| found.find_subcommand(word)).cloned() {
            path = format!("{path} {}", below.get_name());
            found = below;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, variable: Option<&str>) -> Option<Format> {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        format(&words, variable)
    }

    #[test]
    fn the_format_is_found_however_it_is_asked_for() {
        for line in
            ["-o json x", "x -ojson", "-o=json", "--output json", "--output=json", "x --json", "-qo json", "-vvojson"]
        {
            assert_eq!(of(line, None), Some(Format::Json), "{line}");
            assert_eq!(of(line, Some("csv")), Some(Format::Json), "{line}");
        }
        for line in ["-o xml", "x", "-- -o json", "x -o", "--outputs json", "-no", "-p o=json"] {
            assert_eq!(of(line, None), None, "{line}");
        }
        assert_eq!(of("x", Some("ndjson")), Some(Format::Ndjson));
        assert_eq!(of("-o csv", Some("json")), Some(Format::Csv));
        assert_eq!(of("--json -o csv", None), Some(Format::Json));
    }
}
