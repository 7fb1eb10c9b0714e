//! `println!` and `eprintln!` for readers that may go away: those panic then.

/// A line on standard output.
macro_rules! say {
    ($($words:tt)*) => { chaos_tests::out::print(format_args!("{}\n", format_args!($($words)*))) };
}

/// A line on standard error.
macro_rules! note {
    ($($words:tt)*) => { chaos_tests::out::note(format_args!("{}\n", format_args!($($words)*))) };
}
