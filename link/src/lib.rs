//! How two journals stay in step across a broker that may lose, repeat, reorder or delay.

pub mod amqp;
pub mod session;
pub mod wire;
