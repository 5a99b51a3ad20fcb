"""Comparison of two runs of claims: noise is silent, and what moved is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sdetools.claims.comparison import FALSE_ALARM, compare
from sdetools.cli import main


def measured(name, value, stderr=0.1, low=None, high=None):
    """Return a measurement as in results.json."""
    return {"name": name, "value": value, "stderr": stderr, "low": low, "high": high, "level": 0.999}


def exact(value, low=None, high=None):
    """Return a measurement without error, for which the values between low and high are accepted."""
    return measured("q", value, 0.0) | {"accept": [low, high]}


def claim(id, *items, verdict="supported", controls=()):
    """Return a claim as in results.json."""
    return {
        "id": id,
        "verdict": verdict,
        "measurements": list(items),
        "controls": [{"name": "c", "measurements": list(controls)}],
    }


def write(path, *claims):
    """Write a file of results."""
    path.write_text(json.dumps({"claims": claims}))
    return path


def both(folder, old, new):
    """Compare two lists of claims."""
    return compare(write(folder / "old.json", *old), write(folder / "new.json", *new))


def test_noise_alone_is_silent_and_a_shift_is_named(tmp_path):
    """300 pairs of runs with 200 values each: at most 2 % are not silent on average.

    15 or more of mean 6 have probability below 2e-3; the seed is fixed. In each, a value shifted by six standard errors of the difference is named, unless noise
    takes it below the threshold, which lies 2.1 lower: 1.8 in a hundred, 5.3 of 300, of which 18 or more have probability below 2e-5.
    """
    rng = np.random.default_rng(3)
    loud = missed = 0
    for _ in range(300):
        old, new = rng.normal(size=(2, 200))
        runs = [[claim("a", *(measured(f"{i}", v, 1.0) for i, v in enumerate(values)))] for values in (old, new)]
        found = both(tmp_path, *runs)
        loud += bool(found.moved)
        runs[1][0]["measurements"][7]["value"] += 6 * 2**0.5
        missed += ("a", "7") not in [(d.claim, d.what) for d in both(tmp_path, *runs).moved]
    assert found.values == 200 and 3.8 < found.threshold < 4.1 and FALSE_ALARM == 0.02
    assert loud < 15 and missed < 18


def test_the_same_run_with_one_value_moved_by_six_standard_errors_of_its_own(tmp_path):
    """Nothing else moved, so that it is named among 600 values."""
    items = [measured(f"{i}", 1.0 + i) for i in range(600)]
    moved = [*items[:-1], measured("599", 600.6)]
    (found,) = both(tmp_path, [claim("a", *items)], [claim("a", *moved)]).moved
    assert (found.claim, found.what, found.old, found.new) == ("a", "599", "600 +- 0.1", "600.6 +- 0.1")
    assert found.z == pytest.approx(6 / 2**0.5, rel=1e-9)


def test_verdicts_and_missing_parts(tmp_path):
    """A verdict on an edge is noted apart; errors, and claims and values that one run lacks, are differences."""
    old = [
        claim("edge", measured("q", 1.0)),
        claim("broken", measured("q", 1.0)),
        claim("gone", measured("q", 1.0)),
        claim("part", measured("q", 1.0), measured("r", 1.0)),
    ]
    new = [
        claim("edge", measured("q", 1.1), verdict="inconclusive"),
        claim("broken", measured("q", 1.0), verdict="error"),
        claim("part", measured("q", 1.0)),
        claim("more", measured("q", 1.0)),
    ]
    found = both(tmp_path, old, new)
    assert [(d.claim, d.what, d.old, d.new) for d in found.edges] == [("edge", "verdict", "supported", "inconclusive")]
    assert [(d.claim, d.what, d.old, d.new) for d in found.moved] == [
        ("broken", "verdict", "supported", "error"),
        ("gone", "claim", "supported", "-"),
        ("part", "r", "1 +- 0.1", "-"),
        ("more", "claim", "-", "supported"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        (measured("q", 1.0, 0.0), measured("q", 1.0 + 1e-12, 0.0), False),  # rounding of an exact number
        (measured("q", 1.0, 0.0), measured("q", 1.0001, 0.0), True),
        (measured("q", 1.0, 0.0), measured("q", 1.2, 0.1), False),
        (measured("q", None), measured("q", None), False),
        (measured("q", None), measured("q", 1.0), True),
        (measured("q", 1.0, None, 0.9, 1.1), measured("q", 1.05, None, 0.95, 1.15), False),  # errors from intervals
        (measured("q", 1.0, None, 0.9, 1.1), measured("q", 2.0, None, 1.9, 2.1), True),
        (measured("q", 1.0, None), measured("q", 2.0, None), False),  # errors unknown
        (exact(3e-16, None, 1e-12), exact(4e-16, None, 1e-12), False),  # a distance, on two machines
        (exact(3e-16, 0, 4e-16), exact(4e-16, 0, 4e-16), True),  # its bound is near
        (exact(0.0, None, 1e-9), exact(2e-12, None, 1e-9), True),  # more than rounding
        (exact(3e-13, 2e-13, 4e-13), exact(3.2e-13, 2e-13, 4e-13), True),  # a number that is small itself
        (exact(3e-16), exact(4e-16), False),  # nothing depends on it
    ],
)
def test_values_with_other_errors(tmp_path, old, new, moves):
    """Exact, infinite and unknown ones, of a measurement and of a control."""
    assert bool(both(tmp_path, [claim("a", old)], [claim("a", new)]).moved) == moves
    found = both(tmp_path, [claim("a", controls=[old])], [claim("a", controls=[new])]).moved
    assert [d.what for d in found] == (["c: q"] if moves else [])


def test_the_command(tmp_path):
    """A table and an exit code; a folder stands for its file; other files are refused in a sentence."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, value in ((old, 1.0), (new, 3.0)):
        folder.mkdir()
        write(folder / "results.json", claim("a", measured("q", value)))
    run = CliRunner().invoke
    same, other = run(main, ["compare", str(old), str(old)]), run(main, ["compare", str(old), str(new / "results.json")])
    assert (same.exit_code, other.exit_code) == (0, 1)
    assert "1 values compared, 0 differences" in same.output and "+14.1" in other.output
    (tmp_path / "bad.json").write_text("{}")
    bad = run(main, ["compare", str(old), str(tmp_path / "bad.json")])
    assert bad.exit_code == 2 and "must be a file results.json" in bad.output and bad.output.count("\n") == 1
    assert run(main, ["compare", str(old), str(tmp_path / "none.json")]).exit_code == 2


def test_files_of_the_command_verify_are_read(tmp_path):
    """A real run against itself, and against a run with another seed."""
    from sdetools.claims import verify

    (tmp_path / "c.py").write_text(
        "import sdetools as st\n@st.claim('a', statement='s')\ndef a(run):\n"
        "    oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))\n"
        "    r = st.simulate(st.SGD(oracle, st.schedules.constant(0.1)), [1.0], 1.0, observe=['x0'], backend='numpy', **run.options(paths=500))\n"
        "    run.measure('m', r.at('x0'), expected=0.35, tolerance=0.1)\n    run.measure('exact', 1.0, at_most=2.0)\n"
    )
    for seed in (0, 1):
        verify(tmp_path / "c.py", out=tmp_path / f"{seed}", seed=seed)
    one, two = (tmp_path / f"{seed}" / "results.json" for seed in (0, 1))
    assert compare(one, one).values == 2 and not compare(one, one).moved and not compare(one, two).moved
