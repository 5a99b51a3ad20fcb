"""Messages about invalid drifts: they speak of components and quote the line of the user's function."""

from __future__ import annotations

import pytest

import sdetools as st


def out_of_range(x):
    return [x[0], x[7]]


@pytest.mark.parametrize(
    ("drift", "parts"),
    [
        (out_of_range, [r"return 2 components; calling it raised IndexError", "line", "return [x[0], x[7]]", "a list such as"]),
        (lambda x: [x[0]], ["must return 2 components, one for each coordinate; got 1. Return a list"]),
        (lambda x: None, ["calling it raised TypeError"]),
        (lambda x: {1.0, 2.0}, ["in an order; got a set"]),
        (lambda x: x * 1j, ["must return numbers"]),
    ],
)
def test_messages_about_a_drift_speak_of_a_vector_and_quote_the_users_line(drift, parts):
    with pytest.raises(ValueError, match="^`drift` must") as caught:
        st.SDE(drift, dim=2)
    assert all(w in str(caught.value) for w in parts) and "rows" not in str(caught.value)
    assert drift is not out_of_range or isinstance(caught.value.__cause__, IndexError)
