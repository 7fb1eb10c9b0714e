//! What the parts must not know, from the source text: clocks, randomness, runtimes and each other.

use crate::source::{Source, none, sources};
use crate::syntax::Pattern::{self, Crate, Path, Word};
use crate::syntax::paths;

/// Where a rule holds.
struct Rule {
    /// Path prefixes that it covers.
    within: &'static [&'static str],
    /// Path prefixes that are free of it.
    except: &'static [&'static str],
    /// What is not to be named there.
    never: &'static [Pattern],
    /// Does it hold for tests too?
    tests_too: bool,
}

const MESSAGES: Rule = Rule {
    within: &["messages/src/"],
    except: &[],
    never: &[
        Crate("tokio"),
        Crate("lapin"),
        Crate("sled"),
        Crate("getrandom"),
        Crate("rand"),
        Word("SystemTime"),
        Word("Instant"),
        Word("async"),
        Path("std::fs"),
        Path("std::net"),
        Path("std::env"),
        Path("std::process"),
        Path("std::thread"),
        Path("Uuid::now_v7"),
        Path("Uuid::new_v4"),
    ],
    tests_too: false,
};

const JOURNAL: Rule = Rule {
    within: &["journal/src/"],
    except: &[],
    never: &[Crate("tokio"), Crate("lapin"), Word("async"), Word("await"), Word("SystemTime"), Word("Instant")],
    tests_too: false,
};

/// The benchmarks' witness of what the engine costs by itself has its own.
const STORE: Rule = Rule {
    within: &[""],
    except: &["journal/src/sled_store.rs", "journal/tests/", "chaos-tests/src/bench/sled_alone.rs"],
    never: &[Crate("sled")],
    tests_too: false,
};

const SESSION: Rule = Rule {
    within: &["link/src/session/", "link/src/session.rs"],
    except: &[],
    never: &[
        Word("async"),
        Word("await"),
        Crate("tokio"),
        Crate("lapin"),
        Word("Instant"),
        Word("SystemTime"),
        Word("HashMap"),
        Word("HashSet"),
        Crate("getrandom"),
        Crate("rand"),
        Path("std::fs"),
        Path("std::net"),
        Path("std::env"),
        Path("std::thread"),
        Word("now_v7"),
        Word("new_v4"),
    ],
    tests_too: true,
};

/// Tests and the chaos tools speak to the broker on their own, to have a witness that is not us.
const LAPIN: Rule =
    Rule { within: &[""], except: &["link/src/amqp/", "chaos-tests/"], never: &[Crate("lapin")], tests_too: false };

const SERVER: Rule = Rule { within: &["server/"], except: &[], never: &[Crate("agent")], tests_too: true };
const AGENT: Rule = Rule { within: &["agent/"], except: &[], never: &[Crate("server")], tests_too: true };
const CHAOS: Rule =
    Rule { within: &["chaos-tests/"], except: &[], never: &[Crate("server"), Crate("agent")], tests_too: true };

const BROKER: Rule = Rule {
    within: &["link/src/", "messages/", "journal/", "server/", "agent/"],
    except: &["link/src/amqp/"],
    never: &[Crate("broker_config")],
    tests_too: true,
};

const PROCESS: Rule = Rule {
    within: &[""],
    except: &[
        "cli/src/main.rs",
        "cli/src/serving.rs",
        "cli/src/logging.rs",
        "chaos-tests/src/bin/",
        // A forked child that does not become the step's program has nobody to return to.
        "agent/src/shim/program.rs",
    ],
    never: &[Path("process::exit"), Crate("tracing_subscriber")],
    tests_too: true,
};

/// The compiler refuses unsafe code where nothing allows it; here is where something may. Not the word itself: names have it, too.
const UNSAFE: Rule =
    Rule { within: &[""], except: &["agent/src/kernel.rs"], never: &[Word("unsafe_code")], tests_too: true };

fn offences(rule: &Rule, sources: &[Source]) -> Vec<String> {
    let covers = |prefixes: &[&str], path: &str| prefixes.iter().any(|prefix| path.starts_with(prefix));
    let mut offences = Vec::new();
    for source in sources {
        if !covers(rule.within, &source.path) || covers(rule.except, &source.path) {
            continue;
        }
        let mut named = paths(&source.production);
        if rule.tests_too {
            named.extend(paths(&source.tests));
        }
        for found in named {
            if let Some(pattern) = rule.never.iter().find(|pattern| found.is(**pattern)) {
                offences.push(format!("{}:{} names {pattern:?}", source.path, found.line));
            }
        }
    }
    offences
}

#[test]
fn messages_does_no_io_reads_no_clock_and_makes_no_random_numbers() {
    none(offences(&MESSAGES, &sources()));
}

#[test]
fn the_journal_knows_no_async_runtime_no_broker_library_and_no_clock() {
    none(offences(&JOURNAL, &sources()));
}

#[test]
fn the_store_engine_is_named_in_one_file_and_its_witness() {
    none(offences(&STORE, &sources()));
}

#[test]
fn the_session_has_no_async_no_clock_no_randomness_and_no_order_by_chance() {
    none(offences(&SESSION, &sources()));
}

#[test]
fn lapin_is_named_only_in_the_amqp_transport() {
    none(offences(&LAPIN, &sources()));
}

#[test]
fn server_and_agent_never_know_each_other() {
    none(offences(&SERVER, &sources()));
    none(offences(&AGENT, &sources()));
}

#[test]
fn the_chaos_tests_meet_server_and_agent_only_as_processes() {
    none(offences(&CHAOS, &sources()));
}

#[test]
fn the_brokers_names_are_known_only_to_the_transport_and_the_command_line() {
    none(offences(&BROKER, &sources()));
}

#[test]
fn only_the_command_line_ends_the_process_or_decides_where_logs_go() {
    none(offences(&PROCESS, &sources()));
}

#[test]
fn unsafe_code_is_in_one_file() {
    none(offences(&UNSAFE, &sources()));
}

mod tests {
    use super::*;

    #[test]
    fn every_banned_name_is_found_where_it_is_banned() {
        let rules =
            [&MESSAGES, &JOURNAL, &STORE, &SESSION, &LAPIN, &SERVER, &AGENT, &CHAOS, &BROKER, &PROCESS, &UNSAFE];
        for rule in rules {
            for pattern in rule.never {
                let code = match pattern {
                    Crate(name) => format!("//! Doc.\nfn f() {{ {name}::g(); }}"),
                    Path(path) => format!("//! Doc.\nuse {path}::X;"),
                    Word(word) => format!("//! Doc.\nfn f() {{ let x = {word}; }}"),
                };
                let folder = if rule.within[0].is_empty() { "server/src/" } else { rule.within[0] };
                let source = [Source::new(&format!("{folder}offender.rs"), &code)];
                assert_eq!(offences(rule, &source).len(), 1, "{pattern:?} in {folder}");
                let comment = [Source::new(&format!("{folder}x.rs"), &format!("//! {}", code.replace('\n', " ")))];
                assert!(offences(rule, &comment).is_empty(), "{pattern:?} in a comment");
            }
        }
    }

    #[test]
    fn exceptions_and_tests_are_free_where_the_rule_says_so() {
        let code = "//! Doc.\nuse lapin::Channel;";
        for (path, count) in [
            ("link/src/amqp/dial.rs", 0),
            ("link/src/driver/mod.rs", 1),
            ("broker-config/tests/live.rs", 0),
            ("cli/src/main.rs", 1),
        ] {
            assert_eq!(offences(&LAPIN, &[Source::new(path, code)]).len(), count, "{path}");
        }
        let in_tests = "//! Doc.\n#[cfg(test)]\nmod tests { use std::collections::HashMap; }";
        assert_eq!(offences(&SESSION, &[Source::new("link/src/session/x.rs", in_tests)]).len(), 1);
    }
}
