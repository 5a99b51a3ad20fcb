"""The command line. Everything heavy is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .claims import Results

STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not run": "dim", "error": "magenta"}


class Wrong(click.ClickException):
    """A mistake in the arguments, told in one sentence."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"sdetools: {' '.join(self.format_message().split())}", err=True)


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = f" See `{error.ctx.command_path} --help`." if error.ctx is not None else ""
        raise Wrong(error.format_message() + command) from error


class Commands(click.Group):
    """Turns what a person did wrong into one sentence and exit code 2, and Ctrl-C into advice and exit code 130."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _one_sentence():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _one_sentence():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            again = ctx.meta.get("resume")
            advice = f" The finished chunks are kept; to go on:\n  {again}" if again else ""
            click.echo(f"\nsdetools: interrupted.{advice}", err=True)
            ctx.exit(130)
        except ModuleNotFoundError as error:
            from .claims.definition import install_line

            if (error.name or "sdetools").split(".")[0] == "sdetools":
                raise
            click.echo(f"sdetools: {error.name} is not installed; install it with {install_line(error)}", err=True)
            ctx.exit(2)
        except (ValueError, OSError) as error:
            click.echo(f"sdetools: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from .claims.verification import version

        click.echo(f"sdetools {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def main() -> None:
    """Pytest for theorems about stochastic optimisation.

    \b
    Example:
      sdetools verify paper_checks --budget quick --out report
    """


def _compute_options(command: Any) -> Any:
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads, or worker processes. [default: all cores]"),
        click.option(
            "--executor",
            type=click.Choice(["threads", "processes"]),
            default="threads",
            show_default=True,
            help="Where the chunks run.",
        ),
        click.option("--resume", is_flag=True, help="Go on from the finished chunks in the store of --out."),
    ):
        command = option(command)
    return command


@main.command(short_help="Run claims and say which are supported.")
@click.argument("paths", nargs=-1, type=click.Path())
@click.option(
    "--budget",
    type=click.Choice(["quick", "standard", "full"]),
    default="quick",
    show_default=True,
    help="How many paths a claim may use.",
)
@click.option(
    "--out", type=click.Path(), default="sdetools-report", show_default=True, help="Folder of the report and the store."
)
@click.option("--only", metavar="PATTERN", help="Only claims whose id holds PATTERN, or matches it with * and ?.")
@click.option("--list", "listing", is_flag=True, help="List the claims and stop.")
@click.option(
    "--ahead",
    is_flag=True,
    help="On a first run, compile the kernels of later claims in a second process, which runs them with a handful of paths.",
)
@_compute_options
@click.pass_context
def verify(
    ctx: click.Context,
    paths: tuple[str, ...],
    budget: str,
    out: str,
    only: str | None,
    listing: bool,
    ahead: bool,
    seed: int,
    threads: int | None,
    executor: str,
    resume: bool,
) -> None:
    """Run claims and say which are supported.

    PATHS are files or folders with functions marked @st.claim; without any, the current folder. Prints a table of verdicts
    and writes report.html, results.json and the figures. Exit code 0 if nothing is contradicted, 1 otherwise, 2 for bad input.

    \b
    Example:
      sdetools verify paper_checks --budget standard --out report --only "theorem-3.5*"
    """
    from .claims import collect, select
    from .claims import verify as run

    wanted = paths or (".",)
    if listing:
        _print_table(
            ["id", "source", "statement"],
            [[c.id, c.source, " ".join(c.statement.split())] for c in select(collect(wanted), only)],
        )
        return
    ctx.meta["resume"] = _again(ctx, resume)
    # What a claim prints must not get between the rows of the table.
    with _executor(executor, threads) as (pool, lanes), contextlib.redirect_stdout(sys.stderr), _bar() as (name, progress):
        results = run(
            wanted,
            budget=budget,
            out=out,
            seed=seed,
            threads=lanes,
            executor=pool,
            resume=resume,
            only=only,
            ahead=ahead,
            progress=progress,
            watch=lambda position, total, claim: name(f"{claim.id} ({position} of {total})"),
        )
    from .report.page import write

    page = write(results, out)
    _print_verdicts(results)
    click.echo(f"report: {page}", err=True)
    ctx.exit(results.exit_code)


INTEGRATORS = {
    "euler-maruyama": "EulerMaruyama",
    "milstein": "Milstein",
    "sra1": "SRA1",
    "platen": "Platen",
    "ri1": "RI1",
    "obabo": "OBABO",
    "baoab": "BAOAB",
    "ubu": "UBU",
}
"""Integrators of the limits by their names in a shell."""


@main.command(short_help="Measure a weak gap and its order in eta.")
@click.option("--loss", required=True, help='The loss as a formula, for example "(x*y - 1)**2 / 2".')
@click.option("--variables", help='Its coordinates in order, for example "x y". [default: as they are named]')
@click.option(
    "--noise",
    type=click.Choice(["gaussian", "rademacher", "uniform", "three-point", "exponential", "two-point", "student-t", "none"]),
    default="gaussian",
    show_default=True,
    help="Law of the gradient noise.",
)
@click.option(
    "--covariance", metavar="ROWS", help='Covariance of the noise: "1,0.5;0.5,2", or its diagonal "1,2". [default: identity]'
)
@click.option("--degrees", type=float, default=5.0, show_default=True, help="Degrees of freedom of student-t.")
@click.option("--probability", type=float, default=0.1, show_default=True, help="Probability of the rare value of two-point.")
@click.option("--sigma", default="auto", show_default=True, help="Scale of the noise; auto is eta**-0.5.")
@click.option("--eta", required=True, metavar="LIST", help='Step sizes, for example "0.1,0.05,0.025".')
@click.option("--beta", type=float, help="Momentum. [default: 0.9]")
@click.option("--alpha", type=float, help="Instead of --beta: 1 - beta = damping * eta**alpha.")
@click.option("--damping", type=float, help="The damping beside --alpha. [default: 0.5]")
@click.option("--ripple", type=float, default=0.0, show_default=True, help="R: eta_k = eta * (1 + R * (-1)**k).")
@click.option("--x0", required=True, metavar="POINT", help='The start, for example "2,0.5".')
@click.option("--horizon", type=float, default=1.0, show_default=True, help="The final time; step k is at time k * eta.")
@click.option("--observe", multiple=True, help="A formula whose mean is compared; may be given again. [default: the loss]")
@click.option("--paths", type=click.IntRange(min=2), help="Paths for each step size. [default: 100000]")
@click.option(
    "--precision", type=float, help="Instead of --paths: the half-width of the 95 % interval wanted for every recorded gap."
)
@click.option(
    "--against",
    type=click.Choice(["sgd", "sgd-unaveraged", "sde", "gradient-flow", "kinetic", "modified"]),
    default="sgd",
    show_default=True,
    help="What the optimiser is compared with: SGD on the averaged schedule, SGD on the schedule as it is, or a limit: the SDE, the "
    "gradient flow, the kinetic equation (alpha = 1), the second-order modified equation of SGD.",
)
@click.option(
    "--dynamics",
    type=click.Choice(["sgdm", "sgd"]),
    default="sgdm",
    show_default=True,
    help="The optimiser: with momentum, or without.",
)
@click.option(
    "--integrator",
    type=click.Choice(["auto", *INTEGRATORS]),
    default="auto",
    show_default=True,
    help="What solves a limit; auto is sra1 for additive noise, euler-maruyama for other noise, ri1 for the flow, baoab for kinetic.",
)
@click.option(
    "--substeps",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Steps of the integrator in one of the optimiser.",
)
@click.option("--out", type=click.Path(), help="Folder for gap.csv, gap.json, gap.svg and the store.")
@_compute_options
@click.pass_context
def gap(ctx: click.Context, **options: Any) -> None:
    """Measure the weak gap between an optimiser and another one or a limit of it, and its order in eta.

    \b
    Example:
      sdetools gap --loss "(x*y - 1)**2 / 2" --variables "x y" --x0 2,0.5 --beta 0.9 \\
                   --eta 0.1,0.05,0.025 --observe "x**2 + y**2" --paths 100000
      sdetools gap --loss "x**4/4 - x**2/2" --x0 1 --dynamics sgd --against sde --eta 0.1,0.05,0.025
    """
    if options["resume"] and not options["out"]:
        raise click.UsageError("--resume needs --out, the folder with the store of the earlier run.")
    for one, other in (("beta", "alpha"), ("beta", "damping"), ("paths", "precision")):
        if options[one] is not None and options[other] is not None:
            raise click.UsageError(f"--{one} and --{other} say the same thing in two ways; give one of them.")
    if options["damping"] is not None and options["alpha"] is None:
        raise click.UsageError("--damping needs --alpha: 1 - beta = damping * eta**alpha.")
    from .claims.folder import check_folder, open_store, write_text
    from .claims.run import svg_text
    from .claims.verification import version

    folder = check_folder(options["out"]) if options["out"] else None
    arguments = _gap_arguments(options)
    with contextlib.ExitStack() as stack:
        pool, lanes = stack.enter_context(_executor(options["executor"], options["threads"]))
        _, progress = stack.enter_context(_bar())
        store = None
        if folder is not None:
            ctx.meta["resume"] = _again(ctx, options["resume"])
            asked = {key: value for key, value in options.items() if key not in ("out", "threads", "executor", "resume")}
            store = open_store(folder, {"version": version(), "command": "gap", **asked}, options["resume"])
            stack.callback(store.close)
        from sdetools import order_study

        study = order_study(
            **arguments,
            executor=pool,
            threads=lanes,
            store=store,
            resume=options["resume"],
            progress=progress or (None if options["precision"] is None else lambda done, total: None),
        )
    click.echo(study.table())
    if folder is not None:
        write_text(folder / "gap.csv", study.data.to_dataframe().reset_index().to_csv(index=False))
        write_text(folder / "gap.json", study.to_json())
        write_text(folder / "gap.svg", svg_text(study.plot()))
        click.echo(f"wrote gap.csv, gap.json and gap.svg in {folder}", err=True)


def _gap_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `order_study` that the options ask for; raises ValueError for what makes no sense."""
    import math

    import sdetools as st

    from . import _check

    etas = [_check.positive("eta", eta) for eta in _numbers("eta", options["eta"])]
    horizon = _check.positive("horizon", options["horizon"])
    ripple = _check.number("ripple", options["ripple"])
    if not 0 <= ripple <= 1:
        raise ValueError(f"`ripple` must lie in [0, 1]; got ripple={ripple!r}. Above 1 every second step would climb the loss.")
    loss = st.losses.from_expression(options["loss"], variables=options["variables"])
    noise = _noise(options, loss.dim)
    sigma = None if options["sigma"] == "auto" else _check.number("sigma", options["sigma"], "be a number or auto")
    x0 = _check.point("x0", _numbers("x0", options["x0"]), loss.dim)
    observe = list(options["observe"]) or [options["loss"]]
    from .losses.expression import parse

    for text in observe:
        parse(text, loss.names, {})

    def plan(eta: float) -> Any:
        if options["alpha"] is not None:
            damping = 0.5 if options["damping"] is None else options["damping"]
            smooth = st.schedules.scaled(eta, alpha=options["alpha"], damping=damping)
        else:
            smooth = st.schedules.constant(eta, beta=0.9 if options["beta"] is None else options["beta"])
        if ripple == 0:
            return smooth
        # The averaged rate looks ahead: the ripple goes on for some memories after the horizon.
        steps = math.ceil(horizon / eta + 40 * smooth.longest_memory)
        return st.schedules.from_functions(lambda k: eta * (1 + ripple * (-1) ** k), smooth.betas(1)[0], steps, base=eta)

    def pair(eta: float) -> tuple[Any, Any]:
        own = plan(eta)
        oracle = st.NoisyOracle(loss, noise, sigma=eta**-0.5 if sigma is None else sigma)
        first = st.SGD(oracle, own.averaged()) if options["dynamics"] == "sgd" else st.SGDM(oracle, own)
        if not options["against"].startswith("sgd"):
            return first, _limit(options, oracle, own)
        if options["against"] == "sgd-unaveraged":
            other = st.SGD(oracle, st.schedules.from_arrays(own.eta_values, base=own.eta))
        else:
            other = st.SGD(oracle, own.averaged())
        return first, other

    limit = not options["against"].startswith("sgd")
    together = True
    for eta in etas:
        first, second = pair(eta)
        if limit and second.sde.noise_dim and (first.brownian == 0 or first.brownian != second.brownian):
            together = False
    if not together:
        click.echo(
            "the optimiser's draws are no Brownian increments: the two run independently, which takes more paths", err=True
        )
    much = (
        {"paths": options["paths"] or 100_000}
        if options["precision"] is None
        else {"precision": _check.positive("precision", options["precision"])}
    )
    return {
        "pair": pair,
        "etas": etas,
        "x0": x0.tolist(),
        "horizon": horizon,
        "observe": observe,
        "seed": options["seed"],
        **({} if together else {"coupled": False}),
        **much,
    }


def _limit(options: dict[str, Any], oracle: Any, plan: Any) -> Any:
    """The integrator on the limit that the options name."""
    import sdetools as st

    kind = options["against"]
    if kind == "modified" and (plan.has_momentum and options["dynamics"] == "sgdm"):
        raise ValueError("`against` modified is the equation of SGD; got it for momentum. Add --dynamics sgd, or --against sde.")
    sde = {
        "sde": lambda: st.LimitSDE(oracle, plan),
        "gradient-flow": lambda: st.GradientFlow(oracle, plan),
        "kinetic": lambda: st.KineticSDE(oracle, plan),
        "modified": lambda: st.ModifiedSDE(oracle, plan.eta),
    }[kind]()
    name = options["integrator"]
    if name == "auto":
        additive = sde.noise_class in ("none", "additive")
        name = "baoab" if kind == "kinetic" else "ri1" if kind == "gradient-flow" else "sra1" if additive else "euler-maruyama"
    return getattr(st, INTEGRATORS[name])(sde, dt=plan.eta / options["substeps"])


def _noise(options: dict[str, Any], dim: int) -> Any:
    import sdetools as st

    name = options["noise"]
    if name == "none":
        return st.noise.none(dim)
    covariance = None
    if options["covariance"] is not None:
        rows = [_numbers("covariance", row) for row in options["covariance"].split(";")]
        covariance = rows[0] if len(rows) == 1 else rows
    if name == "two-point":
        return st.noise.two_point(dim, probability=options["probability"], covariance=covariance)
    if name == "student-t":
        return st.noise.student_t(dim, degrees=options["degrees"], covariance=covariance)
    make = {"three-point": st.noise.three_point, "exponential": st.noise.centred_exponential}.get(name)
    return (make or getattr(st.noise, name))(dim, covariance=covariance)


def _numbers(name: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers:
        raise ValueError(f"`{name}` must be numbers with commas between them; got {text!r}. Write for example 0.1,0.05.")
    return numbers


@main.command(short_help="Follow the slow motion along the minimisers.")
@click.option("--loss", required=True, help='The loss as a formula, for example "(x*y - 1)**2 / 2".')
@click.option("--variables", help='Its coordinates in order, for example "x y". [default: as they are named]')
@click.option(
    "--noise",
    type=click.Choice(["gaussian", "rademacher", "uniform", "three-point", "exponential", "two-point", "student-t", "none"]),
    default="rademacher",
    show_default=True,
    help="Law of the gradient noise; bounded ones are fastest.",
)
@click.option(
    "--covariance", metavar="ROWS", help='Covariance of the noise: "1,0.5;0.5,2", or its diagonal "1,2". [default: identity]'
)
@click.option("--degrees", type=float, default=5.0, show_default=True, help="Degrees of freedom of student-t.")
@click.option("--probability", type=float, default=0.1, show_default=True, help="Probability of the rare value of two-point.")
@click.option(
    "--label-noise",
    metavar="MODELS",
    help='Instead of --noise: fresh noise on the labels of the models f, for example "x*y", several with ; between them.',
)
@click.option("--std", type=float, default=1.0, show_default=True, help="Standard deviation of the label noise.")
@click.option("--sigma", type=float, default=1.0, show_default=True, help="Scale of the noise.")
@click.option("--eta", type=float, required=True, help="Step size: a unit of slow time is 1/eta**2 steps.")
@click.option("--beta", type=float, help="Momentum. [default: 0.9]")
@click.option("--alpha", type=float, help="Instead of --beta: 1 - beta = damping * eta**alpha.")
@click.option("--damping", type=float, help="The damping beside --alpha. [default: 0.5]")
@click.option("--x0", required=True, metavar="POINT", help='The start, for example "2,0.5"; the slow SDE starts at its Phi.')
@click.option("--horizon", type=float, default=1.0, show_default=True, help="The final slow time, k * eta**2.")
@click.option("--observe", multiple=True, help="A formula whose law is compared; may be given again. [default: the coordinates]")
@click.option("--paths", type=click.IntRange(min=2), default=10_000, show_default=True, help="Paths of each.")
@click.option("--dt", type=float, help="Step of the slow SDE's integrator. [default: about a 200th of the horizon]")
@click.option(
    "--integrator",
    type=click.Choice(["euler-maruyama", "platen", "ri1"]),
    default="euler-maruyama",
    show_default=True,
    help="What solves the slow SDE: weak order 1, or 2.",
)
@click.option("--out", type=click.Path(), help="Folder for slow.json, slow.svg, manifold.svg (2 or 3 coordinates) and the store.")
@_compute_options
@click.pass_context
def slow(ctx: click.Context, **options: Any) -> None:
    """Follow SGD, SGDM and the slow SDE along the manifold of minimisers, over 1/eta**2 steps, and compare their laws.

    \b
    Example:
      sdetools slow --loss "(x*y - 1)**2 / 2" --x0 1,1 --eta 0.02 --horizon 0.2 --observe "x**2 - y**2" --out slow
      sdetools slow --loss "(1 + x**2)*y**2/2" --label-noise "sqrt(1 + x**2)*y" --x0 1,0 --eta 0.05 --horizon 2
    """
    if options["resume"] and not options["out"]:
        raise click.UsageError("--resume needs --out, the folder with the store of the earlier run.")
    for one, other in (("beta", "alpha"), ("beta", "damping")):
        if options[one] is not None and options[other] is not None:
            raise click.UsageError(f"--{one} and --{other} say the same thing in two ways; give one of them.")
    if options["damping"] is not None and options["alpha"] is None:
        raise click.UsageError("--damping needs --alpha: 1 - beta = damping * eta**alpha.")
    from .claims.folder import check_folder, open_store, write_text
    from .claims.run import svg_text
    from .claims.verification import version

    folder = check_folder(options["out"]) if options["out"] else None
    arguments = _slow_arguments(options)
    with contextlib.ExitStack() as stack:
        pool, lanes = stack.enter_context(_executor(options["executor"], options["threads"]))
        _, progress = stack.enter_context(_bar())
        store = None
        if folder is not None:
            ctx.meta["resume"] = _again(ctx, options["resume"])
            asked = {key: value for key, value in options.items() if key not in ("out", "threads", "executor", "resume")}
            store = open_store(folder, {"version": version(), "command": "slow", **asked}, options["resume"])
            stack.callback(store.close)
        from sdetools import slow_study

        study = slow_study(**arguments, executor=pool, threads=lanes, store=store, resume=options["resume"], progress=progress)
    click.echo(study.table())
    if folder is not None:
        written = ["slow.json", "slow.svg"]
        write_text(folder / "slow.json", study.to_json())
        write_text(folder / "slow.svg", svg_text(study.plot()))
        if study.oracle.loss.dim in (2, 3):
            write_text(folder / "manifold.svg", svg_text(study.picture()))
            written.append("manifold.svg")
        click.echo(f"wrote {', '.join(written)} in {folder}", err=True)


def _slow_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `slow_study` that the options ask for; raises ValueError for what makes no sense."""
    import sdetools as st

    from . import _check

    eta = _check.positive("eta", options["eta"])
    loss = st.losses.from_expression(options["loss"], variables=options["variables"])
    if options["label_noise"] is not None:
        models = [text.strip() for text in options["label_noise"].split(";")]
        noise = st.noise.label_noise(model=models, std=_check.positive("std", options["std"]), variables=list(loss.names))
    else:
        noise = _noise(options, loss.dim)
    if options["alpha"] is not None:
        plan = st.schedules.scaled(eta, alpha=options["alpha"], damping=0.5 if options["damping"] is None else options["damping"])
    else:
        plan = st.schedules.constant(eta, beta=0.9 if options["beta"] is None else options["beta"])
    return {
        "oracle": st.NoisyOracle(loss, noise, sigma=options["sigma"]),
        "plan": plan,
        "x0": _check.point("x0", _numbers("x0", options["x0"]), loss.dim).tolist(),
        "horizon": options["horizon"],
        "observe": list(options["observe"]) or None,
        "paths": options["paths"],
        "dt": options["dt"],
        "integrator": getattr(st, {"euler-maruyama": "EulerMaruyama", "platen": "Platen", "ri1": "RI1"}[options["integrator"]]),
        "seed": options["seed"],
    }


@main.command(
    short_help="Measure how fast the kernels run here.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure how fast the kernels run here; `sdetools bench --help` lists what can be asked for.

    \b
    Example:
      sdetools bench
    """
    from .benchmarking import main as benchmarking

    ctx.exit(benchmarking(list(arguments)) or 0)


@contextlib.contextmanager
def _executor(kind: str, threads: int | None) -> Iterator[tuple[Any, int | None]]:
    """The executor that a simulation is handed, and the number of its own threads; None leaves both to it."""
    if kind == "threads":
        yield None, threads
        return
    import concurrent.futures
    import os

    pool = concurrent.futures.ProcessPoolExecutor(threads or os.cpu_count())
    try:
        yield pool, None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _bar() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None] | None]]:
    """A progress bar on a terminal's standard error: what names it, and what moves it (done, total). Elsewhere there is none."""
    if not sys.stderr.isatty():
        yield (lambda _: None), None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("paths", total=None)
        yield (
            lambda name: bar.update(task, description=escape(name), completed=0, total=None),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def _again(ctx: click.Context, resume: bool) -> str:
    """The line that goes on where this one stopped."""
    return shlex.join(["sdetools", *ctx.meta["arguments"], *([] if resume else ["--resume"])])


def _print_verdicts(results: Results) -> None:
    rows = [[item.verdict, item.id, item.source, item.reason] for item in results.claims]
    _print_table(["verdict", "claim", "source", "why"], rows, styles=STYLES)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], styles: dict[str, str] | None = None) -> None:
    """A table on standard output: drawn by rich on a terminal, lines of aligned columns elsewhere."""
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            # Text, not markup: a name may hold brackets.
            table.add_row(*(Text(cell, style=(styles or {}).get(cell, "") if i == 0 else "") for i, cell in enumerate(row)))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main(prog_name=f"{Path(sys.executable).name} -m sdetools.cli")
