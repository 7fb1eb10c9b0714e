//! The protocol core by script and by chance, with nothing real around it.
#![allow(clippy::unwrap_used)]

mod both;
mod chance;
mod copies;
mod evidence;
mod identity;
mod lives;
mod names;
mod pair;
mod restored;
mod script;
mod strangers;
