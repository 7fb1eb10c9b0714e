//! Real processes over a real broker: a private RabbitMQ, a server and agents, each of which can be killed and started again.
//! Everything is watched from outside: through files that steps leave, the API, and the owner's sockets.

mod api;
mod fleet;
mod gate;
mod marks;
mod process;
mod wait;

pub use api::{Api, ApiError};
pub use fleet::{Fleet, FleetError, FleetOptions, Resent};
pub use gate::{Gate, Shut};
pub use marks::{Marks, Tally};
pub use process::{Process, longshore};
pub use wait::{TimedOut, interrupt, wait_for};
