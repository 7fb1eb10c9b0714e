#!/bin/bash
# Runs as root under the systemd of systemd.sh. Prints a line `PROOF ok ...` or `PROOF FAIL ...` for everything that it looks at,
# and `PROOF done` at its end. It waits for what is to happen, each time with a limit.
exec >>"$(cat /opt/longshore/console)" 2>&1
home=/var/lib/longshore
# Where steps leave their marks, whoever they run as.
marks=$(mktemp -d)
chmod 1777 "$marks"
longshore=/opt/longshore/longshore

say() { echo "PROOF $*"; }
ok() { say "ok   $*"; }
fail() { say "FAIL $*"; }
is() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then ok "$what"; else fail "$what"; fi
}
# Waits for a command to succeed. The limit is for what never comes: an emulated machine is slow.
until_true() { # COMMAND...
    local limit=$((SECONDS + 600))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $limit ] || return 1
        sleep 0.2
    done
}
shown() { systemctl show --value -p "$1" "$2"; }
as_ops() { setpriv --reuid=ops --regid=ops --clear-groups env HOME=/tmp "$longshore" --dir "$home" "$@"; }
state_of() { as_ops job show "$1" -o json | sed -n 's/^  "state": "\([a-z-]*\)".*/\1/p' | head -n 1; }
in_state() { [ "$(state_of "$1")" = "$2" ]; }
lines() { [ "$(wc -l <"$1" 2>/dev/null || echo 0)" = "$2" ]; }
worker() { cat /proc/"$(shown MainPID longshore-agent)"/task/*/children 2>/dev/null | tr ' ' '\n' | head -n 1; }
base() { echo "/sys/fs/cgroup/system.slice/longshore-agent.service"; }

# A job of one step that writes down its beginning, waits for its gate, and writes down its end.
gated() { # NAME LIMITS
    cat >"$marks/$1.toml" <<JOB
name = "$1"
target = { all = true }
[[step]]
id = "one"
$2
run = '''
echo x >> $marks/$1.began
while [ ! -e $marks/$1.gate ]; do sleep 0.1; done
echo x >> $marks/$1.ended
'''
JOB
    as_ops job run "$marks/$1.toml" -o name | head -n 1
}

open_and_finish() { # NAME JOB
    touch "$marks/$1.gate"
    until_true in_state "$2" succeeded || return 1
    lines "$marks/$1.began" 1 && lines "$marks/$1.ended" 1
}

say "ok   systemd $(systemctl --version | head -n 1 | cut -d' ' -f2), Linux $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
if [ -x /opt/longshore/attempt ]; then
    is "the agent's own tests of control groups pass" systemctl start groups.service
    grep -aE '^test .*(group|whole|written)|^skipped|^test result' /run/groups.log | sed 's/^/PROOF ok   /'
    grep -aE -A3 'panicked at' /run/groups.log | sed 's/^/PROOF why  /' || true
fi
if [ ! -e /opt/longshore/services ]; then
    say done
    exit
fi

useradd --system --home /nonexistent ops
mkdir -p /etc/longshore
echo LONGSHORE_AGENT_NAME=a1 >/etc/longshore/agent.env
echo LONGSHORE_AGENTS=a1 >/etc/longshore/server.env
ip link set lo up 2>/dev/null
is "RabbitMQ starts" systemctl start rabbitmq-server
is "the server starts and says that it is ready" systemctl start longshore-server
is "the agent starts and says that it is ready" systemctl start longshore-agent
is "both are active" systemctl is-active --quiet longshore-server longshore-agent
say "ok   status of the agent: $(shown StatusText longshore-agent), of the server: $(shown StatusText longshore-server)"
until_true grep -q online <(as_ops fleet list)
is "the agent is online" until_true sh -c "$longshore --dir $home fleet list | grep -q online"

subgroup=no
if grep -q "/longshore$" "/proc/$(shown MainPID longshore-agent)/cgroup"; then subgroup=yes; fi
say "ok   systemd starts the agent in a group of its own: $subgroup"
journalctl -u longshore-agent -o cat | grep -a 'control groups' | sed 's/^/PROOF ok   it says: /'

# How often the kernel was asked to end a whole group, where it can be traced.
tracing=/sys/kernel/tracing
mount -t tracefs tracefs $tracing 2>/dev/null
{ echo 'p:longshore cgroup_kill_write' >$tracing/kprobe_events && echo 1 >$tracing/events/kprobes/longshore/enable; } 2>/dev/null
killed_whole() { grep -c ': longshore: ' $tracing/trace 2>/dev/null; }

# A step, and everything that may happen to its agent meanwhile.
job=$(gated lives "")
is "a step begins" until_true lines "$marks/lives.began" 1
is "it is in a group of its own within the unit" sh -c "ls -d $(base)/longshore-*-one-1.*"
first=$(worker)
kill -9 "$first"
is "a worker killed with -9 is started again" until_true sh -c "[ -n \"\$(cat /proc/$(shown MainPID longshore-agent)/task/*/children)\" ]"
is "the service manager did not have to" [ "$(shown NRestarts longshore-agent)" = 0 ]
is "the step finishes, once" open_and_finish lives "$job"
is "its group is gone" sh -c "! ls -d $(base)/longshore-*-one-1.* 2>/dev/null"

job=$(gated reload "")
until_true lines "$marks/reload.began" 1
before=$(worker)
is "reload succeeds" systemctl reload longshore-agent
is "reload brings a new worker" until_true sh -c "w=\$(cat /proc/$(shown MainPID longshore-agent)/task/*/children | tr -d ' '); [ -n \"\$w\" ] && [ \"\$w\" != $before ]"
is "the step finishes, once, under the new worker" open_and_finish reload "$job"

job=$(gated drains "")
until_true lines "$marks/drains.began" 1
(sleep 3; touch "$marks/drains.gate") &
is "stop drains" systemctl stop longshore-agent
is "what was begun was finished before the stop" lines "$marks/drains.ended" 1
is "the service is inactive" sh -c "! systemctl is-active --quiet longshore-agent"
is "start after a drain" systemctl start longshore-agent
is "the drained job is a success" until_true in_state "$job" succeeded

job=$(gated outlives "limits = { memory = '64M', cpu = '50%' }")
until_true lines "$marks/outlives.began" 1
began=$SECONDS
is "stop with a step that does not end" systemctl stop longshore-agent
say "ok   it took $((SECONDS - began)) s, of --drain-limit 60"
is "the step goes on without its agent" sh -c "grep -q populated.1 $(base)/longshore-*-one-1.*/cgroup.events"
is "start beside the step that goes on" systemctl start longshore-agent
is "the step finishes, once" open_and_finish outlives "$job"

job=$(gated killed "")
until_true lines "$marks/killed.began" 1
old=$(shown MainPID longshore-agent)
kill -9 "$old"
is "a monitor killed with -9 is started again by systemd" until_true sh -c "[ \"\$(systemctl show --value -p NRestarts longshore-agent)\" = 1 ] && systemctl is-active --quiet longshore-agent"
is "the step finishes, once" open_and_finish killed "$job"

# A monitor that hangs is ended by the watchdog, and what it does meanwhile is not.
mkdir -p /run/systemd/system/longshore-agent.service.d
printf '[Service]\nWatchdogSec=20\nTimeoutAbortSec=5\n' >/run/systemd/system/longshore-agent.service.d/watchdog.conf
systemctl daemon-reload
is "restart with a watchdog of 20 s" systemctl restart longshore-agent
job=$(gated watched "")
until_true lines "$marks/watched.began" 1
old=$(shown MainPID longshore-agent)
restarts=$(shown NRestarts longshore-agent)
kill -STOP "$old"
is "an agent that hangs is ended by the watchdog and started again" until_true sh -c "[ \"\$(systemctl show --value -p NRestarts longshore-agent)\" -gt $restarts ] && systemctl is-active --quiet longshore-agent"
is "it is the watchdog that says so" sh -c "journalctl -u longshore-agent -o cat | grep -q 'Watchdog timeout'"
is "the step finishes, once" open_and_finish watched "$job"
rm -r /run/systemd/system/longshore-agent.service.d
systemctl daemon-reload
is "restart with the watchdog of the unit" systemctl restart longshore-agent

fed() { shown WatchdogTimestampMonotonic longshore-agent; }
before=$(fed)
is "the watchdog is fed" until_true sh -c "[ \"\$(systemctl show --value -p WatchdogTimestampMonotonic longshore-agent)\" -gt ${before:-0} ]"
is "restart" systemctl restart longshore-agent
is "the server restarts, too" systemctl restart longshore-server

# Limits of a step as a whole, where the kernel has the controllers and systemd starts the agent in a group of its own.
whole=$subgroup
grep -qw memory /sys/fs/cgroup/cgroup.controllers && grep -qw cpu /sys/fs/cgroup/cgroup.controllers || whole=no
say "ok   a step can be limited as a whole: $whole"
job=$(gated limited "limits = { memory = '64M', cpu = '50%' }")
until_true lines "$marks/limited.began" 1
group=$(ls -d "$(base)"/longshore-*-one-1.* | head -n 1)
if [ "$whole" = yes ]; then
    is "memory.max of the step's group is what was asked for" grep -qx 67108864 "$group/memory.max"
    is "cpu.max of the step's group is what was asked for" grep -qx "50000 100000" "$group/cpu.max"
else
    is "what is not enforced is said" sh -c "$longshore --dir $home job show $job | grep -q 'limits not enforced here'"
fi
open_and_finish limited "$job"
# Two processes, each within the limit and both together beyond it; see agent/tests/attempt/groups.rs.
cat >"$marks/greedy.toml" <<'JOB'
name = "greedy"
target = { all = true }
[[step]]
id = "one"
limits = { memory = "80M" }
run = '''
mkfifo said never
hold() { { head -c 50000000 /dev/zero; echo held > said; read -r word < never; } | tail -c 60000000 > /dev/null; }
hold & read -r word < said; echo one
hold & read -r word < said; echo both
exec 3<> never; echo go >&3; echo go >&3; wait
'''
JOB
cat >"$marks/busy.toml" <<'JOB'
name = "busy"
target = { all = true }
[[step]]
id = "one"
limits = { cpu = "10%" }
run = "while :; do :; done"
JOB
if [ "$whole" = yes ]; then
    job=$(as_ops job run "$marks/greedy.toml" -o name | head -n 1)
    is "a step that needs more than its memory.max is ended, and fails" until_true in_state "$job" failed
    is "and it is said why" sh -c "$longshore --dir $home job show $job | grep -q 'needed more memory than its limit'"
    as_ops job show "$job" | grep -a memory | sed 's/^/PROOF ok   it says: /'
    is "it had printed what came before" sh -c "[ \"\$($longshore --dir $home job logs $job --stream stdout)\" = one ]"
    is "the agent is none the worse" systemctl is-active --quiet longshore-agent
    job=$(as_ops job run "$marks/busy.toml" -o name | head -n 1)
    until_true sh -c "ls -d $(base)/longshore-*-one-1.*"
    group=$(ls -d "$(base)"/longshore-*-one-1.* | head -n 1)
    is "a busy step is held back" until_true grep -q 'nr_throttled [1-9]' "$group/cpu.stat"
    say "ok   cpu.max $(cat "$group/cpu.max"), $(grep -E 'nr_periods|nr_throttled' "$group/cpu.stat" | tr '\n' ' ')"
    as_ops job cancel "$job" >/dev/null 2>&1
    is "a busy step is cancelled" until_true in_state "$job" cancelled
    is "its group is gone" sh -c "! ls -d $(base)/longshore-*-one-1.* 2>/dev/null"
fi

# Two hundred grandchildren, half of them in sessions of their own, half of them deaf to SIGTERM, their parents gone.
cat >"$marks/swarm.toml" <<JOB
name = "swarm"
target = { all = true }
[[step]]
id = "one"
run = '''
mkfifo spoken
exec 4<>spoken
plain='echo x >&4; exec sleep 100071'
deaf='trap "" TERM; echo x >&4; while :; do sleep 100071; done'
i=0
while [ \$i -lt 50 ]; do
    sh -c "sh -c '\$plain' & sh -c '\$deaf' &"
    sh -c "setsid sh -c '\$plain' & setsid sh -c '\$deaf' &"
    i=\$((i+1))
done
i=0
while [ \$i -lt 200 ]; do read -r word <&4; i=\$((i+1)); done
echo x >> $marks/swarm.began
while :; do sleep 1000; done
'''
JOB
job=$(as_ops job run "$marks/swarm.toml" -o name | head -n 1)
is "two hundred grandchildren begin" until_true lines "$marks/swarm.began" 1
group=$(ls -d "$(base)"/longshore-*-one-1.* | head -n 1)
say "ok   processes in the step's group: $(wc -l <"$group/cgroup.procs"), of them deaf or asleep: $(pgrep -fc '10007[1]')"
before=$(killed_whole)
as_ops job cancel "$job" >/dev/null 2>&1
is "the step is cancelled" until_true in_state "$job" cancelled
is "none of them is left" sh -c "! pgrep -f 'slee[p] 100071'"
is "its group is gone" sh -c "! ls -d $group 2>/dev/null"
if [ -e $tracing/events/kprobes/longshore ]; then
    is "the kernel was asked to end the group whole (cgroup.kill)" [ "$(killed_whole)" -gt "${before:-0}" ]
else
    say "ok   the kernel has no kprobes, so that cgroup.kill was written is not traced"
fi
# What happened that was not asked for is seen here: on a machine that stands still for longer than a watchdog waits, that one ends an agent.
say "ok   service manager's restarts of the agent since it was last started by hand: $(shown NRestarts longshore-agent)"
journalctl -u longshore-agent -u longshore-server -o short-monotonic | grep -aE 'Watchdog|Main process exited|timed out|Failed with' | sed 's/^/LOG /'
journalctl -u longshore-agent -u longshore-server -p warning -o cat | grep -av -e left-over -e 'unclean termination' | tail -n 20 | sed 's/^/LOG /'
say done
