"""Claims side by side, each in one of several processes; every result has the bits that it has alone."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from sdetools.claims.context import ClaimContext
from sdetools.claims.definition import Claim, collect
from sdetools.claims.results import ClaimResult


@dataclass(frozen=True)
class Settings:
    """What a process needs to run a claim.

    Attributes:
        budget: "quick", "standard" or "full".
        seed: The seed of the run.
        threads: The number of threads of a simulation.
        work: The folder of all claims' files, in which each claim has a folder of its own.
        resume: Whether to continue with the stores of an interrupted run.
        stores: The folder of the stores, files of finished chunks (parts of simulations), one per claim; None for none.
        identity: The settings that determine the results of the run, such as {"version": "0.9", "seed": 0, "budget": "quick"}, for the stores.
    """

    budget: str
    seed: int
    threads: int
    work: Path
    resume: bool
    stores: Path | None
    identity: Mapping[str, Any]


def run_side_by_side(
    claims: Sequence[Claim],
    settings: Settings,
    jobs: int,
    run_claim: Callable[[Claim, Callable[..., ClaimContext]], ClaimResult],
    finished: Callable[[int, Claim], None] | None = None,
    limit: float | None = None,
) -> dict[str, ClaimResult | None]:
    """Run claims in `jobs` processes, and return their results by id, None for those that exceed `limit`.

    Args:
        claims: The claims, in the order in which they are begun.
        settings: Settings of all claims.
        jobs: The number of processes.
        run_claim: The function that runs and judges a claim: `verification.run_claim`.
        finished: Called as `finished(count, claim)` after each claim, `count` being the number of finished ones; None for no call.
        limit: The largest number of seconds that a claim may take; then its process is ended, and a new one runs the next claim. None for no
            limit.

    Raises:
        ChildProcessError: If a process was killed, for example for lack of memory. The other claims are run first. Finished parts of simulations
            are kept.
        Exception: What `run_claim` raises, for example for a full disk. All processes are ended then.
    """
    results: dict[str, ClaimResult | None] = {}
    killed = []
    pool = ProcessPool(jobs, initializer=_begin, context=multiprocessing.get_context("spawn"))
    try:
        futures: dict[Future[ClaimResult], tuple[int, Claim]] = {
            pool.schedule(_run, (str(item.path), item.id, settings, run_claim), timeout=limit): (number, item)
            for number, item in enumerate(claims)
        }
        for count, future in enumerate(as_completed(futures), 1):
            number, item = futures[future]
            try:
                results[item.id] = future.result()
            except TimeoutError:
                results[item.id] = None
            except ProcessExpired:
                killed.append((number, item.id))
            if finished is not None:
                finished(count, item)
    finally:
        pool.stop()
        pool.join()
    if killed:
        raise ChildProcessError(
            "a process that ran claims was killed, perhaps for lack of memory, and "
            f"{', '.join(id for _, id in sorted(killed))} did not finish. Take fewer `jobs`, or resume."
        )
    return results


def _begin() -> None:
    """Start a process: send what claims print to standard error, because standard output belongs to the table of verdicts."""
    sys.stdout = sys.stderr


@lru_cache(maxsize=1024)
def _claims_of(path: str) -> dict[str, Claim]:
    """Return the claims of a file by id; a process imports each file once."""
    return {item.id: item for item in collect([path])}


def _run(path: str, id: str, settings: Settings, run_claim: Callable[..., ClaimResult]) -> ClaimResult:
    """Run one claim in this process, with a store of its own if `settings.stores` is a folder, and return its result.

    Args:
        path: The claim file.
        id: The claim's id.
        settings: Settings of all claims.
        run_claim: The function `verification.run_claim`.
    """
    with contextlib.ExitStack() as stack:
        store = None
        if settings.stores is not None:
            from sdetools.simulation.store import Store

            file = settings.stores / f"{id}.sqlite"
            identity = json.dumps({**settings.identity, "claim": id}, sort_keys=True)
            store = stack.enter_context(Store(file, identity, settings.resume and file.exists()))
        context = partial(
            ClaimContext, id, budget=settings.budget, seed=settings.seed, threads=settings.threads, store=store, work=settings.work,
            resume=settings.resume,
        )  # fmt: skip
        return run_claim(_claims_of(path)[id], context)
