"""Tests in processes of their own, and CUDA's machine code: what needs another environment than the tests beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import sdetools as st


def run_apart(file: str, name: str, *arguments: str, **environment: str) -> None:
    """A function of a file of tests, in a process of its own."""
    code = f"import runpy; runpy.run_path({file!r})[{name!r}](*{arguments!r})"
    root = str(Path(st.__file__).parents[1])
    env = os.environ | environment | {"PYTHONPATH": os.pathsep.join([root, *sys.path])}  # the rooms of tests are on the path
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def toolkit() -> str:
    """The folder of CUDA's compilers; the test is skipped where there is none."""
    homes = [Path(p) for p in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if p] + sorted(Path("/usr/local").glob("cuda-*"))
    home = next((p for p in homes if (p / "bin" / "ptxas").is_file() and (p / "nvvm").is_dir()), None)
    if home is None:
        pytest.skip("no CUDA toolkit (ptxas and NVVM) in CUDA_HOME or /usr/local")
    return str(home)


def without_spills(function: Any, signature: Any, what: Any) -> None:
    """A kernel to machine code of two architectures, by the compilers of CUDA_HOME; fails where registers spill."""
    from numba import cuda

    text, _ = cuda.compile_ptx(function, signature, cc=(8, 0))
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        for architecture in ("sm_80", "sm_90"):
            command = [f"{os.environ['CUDA_HOME']}/bin/ptxas", "-v", f"-arch={architecture}", file.name, "-o", os.devnull]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            spills = [line for line in said.splitlines() if "spill" in line]
            assert spills and all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills), (what, said)
