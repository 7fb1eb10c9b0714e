//! What the command line says of a job file before anything is submitted: warnings, the plan, outages, the schema.

use serde_json::Value;

use crate::run::{Home, Server};

const DEPLOY: &str = r#"
name = "deploy ${{ params.release }}"
target = { pool = "web", labels = ["env=prod"], max_parallel = "25%", max_failed = 1, expires = "1h" }
concurrency = { group = "web" }
timeout = "30m"
params = { release = { default = "2.4.1" } }
[[step]]
id = "switch"
run = "true"
effect = "idempotent"
[[step]]
id = "notify"
run = "true"
timeout = "2m"
retry = { limit = 5, on_exit = [7, 22], backoff = "2s..30s" }
"#;

#[test]
fn lint_warns_of_what_is_allowed_and_probably_not_meant() {
    let home = Home::new();
    home.write("deploy.toml", DEPLOY);
    let ran = home.run(&["job", "lint", "deploy.toml"]);
    let drawing = "  ⚠ step `notify` must not run twice, and `retry` runs it again after a failure
    ╭─[deploy.toml:15:1]
 14 │ timeout = \"2m\"
 15 │ retry = { limit = 5, on_exit = [7, 22], backoff = \"2s..30s\" }
    · ──┬──
    ·   ╰── here
    ╰────
  help: right when a failed attempt changed nothing; after an unknown outcome a person is still
        asked

deploy.toml: ok, 2 steps for agents of pool web with env=prod, takes release; 1 warning
";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, drawing, ""));
    let json: Value = serde_json::from_str(&home.run(&["job", "lint", "deploy.toml", "--json"]).out).unwrap();
    assert_eq!((&json["ok"], &json["files"][0]["problems"]), (&true.into(), &Value::Array(Vec::new())));
    assert_eq!(json["files"][0]["warnings"][0]["position"]["line"], 15);
    let csv = home.run(&["job", "lint", "deploy.toml", "-o", "csv"]).out;
    assert!(csv.contains("deploy.toml,15,1,warning,\"step `notify` must not run twice"), "{csv}");
}

#[test]
fn a_dry_run_without_a_server_says_what_it_does_not_know() {
    let home = Home::new();
    home.write("deploy.toml", DEPLOY);
    let ran = home.run(&["job", "run", "-n", "deploy.toml", "-p", "release=3"]);
    let plan = "deploy 3 would run on agents of pool web with env=prod; nothing was submitted
  agents  no server can be asked, so which agents those are is not known
  order   25% of them at a time; after more than 1 failed no further one begins; what has not begun after 1h00m is given up
  group   web (queue)
  limit   30m00s for each agent
  param   release = 3
STEP    WHEN     TRIES  LIMIT  EFFECT      WHEN ITS OUTCOME IS UNKNOWN
switch  success  1      -      idempotent  it is run again
notify  success  6      2m00s  once        a person decides
";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, plan, ""));
    let json: Value = serde_json::from_str(&home.run(&["job", "run", "-n", "deploy.toml", "--json"]).out).unwrap();
    assert_eq!((&json["schema"], &json["agents"]), (&"longshore.dry-run/1".into(), &Value::Null));
    assert_eq!(json["steps"][1]["retry"]["on_exit"], serde_json::json!([7, 22]));
}

#[test]
fn a_dry_run_asks_the_server_who_would_do_it_and_submits_nothing() {
    let server = Server::new();
    let ends = |code: i32, target: &str| {
        let step = "[[step]]\nid = 's'\nrun = 'true'\n";
        server.home.write("dry.toml", &format!("name = 'x'\ntarget = {target}\n{step}"));
        let ran = server.run(&["job", "run", "-n", "dry.toml"]);
        assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{ran:?}");
        let lines: Vec<String> = ran.out.lines().map(str::to_owned).collect();
        (lines[1].clone(), lines[2].clone())
    };
    let dry = |target: &str| ends(0, target);
    let at_once = "  order   all at once, as far as they have slots".to_owned();
    assert_eq!(dry("{ all = true }"), ("  agents  a1, a2".to_owned(), at_once.clone()));
    assert_eq!(dry("{ all = true, skip_offline = true }").0, "  agents  a1");
    assert_eq!(dry("{ agents = ['a2'] }").0, "  agents  a2");
    // As the run itself would end.
    assert_eq!(ends(2, "{ agents = ['a9'] }").0, "  agents  there is no agent a9, so the job would be refused");
    assert_eq!(dry("{ all = true, max_parallel = '50%' }").1, "  order   1 at a time");
    assert_eq!(dry("{ all = true, pick = 'one' }").1, "  order   one of them, the least busy");
    assert_eq!(server.run(&["job", "list", "-o", "name"]).out, "");
}

#[test]
fn explain_says_what_an_outage_would_do_at_each_phase() {
    let home = Home::new();
    home.write("deploy.toml", DEPLOY);
    let ran = home.run(&["job", "explain", "deploy.toml"]);
    let notify = "
step notify · once
  It is never run again by itself when its outcome is unknown: its run waits for a person, who is shown the evidence.
  A failure with exit code 7 or 22 is tried again up to 5 times, first after 2.0s, at last 30.0s apart. An unknown outcome is not a failure: there the effect decides.
  After 2m00s its supervisor ends it, during an outage too; that is a known failure.
WHEN THE STEP IS                BROKER, NETWORK OR SERVER  AGENT'S PROCESS          MACHINE OR SUPERVISOR
before it is started            goes on                    begins when it is back   begins when it is back
started                         goes on                    goes on                  a person decides
running                         goes on                    goes on                  a person decides
ended, not yet noted            goes on                    goes on                  a person decides
ended, not yet reported         reported later             reported later           reported later
reported, not yet acknowledged  told again, counts once    told again, counts once  told again, counts once
";
    assert!(ran.code == 0 && ran.out.ends_with(notify), "{}", ran.out);
    let csv = home.run(&["job", "explain", "deploy.toml", "-o", "csv"]).out;
    assert_eq!(csv.lines().count(), 1 + 2 * 6 * 3);
    assert!(csv.contains("\r\nswitch,idempotent,running,machine,runs-again\r\n"), "{csv}");
    home.write("bad.toml", "name = 'x'\n");
    let ran = home.run(&["job", "explain", "bad.toml"]);
    assert!(ran.code == 2 && ran.err.contains("the job has no `target`"), "{ran:?}");
    let ran = home.run(&["job", "explain", "nowhere.toml"]);
    assert!(ran.code == 2 && ran.err.contains("cannot read the job file nowhere.toml"), "{ran:?}");
}

#[test]
fn explain_says_why_a_job_stands_where_it_does() {
    let server = Server::new();
    let id = server.submit();
    let ran = server.run(&["job", "explain", &id[..13]]);
    let expected = format!(
        "job {id} · x · running: at least one run has not ended\nAGENT  STATE  WHY\na1     sent   it is on its way; the agent has not said that it has it\n"
    );
    assert_eq!((ran.code, ran.out), (0, expected));
    let json: Value = serde_json::from_str(&server.run(&["job", "explain", &id, "--json"]).out).unwrap();
    assert_eq!((&json["schema"], &json["runs"][0]["state"]), (&"longshore.explain-job/1".into(), &"sent".into()));
}

#[test]
fn the_schema_is_printed_for_editors() {
    let ran = Home::new().run(&["job", "schema"]);
    let schema: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &schema), (0, &server::job_file::schema()));
}
