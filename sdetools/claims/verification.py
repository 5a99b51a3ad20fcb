"""Run claims, judge them together, write what they found."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sdetools._check import count
from sdetools._version import __version__
from sdetools.claims.ahead import compiling_ahead
from sdetools.claims.context import BUDGETS, ClaimContext, Missing
from sdetools.claims.definition import Claim, beside, collect, install_line, select
from sdetools.claims.folder import check_folder, ending_where_no_room_is, no_room, open_store
from sdetools.claims.results import ERROR, NOT_RUN, Results
from sdetools.claims.verdict import Outcome, judge


def verify(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    budget: str = "quick",
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    executor: Any = None,
    resume: bool = False,
    only: str | None = None,
    ahead: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[int, int, Claim], None] | None = None,
) -> Results:
    """Run the claims of files and folders and judge them together; what `sdetools verify` does, without the report page.

    With `out`, the folder gets `store.sqlite` (the finished chunks, from which `resume=True` goes on), `results.json`, the figures, and
    in `work/` what claims keep in files; it is made only after every argument and every claim file has been checked. `executor` is any
    `concurrent.futures.Executor`; `watch(position, total, claim)` is called before each claim,
    `progress(done, total)` while one simulates, in paths. `ahead`: where no kernel is on disk yet, a second process runs the claims
    backwards with a handful of paths, so that kernels are found compiled; for claims that write nothing of their own.

    Raises `ValueError` for bad arguments, for everything that `collect` refuses, for an `out` in which another run is at work, and when
    every claim was given bad input; nothing is written then. `OSError` where the disk is full: the run ends, for that is no fault of
    the claim, and can be resumed. A claim that raises any other error gets the verdict `error` and the others go on.
    """
    if budget not in BUDGETS:
        raise ValueError(f"`budget` must be one of {', '.join(BUDGETS)}; got {budget!r}.")
    seed = count("seed", seed, least=0)
    threads = None if threads is None else count("threads", threads)
    if resume and out is None:
        raise ValueError("`resume` must go with `out`, the folder with the store of the earlier run; got out=None.")
    folder = None if out is None else check_folder(out)
    claims = select(collect(paths), only)

    with ending_where_no_room_is(folder), contextlib.ExitStack() as stack:
        store = None
        if folder is not None:
            store = open_store(folder, {"version": __version__, "seed": seed, "budget": budget}, resume)
            stack.callback(store.close)
        if ahead:
            stack.enter_context(compiling_ahead(claims))
        work = folder / "work" if folder is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outcomes = []
        for position, item in enumerate(claims, 1):
            if watch is not None:
                watch(position, len(claims), item)
            run = ClaimContext(
                item.id,
                budget=budget,
                seed=seed,
                executor=executor,
                threads=threads,
                store=store,
                work=work,
                resume=resume,
                progress=progress,
            )
            outcomes.append(_carry_out(item, run))
        if all(outcome.bad_input for outcome in outcomes):
            if store is not None:
                store.discard()
            raise ValueError(outcomes[0].reason.removeprefix("ValueError: "))
        alpha, judged = judge(outcomes)
        results = Results(__version__, seed, budget, alpha, judged)
        if folder is not None:
            results.write(folder)
        if store is not None:
            store.finish()
    return results


def _carry_out(item: Claim, run: ClaimContext) -> Outcome:
    outcome = Outcome(item, run.book, run.seed)
    began = time.perf_counter()
    try:
        with beside(item.path):
            item(run)
    except Missing as error:
        outcome.verdict = NOT_RUN
        outcome.reason = f"{error} is missing{f': {error.remedy}' if error.remedy else '.'}"
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "sdetools":
            _broke(outcome, error)
        else:
            outcome.verdict = NOT_RUN
            outcome.reason = f"{error.name or error} is not installed: {install_line(error)}"
    except (Exception, SystemExit) as error:
        if _is_store_error(error) or no_room(error) is not None:
            raise
        _broke(outcome, error)
    outcome.seconds = round(time.perf_counter() - began, 3)
    return outcome


def _broke(outcome: Outcome, error: BaseException) -> None:
    path = str(outcome.claim.path)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f" ({outcome.claim.path.name}, line {frames[-1].lineno})" if frames else ""
    outcome.verdict = ERROR
    outcome.bad_input = isinstance(error, ValueError)
    outcome.reason = f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
    outcome.traceback = "".join(traceback.format_exception(error))


def _is_store_error(error: BaseException) -> bool:
    if not isinstance(error, ValueError):
        return False
    from sdetools.simulation.store import StoreError

    return isinstance(error, StoreError)
