"""The interface of results: attributes, table, plot on given axes, summary, files that restore them bitwise, HTML."""

from __future__ import annotations

import dataclasses
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
import xarray

import sdetools as st
from sdetools.studies.result_protocol import Ended, Origin, Result
from sdetools.studies.saving import Described

LOSS = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=2), sigma=1.0)
PLAN = st.schedules.constant(eta=0.0625, beta=0.5)
FAST = dict(backend="numpy", threads=1, seed=3)


def pair(eta=0.0625):
    """Return SGDM and SGD."""
    plan = st.schedules.constant(eta=eta, beta=0.5)
    return st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged())


def simulation(**more):
    """Return a simulation with trajectories."""
    return st.simulate(pair()[0], [2.0, 0.5], 0.5, 600, ["x**2", "y"], trajectories=3, keep_final=True, **FAST, **more)


def gap():
    """Return a gap with slices."""
    return st.weak_gap(*pair(), [2.0, 0.5], 0.5, 600, ["x**2", "y"], slices=[0.25], **FAST)


def orders():
    """Return an order study."""
    given = dict(expected={"x**2": lambda eta: 0.1 * eta}, **FAST)
    return st.order_study(pair, [0.125, 0.0625], [2.0, 0.5], 0.5, 600, ["x**2", "y"], **given)


def law():
    """Return a distance in law."""
    return st.distance(*(simulation(stream=s).final for s in (0, 1)), "energy", resamples=40)


def levels():
    """Return a multilevel estimate."""
    sde = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    return st.multilevel(lambda dt: st.Milstein(sde, dt), [1.0], 1.0, 0.05, ["x**2", "3"], **FAST)


def extrapolated():
    """Return an extrapolation."""
    sde = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    return st.extrapolate(lambda dt: st.EulerMaruyama(sde, dt), 0.25, [1.0], 1.0, 600, ["x**2"], **FAST)


def slow():
    """Return a study of the slow SDE."""
    oracle = st.NoisyOracle(st.losses.exponential_valley(), st.noise.rademacher(dim=2))
    return st.slow_study(oracle, st.schedules.constant(eta=0.25, beta=0.5), [0.0, 0.0], 0.5, 300, dt=0.125, **FAST)


def diverging():
    """Return a simulation with diverged paths."""
    with np.errstate(all="ignore"):
        return st.simulate(st.SGD(ORACLE, st.schedules.constant(eta=2.0)), [5.0, 5.0], 40.0, 50, ["x"], **FAST)


def diagnosis():
    """Return a diagnosis of a small network."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(64, 3)
    data = x, x.sum(1, keepdim=True)
    return st.bridge.diagnose(
        torch.nn.Linear(3, 1), torch.nn.functional.mse_loss, data, 0.01, batch_size=4, batches=16, steps=5, seeds=2, seed=3
    )


def claims():
    """Three claims: supported, contradicted, and one without a measurement; with a figure, a table, a note and a control."""
    folder = Path(tempfile.mkdtemp())
    (folder / "claims.py").write_text(CLAIMS, encoding="utf-8")
    return st.verify(folder / "claims.py", out=folder / "out", seed=3)


CLAIMS = """
import sdetools as st


@st.claim("one", statement="one is one")
def one(run):
    run.measure("one", st.Estimate(1.0, 0.01, 1000), expected=1.0, tolerance=0.2)
    run.measure("at most", st.Estimate(1.0, 0.01, 1000), at_most=2.0)
    run.table("numbers", [{"a": 1, "b": 0.5}])
    run.figure("curve", lambda: st.plots.gap_curve([0.0, 1.0], [0.0, 1.0]))
    with run.control("two"):
        run.measure("two", 2.0, expected=1.0, tolerance=0.1)


@st.claim("two", statement="two is one")
def two(run):
    run.measure("two", 2.0, expected=1.0, tolerance=0.01)
    run.measure("at least", 2.0, at_least=1.0)


@st.claim("nothing", statement="nothing")
def nothing(run):
    pass
"""

MAKERS = {f.__name__: f for f in (simulation, gap, orders, law, levels, extrapolated, slow, diverging, diagnosis, claims)}
AXES = {"levels": 4, "slow": 2}


@pytest.fixture(scope="module")
def made():
    """Return a function that makes each result once."""
    found = {}

    def of(name):
        return found.setdefault(name, found.get(name) or MAKERS[name]())

    return of


def same(a, b, where="result"):
    """Assert that two results contain the same numbers bitwise; dynamics and other code are compared by their names."""
    if dataclasses.is_dataclass(a) and type(a) is type(b) and not isinstance(a, Described):
        for field in dataclasses.fields(a):
            same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), where
    elif isinstance(a, xarray.DataArray):
        xarray.testing.assert_identical(a, b)
        assert a.values.tobytes() == b.values.tobytes(), where
    elif isinstance(a, dict) or hasattr(a, "keys"):
        assert list(a) == list(b), where
        for key in a:
            same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(b, Described):
        assert b == (a if isinstance(a, Described) else Described.of(a)), where
    elif type(b).__name__ == "Facts":
        same(a.facts, b, where)
    else:
        assert a == b or (a != a and b != b), (where, a, b)


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


@pytest.mark.parametrize("name", MAKERS)
def test_a_result_has_its_origin(made, name):
    """Seed, stream, backend and call are attributes of `data`."""
    result = made(name)
    assert isinstance(result, Result) and isinstance(result.data, xarray.Dataset)
    attrs = result.data.attrs
    assert attrs["version"] == st.__version__
    if name == "diagnosis":
        assert (attrs["seed"], attrs["backend"], attrs["dtype"]) == (3, "torch", "float32") and attrs["call"].startswith(
            "diagnose("
        )
    elif name == "claims":  # several runs, each with its own backend
        assert (attrs["seed"], attrs["call"]) == (3, "verify(budget='quick', seed=3)")
    elif name != "law":  # the seeds of the samples of a distance are unknown
        assert (attrs["seed"], attrs["stream"], attrs["backend"], attrs["dtype"]) == (3, 0, "numpy", "float64")
        assert attrs["call"].startswith(("simulate(", "weak_gap(", "order_study(", "multilevel(", "extrapolate(", "slow_study("))
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


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_restores_the_result_bitwise(made, name, tmp_path):
    """Other programs can read the dataset as well."""
    result = made(name)
    again = st.load(result.save(tmp_path / "result.nc"))
    assert type(again) is type(result)
    same(result, again)
    assert again.table() == result.table() and again.summary() == result.summary()
    xarray.testing.assert_identical(again.data, result.data)
    with xarray.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as root:  # as other programs read it
        assert set(result.data.data_vars) <= set(root.data_vars) and root.attrs["result"] == type(result).__name__
    assert list(tmp_path.iterdir()) == [tmp_path / "result.nc"]
    same(again, st.load(again.save(tmp_path / "again.nc")))
    assert isinstance(again.plot(), matplotlib.figure.Figure)


def test_estimates_of_a_loaded_result_are_unchanged(made, tmp_path):
    """Gaps, suprema and attributes of slices; its dynamics are descriptions."""
    result = made("gap")
    again = st.load(result.save(tmp_path / "gap.nc"))
    for h in result.names:
        for t in result.times:
            assert again.at(h, t) == result.at(h, t)
        assert again.sup(h).confidence_interval(0.999) == result.sup(h).confidence_interval(0.999)
    assert isinstance(again.first, Described) and again.first.name == "SGDM"
    assert again.slices.attrs == result.slices.attrs


def test_integers_of_64_bits_are_preserved(tmp_path):
    """The largest seed."""
    run = dataclasses.replace(simulation(), origin=dataclasses.replace(simulation().origin, seed=2**64 - 1))
    again = st.load(run.save(tmp_path / "run.nc"))
    assert again.origin.seed == 2**64 - 1 and again.data.attrs["seed"] == 2**64 - 1


def test_a_file_with_the_field_names_of_earlier_versions_is_read(tmp_path, made):
    """`lost` and `first` of earlier versions."""
    import h5py

    result = made("simulation")
    file = result.save(tmp_path / "run.nc")
    with h5py.File(file, "r+") as content:
        sums = content["result/statistics/sums"]
        sums.move("diverged", "lost")
        sums.move("first_divergence", "first")
    same(result, st.load(file))


def test_files_without_a_result_are_refused(tmp_path, made):
    """Other files, incomplete files, and results of another class."""
    (tmp_path / "text.nc").write_text("no file of ours")
    xarray.Dataset({"a": 1.0}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    for name in ("text", "other"):
        with pytest.raises(ValueError, match="must be a result that was saved"):
            st.load(tmp_path / f"{name}.nc")
    with pytest.raises(FileNotFoundError):
        st.load(tmp_path / "none.nc")
    root = xarray.open_dataset(made("law").save(tmp_path / "whole.nc"), engine="h5netcdf").load()
    root.to_netcdf(tmp_path / "part.nc", engine="h5netcdf")
    xarray.Dataset(attrs={"class": "Distance", "fields": "{}"}).to_netcdf(
        tmp_path / "part.nc", "a", group="/result", engine="h5netcdf"
    )
    with pytest.raises(ValueError, match="lacks a part"):
        st.load(tmp_path / "part.nc")
    file = made("law").save(tmp_path / "law.nc")
    with pytest.raises(ValueError, match="must hold a WeakGap"):
        st.studies.WeakGap.load(file)
    assert st.studies.distance.Distance.load(file).value == made("law").value


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, made, monkeypatch):
    """After an error the old file is unchanged and no temporary file is left."""
    file = made("law").save(tmp_path / "law.nc")
    before = file.read_bytes()
    monkeypatch.setattr(xarray.Dataset, "to_netcdf", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        made("law").save(file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


@dataclasses.dataclass(frozen=True)
class OwnResult(Result):
    """A result class of a user, which the package does not list."""

    numbers: np.ndarray
    inner: tuple
    origin: Origin
    diverged = 0  # no dataclass field

    @property
    def data(self):
        return xarray.Dataset({"numbers": ("x", self.numbers)}, attrs=self.origin.attributes)

    def table(self):
        return str(self.numbers)

    def plot(self, *, ax=None):
        return st.plots.figure_of(st.plots.gap_curve(np.arange(len(self.numbers)), self.numbers, ax=ax))


def test_a_result_class_of_a_user_is_saved_and_loaded(tmp_path):
    """Once its module is imported."""
    own = OwnResult(np.array([1.0, 2.0**-60]), (st.Estimate(1.0, 0.1, 100),), Origin("own()", 5))
    again = st.load(own.save(tmp_path / "own.nc"))
    assert type(again) is OwnResult
    same(again, own)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "PathLike"), ("sdetools.claims.verification", "verify"), ("no.such", "Thing"), ("shelve", "Shelf")],
)
def test_a_file_instantiates_results_only(tmp_path, module, name):
    """A file that names another class, or a module that is not imported, is refused; nothing is imported."""
    import sys

    path = OwnResult(np.array([1.0]), (), Origin("own()", 5)).save(tmp_path / "own.nc")
    import h5py

    with h5py.File(path, "a") as file:
        file["result"].attrs["class"], file["result"].attrs["module"] = name, module
    before = "shelve" in sys.modules
    with pytest.raises(ValueError, match="must be of a class that is known"):
        st.load(path)
    assert ("shelve" in sys.modules) == before


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="must lie in a folder that exists.*Create"):
        simulation().save(tmp_path / "none" / "run.nc")
    assert not [*tmp_path.iterdir()]


@dataclasses.dataclass(frozen=True)
class Trial(OwnResult):
    """A user's result whose class has the name of one of the package, with fields whose names are alike and one that is computed."""

    arr: np.ndarray
    arr_0: np.ndarray
    size: int = dataclasses.field(init=False, default=3)


def test_fields_whose_names_are_alike_and_classes_named_like_the_packages(tmp_path):
    own = Trial(np.ones(1), (), Origin("own()", 5), np.arange(6.0).reshape(2, 3), np.array([7.0, 8.0]))
    again = st.load(own.save(tmp_path / "own.nc"))
    assert type(again) is Trial
    same(again, own)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf closes a file that it could not open
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_read(tmp_path, made, seed):
    """Three bytes changed anywhere: a ValueError, or a result; no other error."""
    path = made("simulation").save(tmp_path / "run.nc")
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for at in rng.integers(0, len(content), 3):
        content[at] ^= int(rng.integers(1, 256))
    path.write_bytes(content)
    try:
        assert isinstance(st.load(path), Result)
    except ValueError as error:
        assert "`path`" in str(error) or "must" in str(error)


def test_a_file_whose_root_is_no_result_is_refused(tmp_path, made):
    import h5py

    path = made("simulation").save(tmp_path / "run.nc")
    with h5py.File(path, "a") as file:
        file["result"].attrs["class"], file["result"].attrs["value"] = "plain", "1"
    with pytest.raises(ValueError, match="holds a int"):
        st.load(path)
