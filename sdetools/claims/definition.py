"""The class `Claim`, the decorator `claim`, and the collection of claims from files."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdetools._check import shown, suggestion
from sdetools._install import EXTRAS, install_line

if TYPE_CHECKING:
    from sdetools.claims.context import ClaimContext

_ID = re.compile(r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*")
_CREATED: list[Claim] = []
"""Claims in order of creation while files are collected, so that a second function of the same name does not hide the first."""

_OPERATORS = {"and", "or", "not", "(", ")"}
_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages"}


@dataclass(frozen=True)
class Claim:
    """A statement and the function that measures it; calling it with a `ClaimContext` runs the function.

    Attributes:
        id: Lower-case words (letters and digits) joined by dashes or dots, the first of which starts with a letter; unique within a run.
        statement: Text with LaTeX formulas between dollar signs.
        source: Where the statement comes from, for example a theorem; may be empty.
        function: The function of one argument, the `ClaimContext`, with whose methods it records measurements. Its result is ignored.
        path: File of the function.
        line: First line of the function.
    """

    id: str
    statement: str
    source: str
    function: Callable[[ClaimContext], Any]
    path: Path
    line: int

    def __call__(self, run: ClaimContext) -> Any:
        """Run the function of the claim with the context `run`, and return its result."""
        return self.function(run)


def claim(id: str, *, statement: str, source: str = "") -> Callable[[Callable[[ClaimContext], Any]], Claim]:
    r"""Mark a function of one argument, the `ClaimContext`, as the measurement of a claim.

    Args:
        id: Lower-case words (letters and digits) joined by dashes or dots, the first of which starts with a letter; unique within a run.
        statement: Text with LaTeX formulas between dollar signs; write \$ for the sign itself.
        source: Where the statement comes from, for example a theorem; by default empty.

    Returns:
        A decorator that replaces the function by a `Claim`.

    Raises:
        ValueError: For an invalid id, an empty statement, an odd number of dollar signs, and (from the decorator) a function that
            does not take exactly one argument.

    Example:
        >>> import sdetools as st
        >>> @st.claim("mean-of-nothing", statement=r"The mean is $\mu = 0$.", source="Lemma 1")
        ... def mean_of_nothing(run):
        ...     run.measure("mean", 0.0, expected=0.0, tolerance=1e-12)
        >>> mean_of_nothing.id, mean_of_nothing.source
        ('mean-of-nothing', 'Lemma 1')
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise ValueError(
            f"a claim's id must be lower-case words joined by dashes or dots; got {id!r}. Try something like `theorem-3.5-smooth`."
        )
    if not isinstance(statement, str) or not statement.strip():
        raise ValueError(f"the claim `{id}` must have a statement; got statement={statement!r}. Write what it claims.")
    if len(re.findall(r"(?<!\\)\$", statement)) % 2:
        raise ValueError(
            rf"the statement of `{id}` must close every formula with a dollar sign; got {statement!r}. Write \$ for the sign itself."
        )
    if not isinstance(source, str):
        raise ValueError(f"the source of `{id}` must be text; got source={source!r}. Write for example source='Theorem 3.5'.")

    def mark(function: Callable[[ClaimContext], Any]) -> Claim:
        """Return the claim that `function` measures, which replaces the function."""
        code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        if code is None:
            raise ValueError(f"`@claim` must mark a function; got {function!r} for the claim `{id}`.")
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            raise ValueError(
                f"the function of the claim `{id}` must take one argument, the context of the claim; "
                f"got {function.__name__}{inspect.signature(function)}. Write `def {function.__name__}(run):`."
            ) from None
        created = Claim(id, statement.strip(), source.strip(), function, Path(code.co_filename), code.co_firstlineno)
        _CREATED.append(created)
        return created

    return mark


def collect(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Claim]:
    """Return the claims of files and folders, in the order of the files.

    Each file is imported under a private module name. A file that needs an extra of sdetools which is not installed yields one claim, its id
    made from the file's name, whose function raises the ModuleNotFoundError, so that its verdict is `not run`.

    Args:
        paths: Files or folders. A folder is replaced by all `*.py` files below it that contain `@claim(...)`, in alphabetical order,
            except tests (`test_*.py`, `conftest.py`) and files in hidden folders.

    Returns:
        The claims, in each file in order of creation. A file that is named twice is read once.

    Raises:
        ValueError: For no path or one that does not exist, a file that is not named `*.py` or cannot be imported (with its line), a file or folder
            without claims, and an id that is used twice.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths) if isinstance(paths, Iterable) else []
    if wrong := [paths] * (not isinstance(paths, Iterable | os.PathLike)) + [
        p for p in given if not isinstance(p, (str, os.PathLike))
    ]:
        raise ValueError(
            f"`paths` must be a file or folder of claims, or a list of them; got {shown(wrong[0])}. Write 'claims.py'."
        )
    if not given:
        raise ValueError("`paths` must name at least one file or folder of claims; got none. Try the folder `paper_checks`.")
    files: dict[Path, None] = {}
    for path in map(Path, given):
        files.update(dict.fromkeys(_files(path)))
    claims: list[Claim] = []
    for file in files:
        found = _load(file)
        if not found:
            raise ValueError(f"the file {file} must contain at least one claim; got none. Mark a function with `@st.claim(...)`.")
        claims.extend(found)
    seen: dict[str, Claim] = {}
    for item in claims:
        if item.id in seen:
            first = seen[item.id]
            raise ValueError(
                f"the id of a claim must be unique within a run; got `{item.id}` in {first.path}, line {first.line}, "
                f"and in {item.path}, line {item.line}. Rename one of them."
            )
        seen[item.id] = item
    return claims


def has_claims(file: Path) -> bool:
    """Return whether a Python file has a function that is decorated by `@claim(...)` or `@st.claim(...)`; nothing is imported.

    Args:
        file: The file. Tests (`test_*.py`, `conftest.py`), unreadable files and files with syntax errors have no claims, except that a file with
            an error has some if a line begins with such a decorator, so that the error is reported.
    """
    if file.suffix != ".py" or file.name.startswith("test_") or file.name == "conftest.py":
        return False
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    if "claim(" not in text:
        return False
    try:
        decorators = [d for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) for d in node.decorator_list]
    except (SyntaxError, ValueError):
        return any(line.lstrip().startswith(("@claim(", "@st.claim(", "@sdetools.claim(")) for line in text.splitlines())
    called = (d.func for d in decorators if isinstance(d, ast.Call))
    return any(getattr(f, "id", getattr(f, "attr", "")) == "claim" for f in called)


def select(claims: Sequence[Claim], pattern: str | None) -> list[Claim]:
    """Return the claims whose id matches a pattern.

    Args:
        claims: The claims.
        pattern: A part of the id, such as "theorem-3", a shell pattern of the whole id with `*`, `?` or `[...]`, or such words with "and",
            "or", "not" and parentheses; None for all claims.

    Returns:
        The matching claims, in the same order.

    Raises:
        ValueError: If `pattern` is given and no id matches, or it is no such expression.

    Example:
        >>> import sdetools as st
        >>> claims = [st.claim(id, statement="True.")(lambda run: None) for id in ("slow-1", "slow-2", "svag")]
        >>> [item.id for item in st.claims.select(claims, "slow and not *-2")]
        ['slow-1']
    """
    if pattern is None:
        return list(claims)
    words = re.findall(r"[()]|[^\s()]+", pattern)
    found = [item for item in claims if _matches(item.id, words, pattern)]
    if not found:
        known = ", ".join(item.id for item in claims[:5]) + (", ..." if len(claims) > 5 else "")
        near = [suggestion(word, [item.id for item in claims]) for word in words if word not in _OPERATORS]
        meant = next(filter(None, near), "`sdetools verify --list` lists them.")
        raise ValueError(f"`only` must match the id of a claim; got {pattern!r}, and the claims are {known}. {meant}")
    return found


def _matches(id: str, words: Sequence[str], pattern: str) -> bool:
    """Return whether an id satisfies an expression, which is evaluated with each word replaced by whether it matches.

    Args:
        id: The id of a claim.
        words: The words, operators and parentheses of the expression.
        pattern: The whole expression, for the message.

    Raises:
        ValueError: If the words are no expression.
    """
    text = " ".join(
        w if w in _OPERATORS else str(fnmatch.fnmatchcase(id, w if any(s in w for s in "*?[") else f"*{w}*")) for w in words
    )
    try:
        return _truth(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(
            f"`only` must be words with and, or, not and parentheses; got {pattern!r}. Write for example 'svag or slow'."
        ) from error


def _truth(node: ast.expr) -> bool:
    """Return the value of an expression of True, False, "and", "or" and "not"; SyntaxError for any other."""
    match node:
        case ast.Constant(value=bool(value)):
            return value
        case ast.BoolOp(op=op, values=values):
            return (all if isinstance(op, ast.And) else any)(map(_truth, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _truth(operand)
    raise SyntaxError("no expression")


@contextlib.contextmanager
def importing_from_folder_of(path: Path) -> Iterator[None]:
    """Return a context manager in whose body modules in the folder of the file `path` can be imported: the folder is first in `sys.path`."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _files(path: Path) -> list[Path]:
    """Return the absolute paths of the claim files of a path: the file itself, or those below a folder, in alphabetical order.

    Raises:
        ValueError: If the path does not exist, is a file not named `*.py`, or is a folder without claims.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*.py") if _belongs(file, path))
        if not found:
            raise ValueError(
                f"the folder {path} must contain at least one file with claims; got none. Mark a function in it with `@st.claim(...)`."
            )
    elif not path.exists():
        beside = [str(path.with_name(one.name)) for one in path.parent.iterdir()] if path.parent.is_dir() else []
        meant = suggestion(path, beside, "Check its spelling, and the current folder.")
        raise ValueError(f"the path of a claim file or folder must exist; got {str(path)!r}, which does not. {meant}")
    elif path.suffix != ".py":
        raise ValueError(
            f"a claim file must be a Python file named *.py; got {str(path)!r}. Name such a file, or a folder of them."
        )
    else:
        found = [path]
    return [file.resolve() for file in found]


def _belongs(file: Path, folder: Path) -> bool:
    """Return whether a Python file below a folder contains claims and is neither a test nor hidden."""
    inside = file.relative_to(folder)
    return not any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in inside.parts) and has_claims(file)


def _load(file: Path) -> list[Claim]:
    """Import a file and return the claims of the functions defined in it, in order of creation; ValueError if the import fails.

    If it fails for lack of a package that an extra of sdetools installs, one claim that represents the file is returned (`collect`).
    """
    # A private name, because two files may have the same name and none may hide an installed module.
    name = f"_sdetools_claims_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = len(_CREATED)
    try:
        with importing_from_folder_of(file):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
            return [_claim_of_missing_extra(file, error)]
        raise ValueError(_import_error(file, error)) from error
    finally:
        created = _CREATED[before:]
        del _CREATED[before:]
    return [item for item in created if getattr(item.function, "__module__", None) == name]


def _claim_of_missing_extra(file: Path, error: ModuleNotFoundError) -> Claim:
    """Return a claim that represents all claims of a file that needs a missing extra; its function raises `error`."""

    def missing(run: ClaimContext) -> None:
        raise error

    words = re.findall(r"[a-z0-9]+", file.stem.lower())
    stem = "-".join(words if words and words[0][0].isalpha() else ["file", *words])
    return Claim(stem, f"The claims of {file.name}.".replace("$", r"\$"), "", missing, file, 1)


def _import_error(file: Path, error: BaseException) -> str:
    """Return the message for a file that cannot be imported, with the line of the error."""
    what, advice = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}", ""
    if isinstance(error, SyntaxError):
        where, line, what = error.filename or str(file), error.lineno, f"{type(error).__name__}: {error.msg}"
        advice = ". Correct it, or name the other files."
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where, line = str(file), frames[-1].lineno if frames else None
    if isinstance(error, ModuleNotFoundError):
        advice = f". Check the name, or install it: {install_line(error)}"
    what = " ".join(what.split())
    return f"the file {where} could not be imported{f': line {line}' if line else ''}: {what}{advice}"
