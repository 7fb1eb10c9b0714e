//! The head of a job file: who runs it, how long, what may run beside it, what stays of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use messages::{AgentId, Keep, is_label};

use super::amount;
use super::keys;
use super::params::ParamSpec;
use super::problem::{Problems, shown};
use super::reader::{self, Fields, Value};
use super::selector::Selector;
use super::target::{Concurrency, OnConflict, Pick, Share, Target, Who};
use super::template::Template;

/// Labels in a list.
pub(super) const LABELS_MAX: usize = 64;
/// Agents that are named one by one. Whoever has more has a label for them.
pub(super) const AGENTS_MAX: usize = 10_000;
const TARGET_HINT: &str =
    "write target = { pool = \"web\" }, { labels = [\"env=prod\"] }, { agents = [\"a1\"] } or { all = true }";

/// A group whose name may still hold placeholders.
#[derive(Debug, Clone)]
pub(super) struct ConcurrencyTemplate {
    pub(super) group: Template,
    /// The place of the group's name.
    pub(super) span: Range<usize>,
    /// As it is written, placeholders and all.
    pub(super) written: Concurrency,
}

/// Reads `target`.
pub(super) fn target(value: &Value<'_>, source: &str, problems: &mut Problems) -> Option<Target> {
    let Some(table) = value.get_ref().as_table() else {
        problems.at(value.span(), "`target` must be a table", TARGET_HINT);
        return None;
    };
    let fields = Fields::check(table, value.span(), keys::TARGET, &[], problems);
    let who = who(&fields, source, problems);
    let pick = fields.get("pick").map(|value| reader::word("pick", value, &keys::PICK, problems));
    let max_parallel = fields.get("max_parallel").map(|value| share(value, problems));
    let max_failed = fields.get("max_failed").map(|value| {
        let found = reader::integer("max_failed", value, 0..=i64::from(u32::MAX), problems)?;
        u32::try_from(found).ok()
    });
    let mut flag = |key| fields.get(key).map(|value| reader::boolean(key, value, problems));
    let (sticky, skip_offline) = (flag("sticky"), flag("skip_offline"));
    let expires_ms = fields.get("expires").map(|value| reader::span("expires", value, problems));
    Some(Target {
        who: who?,
        pick: pick.unwrap_or(Some(Pick::All))?,
        max_parallel: max_parallel.map_or(Some(None), |found| found.map(Some))?,
        max_failed: max_failed.map_or(Some(None), |found| found.map(Some))?,
        sticky: sticky.unwrap_or(Some(false))?,
        skip_offline: skip_offline.unwrap_or(Some(false))?,
        expires_ms: expires_ms.map_or(Some(None), |found| found.map(Some))?,
    })
}

fn who(fields: &Fields<'_, '_>, source: &str, problems: &mut Problems) -> Option<Who> {
    match (fields.get("agents"), fields.get("all"), fields.get("pool"), fields.get("labels")) {
        (Some(value), None, None, None) => agents(value, problems),
        (None, Some(value), None, None) => match reader::boolean("all", value, problems)? {
            true => Some(Who::All),
            false => {
                problems.at(value.span(), "`all = false` names no agent", "write agents = [\"a1\"] instead");
                None
            }
        },
        (None, None, None, None) => {
            problems.at(fields.span.clone(), "the target names no agent", TARGET_HINT);
            None
        }
        (None, None, pool, selector) => {
            let pool = pool.map(|value| pool_name(value, problems));
            let selector = selector.map(|value| labels(value, source, problems));
            Some(Who::Matching {
                pool: pool.map_or(Some(None), |found| found.map(Some))?,
                labels: selector.unwrap_or_else(|| Some(Selector::default()))?,
            })
        }
        (Some(_), Some(value), _, _) => {
            problems.at(value.span(), "a target has `agents` or `all`, not both", "leave one of them out");
            None
        }
        (agents, _, pool, _) => {
            let named = if agents.is_some() { "agents" } else { "all" };
            let key = if pool.is_some() { "pool" } else { "labels" };
            let what = format!("a target with `{named}` has no use for `{key}`");
            problems.at(fields.key_span(key), what, format!("leave out `{named}`, or leave out `{key}`"));
            None
        }
    }
}

fn agents(value: &Value<'_>, problems: &mut Problems) -> Option<Who> {
    let list = reader::array("agents", value, problems)?;
    if list.len() > AGENTS_MAX {
        let what = format!("{} agents, at most {AGENTS_MAX} can be named", list.len());
        problems.at(value.span(), what, "give them a label, and write target = { labels = \"that-label\" }");
        return None;
    }
    let mut agents = BTreeSet::new();
    for value in list {
        match reader::text("agents", value, problems).map(str::parse::<AgentId>) {
            Some(Ok(agent)) if agents.contains(&agent) => {
                problems.at(value.span(), format!("the agent `{agent}` is named twice"), "leave one of them out");
            }
            Some(Ok(agent)) => drop(agents.insert(agent)),
            Some(Err(error)) => problems.at(value.span(), error.to_string(), ""),
            None => {}
        }
    }
    if list.is_empty() {
        problems.at(value.span(), "the target names no agent", "name at least one, or write target = { all = true }");
        return None;
    }
    Some(Who::Agents(agents))
}

fn pool_name(value: &Value<'_>, problems: &mut Problems) -> Option<String> {
    let name = reader::text("pool", value, problems)?;
    if !is_label(name) {
        let what = format!("`{}` cannot be the name of a pool", shown(name));
        problems.at(value.span(), what, "1 to 63 letters, digits and - _ . /");
        return None;
    }
    Some(name.to_owned())
}

/// One expression, or a list of expressions that must all hold.
fn labels(value: &Value<'_>, source: &str, problems: &mut Problems) -> Option<Selector> {
    let mut items = Vec::new();
    if value.get_ref().as_str().is_some() {
        items.push(value);
    } else {
        let Some(list) = value.get_ref().as_array() else {
            let hint = "write labels = [\"env=prod\", \"os!=windows\"] or labels = \"gpu && env in (test, prod)\"";
            problems.at(value.span(), "`labels` must be a text in quotes, or a list of them", hint);
            return None;
        };
        if list.is_empty() || list.len() > LABELS_MAX {
            let hint = "leave it out when every agent is meant";
            problems.at(value.span(), format!("`labels` has 1 to {LABELS_MAX} entries"), hint);
            return None;
        }
        items.extend(list.iter());
    }
    let mut texts = Vec::with_capacity(items.len());
    for item in &items {
        texts.push(reader::text("labels", item, problems)?);
    }
    match Selector::all_of(texts.iter().copied()) {
        Ok(selector) => Some(selector),
        Err(error) => {
            let place = items
                .get(error.item)
                .map_or(value.span(), |item| reader::within(source, &item.span(), texts[error.item], &error.at));
            problems.at(place, error.what, error.hint);
            None
        }
    }
}

/// A number of agents, or a part of them.
fn share(value: &Value<'_>, problems: &mut Problems) -> Option<Share> {
    let hint = "write a number such as 2, or a part such as \"25%\"";
    if let Some(text) = value.get_ref().as_str() {
        let percent = amount::percent(text).ok().and_then(|percent| u8::try_from(percent).ok());
        return match percent.filter(|percent| (1..=100).contains(percent)) {
            Some(percent) => Some(Share::Percent(percent)),
            None => {
                problems.at(value.span(), format!("`{}` is not a part of the agents", shown(text)), hint);
                None
            }
        };
    }
    if !value.get_ref().is_integer() {
        problems.at(value.span(), "`max_parallel` must be a number, or a text such as \"25%\"", hint);
        return None;
    }
    let count = reader::integer("max_parallel", value, 1..=i64::from(u32::MAX), problems)?;
    u32::try_from(count).ok().map(Share::Count)
}

/// Reads `concurrency`.
pub(super) fn concurrency(
    value: &Value<'_>,
    source: &str,
    params: &BTreeMap<String, ParamSpec>,
    problems: &mut Problems,
) -> Option<ConcurrencyTemplate> {
    let table = reader::table("concurrency", value, problems)?;
    let fields = Fields::check(table, value.span(), keys::CONCURRENCY, &[], problems);
    let on_conflict = match fields.get("on_conflict") {
        Some(value) => reader::word("on_conflict", value, &keys::ON_CONFLICT, problems),
        None => Some(OnConflict::default()),
    };
    let Some(group) = fields.get("group") else {
        problems.at(fields.span.clone(), "`concurrency` names no group", "give it one: group = \"web-prod\"");
        return None;
    };
    let text = reader::text("group", group, problems)?;
    let template = Template::parse(text, &group.span(), source, params, problems);
    let written = Concurrency { group: text.to_owned(), on_conflict: on_conflict? };
    Some(ConcurrencyTemplate { group: template, span: group.span(), written })
}

/// Reads `keep`.
pub(super) fn keep(value: &Value<'_>, problems: &mut Problems) -> Option<Keep> {
    reader::word("keep", value, &keys::KEEP, problems)
}
