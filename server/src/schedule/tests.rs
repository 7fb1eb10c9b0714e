//! Who gets which run, step by step, over books in memory.
#![allow(clippy::unwrap_used)]

use messages::{AgentFacts, MessageId};

use super::*;
use crate::job_file::JobFile;
use crate::records::{JobRow, RunRow};
use crate::views::RunState;

struct World {
    books: Books,
    fleet: Fleet,
    jobs: u128,
}

fn name(agent: &str) -> AgentId {
    agent.parse().unwrap()
}

impl World {
    fn new(agents: &[(&str, u16)]) -> Self {
        let now = |slots| AgentNow { online: true, slots, ..AgentNow::default() };
        let fleet = agents.iter().map(|(agent, slots)| (name(agent), now(*slots))).collect();
        Self { books: Books::default(), fleet, jobs: 0 }
    }

    /// A job with that name, target and further keys; its runs wait.
    fn job(&mut self, title: &str, target: &str, more: &str) -> JobId {
        self.jobs += 1;
        let text =
            format!("name = \"{title}\"\ntarget = {{ {target} }}\n{more}\n[[step]]\nid = \"s\"\nrun = \"true\"\n");
        let file = JobFile::parse(&text).unwrap();
        let plan = file.plan(&BTreeMap::new()).unwrap();
        let start = plan.run_start(RunId::from_u128(0), JobId::from_u128(self.jobs));
        let policy = Policy { target: file.target().clone(), concurrency: plan.concurrency, timeout_ms: None };
        let unassigned = policy.is_for_one();
        let agents: Vec<AgentId> = match &policy.target.who {
            _ if unassigned => Vec::new(),
            Who::Agents(agents) => agents.iter().cloned().collect(),
            Who::All | Who::Matching { .. } => self.fleet.keys().cloned().collect(),
        };
        let row = JobRow { policy: Some(policy), unassigned, ..JobRow::recalled(&start, self.jobs as u64) };
        let id = row.id;
        self.books.put_job(row);
        for (at, agent) in agents.into_iter().enumerate() {
            let number = self.jobs * 1_000 + at as u128;
            let run = RunRow::waiting(RunId::from_u128(number), id, agent, MessageId::from_u128(number), Vec::new());
            self.books.replace(run);
        }
        id
    }

    fn facts(&mut self, agent: &str, facts: AgentFacts) {
        let row = AgentRow { facts: Some(facts), ..self.books.agent(&name(agent)).cloned().unwrap_or_default() };
        self.books.put_agent(name(agent), row);
    }

    /// Gives out the next run.
    fn next(&mut self) -> Option<(JobId, String)> {
        let mut open = self.fleet.keys().cloned().collect();
        let Assignment { job, run, agent } = next(&self.books, &self.fleet, &mut open)?;
        let run = match run {
            Some(run) => self.books.run(run).unwrap().clone(),
            None => {
                let row = JobRow { unassigned: false, ..self.books.job(job).unwrap().clone() };
                self.books.put_job(row);
                let number = job.uuid().as_u128() * 1_000;
                RunRow::waiting(RunId::from_u128(number), job, agent.clone(), MessageId::from_u128(number), Vec::new())
            }
        };
        self.books.replace(RunRow { state: RunState::Sent, ..run });
        self.books.serve(job);
        Some((job, agent.to_string()))
    }

    fn all(&mut self) -> Vec<(JobId, String)> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn set(&mut self, job: JobId, agent: &str, state: RunState) {
        let run = self.books.runs_of(job).find(|run| run.agent.as_str() == agent).unwrap().clone();
        self.books.replace(RunRow { state, ..run });
    }

    fn why(&self, job: JobId) -> String {
        let view = self.books.view(job, &BTreeMap::new(), &self.fleet).unwrap();
        let runs = view.runs.into_iter().filter(|run| run.state == RunState::Waiting).filter_map(|run| run.reason);
        view.waiting.into_iter().chain(runs).collect::<Vec<_>>().join(" | ")
    }
}

#[test]
fn an_agent_gets_a_run_for_each_slot_and_as_many_to_go_on_with() {
    let mut world = World::new(&[("a1", 2)]);
    let jobs: Vec<JobId> = (0..6).map(|_| world.job("j", "agents = [\"a1\"]", "")).collect();
    assert_eq!(world.all().len(), 4);
    assert_eq!(world.why(jobs[4]), "agent a1 has 4 runs for 2 slots");
    world.set(jobs[0], "a1", RunState::Succeeded);
    assert_eq!(world.all(), [(jobs[4], "a1".to_owned())]);
    // One that waits for a person takes no slot.
    world.set(jobs[1], "a1", RunState::NeedsDecision);
    assert_eq!(world.all(), [(jobs[5], "a1".to_owned())]);
}

#[test]
fn an_agent_that_ends_runs_quickly_gets_more_of_these_no_others_and_none_that_any_agent_can_do() {
    let lately = EndedLately::from([("j".to_owned(), 5), ("slow".to_owned(), 2)]);
    let mut world = World::new(&[("a1", 2)]);
    world.fleet.get_mut(&name("a1")).unwrap().lately = lately.clone();
    let quick: Vec<JobId> = (0..9).map(|_| world.job("j", "agents = [\"a1\"]", "")).collect();
    // As many of the latter could have ended by chance, however long they take.
    let others = ["slow", "other"].map(|title| [(); 5].map(|()| world.job(title, "agents = [\"a1\"]", "")));
    let given = world.all();
    assert_eq!(given.len(), 7);
    assert_eq!(given[4..].iter().filter(|(job, _)| quick.contains(job)).count(), 3, "{given:?}");
    assert_eq!(world.why(others[0][4]), "agent a1 has 7 runs for 2 slots");
    let mut loose = World::new(&[("a1", 2)]);
    loose.fleet.get_mut(&name("a1")).unwrap().lately = lately.clone();
    for _ in 0..9 {
        loose.job("j", "all = true, pick = \"one\"", "");
    }
    assert_eq!(loose.all().len(), 2);
    let mut once = World::new(&[("a1", 2)]);
    once.fleet.get_mut(&name("a1")).unwrap().lately = lately;
    once.facts("a1", AgentFacts { once: true, slots: 2, ..AgentFacts::default() });
    for _ in 0..9 {
        once.job("j", "agents = [\"a1\"]", "");
    }
    assert_eq!(once.all().len(), 1);
}

#[test]
fn a_run_that_any_agent_can_do_goes_to_the_least_busy_and_is_never_queued_at_one() {
    let mut world = World::new(&[("a1", 1), ("a2", 4), ("a3", 1)]);
    world.fleet.get_mut(&name("a3")).unwrap().online = false;
    let jobs: Vec<JobId> = (0..6).map(|_| world.job("j", "all = true, pick = \"one\"", "")).collect();
    let given: Vec<String> = world.all().into_iter().map(|(_, agent)| agent).collect();
    assert_eq!(given, ["a1", "a2", "a2", "a2", "a2"]);
    assert!(world.why(jobs[5]).starts_with("none of the 3 agents that match is free"), "{}", world.why(jobs[5]));
}

#[test]
fn jobs_of_different_names_take_turns_however_many_there_are_of_one() {
    let mut world = World::new(&[("a1", 2)]);
    let many: Vec<JobId> = (0..100).map(|_| world.job("collect", "agents = [\"a1\"]", "")).collect();
    assert_eq!(world.all().len(), 4);
    let one = world.job("deploy", "agents = [\"a1\"]", "");
    world.set(many[0], "a1", RunState::Succeeded);
    assert_eq!(world.all(), [(one, "a1".to_owned())], "the hundred others were there first");
    world.set(many[1], "a1", RunState::Succeeded);
    assert_eq!(world.all(), [(many[4], "a1".to_owned())], "within a name the oldest comes first");
}

#[test]
fn over_a_long_time_two_names_get_the_same_share() {
    let mut world = World::new(&[("a1", 1)]);
    let mut owner = BTreeMap::new();
    for number in 0..200 {
        let title = if number < 150 { "many" } else { "few" };
        owner.insert(world.job(title, "all = true, pick = \"one\"", ""), title);
    }
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..100 {
        let (job, agent) = world.next().unwrap();
        *shares.entry(owner[&job]).or_default() += 1;
        world.set(job, &agent, RunState::Succeeded);
    }
    assert_eq!(shares, BTreeMap::from([("few", 50), ("many", 50)]));
}

#[test]
fn a_group_is_held_by_its_oldest_job_until_that_is_over() {
    let mut world = World::new(&[("a1", 4)]);
    let group = "concurrency = { group = \"web\", on_conflict = \"queue\" }";
    let first = world.job("x", "agents = [\"a1\"]", group);
    let second = world.job("y", "agents = [\"a1\"]", group);
    let other = world.job("z", "agents = [\"a1\"]", "");
    let given: BTreeSet<JobId> = world.all().into_iter().map(|(job, _)| job).collect();
    assert_eq!(given, [first, other].into());
    assert_eq!(world.why(second), format!("the group `web` is held by job {first}"));
    world.set(first, "a1", RunState::NeedsDecision);
    assert_eq!(world.all(), [], "nobody knows yet whether the first is over");
    world.set(first, "a1", RunState::Failed);
    assert_eq!(world.all(), [(second, "a1".to_owned())]);
}

#[test]
fn a_rolling_job_goes_on_one_by_one_and_stops_after_too_many_failures() {
    let mut world = World::new(&[("a1", 1), ("a2", 1), ("a3", 1), ("a4", 1)]);
    let job = world.job("roll", "all = true, max_parallel = 1, max_failed = 1", "");
    let (_, first) = world.next().unwrap();
    assert_eq!(world.next(), None);
    assert!(world.why(job).contains("a run of the job is under way, and no more may be at once"), "{}", world.why(job));
    world.set(job, &first, RunState::NeedsDecision);
    assert_eq!(world.next(), None, "an unknown outcome stops a rolling job");
    world.set(job, &first, RunState::Failed);
    let (_, second) = world.next().unwrap();
    world.set(job, &second, RunState::Failed);
    assert_eq!(world.next(), None);
    assert!(world.why(job).contains("too many other runs"), "{}", world.why(job));
}

#[test]
fn a_quarter_of_four_is_one_and_a_share_is_never_none() {
    let mut world = World::new(&[("a1", 1), ("a2", 1), ("a3", 1), ("a4", 1)]);
    world.job("roll", "all = true, max_parallel = \"25%\"", "");
    assert_eq!(world.all().len(), 1);
    world.job("small", "agents = [\"a2\"], max_parallel = \"1%\"", "");
    assert_eq!(world.all().len(), 1);
}

#[test]
fn who_is_held_back_gets_nothing_and_it_is_said_why() {
    type Hold = fn(&mut World);
    let holds: [(Hold, &str); 8] = [
        (|world| world.fleet.get_mut(&name("a1")).unwrap().draining = true, "agent a1 is draining"),
        (|world| world.fleet.get_mut(&name("a1")).unwrap().frozen = true, "are stopped"),
        (
            |world| world.fleet.get_mut(&name("a1")).unwrap().refusing = Some(RefusalCode::Disk),
            "agent a1 takes no work now: its disk is too full",
        ),
        (
            |world| {
                let row = AgentRow { paused: Some("disk swap".into()), ..AgentRow::default() };
                world.books.put_agent(name("a1"), row);
            },
            "agent a1 is paused: disk swap",
        ),
        (
            |world| {
                let row = AgentRow { draining: Some("old".into()), paused: Some("x".into()), ..AgentRow::default() };
                world.books.put_agent(name("a1"), row);
            },
            "agent a1 is drained: old",
        ),
        (
            |world| {
                world.books.put_agent(name("a1"), AgentRow { draining: Some(String::new()), ..AgentRow::default() });
            },
            "agent a1 is drained",
        ),
        (
            |world| {
                world.facts("a1", AgentFacts { once: true, slots: 4, ..AgentFacts::default() });
                let row = world.books.agent(&name("a1")).unwrap().clone();
                world.books.put_agent(name("a1"), AgentRow { once: Some(RunId::from_u128(1)), ..row });
            },
            "does one run only, and had it",
        ),
        (|world| world.fleet.retain(|agent, _| agent.as_str() != "a1"), "does not name agent a1 any more"),
    ];
    for (hold, word) in holds {
        let mut world = World::new(&[("a1", 1)]);
        let job = world.job("j", "agents = [\"a1\"]", "");
        hold(&mut world);
        assert_eq!(world.next(), None, "{word}");
        assert!(world.why(job).contains(word), "{} instead of {word}", world.why(job));
    }
}

#[test]
fn pools_and_labels_choose_and_nobody_is_a_reason_to_wait() {
    let mut world = World::new(&[("a1", 1), ("a2", 1)]);
    let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let job = world.job("j", "pool = \"web\", labels = [\"env=prod\"], pick = \"one\"", "");
    assert_eq!(world.why(job), "0 of 2 agents match");
    world.facts("a1", AgentFacts { pool: Some("db".into()), labels: labels.clone(), ..AgentFacts::default() });
    assert_eq!(world.next(), None);
    world.facts("a2", AgentFacts { pool: Some("web".into()), labels, ..AgentFacts::default() });
    assert_eq!(world.next(), Some((job, "a2".to_owned())));
}

#[test]
fn a_cancelled_job_gives_out_nothing_more() {
    let mut world = World::new(&[("a1", 1), ("a2", 1)]);
    let job = world.job("j", "all = true, max_parallel = 1", "");
    world.next().unwrap();
    let row = JobRow { cancelled: Some("wrong".into()), ..world.books.job(job).unwrap().clone() };
    world.books.put_job(row);
    assert_eq!(world.next(), None);
}

#[test]
fn a_sticky_job_goes_to_the_agent_that_had_the_last_of_its_kind_and_to_another_when_that_one_cannot() {
    let mut world = World::new(&[("a1", 4), ("a2", 1), ("a3", 4)]);
    let sticky = "all = true, pick = \"one\", sticky = true";
    let done = |world: &mut World, title: &str, target: &str, more: &str| {
        let job = world.job(title, target, more);
        // What a submit gives out at once goes where the dispatcher would give it.
        let at_once = least_busy(&world.books, &world.fleet, job);
        let given = world.all();
        let [(found, agent)] = &given[..] else { panic!("{given:?}: {}", world.why(job)) };
        assert_eq!((*found, at_once.as_ref().map(AgentId::as_str)), (job, Some(agent.as_str())));
        world.set(job, agent, RunState::Succeeded);
        agent.clone()
    };
    let busy = world.job("busy", "agents = [\"a1\"]", "");
    assert_eq!(world.all().len(), 1);
    assert_eq!(done(&mut world, "build", sticky, ""), "a2");
    world.set(busy, "a1", RunState::Succeeded);
    let long = world.job("long", "agents = [\"a2\"]", "");
    assert_eq!(world.all().len(), 1);
    assert_eq!(done(&mut world, "other", "all = true, pick = \"one\"", ""), "a1", "of another name");
    world.set(long, "a2", RunState::Succeeded);
    assert_eq!(done(&mut world, "build", sticky, ""), "a2", "where it was, though others come first");
    assert_eq!(done(&mut world, "build", "all = true, pick = \"one\"", ""), "a1", "not asked for");
    // Away: somebody else, who has it from then on.
    world.fleet.get_mut(&name("a2")).unwrap().online = false;
    assert_eq!(done(&mut world, "build", sticky, ""), "a1");
    world.fleet.get_mut(&name("a2")).unwrap().online = true;
    assert_eq!(done(&mut world, "build", sticky, ""), "a1");
    // Full, drained, or not like that any more.
    let held: Vec<JobId> = (0..4).map(|_| world.job("held", "agents = [\"a1\"]", "")).collect();
    assert_eq!(world.all().len(), 4);
    assert_eq!(done(&mut world, "build", sticky, ""), "a2");
    held.iter().for_each(|job| world.set(*job, "a1", RunState::Succeeded));
    world.fleet.get_mut(&name("a2")).unwrap().draining = true;
    assert_eq!(done(&mut world, "build", sticky, ""), "a1");
    let web = AgentFacts { pool: Some("web".to_owned()), slots: 4, ..AgentFacts::default() };
    world.facts("a3", web);
    assert_eq!(done(&mut world, "build", "pool = \"web\", pick = \"one\", sticky = true", ""), "a3");
    // A group holds jobs of different names together.
    let group = |target| (target, "concurrency = { group = \"db\" }");
    let (target, more) = group(sticky);
    assert_eq!(done(&mut world, "migrate", target, more), "a1");
    assert_eq!(done(&mut world, "vacuum", "pool = \"web\", pick = \"one\", sticky = true", more), "a3");
    assert_eq!(done(&mut world, "migrate", target, more), "a3");
}

#[test]
fn what_a_sticky_job_stays_with_is_known_after_a_restart() {
    let mut world = World::new(&[("a1", 1), ("a2", 1)]);
    let sticky = "all = true, pick = \"one\", sticky = true";
    world.fleet.get_mut(&name("a1")).unwrap().online = false;
    let first = world.job("build", sticky, "");
    assert_eq!(world.all(), [(first, "a2".to_owned())]);
    world.set(first, "a2", RunState::Succeeded);
    world.fleet.get_mut(&name("a1")).unwrap().online = true;
    let mut books = Books::default();
    books.put_job(world.books.job(first).unwrap().clone());
    world.books.runs_of(first).for_each(|run| books.replace(run.clone()));
    world.books = books;
    let second = world.job("build", sticky, "");
    assert_eq!(world.all(), [(second, "a2".to_owned())]);
}
