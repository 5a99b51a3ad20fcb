"""The simulation of paths: driving noise, kernels, backends, chunks, executors and the store of finished chunks.

Words of this package, as its docstrings use them:

    program      the description of one simulation (`program.Program`)
    member       one of the dynamics of a program; a program has one member, or two, which form a pair
    part         one array of a member's state, with `dim` numbers a path: the position x, the momentum m, ...
    state        the parts of all members, stacked as an array `(rows, paths)`; a row is one coordinate of one part
    quantity     what is recorded: an observable h, a function of the position, or a functional, a sum along the path
    record       the values of all quantities at one recorded step, an array `(rows, paths)`: for one member one row h(x) a quantity, for
                 a pair with positions x and z the three rows h(x), h(z) and C, the control variate
    statistic    what is accumulated over paths: a mean, or a sum of products about two means (`records.Columns` lists them)
    moments      an array `(..., statistics)` of accumulated statistics of some paths
    leaf         256 paths with consecutive indices, path 256 i being the first of leaf i; only the last leaf of a run may have fewer
    group        consecutive leaves; a run has at most 256 groups, and they are the units of bands and bootstraps
    node         some consecutive leaves of a group, a node of the binary tree along which moments are joined; the root is the whole group
    chunk        the unit of work: consecutive leaves whose moments are computed by one call (`layout`)
    task         everything needed to run any chunk of a run (`chunks.ChunkTask`)
    batch        consecutive chunks that a backend advances together in one array
    block, lane  a compiled kernel advances a block of 32 to 256 consecutive paths at a time; a lane is one path of the block
    draw         a random number; a path consumes some in each step. A plan is the list of the draws of a step (`draws.DrawPlan`)
    segment      one kind of draws of a plan, n rows of normals, signs or uniforms
    set          the draws that a member reads: one set for both members of a coupled pair, a set for each otherwise
    slot         the last coordinate of a draw's address (path, step, slot); or a place where an anchor is stored
    word         64 random bits, the raw material of draws
    anchor       the state of a momentum pair that a control variate keeps from an earlier step (`program.ControlVariate`)
    traced value a symbol or an expression that stands for an array of one path, from which backends make their code (`graph.value`)
    coefficient  a number of a rule that may change from step to step, such as eta and beta
    parameter    a number of a formula that is constant in a run, such as a matrix entry of a loss
    diverged     a path is diverged from the first step on at which a number of its state is infinite or NaN
"""
