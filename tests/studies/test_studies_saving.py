"""Files of results: they restore them bitwise, damage is noticed, and what a file cannot contain is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum

import matplotlib.figure
import numpy as np
import pytest
import xarray
from made_results import MAKERS, same, simulation

import sdetools as st
from sdetools.results.described import Described
from sdetools.results.protocol import Origin, Result


@pytest.mark.sample(1)
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
        without_hash(content)
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
    root.assign_attrs(format="sdetools result 1").to_netcdf(tmp_path / "part.nc", engine="h5netcdf")
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


def without_hash(file):
    """Make an open file one of the format that had no hash, so that whoever reads it sees what was changed in it."""
    file.attrs["format"] = "sdetools result 1"
    del file["check"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "PathLike"),
        ("sdetools.claims.verification", "verify"),
        ("no.such", "Thing"),
        ("shelve", "Shelf"),
        ("sdetools.cli.__main__", "main"),
    ],
)
def test_a_file_instantiates_results_only(tmp_path, module, name):
    """A file that names another class, or a module that is not imported, is refused; nothing is imported."""
    import sys

    path = OwnResult(np.array([1.0]), (), Origin("own()", 5)).save(tmp_path / "own.nc")
    import h5py

    with h5py.File(path, "a") as file:
        file["result"].attrs["class"], file["result"].attrs["module"] = name, module
        without_hash(file)
    before = {m for m in ("shelve", "sdetools.cli.__main__") if m in sys.modules}
    with pytest.raises(ValueError, match="must be of a class that is known"):
        st.load(path)
    assert {m for m in ("shelve", "sdetools.cli.__main__") if m in sys.modules} == before


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


@pytest.mark.sample(1)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf closes a file that it could not open
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_intact(tmp_path, made, seed):
    """Three bytes changed anywhere: a ValueError, or the same result, if they are bytes that nothing uses; no other error."""
    path = made("simulation").save(tmp_path / "run.nc")
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for at in rng.integers(0, len(content), 3):
        content[at] ^= int(rng.integers(1, 256))
    path.write_bytes(content)
    intact = st.load(made("simulation").save(tmp_path / "intact.nc"))
    try:
        same(st.load(path), intact)
    except ValueError as error:
        assert "`path`" in str(error) or "must" in str(error)


def test_a_changed_number_is_noticed(tmp_path, made):
    """One bit of one number: refused, while the file without its hash is read with the other number (control)."""
    import h5py

    path = made("simulation").save(tmp_path / "run.nc")
    st.load(path)
    with h5py.File(path, "a") as file:
        values = next(a for a in arrays(file["result"]) if np.isfinite(a[...].reshape(-1)[-1]))
        raw = values[...].copy()
        raw.reshape(-1)[-1] = np.nextafter(raw.reshape(-1)[-1], np.inf)
        values[...] = raw
    with pytest.raises(ValueError, match="is damaged or was changed"):
        st.load(path)
    with h5py.File(path, "a") as file:
        without_hash(file)
    assert isinstance(st.load(path), Result)


def test_another_program_may_add_a_comment(tmp_path, made):
    import h5py

    path = made("law").save(tmp_path / "law.nc")
    with h5py.File(path, "a") as file:
        file.attrs["comment"] = "the run of May"
    same(st.load(path), made("law"))


def arrays(group):
    """Yield the arrays of numbers in a group of a file."""
    import h5py

    for item in group.values():
        if isinstance(item, h5py.Group):
            yield from arrays(item)
        elif item.dtype == np.float64 and item.size:  # dimensions without coordinates are arrays of another type
            yield item


@dataclasses.dataclass(frozen=True)
class Noted(OwnResult):
    """A user's result with a field of any type."""

    note: object = None


class Colour(enum.IntEnum):
    """An enumeration, which a file does not know."""

    RED = 1


@pytest.mark.parametrize(
    "note",
    [
        [1, 2],
        (1, 2),
        [[1.5], ("a",)],
        {3, 4},
        frozenset({"a"}),
        {"a": [1, None]},
        {None: 1},
        {(1, "b"): (2,)},
        [],
        (),
        {},
        "é\n",
        [np.ones(2)],
    ],
)
def test_a_field_of_a_user_keeps_its_type(tmp_path, note):
    own = Noted(np.ones(1), (), Origin("own()", 5), note)
    again = st.load(own.save(tmp_path / "own.nc")).note
    assert type(again) is type(note) and repr(again) == repr(note)


@pytest.mark.parametrize(
    "note",
    [
        datetime.datetime(2020, 1, 1),
        1j,
        np.array([1j]),
        np.array([None]),
        np.ma.array([1.0, 2.0], mask=[True, False]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.zeros(2, dtype=[("a", "f8")]),
        np.zeros(2, dtype=np.longdouble),
        np.zeros(2, dtype=np.float16),
        xarray.DataArray(np.array([1j])),
        Colour.RED,
        {Colour.RED: 1},
        [object()],
        collections.namedtuple("Pair", "a b")(1, 2),
        b"bytes",
    ],
    ids=lambda note: type(note).__name__,
)
def test_a_field_that_a_file_would_change_is_refused(tmp_path, note):
    """In one sentence, and without a file."""
    with pytest.raises(ValueError, match=r"`(note|item0)` must hold what a file can contain"):
        Noted(np.ones(1), (), Origin("own()", 5), note).save(tmp_path / "own.nc")
    assert not [*tmp_path.iterdir()]


def test_a_class_within_a_function_is_refused(tmp_path):
    """`st.load` would not find it."""

    class Inner(OwnResult):
        """A result class that no module contains."""

    with pytest.raises(ValueError, match=r"at the top of a module.*got test_a_class.*Inner"):
        Inner(np.ones(1), (), Origin("own()", 5)).save(tmp_path / "own.nc")
    assert not [*tmp_path.iterdir()]


def test_a_link_to_a_file_stays_a_link(tmp_path, made):
    (tmp_path / "data").mkdir()
    link = tmp_path / "law.nc"
    link.symlink_to(tmp_path / "data" / "law.nc")
    assert made("law").save(link) == link and link.is_symlink()
    same(st.load(tmp_path / "data" / "law.nc"), made("law"))


@pytest.mark.parametrize("path", ["http://example.org/run.nc", "none.nc", "."])
def test_what_is_no_file_is_named(path):
    with pytest.raises(FileNotFoundError, match="`path` must be a file that exists; got"):
        st.load(path)


def test_a_file_whose_root_is_no_result_is_refused(tmp_path, made):
    import h5py

    path = made("simulation").save(tmp_path / "run.nc")
    with h5py.File(path, "a") as file:
        file["result"].attrs["class"], file["result"].attrs["value"] = "plain", "1"
        without_hash(file)
    with pytest.raises(ValueError, match="holds a int"):
        st.load(path)
