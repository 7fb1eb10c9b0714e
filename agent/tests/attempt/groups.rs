//! Steps in control groups of their own, where the host allows them: what hides from the shim, what outlives it, what is left behind,
//! and what a step may use as a whole.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::LazyLock;

use agent::attempt::{Attempt, AttemptEnd, AttemptState, GroupPlan, Plan, ShimCommand, Survivors, boot_id};
use agent::groups::Groups;
use messages::{LogStream, Program};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Held, PATIENCE, Place, ended, hear, let_go, not_started_reason, output, shim, state};
use crate::swarm::{SWARM, expect_all_gone};

pub(crate) const TESTS: [(&str, fn()); 10] = [
    ("two_hundred_grandchildren_in_a_group_end_with_a_cancelled_step", swarm),
    ("a_process_that_hides_and_outlives_its_shim_is_found_by_its_group_and_ended", hidden),
    ("a_copy_of_an_attempt_never_reaches_the_group_of_the_original", copied),
    ("the_group_of_a_step_is_gone_after_it", gone),
    ("a_step_in_a_group_finds_itself_as_one_without", surroundings),
    ("a_step_that_does_not_begin_leaves_no_group_and_no_process", not_begun),
    ("a_shim_that_cannot_fork_into_the_group_moves_there_and_back", moved),
    ("a_process_that_was_left_behind_keeps_its_group_and_is_not_ended", left),
    ("a_step_is_limited_as_a_whole_where_the_host_can_do_it", limited),
    ("a_hierarchy_that_cannot_be_written_is_said_and_done_without", read_only),
];

static GROUPS: LazyLock<Groups> = LazyLock::new(Groups::find);

/// That plan in a group, or nothing where there are none.
pub(crate) fn grouped(mut plan: Plan, name: &str) -> Option<Plan> {
    let Some(place) = GROUPS.place(&format!("attempt-{name}-{}", std::process::id())) else {
        eprintln!("skipped: {}", GROUPS.lacking().unwrap_or_default());
        return None;
    };
    plan.group = Some(GroupPlan { place, memory_bytes: None, cpu_percent: None });
    Some(plan)
}

/// The folders of the groups that were made at that plan's place.
fn folders(plan: &Plan) -> Vec<PathBuf> {
    let place = &plan.group.as_ref().unwrap().place;
    let prefix = place.file_name().unwrap().to_str().unwrap().to_owned();
    let entries = fs::read_dir(place.parent().unwrap()).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path()).collect()
}

fn swarm() {
    let place = Place::new();
    let Some(plan) = grouped(place.shell(SWARM), "swarm") else { return };
    let (held, all) = (Held::new(&place, "held"), place.pipe("all"));
    let attempt = place.launch(&plan);
    assert_eq!(hear(&all), "up");
    attempt.cancel().unwrap();
    expect_all_gone(&ended(&attempt), held);
    assert!(folders(&plan).is_empty());
}

/// Forks twice, leaves its session, and closes whatever it inherited, so that nothing but its group tells whose it is.
const HIDING: &str = r#"
bash -c '(setsid bash -c "for fd in /proc/self/fd/*; do fd=\${fd##*/}; [ \$fd -le 2 ] || eval \"exec \$fd>&-\"; done
    exec >/dev/null 2>&1; trap \"\" TERM; exec 3>held; echo hidden > up; while :; do sleep 1000; done" &) &'
while :; do sleep 1000; done
"#;

fn kill_shim(attempt: &Attempt) {
    let AttemptState::Running { started: Some(started) } = state(attempt) else { panic!("it runs") };
    kill_process(Pid::from_raw(started.pid).unwrap(), Signal::KILL).unwrap();
}

fn hidden() {
    if Command::new("bash").arg("-c").arg("true").status().is_err() {
        eprintln!("skipped: there is no bash to close what it inherited");
        return;
    }
    let place = Place::new();
    let Some(plan) = grouped(place.shell(HIDING), "hidden") else { return };
    let (held, up) = (Held::new(&place, "held"), place.pipe("up"));
    let attempt = place.launch(&plan);
    assert_eq!(hear(&up), "hidden");
    kill_shim(&attempt);
    let AttemptState::Interrupted(interruption) = attempt.wait_blocking(boot_id().unwrap()).unwrap() else {
        panic!("{:?}", state(&attempt))
    };
    assert_eq!(interruption.survivors, Survivors::Seen);
    assert_eq!(attempt.end_survivors(PATIENCE).unwrap(), Survivors::NotSeen);
    assert_eq!(held.after_all_are_gone(), "");
    assert!(folders(&plan).is_empty());
}

fn copied() {
    let place = Place::new();
    let script = "echo up > up; read -r word < gate; echo \"$word\"";
    let Some(plan) = grouped(place.shell(script), "copied") else { return };
    let (up, gate) = (place.pipe("up"), place.pipe("gate"));
    let attempt = place.launch(&plan);
    assert_eq!(hear(&up), "up");
    let copy = Attempt::open(&place.path("copy")).unwrap();
    fs::copy(attempt.file("record"), copy.file("record")).unwrap();
    let AttemptState::Interrupted(interruption) = state(&copy) else { panic!("{:?}", state(&copy)) };
    assert_eq!(interruption.survivors, Survivors::NotSeen);
    assert_eq!(copy.end_survivors(PATIENCE).unwrap(), Survivors::NotSeen);
    let_go(&gate);
    assert_eq!(ended(&attempt).end, AttemptEnd::Exited(0));
    assert_eq!(output(&attempt, LogStream::Stdout), "go\n");
}

fn gone() {
    let place = Place::new();
    let Some(plan) = grouped(place.shell("cat /proc/self/cgroup"), "gone") else { return };
    let (attempt, exit) = place.run(&plan);
    let name = plan.group.as_ref().unwrap().place.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(output(&attempt, LogStream::Stdout).lines().any(|line| line.starts_with("0::") && line.contains(&name)));
    assert!(exit.usage.is_some() && !exit.out_of_memory, "{exit:?}");
    assert!(folders(&plan).is_empty());
}

/// As with a kernel before 5.7, or under a filter that forbids the call.
fn moved() {
    let place = Place::new();
    // Its parent is the shim.
    let script = "cat /proc/self/cgroup; echo parent; cat /proc/$PPID/cgroup";
    let Some(plan) = grouped(place.shell(script), "moved") else { return };
    let name = plan.group.as_ref().unwrap().place.file_name().unwrap().to_str().unwrap().to_owned();
    for shim in [shim(), ShimCommand::new("/proc/self/exe", [crate::SHIM_OF_TWO])] {
        let place = Place::new();
        let attempt = place.prepare(&plan);
        attempt.launch(&shim).unwrap();
        assert_eq!(ended(&attempt).end, AttemptEnd::Exited(0));
        let text = output(&attempt, LogStream::Stdout);
        let (own, parents) = text.split_once("parent").unwrap();
        let in_group = |text: &str| text.lines().any(|line| line.starts_with("0::") && line.contains(&name));
        assert!(in_group(own) && !in_group(parents), "{text}");
        assert!(folders(&plan).is_empty());
    }
}

/// Whichever way it was started: umask, user, signals, capabilities, open files, and what it was given.
fn surroundings() {
    let script = "umask; id -u; id -G; echo $GREETING; ls /proc/self/fd
        grep -E '^(SigBlk|SigIgn|CapEff|NoNewPrivs)' /proc/self/status; [ $(cut -d' ' -f5 /proc/$$/stat) = $$ ] && echo leads";
    let place = Place::new();
    let Some(mut held) = grouped(place.shell(script), "surroundings") else { return };
    held.env.insert("GREETING".to_owned(), "hello".to_owned());
    let plain = Plan { group: None, ..held.clone() };
    let said = [held, plain].map(|plan| {
        let place = Place::new();
        let (attempt, exit) = place.run(&plan);
        assert_eq!(exit.end, AttemptEnd::Exited(0));
        output(&attempt, LogStream::Stdout)
    });
    assert!(said[0].contains("hello\n") && said[0].ends_with("leads\n"), "{}", said[0]);
    assert_eq!(said[0], said[1]);
}

fn not_begun() {
    let place = Place::new();
    let Some(cancelled) = grouped(place.shell("touch began"), "cancelled") else { return };
    let attempt = place.prepare(&cancelled);
    attempt.cancel().unwrap();
    attempt.launch(&shim()).unwrap();
    assert_eq!(not_started_reason(&ended(&attempt)), "it was cancelled before it began");
    assert!(folders(&cancelled).is_empty() && !place.path("began").exists());

    let place = Place::new();
    let missing = Plan { program: Program::Exec(vec!["/no/such/program".to_owned()]), ..place.shell("") };
    let missing = grouped(missing, "missing").unwrap();
    let (_, exit) = place.run(&missing);
    let reason = not_started_reason(&exit);
    assert!(reason.starts_with("`/no/such/program` cannot be started: No such file"), "{reason}");
    assert!(folders(&missing).is_empty());
}

fn left() {
    let place = Place::new();
    let script = "setsid sh -c 'exec >/dev/null 2>&1; echo $$ > up; read -r word < gate' &";
    let Some(plan) = grouped(place.shell(script), "left") else { return };
    let (up, gate) = (place.pipe("up"), place.pipe("gate"));
    let attempt = place.launch(&plan);
    hear(&up);
    let exit = ended(&attempt);
    assert!(exit.left_processes && exit.end == AttemptEnd::Exited(0), "{exit:?}");
    GROUPS.sweep();
    assert_eq!(folders(&plan).len(), 1);
    let_go(&gate);
    // It ends by itself, and the kernel may need a moment for that.
    while !folders(&plan).is_empty() {
        GROUPS.sweep();
    }
}

fn limited() {
    let (memory, cpu) = (GROUPS.lacking_memory(), GROUPS.lacking_cpu());
    if let Some(reason) = memory.or(cpu) {
        eprintln!("skipped: {reason}");
        return;
    }
    together_too_large();
    throttled();
}

/// Two processes hold 50 MB each, so that one is within a limit of 80 MiB and both are not. Each says when it has them. Without a limit
/// both would, and end.
const HOLDING: &str = r#"
mkfifo said never
hold() { { head -c 50000000 /dev/zero; echo held > said; read -r word < never; } | tail -c 60000000 > /dev/null; }
hold & read -r word < said; echo one
hold & read -r word < said; echo both
exec 3<> never; echo go >&3; echo go >&3; wait
"#;

fn together_too_large() {
    let place = Place::new();
    let mut plan = grouped(place.shell(HOLDING), "memory").unwrap();
    plan.group.as_mut().unwrap().memory_bytes = Some(80 << 20);
    let (attempt, exit) = place.run(&plan);
    // Whether all of them were gone when the shim stopped waiting is for the machine to say: it kills one after the other.
    assert_eq!((&exit.end, exit.out_of_memory), (&AttemptEnd::Signaled(9), true), "{exit:?}");
    assert_eq!(output(&attempt, LogStream::Stdout), "one\n");
    // What dies may be given a few pages more.
    assert!(exit.usage.unwrap().memory_bytes <= 81 << 20, "{exit:?}");
    while !folders(&plan).is_empty() {
        GROUPS.sweep();
    }
}

/// A step that would take a whole core is held back by the kernel, which counts how often.
fn throttled() {
    let place = Place::new();
    let mut plan = grouped(place.shell("echo up > up; while :; do :; done"), "cpu").unwrap();
    plan.group.as_mut().unwrap().cpu_percent = Some(10);
    let up = place.pipe("up");
    let attempt = place.launch(&plan);
    assert_eq!(hear(&up), "up");
    let group = folders(&plan).remove(0);
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
    assert_eq!(read("cpu.max"), "10000 100000\n");
    // Its share of even a busy core is more than a tenth, however slow the machine is.
    while read("cpu.stat").lines().any(|line| line == "nr_throttled 0") {
        std::thread::yield_now();
    }
    attempt.cancel().unwrap();
    assert!(ended(&attempt).cancelled);
}

/// What this program says of groups, as a process of its own.
pub(crate) fn say() -> ExitCode {
    println!("{}", Groups::find().lacking().unwrap_or("allowed"));
    ExitCode::SUCCESS
}

fn read_only() {
    let Some(base) = GROUPS.place("x").and_then(|place| place.parent().map(std::path::Path::to_path_buf)) else {
        return;
    };
    let script = "m=$(stat -c %m \"$1\") && mount -o remount,bind,ro \"$m\" && exec \"$2\" as-groups";
    let said = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "x"])
        .arg(&base)
        .arg(std::env::current_exe().unwrap())
        .output();
    match said {
        Ok(said) if said.status.success() => {
            let said = String::from_utf8(said.stdout).unwrap();
            assert!(said.contains("no control group can be made under"), "{said}");
        }
        Ok(said) => eprintln!("skipped: {}", String::from_utf8_lossy(&said.stderr)),
        Err(error) => eprintln!("skipped: {error}"),
    }
}
