//! Carrying out what commits were for: publishing, acknowledging, offering, reading. In the order of the commits, never before them.

use journal::Direction;
use messages::Seq;

use super::{Driver, LOAD_BYTES_MAX, Reply, RunError, report};
use crate::session::{Effects, Input, Load};
use crate::wire::WireCommand;

impl Driver {
    /// Carries out what a commit was for, and tells those who wait for it.
    pub(super) fn done(&mut self, done: Vec<(Effects, Reply)>) {
        let mut noticed = false;
        for (effects, reply) in done {
            noticed |= self.perform(effects);
            reply.done();
        }
        if noticed {
            let heard = self.session.peers().any(|peer| self.session.is_heard(peer));
            self.heard.send_if_modified(|known| std::mem::replace(known, heard) != heard);
            self.notice();
        }
    }

    /// Carries out effects. Returns whether something changed that people look at.
    fn perform(&mut self, effects: Effects) -> bool {
        let Effects {
            publish,
            may_wait,
            load,
            acknowledge,
            discard,
            offer,
            // Lent to the application before this.
            arrived: _,
            sealed,
            logs,
            faults,
            rewound,
            changed,
        } = effects;
        let command = if may_wait { WireCommand::PublishSoon } else { WireCommand::Publish };
        self.backlog.extend(publish.into_iter().map(command));
        if !acknowledge.is_empty() {
            match self.backlog.back_mut() {
                Some(WireCommand::Acknowledge(tags)) => tags.extend(acknowledge),
                Some(_) | None => self.backlog.push_back(WireCommand::Acknowledge(acknowledge)),
            }
        }
        if !discard.is_empty() {
            self.backlog.push_back(WireCommand::Discard(discard));
        }
        self.loads.extend(load);
        for (peer, through) in offer {
            self.durable.insert(peer.clone(), through);
            self.waiting.insert(peer);
        }
        for message in sealed {
            let to = message.header.to.clone();
            self.kept.sealed.keep(&to, message);
        }
        for log in logs {
            self.pass_on(log);
        }
        for fault in &faults {
            report::fault(&self.session.identity().local, fault);
        }
        if !rewound.is_empty() {
            self.rewinding -= 1;
            self.rewinds.add(rewound);
            // One signal is enough for all that wait.
            let _one_waits_already = self.rewound.try_send(());
        }
        !faults.is_empty() || !changed.is_empty()
    }

    pub(super) fn notice(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// Reads what the session asked for, while the backlog is short.
    pub(super) fn load(&mut self) -> Result<(), RunError> {
        while self.is_calm() {
            let Some(Load { peer, from, to }) = self.loads.pop_front() else { return Ok(()) };
            let mut messages = self.kept.sealed.take(&peer, (from, to), LOAD_BYTES_MAX);
            if messages.is_empty() {
                // Up to where memory goes on. The rest is asked for again.
                let before_kept =
                    self.kept.sealed.first(&peer).and_then(Seq::previous).filter(|before| from <= *before);
                let to = before_kept.unwrap_or(to).min(to);
                let read = self.journal.messages(Direction::Out, &peer, (from, to), LOAD_BYTES_MAX)?;
                messages.extend(read.into_iter().map(|(_, message)| message));
            }
            let bytes = messages.iter().map(|message| message.frame.bytes().len()).sum();
            self.sized_input(Input::Loaded(peer, messages), bytes);
        }
        Ok(())
    }

    /// Hands the transport what it has room for.
    pub(super) fn hand_over(&mut self) {
        while !self.backlog.is_empty()
            && let Ok(permit) = self.wire.commands.try_reserve()
            && let Some(command) = self.backlog.pop_front()
        {
            permit.send(command);
        }
    }
}
