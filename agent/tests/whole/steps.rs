//! What steps are given and what they hand on: outputs, users, limits.

use std::collections::BTreeSet;

use messages::{Body, Effect, OutputType, RunEnd, StepChanged, StepEnd, StepEvent};

use crate::Test;
use crate::world::{How, World, on};

pub(crate) const TESTS: [Test; 8] = [
    ("outputs_are_given_to_later_steps_and_to_the_server", || on(outputs())),
    ("a_step_that_does_not_hand_on_what_it_declared_has_failed", || on(missing())),
    ("a_step_that_uses_more_memory_than_it_may_fails_and_the_host_says_what_it_enforces", || on(memory())),
    ("a_step_that_said_nothing_has_nothing_shipped_and_its_report_says_so", || on(silent())),
    ("what_another_process_prepared_is_prepared_again_before_it_is_begun", || on(prepared_before())),
    ("what_an_earlier_build_began_is_not_begun_beside_itself_whatever_its_effect", || on(begun_by_earlier_build())),
    ("a_step_whose_folder_is_gone_after_its_launch_waits_for_a_person", || on(folder_gone())),
    ("a_step_runs_as_another_user_only_under_root", || on(user())),
];

async fn outputs() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut first = world.step("get-it", "echo id=7 >> $LONGSHORE_OUTPUT; echo 'name=a b' >> $LONGSHORE_OUTPUT");
    first.outputs = [("id".to_owned(), OutputType::Integer), ("name".to_owned(), OutputType::Text)].into();
    let second = world.step("use-it", r#"[ "$OUTPUT_GET_IT_ID" = 7 ] && [ "$OUTPUT_GET_IT_NAME" = "a b" ]"#);
    let run = world.run(1, vec![first, second]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    let ended = world.event(run.run, |change| matches!(change.event, StepEvent::Ended(_))).await;
    assert_eq!(ended.outputs, [("id", "7"), ("name", "a b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    agent.stop().await;
}

async fn missing() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let scripts = ["true", "echo id=x > $LONGSHORE_OUTPUT", "rm $LONGSHORE_OUTPUT; mkfifo $LONGSHORE_OUTPUT"];
    let said = ["did not hand on its output `id`", "line 1: `id` is to be a whole number", "not a plain file"];
    for (number, (script, said)) in (1..).zip(scripts.into_iter().zip(said)) {
        let mut step = world.step("get", script);
        step.outputs = [("id".to_owned(), OutputType::Integer)].into();
        let run = world.run(number, vec![step]);
        world.send(&Body::RunStart(run.clone())).await;
        assert!(matches!(world.run_end(run.run).await, RunEnd::Failed(_)));
        let ends = world.step_ends(run.run);
        assert!(matches!(&ends[0].1, StepEnd::Failed(reason) if reason.contains(said)), "{ends:?}");
    }
    agent.stop().await;
}

async fn memory() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    // Without a line end in it, all of it is kept in memory by whoever looks for the last line.
    let script = "head -c 300000000 /dev/zero | tail -n 1 > $PLACE/out";
    let mut tight = world.step("tight", script);
    tight.limits.memory_bytes = Some(64 * 1024 * 1024);
    tight.limits.cpu_percent = Some(50);
    let run = world.run(1, vec![tight]);
    world.send(&Body::RunStart(run.clone())).await;
    assert!(matches!(world.run_end(run.run).await, RunEnd::Failed(_)));
    let started = world.event(run.run, |change| change.event == StepEvent::Started).await;
    assert!(started.note.unwrap().contains("limits not enforced here"));
    let free = world.run(2, vec![world.step("free", script)]);
    world.send(&Body::RunStart(free.clone())).await;
    assert_eq!(world.run_end(free.run).await, RunEnd::Succeeded);
    agent.stop().await;
}

async fn silent() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut again = world.step("again", "[ $LONGSHORE_ATTEMPT = 2 ] && echo now");
    again.retry = Some(messages::Retry { limit: 1, on_exit: Vec::new(), first_ms: 1, max_ms: 1 });
    let run = world.run(1, vec![world.step("quiet", "true"), again, world.step("loud", "echo >&2 here")]);
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded);
    let over = |change: &StepChanged| matches!(change.event, StepEvent::Ended(_) | StepEvent::Retrying(..));
    let said: Vec<_> = world.changes(run.run).into_iter().filter(over).map(|change| change.silent).collect();
    assert_eq!(said, [true, true, false, false]);
    // An agent that has drained has shipped the logs.
    agent.drain.send_replace(true);
    agent.ended().await.unwrap();
    let shipped: BTreeSet<_> =
        world.logs.lock().unwrap().taken.keys().map(|key| (key.step.to_string(), key.attempt)).collect();
    assert_eq!(shipped, [("again", 2), ("loud", 1)].map(|(step, attempt)| (step.to_owned(), attempt)).into());
}

async fn prepared_before() {
    let world = World::new().await;
    let run = world.run(1, vec![world.step("one", "true")]);
    // Of what the earlier process did, a loss of power left a part.
    let dir = world.agent_dir().join("runs").join(run.run.to_string());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("one.1.record"), []).unwrap();
    let agent = world.agent(How::default());
    world.send(&Body::RunStart(run.clone())).await;
    assert_eq!(world.run_end(run.run).await, RunEnd::Succeeded, "{:?}", world.step_ends(run.run));
    agent.stop().await;
}

async fn begun_by_earlier_build() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut step = world.step("one", "echo ran >> $PLACE/ran");
    step.effect = Effect::Idempotent;
    let run = world.run(1, vec![step]);
    std::fs::create_dir_all(world.agent_dir().join("runs").join(run.run.to_string()).join("one.1")).unwrap();
    world.send(&Body::RunStart(run.clone())).await;
    let undecided = world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
    assert!(matches!(&undecided.event, StepEvent::Undecided(why) if why.contains("see to it")), "{undecided:?}");
    assert!(!world.path("ran").exists());
    agent.stop().await;
}

async fn folder_gone() {
    let world = World::new().await;
    let agent = world.agent(How::default());
    let mut step = world.step("tidy", r#"echo ran >> $PLACE/ran; rm -rf "$(dirname "$LONGSHORE_OUTPUT")""#);
    step.effect = Effect::Once;
    step.retry = Some(messages::Retry { limit: 2, on_exit: Vec::new(), first_ms: 1, max_ms: 1 });
    let run = world.run(1, vec![step]);
    world.send(&Body::RunStart(run.clone())).await;
    let undecided = world.event(run.run, |change| matches!(change.event, StepEvent::Undecided(_))).await;
    assert!(matches!(&undecided.event, StepEvent::Undecided(why) if why.contains("is gone since")), "{undecided:?}");
    assert_eq!(std::fs::read_to_string(world.path("ran")).unwrap(), "ran\n");
    agent.stop().await;
}

async fn user() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new().await;
    // The way to the agent's folder is not the agent's to open.
    std::fs::set_permissions(world.root.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let agent = world.agent(How::default());
    let mut other = world.step("other", "echo who=$(id -un) > $LONGSHORE_OUTPUT; touch mine; ! cat ../other.1.record");
    other.user = Some("nobody".to_owned());
    other.outputs = [("who".to_owned(), OutputType::Text)].into();
    // Nothing is wanted of this one, and it may use the file all the same.
    let mut plain = world.step("plain", "echo unwanted > $LONGSHORE_OUTPUT");
    plain.user = Some("nobody".to_owned());
    let mut nobody_knows = world.step("unknown", "true");
    nobody_knows.user = Some("no-such-user".to_owned());
    let (run, wrong) = (world.run(1, vec![other, plain]), world.run(2, vec![nobody_knows]));
    world.send_all(&[Body::RunStart(run.clone()), Body::RunStart(wrong.clone())]).await;
    let end = world.run_end(run.run).await;
    let ends = world.step_ends(run.run);
    if rustix::process::geteuid().is_root() {
        assert_eq!(end, RunEnd::Succeeded, "{ends:?}");
        let ended = world.event(run.run, |change| matches!(change.event, StepEvent::Ended(_))).await;
        assert_eq!(ended.outputs["who"], "nobody");
    } else {
        assert!(matches!(&ends[0].1, StepEnd::NotStarted(reason) if reason.contains("runs as root")), "{ends:?}");
    }
    world.run_end(wrong.run).await;
    let ends = world.step_ends(wrong.run);
    assert!(matches!(&ends[0].1, StepEnd::NotStarted(reason) if reason.contains("no-such-user")), "{ends:?}");
    agent.stop().await;
}
