//! What the agent makes of a journal that was lost or restored: its own, or the server's. Runs that are over elsewhere are given up,
//! runs that may have come further than this journal says are marked, and what the server may have forgotten is told to it. It
//! never decides whether a step ran: that is up to the step's declared effect.

use link::session::Transaction;
use link::{SubmitError, outbound};
use messages::{Body, RunRecalled};

use crate::records::{ResumeError, RunRecord};
use crate::worker::Worker;

impl Worker {
    /// Reads the runs from the journal, and compares them with what the journal says of the stream that they came in: at every start,
    /// and when the server has found that this agent's journal lost something.
    pub(crate) async fn reconsider(&self) -> Result<Vec<RunRecord>, ResumeError> {
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

    /// Tells the server of every run that this agent still has: what it sent, and how it ended.
    pub(crate) async fn recall(&self) -> Result<(), SubmitError> {
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
            let RunRecord { start, progress } = record;
            let run = start.run;
            let recalled = Body::RunRecalled(RunRecalled { start, message: progress.message, end: progress.end });
            match outbound(self.server(), self.message_id(), &recalled, Some(progress.message)) {
                Ok(message) => {
                    self.endpoint().transact(Transaction { send: vec![message], ..Transaction::default() }).await?;
                }
                Err(error) => tracing::error!(%run, %error, "A run is too large to tell the server of it."),
            }
        }
        Ok(())
    }
}
