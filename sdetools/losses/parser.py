"""Reading expressions: text through Python's `ast` and a whitelist to SymPy. No text is ever executed."""

from __future__ import annotations

import ast
import keyword
import math
import operator
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import sympy as sp

LONGEST, DEEPEST, MOST_FACTORS, LARGEST_EXPONENT = 10_000, 50, 100, 1000
REAL_ONLY = (sp.I, sp.zoo, sp.nan, sp.oo, -sp.oo)


class Magnitude(sp.Function):
    """|u| on the real line; its derivative sign(u) is 0 at 0, and there are no delta functions after that."""

    is_real = is_nonnegative = True

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        if u.is_nonnegative:
            return u
        return sp.Abs(u) if u.is_number else None

    def _eval_power(self, exponent: sp.Expr) -> sp.Expr | None:
        return self.args[0] ** exponent if exponent.is_even else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return Signum(self.args[0])

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\left|{{{printer._print(self.args[0])}}}\right|" + (f"^{{{exp}}}" if exp else "")


class Signum(sp.Function):
    """sign(u), 0 at 0, with derivative 0."""

    is_real = True

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.sign(u) if u.is_number else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\operatorname{{sign}}{f'^{{{exp}}}' if exp else ''}\left({printer._print(self.args[0])}\right)"


class Larger(sp.Function):
    """max(u, v); at a tie its derivative is the mean of both sides."""

    is_real = True

    @classmethod
    def eval(cls, u: sp.Expr, v: sp.Expr) -> sp.Expr | None:
        return sp.Max(u, v) if u.is_number and v.is_number else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        side = Signum(self.args[0] - self.args[1])
        return (1 + side) / 2 if argindex == 1 else (1 - side) / 2

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        inner = ", ".join(printer._print(a) for a in self.args)
        return rf"\max{f'^{{{exp}}}' if exp else ''}\left({inner}\right)"


class Domain(sp.Function):
    """0 where u lies in a domain, NaN elsewhere, in all derivatives along which u changes: what is left when SymPy simplifies a domain away.

    A formula is the sum of its expression and of one such term for each root, logarithm and power whose base may leave its domain. So
    sqrt(x)**2 is x and exp(log(x)) is x where they are defined alone, and d log u = u'/u where u > 0 alone.
    """

    is_real = True

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        return self if s in self.args[0].free_symbols else sp.S.Zero


class Positive(Domain):
    """Domain u > 0: logarithms, negative powers."""

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.S.Zero if u.is_positive else None


class NotNegative(Domain):
    """Domain u >= 0: roots, powers that are not whole."""

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.S.Zero if u.is_nonnegative else None


# text -> (number of arguments, SymPy function, function of floats)
FUNCTIONS: dict[str, tuple[int, Callable, Callable]] = {
    "exp": (1, sp.exp, math.exp),
    "log": (1, sp.log, math.log),
    "sqrt": (1, sp.sqrt, math.sqrt),
    "sin": (1, sp.sin, math.sin),
    "cos": (1, sp.cos, math.cos),
    "tan": (1, sp.tan, math.tan),
    "sinh": (1, sp.sinh, math.sinh),
    "cosh": (1, sp.cosh, math.cosh),
    "tanh": (1, sp.tanh, math.tanh),
    "atan": (1, sp.atan, math.atan),
    "abs": (1, Magnitude, abs),
    "sign": (1, Signum, lambda u: float((u > 0) - (u < 0))),
    "max": (2, Larger, max),
    "min": (2, lambda u, v: -Larger(-u, -v), min),
}
DOMAINS: dict[str, type[Domain]] = {"log": Positive, "sqrt": NotNegative}
CONSTANTS: dict[str, sp.Expr] = {"pi": sp.pi, "e": sp.E}
RESERVED = frozenset(FUNCTIONS) | frozenset(CONSTANTS)


def symbol(name: str) -> sp.Symbol:
    """The SymPy symbol that stands for a coordinate or a parameter."""
    return sp.Symbol(name, real=True)


def parse(text: str, names: Iterable[str] | str, parameters: Mapping[str, float] | Iterable[str] = ()) -> sp.Expr:
    """The SymPy expression of a text in the coordinates `names` and the `parameters`.

    Known are numbers, names, `+ - * / **`, the functions exp log sqrt sin cos tan sinh cosh tanh atan abs sign min max, `pi` and
    `e`. Anything else is a ValueError that quotes the piece. Where `parameters` has values, one that stands in an exponent is put
    in as a number (x**a needs to know a); the others stay symbols. Where a root, a logarithm or a power that is not whole leaves the real
    line, the formula and its derivatives are NaN, whatever could be cancelled (see `Domain`).

    >>> parse("(x*y - 1)**2 / 2", "x y")
    (x*y - 1)**2/2
    >>> parse("x.real", "x")
    Traceback (most recent call last):
    ...
    ValueError: `text` must be a formula of numbers, names, + - * / ** and calls such as exp(x); got the piece `x.real`.
    """
    values = tuple(parameters.items()) if isinstance(parameters, Mapping) else tuple((name, None) for name in parameters)
    return _parse(_text(text), identifiers("names", names), values)


@lru_cache(maxsize=4096)
def _parse(text: str, names: tuple[str, ...], parameters: tuple[tuple[str, float | None], ...]) -> sp.Expr:
    identifiers("names", (*names, *(name for name, _ in parameters)))
    try:
        return _Reader(text, names, dict(parameters)).read()
    except RecursionError:
        raise ValueError(f"`text` must not be nested so deeply; got {_quote(text)}. Split it into a sum.") from None


def identifiers(what: str, names: Iterable[str] | str) -> tuple[str, ...]:
    """Different names, from a list or from text such as "x y", none of them reserved."""
    out = tuple(names.replace(",", " ").split() if isinstance(names, str) else names)
    for name in out:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name in RESERVED:
            why = " (a function or constant of expressions)" if name in RESERVED else ""
            raise ValueError(f"`{what}` must be identifiers; got {name!r}{why}. Choose another name, such as x or w_1.")
    out = tuple(unicodedata.normalize("NFKC", name) for name in out)  # as Python's parser does
    if len(set(out)) != len(out):
        raise ValueError(f"`{what}` must all differ; got {' '.join(out)}.")
    return out


def free_names(text: str) -> set[str]:
    """The names in a text that are neither functions nor constants."""
    return {node.id for node in ast.walk(_tree(_text(text))) if isinstance(node, ast.Name)} - RESERVED


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a formula in quotes, such as 'x**2 / 2'; got {text!r}.")
    if len(text) > LONGEST:
        raise ValueError(f"`text` must have at most {LONGEST} characters; got {len(text)}. Use from_function for a long formula.")
    return text.strip()


def _tree(text: str) -> ast.expr:
    reason = "it is nested too deeply, or holds a number that is too long"
    try:
        if "#" in text:
            raise SyntaxError("comments have no place in it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        if isinstance(error, SyntaxError) and len(error.msg) < 100:
            reason = error.msg
        raise ValueError(f"`text` must be a formula such as 'x**2 / 2'; got {_quote(text)}: {reason}.") from None


def _quote(piece: str) -> str:
    piece = " ".join(piece.split())
    return f"`{piece if len(piece) <= 60 else piece[:57] + '...'}`"


Parsed = tuple[sp.Expr, Any]  # an expression and its float, None if it is not a number


class _Reader:
    """One walk over the tree. Every node gives its expression and, if it is a number, its float, which is computed first: so what
    SymPy would evaluate exactly and without end (9**9**9) is refused before SymPy sees it."""

    def __init__(self, text: str, names: tuple[str, ...], parameters: dict[str, float | None]) -> None:
        self.text, self.names = text, names
        self.known = {name: symbol(name) for name in (*names, *parameters)}
        self.domains: dict[Domain, None] = {}
        self.folded = {symbol(name): number(value) for name, value in parameters.items() if value is not None}

    def read(self) -> sp.Expr:
        expr = self.visit(_tree(self.text), 0)[0]
        return sp.Add(expr, *(d for d in self.domains if d != 0))

    def within(self, domain: type[Domain], u: sp.Expr) -> None:
        """Notes that the formula needs u to lie in a domain; a number was seen to."""
        if not u.is_number:
            self.domains[domain(u)] = None

    def piece(self, node: ast.AST) -> str:
        return _quote(ast.get_source_segment(self.text, node) or self.text)

    def visit(self, node: ast.expr, depth: int) -> Parsed:
        if depth > DEEPEST:
            raise ValueError(
                f"`text` must be nested at most {DEEPEST} deep; got {_quote(self.text)}. Multiply it out or split it."
            )
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.checked(node, lambda: number(value), lambda: float(value))
            case ast.Name(id=name) if name in self.known:
                return self.known[name], None
            case ast.Name(id=name) if name in CONSTANTS:
                return CONSTANTS[name], float(CONSTANTS[name])
            case ast.Name(id=name):
                way_out = f"Call it, as in {name}(x)." if name in FUNCTIONS else "Give a constant by parameters={...}."
                raise ValueError(
                    f"`text` must use only the names {', '.join(map(str, self.known)) or '(none given)'}; got `{name}`. {way_out}"
                )
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                expr, value = self.visit(operand, depth + 1)
                minus = isinstance(sign, ast.USub)
                return (-expr, None if value is None else -value) if minus else (expr, value)
            case ast.BinOp(op=ast.BitXor()):
                raise ValueError(f"`text` must write powers with `**`; got `^` in {self.piece(node)}. Replace ^ by **.")
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self.sum(node, depth)
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                return self.product(node, depth)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self.power(node, self.visit(left, depth + 1), self.visit(right, depth + 1))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                count, function, of_float = FUNCTIONS[name]
                if len(args) != count or any(isinstance(a, ast.Starred) for a in args):
                    raise ValueError(f"`{name}` must be called with {count} argument{'s' * (count > 1)}; got {self.piece(node)}.")
                exprs, values = zip(*(self.visit(a, depth + 1) for a in args), strict=True)
                if name in DOMAINS:
                    self.within(DOMAINS[name], exprs[0])
                return self.checked(node, lambda: function(*exprs), lambda: of_float(*values), *values)
        raise ValueError(
            f"`text` must be a formula of numbers, names, + - * / ** and calls such as exp(x); got the piece {self.piece(node)}."
        )

    def spine(self, node: ast.expr, kinds: tuple[type, ...]) -> list[tuple[ast.expr, type]]:
        """`a - b + c` as [(a, Add), (b, Sub), (c, Add)]: a long sum is not a deep one."""
        out = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, kinds):
            out.append((node.right, type(node.op)))
            node = node.left
        return [(node, kinds[0]), *reversed(out)]

    def sum(self, node: ast.expr, depth: int) -> Parsed:
        terms = [(self.visit(term, depth + 1), kind) for term, kind in self.spine(node, (ast.Add, ast.Sub))]
        exprs = [expr if kind is ast.Add else -expr for (expr, _), kind in terms]
        values: list[Any] = [value if kind is ast.Add or value is None else -value for (_, value), kind in terms]
        return self.checked(node, lambda: sp.Add(*exprs), lambda: math.fsum(values), *values)

    def product(self, node: ast.expr, depth: int) -> Parsed:
        total: Parsed = sp.S.One, 1.0
        factors = self.spine(node, (ast.Mult, ast.Div))
        if len(factors) > MOST_FACTORS:
            raise ValueError(
                f"`text` must have at most {MOST_FACTORS} factors in a product; got {len(factors)} in {self.piece(node)}."
            )
        for factor, kind in factors:
            (a, u), (b, v) = total, self.visit(factor, depth + 1)
            apply = operator.mul if kind is ast.Mult else operator.truediv
            if b == 0 and kind is ast.Div:
                raise ValueError(f"`text` must not divide by zero; got {self.piece(node)}.")
            total = self.checked(node, partial(apply, a, b), partial(apply, u, v), u, v)
        return total

    def power(self, node: ast.expr, base: Parsed, exponent: Parsed) -> Parsed:
        (a, u), (b, v) = base, exponent
        if b.free_symbols and b.free_symbols <= self.folded.keys():
            v = to_float(b.subs(self.folded))
            b = number(v) if math.isfinite(v) else b
        if v is not None and not abs(v) <= LARGEST_EXPONENT:
            raise ValueError(f"`text` must have exponents of size at most {LARGEST_EXPONENT}; got {self.piece(node)}.")
        self.require(u is None or u >= 0 or v is not None, node)  # (-2)**x
        if not b.is_integer:
            self.within(Positive if b.is_negative else NotNegative, a)
        exact = b.is_Rational and max(abs(b.p), b.q) <= 64
        return self.checked(node, lambda: a**b if u is None or v is None or exact else number(u**v), lambda: u**v, u, v)

    def checked(self, node: ast.expr, build: Callable[[], sp.Expr], evaluate: Callable[[], Any], *values: Any) -> Parsed:
        """The expression and, if all its parts are numbers, its float; only finite real numbers pass."""
        value: Any = None
        if None not in values:
            try:
                value = evaluate()
            except (ArithmeticError, ValueError):
                value = math.nan
            self.require(not isinstance(value, complex) and math.isfinite(value), node)
        expr = tidy(build())
        self.require(_real(expr), node)
        if value is None and not expr.free_symbols:  # the names cancelled: x - x + 9 is a number too
            value = to_float(expr)
            self.require(math.isfinite(value), node)
        if expr.is_Rational and max(abs(expr.p), expr.q).bit_length() > 1024:
            expr = number(value)
        return expr, value

    def require(self, right: bool, node: ast.expr) -> None:
        if not right:
            raise ValueError(f"`text` must keep to finite real numbers; got {self.piece(node)}, which does not.")


def number(value: float) -> sp.Expr:
    """A float as SymPy should carry it: exactly where it is a small fraction (1.0, 0.5), else as a float."""
    value = value if isinstance(value, int) else float(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 2**53):
        return sp.Integer(int(value))
    return sp.Rational(value) if (64 * value).is_integer() and abs(value) < 2**40 else sp.Float(value)


def tidy(expr: sp.Expr) -> sp.Expr:
    """SymPy's own Abs and sign (from sqrt(x**2), say) as ours, whose derivatives are functions."""
    return expr.replace(sp.Abs, Magnitude).replace(sp.sign, Signum) if expr.has(sp.Abs, sp.sign) else expr


def _real(expr: sp.Expr) -> bool:
    coefficient = expr.as_coeff_Mul()[0]
    size = to_float(coefficient)
    return math.isfinite(size) and (size != 0 or coefficient == 0) and not expr.has(*REAL_ONLY)


def to_float(expr: sp.Expr) -> float:
    """The number as a float, correctly rounded; NaN if it is too large or not real."""
    try:
        return float(expr) if expr.is_Rational or expr.is_Float else float(sp.N(expr, 20))
    except (OverflowError, TypeError):
        return math.nan
