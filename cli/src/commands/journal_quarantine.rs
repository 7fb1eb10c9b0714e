//! `longshore journal quarantine`: puts a damaged journal aside, so that its endpoint can begin a new one. It deletes nothing, and
//! does nothing without being told twice.

use std::path::{Path, PathBuf};

use journal::{Quarantined, quarantine};
use messages::EndpointId;
use serde::Serialize;
use server::views::Schema;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::home::Home;
use crate::output::{Cell, Column, Printer, Table};
use crate::serving;

/// Arguments of `longshore journal quarantine`.
#[derive(Debug, clap::Args)]
pub(crate) struct QuarantineArgs {
    /// Whose journal: server, or an agent of this machine
    // Named each time, and not by a variable: what is meant for one endpoint must not befall another.
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint: EndpointId,
    /// Yes: this endpoint is to begin with nothing
    // Not the `--yes` of every command, which a script may have set for all of them.
    #[arg(long)]
    pub(crate) begin_anew: bool,
}

#[derive(Debug, Clone, Serialize)]
struct QuarantineView {
    endpoint: EndpointId,
    kept: PathBuf,
    moved: Vec<&'static str>,
}

impl Schema for QuarantineView {
    const SCHEMA: &'static str = "longshore.journal-quarantine/1";
}

/// Puts the journal aside and says where it is.
pub(crate) fn run(home: &Home, args: &QuarantineArgs, printer: &Printer) -> Result<Exit, Failure> {
    let dir = home.endpoint_dir(&args.endpoint).join(link::JOURNAL_DIR);
    if !args.begin_anew {
        return Err(Failure::words(
            Exit::Usage,
            format!("this takes {}'s journal out of use", args.endpoint),
            "nothing was changed",
            "with --begin-anew it is moved into a folder beside it and kept; the endpoint then begins anew, and its peers send again what is \
             not settled, marked as perhaps done",
        ));
    }
    let done = quarantine(&dir).map_err(|error| {
        let (exit, next) = serving::open_failure(&error);
        Failure::new(exit, &error, "what was moved is kept; nothing was deleted", next)
    })?;
    match done {
        Some(done) => print(&args.endpoint, done, printer),
        None => Err(nothing(&args.endpoint, &dir)),
    }
}

fn nothing(endpoint: &EndpointId, dir: &Path) -> Failure {
    Failure::words(
        Exit::Usage,
        format!("{endpoint} has no journal in {}", dir.display()),
        "nothing was changed",
        "say whose with --endpoint, or where with --dir",
    )
}

fn print(endpoint: &EndpointId, done: Quarantined, printer: &Printer) -> Result<Exit, Failure> {
    let mut table = Table::new([Column::new("MOVED"), Column::new("TO")]);
    for name in &done.moved {
        table.row([Cell::new(name), Cell::new(done.kept.join(name).display())]);
    }
    let view = QuarantineView { endpoint: endpoint.clone(), kept: done.kept, moved: done.moved };
    printer.one(&view, "the journal is put aside, and nothing of it is deleted\n", &table)?;
    printer.note(&format!(
        "{endpoint} begins a new journal when it is started; keep the old one until its work is accounted for"
    ));
    Ok(Exit::Ok)
}
