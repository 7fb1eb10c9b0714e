//! A job that failed is started again, over a real broker: from the step that failed, in the folder and with the outputs of the steps
//! before it, once. What ran is counted by marks on disk.

use chaos_tests::live::Marks;
use libtest_mimic::Failed;
use serde_json::Value;

use crate::Test;
use crate::support::{World, ensure, steps, text};

pub(crate) const TESTS: &[Test] = &[
    ("a_job_that_failed_at_its_third_step_is_started_again_from_there", from_the_third),
    ("what_a_retry_cannot_go_on_in_is_said_and_so_is_what_to_do", homeless),
];

/// Four steps. The third fails until there is a marker, and needs what the first left in the folder and handed on.
fn four(world: &World, marks: &Marks) -> String {
    let (mark, mended) = (marks.line(), world.path("mended"));
    let step =
        |id: &str, more: &str, run: &str| format!("[[step]]\nid = \"{id}\"\n{more}\nrun = '''\n{mark}\n{run}\n'''\n");
    let first = step("fetch", "outputs = [\"version\"]", "echo kept > file; echo version=7 >> \"$LONGSHORE_OUTPUT\"");
    let third =
        format!("[ -e '{}' ]; [ \"$(cat file)$OUTPUT_FETCH_VERSION\" = kept7 ]; echo through", mended.display());
    [first, step("stop", "", ":"), step("switch", "effect = \"idempotent\"", &third), step("start", "", ":")].concat()
}

fn made(marks: &Marks) -> Result<Vec<usize>, Failed> {
    let counts = marks.counts()?;
    let of = |id: &str| counts.get(&format!("a1.{id}")).copied().unwrap_or(0);
    Ok(["fetch", "stop", "switch", "start"].map(of).to_vec())
}

fn failed(world: &World, job: &str, at: &str) -> Result<Value, Failed> {
    let ended = world.ended(job)?;
    let found = steps(&ended).into_iter().find(|(_, state)| state == "failed").map(|(id, _)| id);
    ensure(ended["state"] == "failed" && found.as_deref() == Some(at), format!("{ended:#}"))?;
    Ok(ended)
}

fn from_the_third() -> Result<(), Failed> {
    let mut world = World::start(&["a1", "a2"])?;
    let marks = Marks::new(&world.path("marks"))?;
    let job = world.submit(&four(&world, &marks))?;
    failed(&world, &job, "switch")?;
    std::fs::write(world.path("mended"), "")?;
    // What is to be done again is in the journal, not in the memory of a process; and the order for it outlives an outage.
    world.fleet.server.kill()?;
    world.fleet.server.start()?;
    world.fleet.wait_online()?;
    world.fleet.node.kill()?;
    let id = uuid::Uuid::now_v7().to_string();
    let retry = ["job", "retry", &job, "--run", "a1", "--id", &id];
    let said = world.cli(&retry)?;
    ensure(said.status.success() && text(&said).contains("goes on with test on a1, from step switch"), text(&said))?;
    let again = world.cli(&retry)?;
    ensure(again.status.success() && text(&again).contains(&id), text(&again))?;
    world.fleet.node.start()?;
    let ended = world.ended(&id)?;
    ensure(ended["state"] == "succeeded", format!("{ended:#}"))?;
    let made = made(&marks)?;
    ensure(made == [1, 1, 2, 1], format!("fetch, stop, switch and start ran {made:?} times"))?;
    let first = &world.fleet.api().get(&format!("/v1/jobs/{job}"))?["runs"][0]["id"];
    let carried = |at: usize| ended["runs"][0]["steps"][at]["earlier"] == *first;
    ensure(carried(0) && carried(1) && !carried(2) && !carried(3), format!("{ended:#}"))?;
    let shown = text(&world.cli(&["job", "show", &job])?);
    let short = |id: &str| id.chars().take(13).collect::<String>();
    let chain = format!("retries: {} failed (this one) → {} succeeded", short(&job), short(&id));
    ensure(shown.contains(&chain) && shown.contains("step switch failed"), shown)?;
    let listed = text(&world.cli(&["job", "list", "-o", "name"])?);
    ensure(listed.lines().count() == 2, format!("it was taken once: {listed}"))?;
    let twice = world.cli(&["job", "retry", &job, "--run", "a1"])?;
    ensure(!twice.status.success() && text(&twice).contains("started again already"), text(&twice))
}

fn homeless() -> Result<(), Failed> {
    let world = World::start(&["a1"])?;
    let marks = Marks::new(&world.path("marks"))?;
    let job = world.submit(&four(&world, &marks))?;
    let ended = failed(&world, &job, "switch")?;
    std::fs::write(world.path("mended"), "")?;
    let run = ended["runs"][0]["id"].as_str().unwrap_or_default().to_owned();
    std::fs::remove_dir_all(world.fleet.endpoint_dir("a1").join("runs").join(run).join("work"))?;
    let id = uuid::Uuid::now_v7().to_string();
    let followed = world.cli(&["job", "retry", &job, "--id", &id, "--follow"])?;
    ensure(followed.status.code() == Some(1) && text(&followed).contains("--from fetch"), text(&followed))?;
    ensure(made(&marks)? == [1, 1, 1, 0], format!("{:?}", made(&marks)?))?;
    // Its second step is `once` and took effect: it is not begun at the first step either.
    let refused = world.cli(&["job", "retry", &id, "--from", "fetch"])?;
    ensure(!refused.status.success() && text(&refused).contains("it is not run again"), text(&refused))
}
