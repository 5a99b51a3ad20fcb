"""Input validation: each validator returns the value that it checked, or raises a ValueError.

The message says what was checked, the rule, the value that came, and a remedy. In all validators, `name` is the name of the checked
argument, and `hint` the last sentence of the message, a remedy (empty for none).
"""

from __future__ import annotations

import inspect
import math
import numbers
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 1 << 42
"""The largest count by default, the number of paths that have addresses; larger counts exceed memory or the address space."""
LONGEST_TEXT = 80
"""Maximum length of a value's text in a message, on one line."""


def shown(value: Any) -> str:
    """Return the `repr` of a value for a message: one line of at most `LONGEST_TEXT` = 80 characters, cut with " ..." where it is longer.

    Args:
        value: Any object.

    Returns:
        The text without memory addresses. An integer with too many digits for Python to write out is described by its number of bits.

    Example:
        >>> from sdetools._check import shown
        >>> shown(10**100)[:12], len(shown(10**100)), shown(0.5)
        ('100000000000', 80, '0.5')
    """
    try:
        text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(value).split()))
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 4] + " ..."


def suggestion(given: Any, known: Iterable[Any], otherwise: str = "") -> str:
    """Return "Did you mean `x`?" for the known name that is nearest to a given one, and `otherwise` if none is near.

    Args:
        given: The name that is not known; capitals count as small letters.
        known: The known names.
        otherwise: The text if no known name resembles it.

    Example:
        >>> from sdetools._check import suggestion
        >>> suggestion("quik", ["quick", "standard"]), suggestion("x", ["quick"], "See the list.")
        ('Did you mean `quick`?', 'See the list.')
        >>> suggestion("SGMD", ["SGD", "SGDM"])
        'Did you mean `SGDM`?'
    """
    from difflib import get_close_matches

    names, wanted = {str(name).lower(): str(name) for name in known}, str(given).lower()
    swapped = [name for name in names if sorted(name) == sorted(wanted)]  # "sgmd" is "sgdm" before it is "sgd"
    near = get_close_matches(wanted, swapped or names, 1)
    return f"Did you mean `{names[near[0]]}`?" if near else otherwise


def choice(name: str, value: Any, known: Iterable[str], hint: str = "") -> Any:
    """Return a value that is one of the known ones, or raise a ValueError that lists them and suggests the nearest.

    Args:
        name: Name of the checked argument, for the message.
        value: The value.
        known: The known values.
        hint: Last sentence of the message if no known value is near; empty for none.

    Raises:
        ValueError: If the value is none of them.

    Example:
        >>> from sdetools._check import choice
        >>> choice("budget", "quik", ["quick", "standard"])
        Traceback (most recent call last):
        ...
        ValueError: `budget` must be one of quick, standard; got 'quik'. Did you mean `quick`?
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise ValueError(
            f"`{name}` must be one of {', '.join(names)}; got {shown(value)}.{_tail(suggestion(value, names, hint))}"
        )
    return value


def number(name: str, value: Any, rule: str = "be a finite number", hint: str = "") -> float:
    """Return a value as a finite float, or raise a ValueError.

    Args:
        name: Name of the checked argument, for the message.
        value: A real number, or a tensor or array with one element. Text, True and False are refused.
        rule: The rule, as it follows "must" in the message, such as "be a number >= 0". It is text only: the one test is that the value is finite.
        hint: Last sentence of the message, a remedy; empty for none.

    Raises:
        ValueError: If the value is not a finite number, or is a tensor that requires a gradient, which the conversion would drop.
    """
    if getattr(value, "requires_grad", False):
        raise ValueError(
            f"`{name}` must {rule} without a gradient; got a tensor that requires one. Pass its value: .item().{_tail(hint)}"
        )
    try:
        out = math.nan if isinstance(value, (str, bytes, bool, np.bool_)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        out = math.nan
    if not math.isfinite(out):
        hint = hint or ("Write it without quotes." if isinstance(value, str) and _is_number(value) else "")
        raise ValueError(f"`{name}` must {rule}; got {name}={shown(value)}.{_tail(hint)}")
    return out


def _is_number(text: str) -> bool:
    """Return whether a text is that of a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def positive(name: str, value: Any, hint: str = "") -> float:
    """Return a value as a finite float > 0; ValueError otherwise.

    `name` is the name of the checked argument, and `hint` the last sentence of the error message.
    """
    out = number(name, value, "be a positive number", hint)
    if out <= 0:
        raise ValueError(f"`{name}` must be a positive number; got {name}={shown(value)}.{_tail(hint)}")
    return out


def non_negative(name: str, value: Any, hint: str = "") -> float:
    """Return a value as a finite float >= 0; ValueError otherwise.

    `name` is the name of the checked argument, and `hint` the last sentence of the error message.
    """
    out = number(name, value, "be a finite number, 0 or above", hint)
    if out < 0:
        raise ValueError(f"`{name}` must be a finite number, 0 or above; got {name}={shown(value)}.{_tail(hint)}")
    return out


def confidence(value: Any, name: str = "confidence") -> float:
    """Return a confidence level as a float, 0 < value < 1; ValueError otherwise. `name` is the argument's name in the message."""
    out = number(name, value)
    if not 0 < out < 1:
        raise ValueError(f"`{name}` must lie strictly between 0 and 1; got {name}={value!r}. For 95 % write 0.95.")
    return out


def momentum(name: str, value: Any) -> float:
    """Return a momentum coefficient as a float, 0 <= value < 1; ValueError otherwise. `name` is the argument's name in the message."""
    out = number(name, value, "lie in [0, 1)")
    if not 0 <= out < 1:
        raise ValueError(
            f"`{name}` must lie in [0, 1); got {name}={shown(value)}. "
            "Take it below 1: the momentum buffer decays at the rate 1 - beta, and at 1 no gradient enters it."
        )
    return out


def count(name: str, value: Any, least: int = 1, hint: str = "", most: int = LARGEST) -> int:
    """Return a whole number from `least` to `most` as an int, or raise a ValueError.

    Args:
        name: Name of the checked argument, for the message.
        value: An integer, or a real number without a fraction. True and False are refused.
        least: Smallest value that is allowed.
        hint: Last sentence of the message, a remedy; empty for none.
        most: Largest value that is allowed; by default 2^42.

    Raises:
        ValueError: If the value is not a whole number, or lies outside the range.
    """

    def received() -> str:
        return f"got {name}={shown(value)}.{_tail(hint)}"

    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        out = operator.index(value)
    except (TypeError, RuntimeError):
        real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
        if not real or value != int(value):
            raise ValueError(f"`{name}` must be a whole number; {received()}") from None
        out = int(value)
    if out < least:
        raise ValueError(f"`{name}` must be at least {least}; {received()}")
    if out > most:
        raise ValueError(
            f"`{name}` must be at most {_power(most)}; got {name}={shown(value)}.{_tail(hint) if most != LARGEST else ''}"
        )
    return out


def named_numbers(parameters: Mapping[str, float] | None) -> dict[str, float]:
    """Return the named numbers as a new dict of finite floats, in the order given; empty for None, ValueError for other values."""
    if not isinstance(parameters, (Mapping, type(None))):
        raise ValueError(f"`parameters` must be a dict of numbers by name; got {shown(parameters)}. Write {{'a': 1.0}}.")
    return {name: number(f"parameters[{name!r}]", value) for name, value in dict(parameters or {}).items()}


def several(name: str, value: Any, hint: str = "") -> list[Any]:
    """Return the entries of a list, tuple or one-dimensional array as a list; ValueError for one number, text, None or more axes.

    `name` is the name of the checked argument, and `hint` the last sentence of the error message.
    """
    if isinstance(value, (str, bytes, dict, set)) or np.ndim(value) != 1:
        raise ValueError(f"`{name}` must be a list; got {name}={shown(value)}.{_tail(hint)}")
    return list(value)


def flag(name: str, value: Any) -> bool:
    """Return True or False as it is; ValueError for everything else, such as "yes", 1 and None. `name` is its name in the message."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False; got {name}={shown(value)}.")
    return bool(value)


def function(name: str, value: Any, arguments: Sequence[str] = ("x",), hint: str = "") -> Callable[..., Any]:
    """Return a function that can be called with given arguments as it is, or raise a ValueError; it is not called.

    Args:
        name: Name of the checked argument, for the message.
        value: A function, or any other object that can be called. One whose signature is unknown is accepted.
        arguments: The names of its positional arguments.
        hint: Last sentence of the message, a remedy; empty for none.

    Raises:
        ValueError: If the value cannot be called, or takes other arguments.

    Example:
        >>> from sdetools._check import function
        >>> function("make", lambda dt: dt, ["dt"])(0.5)
        0.5
    """
    if not callable(value):
        raise ValueError(f"`{name}` must be a function of {', '.join(arguments)}; got {shown(value)}.{_tail(hint)}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return value
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ValueError(
            f"`{name}` must be a function of {', '.join(arguments)}; got one with the arguments {signature}.{_tail(hint)}"
        ) from None
    return value


def path(name: str, value: Any) -> Path:
    """Return the path of a file or folder, given as text or as a `Path`; ValueError for anything else. `name` is its name in the message."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError(f"`{name}` must be the path of a file, a text or a pathlib.Path; got {shown(value)}.")
    return Path(value)


def _power(n: int) -> str:
    """Return a positive integer as text for a message: "4,096", but "2**42" and "2**64 - 1" from 2**32 on."""
    bits = n.bit_length()
    if n < 1 << 32:
        return f"{n:,}"
    return f"2**{bits - 1}" if n == 1 << (bits - 1) else f"2**{bits} - 1" if n == (1 << bits) - 1 else f"{n:,}"


def finite(name: str, value: Any, hint: str = "") -> np.ndarray:
    """Return a value as an array of finite doubles, of the shape of the value.

    The array is not a copy if the value already is an array of doubles.

    Args:
        name: Name of the checked argument, for the message.
        value: A number, list, array, tensor or data frame of real numbers.
        hint: Last sentence of the message, a remedy; empty for none.

    Raises:
        ValueError: For text, dates, complex numbers, masked entries, NaN and infinity, and for a tensor that requires a gradient or lies on a
            device. NumPy would silently drop the mask or the imaginary part.
    """
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise ValueError(f"`{name}` must contain numbers only; got masked entries. Fill them by .filled(...).{_tail(hint)}")

    def message() -> str:
        return f"`{name}` must be an array of real numbers; got {shown(value)}."

    try:
        raw = np.asarray(value)
        has_text = raw.dtype == object and any(v is None or isinstance(v, (str, bytes)) for v in raw.ravel().tolist())
        if has_text or raw.dtype.kind not in "biufO":
            raise ValueError(message() + _tail(hint))
        with np.errstate(over="ignore"):
            out = raw.astype(float, copy=False)
    except (TypeError, OverflowError, RuntimeError):
        entries = [value, *value] if isinstance(value, (list, tuple)) else [value]
        if any(hasattr(v, "detach") for v in entries):  # torch tensors
            hint = f"Detach a tensor first: .detach().cpu().double(). {hint}".strip()
        raise ValueError(message() + _tail(hint)) from None
    except ValueError:
        raise ValueError(message() + _tail(hint)) from None
    if not np.all(np.isfinite(out)):
        raise ValueError(f"`{name}` must contain finite numbers only; got a NaN or an infinity.{_tail(hint)}")
    return out


def coordinates(name: str, value: Any) -> np.ndarray:
    """Return numbers as an array of finite doubles, of the shape of the value; unlike `finite`, it refuses True and False, also among other entries.

    Args:
        name: Name of the checked argument, for the message.
        value: A number, list, array, tensor or data frame of real numbers.

    Raises:
        ValueError: If an entry is True or False, no real number (such as text), masked, NaN or infinite, or in a tensor with a gradient or on a
            device.

    Example:
        >>> from sdetools._check import coordinates
        >>> coordinates("x0", [True, 0.5])
        Traceback (most recent call last):
        ...
        ValueError: `x0` must be an array of real numbers; got [True, 0.5]. Write 1.0 and 0.0 for True and False.
    """
    out = finite(name, value)
    entries = value if isinstance(value, (list, tuple)) else [value]
    if any(np.asarray(entry).dtype.kind == "b" for entry in entries):
        raise ValueError(f"`{name}` must be an array of real numbers; got {shown(value)}. Write 1.0 and 0.0 for True and False.")
    return out


def point(name: str, value: Any, dim: int, names: Sequence[str] = ()) -> np.ndarray:
    """Return a point as an array of finite doubles `(dim,)`; ValueError for another shape or other entries, whose message has `name` and `names`.

    `name` is the argument's name, `names` are those of the `dim` coordinates, where they are not those of a loss.
    """
    out = coordinates(name, value)
    if out.shape != (dim,):
        raise ValueError(
            f"`{name}` must have shape ({dim},), one number per coordinate; got shape {out.shape}. "
            + (
                f"The coordinates are {', '.join(names)}."
                if names
                else f"The loss has {dim} coordinate{'s' if dim != 1 else ''}."
            )
        )
    return out


def covariance(name: str, value: Any, dim: int | None = None) -> np.ndarray:
    """Return a symmetric positive semidefinite matrix as an array `(dim, dim)`, or raise a ValueError.

    Args:
        name: Name of the checked argument, for the message.
        value: The matrix C, or a vector `(dim,)` that is taken as its diagonal.
        dim: Number of rows that C must have; None for any number.

    Raises:
        ValueError: If an entry is not finite, the shape is wrong, an asymmetry |C_ij - C_ji| exceeds 1e-12 max |C_ij|, or an eigenvalue lies
            below -1e-12 dim max |C_ij|.
    """
    out = finite(name, value)
    if out.ndim == 1:
        out = np.diag(out)
    if out.ndim != 2 or out.shape[0] != out.shape[1] or (dim is not None and len(out) != dim):
        want = f"({dim}, {dim})" if dim is not None else "(dim, dim)"
        raise ValueError(
            f"`{name}` must be a covariance matrix of shape {want}; got shape {np.shape(value)}. "
            "A vector is taken as its diagonal."
        )
    scale = max(float(np.abs(out).max(initial=0.0)), np.finfo(float).tiny)
    if np.abs(out - out.T).max(initial=0.0) > 1e-12 * scale:
        raise ValueError(f"`{name}` must be symmetric; its largest asymmetry is {np.abs(out - out.T).max():.3g}.")
    low = float(np.linalg.eigvalsh(out)[0]) if len(out) else 0.0
    if low < -1e-12 * scale * len(out):
        raise ValueError(
            f"`{name}` must be positive semidefinite; its smallest eigenvalue is {low:.3g}. "
            "Check the sign of its off-diagonal entries."
        )
    return out


def _tail(hint: str) -> str:
    return f" {hint}" if hint else ""
