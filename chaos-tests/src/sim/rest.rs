//! Coming to rest: faults cease, and what must then be true. A run that does not come to rest has failed; streams that are stopped
//! count as at rest only where somebody was not who he was, and one of the two ends says why.

use messages::Seq;

use super::application::JobState;
use super::checkers::{JobEnd, Observation};
use super::seat_of;
use super::world::{Asked, AskedState, Step, World};

impl World {
    /// Ends every fault that lasts.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
        self.broker.up = true;
        self.broker.blocked = false;
        self.broker.release(u64::MAX);
        for node in &mut self.nodes {
            node.machine.disk.mend();
            if let Some(process) = &mut node.process {
                process.paused = false;
            }
        }
    }

    /// Whether nothing is under way and nothing is open, but for streams that were stopped for a reason.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.unrest().is_empty()
    }

    /// What is not at rest, in words.
    pub(crate) fn unrest(&self) -> String {
        let mut open = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            if !process.is_idle() {
                open.push(format!("process {n} is busy"));
            }
            if self.is_idle_copy(n) {
                continue;
            }
            for peer in &node.peers {
                let pair = (node.seat, seat_of(peer));
                if self.is_stopped(pair) {
                    continue;
                }
                let Some(streams) = process.session.state().peers.get(peer) else { continue };
                let last = streams.outgoing.next.previous();
                if streams.outgoing.settled != last || !streams.work.is_empty() || !streams.beyond.is_empty() {
                    let settled = Seq::count(streams.outgoing.settled);
                    open.push(format!(
                        "{} has {settled} of {} to {peer} settled, {} held",
                        node.id,
                        Seq::count(last),
                        streams.work.len()
                    ));
                }
                if !self.broker.is_drained(node.seat) {
                    open.push(format!("the queue of {} is not empty", node.id));
                }
            }
            let runs = process.app.runs.values().filter(|run| run.is_open()).count();
            if runs > 0 && !self.is_stopped((node.seat, 0)) {
                open.push(format!("{} has {runs} open runs", node.id));
            }
        }
        let waiting = |asked: &Asked| matches!(asked.state, AskedState::Unsent | AskedState::Waiting);
        let waiting = self.client.values().filter(|asked| waiting(asked) && !self.is_stopped((0, asked.agent))).count();
        if waiting > 0 {
            open.push(format!("{waiting} jobs are not taken"));
        }
        open.join("; ")
    }

    /// Whether this is a copy of a machine that is delivered nothing, since the other one is.
    fn is_idle_copy(&self, n: usize) -> bool {
        let seat = self.nodes[n].seat;
        self.cloned.contains(&seat) && self.broker.queues[seat].consumers.first().is_none_or(|(active, _)| *active != n)
    }

    /// Whether the streams of a pair, of which one is not who it was, are stopped and one of them says why.
    fn is_stopped(&self, pair: (usize, usize)) -> bool {
        (self.may_stop.contains(&pair.0) || self.may_stop.contains(&pair.1))
            && self.nodes.iter().filter(|node| node.seat == pair.0 || node.seat == pair.1).any(|node| {
                let other = if node.seat == pair.0 { pair.1 } else { pair.0 };
                let peer = node.peers.iter().find(|peer| seat_of(peer) == other);
                let view = node
                    .process
                    .as_ref()
                    .zip(peer)
                    .and_then(|(process, peer)| process.session.view(peer, link::session::Millis(0)));
                view.is_some_and(|view| view.frozen.is_some())
            })
    }

    /// The last questions, when everything is at rest.
    pub(crate) fn rested(&mut self) -> Step {
        for n in 0..self.nodes.len() {
            self.inspect(n, true)?;
        }
        let server = self.nodes[0].process.as_ref().map(|server| server.app.jobs.clone()).unwrap_or_default();
        for (job, asked) in self.client.clone() {
            let end = match server.get(&job).map(|job| job.state) {
                Some(JobState::Done) => JobEnd::Done,
                Some(JobState::Unknown) => JobEnd::Unknown,
                Some(JobState::Refused) => JobEnd::Refused,
                Some(JobState::Sent | JobState::Began) | None => JobEnd::Open,
            };
            let excused = asked.state == AskedState::Void || self.is_stopped((0, asked.agent));
            let cloned = self.cloned.contains(&asked.agent);
            self.see(&Observation::Ended { job, end, excused, cloned })?;
        }
        Ok(())
    }
}
