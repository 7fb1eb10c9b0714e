//! The judge: opens a journal and compares everything that comes out of it with what was acknowledged. It knows the history by
//! its seed, and believes nothing that the journal says of itself.

use std::error::Error;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use journal::{Direction, Engine, Journal, Key, MessageTable, OpenError, Row, Seams, State, WriteAhead, verify};
use messages::{EndpointId, Message, Seq};

use super::engine::open;
use super::history::{History, Rows, steps_of};
use super::verdict::{Judgement, Verdict};

/// Commits with which a journal that opened has to show that it still works.
const GOING_ON: u64 = 12;

/// What was written before the fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// The history's seed.
    pub(super) seed: u64,
    /// Steps that were acknowledged.
    pub(super) acknowledged: u64,
    /// Steps that were handed in: the last one may be there or not.
    pub(super) submitted: u64,
}

/// An error with all of its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.replace('\n', " ")
}

/// Opens the journal and judges it. Panics that come out of the journal are caught and are a verdict.
pub(super) fn judge(engine: Engine, dir: &Path, written: Written) -> Judgement {
    let judged = std::panic::catch_unwind(AssertUnwindSafe(|| judge_opened(engine, dir, written)));
    judged.unwrap_or_else(|_| Judgement::new(Verdict::Panicked, "a panic came out of the journal"))
}

fn judge_opened(engine: Engine, dir: &Path, written: Written) -> Judgement {
    let (journal, state) = match open(engine, dir, Seams::default()) {
        Ok(opened) => opened,
        Err(error) => return refusal(&error),
    };
    let mut history = match compare(&journal, &state, written) {
        Ok(history) => history,
        Err(judgement) => return judgement,
    };
    let there = history.steps;
    for _ in 0..GOING_ON {
        if let Err(error) = journal.commit(WriteAhead::new(history.step(), ())).wait() {
            return Judgement::new(Verdict::Detected, format!("opened whole, then closed: {}", chain(&error)));
        }
    }
    drop(journal);
    let written = Written { acknowledged: history.steps, submitted: history.steps, ..written };
    match open(engine, dir, Seams::default()) {
        Ok((journal, state)) => match compare(&journal, &state, written) {
            Ok(_) => Judgement::new(Verdict::Unharmed, format!("{there} steps, and {GOING_ON} more")),
            Err(judgement) => Judgement::new(judgement.verdict, format!("after going on: {}", judgement.detail)),
        },
        Err(error) => Judgement::new(refusal(&error).verdict, format!("went on, then refused: {}", chain(&error))),
    }
}

/// Whether a refusal names what is wrong.
fn refusal(error: &OpenError) -> Judgement {
    let verdict = match error {
        OpenError::Store { .. }
        | OpenError::Row { .. }
        | OpenError::Illegal { .. }
        | OpenError::Shorter { .. }
        | OpenError::HighWater { .. }
        | OpenError::Io { .. } => Verdict::Detected,
        // Nobody else had it open, and it was this endpoint's and this user's all the time.
        OpenError::Owner { .. } | OpenError::Locked { .. } | OpenError::Endpoint { .. } | OpenError::Engine { .. } => {
            Verdict::Misnamed
        }
    };
    Judgement::new(verdict, format!("refused: {}", chain(error)))
}

/// Compares all that can be read with the history. Gives the history as far as the journal holds it.
fn compare(journal: &Journal, state: &State, written: Written) -> Result<History, Judgement> {
    let wrong = |what: String| Judgement::new(Verdict::WrongData, what);
    let refused =
        |what: &dyn Error| Judgement::new(Verdict::Detected, format!("opened, then refused: {}", chain(what)));
    let rows = rows_of(journal).map_err(|error| refused(&error))?;
    let steps = steps_of(&rows);
    if steps > written.submitted {
        return Err(wrong(format!("{steps} steps are there, {} were handed in", written.submitted)));
    }
    if steps < written.acknowledged {
        let lost = format!("{} steps were acknowledged, {steps} are there", written.acknowledged);
        return Err(Judgement::new(Verdict::SilentLoss, lost));
    }
    let history = History::after(written.seed, steps);
    compare_rows(&rows, &history.rows)?;
    if state.peers != *history.peers() {
        return Err(wrong("the marks of the streams are not those that were written".to_owned()));
    }
    let report = verify(journal.store()).map_err(|error| refused(&error))?;
    if report.problem_count > 0 {
        return Err(wrong(format!("it verifies as damaged: {:?}", report.problems)));
    }
    let read = compare_messages(journal, &history);
    read.map_err(|error| refused(&error))?.map_or(Ok(history), |what| Err(wrong(what)))
}

fn compare_rows(found: &Rows, written: &Rows) -> Result<(), Judgement> {
    let missing = written.keys().filter(|key| !found.contains_key(*key)).count();
    let other = written.iter().filter(|(key, row)| found.get(*key).is_some_and(|found| found != *row)).count();
    let more = found.keys().filter(|key| !written.contains_key(*key)).count();
    if missing + other + more == 0 {
        return Ok(());
    }
    let verdict = if other + more == 0 { Verdict::SilentLoss } else { Verdict::WrongData };
    Err(Judgement::new(verdict, format!("rows: {missing} missing, {other} of other content, {more} that nobody wrote")))
}

/// Reads every message as the protocol does, and the application's rows as applications do.
fn compare_messages(journal: &Journal, history: &History) -> Result<Option<String>, journal::ReadError> {
    for (peer, streams) in history.peers() {
        for direction in [Direction::In, Direction::Out] {
            let last = match direction {
                Direction::Out => streams.outgoing.next.previous(),
                Direction::In => streams.incoming.as_ref().and_then(|incoming| incoming.through),
            };
            let Some(last) = last else { continue };
            let found = journal.messages(direction, peer, (Seq::FIRST, last), usize::MAX)?;
            let whole = (1..=last.value()).filter_map(Seq::new).filter_map(|seq| whole(history, direction, peer, seq));
            if !found
                .iter()
                .map(|(_, message)| message.frame.bytes())
                .eq(whole.map(|message| message.frame.bytes().to_vec()))
            {
                return Ok(Some(format!("the messages {direction} of {peer} are not those that were written")));
            }
        }
    }
    let mut found = Rows::new();
    journal.app_rows(b"", &mut |name, content| {
        let (key, value) = Row::App(name.to_vec(), content.to_vec()).encode();
        found.insert(key, value);
    })?;
    let app = Key::App(Vec::new()).bytes();
    let written = history.rows.iter().filter(|(key, _)| key.starts_with(&app));
    let same = found.iter().eq(written);
    Ok((!same).then(|| "the application's rows are not those that were written".to_owned()))
}

/// A message as the history holds it, if its body is still there.
fn whole(history: &History, direction: Direction, peer: &EndpointId, seq: Seq) -> Option<Message> {
    let (headers, bodies) = match direction {
        Direction::Out => (MessageTable::SentHeader, MessageTable::SentBody),
        Direction::In => (MessageTable::InboxHeader, MessageTable::InboxBody),
    };
    let row = |table| {
        let key = Key::Message(table, peer.clone(), seq).bytes();
        history.rows.get(&key).and_then(|value| Row::decode(&key, value).ok())
    };
    match (row(headers), row(bodies)) {
        (Some(Row::Header(_, _, _, header)), Some(Row::Body(_, _, _, body))) => {
            Message::restore(&header.header, &body).ok()
        }
        _ => None,
    }
}

/// Every row of a journal but the two that it keeps about itself.
pub(super) fn rows_of(journal: &Journal) -> Result<Rows, journal::StoreError> {
    let mut rows = Rows::new();
    journal.store().scan(&[0], &[0xff], &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    rows.remove(&Key::Meta.bytes());
    rows.remove(&Key::Totals.bytes());
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_sees_what_is_missing_what_is_other_and_what_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(Engine::Sled, dir.path(), Seams::default()).unwrap();
        let mut history = History::new(5);
        for _ in 0..30 {
            journal.commit(WriteAhead::new(history.step(), ())).wait().unwrap();
        }
        drop(journal);
        let right = Written { seed: 5, acknowledged: 30, submitted: 30 };
        for (written, verdict) in [
            (Written { acknowledged: 31, submitted: 31, ..right }, Verdict::SilentLoss),
            (Written { acknowledged: 29, submitted: 29, ..right }, Verdict::WrongData),
            (Written { seed: 6, ..right }, Verdict::WrongData),
            (Written { acknowledged: 29, ..right }, Verdict::Unharmed),
        ] {
            let judgement = judge(Engine::Sled, dir.path(), written);
            assert_eq!(judgement.verdict, verdict, "{written:?}: {}", judgement.detail);
        }
        // It has gone on since then.
        assert_eq!(judge(Engine::Sled, dir.path(), right).verdict, Verdict::WrongData);
        let open = open(Engine::Sled, dir.path(), Seams::default()).unwrap();
        assert_eq!(judge(Engine::Sled, dir.path(), right).verdict, Verdict::Misnamed);
        drop(open);
        std::fs::write(dir.path().join("high-water"), "damaged").unwrap();
        assert_eq!(judge(Engine::Sled, dir.path(), right).verdict, Verdict::Detected);
    }

    #[test]
    fn rows_that_are_only_missing_are_a_loss_and_others_are_wrong() {
        let row = |name: &str, content: &str| (name.as_bytes().to_vec(), content.as_bytes().to_vec());
        let written = Rows::from([row("a", "1"), row("b", "2")]);
        let verdict = |found: Rows| compare_rows(&found, &written).err().map(|judgement| judgement.verdict);
        assert_eq!(verdict(written.clone()), None);
        assert_eq!(verdict(Rows::from([row("a", "1")])), Some(Verdict::SilentLoss));
        assert_eq!(verdict(Rows::from([row("a", "1"), row("b", "1")])), Some(Verdict::WrongData));
        assert_eq!(verdict(Rows::from([row("a", "1"), row("b", "2"), row("c", "3")])), Some(Verdict::WrongData));
    }
}
