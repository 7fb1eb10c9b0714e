//! Beginning a process on a machine, or being refused by its journal. Shows the checkers what was opened.

use journal::State;
use messages::Incarnation;

use super::checkers::Observation;
use super::node::Birth;
use super::planted::Planted;
use super::world::{Step, World, describe};

impl World {
    /// Begins a process. `damaged` says what was done to its disk.
    pub(crate) fn start(&mut self, n: usize, damaged: Option<&str>) -> Step {
        let wall_ms = self.wall_ms(n);
        let incarnation = Incarnation::from_u128(self.rng.wide());
        let nonce = self.rng.next();
        let nonce = if self.planted == Some(Planted::OldAnswersBelieved) { n as u64 } else { nonce };
        let birth = Birth { incarnation, nonce, at: self.at, wall_ms };
        let planted = self.planted;
        let tamper = move |state: &mut State| Planted::tamper(planted, state);
        let seat = self.nodes[n].seat;
        if self.planted == Some(Planted::SyncForgotten) {
            self.nodes[n].machine.disk.forget_to_sync();
        }
        let mut config = self.nodes[n].config.clone();
        if self.planted == Some(Planted::WindowIgnored) {
            config.window = 1 << 20;
        }
        let faulty = self.nodes[n].machine.disk.fault().is_some();
        let begun = self.nodes[n].begin(&birth, config, &tamper);
        if begun.is_err() && faulty {
            self.lose_power(n);
            self.note(n, || "cannot start: its disk takes nothing".to_owned());
            return Ok(());
        }
        let (mut process, failure) = match begun {
            Ok(process) => (Some(process), None),
            Err(error) => (None, Some(describe(&error))),
        };
        self.nodes[n].lives += 1;
        let (life, refused) = (self.nodes[n].lives, failure.clone());
        self.note(n, || {
            refused.map_or_else(|| format!("starts, life {life}"), |why| format!("is refused its journal: {why}"))
        });
        let state = process.as_ref().map(|process| process.writer.state().clone());
        let state = state.as_ref().ok_or_else(|| failure.unwrap_or_default());
        self.see(&Observation::Opened { seat, node: n, damaged, state })?;
        if let Some(process) = &mut process
            && let Some(mark) = process.writer.mark()
            && self.rng.percent(50)
        {
            self.nodes[n].machine.mark = Some(mark);
        }
        self.nodes[n].process = process;
        if self.nodes[n].process.is_some() {
            if seat != 0 {
                // An earlier process may have ended before it could.
                self.recall(n)?;
            }
            self.numbered(n)?;
        }
        Ok(())
    }
}
