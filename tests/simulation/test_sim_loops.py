"""Splitting and rolling of lane loops: whatever the loops look like, every load sees the state before the step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sdetools.simulation.loops import ANGLES, LANES, SHORT, Item, lane_loops
from sdetools.simulation.source import row


class Kept(dict):
    """The rows of `T` by number; as `T.ctypes.data` they have the address 8, so that the text's own addresses tell the row, and 0 is nothing."""

    ctypes = type("Address", (), {"data": 8})


def played(loops, state, noise):
    """The loops run by Python on the first two lanes."""
    kept = Kept()

    def call(function, source, *targets):
        for target, angle in zip(targets, (np.sin, np.cos, np.tan)):
            for j in (0, 1) if target else ():
                kept[(target - 8) // 8 + j] = angle(kept[(source - 8) // 8 + j])

    space = {"S": state.copy(), "Z": noise, "T": kept, "lib": {ANGLES: None}, "lanes": SimpleNamespace(call=call)}
    for text in loops:
        exec(text.replace(f"range({LANES})", "range(2)"), space)
    return space["S"].reshape(-1, LANES)[:, :2]


def expected(lines, stores, state, noise):
    out = state.copy()
    for j in (0, 1):
        names = {"S": state, "Z": noise, "j": j, "lanes": SimpleNamespace(vsin=np.sin, vcos=np.cos, vtan=np.tan)}
        for item in lines:
            names[item.target] = eval(item.text, names)
        for item in stores:
            where = eval(item.target[2:-1], {"j": j})
            out[where] = eval(item.text, names)
    return out.reshape(-1, LANES)[:, :2]


def random_program(rng, rows, alike, angles=False):
    """Stores of sums of loads: with `alike`, the same pattern of offsets shifted by one row each, as coordinates have.

    With `angles` some sums are turned into their sines, cosines or tangents on the way, and into sines of cosines.
    """
    lines, stores, known = [], [], {}

    def add(text, uses=()):
        if text not in known:
            known[text] = f"v{len(lines)}"
            lines.append(Item(known[text], text, tuple(uses)))
        return known[text]

    count = int(rng.integers(30, rows // 2))
    offsets = rng.integers(-3, 4, size=int(rng.integers(1, 4))) if alike else None
    targets = np.arange(count) + 3 if alike else rng.permutation(rows)[:count]
    for i, target in enumerate(targets.tolist()):
        reads = (target + offsets) if alike else rng.integers(0, rows, size=int(rng.integers(1, 4)))
        total = add(f"Z[{(i + 1) * LANES} + j]")
        for r in reads.tolist():
            load = add(row(r))
            product = add(f"{load} * {0.5 if alike else round(float(rng.normal()), 3)!r}", (load,))
            total = add(f"{total} + {product}", (total, product))
            for n in range(int(rng.integers(0, 3)) if angles and not alike else angles):
                total = add(f"lanes.v{('sin', 'cos', 'tan')[(r + n) % 3 if not alike else n]}({total})", (total,))
        stores.append(Item(row(target), total, (total,)))
    return lines, stores


@pytest.mark.parametrize("angles", [False, True])
@pytest.mark.parametrize("alike", [False, True])
def test_random_programs(alike, angles):
    rolled = split = 0
    for seed in range(60):
        rng, rows = np.random.default_rng(seed), 120
        lines, stores = random_program(rng, rows, alike, angles)
        state, noise = rng.standard_normal((2, (rows + 8) * LANES))
        loops = lane_loops(lines, stores)
        np.testing.assert_array_equal(played(loops, state, noise), expected(lines, stores, state, noise), err_msg=f"seed {seed}")
        rolled += any("for q in" in text for text in loops)
        split += len(loops) > 1
        assert any("lanes.call" in text for text in loops) == angles
    assert split > 0 and (not alike or rolled > 0)  # the test reaches what it is about


def test_short_loops_are_left_whole_and_none_is_made_for_nothing():
    lines = [Item("v0", row(0), ())]
    (text,) = lane_loops(lines, [Item(row(1), "v0", ("v0",))])
    assert text.count("\n") == 2 < SHORT
    assert lane_loops(lines, []) == []
