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
# Waits for a command to succeed.
until_true() { # SECONDS COMMAND...
    local limit=$((SECONDS + $1))
    shift
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
    until_true 60 in_state "$2" succeeded || return 1
    lines "$marks/$1.began" 1 && lines "$marks/$1.ended" 1
}

say "ok   systemd $(systemctl --version | head -n 1 | cut -d' ' -f2), Linux $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
if [ -x /opt/longshore/attempt ]; then
    is "the agent's own tests of control groups pass" systemctl start groups.service
    grep -aE '^test .*(group|whole|written)|^skipped|^test result' /run/groups.log | sed 's/^/PROOF ok   /'
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
until_true 60 grep -q online <(as_ops fleet list)
is "the agent is online" until_true 60 sh -c "$longshore --dir $home fleet list | grep -q online"

subgroup=no
if grep -q "/longshore$" "/proc/$(shown MainPID longshore-agent)/cgroup"; then subgroup=yes; fi
say "ok   systemd starts the agent in a group of its own: $subgroup"
journalctl -u longshore-agent -o cat | grep -a 'control groups' | sed 's/^/PROOF ok   it says: /'

# A step, and everything that may happen to its agent meanwhile.
job=$(gated lives "")
is "a step begins" until_true 60 lines "$marks/lives.began" 1
is "it is in a group of its own within the unit" sh -c "ls -d $(base)/longshore-*-one-1.*"
first=$(worker)
kill -9 "$first"
is "a worker killed with -9 is started again" until_true 60 sh -c "[ -n \"\$(cat /proc/$(shown MainPID longshore-agent)/task/*/children)\" ]"
is "the service manager did not have to" [ "$(shown NRestarts longshore-agent)" = 0 ]
is "the step finishes, once" open_and_finish lives "$job"
is "its group is gone" sh -c "! ls -d $(base)/longshore-*-one-1.* 2>/dev/null"

job=$(gated reload "")
until_true 60 lines "$marks/reload.began" 1
before=$(worker)
is "reload succeeds" systemctl reload longshore-agent
is "reload brings a new worker" until_true 60 sh -c "w=\$(cat /proc/$(shown MainPID longshore-agent)/task/*/children | tr -d ' '); [ -n \"\$w\" ] && [ \"\$w\" != $before ]"
is "the step finishes, once, under the new worker" open_and_finish reload "$job"

job=$(gated drains "")
until_true 60 lines "$marks/drains.began" 1
(sleep 3; touch "$marks/drains.gate") &
is "stop drains" systemctl stop longshore-agent
is "what was begun was finished before the stop" lines "$marks/drains.ended" 1
is "the service is inactive" sh -c "! systemctl is-active --quiet longshore-agent"
is "start after a drain" systemctl start longshore-agent
is "the drained job is a success" until_true 60 in_state "$job" succeeded

job=$(gated outlives "limits = { memory = '64M', cpu = '50%' }")
until_true 60 lines "$marks/outlives.began" 1
began=$SECONDS
is "stop with a step that does not end" systemctl stop longshore-agent
say "ok   it took $((SECONDS - began)) s, of --drain-limit 60"
is "the step goes on without its agent" sh -c "grep -q populated.1 $(base)/longshore-*-one-1.*/cgroup.events"
is "start beside the step that goes on" systemctl start longshore-agent
is "the step finishes, once" open_and_finish outlives "$job"

job=$(gated killed "")
until_true 60 lines "$marks/killed.began" 1
old=$(shown MainPID longshore-agent)
kill -9 "$old"
is "a monitor killed with -9 is started again by systemd" until_true 60 sh -c "[ \"\$(systemctl show --value -p NRestarts longshore-agent)\" = 1 ] && systemctl is-active --quiet longshore-agent"
is "the step finishes, once" open_and_finish killed "$job"

fed() { shown WatchdogTimestampMonotonic longshore-agent; }
before=$(fed)
is "the watchdog is fed" until_true 60 sh -c "[ \"\$(systemctl show --value -p WatchdogTimestampMonotonic longshore-agent)\" -gt ${before:-0} ]"
is "restart" systemctl restart longshore-agent
is "the server restarts, too" systemctl restart longshore-server

# Limits of a step as a whole, where the kernel has the controllers and systemd starts the agent in a group of its own.
whole=$subgroup
grep -qw memory /sys/fs/cgroup/cgroup.controllers && grep -qw cpu /sys/fs/cgroup/cgroup.controllers || whole=no
say "ok   a step can be limited as a whole: $whole"
job=$(gated limited "limits = { memory = '64M', cpu = '50%' }")
until_true 60 lines "$marks/limited.began" 1
group=$(ls -d "$(base)"/longshore-*-one-1.* | head -n 1)
if [ "$whole" = yes ]; then
    is "memory.max of the step's group is what was asked for" grep -qx 67108864 "$group/memory.max"
    is "cpu.max of the step's group is what was asked for" grep -qx "50000 100000" "$group/cpu.max"
else
    is "what is not enforced is said" sh -c "$longshore --dir $home job show $job | grep -q 'limits not enforced here'"
fi
open_and_finish limited "$job"
cat >"$marks/greedy.toml" <<'JOB'
name = "greedy"
target = { all = true }
[[step]]
id = "one"
limits = { memory = "80M" }
run = '''
a=$(head -c 50000000 /dev/zero | tr '\0' x)
sh -c 'a=$(head -c 50000000 /dev/zero | tr "\0" x); echo both'
echo on
'''
JOB
if [ "$whole" = yes ]; then
    job=$(as_ops job run "$marks/greedy.toml" -o name | head -n 1)
    is "a step that needs too much as a whole fails" until_true 120 in_state "$job" failed
    is "and it is said why" sh -c "$longshore --dir $home job show $job | grep -q 'needed more memory than its limit'"
    is "the agent is none the worse" systemctl is-active --quiet longshore-agent
fi
journalctl -u longshore-agent -u longshore-server -p warning -o cat | tail -n 20 | sed 's/^/LOG /'
say done
