"""The interface of results: attributes, table, plot on given axes, summary, files that restore them bitwise, HTML."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from html.parser import HTMLParser

import matplotlib.figure
import numpy as np
import pytest
import xarray
from made_results import AXES, CLASSES, FAST, MAKERS, pair, simulation

import sdetools
import sdetools as st
from sdetools.results.protocol import Ended, Result


class Checked(HTMLParser):
    """An HTML parser that requires every tag to be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], 0

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def classes_below(base: type) -> Iterator[type]:
    """All classes of the package that derive from one."""
    for one in base.__subclasses__():
        yield from (one, *classes_below(one))


def test_every_class_of_results_has_a_maker():
    """A new class is tested once its maker is in tests/made_results.py."""
    pytest.importorskip("torch")
    for module in pkgutil.walk_packages(sdetools.__path__, "sdetools."):
        if not module.name.startswith(("sdetools.recipes", "sdetools.cli", "sdetools.weak")):
            with contextlib.suppress(ImportError):  # of a package that is not installed
                importlib.import_module(module.name)
    found = {
        one.__name__ for one in classes_below(Result) if one.__module__.startswith("sdetools.") and not inspect.isabstract(one)
    }
    assert found == {*CLASSES.values()} and {*MAKERS} == {*CLASSES}


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", MAKERS)
def test_a_result_has_its_origin(made, name):
    """Seed, stream, backend and call are attributes of `data`."""
    result = made(name)
    assert type(result).__name__ == CLASSES[name]
    assert isinstance(result, Result) and isinstance(result.data, xarray.Dataset)
    attrs = result.data.attrs
    assert attrs["version"] == st.__version__
    if name == "diagnosis":
        assert (attrs["seed"], attrs["backend"], attrs["dtype"]) == (3, "torch", "float32") and attrs["call"].startswith(
            "diagnose("
        )
    elif name == "adam":
        assert (attrs["seed"], attrs["backend"]) == (3, "torch") and attrs["call"].startswith("diagnose_adam(")
    elif name == "claims":  # several runs, each with its own backend
        assert (attrs["seed"], attrs["call"]) == (3, "verify(budget='quick', seed=3)")
    elif name == "speeds":  # measured on a machine, which its attributes name
        assert (attrs["backend"], attrs["call"], attrs["processor"]) == ("numba", "dimension_table()", "p")
    elif name == "swept":  # of a function, which chooses its backend
        assert attrs["seed"] == 3 and attrs["call"].startswith(
            "sweep(function=<function one_point>, seeds=[3, 4], errors='record'"
        )
    elif name == "risk":  # exact, without draws
        assert attrs["call"].startswith("risk(dynamics=SGDM(") and attrs["seed"] == 0
    elif name != "law":  # the seeds of the samples of a distance are unknown
        assert (attrs["seed"], attrs["stream"], attrs["backend"], attrs["dtype"]) == (3, 0, "numpy", "float64")
        study = getattr(st, attrs["call"].partition("(")[0])  # a public function
        assert study.__module__.startswith("sdetools.studies.")
        assert "backend='numpy'" in attrs["call"] and "seed=3" in attrs["call"] and "threads" not in attrs["call"]
        assert "progress" not in attrs["call"]  # an option at its default
    assert attrs["diverged"] == result.diverged and result.ended is (Ended.DIVERGED if name == "diverging" else Ended.COMPLETED)


@pytest.mark.parametrize("name", MAKERS)
def test_a_result_has_a_table_a_summary_and_html(made, name):
    """The HTML contains both and is well-formed."""
    result = made(name)
    assert len(result.table().splitlines()) >= 3 and len(result.summary()) > 20
    page = Checked()
    page.feed(result._repr_html_())
    assert not page.open and page.seen >= 3


def nudged(value):
    """Return a value with the first number that it contains changed in its last bit, or None if there is none."""
    if isinstance(value, float) and np.isfinite(value):
        return float(np.nextafter(value, np.inf))
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        out = value.copy()
        out.flat[0] = 0.0 if np.isnan(out.flat[0]) else np.nextafter(out.flat[0], np.inf)
        return out
    if isinstance(value, tuple):
        return next(((*value[:i], new, *value[i + 1 :]) for i, old in enumerate(value) if (new := nudged(old)) is not None), None)
    if isinstance(value, dict):
        return next((value | {key: new} for key, old in value.items() if (new := nudged(old)) is not None), None)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.init and field.name != "origin"]
        return next(
            (dataclasses.replace(value, **{n: new}) for n in fields if (new := nudged(getattr(value, n))) is not None), None
        )
    return None


@pytest.mark.parametrize("name", MAKERS)
def test_results_are_equal_if_their_numbers_are(made, name, tmp_path):
    """From a file, with another origin, and not with another last bit; `==` never compares arrays element by element."""
    result, other = made(name), made("law" if name == "gap" else "gap")
    loaded = st.load(result.save(tmp_path / "result.nc"))
    moved = copy.copy(result)
    if "origin" in {field.name for field in dataclasses.fields(result)}:
        object.__setattr__(moved, "origin", dataclasses.replace(result.origin, seed=99, call="another"))
    assert result == loaded == moved and result != other and result != "a text"
    assert (result != loaded) is False
    changed = nudged(result)
    assert type(changed) is type(result) and (result == changed) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)


@pytest.mark.parametrize(
    "estimate",
    [lambda made: made("gap").sup("y"), lambda made: made("orders").order("x**2"), lambda made: made("stationary").at("x**2")],
    ids=["supremum", "order", "stationary"],
)
def test_estimates_are_compared_as_numbers(made, estimate):
    """Equal to a copy, not with another last bit, and not to an estimate of another class; NaN is equal to NaN."""
    one = estimate(made)
    unknown, plain = dataclasses.replace(one, value=float("nan")), st.Estimate(one.value, one.stderr, one.n, name=one.name)
    assert (one == copy.deepcopy(one)) is True and (one == nudged(one)) is False and one != plain
    assert (unknown == copy.deepcopy(unknown)) is True and unknown != one and len({plain, copy.copy(plain)}) == 1


def test_names_are_escaped_in_html():
    """Names with angle brackets."""
    run = st.simulate(pair()[1], [2.0, 0.5], 0.0625, 4, {"x<b>y": lambda x: x[0]}, **FAST)
    assert "x&lt;b&gt;y" in run._repr_html_() and "<b>" not in run._repr_html_()


def test_a_call_is_described_without_expensive_reprs():
    """The repr of a run computes its estimates, that of a list has all entries; neither is needed."""

    class Shy(type(simulation())):
        def __repr__(self):
            raise AssertionError("looked at")

    run = simulation()
    shy = Shy(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})
    assert "first=Shy" in st.distance(shy, shy, coordinate=0, resamples=40).origin.call
    times = list(np.arange(1, 9) * 0.0625)
    assert len(st.simulate(pair()[1], [2.0, 0.5], 0.5, 4, ["x"], times=times, **FAST).origin.call) < 700


@pytest.mark.parametrize("name", MAKERS)
def test_a_result_is_plotted_on_new_axes_or_on_those_given(made, name):
    """Both return a figure."""
    result, count = made(name), AXES.get(name, 1)
    fresh = result.plot()
    assert isinstance(fresh, matplotlib.figure.Figure) and len([a for a in fresh.axes if a.get_visible()]) == count
    given = matplotlib.figure.Figure()
    axes = [given.add_subplot(1, count, i + 1) for i in range(count)]
    assert result.plot(ax=axes[0] if count == 1 else axes) is given and len(given.axes) == count
    assert all(a.has_data() for a in axes)
    assert axes[0].get_ylabel() or axes[0].get_title() or axes[0].get_xlabel()
