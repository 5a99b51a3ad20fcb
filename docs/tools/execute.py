"""Execution of the code in the documentation, with a cache by content.

Fences of a page are executed in order and in one namespace, in a process and an empty folder of their own:

    ```python                               executed; what it prints follows it
    ```python figure="A caption"            its last expression is a figure, or axes of one, and is shown
    ```python file="claim.py"               written to a file of this name, not executed
    ```python output="markdown"             what it prints is part of the page
    ```python code="hidden"                 only its output is shown
    ```sh run                               executed by a shell

Other fences are text. The result of a page is kept in a file named by the code of its blocks. It is valid as long as the files of the project that
the code used have the same content: a page is executed again after a change of its code, of a module that it imports or of a
file that it reads, and only then. A page with a shell depends on the whole package.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from run_page import TOP, digest

LIMIT = 300.0
"""The seconds after which the code of a page is ended, as an error of that page."""
_FENCE = re.compile(r"^```(python|sh)([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r'(\w+)="([^"]*)"|(\S+)')
_KNOWN = {"figure", "file", "output", "code", "run"}


class PageError(Exception):
    """The code of a page failed; the message names the page and the line."""


@dataclass(frozen=True)
class Block:
    """A fence of a page: its language, options, code, and the place of the fence in the text."""

    language: str
    options: dict[str, str]
    code: str
    line: int
    span: tuple[int, int]

    @property
    def kind(self) -> str:
        """What happens to the block: "python", "sh", "file", or "text" for a fence that is only shown."""
        if self.language == "sh":
            return "sh" if "run" in self.options else "text"
        return "file" if "file" in self.options else "python"


@dataclass
class Outcome:
    """What the executed blocks of a page print and draw, in order."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    cached: bool = False


def blocks_of(text: str, page: str = "") -> list[Block]:
    """Return the fences of a page that are Python or shell."""
    found = []
    for fence in _FENCE.finditer(text):
        options = {m[1] or m[3]: m[2] or "" for m in _OPTION.finditer(fence[2])}
        line = text.count("\n", 0, fence.start()) + 2
        if unknown := set(options) - _KNOWN:
            raise PageError(f"{page}, line {line - 1}: unknown option {sorted(unknown)}; the options are {sorted(_KNOWN)}.")
        found.append(Block(fence[1], options, fence[3], line, fence.span()))
    return found


def _versions() -> list[str]:
    found = [platform.python_version()]
    for name in ("numpy", "scipy", "numba", "sympy", "matplotlib", "xarray", "torch"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return found


def _key(blocks: list[Block]) -> str:
    text = json.dumps(
        [[b.kind, b.options.get("file", ""), b.code] for b in blocks]
        + [_versions(), digest(Path(__file__).with_name("run_page.py"))]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _valid(entry: Path) -> dict[str, Any] | None:
    """Return a cached result if all files that it was made from are unchanged."""
    try:
        found = json.loads(entry.read_text(encoding="utf-8"))
        return found if all(digest(TOP / name) == value for name, value in found["sources"].items()) else None
    except (OSError, ValueError, KeyError):
        return None


def execute(text: str, page: str, cache: Path | None = None) -> Outcome:
    """Execute the blocks of a page, or read their result from the cache.

    Args:
        text: The Markdown of the page.
        page: Its name, for messages.
        cache: The folder of the cache; None executes the page in any case.

    Raises:
        PageError: A block failed.
    """
    blocks = [b for b in blocks_of(text, page) if b.kind != "text"]
    if not blocks:
        return Outcome()
    if cache is None:
        return _checked(_run(blocks, page), page)
    cache.mkdir(parents=True, exist_ok=True)
    entry = cache / f"{_key(blocks)}.json"
    with entry.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may execute this page now; its result is then read
        if found := _valid(entry):
            return Outcome(found["outputs"], found["seconds"], True)
        found = _run(blocks, page)
        outcome = _checked(found, page)
        part = entry.with_suffix(".part")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(entry)
        return outcome


def _checked(found: dict[str, Any], page: str) -> Outcome:
    if "error" in found:
        raise PageError(f"{page}, line {found['line']}: {found['error']}")
    return Outcome(found["outputs"], found["seconds"])


def _run(blocks: list[Block], page: str) -> dict[str, Any]:
    """Execute blocks in a process and an empty folder of their own."""
    path = os.pathsep.join([str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory(prefix="sdetools-page-") as folder:
        asked, answer = Path(folder, "blocks.json"), Path(folder, "result.json")
        place = Path(folder, "work")
        place.mkdir()
        rows = [{"kind": b.kind, "code": b.code, "name": b.options.get("file", ""), "line": b.line} for b in blocks]
        asked.write_text(json.dumps({"page": page, "blocks": rows}), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": path, "PATH": programs, "MPLBACKEND": "agg", "COLUMNS": "100", "NO_COLOR": "1"}
        words = [sys.executable, str(Path(__file__).with_name("run_page.py")), str(asked), str(answer)]
        try:
            done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return {"error": f"the page did not end within {LIMIT:g} s", "line": blocks[0].line}
        if not answer.exists():
            return {"error": f"the process ended with code {done.returncode}: {done.stderr[-2000:]}", "line": blocks[0].line}
        return json.loads(answer.read_text(encoding="utf-8"))


def rendered(text: str, outcome: Outcome, figure_name: Any, page: str = "") -> str:
    """Return the Markdown of a page with the outputs after its blocks.

    Args:
        text: The Markdown of the page.
        outcome: What its blocks printed and drew.
        figure_name: A function of the SVG text of a figure that returns the address of its file, relative to the page.
        page: The name of the page, for messages.
    """
    parts, end, outputs = [], 0, iter(outcome.outputs)
    for block in blocks_of(text, page):
        parts.append(text[end : block.span[0]])
        end = block.span[1]
        output = next(outputs) if block.kind != "text" else {"text": "", "figures": []}
        if "code" not in block.options:
            title = f' title="{block.options["file"]}"' if "file" in block.options else ""
            parts.append(f"```{block.language}{title}\n{block.code}```\n")
        printed = output["text"].rstrip()
        if printed:
            as_text = f'\n``` {{ .text .output title="Output" }}\n{printed}\n```\n'
            parts.append(f"\n{printed}\n" if block.options.get("output") == "markdown" else as_text)
        if output["figures"]:
            caption = block.options.get("figure", "")
            if not caption:
                raise PageError(f'{page}, line {block.line}: a block that shows a figure needs figure="A caption".')
            for svg in output["figures"]:
                parts.append(
                    f'\n<figure markdown="span">\n![{caption}]({figure_name(svg)})\n<figcaption markdown="span">{caption}</figcaption>\n</figure>\n'
                )
        elif "figure" in block.options:
            raise PageError(f"{page}, line {block.line}: the block has a caption but shows no figure.")
    return "".join([*parts, text[end:]])
