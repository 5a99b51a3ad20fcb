"""The results that several files of tests share."""

import pytest
from made_results import MAKERS


@pytest.fixture(scope="module")
def made():
    """Return a function that makes each result once."""
    found = {}

    def of(name):
        return found.setdefault(name, found.get(name) or MAKERS[name]())

    return of
