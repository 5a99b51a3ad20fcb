"""Runs the code of one page: reads its blocks as JSON, executes them in one namespace, and writes what they print and draw.

    python run_page.py BLOCKS.json RESULT.json

A block is {"kind", "code", "name", "line"}. "python" is executed; "file" is written to a file `name` of the working directory; "sh" is passed
to a shell. The last expression of a Python block is shown if it is a figure, or axes of one. The result has "outputs", a list of {"text",
"figures"}, and "sources", the files of the project that were used, with a digest of each; or "error" and "line".
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import linecache
import os
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
READ_SUFFIXES = {"", ".csv", ".css", ".html", ".json", ".md", ".py", ".pyi", ".toml", ".cff"}


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a file; "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _of_the_project(path: Any) -> str | None:
    """Return the name of a file below the top folder that is no product of a run; None for other files."""
    try:
        name = Path(os.fsdecode(path)).resolve().relative_to(TOP)
    except (TypeError, ValueError, OSError):
        return None
    hidden = any(part.startswith(".") or part in ("build", "dist", "__pycache__") for part in name.parts)
    return None if hidden or name.suffix not in READ_SUFFIXES else name.as_posix()


class Sources:
    """The files of the project that this process reads, imported modules included; with `everything` also all files of the package.

    What the processes of a shell read is not seen, so a page with a shell depends on the whole package.
    """

    def __init__(self, everything: bool = False) -> None:
        self.opened: set[str] = set()
        if everything:
            self.opened |= {name for file in (TOP / "sdetools").rglob("*") if file.is_file() and (name := _of_the_project(file))}
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)) and (name := _of_the_project(arguments[0])):
            self.opened.add(name)

    def digests(self) -> dict[str, str]:
        """Return the digest of each file."""
        modules = {_of_the_project(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
        return {name: digest(TOP / name) for name in sorted(self.opened | (modules - {None}))}


def _figure(value: Any) -> Any:
    """Return the figure of a value that is one, or that holds axes of one; None for everything else."""
    for part in (value, value[0] if isinstance(value, (list, tuple)) and value else None):
        if hasattr(part, "savefig"):
            return part
        if hasattr(getattr(part, "figure", None), "savefig"):  # axes
            return part.figure
    return None


def _svg(figure: Any) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "sdetools"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _python(block: dict[str, Any], page: str, namespace: dict[str, Any]) -> list[str]:
    """Execute a block, whose lines have their numbers in the page, and return the figures that it shows."""
    padded = "\n" * (block["line"] - 1) + block["code"]
    filename = f"{page}#{block['line']}"
    linecache.cache[filename] = (len(padded), None, padded.splitlines(keepends=True), filename)
    tree = ast.parse(padded, filename)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    exec(compile(tree, filename, "exec"), namespace)
    figure = _figure(eval(compile(last, filename, "eval"), namespace)) if last else None
    return [] if figure is None else [_svg(figure)]


def _shell(block: dict[str, Any]) -> str:
    """Return the output of a shell script; a failing line ends it with its exit code as an error."""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block["code"]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def run(page: str, blocks: list[dict[str, Any]], sources: Sources) -> dict[str, Any]:
    """Execute the blocks of a page."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    outputs: list[dict[str, Any]] = []
    for block in blocks:
        printed, figures = io.StringIO(), []
        try:
            if block["kind"] == "file":
                Path(block["name"]).write_text(block["code"], encoding="utf-8")
            elif block["kind"] == "sh":
                printed.write(_shell(block))
            else:
                with contextlib.redirect_stdout(printed):
                    figures = _python(block, page, vars(main))
        except BaseException as error:
            own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{page}#")]
            line = error.lineno if isinstance(error, SyntaxError) and not own else None
            words = traceback.format_exception_only(error)[-1].strip()
            return {"error": words, "line": line or [block["line"], *own][-1], "sources": sources.digests()}
        outputs.append({"text": printed.getvalue(), "figures": figures})
    return {"outputs": outputs, "sources": sources.digests()}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    target = Path(sys.argv[2])
    watched = Sources(any(block["kind"] == "sh" for block in asked["blocks"]))
    sys.path[0] = os.getcwd()  # files of the page can be imported
    found = run(asked["page"], asked["blocks"], watched)
    found["seconds"] = round(sum(os.times()[:4]), 1)
    target.write_text(json.dumps(found), encoding="utf-8")
