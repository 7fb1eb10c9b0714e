//! The rules of the house, held by a machine: which part may use which, what each part must not know, and what every file owes
//! its readers. Reads `cargo metadata` and the source text; never builds or runs anything of ours.
//!
//! Each rule is one test whose name is the rule. What the rules are made of is tested beside it with small offenders, so that a
//! rule that has stopped biting is found as well.

#![allow(clippy::unwrap_used)]

mod arrows;
mod licences;
mod promises;
mod purity;
mod source;
mod syntax;
mod tidiness;
