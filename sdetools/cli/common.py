"""What all commands share: one sentence and an exit code for a mistake, progress, tables, the folder of a run."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from sdetools._version import __version__


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
            from sdetools.claims.definition import install_line

            if (error.name or "sdetools").split(".")[0] == "sdetools":
                raise
            click.echo(f"sdetools: {error.name} is not installed; install it with {install_line(error)}", err=True)
            ctx.exit(2)
        except (ValueError, OSError) as error:
            click.echo(f"sdetools: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"sdetools {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def main() -> None:
    """Pytest for theorems about stochastic optimisation.

    \b
    Example:
      sdetools verify paper_checks --budget quick --out report
    """


@contextlib.contextmanager
def executor(kind: str, threads: int | None) -> Iterator[tuple[Any, int | None]]:
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
def bar(wanted: bool = True) -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None] | None]]:
    """A progress bar on a terminal's standard error: what names it, and what moves it (done, total). Elsewhere there is none."""
    if not (wanted and sys.stderr.isatty()):
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


def again(ctx: click.Context, resume: bool) -> str:
    """The line that goes on where this one stopped."""
    return shlex.join(["sdetools", *ctx.meta["arguments"], *([] if resume else ["--resume"])])


@dataclass
class RunFolder:
    """The folder of a run, and what a study takes: executor, threads, store, resume, progress."""

    folder: Path | None
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, **texts: str) -> None:
        """Write `name_ending=text` as the file name.ending, and say so."""
        if self.folder is None:
            return
        from sdetools.claims.folder import write_text

        names = [name.replace("_", ".") for name in texts]
        for name, text in zip(names, texts.values(), strict=True):
            write_text(self.folder / name, text)
        listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
        click.echo(f"wrote {listed} in {self.folder}", err=True)


def checked_folder(options: dict[str, Any]) -> Path | None:
    """The folder of --out; nothing is made yet."""
    if options["resume"] and not options["out"]:
        raise click.UsageError("--resume needs --out, the folder with the store of the earlier run.")
    from sdetools.claims.folder import check_folder

    return check_folder(options["out"]) if options["out"] else None


@contextlib.contextmanager
def working(ctx: click.Context, options: dict[str, Any], folder: Path | None) -> Iterator[RunFolder]:
    """While it lasts, there are an executor, a bar, and with a folder a store in which finished chunks are kept."""
    with contextlib.ExitStack() as stack:
        pool, lanes = stack.enter_context(executor(options["executor"], options["threads"]))
        _, progress = stack.enter_context(bar())
        store = None
        if folder is not None:
            from sdetools.claims.folder import open_store

            ctx.meta["resume"] = again(ctx, options["resume"])
            asked = {key: value for key, value in options.items() if key not in ("out", "threads", "executor", "resume")}
            store = open_store(folder, {"version": __version__, "command": ctx.info_name, **asked}, options["resume"])
            stack.callback(store.close)
        settings = {"executor": pool, "threads": lanes, "store": store, "resume": options["resume"], "progress": progress}
        yield RunFolder(folder, settings)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], styles: dict[str, str] | None = None) -> None:
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
