"""The tables of optimisers and of integrators: their arguments, supported features, orders, and sources.

Tests are parametrised by these tables, and the documentation is generated from them. There is no registry: an optimiser is in the table if
its module in `rules/` has an `OptimiserEntry` in `ENTRIES`, an integrator if its class is defined in a module of `integrators/`.

    python -m sdetools.dynamics.catalogue               prints both tables in Markdown
    python -m sdetools.dynamics.catalogue README.md     writes them in place of those that a document has
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from sdetools.dynamics import integrators as schemes, rules
from sdetools.dynamics.integrators.base import Integrator
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.sdes.classes import CLASSES


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules of a package, imported, in the alphabetical order of their names."""
    for found in iter_modules(package.__path__):
        yield import_module(f"{package.__name__}.{found.name}")


def optimisers() -> tuple[OptimiserEntry, ...]:
    """Return the `OptimiserEntry` of each optimiser that a module of `sdetools.dynamics.rules` lists in `ENTRIES`, a tuple sorted by class name.

    Example:
        >>> from sdetools.dynamics.catalogue import optimisers
        >>> [entry.name for entry in optimisers() if entry.schedule == ""]
        ['HeavyBall']
    """
    entries = [entry for module in _modules(rules) for entry in getattr(module, "ENTRIES", ())]
    return tuple(sorted(entries, key=lambda entry: entry.name))


def integrators() -> tuple[type[Integrator], ...]:
    """Return the public classes of integrators in `sdetools.dynamics.integrators`, a tuple sorted by name, without the base class.

    Each class declares its orders, classes of noise, distributions of the draws and source as attributes (see `Integrator`).

    Example:
        >>> from sdetools.dynamics.catalogue import integrators
        >>> [cls.__name__ for cls in integrators() if cls.weak_order == 2 and not cls.kinetic]
        ['Platen', 'RI1', 'SRA1']
    """
    found = {
        thing
        for module in _modules(schemes)
        for name, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, Integrator) and thing.__module__ == module.__name__ and name[0] != "_"
    }
    return tuple(sorted(found - {Integrator}, key=lambda cls: cls.__name__))


def optimiser_table() -> str:
    """Return the table of optimisers as text in Markdown: a header, then one line for each entry of `optimisers()`."""
    rows = [
        (
            f"`{entry.name}`",
            entry.schedule or "its own",
            _yes(entry.exact),
            _yes(entry.gain),
            _yes(entry.torch),
            entry.reference,
        )
        for entry in optimisers()
    ]
    return _markdown(("optimiser", "schedule", "exact moments", "equivalent SGD", "for networks", "source"), rows)


def integrator_table() -> str:
    """Return the table of integrators as text in Markdown: a header, then one line for each class of `integrators()`."""
    rows = []
    for cls in integrators():
        classes = [c for c in CLASSES if c in cls.classes and c != "none"]
        noise = "any" if classes == [c for c in CLASSES if c != "none"] else ", ".join(classes)
        calculus = {"ito": "Ito", "stratonovich": "Stratonovich"}.get(cls.calculus, cls.calculus)
        equation = "kinetic" if cls.kinetic else calculus
        rows.append(
            (
                f"`{cls.__name__}`",
                _orders(cls.weak_order, cls.weak_orders),
                _orders(cls.strong_order, cls.strong_orders),
                equation,
                noise,
                ", ".join(cls.laws),
                cls.reference,
            )
        )
    return _markdown(("integrator", "weak order", "strong order", "equation", "noise", "draws", "source"), rows)


def _orders(widest: float | None, narrower: Mapping[str, float]) -> str:
    """Return orders of convergence as text, such as "1/2; 1 for additive"; "-" without an order.

    Args:
        widest: The order for the widest class of noise, or None.
        narrower: The higher orders for narrower classes, by the name of the class, as `Integrator.weak_orders`.
    """
    higher: dict[float, list[str]] = {}
    for noise, order in narrower.items():
        higher.setdefault(order, []).append(noise)
    more = "".join(f"; {_number(order)} for {', '.join(noises)}" for order, noises in higher.items())
    return "-" if widest is None else _number(widest) + more


def _number(value: float) -> str:
    return str(Fraction(value).limit_denominator(12))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table as text, from the texts of its header, `columns`, and of its cells, a sequence as long for each row."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def updated(text: str) -> str:
    """Return the text of a Markdown document in which the tables of optimisers and of integrators are made anew from the code.

    Args:
        text: The document. A table is found by its header and ends before the first line that does not start with "|".

    Raises:
        ValueError: If one of the two headers does not occur.
    """
    for table in (optimiser_table(), integrator_table()):
        header = table.partition("\n")[0]
        before, found, after = text.partition(header)
        if not found:
            raise ValueError(f"the document must have a table with the header {header!r}; got none.")
        rest = after.lstrip("\n").splitlines(keepends=True)
        end = next((i for i, line in enumerate(rest) if not line.startswith("|")), len(rest))
        text = before + table + "\n" + "".join(rest[end:])
    return text


if __name__ == "__main__":
    if len(sys.argv) > 1:
        document = Path(sys.argv[1])
        document.write_text(updated(document.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(optimiser_table(), integrator_table(), sep="\n\n")
