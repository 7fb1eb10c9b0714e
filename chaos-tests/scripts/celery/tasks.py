"""The one task that Celery runs in the benchmarks: `true` in a process of its own, as a step of Longshore is.

Settings are those of somebody who wants no task lost by the broker: persistent messages, publisher confirms, acknowledged
after the work. Results are `rpc`, the fastest that Celery has. Nothing is journaled at either end.
"""

import os
import subprocess

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend="rpc://")
app.conf.update(
    task_default_queue="bench.celery",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_delivery_mode="persistent",
    result_persistent=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    # As many as wait for each process without a gap; the default of Celery.
    worker_prefetch_multiplier=4,
)


@app.task
def run_true():
    """Runs `true` and returns its exit code."""
    return subprocess.run(["true"], check=False).returncode
