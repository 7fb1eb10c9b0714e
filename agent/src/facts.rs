//! What an agent is: told to the server when it starts and whenever it changed since the server was last told. Row and message are
//! one transaction, so that it is told once.

use std::collections::BTreeMap;

use journal::put_app;
use link::session::Transaction;
use link::{SubmitError, outbound};
use messages::limits::LABELS_MAX;
use messages::{AgentFacts, Body, is_label};

use crate::host;
use crate::records::encode;
use crate::worker::Worker;

/// The name of the row that says what the server was told last.
const FACTS: &[u8] = b"facts";

/// What an agent is, from its configuration and from what it found out. A label that breaks a rule is left out and said.
pub(crate) fn facts(pool: Option<&String>, given: &BTreeMap<String, String>, slots: u16, once: bool) -> AgentFacts {
    let mut labels = BTreeMap::new();
    // What the configuration says wins over what was found out.
    for (name, value) in given.clone().into_iter().chain(host::labels()) {
        if labels.len() == LABELS_MAX || !is_label(&name) || !is_label(&value) {
            tracing::error!(%name, "A label is left out: an agent has at most {LABELS_MAX}, each name and value 1 to 63 letters, digits and -_./");
            continue;
        }
        labels.entry(name).or_insert(value);
    }
    let pool = pool.filter(|pool| is_label(pool)).cloned();
    AgentFacts { pool, labels, slots, once, version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl Worker {
    /// Tells the server what this agent is, unless that is what it was told last. `anew`: it may have forgotten.
    pub(crate) async fn tell_facts(&self, anew: bool) -> Result<(), SubmitError> {
        let facts = self.facts();
        let row = encode(&facts);
        let mut told = false;
        let read = self.journal().app_rows(FACTS, &mut |_, bytes| told = bytes == row);
        if let Err(error) = read {
            tracing::error!(%error, "The journal cannot be read, so the server is told again what this agent is.");
        }
        if told && !anew {
            return Ok(());
        }
        match outbound(self.server(), self.message_id(), &Body::AgentFacts(facts), None) {
            Ok(message) => {
                let rows = vec![put_app(FACTS.to_vec(), row)];
                self.endpoint().transact(Transaction { rows, send: vec![message], ..Transaction::default() }).await
            }
            Err(error) => {
                tracing::error!(%error, "What this agent is cannot be told.");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_out_and_a_configured_one_wins() {
        let given = [("os", "plan9"), ("env", "prod"), ("bad label", "x")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let facts = facts(Some(&"web".to_owned()), &given, 3, true);
        assert_eq!((facts.labels["os"].as_str(), facts.labels["env"].as_str()), ("plan9", "prod"));
        assert_eq!(facts.labels["arch"], std::env::consts::ARCH);
        assert!(!facts.labels.contains_key("bad label"));
        assert_eq!((facts.pool.as_deref(), facts.slots, facts.once), (Some("web"), 3, true));
        assert_eq!(facts.check(), Ok(()));
    }

    #[test]
    fn more_labels_than_an_agent_may_have_are_left_out() {
        let given = (0..100).map(|number| (format!("label-{number}"), "x".to_owned())).collect();
        assert_eq!(facts(None, &given, 1, false).check(), Ok(()));
    }
}
