"""The notebooks run from the first cell to the last, and are stored without outputs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(file: Path) -> list[dict]:
    """Return the cells of a notebook that contain code."""
    return [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_has_no_outputs_and_valid_code(file):
    found = cells(file)
    assert len(found) > 5 and not any(cell["outputs"] or cell["execution_count"] for cell in found)
    for cell in found:
        compile("".join(cell["source"]), file.name, "exec")


@pytest.mark.documents
def test_a_day_runs(tmp_path):
    """Each cell that promises a figure has one, runs of some length show a bar, and the order of the gap lies between 1/2 and 3/2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the notebook's packages, about their own event loops
        nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; it comes with the extra `docs`")
        nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; it comes with the extra `docs`")
        pytest.importorskip("ipykernel", reason="ipykernel is not installed; it comes with the extra `docs`")
        notebook = nbformat.read(EXAMPLES / "a_day.ipynb", as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell("print('order', order.value, swept.failed, swept.data['x'].dims)"))
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        last = cell.source.splitlines()[-1]
        assert ("image/png" in kinds) == (".plot" in last), cell.source
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs), cell.outputs
    bars = [
        output.data["text/plain"]
        for cell in code
        for output in cell.outputs
        if "100 % of" in output.get("data", {}).get("text/plain", "")
    ]
    assert any(text.startswith("sweep |") and "of 12 points" in text for text in bars)
    (word, order, failed, *dims) = code[-1].outputs[0].text.split(maxsplit=3)
    assert word == "order" and 0.5 < float(order) < 1.5 and failed == "0" and dims[0].strip() == "('eta', 'beta')"
