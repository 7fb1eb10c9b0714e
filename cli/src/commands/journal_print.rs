//! How a journal's answers are printed: the same for a running endpoint and for a stopped one.

use std::fmt;
use std::path::PathBuf;

use journal::inspect::{Detail, Entry, EntryState, Stats, StreamStats};
use journal::{Direction, Verification};
use messages::Seq;
use serde::Serialize;
use server::views::{Schema, counted};

use super::journal::JournalListArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean};

/// Where the answer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    /// From the process that runs in that folder.
    Running(PathBuf),
    /// From a copy of that folder.
    Stopped(PathBuf),
}

impl fmt::Display for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(dir) => write!(f, "{} (running)", dir.display()),
            Self::Stopped(dir) => write!(f, "{} (stopped)", dir.display()),
        }
    }
}

/// Messages of a journal.
#[derive(Debug, Clone, Serialize)]
struct EntriesView {
    entries: Vec<EntryView>,
}

impl Schema for EntriesView {
    const SCHEMA: &'static str = "longshore.journal-entries/1";
}

/// One message in a line.
#[derive(Debug, Clone, Serialize)]
struct EntryView {
    seq: Seq,
    direction: Direction,
    peer: String,
    kind: String,
    state: EntryState,
    body_bytes: u32,
    at_ms: u64,
    id: String,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        Self {
            seq: entry.seq,
            direction: entry.direction,
            peer: entry.peer.to_string(),
            kind: entry.kind.to_string(),
            state: entry.state,
            body_bytes: entry.body_bytes,
            at_ms: entry.at_ms,
            id: entry.id.to_string(),
        }
    }
}

const fn word(state: EntryState) -> &'static str {
    match state {
        EntryState::Pending => "pending",
        EntryState::Received => "received",
        EntryState::Applied => "applied",
        EntryState::Settled => "settled",
        EntryState::Refused => "refused",
    }
}

/// Prints messages, a line each.
pub(crate) fn list(
    printer: &Printer,
    read: &ReadFrom,
    entries: Vec<Entry>,
    asked: &JournalListArgs,
) -> Result<Exit, Failure> {
    let mut entries: Vec<EntryView> = entries.into_iter().map(EntryView::from).collect();
    // A stream that fills the limit may hold more.
    let mut streams = entries.chunk_by(|a, b| (&a.peer, a.direction) == (&b.peer, b.direction));
    let cut = streams.any(|stream| stream.len() >= asked.limit as usize);
    entries.retain(|entry| asked.kind.as_ref().is_none_or(|kind| entry.kind == *kind));
    let mut table = Table::new([
        Column::number("SEQ"),
        Column::new("DIR").raw("direction"),
        Column::new("PEER"),
        Column::new("KIND"),
        Column::new("STATE"),
        Column::number("BYTES"),
        Column::new(printer.clock.heading("AGE", "TIME")).raw("at_ms"),
        Column::new("ID").wide(),
    ]);
    for entry in &entries {
        table.row([
            Cell::new(entry.seq),
            Cell::new(entry.direction),
            Cell::new(&entry.peer),
            Cell::new(&entry.kind),
            Cell::new(word(entry.state)),
            Cell::new(entry.body_bytes),
            Cell::both(printer.clock.show(entry.at_ms), entry.at_ms),
            Cell::new(&entry.id),
        ]);
    }
    let view = EntriesView { entries };
    printer.list(&view, &view.entries, &table)?;
    if printer.for_people() {
        printer.note(&format!("{} from {read}", counted(view.entries.len(), "message")));
        if cut {
            let which = if asked.from.is_some() { "first" } else { "latest" };
            printer.note(&format!("the {which} {} of each stream; -n N for more", asked.limit));
        }
    }
    Ok(Exit::Ok)
}

/// One message, whole.
#[derive(Debug, Clone, Serialize)]
struct DetailView {
    #[serde(flatten)]
    entry: EntryView,
    incarnation: String,
    epoch: u64,
    cause: Option<String>,
    hash: String,
    previous: String,
    refused: Option<String>,
    answered_by: Option<Seq>,
    body: Option<messages::Body>,
    body_note: Option<String>,
}

impl Schema for DetailView {
    const SCHEMA: &'static str = "longshore.journal-message/1";
}

/// Prints one message with everything known of it.
pub(crate) fn detail(printer: &Printer, read: &ReadFrom, detail: Detail) -> Result<Exit, Failure> {
    let view = DetailView {
        incarnation: detail.incarnation.to_string(),
        epoch: detail.epoch.value(),
        cause: detail.cause.map(|cause| cause.to_string()),
        hash: detail.hash.to_string(),
        previous: detail.previous.to_string(),
        refused: detail.refused,
        answered_by: detail.answered_by,
        body: detail.body,
        body_note: detail.body_note,
        entry: detail.entry.into(),
    };
    let entry = &view.entry;
    let mut table = Table::new([Column::new("FIELD"), Column::new("VALUE")]);
    let mut field = |name: &str, value: String| table.row([Cell::new(name), Cell::new(value)]);
    field("message", format!("{}:{} {} with {}", entry.direction, entry.seq, entry.kind, entry.peer));
    field("state", word(entry.state).to_owned());
    field("id", entry.id.clone());
    field("written", printer.clock.absolute(entry.at_ms));
    field("journal", format!("{} opening {}", view.incarnation, view.epoch));
    field("chain", format!("{} after {}", &view.hash[..12], &view.previous[..12]));
    for (name, value) in [
        ("answers", view.cause.clone()),
        ("refused", view.refused.as_deref().map(clean)),
        ("answered by", view.answered_by.map(|seq| format!("out:{seq}"))),
    ] {
        if let Some(value) = value {
            field(name, value);
        }
    }
    let body = match (&view.body, &view.body_note) {
        (Some(body), _) => serde_json::to_string(body).unwrap_or_default(),
        (None, note) => format!("{} bytes, {}", entry.body_bytes, note.as_deref().unwrap_or("not kept")),
    };
    field("body", body);
    printer.one(&view, "", &table)?;
    if printer.for_people() {
        printer.note(&format!("from {read}"));
    }
    Ok(Exit::Ok)
}

/// Counts and sizes.
#[derive(Debug, Clone, Serialize)]
struct StatsView {
    endpoint: String,
    incarnation: String,
    epoch: u64,
    created_ms: u64,
    rows: u64,
    live_bytes: u64,
    disk_bytes: u64,
    streams: Vec<StreamStats>,
}

impl Schema for StatsView {
    const SCHEMA: &'static str = "longshore.journal-stats/1";
}

/// Prints counts and sizes.
pub(crate) fn stats(printer: &Printer, read: &ReadFrom, stats: Stats) -> Result<Exit, Failure> {
    let view = StatsView {
        endpoint: stats.meta.endpoint.to_string(),
        incarnation: stats.meta.incarnation.to_string(),
        epoch: stats.meta.epoch.value(),
        created_ms: stats.meta.created_ms,
        rows: stats.rows,
        live_bytes: stats.live_bytes,
        disk_bytes: stats.disk_bytes,
        streams: stats.streams,
    };
    let mut table = Table::new([
        Column::new("STREAM"),
        Column::number("LAST"),
        Column::number("RECEIVED"),
        Column::number("SETTLED"),
        Column::number("FORGOTTEN"),
        Column::number("OPEN WORK"),
    ]);
    for stream in &view.streams {
        let name = match stream.direction {
            Direction::Out => format!("{}→{}", view.endpoint, stream.peer),
            Direction::In => format!("{}→{}", stream.peer, view.endpoint),
        };
        let place = |seq: Option<Seq>| Cell::new(Seq::count(seq));
        table.row([
            Cell::new(name),
            place(stream.last),
            place(stream.received),
            place(stream.settled),
            place(stream.forgotten),
            Cell::new(stream.open_work),
        ]);
    }
    let head = format!(
        "journal {} of {}, opened {} since {}\n{}, {} live, {} on disk\n",
        view.incarnation,
        view.endpoint,
        counted(view.epoch, "time"),
        printer.clock.absolute(view.created_ms),
        counted(view.rows, "row"),
        size(view.live_bytes),
        size(view.disk_bytes)
    );
    printer.one(&view, &head, &table)?;
    if printer.for_people() {
        printer.note(&format!("from {read}"));
    }
    Ok(Exit::Ok)
}

fn size(bytes: u64) -> String {
    const STEP: u64 = 1024;
    match bytes {
        0..STEP => format!("{bytes} B"),
        1024..1_048_576 => format!("{}.{} KiB", bytes / STEP, bytes % STEP * 10 / STEP),
        _ => format!("{}.{} MiB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576),
    }
}

#[derive(Debug, Clone, Serialize)]
struct VerifyView {
    ok: bool,
    #[serde(flatten)]
    report: Verification,
}

impl Schema for VerifyView {
    const SCHEMA: &'static str = "longshore.journal-verification/1";
}

/// Prints what was checked and found.
pub(crate) fn verification(printer: &Printer, read: &ReadFrom, report: Verification) -> Result<Exit, Failure> {
    let ok = report.problem_count == 0;
    let view = VerifyView { ok, report };
    let report = &view.report;
    let mut table =
        Table::new([Column::new("STREAM"), Column::number("FROM"), Column::number("TO"), Column::new("CHECKED")]);
    for stream in &report.streams {
        let name = format!("{} {}", stream.direction, stream.peer);
        let checked = if stream.first > stream.last { "empty" } else { "checksums, chain, digests" };
        table.row([Cell::new(name), Cell::new(stream.first), Cell::new(stream.last), Cell::new(checked)]);
    }
    let mut head = format!(
        "{}: {}, {}, {} checked\n",
        if ok { "the journal is whole" } else { "THE JOURNAL IS DAMAGED" },
        counted(report.rows, "row"),
        counted(report.messages, "message"),
        if report.bodies == 1 { "1 body".to_owned() } else { format!("{} bodies", report.bodies) }
    );
    for problem in &report.problems {
        head.push_str(&format!("  {}\n", clean(problem)));
    }
    if report.problem_count > report.problems.len() as u64 {
        head.push_str(&format!("  and {} more\n", report.problem_count - report.problems.len() as u64));
    }
    printer.one(&view, &head, &table)?;
    if printer.for_people() {
        printer.note(&format!("from {read}"));
    }
    Ok(if ok { Exit::Ok } else { Exit::Damaged })
}
