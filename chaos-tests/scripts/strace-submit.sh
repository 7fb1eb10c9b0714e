#!/usr/bin/env bash
# Shows that one submit is on stable storage before the broker hears of it, and the beginning of its step before the step's shim is
# started. Attaches strace to a real server and a real agent, submits one job, and compares three system calls of each: the write that
# carries the job, or the beginning, into the journal's file, the fdatasync that covers it, and the first write of the job to the
# broker's socket, or the start of the shim: that the agent hands the attempt, with its lock, to one that stays, or
# executes one. Prints PASS, FAIL or SKIP with the evidence; 0, 1 or 0 is the exit code.
#
#   strace-submit.sh               the whole way, with a private broker, server and agent in a temporary folder
#   strace-submit.sh --self-test   only the judge: doctored traces, of which all but the sound ones must be refused
#
# LONGSHORE_BIN names the program to trace; without it the checkout's debug build is made and used.
# LONGSHORE_KEEP_TRACE names a file that the trace is copied to.
set -euo pipefail

readonly READY_LIMIT_S=180   # a first start may have to fetch RabbitMQ
readonly EVENT_LIMIT_S=30    # attaching, submitting, publishing
readonly SYNC_DELAY_US=300000 # of the agent's journal
readonly TEXT_BYTES=1048576  # the engine writes its whole buffer at once; what we look for may be anywhere in it

# Judges a trace by the order of its lines: strace writes one when a call begins and, if others came in between, another when
# it ends. Needs no clock.
judge() { # trace marker [submit | begin | again]
    awk -v marker="$2" -v what="${3:-submit}" '
        function target(line) { match(line, /\([0-9]+<[^ ]*>/); return substr(line, RSTART, RLENGTH) }
        function verdict(word, why) { print word ": " why; judged = 1; exit (word == "PASS" ? 0 : 1) }
        FNR == NR {
            # First reading: which sockets lead to the broker. API and agents hear of the job as well.
            if (index($0, "longshore.v1.down") && index(target($0), "<TCP")) broker[target($0)] = 1
            next
        }
        {
            begins = 1; ends = 1; call = $0; pid = $1
            if ($0 ~ /<unfinished \.\.\.>$/) { ends = 0; open[pid] = $0 }
            else if ($0 ~ /^[0-9]+ +[0-9.]+ <\.\.\. [a-z0-9_]+ resumed>/) { begins = 0; call = open[pid]; delete open[pid] }
            name = call; sub(/^[0-9]+ +[0-9.]+ /, "", name); sub(/\(.*/, "", name)
            file = target(call); journal = (file ~ /\/store\/db>$/)
            good = ($0 ~ /= [0-9]+( \(DELAYED\))?$/)
            if (name ~ /^(p?writev?|pwrite64|pwritev2)$/ && journal && index(call, marker) && ends && good && !wrote) {
                wrote = FNR; wrote_at = $2
            }
            if (name ~ /^(fdatasync|fsync)$/ && journal) {
                if (begins) covers[pid] = (wrote > 0)
                if (ends && good && covers[pid] && !synced) { synced = FNR; synced_at = $2 }
            }
            publish = (name ~ /^(sendto|sendmsg|write|writev)$/ && (file in broker) && index(call, marker))
            launch = (name == "execve" && index(call, "\"agent\", \"shim\", \"/")) || (name == "sendmsg" && index(call, "SCM_RIGHTS"))
            # Of a step that follows another one: what was written for the first says nothing of it.
            if (what == "again" && launch && begins && !earlier) { earlier = 1; wrote = 0; synced = 0; next }
            if ((what == "submit" ? publish : launch) && begins && !sent) {
                sent = FNR; sent_at = $2
                if (!wrote) verdict("FAIL", (what == "submit" ? "the job went to the broker before it" : "the shim was started before the beginning") " was in the journal")
                if (!synced) verdict("FAIL", (what == "submit" ? "the job went to the broker" : "the shim was started") " before the data sync of its journal had ended")
            }
        }
        END {
            if (judged) exit
            if (!sent) { print "FAIL: the trace shows no " (what == "submit" ? "publish of the job" : "start of a shim"); exit 1 }
            printf "  journal write  %s\n  fdatasync      %s  (+%.3f ms)\n  %s  %s  (+%.3f ms)\n",
                wrote_at, synced_at, (synced_at - wrote_at) * 1000, (what == "submit" ? "basic.publish" : "start of shim"), sent_at, (sent_at - wrote_at) * 1000
            print "PASS: journal write, data sync, then " (what == "submit" ? "publish" : "the start of the shim")
        }' "$1" "$1"
}

expect() { # PASS|FAIL name [begin]; the trace comes on standard input
    local file="$work/doctored" word
    cat >"$file"
    word=$(judge "$file" MARK "${3:-submit}" || true)
    case "$word" in
        *"$1: "*) ;;
        *) echo "FAIL: self-test '$2' should have ended in $1 but said: $word"; exit 1 ;;
    esac
}

self_test() {
    local write='7 1.0 pwrite64(9</d/server/store/db>, "..MARK..", 99, 0) = 99'
    local sync='7 2.0 fdatasync(10</d/server/store/db>) = 0'
    local sync_begins='7 2.0 fdatasync(10</d/server/store/db> <unfinished ...>'
    local sync_ends='7 4.0 <... fdatasync resumed>) = 0'
    local publish='8 3.0 sendto(12<TCP:[127.0.0.1:5->127.0.0.1:6]>, "longshore.v1.down..MARK", 23, 0, NULL, 0) = 23'
    local status='8 0.5 sendto(12<TCP:[127.0.0.1:5->127.0.0.1:6]>, "longshore.v1.down..status", 25, 0, NULL, 0) = 25'
    local answer='8 0.6 sendto(13<TCP:[127.0.0.1:7->127.0.0.1:8]>, "HTTP..MARK", 10, 0, NULL, 0) = 10'
    printf '%s\n' "$status" "$answer" "$write" "$sync" "$publish" | expect PASS 'the right order'
    printf '%s\n' "$write" "$sync_begins" "$status" "$sync_ends" "$publish" | expect PASS 'a sync in two lines'
    printf '%s\n' "$write" "$publish" "$sync" | expect FAIL 'published before the sync'
    printf '%s\n' "$write" "$sync_begins" "$publish" "$sync_ends" | expect FAIL 'published while the sync was under way'
    printf '%s\n' "$sync" "$write" "$publish" | expect FAIL 'the sync came before the write'
    printf '%s\n' "$sync_begins" "$write" "$sync_ends" "$publish" | expect FAIL 'the sync began before the write'
    printf '%s\n' "$publish" "$write" "$sync" | expect FAIL 'published before it was written'
    printf '%s\n' "$write" "${sync/= 0/= -1 EIO (Input\/output error)}" "$publish" | expect FAIL 'the sync failed'
    printf '%s\n' "$write" "${sync/fdatasync/sync_file_range}" "$publish" | expect FAIL 'what is no data sync'
    printf '%s\n' "$write" "${sync/store/other}" "$publish" | expect FAIL 'the sync of another file'
    printf '%s\n' "$write" "$sync" "$status" | expect FAIL 'no publish at all'
    : | expect FAIL 'an empty trace'
    local shim='9 3.0 execve("/proc/self/exe", ["longshore", "agent", "shim", "/d/1"], 0x1 /* 0 vars */) = 0'
    printf '%s\n' "$write" "$sync" "$shim" | expect PASS 'a shim in the right order' begin
    printf '%s\n' "$write" "${shim/\/d\/1/-}" "$sync" "$shim" | expect PASS 'a shim that stays, started early' begin
    local handed='9 3.0 sendmsg(14<UNIX-SEQPACKET:[1->2]>, {msg_iov=[{iov_base="\0\0\0\0\0\0\0\0/d/1", iov_len=12}], msg_control=[{cmsg_type=SCM_RIGHTS, cmsg_data=[4, 5]}]}, 0) = 12'
    printf '%s\n' "$write" "$sync" "$handed" | expect PASS 'an attempt handed over in the right order' begin
    printf '%s\n' "$write" "$sync_begins" "$handed" "$sync_ends" | expect FAIL 'an attempt handed over while the sync was under way' begin
    printf '%s\n' "$write" "$sync" "$handed" "$write" "$handed" "$sync" | expect FAIL 'the second attempt handed over before its sync' again
    printf '%s\n' "$write" "$sync_begins" "$shim" "$sync_ends" | expect FAIL 'a shim started while the sync was under way' begin
    printf '%s\n' "$shim" "$write" "$sync" | expect FAIL 'a shim started before anything was written' begin
    printf '%s\n' "$write" "$sync" "${shim/shim/other}" | expect FAIL 'no shim at all' begin
    printf '%s\n' "$write" "$sync" "$shim" "$write" "$sync" "$shim" | expect PASS 'two shims in the right order' again
    printf '%s\n' "$write" "$sync" "$shim" "$write" "$shim" "$sync" | expect FAIL 'the second shim started before its sync' again
    printf '%s\n' "$write" "$sync" "$shim" "$shim" | expect FAIL 'the second shim started without a word' again
}

# Waits for a command to succeed. What is waited for writes to files, which announce nothing.
await() { # seconds what command...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if ((SECONDS >= end)); then
            echo "FAIL: $what did not happen in time"
            [ -s "$work/dev.log" ] && tail -n 15 "$work/dev.log"
            exit 1
        fi
        if [ -n "$dev" ] && ! kill -0 "$dev" 2>/dev/null; then
            echo "FAIL: longshore dev ended while waiting for: $what"
            tail -n 15 "$work/dev.log"
            exit 1
        fi
        sleep 0.1
    done
}

# The process, among those that `longshore dev` started, that does this.
pid_of() { # words of its command line
    local status pid
    for status in /proc/[0-9]*/status; do
        pid=${status#/proc/} pid=${pid%/status}
        if grep -qs "^PPid:[[:space:]]*$dev\$" "$status" && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q " $1 "; then
            echo "$pid"
            return
        fi
    done
    return 1
}

published() { grep -F "$marker" "$work/trace" 2>/dev/null | grep -F TCP | grep -qF longshore.v1.down; }
launched() { [ "$(grep -cE 'execve.*"agent", "shim", "/|sendmsg.*SCM_RIGHTS' "$work/trace.agent" 2>/dev/null)" -ge 2 ]; }

cleanup() {
    local pid
    for pid in $tracer $dev; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}

work=$(mktemp -d) dev='' tracer=''
trap cleanup EXIT
trap 'exit 130' INT TERM

self_test
if [ "${1:-}" = --self-test ]; then
    echo 'PASS: the judge tells sound traces from unsound ones'
    exit 0
elif [ $# -gt 0 ]; then
    echo "usage: $0 [--self-test]" >&2
    exit 2
fi

if ! command -v strace >/dev/null; then
    echo 'SKIP: strace is not installed; to have it: sudo apt-get install strace'
    exit 0
fi
if ! strace -o /dev/null true 2>/dev/null; then
    echo 'SKIP: this system does not let strace trace processes (ptrace is forbidden, as in some containers)'
    exit 0
fi

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ -z "${LONGSHORE_BIN:-}" ]; then
    cargo build --quiet --locked --package cli
    LONGSHORE_BIN="${CARGO_TARGET_DIR:-target}/debug/longshore"
fi
longshore() { "$LONGSHORE_BIN" --dir "$work/home" "$@"; }

"$LONGSHORE_BIN" --dir "$work/home" dev --agents 1 --listen 127.0.0.1:0 >"$work/dev.log" 2>&1 &
dev=$!
await "$READY_LIMIT_S" 'the start of broker, server and agent' grep -qs '^Ready: ' "$work/dev.log"
await "$EVENT_LIMIT_S" 'the start of the server' pid_of 'server run' >/dev/null
await "$EVENT_LIMIT_S" 'the start of the agent' pid_of 'agent run' >/dev/null

attach() { # file pid [more options]
    strace "${@:3}" -f -yy -ttt -s "$TEXT_BYTES" -o "$1" \
        -e trace=fdatasync,fsync,sync_file_range,sendto,sendmsg,write,writev,pwrite64,pwritev,pwritev2,execve \
        -p "$2" 2>"$1.log" &
    tracer="$tracer $!"
    attached() { grep -qs attached "$1.log" || ! kill -0 "$!" 2>/dev/null; }
    await "$EVENT_LIMIT_S" 'attaching strace' attached "$1"
    if ! kill -0 "$!" 2>/dev/null; then
        echo "SKIP: strace cannot attach to a process of one's own here: $(tail -n 1 "$1.log")"
        exit 0
    fi
}
attach "$work/trace" "$(pid_of 'server run')"
# Its folder is prepared while the beginning is synced, and would hide a launch that does not wait: so the sync takes longer.
attach "$work/trace.agent" "$(pid_of 'agent run')" -e "inject=fdatasync:delay_enter=$SYNC_DELAY_US"

marker="marker-$$-$RANDOM$RANDOM"
printf 'name = "traced"\ntarget = { agents = ["a1"] }\n[[step]]\nid = "mark"\nrun = "echo %s"\n[[step]]\nid = "next"\nrun = "true"\n' "$marker" >"$work/job.toml"
longshore job run "$work/job.toml" >"$work/submit.log" 2>&1 || {
    echo 'FAIL: the job could not be submitted'
    cat "$work/submit.log"
    exit 1
}
await "$EVENT_LIMIT_S" 'the publish of the job' published
await "$EVENT_LIMIT_S" 'the start of both shims' launched
for pid in $tracer; do
    kill -INT "$pid"
    wait "$pid" 2>/dev/null || true
done
tracer=''
[ -z "${LONGSHORE_KEEP_TRACE:-}" ] || cp "$work/trace" "$LONGSHORE_KEEP_TRACE"

# The same trace without its data syncs must be refused, or the judge did not look at it.
judge_both() { # trace marker what
    judge "$1" "$2" "$3"
    grep -vE 'f(data)?sync(\(| resumed)' "$1" >"$work/without"
    if judge "$work/without" "$2" "$3" >/dev/null; then
        echo 'FAIL: the trace passes without its data syncs too'
        exit 1
    fi
}
judge_both "$work/trace" "$marker" submit
# What is reported of a beginning has this word, and nothing else in the agent's journal has it.
judge_both "$work/trace.agent" started begin
judge_both "$work/trace.agent" started again
