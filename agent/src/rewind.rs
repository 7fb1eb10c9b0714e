//! What the agent makes of a journal that was lost or restored: its own, or the server's. Runs that are over elsewhere are given up,
//! runs that may have come further than this journal says are marked, and what the server may have forgotten is told to it. It
//! never decides whether a step ran: that is up to the step's declared effect.

use journal::{Journal, ReadError, put_app};
use link::session::Transaction;
use link::{SubmitError, outbound};
use messages::{Body, RunRecalled};

use crate::orders::Taken;
use crate::records::{ResumeError, RunRecord};
use crate::worker::Worker;

/// The name of the row that says how many losses of the server's journal were answered. A process that ends before it is written
/// begins again, which the server does not mind.
const RECALLED: &[u8] = b"recalled";

fn recalled(journal: &Journal) -> Result<u32, ReadError> {
    let mut losses = 0;
    journal.app_rows(RECALLED, &mut |_, bytes| losses = bytes.try_into().map_or(0, u32::from_be_bytes))?;
    Ok(losses)
}

/// The name of the row with the boot of the machine in which the server last heard this agent.
const BOOT: &[u8] = b"boot";

impl Worker {
    /// Whether the server has heard this agent since the machine was started. A machine that is put back to an old copy is started;
    /// a process that starts again on a machine that runs on has the journal that it left.
    pub(crate) fn knows_boot(&self) -> bool {
        let mut known = false;
        let current = self.boot().to_string();
        let read = self.journal().app_rows(BOOT, &mut |_, bytes| known = bytes == current.as_bytes());
        read.is_ok() && known
    }

    /// Notes that the server has heard this agent since the machine was started.
    pub(crate) async fn note_boot(&self) -> Result<(), SubmitError> {
        let rows = vec![put_app(BOOT.to_vec(), self.boot().to_string().into_bytes())];
        self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await
    }

    /// Reads the runs from the journal, and compares them with what the journal says of the stream that they came in: at every start,
    /// and when the server has found that this agent's journal lost something.
    pub(crate) async fn reconsider(&self) -> Result<Vec<Taken>, ResumeError> {
        // Whatever an ended task had handed over is on stable storage after this, and what is read next is the last word.
        self.endpoint().transact(Transaction::default()).await?;
        let server = self.server();
        let stream = self.journal().incoming(&server)?;
        let (losses, doubtful) = stream.map_or((0, None), |stream| (stream.losses, stream.doubtful));
        let mut transaction = Transaction::default();
        let mut over = Vec::new();
        for mut record in RunRecord::load(self.journal())? {
            let run = record.start.run;
            if record.progress.end.is_some() {
                continue;
            }
            if !self.journal().is_open(&server, record.progress.seq)? {
                tracing::warn!(%run, "The journal was restored, and this run has ended since: the server has its outcome.");
                transaction.rows.extend(RunRecord::delete(run));
                over.push(run);
            } else if record.progress.losses != losses {
                record.progress.losses = losses;
                if Some(record.progress.seq) <= doubtful {
                    tracing::warn!(%run, "The journal was lost or restored: this run may have come further than it says.");
                    record.progress.doubtful = true;
                }
                transaction.rows.push(record.progress_row());
            }
        }
        self.endpoint().transact(transaction).await?;
        for run in over {
            self.remove_folder(run).await;
        }
        self.resume()
    }

    /// Tells a server whose journal lost something of every run that this agent still has: what it sent, and how it ended; and what this
    /// agent is. Does nothing if that was done.
    pub(crate) async fn recall(&self) -> Result<(), SubmitError> {
        let (losses, recalled) = match (self.journal().outgoing(&self.server()), recalled(self.journal())) {
            (Ok(stream), Ok(recalled)) => (stream.map_or(0, |stream| stream.losses), recalled),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "The journal cannot be read, so the server is not told of the runs here.");
                return Ok(());
            }
        };
        if losses == recalled {
            return Ok(());
        }
        let records = match RunRecord::load(self.journal()) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "The runs cannot be read, so the server is not told of them.");
                return Ok(());
            }
        };
        tracing::warn!(
            runs = records.len(),
            "The server's journal was lost or restored; it is told of the runs that are here."
        );
        for record in records {
            let RunRecord { start, progress, .. } = record;
            let run = start.run;
            let recalled = Body::RunRecalled(RunRecalled { start, message: progress.message, end: progress.end });
            match outbound(self.server(), self.message_id(), &recalled, Some(progress.message)) {
                Ok(message) => {
                    self.endpoint().transact(Transaction { send: vec![message], ..Transaction::default() }).await?;
                }
                Err(error) => tracing::error!(%run, %error, "A run is too large to tell the server of it."),
            }
        }
        self.tell_facts(true).await?;
        let rows = vec![put_app(RECALLED.to_vec(), losses.to_be_bytes().to_vec())];
        self.endpoint().transact(Transaction { rows, ..Transaction::default() }).await?;
        Ok(())
    }
}
