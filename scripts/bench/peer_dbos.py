"""DBOS Transact doing the bench's work: runs of five trivial durable steps with an order of about 400 bytes as input.
A script of its own, run in the peer's own environment (see `scripts.bench.peer`); it imports nothing of Unwind and
prints one JSON line.

python peer_dbos.py --database URL --mode threads|single --runs 800 [--threads 8] [--core 0]

`threads` is the best configuration found: the workflow function called directly from eight threads, pinned to one
core (unpinned threads are nearly half as fast). `single` runs one workflow at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ORDER = {
    "order_id": "o-123456",
    "customer": "c-42",
    "items": [{"sku": f"sku-{number}", "qty": number, "price": 19.99} for number in range(5)],
    "note": "x" * 120,
}
STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--mode", choices=("threads", "single"), required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--core", type=int, default=None)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    workflow = _launch(given.database)
    threads = given.threads if given.mode == "threads" else 1
    _drive(workflow, given.runs if threads == 1 else 100, threads)
    started = time.perf_counter()
    seconds = _drive(workflow, given.runs, threads)
    wall = time.perf_counter() - started
    ordered = sorted(seconds)
    print(
        json.dumps(
            {
                "runs": given.runs,
                "steps_per_second": STEPS * given.runs / wall,
                "p50_ms": statistics.median(ordered) * 1000,
                "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
            }
        ),
        flush=True,
    )
    os._exit(0)  # its background threads would keep the process alive


def _launch(database: str) -> Callable[[dict[str, Any]], float]:
    from dbos import DBOS

    DBOS(
        config={
            "name": "bench",
            "system_database_url": database,
            "sys_db_pool_size": 20,
            "max_executor_threads": 64,
            "log_level": "ERROR",
            "application_version": "1",
            "enable_otlp": False,
        }
    )

    def step(number: int, order: dict[str, Any]) -> dict[str, Any]:
        return {"step": number, "ok": True, "order_id": order["order_id"]}

    durable_step = DBOS.step()(step)

    def place_order(order: dict[str, Any]) -> float:
        for number in range(STEPS):
            durable_step(number, order)
        return time.time()

    workflow: Callable[[dict[str, Any]], float] = DBOS.workflow()(place_order)
    DBOS.launch()
    return workflow


def _drive(workflow: Callable[[dict[str, Any]], float], runs: int, threads: int) -> list[float]:
    def one(_: int) -> float:
        started = time.perf_counter()
        workflow(ORDER)
        return time.perf_counter() - started

    if threads == 1:
        return [one(number) for number in range(runs)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(runs)))


if __name__ == "__main__":
    main()
