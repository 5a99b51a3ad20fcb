"""The command `sdetools risk`, which computes the exact risk of methods with and without momentum on least squares."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sdetools._version import __version__
from sdetools.cli.common import bar, main, print_table
from sdetools.cli.least_squares import SPECTRA, Method, methods_of, spectrum_of

_PER_DECADE = 32
"""Recorded steps of a decade, in figures and files."""
_MOST_MODES = 20_000
"""The number of modes up to which the search of --best takes about a minute."""
_MOMENTUM = ("SGDM", "HeavyBall")
"""The rules that the rule for dropping momentum is about."""


@main.command(short_help="Compute the exact risk of methods on least squares.")
@click.option(
    "--spectrum", required=True, metavar="LAW", help=f"The eigenvalues: {SPECTRA}. Without a colon and a suffix: numbers."
)
@click.option(
    "--targets",
    metavar="LIST",
    help="The start's distances from the minimiser: the exponent b of j^-b for power and features, else numbers. [default: all 1]",
)
@click.option("--label-noise", type=float, help="Standard deviation of the labels. [default: 0, or the residual of data]")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Fresh rows of a step.")
@click.option(
    "--methods",
    default="sgd,sgdm:0.9,dana",
    show_default=True,
    metavar="LIST",
    help="Names of linear rules with their numbers, for example sgd,sgdm:0.9,qhm:0.999:nu=0.7,mass,dana:share=0.3.",
)
@click.option(
    "--eta",
    type=float,
    required=True,
    help="Learning rate of the equivalent SGD, for all methods; eta= within a method is its own.",
)
@click.option("--steps", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of steps.")
@click.option("--rows", type=click.IntRange(min=2), default=13, show_default=True, help="Rows of the table.")
@click.option(
    "--delta", type=float, default=0.05, show_default=True, help="Tolerance of log risk at which momentum may be dropped."
)
@click.option("--best", "wanted", is_flag=True, help="Also search for the best learning rate and momentum; takes seconds.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random features.")
@click.option("--plot", "figure", type=click.Path(path_type=Path), metavar="FILE", help="Figure of the risks (.png, .svg, .pdf).")
@click.option("--json", "record", type=click.Path(path_type=Path), metavar="FILE", help="All numbers as JSON.")
@click.option(
    "--out", type=click.Path(), help="Folder for risk.csv, risk.json, risk.svg and a file .nc of each method, for st.load."
)
def risk(figure: Path | None, record: Path | None, out: str | None, **options: Any) -> None:
    """Compute the exact excess risk of methods with and without momentum on streaming least squares, without Monte Carlo.

    Every step sees fresh Gaussian rows with the given eigenvalues, and noisy labels. Prints the risk of the methods side by side, with the local
    exponent since the row above in brackets, and whether momentum may be dropped: what the rule for dropping says, and the exact largest
    difference of log risk.

    \b
    LAW is one of
      1,0.5,0.1                   eigenvalues
      power:A,MODES               lam_j = j^(-2A)
      bulks:N1,N2,RATIO           N1 eigenvalues 1, N2 eigenvalues 1/RATIO
      features:A,FEATURES,INPUTS  random features of inputs of variances j^(-2A)
      FILE                        .npy, .csv or .txt: eigenvalues (one column), or rows of data with the label last

    \b
    Example:
      sdetools risk --spectrum power:1,1000 --targets 0.3 --batch 16 --methods sgd,sgdm:0.9,dana --eta 0.1
      sdetools risk --spectrum power:1.5,1000 --targets 0.5 --label-noise 0.2 --batch 16 --eta 0.1 --plot risk.png
      sdetools risk --spectrum bulks:10,90,100 --batch 64 --methods sgd,heavy-ball:0.95,mass --eta 0.3 --best
      sdetools risk --spectrum my_data.csv --batch 32 --eta 0.01 --steps 100000 --out risk
    """
    for file in filter(None, (figure, record)):
        _check_file(file, file is figure)
    from sdetools import _check, exact, streaming_least_squares
    from sdetools.claims.folder import check_folder, write_text

    folder = check_folder(out) if out else None
    eta, delta = _check.positive("eta", options["eta"]), _check.positive("delta", options["delta"])
    problem = spectrum_of(options)
    if options["wanted"] and len(problem.values) > _MOST_MODES:
        raise ValueError(
            f"`best` must have at most {_MOST_MODES:,} modes, because it computes thousands of exact rates; got {len(problem.values):,}. Leave it out."
        )
    oracle = streaming_least_squares(problem.values, problem.label_noise, options["batch"])
    methods = methods_of(options["methods"], problem, oracle, eta)
    whole = []
    with bar() as (label, progress):
        for i, method in enumerate(methods):
            label(method.text)
            whole.append(exact.risk(method.rule, problem.distance, options["steps"]))
            if progress is not None:
                progress(i + 1, len(methods))
    _print_problem(problem, options["batch"])
    print_table(
        ("method", "rule", "learning rate", "equivalent to SGD at", "numbers"), [_described(method) for method in methods]
    )
    click.echo()
    rows = [_thinned(one, _log_spaced(options["steps"], options["rows"])) for one in whole]
    print_table(("step", *(method.text for method in methods)), _cells(rows))
    for method, one in zip(methods, whole, strict=True):
        if one.nodes < len(one.spectrum):
            error = f"at most {one.bound:.2g}, proved" if math.isfinite(one.bound) else f"about {one.estimate:.2g}, an estimate"
            click.echo(f"{method.text}: modes in groups, {one.nodes} nodes; error of the risk {error}")
        if one.diverged:
            click.echo(f"{method.text} diverges: {_edge(method)}", err=True)
    dropped = [_dropping(m, one, problem, oracle, options) for m, one in zip(methods, whole, strict=True) if _has_momentum(m)]
    _print_dropping(dropped, delta)
    best = _print_best(problem, options["batch"]) if options["wanted"] else []
    kept = [_thinned(one, _recorded(options["steps"])) for one in whole]
    numbers = _numbers(problem, options, methods, kept, dropped, best)
    if figure is not None:
        _figure(methods, kept).savefig(figure, dpi=150)
        click.echo(f"wrote {figure}", err=True)
    if record is not None:
        write_text(record, numbers)
        click.echo(f"wrote {record}", err=True)
    if folder is not None:
        _write(folder, methods, kept, numbers)


def _check_file(file: Path, drawn: bool) -> None:
    """Raise ValueError for a file that cannot be written, or whose name ends in no format of a figure."""
    name = "plot" if drawn else "json"
    if drawn and file.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"`plot` must end in .png, .svg or .pdf; got {str(file)!r}.")
    if not file.absolute().parent.is_dir():
        raise ValueError(f"`{name}` must lie in a folder that exists; got {str(file)!r}.")


def _log_spaced(steps: int, count: int) -> Any:
    """Return at most `count` steps, 0 and others from 1 to `steps` at about equal ratios, as an increasing integer array."""
    import numpy as np

    return np.unique(np.concatenate([[0], np.geomspace(1, steps, count - 1).round()]).astype(int))


def _recorded(steps: int) -> Any:
    """Return the steps of figures and files up to `steps`: all at first, then 32 a decade, as an increasing integer array."""
    return _log_spaced(steps, 2 + int(_PER_DECADE * max(1.0, math.log10(steps))))


def _thinned(one: Any, steps: Any) -> Any:
    """Return a `Risk` at fewer of its steps 0, 1, 2, ..."""
    return dataclasses.replace(one, steps=one.steps[steps], times=one.times[steps], risk=one.risk[steps])


def _cells(rows: Sequence[Any]) -> list[list[str]]:
    """Return the rows of the table of risks: the step, then for each method the risk with its local exponent since the row above in brackets."""
    exponents = [one.local_exponents() for one in rows]
    table = []
    for k, step in enumerate(rows[0].steps):
        slopes = [f" ({found[k - 2]:+.3f})" if k > 1 else "" for found in exponents]
        table.append([str(step), *(f"{one.risk[k]:.5e}{slope}" for one, slope in zip(rows, slopes, strict=True))])
    return table


def _print_problem(problem: Any, batch: int) -> None:
    """Print one line on the problem, a `Spectrum`: its eigenvalues, the batch size, the label noise and the risk at the start."""
    lam = problem.values
    click.echo(
        f"{len(lam)} modes, trace {lam.sum():.5g}, largest {lam.max():.5g}, smallest {lam.min():.5g}; batch {batch}, "
        f"label noise {problem.label_noise:.5g}; excess risk {problem.risk:.5g} at the start\n"
    )


def _described(method: Method) -> list[str]:
    """Return the row of a method in the table of methods: its text, rule, learning rate, rate of the equivalent SGD, and numbers."""
    same = "-" if math.isnan(method.effective) else f"{method.effective:.6g}"
    return [
        method.text,
        method.rule.name,
        f"{method.rate:.6g}",
        same,
        ", ".join(f"{name}={value:g}" for name, value in method.numbers.items()),
    ]


def _edge(method: Method) -> str:
    """Return the end of a sentence on the stability limit (largest stable learning rate) of a method that diverged."""
    from sdetools.exact import stability_edge

    try:
        edge = stability_edge(method.rule)
    except ValueError:
        return "its coefficients move, so that no stability limit is known; try a smaller --eta."
    shown = "" if math.isnan(method.effective) else f", --eta {edge * method.effective:.4g}"
    return f"it is stable up to the learning rate {edge * method.rate:.4g}{shown}."


def _has_momentum(method: Method) -> bool:
    """Return whether the rule for dropping momentum applies: SGDM in either form, with a momentum above 0."""
    return method.rule.name in _MOMENTUM and method.numbers["beta"] > 0


def _dropping(method: Method, own: Any, problem: Any, oracle: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the terms of the rule for dropping momentum, and how far apart the risks with and without it are, a dict by name.

    Args:
        method: SGDM in one of its two forms.
        own: Its exact `Risk` at all steps.
        problem: The `Spectrum`.
        oracle: The oracle of streaming least squares.
        options: Values of the options `batch` and `steps`.

    Returns:
        The fields of `exact.Dropping` and their sum `bound`, `exact`, the largest |log(risk / risk of SGD)| over all steps, `step`, where it is
        attained, `last`, its value at the end, and `method`, the method's text.
    """
    import numpy as np

    from sdetools import SGD, exact, schedules

    terms = exact.drop_momentum(problem, options["batch"], method.effective, method.numbers["beta"], options["steps"])
    plain = exact.risk(SGD(oracle, schedules.constant(method.effective)), problem.distance, options["steps"]).risk
    with np.errstate(all="ignore"):
        apart = np.abs(np.log(own.risk / plain))
    apart[~np.isfinite(apart)] = np.inf
    found = {"method": method.text} | dataclasses.asdict(terms) | {"bound": terms.bound}
    return found | {"exact": float(apart.max()), "step": int(apart.argmax()), "last": float(apart[-1])}


def _print_dropping(found: Sequence[dict[str, Any]], delta: float) -> None:
    """Print the terms of the rule for dropping momentum, its bound, its answer at the tolerance `delta` of log risk, and the exact differences.

    `found` has a dict of `_dropping` for each method with momentum; nothing is printed without one.
    """
    if not found:
        return
    click.echo(f"\nMay momentum be dropped, up to {delta:g} in log risk? SGD at the equivalent rate instead:")
    rows = []
    for one in found:
        terms = [f"{one[name]:.4g}" for name in ("noise", "transient", "rate", "bound")]
        answer = ["yes" if one["bound"] <= delta else "no answer", "yes" if one["exact"] <= delta else "no"]
        rows.append(
            [one["method"], *terms, answer[0], f"{one['exact']:.4g} at step {one['step']}", answer[1], f"{one['last']:.4g}"]
        )
    columns = ("method", "noise", "transient", "rate", "bound", "rule says", "exact largest", "exactly", "at the end")
    print_table(columns, rows)


def _print_best(problem: Any, batch: int) -> list[dict[str, Any]]:
    """Print the best learning rate without and with momentum at a batch size, and return their numbers, a dict for each of the two."""
    from sdetools import exact

    threshold = exact.batch_threshold(problem.values)
    found = []
    for momentum in (False, True):
        one = exact.best(problem.values, batch, momentum=momentum)
        tenth = math.log(0.1) / math.log(one.rate) if 0 < one.rate < 1 else math.inf
        found.append({"method": "sgdm" if momentum else "sgd"} | dataclasses.asdict(one) | {"steps_to_a_tenth": tenth})
    click.echo("\nBest exact rates without label noise (the factor of the risk per step, in the end):")
    print_table(
        ("method", "eta", "beta", "1 - rate", "steps to a tenth"),
        [
            [one["method"], f"{one['h']:.5g}", f"{one['beta']:.5g}", f"{1 - one['rate']:.5g}", f"{one['steps_to_a_tenth']:.5g}"]
            for one in found
        ],
    )
    gain, rank, full = found[0]["steps_to_a_tenth"] / found[1]["steps_to_a_tenth"], threshold.effective_rank, threshold.kappa**0.5
    click.echo(
        f"Momentum is {gain:.4g} times as fast at batch {batch}. Asymptotically it gains from a batch of about tr K / lam_max = {rank:.4g} on, "
        f"and the whole factor {full:.4g} far beyond {rank * full:.4g}."
    )
    return found


def _numbers(
    problem: Any, options: dict[str, Any], methods: Sequence[Method], kept: Sequence[Any], dropped: Any, best: Any
) -> str:
    """Return all numbers of the run as JSON; what is not finite is null.

    Args:
        problem: The `Spectrum`.
        options: Values of the command's options by name.
        methods: The methods.
        kept: The `Risk` of each method at the steps of the file.
        dropped: The dicts of `_dropping`.
        best: The dicts of `_print_best`; empty without --best.
    """
    from sdetools.results.protocol import plain

    entries = {
        method.text: {
            "rule": method.rule.name,
            "learning_rate": method.rate,
            "equivalent_rate": method.effective,
            "numbers": method.numbers,
            "risk": one.risk,
            "grouping_bound": one.bound,
            "grouping_estimate": one.estimate,
        }
        for method, one in zip(methods, kept, strict=True)
    }
    found = {
        "version": __version__,
        "options": {name: value for name, value in options.items() if name != "wanted"},
        "modes": len(problem.values),
        "label_noise": problem.label_noise,
        "steps": kept[0].steps,
        "methods": entries,
        "dropping": list(dropped),
        "best": best,
    }
    return json.dumps(plain(found), indent=1)


def _figure(methods: Sequence[Method], kept: Sequence[Any]) -> Any:
    """Return the figure of the risks over the steps, one curve for each method; `kept` has the `Risk` of each method."""
    from sdetools.plots import risk_curves

    return risk_curves(kept[0].steps, {method.text: one.risk for method, one in zip(methods, kept, strict=True)}).figure


def _write(folder: Path, methods: Sequence[Method], kept: Sequence[Any], numbers: str) -> None:
    """Write the files of --out to `folder`, and list them on standard error: risk.csv, risk.json (the text `numbers`), risk.svg, a .nc per method."""
    from sdetools.claims.folder import write_text
    from sdetools.claims.record import svg_text

    lines = ["step,time,method,risk"]
    for method, one in zip(methods, kept, strict=True):
        name = f'"{method.text}"' if '"' not in method.text else method.text
        lines += [
            f"{k},{t!r},{name},{v!r}" for k, t, v in zip(one.steps.tolist(), one.times.tolist(), one.risk.tolist(), strict=True)
        ]
    texts = {"risk.csv": "\n".join(lines) + "\n", "risk.json": numbers, "risk.svg": svg_text(_figure(methods, kept))}
    for file, text in texts.items():
        write_text(folder / file, text)
    names = [re.sub(r"[^A-Za-z0-9.-]+", "-", method.text) + ".nc" for method in methods]
    for file, one in zip(names, kept, strict=True):
        one.save(folder / file)
    click.echo(f"wrote {', '.join([*texts, *names])} in {folder}", err=True)
