"""Tests in separate processes, and checks of CUDA machine code."""

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
    """Run a function of a test file in a separate process, with these environment variables."""
    code = f"import runpy; runpy.run_path({file!r})[{name!r}](*{arguments!r})"
    root = str(Path(st.__file__).parents[1])
    env = os.environ | environment | {"PYTHONPATH": os.pathsep.join([root, *sys.path])}  # the folders of tests are on the path
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def toolkit() -> str:
    """Return the folder of the CUDA toolkit; the test is skipped if there is none."""
    homes = [Path(p) for p in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if p] + sorted(Path("/usr/local").glob("cuda-*"))
    home = next((p for p in homes if (p / "bin" / "ptxas").is_file() and (p / "nvvm").is_dir()), None)
    if home is None:
        pytest.skip("no CUDA toolkit (ptxas and NVVM) in CUDA_HOME or /usr/local")
    return str(home)


def without_spills(function: Any, signature: Any, what: Any) -> None:
    """Compile a kernel for two architectures with the compilers of CUDA_HOME, and assert that no registers spill."""
    from numba import cuda

    text, _ = cuda.compile_ptx(function, signature, cc=(8, 0))
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        for architecture in ("sm_80", "sm_90"):
            command = [f"{os.environ['CUDA_HOME']}/bin/ptxas", "-v", f"-arch={architecture}", file.name, "-o", os.devnull]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            spills = [line for line in report.splitlines() if "spill" in line]
            assert spills and all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills), (what, report)
