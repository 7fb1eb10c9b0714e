//! Why we believe it: a simulator, live faults against real RabbitMQ and real processes, watched from outside. Nothing depends on this
//! package, and it never links the server or the agent: it starts the binary.

pub mod bench;
pub mod cutoff;
pub mod damage;
pub mod demo;
pub mod explore;
pub mod gaps;
pub mod live;
pub mod loud;
pub mod out;
pub mod sim;
pub mod simulate;
pub mod work;
