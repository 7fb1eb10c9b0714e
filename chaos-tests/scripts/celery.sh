#!/usr/bin/env bash
# Celery as the benchmarks compare Longshore with it: set up in a virtual environment of its own, started on a given broker.
# Installs nothing outside the cache folder, and ends nothing that it did not start.
#
#   celery.sh setup CACHE              makes CACHE/celery-VERSION, if it is not there; prints the folder
#   celery.sh worker ENV URL PROCESSES becomes a worker with so many processes
#   celery.sh drive ENV URL            becomes the client that asks for tasks and takes times; see celery/drive.py
#
# Needs python3 with the module venv, and pip's usual package index for the first setup. Exit code 3: one of these is not there,
# and standard error says which.
set -euo pipefail

# Pinned, with what it rests on, so that figures of two machines are of the same program.
readonly VERSION=5.7.0
readonly PACKAGES=("celery==$VERSION" kombu==5.7.0 amqp==5.4.2 billiard==4.3.2 vine==5.1.0)
readonly SETUP_LIMIT_S=300 # a slow line and a busy machine

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

missing() {
    echo "$1" >&2
    exit 3
}

setup() { # cache
    local env="$1/celery-$VERSION" work
    if [[ ! -f "$env/COMPLETE" ]]; then
        command -v python3 >/dev/null || missing "python3 is not there"
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing "python3 has no module venv (on Debian: python3-venv)"
        mkdir -p "$1"
        # One rename at the end: whoever comes meanwhile never finds half of it. What is in it names its own folder, so it is
        # made where it stays, and marked when it is whole.
        work="$env"
        rm -rf "$work"
        python3 -m venv "$work" >&2 || missing "python3 cannot make a virtual environment"
        timeout "$SETUP_LIMIT_S" "$work/bin/pip" install --quiet --disable-pip-version-check "${PACKAGES[@]}" >&2 ||
            missing "pip cannot install celery $VERSION"
        touch "$env/COMPLETE"
    fi
    (cd "$env" && pwd)
}

# Tasks are found beside this script, and Celery leaves nothing there.
enter() {
    cd "$here/celery"
    export PYTHONDONTWRITEBYTECODE=1
}

case "${1:-}" in
setup)
    setup "$2"
    ;;
worker)
    enter
    export BENCH_BROKER="$3"
    exec "$2/bin/python" -m celery -A tasks worker --loglevel WARNING --concurrency "$4" \
        --without-gossip --without-mingle --without-heartbeat
    ;;
drive)
    enter
    export BENCH_BROKER="$3"
    exec "$2/bin/python" drive.py
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
