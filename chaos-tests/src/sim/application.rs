//! The applications at both ends, as small as they can be and still be real: the server takes jobs from clients, sends them, and
//! takes in reports; an agent holds a job, records that it begins, does it, and reports the end in the commit that records it. All
//! they know after a crash is in rows of their journal.

use std::collections::BTreeMap;

use journal::{Change, Journal, ReadError, put_app};
use messages::{EndpointId, Seq};

/// What messages say here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    /// Server to agent: do this.
    Do { job: u64, once: bool, refuse: bool, steps: u8 },
    /// Agent to server: it begins.
    Began { job: u64 },
    /// Agent to server: that step of it ended, and there are more.
    Ended { job: u64, step: u8 },
    /// Agent to server: it is done.
    Done { job: u64 },
    /// Agent to server: nobody knows whether it was done.
    Unknown { job: u64 },
    /// Agent to server: it will not be done.
    Refused { job: u64 },
}

impl Say {
    pub(crate) fn encode(self, filling: usize) -> Vec<u8> {
        let (code, job, flags) = match self {
            Self::Do { job, once, refuse, steps } => {
                (1, job, u8::from(once) | u8::from(refuse) << 1 | steps.saturating_sub(1) << 2)
            }
            Self::Began { job } => (2, job, 0),
            Self::Ended { job, step } => (6, job, step),
            Self::Done { job } => (3, job, 0),
            Self::Unknown { job } => (4, job, 0),
            Self::Refused { job } => (5, job, 0),
        };
        let mut bytes = vec![code, flags];
        bytes.extend(job.to_be_bytes());
        bytes.resize(bytes.len() + filling, 0x5a);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let job = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
        let flags = bytes[1];
        match bytes[0] {
            1 => Some(Self::Do { job, once: flags & 1 != 0, refuse: flags & 2 != 0, steps: (flags >> 2) + 1 }),
            2 => Some(Self::Began { job }),
            3 => Some(Self::Done { job }),
            4 => Some(Self::Unknown { job }),
            5 => Some(Self::Refused { job }),
            6 => Some(Self::Ended { job, step: flags }),
            _ => None,
        }
    }
}

/// How far an agent is with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A commit about it is under way.
    Writing,
    /// It is held; it may begin.
    Held,
    /// That it begins is on disk: it may be done.
    Begun,
    /// It was done; that is nowhere but here yet.
    Finished,
    /// It began in an earlier process, and nobody knows whether it was done.
    Doubtful,
    /// Its end is on disk, but not its report: only a planted fault leaves it so.
    Unreported,
    /// Its end is on disk.
    Over,
}

/// A job at an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The message that asked for it.
    pub(crate) seq: Seq,
    pub(crate) once: bool,
    pub(crate) stage: Stage,
    /// What was reported of its end, as `Say` has it; nothing before.
    pub(crate) said: Option<JobState>,
    /// A lost life of the agent may have done it.
    pub(crate) doubtful: bool,
    /// How often the server had found the journal to have lost something, when this was last looked at.
    pub(crate) losses: u32,
    /// The step that is next or under way, from 0.
    pub(crate) step: u8,
    /// How many there are, up to [`STEPS_MAX`].
    pub(crate) steps: u8,
}

/// Steps of a run. The row of a run holds their number in half a byte.
pub(crate) const STEPS_MAX: u8 = 16;

impl Run {
    /// Whether something is left to do.
    pub(crate) const fn is_open(&self) -> bool {
        match self.stage {
            Stage::Held | Stage::Begun | Stage::Finished | Stage::Doubtful | Stage::Unreported => true,
            Stage::Writing | Stage::Over => false,
        }
    }
}

/// The process above a step that takes time: it outlives the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shim {
    /// When the step ends.
    pub(crate) due: u64,
    /// It did, and the record says so.
    pub(crate) over: bool,
}

/// A job at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) agent: usize,
    pub(crate) state: JobState,
}

/// How far the server knows a job to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobState {
    Sent,
    Began,
    Done,
    Unknown,
    Refused,
}

/// What an application knows. In memory it may be ahead of the disk by what is being committed.
#[derive(Debug, Default)]
pub(crate) struct Application {
    pub(crate) runs: BTreeMap<u64, Run>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// How many losses of the server's journal were answered with what is known here.
    pub(crate) recalled: u32,
}

fn name(table: u8, job: u64) -> Vec<u8> {
    let mut name = vec![table];
    name.extend(job.to_be_bytes());
    name
}

/// The row of a run.
pub(crate) fn run_row(job: u64, run: &Run) -> Change {
    let code = match run.stage {
        Stage::Held | Stage::Writing => 1,
        Stage::Begun | Stage::Finished | Stage::Doubtful => 2,
        Stage::Over | Stage::Unreported => 3,
    };
    let mut content = vec![code, u8::from(run.once) | u8::from(run.doubtful) << 1 | run.step << 2];
    let said = match run.said {
        Some(JobState::Done) => 3,
        Some(JobState::Unknown) => 4,
        Some(JobState::Refused) => 5,
        Some(JobState::Sent | JobState::Began) | None => 0,
    };
    content.push(said | run.steps.saturating_sub(1) << 4);
    content.extend(run.losses.to_be_bytes());
    content.extend(run.seq.value().to_be_bytes());
    put_app(name(b'r', job), content)
}

/// The row that says how many losses of the server's journal were answered.
pub(crate) fn recalled_row(losses: u32) -> Change {
    put_app(name(b'l', 0), losses.to_be_bytes().to_vec())
}

/// The row of a job.
pub(crate) fn job_row(job: u64, of: &Job) -> Change {
    let code = match of.state {
        JobState::Sent => 1,
        JobState::Began => 2,
        JobState::Done => 3,
        JobState::Unknown => 4,
        JobState::Refused => 5,
    };
    let agent = u8::try_from(of.agent).unwrap_or(u8::MAX);
    put_app(name(b'j', job), vec![code, agent])
}

impl Application {
    /// What the rows say. A run that began in an earlier process is doubtful if it may be done once, and begins again otherwise.
    pub(crate) fn read(journal: &Journal) -> Result<Self, ReadError> {
        let mut read = Self::default();
        journal.app_rows(&[], &mut |name, content| {
            let Some(job) = name.get(1..9).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes) else { return };
            match (name[0], content) {
                (b'r', [code, flags, said, a, b, c, d, seq @ ..]) => {
                    let seq = seq.try_into().ok().map(u64::from_be_bytes).and_then(Seq::new);
                    let (once, doubtful) = (flags & 1 != 0, flags & 2 != 0);
                    let losses = u32::from_be_bytes([*a, *b, *c, *d]);
                    let (step, steps) = (flags >> 2, (said >> 4) + 1);
                    let said = match said & 0xf {
                        3 => Some(JobState::Done),
                        4 => Some(JobState::Unknown),
                        5 => Some(JobState::Refused),
                        _ => None,
                    };
                    let stage = match code {
                        1 => Stage::Held,
                        2 if once => Stage::Doubtful,
                        2 => Stage::Begun,
                        _ => Stage::Over,
                    };
                    let run = |seq| (job, Run { seq, once, stage, said, doubtful, losses, step, steps });
                    read.runs.extend(seq.map(run));
                }
                (b'l', [a, b, c, d]) => read.recalled = u32::from_be_bytes([*a, *b, *c, *d]),
                (b'j', [code, agent]) => {
                    let state = match code {
                        1 => JobState::Sent,
                        2 => JobState::Began,
                        3 => JobState::Done,
                        4 => JobState::Unknown,
                        _ => JobState::Refused,
                    };
                    read.jobs.insert(job, Job { agent: usize::from(*agent), state });
                }
                _ => {}
            }
        })?;
        read.reconsider(journal, &EndpointId::Server);
        Ok(read)
    }

    /// Finds again the steps that a shim looks after, or of which one left a record. Of a step without a shim it is known that it
    /// never began.
    pub(crate) fn reattach(&mut self, shims: &BTreeMap<(u64, u8), Shim>) {
        for (job, run) in &mut self.runs {
            if matches!(run.stage, Stage::Begun | Stage::Doubtful) {
                let over = shims.get(&(*job, run.step)).is_some_and(|shim| shim.over);
                run.stage = if over { Stage::Finished } else { Stage::Begun };
            }
        }
    }

    /// Compares the runs with what the journal says of the stream that they came in.
    pub(crate) fn reconsider(&mut self, journal: &Journal, peer: &EndpointId) {
        let Ok(Some(stream)) = journal.incoming(peer) else { return };
        for run in self.runs.values_mut() {
            match run.stage {
                Stage::Held | Stage::Begun | Stage::Doubtful if !journal.is_open(peer, run.seq).unwrap_or(true) => {
                    run.stage = Stage::Over;
                }
                Stage::Held | Stage::Begun | Stage::Doubtful | Stage::Writing if run.losses != stream.losses => {
                    run.losses = stream.losses;
                    run.doubtful |= Some(run.seq) <= stream.doubtful;
                }
                _ => {}
            }
        }
    }
}

impl JobState {
    /// What a report makes of it. An end stays an end.
    pub(crate) const fn after(self, report: Say) -> Self {
        match (self, report) {
            (Self::Sent | Self::Began, Say::Began { .. } | Say::Ended { .. }) => Self::Began,
            (Self::Sent | Self::Began, Say::Done { .. }) => Self::Done,
            (Self::Sent | Self::Began, Say::Unknown { .. }) => Self::Unknown,
            (Self::Sent | Self::Began, Say::Refused { .. }) => Self::Refused,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use journal::{MemoryStore, Opening, WriteAhead};
    use messages::Incarnation;

    use super::*;

    #[test]
    fn what_is_said_is_read_back() {
        for say in [
            Say::Do { job: 7, once: true, refuse: false, steps: 1 },
            Say::Do { job: 8, once: false, refuse: true, steps: STEPS_MAX },
            Say::Began { job: 9 },
            Say::Ended { job: 9, step: 15 },
            Say::Done { job: u64::MAX },
            Say::Unknown { job: 0 },
            Say::Refused { job: 1 },
        ] {
            assert_eq!(Say::decode(&say.encode(3)), Some(say));
        }
        assert_eq!(Say::decode(b"short"), None);
    }

    #[test]
    fn after_a_crash_a_begun_run_is_doubtful_unless_it_may_be_repeated() {
        let opening = Opening { endpoint: "a1".parse().unwrap(), incarnation: Incarnation::from_u128(1), now_ms: 0 };
        let (journal, mut writer, _) = Journal::in_step(Arc::new(MemoryStore::default()), &opening, None).unwrap();
        let run = |once| {
            let (seq, stage, said) = (Seq::FIRST, Stage::Begun, None);
            Run { seq, once, stage, said, doubtful: false, losses: 0, step: 9, steps: STEPS_MAX }
        };
        let rows =
            vec![run_row(1, &run(true)), run_row(2, &run(false)), job_row(3, &Job { agent: 1, state: JobState::Sent })];
        assert!(writer.commit(vec![WriteAhead::new(rows, ())])[0].is_ok());
        let read = Application::read(&journal).unwrap();
        assert_eq!((read.runs[&1].stage, read.runs[&2].stage), (Stage::Doubtful, Stage::Begun));
        assert_eq!((read.runs[&1].step, read.runs[&1].steps), (9, STEPS_MAX));
        assert_eq!(read.jobs[&3].state, JobState::Sent);
        // Unless its shim is still there.
        let mut read = read;
        read.reattach(&[((1, 9), Shim { due: 5, over: false }), ((2, 9), Shim { due: 5, over: true })].into());
        assert_eq!((read.runs[&1].stage, read.runs[&2].stage), (Stage::Begun, Stage::Finished));
    }
}
