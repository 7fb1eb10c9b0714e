//! What needs no server: help, lint, configuration, and the errors when there is no server.

use std::os::unix::fs::PermissionsExt as _;

use crate::run::{Home, JOB};

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    for command in [
        "server run",
        "agent run",
        "agent service unit",
        "server service unit",
        "dev",
        "job run",
        "job list",
        "job show",
        "job logs",
        "job lint",
        "job explain",
        "job schema",
        "fleet list",
        "fleet show",
        "agents list",
        "journal list",
        "journal show",
        "journal stats",
        "journal verify",
        "journal quarantine",
        "reconcile show",
        "reconcile resolve",
        "broker check",
        "broker definitions",
        "broker conf",
        "version",
        "completions",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let ran = home.run(&arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        assert!(ran.out.contains("Usage: longshore") && ran.out.contains("LONGSHORE_DIR"), "{command}");
    }
    let ran = home.run(&["server", "run", "--help"]);
    for name in ["--broker-url", "LONGSHORE_BROKER_URL", "--queue-type", "quorum", "--agents", "--listen", "--config"] {
        assert!(ran.out.contains(name), "{name}");
    }
}

#[test]
fn the_exit_codes_can_be_looked_up() {
    let ran = Home::new().run(&["help", "exit-codes"]);
    for code in
        ["    0  ", "    1  ", "    2  ", "   65  ", "   69  ", "   75  ", "   77  ", "   78  ", "  124  ", "  130  "]
    {
        assert!(ran.out.contains(code), "{code} {ran:?}");
    }
    // It is a topic, not a command with options.
    assert!(ran.code == 0 && !ran.out.contains("Usage:") && !ran.out.contains("Options:"), "{ran:?}");
}

#[test]
fn a_command_that_does_not_exist_is_a_usage_error() {
    let home = Home::new();
    for arguments in [
        &["jobb"][..],
        &[],
        &["job", "run"],
        &["job", "show", "not-an-id!"],
        &["fleet", "show", "A"],
        &["-o", "xml", "version"],
    ] {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?} {ran:?}");
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for (shell, sign) in [("bash", "_longshore()"), ("zsh", "#compdef longshore"), ("fish", "complete -c longshore")] {
        let ran = Home::new().run(&["completions", shell]);
        assert!(ran.code == 0 && ran.out.contains(sign) && ran.out.contains("reconcile"), "{shell}");
    }
}

#[test]
fn a_good_job_file_passes_lint() {
    let home = Home::new();
    home.write("good.toml", JOB);
    let ran = home.run(&["job", "lint", "good.toml"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "good.toml: ok, 1 step for 1 agent\n", ""));
    let ran = home.run(&["job", "run", "-n", "good.toml"]);
    let plan = "x would run on a1; nothing was submitted
  agents  no server can be asked whether it knows them
  order   all at once, as far as they have slots
STEP  WHEN     TRIES  LIMIT  EFFECT  WHEN ITS OUTCOME IS UNKNOWN
s     success  1      -      once    a person decides
";
    assert_eq!((ran.code, ran.out.as_str()), (0, plan));
}

#[test]
fn lint_draws_every_problem_at_its_place() {
    let home = Home::new();
    home.write(
        "bad.toml",
        "nmae = \"x\"\nname = \"x\"\ntarget = { all = true }\n[[step]]\nid = \"s\"\nrun = \"${{ params.a }}\"\n",
    );
    let ran = home.run(&["job", "lint", "bad.toml"]);
    let drawing = "  × unknown key `nmae`
   ╭─[bad.toml:1:1]
 1 │ nmae = \"x\"
   · ──┬─
   ·   ╰── here
 2 │ name = \"x\"
   ╰────
  help: did you mean `name`?

  × placeholders are not expanded in `run`
   ╭─[bad.toml:6:8]
 5 │ id = \"s\"
 6 │ run = \"${{ params.a }}\"
   ·        ───────┬───────
   ·               ╰── here
   ╰────
  help: every parameter is an environment variable: PARAM_ and its name in capitals

bad.toml: 2 problems
";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, drawing, ""));
}

#[test]
fn lint_looks_at_every_file_even_if_one_cannot_be_read() {
    let home = Home::new();
    home.write("good.toml", JOB);
    let ran = home.run(&["job", "lint", "none.toml", "good.toml", "nor.toml"]);
    let out = "none.toml: cannot read the job file none.toml: No such file or directory (os error 2)
good.toml: ok, 1 step for 1 agent
nor.toml: cannot read the job file nor.toml: No such file or directory (os error 2)
";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (2, out, ""));
    let ran = home.run(&["job", "lint", "good.toml", "none.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &json["files"][0]["ok"], &json["files"][1]["ok"]), (2, &true.into(), &false.into()));
}

#[test]
fn a_second_dev_in_the_same_folder_says_that_there_is_one() {
    let home = Home::new();
    let lock = std::fs::File::create(home.path().join("dev.lock")).unwrap();
    lock.lock().unwrap();
    // Should it not be seen, the port is taken, too, so that nothing is started.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = home.run(&["dev", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(ran.code == 78 && ran.err.starts_with("error: `longshore dev` runs already in "), "{ran:?}");
    assert!(ran.err.contains("nothing was started") && ran.err.contains("--dir OTHER"), "{ran:?}");
    assert!(!home.path().join("broker").exists());
}

#[test]
fn dev_says_once_what_is_wrong_in_the_configuration_and_starts_nothing() {
    let home = Home::new();
    home.write("config.toml", "[agent]\nslots = 0\n");
    home.write("other.toml", "[agent]\nslots = 1\n");
    // Should it not be seen, the port is taken, so that nothing is started.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let ran = home.run(&["dev", "--listen", &listen]);
    assert!(ran.code == 78 && ran.err.matches("`slots` under [agent] cannot be 0").count() == 1, "{ran:?}");
    assert!(ran.err.contains("nothing was started") && !home.path().join("broker").exists(), "{ran:?}");
    // The file that the processes would read is the one that is looked at.
    let other = home.path().join("other.toml");
    let ran = home.command(&["dev", "--listen", &listen]).env("LONGSHORE_CONFIG", other).output().unwrap();
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(err.contains("cannot listen on ") && !err.contains("slots"), "{err}");
    home.write("config.toml", "");
    let ran = home.run(&["dev", "--listen", "0.0.0.0:0"]);
    assert!(ran.code == 78 && ran.err.contains("can be reached from other machines"), "{ran:?}");
    assert!(ran.err.contains("nothing was started") && !home.path().join("broker").exists(), "{ran:?}");
}

#[test]
fn lint_speaks_json_and_csv() {
    let home = Home::new();
    home.write(
        "bad.toml",
        "nmae = \"x\"\nname = \"x\"\ntarget = { all = true }\n[[step]]\nid = \"s\"\nrun = \"true\"\n",
    );
    let ran = home.run(&["job", "lint", "bad.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &json["schema"], &json["ok"]), (1, &"longshore.lint/1".into(), &false.into()));
    let problem = serde_json::json!({
        "span": {"start": 0, "end": 4}, "what": "unknown key `nmae`", "hint": "did you mean `name`?",
        "position": {"line": 1, "column": 1},
    });
    assert_eq!(json["files"][0]["problems"], serde_json::json!([problem]));
    let ran = home.run(&["job", "lint", "bad.toml", "-o", "csv"]);
    assert_eq!(
        ran.out,
        "file,line,column,severity,problem,hint\r\nbad.toml,1,1,error,unknown key `nmae`,did you mean `name`?\r\n"
    );
}

#[test]
fn values_of_parameters_are_checked_before_anything_is_sent() {
    let home = Home::new();
    home.write(
        "job.toml",
        &JOB.replace("[[step]]", "[params]\nrel = { required = true, pattern = '[0-9]+' }\n[[step]]"),
    );
    for (arguments, what) in [
        (&[][..], "the parameter `rel` needs a value"),
        (&["-p", "rel=x"], "the value of `rel` `x` does not match"),
        (&["-p", "rel=1", "-p", "rle=2"], "the job has no parameter `rle`"),
        (&["-p", "rel=1", "-p", "rel=2"], "the parameter `rel` is given twice"),
        (&["-p", "rel"], "expected NAME=VALUE"),
    ] {
        let ran = home.run(&[&["job", "run", "job.toml"], arguments].concat());
        assert!(ran.code == 2 && ran.err.contains(what), "{ran:?}");
    }
    let large = format!("rel={}", "1".repeat(8 * 1024 + 1));
    let ran = home.run(&["job", "run", "job.toml", "-p", &large]);
    assert!(ran.code == 2 && ran.err.contains("has 8193 bytes, at most 8192"), "{ran:?}");
    assert_eq!(home.run(&["job", "lint", "job.toml", "-p", "rel=7"]).code, 0);
}

#[test]
fn a_job_file_that_cannot_be_read_is_a_clear_error() {
    let home = Home::new();
    home.write("large.toml", &"#".repeat(192 * 1024 + 1));
    std::fs::write(home.path().join("binary.toml"), [0xFF, 0xFE]).unwrap();
    for (file, what) in [
        ("none.toml", "No such file"),
        ("large.toml", "larger than a job file may be"),
        ("binary.toml", "UTF-8"),
        (".", "cannot read the job file"),
    ] {
        let ran = home.run(&["job", "run", file]);
        assert!(ran.code == 2 && ran.err.contains(what) && ran.err.contains("\nnext:"), "{ran:?}");
    }
}

#[test]
fn without_a_server_the_error_says_how_to_start_one() {
    let home = Home::new();
    for arguments in [&["job", "list"][..], &["fleet", "list"], &["reconcile", "show", "a1"]] {
        let ran = home.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (69, ""), "{ran:?}");
        assert!(ran.err.contains("longshore server run") && ran.err.contains("nothing was changed"), "{ran:?}");
    }
    assert!(home.run(&["version"]).out.contains("server not reached"));
}

#[test]
fn a_server_that_is_not_there_any_more_is_unreachable() {
    let home = Home::new();
    // A port that was free a moment ago and that nothing listens on now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let token = "t".repeat(64);
    home.write("token", &token);
    let url = format!("http://127.0.0.1:{port}");
    let ran = home.run(&["job", "list", "--server", &url, "--token-file", "token"]);
    assert!(ran.code == 69 && ran.err.contains(&url) && ran.err.contains("go on at the agents"), "{ran:?}");
    assert!(!ran.err.contains(&token));
    let ran = home.run(&["job", "list", "--server", &url, "--token-file", "token", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.code, &json["schema"]), (69, &"longshore.error/1".into()));
    home.write("job.toml", JOB);
    let ran = home.run(&["job", "run", "job.toml", "--server", &url, "--token-file", "token"]);
    assert!(ran.code == 69 && ran.err.contains("no job was made") && !ran.err.contains("--id "), "{ran:?}");
}

#[test]
fn a_submit_whose_answer_was_lost_says_how_to_ask_again() {
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It takes every request and hangs up; the test's process ends it.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    home.write("token", &"t".repeat(64));
    home.write("job.toml", JOB);
    let ran = home.run(&["job", "run", "job.toml", "--server", &url, "--token-file", "token"]);
    assert!(ran.code == 69 && ran.err.contains("--id ") && !ran.err.contains("no job was made"), "{ran:?}");
}

#[test]
fn an_address_or_a_token_of_no_use_is_a_configuration_error() {
    let home = Home::new();
    home.write("short", "abc");
    home.write("token", &"t".repeat(64));
    for (server, file, what) in [
        ("ftp://x", "token", "expected http://HOST:PORT"),
        ("https://x", "token", "expected http://HOST:PORT"),
        ("http://", "token", "expected http://HOST:PORT"),
        ("http://a/b", "token", "expected http://HOST:PORT"),
        ("http://127.0.0.1:1", "short", "holds no token"),
        ("http://127.0.0.1:1", "none", "cannot read the token file"),
    ] {
        let ran = home.run(&["job", "list", "--server", server, "--token-file", file]);
        assert!(ran.code == 78 && ran.err.contains(what), "{ran:?}");
    }
    home.write("server/api.json", &format!("{{\"url\":\"http://127.0.0.1:1\",\"token\":\"{}\"}}", "t".repeat(64)));
    let file = home.path().join("server/api.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = home.run(&["job", "list"]);
    assert!(ran.code == 78 && ran.err.contains("can be read by others") && ran.err.contains("chmod 600"), "{ran:?}");
}

#[test]
fn a_wrong_configuration_is_drawn_at_its_place() {
    let home = Home::new();
    home.write("config.toml", "[server]\nlisten = \"127.0.0.1:0\"\nagnets = [\"a1\"]\n");
    let ran = home.run(&["server", "run"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.err.contains("config.toml:3:1]") && ran.err.contains("did you mean `agents`?"), "{ran:?}");
    for (arguments, what) in [
        (&["--broker-url", "http://localhost"][..], "begins with amqp:// or amqps://"),
        (&["--broker-url", "amqp://user:hush@mq.example"], "no TLS"),
        (&["--broker-client-cert", "c.pem"], "come together"),
        (&["--config", "none.toml"], "cannot read the configuration"),
    ] {
        std::fs::write(home.path().join("config.toml"), "").unwrap();
        let ran = home.run(&[&["server", "run"], arguments].concat());
        assert!(ran.code == 78 && ran.err.contains(what) && ran.err.contains("\nnext:"), "{ran:?}");
        assert!(!ran.err.contains("hush"), "{ran:?}");
    }
    let ran = home.run(&["agent", "run"]);
    assert!(ran.code == 78 && ran.err.contains("the agent has no name"), "{ran:?}");
    let ran = home.command(&["agent", "run", "--name", "a1"]).env("LONGSHORE_AGENT_SLOTS", "0").output().unwrap();
    assert_eq!(ran.status.code(), Some(78));
}

#[test]
fn a_wrong_value_of_the_configuration_is_said_of_its_file_and_of_no_flag() {
    let home = Home::new();
    for (command, text, what) in [
        ("agent", "[agent]\nname = 'a1'\nslots = 5000", "`slots` under [agent] cannot be 5000"),
        ("agent", "[agent]\nname = 'a1'\nslots = 5000", "allowed: a whole number from 1 to 1024"),
        ("agent", "[agent]\nname = 'a1'\npool = 'a b'", "`pool` under [agent] cannot be 'a b'"),
        ("agent", "[agent]\nname = 'a1'\nlabels = { env = '' }", "`labels` under [agent] cannot be ''"),
        ("server", "[server]\nlisten = '0.0.0.0:0'", "`listen` under [server] cannot be '0.0.0.0:0'"),
        ("server", "[broker]\nclient_cert = 'c.pem'", "error: `client_cert` under [broker] in "),
        ("server", "[broker]\nurl = 'amqps://u:p@localhost'\nca = 'none.pem'", "as `ca` under [broker] in "),
        (
            "server",
            "[broker]\nurl = 'amqps://u:p@localhost'\nca = 'none.pem'",
            "next:  name a readable PEM file in `ca` under",
        ),
        ("server", "[broker]\nurl = 'amqps://u:p@localhost'", "as `url` under [broker] in "),
        ("server", "[broker]\nca = 'none.pem'", "as `ca` under [broker] in "),
    ] {
        home.write("config.toml", text);
        let ran = home.run(&[command, "run"]);
        assert!(ran.code == 78 && ran.err.contains(what), "{ran:?}");
        assert!(ran.err.contains("config.toml") && !ran.err.contains("--"), "{ran:?}");
        assert!(ran.err.contains("\nstate: nothing was started\n"), "{ran:?}");
    }
    home.write("config.toml", "[broker]\nurl = 'amqp://user:hush@mq.example'");
    let ran = home.run(&["server", "run"]);
    assert!(ran.err.contains("url = 'amqp://user:****@mq.example'") && !ran.err.contains("hush"), "{ran:?}");
    // What a flag or a variable says is said of them.
    home.write("config.toml", "[broker]\nca = 'none.pem'");
    let ran = home.run(&["server", "run", "--broker-client-cert", "c.pem"]);
    assert!(ran.code == 78 && ran.err.starts_with("error: --broker-client-cert is given without its key"), "{ran:?}");
    let ran = home.run(&["agent", "run", "--name", "a1", "--slots", "5000"]);
    assert!(ran.code == 78 && ran.err.contains("next:  give --slots N, or LONGSHORE_AGENT_SLOTS"), "{ran:?}");
}

#[test]
fn a_journal_is_put_aside_only_when_told_twice_and_is_kept() {
    let home = Home::new();
    let told = ["journal", "quarantine", "--endpoint", "server", "--begin-anew"];
    let ran = home.run(&told);
    assert!(ran.code == 2 && ran.err.contains("server has no journal"), "{ran:?}");
    home.write("server/journal/store/db", "damaged");
    home.write("server/journal/high-water", "a mark");
    // A yes to everything that a script has set is not enough, nor is an endpoint that nobody named.
    let yes = home.command(&told[..4]).env("LONGSHORE_YES", "1").output().unwrap();
    let said = String::from_utf8(yes.stderr).unwrap();
    assert!(
        yes.status.code() == Some(2) && said.contains("--begin-anew") && said.contains("nothing was changed"),
        "{said}"
    );
    let unnamed =
        home.command(&["journal", "quarantine", "--begin-anew"]).env("LONGSHORE_ENDPOINT", "server").output().unwrap();
    assert_eq!(unnamed.status.code(), Some(2));
    assert!(home.path().join("server/journal/store/db").exists());
    let ran = home.run(&[&told[..], &["-o", "json"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let kept = home.path().join("server/journal/damaged-1");
    assert!(ran.out.contains("longshore.journal-quarantine/1") && ran.out.contains("damaged-1"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(kept.join("store/db")).unwrap(), "damaged");
    assert_eq!(std::fs::read_to_string(kept.join("high-water")).unwrap(), "a mark");
    assert!(!home.path().join("server/journal/store").exists());
}
