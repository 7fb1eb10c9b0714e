#!/usr/bin/env bash
# The main job, through outages: one job of 108 steps over two agents while the broker is killed twice and wiped once, and an
# agent and the server are killed once each. Does its own set-up; needs only a Rust toolchain and a C compiler.
#
#   ./demo.sh           run it, print what was lost and what ran twice, exit 1 if anything was
#   ./demo.sh --keep    leave it running at the end, for a look around
#
# Everything is kept in .demo/ (emptied at the next run), RabbitMQ in .cache/ when none is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1:-}" in
    '' | --keep) ;;
    -h | --help)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "demo.sh: unknown option '$1'; try --help" >&2
        exit 2
        ;;
esac

begin=$SECONDS
say() { printf '%s\n' "$*"; }

say "[1/3] toolchain"
if ! command -v cargo >/dev/null; then
    say "      cargo is missing. Install Rust 1.89 or later with rustup, see https://rustup.rs" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    say "      a C compiler is missing: sudo apt-get install build-essential" >&2
    exit 1
fi
say "      $(cargo --version)"

say "[2/3] build (the first time about 300 crates, 3 to 6 minutes on 2 cores)"
cargo build --quiet --locked -p cli -p chaos-tests --bins
say "      done after $((SECONDS - begin)) s"

say "[3/3] outages"
export LONGSHORE_CACHE="${LONGSHORE_CACHE:-$PWD/.cache}"
exec target/debug/longshore-chaos demo --dir .demo "$@"
