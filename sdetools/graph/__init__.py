"""Expression graphs: formulas are traced into operations, differentiated, and compiled for NumPy, torch, Numba and CUDA.

This package knows nothing of losses, noise or dynamics. Its terms:

    value       `Value`, a node of a graph: it stands for an array of one path; also what a formula returns when it is called with values
    shape       component shape of a value, without the axis of paths; arrays of many paths are `(*shape, paths)`
    uniform     the same for all paths, such as data or the coefficients of a step
    condition   a value of truth values, such as x > 0
    flat        position of an element in C order
    lane        place of one path in a block of paths that a kernel (a compiled loop over steps) advances together
    row         one number for each lane, contiguous; row r of the state array S begins at S[r * lanes], and likewise for draws in Z.
                Element k of a value that begins at row r is row r + k.
    scratch     working memory of a kernel: rows that hold no state
    program     instructions for an interpreter, instead of code to compile
"""

from sdetools.graph import functions
from sdetools.graph.value import Value

Value.numpy = functions
