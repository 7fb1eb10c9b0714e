#!/usr/bin/env bash
# Runs every check of the project, on a fresh machine too, and says for each how long it took. Stops at the first that fails.
#
#   ./test.sh           everything, with a real RabbitMQ (found, or fetched without root into a cache folder)
#   ./test.sh --quick   without RabbitMQ, and with strace only where it is installed
#   ./test.sh --all     everything and ./demo.sh
#
# LONGSHORE_BROKER_URL names a broker to use instead. Exit code 0 only if everything that could run has passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

quick=no demo=no
for argument in "$@"; do
    case "$argument" in
        --quick) quick=yes ;;
        --all) demo=yes ;;
        *)
            echo "usage: ./test.sh [--quick | --all]" >&2
            exit 2
            ;;
    esac
done
if [ "$quick$demo" = yesyes ]; then
    echo "./test.sh: --quick and --all exclude each other" >&2
    exit 2
fi

export CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
skipped=() stage_name='' stage_rerun='' stage_start=0
output=$(mktemp)

ended() {
    local code=$?
    rm -f "$output"
    if [ "$code" -ne 0 ] && [ -n "$stage_name" ]; then
        echo
        echo "FAILED: $stage_name, after $(took "$stage_start")"
        echo "to run just this again: $stage_rerun"
    fi
}
trap ended EXIT
trap 'exit 130' INT TERM

took() {
    local seconds=$((SECONDS - $1))
    if [ "$seconds" -ge 60 ]; then echo "$((seconds / 60))m$(printf %02d $((seconds % 60)))s"; else echo "${seconds}s"; fi
}

begin() { # name, how to run it alone
    stage_name=$1 stage_rerun=$2 stage_start=$SECONDS
    echo "== $stage_name"
}

end() {
    echo "   ok: $stage_name, $(took "$stage_start")${1:+, $1}"
    stage_name=''
}

skip() { # what, why and how to have it
    skipped+=("$1")
    echo "   SKIPPED: $1: $2"
}

# Runs one stage: name, then the command.
stage() {
    local name=$1
    shift
    begin "$name" "$*"
    "$@"
    end
}

missing() { # tool, the line that installs it
    echo "$1 is missing. To install it: $2"
    exit 1
}

toolchain() {
    begin toolchain './test.sh'
    command -v cargo >/dev/null || missing 'Rust' 'see https://rustup.rs, or on Debian 13 and newer: sudo apt-get install rustup && rustup default stable'
    command -v cc >/dev/null || missing 'a C compiler' 'sudo apt-get install build-essential'
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(rustc --version | awk '{ print $2 }')
    if [ "$(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1)" != "$wanted" ]; then
        missing "Rust $wanted or newer (this is $have)" 'rustup update stable'
    fi
    cargo fmt --version >/dev/null 2>&1 || missing rustfmt 'rustup component add rustfmt'
    cargo clippy --version >/dev/null 2>&1 || missing clippy 'rustup component add clippy'
    # All at once, so that what follows needs no network, and a lock file out of step is found here.
    cargo fetch --locked
    end "rustc $have"
}

dependencies() {
    if ! command -v cargo-deny >/dev/null; then
        echo '== dependencies'
        skip cargo-deny 'licences are checked by the tests all the same; to have it: cargo install cargo-deny --locked --version 0.20.2'
        return
    fi
    # The database of advisories comes from the network. Without it the other checks still hold.
    local checks='licenses bans sources'
    begin dependencies "cargo deny check $checks"
    if timeout 120 cargo deny --log-level error fetch db >/dev/null 2>&1; then
        checks="advisories $checks"
        stage_rerun="cargo deny check $checks"
    else
        skip advisories 'their database cannot be fetched from here; with network: cargo deny check advisories'
    fi
    # shellcheck disable=SC2086
    cargo deny --log-level error check --hide-inclusion-graph $checks
    end
}

broker() {
    if [ -n "${LONGSHORE_BROKER_URL:-}" ]; then
        echo '== broker: the one that LONGSHORE_BROKER_URL names'
    elif command -v rabbitmq-server >/dev/null || [ -x /usr/sbin/rabbitmq-server ] || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
        echo '== broker: the installed RabbitMQ, as private nodes on loopback'
    elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        echo '== broker: RabbitMQ is not installed; the tests fetch it without root into a cache folder (34 MB, once)'
    else
        begin broker './test.sh'
        missing 'RabbitMQ' "install rabbitmq-server, set LONGSHORE_BROKER_URL, or go without: ./test.sh --quick"
    fi
}

# Tests that record system calls need it. Where it cannot be had they say so themselves.
have_strace() {
    if ! command -v strace >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        begin strace 'apt-get install strace'
        apt-get install --yes --no-install-recommends strace >"$output" 2>&1 || true
        end
    fi
}

# Runs the tests and adds up their result lines.
tests() { # name, live
    begin "$1" "LONGSHORE_LIVE=$2 cargo test --workspace --locked"
    LONGSHORE_LIVE=$2 cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$output"
    local counts
    counts=$(awk '/^test result: / { p += $4; f += $6; i += $8 } END { printf "%d passed, %d failed, %d skipped", p, f, i }' "$output")
    case "$counts" in
        '0 passed'*)
            echo "no test ran"
            exit 1
            ;;
    esac
    [ "$2" = 1 ] || skip 'live tests' 'they need RabbitMQ; to have them: ./test.sh'
    local power='SKIPPED: losses of power from recorded calls: '
    if grep -q "^$power" "$output"; then
        skip 'losses of power from recorded calls' "$(sed -n "s/^$power//p" "$output" | head -n 1)"
    fi
    end "$counts"
}

strace_submit() {
    local script=chaos-tests/scripts/strace-submit.sh
    begin 'strace of a submit' "$script"
    "$script" | tee "$output"
    if grep -q '^SKIP: ' "$output"; then
        skip strace "$(sed -n 's/^SKIP: //p' "$output")"
    fi
    end
}

toolchain
stage format cargo fmt --all --check
stage clippy cargo clippy --workspace --all-targets --locked -- -D warnings
dependencies
if [ "$quick" = yes ]; then
    tests 'tests without RabbitMQ' 0
    stage 'self-test of the strace judge' chaos-tests/scripts/strace-submit.sh --self-test
else
    broker
    have_strace
    tests 'tests with RabbitMQ' 1
    strace_submit
fi
[ "$demo" = no ] || stage demo ./demo.sh

echo
[ ${#skipped[@]} -eq 0 ] || printf 'skipped, see above: %s\n' "$(IFS=,; echo "${skipped[*]}")"
echo "ALL PASS in $(took 0)"
