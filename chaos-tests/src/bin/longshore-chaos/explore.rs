//! `longshore-chaos explore`: reads what is to be searched, and prints what was found. It decides nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use chaos_tests::explore::{Budget, Exploration, Limits, Progress, ROOM, Scope, explore_watched};

/// What is to be searched.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages in all; half of them, rounded down, are the agent's answers to held work, the server sends the others
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    messages: u8,
    /// Processes that die
    #[arg(long, default_value_t = 1, value_parser = few())]
    crashes: u8,
    /// Times that the broker loses everything, noticed or not
    #[arg(long, default_value_t = 1, value_parser = few())]
    wipes: u8,
    /// Journals that are restored from a copy of any earlier commit
    #[arg(long, default_value_t = 1, value_parser = few())]
    rollbacks: u8,
    /// Envelopes that come twice
    #[arg(long, default_value_t = 0, value_parser = few())]
    duplicates: u8,
    /// Neighbours in a queue that change places
    #[arg(long, default_value_t = 0, value_parser = few())]
    reorders: u8,
    /// Envelopes that are lost silently
    #[arg(long, default_value_t = 0, value_parser = few())]
    losses: u8,
    /// Connections that are lost
    #[arg(long, default_value_t = 0, value_parser = few())]
    disconnects: u8,
    /// Statuses in a queue beyond which no timer makes another one
    #[arg(long, default_value_t = 1)]
    statuses: u8,
    /// Let reads of the journal come back short
    #[arg(long)]
    short_reads: bool,
    /// Let probes that wait for a delay go off only while nothing is on its way: a much smaller world
    #[arg(long)]
    patient: bool,
    /// Look at every order of what commutes, too: it finds nothing else, and takes much longer
    #[arg(long)]
    plain: bool,
    /// Search one share of the faults alone, from 1: which faults are whose is decided at the beginning, and all shares together
    /// are the whole
    #[arg(long)]
    share: Option<usize>,
    /// Give up after that many states; 9 bytes of memory each, 13 at the end, and as much again for what they are made of
    #[arg(long, default_value_t = 150_000_000)]
    states_max: usize,
    /// Make room for that many states at once; a search that needs more is begun again with four times as much. Temporary files
    /// take another 16 to 30 bytes each; TMPDIR says where, which should not be memory
    #[arg(long, default_value_t = ROOM, value_parser = room)]
    room: usize,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn room(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number of states, 1 at least".to_owned()),
        Ok(room) => Ok(room),
    }
}

fn few() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(..=i64::from(Budget::MAX))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The exit code for what was asked for wrongly, as clap has it.
const USAGE: u8 = 2;

/// How often a long search says how far it has come.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The most memory that this process has had, in bytes; 0 where the system does not say.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).map_or(0, |kib: u64| kib * 1024)
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let Args { messages, crashes, wipes, rollbacks, duplicates, reorders, losses, disconnects, .. } = *args;
    let budget = Budget { crashes, wipes, rollbacks, duplicates, reorders, losses, disconnects };
    let scope = Scope {
        messages,
        budget,
        statuses: args.statuses,
        short_reads: args.short_reads,
        patient: args.patient,
        plain: args.plain,
    };
    let shares = scope.budget.shares_count();
    if let Some(share) = args.share.filter(|share| !(1..=shares).contains(share)) {
        note!("error: there is no share {share}: this world has {shares}, from 1");
        return ExitCode::from(USAGE);
    }
    let limits = Limits { states_max: args.states_max, room: args.room, share: args.share };
    let began = Instant::now();
    let mut told = began;
    let mut most = 0;
    let found = explore_watched(&scope, None, limits, &mut |progress| {
        if progress.states < most {
            note!("that was more than there was room for; begun again with more (--room says how much at once)");
        }
        most = progress.states;
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            let Progress { share: [share, of], states, transitions, depth, parts: [ends, _, steps] } = progress;
            let seconds = began.elapsed().as_secs();
            note!(
                "share {share} of {of}: {states} states and {transitions} transitions so far, depth {depth}, made of {ends} \
                 endpoints and {steps} steps, {seconds} s, {} MiB",
                memory_peak() >> 20
            );
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    match args.output {
        Output::Text => text(&scope, args.share, &found, seconds),
        Output::Json => json(&scope, args.share, &found, seconds),
    }
    if found.complete && found.counterexample.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn text(scope: &Scope, share: Option<usize>, found: &Exploration, seconds: f64) {
    let Budget { crashes, wipes, rollbacks, duplicates, reorders, losses, disconnects } = scope.budget;
    say!(
        "world        {} messages, {} of them answers of the agent; at most {crashes} crashes, {wipes} wipes, {rollbacks} rollbacks, {duplicates} duplicates, \
         {reorders} reorders, {losses} losses, {disconnects} disconnects",
        scope.messages,
        scope.messages / 2
    );
    say!(
        "bounds       a timer waits while {} statuses of its side are on their way{}{}{}",
        scope.statuses,
        if scope.patient { "; delayed probes only while nothing is on its way" } else { "" },
        if scope.short_reads { "; reads may come back short" } else { "" },
        if scope.plain { "; every order of what commutes" } else { "" }
    );
    if let Some(share) = share {
        say!("share        {share} alone");
    }
    say!("states       {}", found.states);
    say!("transitions  {}", found.transitions);
    say!("depth        {}", found.depth);
    say!("ends         {}, under another name after a rollback in {}", found.ends, found.healed);
    let [ends, envelopes, steps] = found.parts;
    say!("made of      {ends} endpoints, {envelopes} envelopes, {steps} steps of an endpoint");
    say!("time         {seconds:.1} s");
    say!("memory       {} MiB at most", memory_peak() >> 20);
    if let Some(example) = &found.counterexample {
        say!("\nFound after {} actions:", example.actions.len());
        for (number, action) in (1..).zip(&example.actions) {
            say!("{number:4}  {action}");
        }
        say!("      {}", example.violation);
        say!("\nThe last world before that:\n{}", example.last);
        say!("FAIL");
    } else if found.complete {
        say!(
            "every state of this {} was visited{}; no promise is broken in any, and from each an end in which\n\
             everything is handed over and both ends agree can be reached without a fault. Several commits lost in one crash,\n\
             and two living copies of a journal, are not in it.",
            if share.is_some() { "share of the world" } else { "world" },
            if scope.patient { ", with delayed probes only while nothing is on its way" } else { "" }
        );
        say!("PASS");
    } else if let Some(why) = &found.unread {
        say!(
            "the search was given up before its end: a temporary file cannot be used: {why}; set TMPDIR to a folder with room\n\
             for 16 to 30 bytes a state"
        );
        say!("FAIL");
    } else {
        say!("the search was given up before its end; raise --states-max or make the world smaller");
        say!("FAIL");
    }
}

fn json(scope: &Scope, share: Option<usize>, found: &Exploration, seconds: f64) {
    let example = found.counterexample.as_ref().map(|example| {
        let actions: Vec<String> = example.actions.iter().map(ToString::to_string).collect();
        serde_json::json!({ "actions": actions, "violation": example.violation.to_string() })
    });
    let [endpoints, envelopes, steps] = found.parts;
    let report = serde_json::json!({
        "scope": scope, "share": share, "states": found.states, "transitions": found.transitions, "depth": found.depth,
        "ends": found.ends, "healed": found.healed,
        "made_of": { "endpoints": endpoints, "envelopes": envelopes, "steps": steps },
        "passed": found.complete && found.counterexample.is_none(), "complete": found.complete, "unread": found.unread, "seconds": seconds,
        "memory_peak_bytes": memory_peak(),
        "counterexample": example,
    });
    say!("{report:#}");
}
