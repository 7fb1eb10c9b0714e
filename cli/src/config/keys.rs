//! The keys of the configuration file, and what may be their values: one table, by which a value that cannot be used is named
//! with its section, its key and what is allowed instead. Reads no file.

use std::net::SocketAddr;
use std::ops::Range;

use messages::is_label;
use server::job_file::{Problem, nearest};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::settings::SLOTS;

/// Characters of a value that are repeated.
const SHOWN_MAX: usize = 60;

const ENGINE: &str = "\"sled\" or \"segments\"";
const FILE: &str = "the path of a PEM file, as text in quotes";
const SIZE: &str = "a whole number of MiB from 0 on";

/// Every key with what is allowed for it, by section.
const SECTIONS: [(&str, &[(&str, &str)]); 3] = [
    (
        "broker",
        &[
            (
                "url",
                "an address such as \"amqps://USER:PASSWORD@mq.example:5671\"; without TLS, amqp://, only on this machine",
            ),
            ("ca", FILE),
            ("client_cert", FILE),
            ("client_key", FILE),
        ],
    ),
    (
        "server",
        &[
            ("listen", "an address on this machine with its port, such as \"127.0.0.1:7766\"; port 0 takes a free one"),
            ("agents", "names such as [\"a1\", \"a2\"], each of small letters, digits and -"),
            ("queue_type", "\"quorum\" or \"classic\""),
            ("journal_engine", ENGINE),
        ],
    ),
    (
        "agent",
        &[
            ("name", "a name such as \"a1\", of small letters, digits and -"),
            ("slots", "a whole number from 1 to 1024"),
            ("journal_engine", ENGINE),
            ("pool", "1 to 63 letters, digits and -_./ without spaces"),
            (
                "labels",
                "such as { env = \"prod\" }, names and values of 1 to 63 letters, digits and -_./ without spaces",
            ),
            ("once", "true or false"),
            ("keep_runs", "a whole number from 0 on"),
            ("keep_mib", SIZE),
            ("quota_mib", SIZE),
            ("free_mib", SIZE),
        ],
    ),
];

/// Keys and sections that there are not, and what is no section.
pub(super) fn unknown(document: &DeTable<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let sections: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    check_keys(document, &sections, &mut problems);
    for (section, keys) in SECTIONS {
        let Some(value) = document.get(section) else { continue };
        match value.get_ref().as_table() {
            Some(table) => check_keys(table, &keys.iter().map(|(key, _)| *key).collect::<Vec<_>>(), &mut problems),
            None => problems.push(Problem {
                span: Some(value.span()),
                what: format!("`{section}` is a section, not a value"),
                hint: Some(format!("write [{section}], and its keys below it")),
            }),
        }
    }
    problems
}

fn check_keys(table: &DeTable<'_>, known: &[&str], problems: &mut Vec<Problem>) {
    for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
        let hint = nearest(key.get_ref(), known.iter().copied()).map_or_else(
            || format!("the keys known here are {}", known.join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        problems.push(Problem {
            span: Some(key.span()),
            what: format!("unknown key `{}`", key.get_ref()),
            hint: Some(hint),
        });
    }
}

/// The problem at that place, with the key whose value it is and what is allowed for it.
pub(super) fn at(document: &DeTable<'_>, text: &str, span: &Range<usize>, why: &str) -> Option<Problem> {
    SECTIONS.iter().find_map(|(section, keys)| {
        let table = document.get(*section)?.get_ref().as_table()?;
        let key = keys.iter().find(|(key, _)| table.get(*key).is_some_and(|value| holds(value, span)));
        key.map(|(key, _)| of(section, key, text, span, why))
    })
}

/// Whether a place is in a value, or in one of a table's that is spread over lines of its own.
fn holds(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let around = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut below = value.get_ref().as_table().into_iter().flatten();
    around(value.span()) || below.any(|(name, value)| around(name.span()) || around(value.span()))
}

/// What is wrong with that part of a key's value.
fn of(section: &str, key: &str, text: &str, span: &Range<usize>, why: &str) -> Problem {
    let keys = SECTIONS.iter().filter(|(name, _)| *name == section).flat_map(|(_, keys)| keys.iter());
    let allowed = keys.filter(|(name, _)| *name == key).map(|(_, allowed)| format!("allowed: {allowed}")).next();
    let value = text.get(span.clone()).unwrap_or_default();
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
    // An address may hold a password.
    let cannot = if key == "url" { "be used".to_owned() } else { format!("be {value}") };
    Problem {
        span: Some(span.clone()),
        what: format!("`{key}` under [{section}] cannot {cannot}: {why}"),
        hint: allowed,
    }
}

/// Values of the right type that cannot be used all the same.
pub(super) fn unusable(document: &DeTable<'_>, text: &str) -> Vec<Problem> {
    let get = |section: &str, key: &str| document.get(section)?.get_ref().as_table()?.get(key);
    let mut problems = Vec::new();
    if let Some(slots) = get("agent", "slots") {
        let slots_of = |slots: &DeInteger<'_>| u16::from_str_radix(slots.as_str(), slots.radix()).ok();
        if slots.get_ref().as_integer().and_then(slots_of).is_some_and(|number| !SLOTS.contains(&number)) {
            problems.push(of("agent", "slots", text, &slots.span(), "no agent has as many, or as few"));
        }
    }
    if let Some(listen) = get("server", "listen") {
        let address = listen.get_ref().as_str().and_then(|listen| listen.parse::<SocketAddr>().ok());
        if address.is_some_and(|address| !address.ip().is_loopback()) {
            let why = "other machines could reach it, and the API speaks without TLS";
            problems.push(of("server", "listen", text, &listen.span(), why));
        }
    }
    let label = |value: &Spanned<DeValue<'_>>| value.get_ref().as_str().is_none_or(is_label);
    if let Some(pool) = get("agent", "pool").filter(|pool| !label(pool)) {
        problems.push(of("agent", "pool", text, &pool.span(), "no pool has such a name"));
    }
    for (name, value) in get("agent", "labels").and_then(|labels| labels.get_ref().as_table()).into_iter().flatten() {
        let wrong = if is_label(name.get_ref()) { (!label(value)).then(|| value.span()) } else { Some(name.span()) };
        problems.extend(wrong.map(|span| of("agent", "labels", text, &span, "no label is like that")));
    }
    problems
}
