"""Helpers shared by all commands: error messages and exit codes, progress bars, tables, output folders."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from sdetools._version import __version__

UNIDENTIFYING = frozenset({"out", "plot", "threads", "executor", "retries", "resume"})
"""Names of options on which no number of a result depends: a run may be resumed with other values of them."""


class InvalidArguments(click.ClickException):
    """An error in the command-line arguments, reported on one line with exit code 2; raised with the message as its argument."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message on one line of standard error, after "sdetools: ".

        `file` is an argument of click's method and is not used.
        """
        click.echo(f"sdetools: {' '.join(self.format_message().split())}", err=True)


@contextlib.contextmanager
def _usage_errors_on_one_line() -> Iterator[None]:
    """Convert click's usage errors in a `with` block to `InvalidArguments`."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = f" See `{error.ctx.command_path} --help`." if error.ctx is not None else ""
        raise InvalidArguments(error.format_message() + _meant(error) + command) from error


def _meant(error: click.UsageError) -> str:
    """Return a suggestion such as " Did you mean `sgd`?" for a wrong value of an option that takes one of several words; else an empty text."""
    kind = error.param.type if isinstance(error, click.BadParameter) and error.param is not None else None
    given = re.match(r"'(.*)' is not one of", error.message)
    if not isinstance(kind, click.Choice) or given is None:
        return ""
    from sdetools._check import suggestion

    meant = suggestion(given[1], kind.choices)
    return f" {meant}" if meant else ""


class Commands(click.Group):
    """The group of all commands: it reports user errors on one line with exit code 2, and Ctrl-C with exit code 130 and how to resume.

    It is click's `Group`, and takes the same arguments.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments as click does, and store a copy of them in the context, from which the command that resumes a run is built.

        Args:
            ctx: Click's context; the copy is `ctx.meta["arguments"]`.
            args: The arguments after `sdetools`, which click consumes.

        Returns:
            The arguments that are left for the command.
        """
        ctx.meta["arguments"] = list(args)
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Create click's context for a command from click's own arguments; a usage error is raised as `InvalidArguments`."""
        with _usage_errors_on_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and return what it returns; convert user errors to messages on standard error and exit codes.

        ValueError, OSError and a package that is not installed end with exit code 2 and one line, Ctrl-C with exit code 130, SIGTERM with 143. The
        line of the last two says how to resume if `ctx.meta["resume"]` has the command for it, and that nothing is kept otherwise. A broken pipe and
        other exceptions, which are defects of the program, propagate.

        Args:
            ctx: Click's context of the group, with the command's name and arguments.
        """
        terminated: list[int] = []
        try:
            with _usage_errors_on_one_line(), _sigterm_as_interrupt(terminated):
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            command = ctx.meta.get("resume")
            kept = f"what is finished is kept; to resume: {command}" if command else "nothing is kept without --out"
            click.echo(f"sdetools: {'terminated' if terminated else 'interrupted'}; {kept}", err=True)
            ctx.exit(143 if terminated else 130)
        except ModuleNotFoundError as error:
            from sdetools._install import install_line

            if (error.name or "sdetools").split(".")[0] == "sdetools":
                raise
            click.echo(f"sdetools: {error.name} is not installed; install it with {install_line(error)}", err=True)
            ctx.exit(2)
        except (ValueError, OSError) as error:
            notes = " ".join(getattr(error, "__notes__", ()))
            click.echo(f"sdetools: {' '.join(f'{error} {notes}'.split())}", err=True)
            ctx.exit(2)


@contextlib.contextmanager
def _sigterm_as_interrupt(terminated: list[int]) -> Iterator[None]:
    """Let SIGTERM end a `with` block as Ctrl-C does; a terminated block appends the number of the signal to `terminated`.

    Where the signal has a handler already, or in another thread than the main one, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, _: Any) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def remark(text: str) -> None:
    """Print a text on standard error."""
    click.echo(text, err=True)


def _version(ctx: click.Context, _: click.Parameter, requested: bool) -> None:
    """Print the version and exit, the callback of `--version`."""
    if requested and not ctx.resilient_parsing:
        click.echo(f"sdetools {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def main() -> None:
    """Pytest for theorems about stochastic optimisation.

    Estimates weak gaps between optimisers and SDEs, and verifies claims about them. The exit code is 0 on success, 1 if a claim is
    contradicted or raises an error, 2 for invalid input, 130 after Ctrl-C, and 143 after SIGTERM.

    \b
    Example:
      sdetools verify paper_checks --budget quick --out report
    """


@contextlib.contextmanager
def executor(name: str, threads: int | None) -> Iterator[tuple[Any, int | None]]:
    """Open the engine of a simulation, an executor that runs its chunks of paths, for a `with` block, at whose end its workers are stopped.

    Args:
        name: "threads", or the name of an engine: "processes", "dask", "mpi" or "slurm", with a text after a colon or none, such as "processes:4".
        threads: Number of threads or workers; None for all cores.

    Yields:
        A pair. For threads: None, which stands for the simulation's own threads, and `threads`. For engines: an executor, and None.

    Raises:
        ValueError: If there is no such engine, or it refuses the text after the colon.
        ModuleNotFoundError: If the engine's package is not installed.
    """
    if name == "threads":
        yield None, threads
        return
    from sdetools.simulation.clusters import open_executor

    with open_executor(name, threads) as pool:
        yield pool, None


@contextlib.contextmanager
def bar(wanted: bool = True) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None] | None]]:
    """Show a progress bar on standard error during a `with` block; on a terminal only.

    Args:
        wanted: Whether to show the bar at all.

    Yields:
        A pair: a function that sets the label, a text, and restarts the bar, and a function `(done, total)` that shows the progress: the numbers of
            finished units, such as paths, and of all units. Where no bar is shown, the first does nothing and the second is None.
    """
    if not (wanted and sys.stderr.isatty()):
        yield (lambda _: None), None
        return
    from sdetools.simulation.progress import terminal_bar

    with terminal_bar("paths") as shown:
        yield shown


def resume_command(ctx: click.Context, resume: bool) -> str:
    """Return the command line that resumes this run, as text for a shell: "sdetools verify checks --out report --resume".

    Args:
        ctx: Click's context, whose `meta["arguments"]` are those of this run, as `Commands.parse_args` has stored them.
        resume: Whether these arguments contain `--resume`; if not, it is appended.
    """
    return shlex.join(["sdetools", *ctx.meta["arguments"], *([] if resume else ["--resume"])])


@dataclass
class RunFolder:
    """The output folder of a run and the execution options of its study, the function of the library that the command calls.

    Attributes:
        folder: The folder of `--out`; None if the option is not given, and nothing is written.
        settings: Keyword arguments of the study, by the names executor, threads, store, resume, progress and retries.
    """

    folder: Path | None
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, **texts: str) -> None:
        """Write each argument, such as `gap_csv=text`, as a file of the folder, such as `gap.csv`, and list the files on standard error.

        An existing file is replaced. If `folder` is None, nothing is written or listed.

        Args:
            **texts: The contents of the files, at least one, by the name of the file with an underscore instead of the dot.
        """
        if self.folder is None:
            return
        from sdetools.claims.folder import write_text

        names = [name.replace("_", ".") for name in texts]
        for name, text in zip(names, texts.values(), strict=True):
            write_text(self.folder / name, text)
        listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
        click.echo(f"wrote {listed} in {self.folder}", err=True)


def checked_folder(options: dict[str, Any]) -> Path | None:
    """Return the validated folder of `--out`, or None if it is not given; nothing is created yet.

    Args:
        options: Values of the command's options by name, `out` and `resume` among them.

    Raises:
        click.UsageError: For `--resume` without `--out`.
        ValueError: For an `--out` that cannot be a folder.
    """
    if options["resume"] and not options["out"]:
        raise click.UsageError("--resume needs --out, the folder with the store of the earlier run.")
    from sdetools.claims.folder import check_folder

    return check_folder(options["out"]) if options["out"] else None


@contextlib.contextmanager
def running(ctx: click.Context, options: dict[str, Any], folder: Path | None) -> Iterator[RunFolder]:
    """Open an executor, a progress bar and, with a folder, the store of finished work for a `with` block, at whose end they are closed.

    Args:
        ctx: Click's context; with a folder, `ctx.meta["resume"]` becomes the command that resumes the run.
        options: Values of the command's options by name. All but those of `UNIDENTIFYING` (out, plot, threads, executor, retries and resume)
            identify the run in the store.
        folder: The folder of `--out` from `checked_folder`, or None for no store. The store is the file `store.sqlite` in it, which keeps the
            finished chunks of paths or points of a sweep, also after Ctrl-C.

    Yields:
        A `RunFolder`, whose `settings` are passed to the study.

    Raises:
        ValueError: If `--resume` finds a store that belongs to another run or is damaged, another run uses the folder, or there is no such engine.
        ModuleNotFoundError: If the engine's package is not installed.
    """
    with contextlib.ExitStack() as stack:
        pool, lanes = stack.enter_context(executor(options["executor"], options["threads"]))
        _, progress = stack.enter_context(bar())
        store = None
        if folder is not None:
            from sdetools.claims.folder import open_store

            ctx.meta["resume"] = resume_command(ctx, options["resume"])
            identity = {key: value for key, value in options.items() if key not in UNIDENTIFYING}
            store = open_store(folder, {"version": __version__, "command": ctx.info_name, **identity}, options["resume"])
            stack.callback(store.close)
        settings = {"executor": pool, "threads": lanes, "store": store, "resume": options["resume"], "progress": progress}
        settings["retries"] = options["retries"]
        yield RunFolder(folder, settings)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], styles: dict[str, str] | None = None) -> None:
    """Print a table on standard output: formatted by rich on a terminal, as columns of text padded with spaces elsewhere.

    Args:
        columns: Headings.
        rows: One sequence of cells per row, as many as headings; they are converted to text. Without rows only the headings are printed.
        styles: Styles of rich by the text of a cell in the first column, such as {"supported": "green"}; used on a terminal only.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            # Text, not markup: a name may contain brackets.
            table.add_row(*(Text(cell, style=(styles or {}).get(cell, "") if i == 0 else "") for i, cell in enumerate(row)))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
