//! `longshore job run -n`: what a job would do, and who would do it as far as a server says. Submits nothing.

use std::collections::BTreeMap;

use messages::{AgentId, Effect, StepSpec, When};
use serde::{Deserialize, Serialize};
use server::job_file::{JobFile, Pick, Plan, Target, Who, param_variable};
use server::views::{AgentsView, Schema};

use crate::args::Global;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Printer, Table, clean, took};

/// What a job would do.
#[derive(Debug, Clone, Serialize)]
struct DryRunView {
    name: String,
    target: String,
    /// Agents that would do it as things stand now; nothing when that is not known.
    agents: Option<Vec<String>>,
    /// Why it is not known, or what speaks against it.
    agents_note: Option<String>,
    /// How they would go about it.
    order: String,
    params: BTreeMap<String, String>,
    steps: Vec<StepSpec>,
}

impl Schema for DryRunView {
    const SCHEMA: &'static str = "longshore.dry-run/1";
}

/// What is asked of the server's answer about agents. A server that does not say what an agent is leaves it out.
#[derive(Debug, Clone, Deserialize)]
struct Fleet {
    agents: Vec<Known>,
}

impl Schema for Fleet {
    const SCHEMA: &'static str = AgentsView::SCHEMA;
}

#[derive(Debug, Clone, Deserialize)]
struct Known {
    name: AgentId,
    state: String,
    #[serde(default)]
    pool: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Agents that match, or why that is not known; with them what speaks against it.
type Matching = (Option<Vec<String>>, Option<String>);

/// Prints what would be done.
pub(crate) fn run(file: &JobFile, plan: &Plan, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let target = file.target();
    let fleet = Client::new(global).and_then(|client| client.get::<Fleet>("/v1/agents"));
    let (agents, agents_note) = match fleet {
        Ok(fleet) => matching(target, &fleet),
        Err(_) => match &target.who {
            Who::Agents(_) => (None, Some("no server can be asked whether it knows them".to_owned())),
            Who::All | Who::Matching { .. } => {
                (None, Some("no server can be asked, so which agents those are is not known".to_owned()))
            }
        },
    };
    // As `job run` itself would end.
    let exit = match &target.who {
        Who::Agents(_) if agents.as_ref().is_some_and(Vec::is_empty) => Exit::Usage,
        Who::All | Who::Agents(_) | Who::Matching { .. } => Exit::Ok,
    };
    let order = order(target, agents.as_ref().map(Vec::len));
    let value = |name: &str| plan.steps.first().and_then(|step| step.env.get(&param_variable(name)).cloned());
    let params = file.param_names().filter_map(|name| Some((name.to_owned(), value(name)?))).collect();
    let view = DryRunView {
        name: plan.name.clone(),
        target: target.who.to_string(),
        agents,
        agents_note,
        order,
        params,
        steps: plan.steps.clone(),
    };
    let table = steps(&plan.steps);
    printer.one(&view, &head(&view, plan), &table)?;
    Ok(exit)
}

fn matching(target: &Target, fleet: &Fleet) -> Matching {
    let names = |wanted: &dyn Fn(&Known) -> bool| {
        let here = |known: &&Known| !target.skip_offline || known.state == "online";
        fleet.agents.iter().filter(|known| wanted(known)).filter(here).map(|known| known.name.to_string()).collect()
    };
    let found: Vec<String> = match &target.who {
        Who::All => names(&|_| true),
        Who::Agents(agents) => {
            let unknown = agents.iter().find(|agent| fleet.agents.iter().all(|known| known.name != **agent));
            if let Some(unknown) = unknown {
                return (Some(Vec::new()), Some(format!("there is no agent {unknown}, so the job would be refused")));
            }
            names(&|known| agents.contains(&known.name))
        }
        Who::Matching { pool, labels } => {
            if fleet.agents.iter().all(|known| known.labels.is_none()) && !fleet.agents.is_empty() {
                return (None, Some("the server does not say which pools and labels its agents have".to_owned()));
            }
            names(&|known| {
                let in_pool = pool.is_none() || known.pool == *pool;
                in_pool && known.labels.as_ref().is_some_and(|of_agent| labels.matches(of_agent))
            })
        }
    };
    let note = found.is_empty().then(|| "no agent matches now".to_owned());
    (Some(found), note)
}

/// In which order the agents do it, in words.
fn order(target: &Target, agents: Option<usize>) -> String {
    let mut words = match (target.pick, target.max_parallel, agents) {
        (Pick::One, _, _) => "one of them, the least busy".to_owned(),
        (Pick::All, None, _) => "all at once, as far as they have slots".to_owned(),
        (Pick::All, Some(share), Some(total)) => format!("{} at a time", share.of(total)),
        (Pick::All, Some(share), None) => format!("{share} of them at a time"),
    };
    match target.max_failed {
        Some(0) => words.push_str("; after the first failure no further one begins"),
        Some(most) => words.push_str(&format!("; after more than {most} failed no further one begins")),
        None => {}
    }
    if let Some(ms) = target.expires_ms {
        words.push_str(&format!("; what has not begun after {} is given up", took(ms)));
    }
    words
}

fn head(view: &DryRunView, plan: &Plan) -> String {
    let mut text = format!("{} would run on {}; nothing was submitted\n", clean(&view.name), clean(&view.target));
    if let Some(agents) = view.agents.as_ref().filter(|agents| !agents.is_empty()) {
        text.push_str(&format!("  agents  {}\n", agents.join(", ")));
    }
    if let Some(note) = &view.agents_note {
        text.push_str(&format!("  agents  {note}\n"));
    }
    text.push_str(&format!("  order   {}\n", view.order));
    if let Some(group) = &plan.concurrency {
        text.push_str(&format!("  group   {} ({})\n", clean(&group.group), group.on_conflict.as_str()));
    }
    if let Some(ms) = plan.timeout_ms {
        text.push_str(&format!("  limit   {} for each agent\n", took(ms)));
    }
    for (name, value) in &view.params {
        text.push_str(&format!("  param   {name} = {}\n", clean(value)));
    }
    text
}

fn steps(steps: &[StepSpec]) -> Table {
    let mut table = Table::new([
        Column::new("STEP"),
        Column::new("WHEN"),
        Column::new("TRIES"),
        Column::new("LIMIT"),
        Column::new("EFFECT"),
        Column::new("WHEN ITS OUTCOME IS UNKNOWN"),
    ]);
    for step in steps {
        let (effect, after) = match &step.effect {
            Effect::ReadOnly => ("read-only", "it is run again"),
            Effect::Idempotent => ("idempotent", "it is run again"),
            Effect::Guarded(_) => ("guarded", "its check decides"),
            Effect::Once => ("once", "a person decides"),
        };
        let when = match step.when {
            When::Success => "success",
            When::Failure => "failure",
            When::Always => "always",
        };
        table.row([
            Cell::new(&step.id),
            Cell::new(when),
            Cell::new(step.retry.as_ref().map_or(1, |retry| retry.limit.saturating_add(1))),
            step.timeout_ms.map_or_else(Cell::none, |ms| Cell::both(took(ms), ms)),
            Cell::new(effect),
            Cell::new(after),
        ]);
    }
    table
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use server::job_file::Selector;

    use super::*;

    fn matched(target: &Target, agents: &serde_json::Value) -> Matching {
        matching(target, &serde_json::from_value(serde_json::json!({ "agents": agents })).unwrap())
    }

    fn named(names: &[&str]) -> Matching {
        (Some(names.iter().map(|name| (*name).to_owned()).collect()), None)
    }

    #[test]
    fn agents_match_by_pool_and_labels_where_the_server_says_what_they_are() {
        let agents = serde_json::json!([
            {"name": "a1", "state": "online", "pool": "web", "labels": {"env": "prod"}},
            {"name": "a2", "state": "online", "pool": "db", "labels": {"env": "prod"}},
            {"name": "a3", "state": "unreachable", "pool": "web", "labels": {"env": "prod"}},
            {"name": "a4", "state": "online", "pool": "web", "labels": {}},
            {"name": "a5", "state": "never-seen"},
        ]);
        let target = |pool: Option<&str>, labels: &str| {
            let labels = Selector::parse(labels).unwrap();
            Target::of(Who::Matching { pool: pool.map(str::to_owned), labels })
        };
        assert_eq!(matched(&target(Some("web"), "env=prod"), &agents), named(&["a1", "a3"]));
        assert_eq!(matched(&target(None, "!env"), &agents), named(&["a4"]));
        let here = Target { skip_offline: true, ..target(Some("web"), "env=prod") };
        assert_eq!(matched(&here, &agents), named(&["a1"]));
        let (none, note) = matched(&target(None, "gpu"), &agents);
        assert_eq!((none, note.as_deref()), (Some(Vec::new()), Some("no agent matches now")));
    }

    #[test]
    fn a_server_that_does_not_say_what_agents_are_leaves_it_unknown() {
        let agents = serde_json::json!([{"name": "a1", "state": "online"}]);
        let target = Target::of(Who::Matching { pool: Some("web".into()), labels: Selector::default() });
        let (agents, note) = matched(&target, &agents);
        assert!(agents.is_none() && note.unwrap().contains("does not say"));
    }
}
