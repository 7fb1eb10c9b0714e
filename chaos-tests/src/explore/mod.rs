//! Exhaustive search of a small world: two endpoints, a few messages, and a few things that go wrong, in every order in which
//! they can happen. It runs the session that ships, on a disk and a broker in memory, and never leaves anything to chance.
//!
//! What makes the world small, and why nothing is missed by it:
//!
//! - **One commit at a time.** A session's changes are committed before it is fed again. Effects come out in the order of
//!   commits, so commits that wait for one another look from outside like inputs that come later; commits that are lost
//!   together look like a crash before the first of them. What is committed and has no effects any more is in the search: the
//!   process dies after a commit.
//! - What is **not** in the search: several durable commits that are lost in one crash, which only a lying disk does, and two
//!   living copies of a journal. A journal that is restored loses any number of commits.
//! - **A timer that is set goes off at any moment**, and no time is kept; see [`link::session::Timers`]. That is more than can
//!   happen, never less, but for the two bounds on their number; see `World::due`.
//! - **A journal is copied just before it changes**, since every copy since its last change is the same one.
//! - **Two worlds with the same future are one**; see `Session::normalize`.
//! - A journal's names are kept as they were minted: one more than needed is a larger world, never a smaller one.
//! - Deliveries come one at a time. The broker gives back what was not acknowledged when a process dies, as here.
//! - **One side at a time**, where the two commute; see `Parts::alone`. `Scope::plain` does without, and without the next one.
//! - **A world that may still lose everything covers the same one that may not any more**; see `Search::twin`.
//! - **Each way to share the faults between the two sides is a search of its own**; see [`explore_watched`].
//! - **A fingerprint stands for a world**; see `visited.rs`.
//!
//! What was searched to its end, and the arguments in full, are in `docs/exploration.md`.

mod action;
mod check;
mod disk;
mod end;
mod facts;
mod flight;
mod ledger;
mod offers;
mod parts;
mod plant;
mod scope;
mod search;
mod spool;
mod step;
mod steps;
mod stimulus;
mod table;
mod turn;
mod violation;
mod visited;
mod world;

pub use action::{Action, Step};
pub use check::Ends;
pub use disk::Disk;
pub use end::End;
pub use plant::Plant;
pub use scope::{Budget, Scope, Side};
pub use search::{Counterexample, Exploration, Limits, Progress, ROOM, Watcher, explore, explore_watched};
pub use table::table;
pub use violation::Violation;
