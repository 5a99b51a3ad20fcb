"""The text of a kernel for a CPU, in which `cpu.Writer` fills the lines of a program."""

TEMPLATE = '''"""A kernel that sdetools generated; safe to delete."""
import math

import numpy as np

from sdetools.graph import {module} as lanes
{imports}
u64, real = np.uint64, np.{real}


def run(where):
    A = lanes.whole_pointer(where)
{head}
    first, watch, S, base, Zbase, Wbase = u64(first), watch != 0, rows, rowsat, Zat, Wat
    {every}
    until = 0
    for b in range(blocks):
        at = first + u64(b * {L})
        valid = min({L}, paths - b * {L})
        before = b % {blocks} * {L}
        begin = until
        while until < picked_paths and picked[until] < b * {L} + valid:
            until += 1
        if watch and begin == until and picked_paths > 0:
            continue
{start}
        e = k = 0
        while True:
            if k == events[4 * e]:
                t, slot, point = events[4 * e + 1], events[4 * e + 2], events[4 * e + 3]
                if point >= 0:
                    for i in range(shown_rows):
                        for n in range(begin, until):
                            points[(point * shown_rows + i) * picked_paths + n] = S[shown[i] * {L} + picked[n] - b * {L}]
                if slot >= 0:
{snapshot}
                if t >= 0 and not watch:
                    c, rho, slot = factors[2 * t], factors[2 * t + 1], slots[t]
{fetch}
{record}
                e += 1
            if k == steps:
                break
            first_step, until_step = k, k + 1 if watch else events[4 * e]
{step}
            k = until_step
            if watch:
{watch}
        if not watch:
{diverged}
            if before == {last} or b == blocks - 1:
                lanes.call({carry}, treeat, before + valid, 0, 0, 0, 0)
    return 0
'''
