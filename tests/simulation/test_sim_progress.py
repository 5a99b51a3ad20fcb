"""Progress: a bar on a terminal and in a notebook, lines where they are asked for, nothing elsewhere."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from sdetools.simulation.progress import bar_text, progress_report


class Output(io.StringIO):
    """An error output that is a terminal or not."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def shown(monkeypatch, progress, terminal=False):
    """Return what a run of four steps writes to the error output, and the report."""
    output = Output(terminal)
    monkeypatch.setattr(sys, "stderr", output)
    with progress_report(progress, "the label", "paths") as report:
        if report is not None:
            for done in range(1, 5):
                report(25 * done, 100)
    return output.getvalue(), report


@pytest.mark.parametrize("progress, terminal, written", [(None, False, 0), (False, False, 0), (False, True, 0), (True, False, 4)])
def test_lines_are_written_only_where_they_are_asked_for(monkeypatch, progress, terminal, written):
    text, report = shown(monkeypatch, progress, terminal)
    assert len(text.splitlines()) == written and (report is None) == (written == 0)
    if written:
        assert text.splitlines()[0].startswith("the label |#######                       |  25 % of 100 paths, ")


@pytest.mark.parametrize("progress", [None, True])
def test_a_terminal_has_a_bar_that_disappears(monkeypatch, progress):
    text, report = shown(monkeypatch, progress, terminal=True)
    assert "the label" in text and report is not None


def test_a_function_is_called(monkeypatch):
    calls = []
    text, _ = shown(monkeypatch, lambda done, total: calls.append((done, total)), terminal=True)
    assert calls == [(25, 100), (50, 100), (75, 100), (100, 100)] and text == ""


@pytest.mark.parametrize("kernel, last", [(object(), "100 % of 100 paths"), (None, "")])
def test_a_notebook_has_a_bar_in_its_cell(monkeypatch, kernel, last):
    """A shell of IPython without a kernel is no notebook."""
    texts = []
    handle = SimpleNamespace(update=lambda data, raw: texts.append(data["text/plain"]))
    module = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda *_, **__: handle))
    text, report = shown(monkeypatch, None)
    assert text == "" and (report is None) == (kernel is None)
    assert last in (texts[-1] if texts else "")


def test_the_text_of_a_bar():
    assert bar_text("a", 0, 10, 1.0, "points") == f"a |{' ' * 30}|   0 % of 10 points"
    assert bar_text("a", 10, 10, 1.5, "points") == f"a |{'#' * 30}| 100 % of 10 points, 1.5 s"
    assert "| 100 %" in bar_text("a", 0, 0, 0.0, "points")
