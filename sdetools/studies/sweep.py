"""Sweeps: a function of parameters on a grid, over any executor, resumable, as one dataset."""

from __future__ import annotations

import inspect
import json
import numbers
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._identity import function_identity
from sdetools._version import __version__
from sdetools.results.protocol import Origin, call_text
from sdetools.simulation.clusters import open_executor
from sdetools.simulation.interruption import interruptible
from sdetools.simulation.philox import WIDEST
from sdetools.simulation.progress import progress_report
from sdetools.simulation.store import Store
from sdetools.simulation.submission import Submission, kept_in
from sdetools.simulation.threads import available_threads
from sdetools.studies.execution import Execution
from sdetools.studies.sweep_points import POINT, SEED, Grid, PointTask, run_point
from sdetools.studies.sweep_result import Sweep

OPTIONS = tuple(field.name for field in fields(Execution))
"""The options of execution."""
LONGEST = 200
"""The length of the text of the grid in messages, beyond which it is cut."""


def sweep(
    function: Callable[..., Any],
    *,
    seeds: Any = None,
    product: bool = True,
    errors: str = "raise",
    units: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    **parameters: Any,
) -> Sweep:
    r"""Call a function on a grid of parameters, and collect the numbers that it returns in one dataset.

    The function is called as `function(eta=..., beta=..., seed=...)` for `sweep(function, eta=[...], beta=[...], seeds=[...])`. It returns a number,
    an estimate, a mapping from names to such, or a result: of a weak gap the supremum over time is taken for each observable, of a
    simulation the last mean (`main_estimates()` of a result). All points take the same seeds, so that differences between points have
    little noise. The points run one after the other, each on all cores, or several at a time with `threads=` or `executor=`; no bit of the result
    depends on it.

    Args:
        function: The function. An executor with processes needs one that can be pickled: one of a module, or any with cloudpickle installed.
        seeds: A list of seeds, which become a dimension, or a number n for the seeds 0, ..., n - 1. None calls the function with seed 0
            if it has a parameter `seed`, otherwise without a seed.
        product: Whether the points are all combinations of the values. If False, the lists have one length, and the i-th point takes the i-th value of each.
        errors: "raise" ends the sweep with the first exception of the function, which is raised with a note that names the point; "record" records its
            type and message and goes on. Points that failed are run again when the sweep is resumed. If all points fail, the sweep ends with a
            ValueError.
        units: The units of parameters and variables by name, such as {"eta": "s"}, for the attributes of the dataset and for plots; "1" for others.
        confidence: The confidence level of means over seeds, strictly between 0 and 1.
        parameters: The parameters by name, each a list of different numbers or texts, or a dict from labels to any objects,
            `rule={"SGD": st.SGD, "signs": st.SignSGD}`; and the options of `st.Execution`, which are no parameters: threads, executor, backend, dtype, store,
            resume, progress, retries. `threads` is the number of points at a time in threads of this process, `retries` counts for points, and
            `backend` and `dtype` are passed to the function if it has parameters of these names. The store keeps finished points.

    Returns:
        The numbers of all points. A variable is named "value" if the function returns one number or estimate, otherwise by the key of the mapping or
        the name of the observable.

    Raises:
        ValueError: If an argument is invalid, the function returns something else, or every point failed.
        StoreError: If the store belongs to another function or grid.
        WorkersFailed: If the workers of a point failed more often than `retries` allows.

    Example:
        >>> import sdetools as st
        >>> def gap(eta, beta, seed):
        ...     oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1))
        ...     plan = st.schedules.constant(eta=eta, beta=beta)
        ...     return st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [1.0], 0.5, 2000, ["x"], seed=seed)
        >>> found = st.sweep(gap, eta=[0.1, 0.05], beta=[0.5, 0.8])
        >>> found.data["x"].dims, bool(found.data["x"].sel(eta=0.1, beta=0.8) > found.data["x"].sel(eta=0.05, beta=0.5))
        (('eta', 'beta'), True)
    """
    how = Execution.of({name: value for name, value in parameters.items() if name in OPTIONS})
    given = {name: value for name, value in parameters.items() if name not in OPTIONS}
    call = call_text(sweep, locals() | {"parameters": None}, **given, **how.changed())
    if not callable(function):
        raise ValueError(f"`function` must be a function of the parameters; got {_check.shown(function)}.")
    if errors not in ("raise", "record"):
        raise ValueError(f"`errors` must be 'raise' or 'record'; got {errors!r}.")
    _check.confidence(confidence)
    grid = _grid(given, _seeds(seeds), bool(product))
    fixed = _fixed(function, grid, how)
    identity = _identity(function, fixed, grid)
    with ExitStack() as stack:
        kept = how.store
        if kept is not None and not isinstance(kept, Store):
            kept = stack.enter_context(Store(kept, identity, how.resume))
        stack.enter_context(interruptible(lambda: kept_in(kept, "points") if kept is not None else None))
        several = "threads" if how.executor is None and (how.threads or 1) > 1 else how.executor
        pool = stack.enter_context(open_executor(several, how.threads))
        here = pool is None or (isinstance(several, str) and several.partition(":")[0] == "threads")
        inside = max(1, available_threads() // getattr(pool, "_max_workers", 1)) if here else 1
        task = PointTask(function, fixed, grid, inside, errors == "record")
        if not here:
            task.packed  # noqa: B018  refuses what cannot be sent, before anything runs
        report = stack.enter_context(progress_report(how.progress, "sweep", "points"))
        submission = None if pool is None else Submission(pool, how.threads, how.retries, kept_in(kept, "points"))
        records = _run(task, submission, kept, identity, report)
    if all("error" in record for record in records):
        raise ValueError(f"every point of the sweep failed, the first one, {grid.text(0)}, with: {records[0]['error']}")
    origin = Origin(call, 0 if grid.seeds is None else grid.seeds[0])
    return Sweep.of(grid, records, dict(units or {}), confidence, origin)


def _run(
    task: PointTask, submission: Submission | None, store: Store | None, identity: str, report: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    """Run the points that are not in the store, and return the records of all points in order.

    Args:
        task: The sweep.
        submission: How points are submitted to an executor; None to run them one after the other in this thread.
        store: The open store; None for none.
        identity: The key of the sweep's points in the store.
        report: A function of (done, total), numbers of points; None for nothing.
    """
    records: dict[int, dict[str, Any]] = {}
    size = task.grid.size

    def accept(index: int, record: dict[str, Any]) -> None:
        records[index] = record
        if store is not None and "error" not in record:
            store.put(identity, index, json.dumps(record).encode())
            store.commit()
        if report is not None:
            report(len(records), size)

    if store is not None:
        records |= {index: json.loads(payload) for index, payload in store.rows(identity)}
    waiting = [index for index in range(size) if index not in records]
    try:
        if submission is not None:
            submission.run(run_point, task, waiting, accept)
        else:
            for index in waiting:
                accept(index, run_point(task, index))
    finally:
        if store is not None:
            store.commit()
    return [records[index] for index in range(size)]


def _seeds(seeds: Any) -> tuple[int, ...] | None:
    """Return seeds as a tuple, or None for None; ValueError if there are none, or one is given twice."""
    if seeds is None:
        return None
    if np.ndim(seeds) == 0:
        return tuple(range(_check.count("seeds", seeds, hint="It is a number of seeds, or a list of them.")))
    found = tuple(_check.count("seeds", seed, least=0, most=WIDEST) for seed in seeds)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"`seeds` must be different seeds; got {_check.shown(seeds)}. For seeds 0 to 9 write 10.")
    return found


def _grid(given: Mapping[str, Any], seeds: tuple[int, ...] | None, product: bool) -> Grid:
    """Return the grid of the parameters; ValueError if there are none, or a value is invalid.

    Args:
        given: The values of each parameter by its name, as the user gave them.
        seeds: The seeds; None for none.
        product: Whether all values are combined; if not, all parameters must have the same number of values.
    """
    if not given:
        raise ValueError("a sweep must have at least one parameter with its values; got none. Pass for example eta=[0.1, 0.05].")
    for name in given:
        if name in (SEED, POINT):
            way = "Pass seeds=." if name == SEED else "Choose another name."
            raise ValueError(f"`{name}` cannot be a parameter of a sweep, which uses the name itself. {way}")
    labels, values = {}, {}
    for name, own in given.items():
        labels[name], values[name] = _values(name, own)
    if not product and len(set(map(len, values.values()))) > 1:
        lengths = ", ".join(f"{name} has {len(own)}" for name, own in values.items())
        raise ValueError(f"`product`=False must have as many values of each parameter; {lengths}.")
    return Grid(labels, values, seeds, product)


def _values(name: str, own: Any) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return the pair of labels, an array `(values,)` of numbers or texts, and values, a tuple, of the parameter `name`.

    Args:
        name: The name of the parameter.
        own: A list of numbers or texts, which are their own labels, or a dict from labels to any objects.

    Raises:
        ValueError: If there are no values, two are equal, or one in a list is neither a number nor a text.
    """
    if isinstance(own, Mapping):
        labels, values = [str(key) for key in own], tuple(own.values())
    elif isinstance(own, (str, bytes)) or not isinstance(own, (Sequence, range, np.ndarray)) or np.ndim(own) != 1:
        near = get_close_matches(name, OPTIONS, 1)
        way = f"Did you mean the option `{near[0]}`?" if near else f"For one value write {name}=[{_check.shown(own)}]."
        raise ValueError(f"`{name}` must be a list of values or a dict from labels to values; got {_check.shown(own)}. {way}")
    else:
        values = tuple(own.tolist() if isinstance(own, np.ndarray) else own)
        if all(isinstance(value, str) for value in values):
            labels = list(values)
        else:
            if bad := [v for v in values if isinstance(v, bool) or not isinstance(v, numbers.Real)]:
                raise ValueError(
                    f"`{name}` must be numbers, or texts, or a dict from labels to other values; got {_check.shown(bad[0])}. "
                    f"Write for example {name}={{'label': value}}."
                )
            array = _check.finite(name, list(values))
            whole = all(isinstance(v, (int, np.integer)) for v in values)
            values = tuple(int(v) if whole else float(v) for v in values)
            labels = list(values) if whole else array.tolist()
    if not values or len(set(labels)) < len(labels):
        raise ValueError(f"`{name}` must be different values, at least one; got {_check.shown(own)}.")
    return np.array(labels), values


def _fixed(function: Callable[..., Any], grid: Grid, how: Execution) -> dict[str, Any]:
    """Return the arguments that are the same at all points: seed 0 without seeds, and the backend and precision that are not the default.

    Raises:
        ValueError: If the function does not accept the parameters, the seeds, or these options.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function of C does not say what it accepts
        return how.changed()
    named = [name for name, p in signature.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    fixed: dict[str, Any] = {SEED: 0} if grid.seeds is None and SEED in named else {}
    for name, value in how.changed().items():
        if name not in named:
            raise ValueError(
                f"`{name}` must be an option that the function takes, for it runs the simulation; got {name}={value!r}, and the function has no "
                f"parameter `{name}`. Pass it to the simulation within the function."
            )
        fixed[name] = value
    wanted = [*grid.values, *([] if grid.seeds is None else [SEED])]
    try:
        signature.bind(**dict.fromkeys([*wanted, *fixed]))
    except TypeError as error:
        near = [
            f" Did you mean the option `{n[0]}` for `{name}`?" for name in wanted if (n := get_close_matches(name, OPTIONS, 1))
        ]
        raise ValueError(f"`function` must accept {', '.join(wanted)} by name; {error}.{''.join(near[:1])}") from None
    return fixed


def _identity(function: Callable[..., Any], fixed: Mapping[str, Any], grid: Grid) -> str:
    """Return the text that identifies a sweep in a store: the function with all that it reads, the grid, and the version."""
    shown = {name: labels.tolist() for name, labels in grid.labels.items()}
    text = ", ".join(f"{name}={values}" for name, values in shown.items())
    text += "" if grid.seeds is None else f", seeds={list(grid.seeds)}"
    text = text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
    everything = partial(function, grid.values, shown, grid.seeds, grid.product, fixed)
    digest = function_identity(everything).rpartition("#")[2]
    return f"sweep of {function_identity(function)} over {text}, {digest}, sdetools {__version__}"
