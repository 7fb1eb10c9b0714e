//! The API over real TCP, with a desk of these files' own behind it: who is let in, how questions are bounded, what refusals
//! look like, and that following a job misses nothing.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod desk;
mod world;

use std::sync::Arc;

use messages::{JobId, LogKey, RunId};
use serde_json::json;
use server::api::{Api, BindError, JobPrefix, Token};
use server::views::JobState;
use world::{World, config, patient};

const JOB: &str = "name='x'\ntarget={agents=['a1']}\n[[step]]\nid='s'\nrun='true'\n";
#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let world = World::new().await;
    let other = Token::generate().unwrap();
    for (authorization, status) in [
        (String::new(), 401),
        ("Authorization: Bearer\r\n".into(), 401),
        (format!("Authorization: Bearer {}\r\n", other.reveal()), 401),
        (format!("Authorization: Basic {}\r\n", world.token.reveal()), 401),
        (format!("Authorization: bearer {}\r\n", world.token.reveal()), 200),
    ] {
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n");
        let reply = world.raw(request.into_bytes()).await;
        assert_eq!(reply.status, status, "{authorization} {reply:?}");
        if status == 401 {
            assert_eq!(reply.json()["schema"], "longshore.error/1");
            assert!(reply.json()["next"].as_str().unwrap().contains("api.json"));
        }
    }
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(world.raw(request.into()).await.status, 200);
    let request = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(world.raw(request.into()).await.status, 401);
}

#[tokio::test]
async fn a_page_under_another_name_cannot_reach_the_api() {
    let world = World::new().await;
    for (host, status) in [
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("10.0.0.1", 403),
        ("localhost:7766", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:7766", 200),
        ("[::1]:7766", 200),
        ("ship.example:80", 200),
    ] {
        let token = world.token.reveal();
        let request = format!(
            "GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        assert_eq!(world.raw(request.into_bytes()).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn submitting_again_is_the_same_job() {
    let world = World::new().await;
    let first = world.submit(7, JOB).await;
    assert_eq!((first.status, &first.json()["schema"]), (201, &json!("longshore.job/1")));
    let again = world.submit(7, JOB).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    let other = world.submit(7, &JOB.replace("'x'", "'y'")).await;
    assert_eq!(other.status, 409, "{other:?}");
    assert_eq!(other.json()["state"], "no job was made");
}

#[tokio::test]
async fn a_job_that_cannot_be_taken_is_refused_with_its_places() {
    let world = World::new().await;
    let reply = world.submit(1, &JOB.replace("run", "rnu")).await;
    assert_eq!(reply.status, 422);
    let problems = reply.json()["problems"].clone();
    assert_eq!(problems[1]["hint"], "did you mean `run`?", "{problems}");
    assert_eq!(problems[1]["position"], json!({"line": 5, "column": 1}));
    assert_eq!(problems[1]["span"], json!({"start": 48, "end": 51}));
    let reply = world.submit(1, &JOB.replace("a1", "a3")).await;
    assert_eq!(reply.status, 422);
    assert!(reply.json()["next"].as_str().unwrap().contains("did you mean `a1`?"), "{reply:?}");
    let reply = world.submit(1, &JOB.replace("agents=['a1']", "all=true")).await;
    assert_eq!((reply.status, reply.json()["state"].as_str()), (422, Some("no job was made")));
    let params = json!({"id": JobId::from_u128(1), "definition": JOB, "params": {"a": "b"}}).to_string();
    assert_eq!(world.post(&params).await.json()["problems"][0]["what"], "the job has no parameter `a`");
    assert!(world.desk.books.lock().unwrap().jobs.is_empty());
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused_in_our_own_words() {
    let world = World::new().await;
    assert_eq!(world.submit(7 << 64, JOB).await.status, 201);
    assert_eq!(world.submit((7 << 64) + 1, JOB).await.status, 201);
    for body in ["", "{", "[]", "{\"id\":\"x\",\"definition\":\"\"}", "{\"id\":1}", &"[".repeat(100_000)] {
        let reply = world.post(body).await;
        assert_eq!((reply.status, &reply.json()["schema"]), (400, &json!("longshore.error/1")), "{reply:?}");
    }
    let reply = world.post(&" ".repeat(256 * 1024 + 1)).await;
    assert_eq!(reply.status, 413);
    for (path, status) in [
        ("/v1/jobs?limit=0", 400),
        ("/v1/jobs?limit=1001", 400),
        ("/v1/jobs?limit=x", 400),
        ("/v1/jobs?state=asleep", 400),
        ("/v1/jobs?colour=red", 400),
        ("/v1/jobs/zzzz", 400),
        ("/v1/jobs/%FF%FF", 400),
        ("/v1/jobs/0000", 409),
        ("/v1/jobs/ffff", 404),
        ("/v1/jobs/ffff/events", 404),
        ("/v1/agents/A", 400),
        ("/v1/agents/a9", 404),
        ("/v1/agents/a9/link", 404),
        ("/v2", 404),
        ("/v1/status?x", 200),
    ] {
        let reply = world.get(path).await;
        assert_eq!(reply.status, status, "{path} {reply:?}");
        if status >= 400 {
            assert_eq!(reply.json()["schema"], "longshore.error/1", "{path}");
        }
    }
    let reply = world.raw(world.head("DELETE", "/v1/jobs", "").into_bytes()).await;
    assert_eq!((reply.status, &reply.json()["schema"]), (405, &json!("longshore.error/1")));
}

#[tokio::test]
async fn jobs_agents_and_links_are_shown() {
    let world = World::new().await;
    for id in 1..=3 {
        world.submit(id, JOB).await;
    }
    let list = world.get("/v1/jobs?limit=2&state=running").await.json();
    assert_eq!((list["jobs"].as_array().unwrap().len(), &list["more"]), (2, &json!(true)));
    assert_eq!(list["jobs"][0]["steps"], 1);
    let job = world.get(&format!("/v1/jobs/{}", JobId::from_u128(2))).await.json();
    assert_eq!((&job["id"], &job["runs"][0]["state"]), (&json!(JobId::from_u128(2)), &json!("sent")));
    assert_eq!(world.get("/v1/agents").await.json()["agents"][1]["state"], "unreachable");
    assert_eq!(world.get("/v1/agents/a1").await.json()["schema"], "longshore.agent/1");
    assert_eq!(world.get("/v1/agents/a1/link").await.json()["outgoing"]["gaps"], json!([[1, 2]]));
    assert_eq!(world.get("/v1/status").await.json()["agents"]["unreachable"], 1);
}

fn key(id: u128, stream: &str) -> LogKey {
    serde_json::from_value(json!({"run": RunId::from_u128(id + 1), "step": "s", "attempt": 1, "stream": stream}))
        .unwrap()
}

#[tokio::test]
async fn a_log_is_read_from_an_offset_and_says_how_long_it_is() {
    let world = World::new().await;
    world.submit(7, JOB).await;
    let path = format!("/v1/jobs/{}/logs?run={}&step=s&stream=stdout", JobId::from_u128(7), RunId::from_u128(8));
    let empty = world.get(&path).await;
    assert!(
        empty.head.contains("x-longshore-size: 0") && empty.head.contains("x-longshore-complete: false"),
        "{empty:?}"
    );
    world.desk.change(|books| books.logs.insert(key(7, "stdout"), (b"hello world".to_vec(), true)));
    let reply = world.get(&format!("{path}&offset=6")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "world"));
    assert!(reply.head.contains("x-longshore-size: 11") && reply.head.contains("x-longshore-complete: true"));
    assert_eq!(world.get(&format!("{path}&offset=99999999")).await.body, "");
    assert_eq!(world.get(&format!("{path}&attempt=2")).await.status, 404);
    assert_eq!(world.get(&path.replace("step=s", "step=t")).await.status, 404);
    assert_eq!(world.get(&path.replace("stdout", "stdin")).await.status, 400);
    assert_eq!(world.get(&format!("{path}&offset=-1")).await.status, 400);
}

#[tokio::test]
async fn following_a_job_shows_its_output_before_its_end_and_then_that_all_was_said() {
    let world = World::new().await;
    world.submit(7, JOB).await;
    let id = JobId::from_u128(7);
    let mut events = world.follow(&format!("/v1/jobs/{id}/events?logs=1"), "").await;
    let (name, revision, job) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &job["state"]), ("job", &json!("running")));
    assert!(revision.ends_with(".101"), "{revision}");

    // Half a character at the end of the first piece; more than fits one event in the second.
    let long = "x".repeat(40_000);
    world.desk.change(|books| {
        books.jobs.get_mut(&id).unwrap().1.runs[0].steps[0].attempt = 1;
        books.logs.insert(key(7, "stdout"), (b"a\xE2\x82".to_vec(), false));
    });
    let (name, _, log) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &log["text"], &log["bytes"]), ("log", &json!("a"), &json!(1)));
    assert_eq!(events.next().await.unwrap().0, "job");
    world.desk.change(|books| {
        books.jobs.get_mut(&id).unwrap().1.state = JobState::Succeeded;
        books.logs.insert(key(7, "stdout"), ([b"a\xE2\x82\xAC", long.as_bytes()].concat(), true));
        books.logs.insert(key(7, "stderr"), (Vec::new(), true));
    });
    let mut text = String::new();
    let job = loop {
        let (name, _, data) = events.next().await.unwrap();
        if name == "job" {
            break data;
        }
        assert_eq!(data["offset"], json!(text.len() + 1));
        text.push_str(data["text"].as_str().unwrap());
    };
    assert_eq!(text, format!("€{long}"));
    assert_eq!(job["state"], "succeeded");
    assert_eq!(events.next().await.unwrap().0, "complete");

    world.stop.send(true).unwrap();
    assert_eq!(events.next().await, None);
    patient(world.serving).await.unwrap();
}

#[tokio::test]
async fn who_comes_back_with_the_latest_revision_is_not_told_again() {
    let world = World::new().await;
    world.submit(7, JOB).await;
    let id = JobId::from_u128(7);
    let path = format!("/v1/jobs/{id}/events");
    let (_, latest, _) = world.follow(&path, "").await.next().await.unwrap();
    let mut same = world.follow(&path, &format!("Last-Event-ID: {latest}\r\n")).await;
    // The same number counted by another process says nothing.
    let mut other = world.follow(&path, "Last-Event-ID: 0000000000000000.101\r\n").await;
    assert_eq!(other.next().await.unwrap().1, latest);
    // Another job's change is not this job's. Only then does this one end.
    world.submit(8, JOB).await;
    world.desk.change(|books| books.jobs.get_mut(&id).unwrap().1.state = JobState::Failed);
    for events in [&mut same, &mut other] {
        let (name, revision, job) = events.next().await.unwrap();
        assert_eq!((name.as_str(), &job["state"]), ("job", &json!("failed")));
        assert_eq!(revision, latest.replace(".101", ".103"));
        assert_eq!(events.next().await.unwrap().0, "complete");
    }
}

#[tokio::test]
async fn nothing_is_said_before_it_is_kept_by_an_answer_or_by_an_event() {
    let world = World::new().await;
    world.submit(7, JOB).await;
    let path = format!("/v1/jobs/{}", JobId::from_u128(7));
    let mut events = world.follow(&format!("{path}/events"), "").await;
    assert_eq!(events.next().await.unwrap().2["state"], "running");
    world.desk.kept.send_replace(false);
    world.desk.change(|books| books.jobs.get_mut(&JobId::from_u128(7)).unwrap().1.state = JobState::Failed);
    let (mut answer, mut event) = (Box::pin(world.get(&path)), Box::pin(events.next()));
    let mut first = Box::pin(async { world.follow(&format!("{path}/events"), "").await.next().await });
    let all_wait = async {
        while world.desk.kept.receiver_count() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = &mut answer => panic!("{answer:?}"),
        event = &mut event => panic!("{event:?}"),
        first = &mut first => panic!("{first:?}"),
        () = all_wait => {}
    }
    world.desk.kept.send_replace(true);
    assert_eq!(answer.await.json()["state"], "failed");
    assert_eq!(event.await.unwrap().2["state"], "failed");
    assert_eq!(first.await.unwrap().2["state"], "failed");
}

#[test]
fn ids_that_begin_alike_follow_one_another_from_the_least() {
    let id: JobId = "0198c0de-7abc-7def-8123-456789abcdef".parse().unwrap();
    for length in 4..=36 {
        let prefix: JobPrefix = id.to_string()[..length].parse().unwrap();
        let least = prefix.least().unwrap();
        assert!(least <= id && prefix.matches(least), "{length} {least}");
        assert!(least == JobId::from_u128(0) || !prefix.matches(JobId::from_u128(least.uuid().as_u128() - 1)));
    }
    for never in ["----", "0198c0de7", "0198c0de-7abc-7def-8123-456789abcde-"] {
        assert_eq!(never.parse::<JobPrefix>().unwrap().least(), None, "{never}");
    }
}

#[tokio::test]
async fn a_question_about_a_job_waits_until_the_job_is_settled_or_the_time_is_over_or_the_server_stops() {
    let world = Arc::new(World::new().await);
    let id = JobId::from_u128(7);
    let path = |wait: &str| format!("/v1/jobs/{id}?wait_ms={wait}");
    world.submit(7, JOB).await;
    for wrong in ["25001", "-1", "x", "99999999999999999999"] {
        assert_eq!(world.get(&path(wrong)).await.status, 400, "{wrong}");
    }
    assert_eq!(world.get(&path("1")).await.json()["state"], "running");
    let asked = {
        let (world, path) = (Arc::clone(&world), path("25000"));
        tokio::spawn(async move { world.get(&path).await.json()["state"].clone() })
    };
    while world.desk.revision.receiver_count() == 0 && !asked.is_finished() {
        tokio::task::yield_now().await;
    }
    world.submit(8, JOB).await;
    assert!(!asked.is_finished());
    world.desk.change(|books| books.jobs.get_mut(&id).unwrap().1.state = JobState::NeedsDecision);
    assert_eq!(asked.await.unwrap(), "needs-decision");
    assert_eq!(world.get(&path("25000")).await.json()["state"], "needs-decision");

    world.desk.change(|books| books.jobs.get_mut(&id).unwrap().1.state = JobState::Running);
    let asked = {
        let (world, path) = (Arc::clone(&world), path("25000"));
        tokio::spawn(async move { world.get(&path).await.json()["state"].clone() })
    };
    while world.desk.revision.receiver_count() == 0 && !asked.is_finished() {
        tokio::task::yield_now().await;
    }
    world.stop.send(true).unwrap();
    assert_eq!(asked.await.unwrap(), "running");
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_a_clear_error() {
    let token = Token::generate().unwrap();
    let first = Api::bind(config("127.0.0.1:0", &token)).await.unwrap();
    let error = Api::bind(config(&first.address().to_string(), &token)).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { address } if address == first.address()));
    assert!(error.to_string().contains("--listen"), "{error}");
    let error = Api::bind(config("0.0.0.0:0", &token)).await.unwrap_err();
    assert!(matches!(error, BindError::NotLoopback { .. }), "{error}");
    for listen in ["", "x", "127.0.0.1", "127.0.0.1:99999"] {
        let error = Api::bind(config(listen, &token)).await.unwrap_err();
        assert!(matches!(error, BindError::Address { .. }), "{listen} {error}");
    }
}

#[tokio::test]
async fn orders_are_read_bounded_and_answered_with_what_became_of_them() {
    let world = World::new().await;
    world.submit(7, JOB).await;
    let job = format!("/v1/jobs/{}", JobId::from_u128(7));
    let cancel = format!("{job}/cancel");
    let long = json!({"reason": "x".repeat(5_000)}).to_string();
    for wrong in ["", "7", r#"{"why":"x"}"#, r#"{"reason":"a\nb"}"#, &long] {
        assert_eq!(world.post_to(&cancel, wrong).await.status, 400, "{wrong}");
    }
    let reply = world.post_to(&cancel, r#"{"reason":"wrong release"}"#).await;
    assert_eq!((reply.status, &reply.json()["cancelled"]), (200, &json!("wrong release")));
    let again = world.post_to(&cancel, "{}").await;
    assert_eq!((again.status, again.json()["state"].as_str()), (409, Some("nothing was changed")));

    let resolve = format!("{job}/resolve");
    let unexplained = world.post_to(&resolve, r#"{"decision":"done","note":" "}"#).await;
    assert_eq!(unexplained.status, 400);
    let reply = world.post_to(&resolve, r#"{"decision":"done","note":"seen"}"#).await;
    assert_eq!(reply.status, 409, "nothing waits for a decision: {reply:?}");
    world.desk.change(|books| {
        for (_, job) in books.jobs.values_mut() {
            job.runs[0].state = server::views::RunState::NeedsDecision;
        }
    });
    let reply = world.post_to(&resolve, r#"{"decision":"retry","note":"seen"}"#).await;
    assert_eq!((reply.status, &reply.json()["runs"][0]["reason"]), (200, &json!("Retry seen")));

    let drained = world.post_to("/v1/agents/a1/orders", r#"{"order":"drain","note":"disk swap"}"#).await;
    assert_eq!((drained.status, &drained.json()["paused"]), (200, &json!("disk swap")));
    assert_eq!(world.post_to("/v1/agents/a1/orders", r#"{"order":"explode"}"#).await.status, 400);
    assert_eq!(world.post_to("/v1/agents/a9/orders", r#"{"order":"pause"}"#).await.status, 404);
}

#[tokio::test]
async fn a_retry_is_one_job_however_often_it_is_asked_for_and_a_refusal_says_what_to_do() {
    let world = World::new().await;
    let job = world.submit(7, JOB).await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{job}/retry");
    let body = json!({"id": JobId::from_u128(8)}).to_string();
    let first = world.post_to(&path, &body).await;
    assert_eq!((first.status, &first.json()["retry_of"]), (201, &json!(job)), "{first:?}");
    let again = world.post_to(&path, &body).await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    let refused = world.post_to(&path, &json!({"id": JobId::from_u128(9), "from": "s"}).to_string()).await;
    assert_eq!(refused.status, 409);
    assert!(refused.json()["next"].as_str().unwrap().contains("leave --from out"), "{refused:?}");
    for wrong in ["{}", r#"{"id":"x"}"#, r#"{"id":"00000000-0000-0000-0000-000000000009","steps":[]}"#] {
        let refused = world.post_to(&path, wrong).await;
        assert_eq!((refused.status, &refused.json()["state"]), (400, &json!("nothing was changed")), "{refused:?}");
    }
    assert_eq!(world.post_to("/v1/jobs/dead/retry", &body).await.status, 404);
}
