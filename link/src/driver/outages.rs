//! What is remembered of the connection to the broker, for people.

use super::Driver;
use crate::driver::wall_ms;
use crate::endpoint::{LinkState, Outage};

/// Outages that are remembered.
const OUTAGES_MAX: usize = 100;

impl Driver {
    pub(super) fn link_is_up(&mut self) {
        let now = wall_ms();
        if let Some(outage) = self.link.outages.last_mut().filter(|outage| outage.to_ms.is_none()) {
            outage.to_ms = Some(now);
        }
        self.link = LinkState { connected: true, detail: None, since_ms: now, ..std::mem::take(&mut self.link) };
        self.connected.send_replace(true);
        self.notice();
    }

    pub(super) fn link_is_down(&mut self, reason: String) {
        // Who comes back, and with what, is not known.
        self.kept.sealed.clear();
        let now = wall_ms();
        if self.link.outages.last().is_none_or(|outage| outage.to_ms.is_some()) {
            if self.link.outages.len() == OUTAGES_MAX {
                self.link.outages.remove(0);
            }
            let resent_before = self.resent();
            let (from_ms, to_ms) = (now, None);
            self.link.outages.push(Outage { from_ms, to_ms, reason: reason.clone(), resent_before });
            self.link.since_ms = now;
        }
        self.link.connected = false;
        self.link.detail = Some(reason);
        self.connected.send_replace(false);
        // What did not leave in time is found by reconciling; acknowledgements of a lost connection mean nothing.
        self.backlog.clear();
        self.notice();
    }
}
