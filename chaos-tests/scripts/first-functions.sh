#!/bin/sh
# Makes cli/first-functions.ld anew: which functions of the program run in an agent's monitor, worker and shim, under both engines, so that
# the linker can put them side by side. Needs Python 3, a C compiler, x86-64, and what a development broker needs.
#
#   chaos-tests/scripts/first-functions.sh
#
# Worth it when R7 (docs/performance.md) has grown without a reason: functions get other names when code moves, and those are then not
# found. The program is right with any order.
set -eu
cd "$(dirname "$0")/../.."
tools=chaos-tests/scripts/first-functions
work=$(mktemp -d)
children=
trap 'for child in $children; do kill "$child" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT INT TERM

# Any order would do to look at: without one the names are the same.
LONGSHORE_NO_ORDER=1 LONGSHORE_MAP="$work/map" cargo build --release --workspace --locked --bin longshore
cp target/release/longshore "$work/longshore"
cc -O1 -shared -fPIC -o "$work/ran.so" "$tools/ran.c"
python3 "$tools/order.py" starts "$work/map" > "$work/starts"
longshore="$work/longshore"
printf 'name = "true"\ntarget = { agents = ["a1"] }\n[[step]]\nid = "true"\nexec = ["true"]\neffect = "idempotent"\n' > "$work/job.toml"

traced() { LD_PRELOAD="$work/ran.so" RAN_STARTS="$work/starts" RAN_OUT="$work/$1" exec env -u LONGSHORE_DIR "$longshore" $2; }

# An agent begins once, and goes on with what it has all the other times.
for run in sled-1 sled-2 segments-1 segments-2; do
    engine=${run%-?}
    home="$work/home-$engine"
    LONGSHORE_JOURNAL_ENGINE=$engine traced "ran-$run" "dev --agents 1 --listen 127.0.0.1:0 --dir $home" > "$work/$run.log" 2>&1 &
    dev=$!
    children="$children $dev"
    tries=0
    until "$longshore" --dir "$home" fleet list 2>/dev/null | grep -q online; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || { cat "$work/$run.log" >&2; exit 1; }
        sleep 1
    done
    for _ in 1 2 3 4 5 6 7 8 9 10; do "$longshore" --dir "$home" job run "$work/job.toml" --follow > /dev/null; done
    # Idle for as long as signs of life and heartbeats take.
    sleep 25
    kill "$dev"
    wait "$dev" || true
done

# A monitor, and a worker that has one, told what people tell them; they find no broker.
told="--slots 2 --journal-engine segments --keep-runs 100"
LONGSHORE_LOG=warn,lapin=off LONGSHORE_BROKER_URL=amqp://user:password@127.0.0.1:9/x \
    traced ran-kept "agent monitor - $longshore agent run --dir $work/kept --name a1 $told" > "$work/kept.log" 2>&1 &
children="$children $!"
sleep 5
kill $! || { cat "$work/kept.log" >&2; exit 1; }
sleep 1
kill $! 2>/dev/null || true

# A shim has no environment, so one is started as its agent would: for the attempt of a step that has ended, as if it had not begun.
attempt=$(find "$work/home-segments" -name '*.record' | head -n 1)
attempt=${attempt%.record}
dd if=/dev/zero of="$attempt.record" bs=4096 count=3 conv=notrunc status=none
rm -f "$attempt.stdout" "$attempt.stderr"
(
    exec 9<> "$attempt.record"
    flock 9
    env -i LD_PRELOAD="$work/ran.so" RAN_STARTS="$work/starts" RAN_OUT="$work/ran-shim" "$longshore" agent shim "$attempt" <&9
)

# What ran in the processes of these runs whose command line holds those words. First comes what every worker needs, then what only one
# engine needs, and last what is needed only by the first or by a later life.
lists() { grep -l -- "$2" "$work"/ran-$1.*.cmd | sed 's/\.cmd$//' | paste -sd, -; }
for run in sled-1 sled-2 segments-1 segments-2; do
    eval "$(echo "$run" | tr - _)=\$(lists $run 'agent run')"
done
python3 "$tools/order.py" script "$work/map" "$(lists '*' 'agent monitor')" "$(lists '*' 'agent shim')" "$(lists kept 'agent run')" \
    "$sled_1&$sled_2&$segments_1&$segments_2" "$segments_1&$segments_2" "$sled_1&$sled_2" \
    "$segments_1" "$sled_1" "$segments_2" "$sled_2" > "$work/script"
cp "$work/script" cli/first-functions.ld
ls -l cli/first-functions.ld
