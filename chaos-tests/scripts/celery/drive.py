"""Asks a running Celery worker for tasks and takes times. Never starts a worker.

Orders come as lines of JSON on standard input, and each is answered with one line of JSON:

    {"tasks": N, "window": W}   runs N tasks, at most W of them under way; answers {"seconds": S, "times_us": [...]}

Times of single tasks, from asking to having the result, mean something with a window of 1 only. The end of the input ends it.
"""

import collections
import json
import sys
import time

from tasks import run_true

# Only reached when something is broken, or the machine is.
LIMIT_S = 60


def finish(asked):
    """Waits for the oldest task, and returns how long it took."""
    result, began = asked.popleft()
    code = result.get(timeout=LIMIT_S, interval=0.001)
    if code != 0:
        raise RuntimeError(f"`true` ended with {code}")
    return (time.perf_counter() - began) * 1e6


def run(tasks, window):
    """Runs so many tasks."""
    asked, times = collections.deque(), []
    began = time.perf_counter()
    for _ in range(tasks):
        if len(asked) == window:
            times.append(finish(asked))
        at = time.perf_counter()
        asked.append((run_true.delay(), at))
    while asked:
        times.append(finish(asked))
    return {"seconds": time.perf_counter() - began, "times_us": times}


def main():
    """Answers orders until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(run(order["tasks"], order["window"])), flush=True)


if __name__ == "__main__":
    main()
