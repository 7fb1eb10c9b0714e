//! Everything that is printed. Data goes to standard output, notes and errors to standard error. Text from outside never
//! reaches a terminal with its control characters.

mod problems;
mod table;
mod time;

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use server::views::{Answer, Schema};

use crate::args::{Format, Global, TimeStyle};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) use problems::{Severity, render as render_problems};
pub(crate) use table::{Cell, Column, Table};
pub(crate) use time::{Clock, now_ms, took};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const STATE: Style = AnsiColor::Yellow.on_default();
const NEXT: Style = AnsiColor::Cyan.on_default();

/// Why data could not be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// Whoever read it has gone, as `head` does. Nothing to complain about.
    #[error("nobody reads the output any more")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("the output cannot be written")]
    Write(#[source] io::Error),
    /// A view cannot be written as JSON.
    #[error("the output cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Write(error) }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        let exit = if matches!(error, OutputError::Closed) { Exit::Ok } else { Exit::Failed };
        Self::new(exit, &error, "what the command did is done", "look at where the output goes")
    }
}

/// Prints for one command.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    colours: ColorChoice,
    quiet: bool,
    progress: bool,
    /// How times are shown.
    pub(crate) clock: Clock,
}

impl Printer {
    /// A printer as the command line wants it.
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            format: global.format(),
            colours: if global.no_color { ColorChoice::Never } else { ColorChoice::Auto },
            quiet: global.quiet,
            // Notes of progress are silenced with all other notes; lines of it on standard output are data.
            progress: !global.no_progress,
            clock: Clock::new(global.time),
        }
    }

    /// How data is printed.
    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// Whether data is printed for people.
    pub(crate) const fn for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Whether progress is wanted.
    pub(crate) const fn progress(&self) -> bool {
        self.progress
    }

    /// Prints a list: one view for JSON, its items for lines of JSON, a table for the rest.
    pub(crate) fn list<T: Schema + Serialize + Clone, I: Serialize>(
        &self,
        view: &T,
        items: &[I],
        table: &Table,
    ) -> Result<(), OutputError> {
        match self.format {
            Format::Ndjson => {
                let mut text = String::new();
                for item in items {
                    text.push_str(&serde_json::to_string(item)?);
                    text.push('\n');
                }
                self.text(&text)
            }
            Format::Json => self.json(view),
            Format::Table | Format::Wide | Format::Csv | Format::Name => self.text(&table.render(self.format)),
        }
    }

    /// Prints one thing: its view for JSON, the text for people, the table for the rest.
    pub(crate) fn one<T: Schema + Serialize + Clone>(
        &self,
        view: &T,
        text: &str,
        table: &Table,
    ) -> Result<(), OutputError> {
        match self.format {
            Format::Json => self.json(view),
            Format::Ndjson => self.text(&format!("{}\n", serde_json::to_string(&Answer::new(view.clone()))?)),
            Format::Table | Format::Wide => self.text(&format!("{text}{}", table.render(self.format))),
            Format::Csv | Format::Name => self.text(&table.render(self.format)),
        }
    }

    fn json<T: Schema + Serialize + Clone>(&self, view: &T) -> Result<(), OutputError> {
        self.text(&format!("{}\n", serde_json::to_string_pretty(&Answer::new(view.clone()))?))
    }

    /// Prints text as data. Colours in it are left out where they are not wanted.
    pub(crate) fn text(&self, text: &str) -> Result<(), OutputError> {
        let mut out = AutoStream::new(io::stdout().lock(), self.colours);
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Prints a note for people, unless they want none.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.complain(&format!("{text}\n"));
        }
    }

    /// Prints how a command failed. A reader that has gone is no failure.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.exit == Exit::Ok {
            return;
        }
        match self.format {
            Format::Json | Format::Ndjson => return self.complain(&format!("{}\n", failure.json())),
            // Whoever asks for values or names reads standard output; what goes wrong is for people then, too.
            Format::Table | Format::Wide | Format::Csv | Format::Name => {}
        }
        let mut text = String::new();
        if let Some((name, source)) = failure.source.as_deref() {
            text.push_str(&render_problems(&failure.view.problems, Severity::Error, name, source));
        } else {
            for found in &failure.view.problems {
                let place =
                    found.position.map(|place| format!("{}:{}: ", place.line, place.column)).unwrap_or_default();
                text.push_str(&format!("{place}{}\n", clean(&found.problem.what)));
            }
        }
        for (style, label, words) in [
            (ERROR, "error", &failure.view.error),
            (STATE, "state", &failure.view.state),
            (NEXT, "next", &failure.view.next),
        ] {
            let label = format!("{label}:");
            text.push_str(&format!("{style}{label:<6}{style:#} {}\n", clean(words)));
        }
        self.complain(&text);
    }

    fn complain(&self, text: &str) {
        // When standard error is gone there is nobody left to tell.
        let _ = AutoStream::new(io::stderr().lock(), self.colours).write_all(text.as_bytes());
    }
}

/// Text from outside without what a terminal would act upon.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A style for a state's word.
pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "succeeded" | "already-done" | "online" => AnsiColor::Green.on_default(),
        "failed" | "timed-out" | "refused" | "expired" | "frozen" => AnsiColor::Red.on_default(),
        "needs-decision" | "unreachable" | "cancelled" | "waiting" => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

impl TimeStyle {
    /// Whether times are shown as an age.
    pub(crate) const fn is_relative(self) -> bool {
        matches!(self, Self::Relative)
    }
}
