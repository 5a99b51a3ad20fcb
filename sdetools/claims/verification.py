"""The function `verify`, which runs claims, judges each by itself and writes the results."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from sdetools._check import choice, count, number
from sdetools._install import install_line
from sdetools._version import __version__
from sdetools.claims.ahead import compiling_ahead
from sdetools.claims.context import BUDGETS, ClaimContext, Missing, claim_seed
from sdetools.claims.definition import Claim, collect, importing_from_folder_of, select
from sdetools.claims.folder import check_folder, disk_full_error, end_run_if_disk_full, open_store
from sdetools.claims.record import ClaimRecord
from sdetools.claims.results import ERROR, NOT_RUN, SUPPORTED, ClaimResult, Results
from sdetools.claims.side_by_side import Settings, run_side_by_side
from sdetools.claims.verdict import Outcome, flagged, judge
from sdetools.simulation.threads import single_threaded_libraries


def verify(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    budget: str = "quick",
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    executor: Any = None,
    retries: int = 2,
    resume: bool = False,
    only: str | None = None,
    failed_first: bool = False,
    jobs: int = 1,
    limit: float | None = None,
    ahead: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[int, int, Claim], None] | None = None,
) -> Results:
    """Run the claims of files and folders and judge each of them, as `sdetools verify` does, but without the report page.

    A verdict and its numbers do not depend on the other claims. A claim whose measurements lie outside runs a second time, on fresh draws,
    before it is contradicted. A claim that raises an error other than those below gets the verdict `error`, and the other claims are run.

    Args:
        paths: A claim file, a folder, of which all Python files with claims are run, or an iterable of these; see `collect`.
        budget: "quick" (20,000 paths of a simulation), "standard" (10^6) or "full" (10^7), see `BUDGETS`.
        out: Output folder for `store.sqlite` (the finished parts of simulations), `results.json`, `figures/`, and `work/` (files of claims).
            It is created only after every argument and every claim file has been validated. None writes nothing.
        seed: Seed of the run. Each claim has its own seed, derived from this one and its id.
        threads: Threads of a simulation; by default all cores.
        executor: As in `sdetools.Execution`: the name of an engine, such as "processes" or "dask", which is started once for all claims, or a
            `concurrent.futures.Executor`; by default threads in this process.
        retries: How often a chunk of paths is submitted again after its worker failed.
        resume: Whether to resume from the finished parts of simulations in `out`; if False, these are replaced.
        only: Run only claims whose id matches this pattern: a part of the id, a shell pattern, or these with and, or, not; see `select`. None for all.
        failed_first: Whether claims that were not supported in the last run of `out`, by its `results.json`, are run first. The results have
            the same order and content.
        jobs: The number of processes, each of which runs one claim at a time. With several, the threads are divided among them, each claim has
            a store of its own in `out/jobs`, and a script must call `verify` below `if __name__ == "__main__":`. The claims that took longest in
            the last run of `out` begin first, so that no process waits for the other ones at the end. Not with `executor`.
        limit: The largest number of seconds that a claim may take. A claim that takes longer is ended and gets the verdict `error`. Claims then
            run in processes as with `jobs`, even if that is 1. None for no limit.
        ahead: Whether a second process compiles kernels ahead on a first run, by running the claims in reverse order with a few paths. Use it
            only for claims that write no files except in `ClaimContext.folder`, since their functions are called in both processes. Without effect
            with several `jobs`, which compile side by side, or a `limit`.
        progress: Called as `progress(done, total)` during a simulation, with numbers of paths; not with several `jobs` or a `limit`.
        watch: Called as `watch(position, total, claim)` before each claim, or with several `jobs` or a `limit` after it; positions count from 1.

    Returns:
        The verdicts and measurements of all claims, in the order of `collect`.

    Raises:
        ValueError: For invalid arguments, for everything that `collect` refuses, if another run uses `out`, and if every claim
            raised a `ValueError`; no results and no new store are written then.
        OSError: If the disk is full, one of several processes was killed, or workers failed more often than `retries` allows.
            The run ends, since the claim is not at fault, and can be resumed.
    """
    choice("budget", budget, BUDGETS)
    seed = count("seed", seed, least=0)
    threads = None if threads is None else count("threads", threads)
    jobs = count("jobs", jobs)
    if jobs > 1 and executor is not None:
        raise ValueError(f"`jobs` must be 1 with an `executor`; got {jobs}. Take processes for claims or for their simulations.")
    limit = None if limit is None else number("limit", limit)
    if limit is not None and not 0 < limit < math.inf:
        raise ValueError(f"`limit` must be a positive number of seconds, or None; got {limit!r}.")
    if limit is not None and executor is not None:
        raise ValueError(
            f"`limit` must be None with an `executor`; got {limit!r}. Claims with a limit run in processes of their own."
        )
    if resume and out is None:
        raise ValueError("`resume` must go with `out`, the folder with the store of the earlier run; got out=None.")
    folder = None if out is None else check_folder(out)
    claims = select(collect(paths), only)
    before = {} if folder is None else _last_run(folder)

    identity = {"version": __version__, "seed": seed, "budget": budget}
    with end_run_if_disk_full(folder), contextlib.ExitStack() as stack:
        store = None
        if folder is not None:
            store = open_store(folder, identity, resume)
            stack.callback(store.close)
        if isinstance(executor, str):
            from sdetools.simulation.clusters import open_executor

            executor, threads = stack.enter_context(open_executor(executor, threads)), None
        apart = jobs > 1 or limit is not None
        if ahead and not apart:
            stack.enter_context(compiling_ahead(claims))
        work = folder / "work" if folder is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def turn(item: Claim) -> tuple[bool, float]:
            verdict, seconds = before.get(item.id, (None, math.inf))
            return failed_first and verdict == SUPPORTED, -seconds if jobs > 1 else 0.0

        order = sorted(claims, key=turn)
        stores = None if folder is None else folder / "jobs"
        if stores is not None and not resume:
            shutil.rmtree(stores, ignore_errors=True)
        found: dict[str, ClaimResult] = {}
        if apart:
            each = max(1, (threads or os.cpu_count() or 1) // jobs)
            settings = Settings(budget, seed, each, work, resume, stores, identity)
            finished = None if watch is None else lambda position, item: watch(position, len(claims), item)
            ended = run_side_by_side(order, settings, jobs, run_claim, finished, limit)
            found = {item.id: ended[item.id] or _ended(item, seed, limit) for item in order}
        else:
            for position, item in enumerate(order, 1):
                if watch is not None:
                    watch(position, len(claims), item)
                context = partial(
                    ClaimContext, item.id, budget=budget, seed=seed, executor=executor, threads=threads, retries=retries,
                    store=store, work=work, resume=resume, progress=progress,
                )  # fmt: skip
                found[item.id] = run_claim(item, context)
        judged = [found[item.id] for item in claims]
        if all(claim.bad_input for claim in judged):
            if store is not None:
                store.discard()
            if stores is not None:
                shutil.rmtree(stores, ignore_errors=True)
            raise ValueError(judged[0].reason.removeprefix("ValueError: "))
        results = Results(__version__, seed, budget, tuple(judged))
        if folder is not None:
            results.write(folder)
        if store is not None:
            store.finish()
        if stores is not None:
            shutil.rmtree(stores, ignore_errors=True)
    return results


def _last_run(folder: Path) -> dict[str, tuple[str, float]]:
    """Return the pair (verdict, seconds) of each claim by its id, from `results.json` of the last run in a folder; {} without a readable one."""
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return {item["id"]: (item["verdict"], float(item["seconds"])) for item in found["claims"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _ended(item: Claim, seed: int, limit: float | None) -> ClaimResult:
    """Return the result of a claim that took longer than `limit` seconds in a run with the seed `seed`."""
    reason = f"TimeoutError: did not end within {limit:g} s, its `limit`. Take a larger limit, or a smaller budget."
    return judge(Outcome(item, ClaimRecord(), claim_seed(seed, item.id), limit or 0.0, ERROR, reason))


def run_claim(item: Claim, context: Callable[..., ClaimContext]) -> ClaimResult:
    """Run one claim, a second time on fresh draws if it is about to be contradicted, and judge it.

    Linear algebra and torch on the CPU use one thread meanwhile, so that no digit depends on the number of cores.

    Args:
        item: The claim.
        context: A function that makes the claim's context; with the argument `again=True` that of the second run, which has other draws.

    Returns:
        The judged result. An error that the claim raises becomes its verdict "error" or "not run".

    Raises:
        StoreError: If the store cannot be read or written.
        OSError: If the disk is full, or the workers of a chunk failed more often than `retries` allows (`WorkersFailed`).
    """
    outcome = _run(item, context())
    return judge(outcome, _run(item, context(again=True)) if flagged(outcome) else None)


def _run(item: Claim, run: ClaimContext) -> Outcome:
    """Run one claim once and return its outcome; errors other than those of the store, of workers and of a full disk become verdicts."""
    outcome = Outcome(item, run.record, run.seed)
    began = time.perf_counter()
    try:
        with importing_from_folder_of(item.path), single_threaded_libraries():
            item(run)
    except Missing as error:
        outcome.verdict = NOT_RUN
        outcome.reason = error.reason
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "sdetools":
            _set_error(outcome, error)
        else:
            outcome.verdict = NOT_RUN
            outcome.reason = f"{error.name or error} is not installed: {install_line(error)}"
    except (Exception, SystemExit) as error:
        if _ends_the_run(error) or disk_full_error(error) is not None:
            raise
        _set_error(outcome, error)
    outcome.seconds = round(time.perf_counter() - began, 3)
    return outcome


def _set_error(outcome: Outcome, error: BaseException) -> None:
    """Give an outcome the verdict `error`, with the message, the line in the claim's file and the traceback."""
    path = str(outcome.claim.path)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f" ({outcome.claim.path.name}, line {frames[-1].lineno})" if frames else ""
    outcome.verdict = ERROR
    outcome.bad_input = isinstance(error, ValueError)
    outcome.reason = f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
    outcome.traceback = "".join(traceback.format_exception(error))


def _ends_the_run(error: BaseException) -> bool:
    """Return whether an error is no fault of the claim: a `StoreError` or `WorkersFailed`, whose modules are imported only if needed."""
    if not isinstance(error, (ValueError, OSError)):
        return False
    from sdetools.simulation.store import StoreError
    from sdetools.simulation.submission import WorkersFailed

    return isinstance(error, (StoreError, WorkersFailed))
