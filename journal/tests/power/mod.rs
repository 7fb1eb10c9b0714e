//! A loss of power, from recorded calls: a program runs under strace, every call that changes a file or syncs one is taken down,
//! and replayed onto a model of a file system in which only what was synced is certain. Shared by the tests of the journal and
//! of the agent. It knows neither: what must have survived is for them to say.

pub(crate) mod content;
pub(crate) mod disk;
pub(crate) mod losses;
pub(crate) mod recording;
pub(crate) mod strace;
