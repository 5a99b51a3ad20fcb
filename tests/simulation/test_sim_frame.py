"""The frame of a kernel names the library's functions by number: both must mean the same."""

from sdetools.simulation import frame, lanes, library, loops


def test_frame_and_library_number_the_functions_alike():
    names = ("WORDS", "NORMALS", "UNIFORMS", "REDUCE_SINGLE", "REDUCE_PAIR", "LOST", "ANGLES")
    assert [getattr(frame, n) for n in names] == [getattr(library, n) for n in names] == list(range(len(library.ADDRESSES)))
    assert loops.LANES == lanes.LANES
