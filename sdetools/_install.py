"""The command that installs what is missing: one function for all messages, since it differs between a clone and an installed package."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

EXTRAS = {
    "torch": "torch",
    "torchsde": "torchsde",
    "sklearn": "data",
    "mlxtend": "vision",
    "transformers": "text",
    "datasets": "text",
    "safetensors": "text",
    "dask": "cluster",
    "distributed": "cluster",
    "mpi4py": "mpi",
    "submitit": "slurm",
    "diffrax": "bench",
    "jax": "bench",
}
"""The extra of this package that installs a module, by the module's name."""
_COMMAND = re.compile(r"pip install (?:(?:--[\w-]+|-e|-c \S+) )*(?:'[^']+'|[\w\[\]-]+(?:[=<>~!.]+\w[\w.]*)?)")


def clone() -> Path | None:
    """Return the folder of the clone that this package is imported from, as after an editable installation; None for an installed package."""
    folder = Path(__file__).resolve().parent.parent
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return None
    return folder if re.search(r'^name = "sdetools"$', text, re.MULTILINE) else None


def install_command(extra: str) -> str:
    """Return the shell command that installs an extra of this package.

    In a clone it is "pip install -e '.[torch]'", with the path of the clone instead of the dot in another folder; else
    "pip install 'sdetools[torch]'".

    Args:
        extra: The name of the extra.

    Example:
        >>> from sdetools._install import install_command
        >>> install_command("torch").startswith("pip install "), "torch" in install_command("torch")
        (True, True)
    """
    folder = clone()
    if folder is None:
        return f"pip install 'sdetools[{extra}]'"
    place = "." if folder == Path.cwd().resolve() else str(folder)
    quoted = shlex.quote(f"{place}[{extra}]")
    return f"pip install -e {quoted}"


def install_line(error: ModuleNotFoundError) -> str:
    """Return the shell command that installs a missing module: the one in the error's message, else that of its extra, else of its own name.

    Args:
        error: The error of the import, with the module's name in `error.name`.

    Example:
        >>> from sdetools._install import install_line
        >>> install_line(ModuleNotFoundError("No module named 'foo'", name="foo"))
        'pip install foo'
        >>> install_line(ModuleNotFoundError("Install it: pip install --no-deps foo==1.2 (nothing else is needed)."))
        'pip install --no-deps foo==1.2'
    """
    if (found := _COMMAND.search(str(error))) is not None:
        return found.group(0).rstrip(".")
    module = (error.name or "").split(".")[0]
    return install_command(EXTRAS[module]) if module in EXTRAS else f"pip install {module or 'the missing package'}"
