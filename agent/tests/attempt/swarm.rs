//! Steps that multiply: however many processes a step starts, and wherever they hide, its end is the end of all of them. And what
//! they used is added up.

use agent::attempt::{AttemptEnd, CancelOutcome, Exit};
use messages::{LogStream, Program};

use crate::support::{Held, Place, ended, hear, output};

pub(crate) const TESTS: [(&str, fn()); 3] = [
    ("two_hundred_grandchildren_end_with_a_cancelled_step", cancelled),
    ("two_hundred_grandchildren_end_at_the_time_limit", timed_out),
    ("what_a_step_used_is_in_the_record_of_its_end", used),
];

/// Grandchildren of the step: some in its group, some in sessions of their own, of each kind some that ignore SIGTERM. Each says
/// so once it is what it is, holds the pipe on file descriptor 3, and stays for ever. Their parents end at once, so that they
/// are orphans. When all have spoken the step says so.
pub(crate) const SWARM: &str = r#"
exec 3>held
mkfifo spoken
plain='echo x >&4; exec sleep 1000'
deaf='trap "" TERM; echo x >&4; while :; do sleep 1000; done'
exec 4<>spoken
i=0
while [ $i -lt 50 ]; do
    sh -c "sh -c '$plain' & sh -c '$deaf' &"
    sh -c "setsid sh -c '$plain' & setsid sh -c '$deaf' &"
    i=$((i+1))
done
i=0
while [ $i -lt 200 ]; do read -r word <&4; i=$((i+1)); done
echo "$i" >&3
[ ! -p all ] || echo up > all
while :; do sleep 1000; done
"#;

/// Milliseconds. Time enough to start 400 shells on a busy machine; when it is not, the test fails and does not hang.
const LIMIT_MS: u64 = 20_000;

pub(crate) fn expect_all_gone(exit: &Exit, held: Held) {
    assert!(!exit.left_processes, "{exit:?}");
    assert_eq!(held.after_all_are_gone(), "200\n");
}

fn cancelled() {
    let place = Place::new();
    let (held, all) = (Held::new(&place, "held"), place.pipe("all"));
    let attempt = place.launch(&place.shell(SWARM));
    assert_eq!(hear(&all), "up");
    assert_eq!(attempt.cancel().unwrap(), CancelOutcome::Told);
    let exit = ended(&attempt);
    assert!(exit.cancelled, "{exit:?}");
    expect_all_gone(&exit, held);
}

fn timed_out() {
    let place = Place::new();
    let held = Held::new(&place, "held");
    let mut plan = place.shell(SWARM);
    plan.timeout_ms = Some(LIMIT_MS);
    let (_, exit) = place.run(&plan);
    assert_eq!((&exit.end, exit.cancelled), (&AttemptEnd::TimedOut, false));
    expect_all_gone(&exit, held);
}

fn used() {
    let place = Place::new();
    // 64 MiB in one variable of a child, which is gone when the step ends, and some time for the processor.
    let script = "x=$(sh -c 'head -c 67108864 /dev/zero | tr \"\\0\" x'); echo ${#x}; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let (attempt, exit) = place.run(&place.shell(script));
    assert_eq!(output(&attempt, LogStream::Stdout), "67108864\n");
    let usage = exit.usage.unwrap();
    assert!(usage.memory_bytes >= 64 * 1024 * 1024, "{usage:?}");
    assert!(
        usage.user_ms > 0 && usage.user_ms + usage.system_ms <= exit.ended_at_ms - exit.started_at_ms + 1000,
        "{usage:?}"
    );
    let other = Place::new();
    let (_, exit) = other.run(&other.plan(Program::Exec(vec!["no-such-program".into()])));
    assert_eq!(exit.usage, None);
}
