"""The parser of expressions: from text to SymPy by Python's `ast` and a whitelist. No text is ever executed."""

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

from sdetools._check import suggestion
from sdetools.losses.grammar import CONSTANTS, DOMAINS, ELSEWHERE, FUNCTIONS, MOST_FACTORS, NAMED, RELATIONS, RESERVED
from sdetools.losses.kinks import Choice, Domain, NotNegative, Positive, tidy

LONGEST, DEEPEST, LARGEST_EXPONENT = 10_000, 50, 1000
REAL_ONLY = (sp.I, sp.zoo, sp.nan, sp.oo, -sp.oo)


def symbol(name: str) -> sp.Symbol:
    """Return the SymPy symbol of a coordinate or parameter called `name`, which is assumed to be real; equal names give equal symbols."""
    return sp.Symbol(name, real=True)


def parse(
    text: str,
    names: Iterable[str] | str,
    parameters: Mapping[str, float] | Iterable[str] = (),
    argument: str = "text",
    hint: str = "Give a constant by parameters={...}.",
) -> sp.Expr:
    """Return the SymPy expression of a formula given as text.

    The grammar has numbers, names, `+ - * / **`, the functions exp log sqrt sin cos tan sinh cosh tanh atan erf abs sign floor ceiling min max,
    and the constants `pi` and `e`. Where a root, a logarithm or a power with a non-integer exponent is not real, the formula and its
    derivatives are NaN, even if terms cancel (see `Domain`).

    A condition is a comparison (`x > 1`, `0 < x <= 1`, `x == y`), or several joined by `and`, `or`, `not` (or `&`, `|`, `~`). As a number it
    is 1 where it holds and 0 elsewhere, also at NaN, as in NumPy. `Piecewise((x, x > 0), (0, True))` and `x if x > 0 else 0` choose between
    formulas, and `Heaviside(x)` is 0, 1/2 or 1, as in SymPy; `Heaviside(x, 1)` is 1 at 0. Derivatives leave out jumps.

    Args:
        text: The formula, at most 10,000 characters.
        names: Names of the coordinates, "x y" or a list.
        parameters: Names of the constants, or a mapping of names to values. With values, a constant in an exponent becomes a number (the
            derivatives of x**a depend on a); all others remain symbols.
        argument: The name of the caller's argument that contained the text, for messages.
        hint: The remedy for a name that is unknown, for messages.

    Returns:
        The expression, with real symbols for the names.

    Raises:
        ValueError: If the text is not such a formula; the message quotes the part that is not.

    Example:
        >>> parse("(x*y - 1)**2 / 2", "x y")
        (x*y - 1)**2/2
        >>> parse("2*(x > 1) + (x > 1)", "x")
        3*(x > 1)
        >>> parse("x.real", "x")
        Traceback (most recent call last):
        ...
        ValueError: `text` must be a formula of numbers, names, + - * / ** and calls such as exp(x); got the piece `x.real`.
    """
    values = tuple(parameters.items()) if isinstance(parameters, Mapping) else tuple((name, None) for name in parameters)
    try:
        return _parse(_text(text), identifiers("names", names), values, hint)
    except ValueError as error:
        if argument == "text" or not str(error).startswith("`text`"):
            raise
        raise ValueError(f"`{argument}`{str(error).removeprefix('`text`')}") from None


@lru_cache(maxsize=4096)
def _parse(text: str, names: tuple[str, ...], parameters: tuple[tuple[str, float | None], ...], hint: str) -> sp.Expr:
    """Return the SymPy expression of validated text, parsed once for each formula; `parameters` are pairs (name, value or None)."""
    identifiers("names", (*names, *(name for name, _ in parameters)))
    try:
        return _Parser(text, names, dict(parameters), hint).parse()
    except RecursionError:
        raise ValueError(f"`text` must not be nested so deeply; got {_quote(text)}. Split it into a sum.") from None


def identifiers(what: str, names: Iterable[str] | str) -> tuple[str, ...]:
    """Return names, given as a list or as one text such as "x y", as a tuple; ValueError unless they are different identifiers.

    Python's keywords and the functions and constants of formulas (exp, pi) are not allowed. `what` names the argument in the message.
    """
    if not isinstance(names, Iterable):
        raise ValueError(f"`{what}` must be names, 'x y' or a list; got {names!r}.")
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
    """Return the set of the names in the formula `text` that are neither functions nor constants of formulas; ValueError if it cannot be parsed."""
    return {node.id for node in ast.walk(_tree(_text(text))) if isinstance(node, ast.Name)} - RESERVED


def _text(text: Any) -> str:
    """Return a formula without spaces at its ends; ValueError unless it is a string of at most 10,000 characters."""
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a formula in quotes, such as 'x**2 / 2'; got {text!r}.")
    if len(text) > LONGEST:
        raise ValueError(f"`text` must have at most {LONGEST} characters; got {len(text)}. Use from_function for a long formula.")
    return text.strip()


def _tree(text: str) -> ast.expr:
    """Parse text to Python's syntax tree; ValueError with the reason if it is not an expression."""
    reason = "it is nested too deeply, or has a number that is too long"
    try:
        if "#" in text:
            raise SyntaxError("comments are not allowed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        if isinstance(error, SyntaxError) and len(error.msg) < 100:
            reason = error.msg
        raise ValueError(f"`text` must be a formula such as 'x**2 / 2'; got {_quote(text)}: {reason}.") from None


def _quote(piece: str) -> str:
    """Return a piece of text in backticks for a message, on one line and cut to 60 characters."""
    piece = " ".join(piece.split())
    return f"`{piece if len(piece) <= 60 else piece[:57] + '...'}`"


Parsed = tuple[sp.Expr, Any]  # an expression and its float, None if it is not a number


class _Parser:
    """A walk over Python's syntax tree of a formula, which returns a pair for each node: its SymPy expression, and its float if it is a number.

    The float is computed first, so that 9**9**9, which SymPy would try to evaluate exactly, is rejected before SymPy sees it; it is None for a
    node that is not a number. Of the arguments, `parameters` maps names to values, None for constants that stay symbols in exponents too,
    and `hint` is the remedy for an unknown name. A domain condition is a term that is 0 where a root or logarithm is real, else NaN.
    """

    def __init__(self, text: str, names: tuple[str, ...], parameters: dict[str, float | None], hint: str) -> None:
        self.text, self.names, self.hint = text, names, hint
        self.known = {name: symbol(name) for name in (*names, *parameters)}
        self.domains: dict[Domain, None] = {}
        self.folded = {symbol(name): number(value) for name, value in parameters.items() if value is not None}

    def parse(self) -> sp.Expr:
        """Return the SymPy expression of the whole formula, plus its domain conditions."""
        return self.whole(_tree(self.text), 0)[0]

    def whole(self, node: ast.expr, depth: int) -> Parsed:
        """Return the pair of a node as `visit` does, with the domain conditions of the node itself added, which hold nowhere else."""
        outside, self.domains = self.domains, {}
        expr, value = self.visit(node, depth)
        domains, self.domains = self.domains, outside
        return sp.Add(expr, *(d for d in domains if d != 0)), value

    def within(self, domain: type[Domain], u: sp.Expr) -> None:
        """Record the condition that the expression `u` lies in `domain` (`Positive` or `NotNegative`); a number u has been checked already."""
        if not u.is_number:
            self.domains[domain(u)] = None

    def piece(self, node: ast.AST) -> str:
        """Return the text of a node of the syntax tree in backticks for a message, at most 60 characters; that of the formula if it has none."""
        return _quote(ast.get_source_segment(self.text, node) or self.text)

    def visit(self, node: ast.expr, depth: int) -> Parsed:
        """Return the pair (SymPy expression, float or None) of a node at nesting `depth`; ValueError outside the grammar or deeper than 50."""
        if depth > DEEPEST:
            raise ValueError(f"`text` must be nested at most {DEEPEST} deep; got {_quote(self.text)}. Expand it, or split it.")
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.checked(node, lambda: number(value), lambda: float(value))
            case ast.Name(id=name) if name in self.known:
                return self.known[name], None
            case ast.Name(id=name) if name in CONSTANTS:
                return CONSTANTS[name], float(CONSTANTS[name])
            case ast.Name(id=name):
                hint = f"Call it, as in {name}(x)." if name in FUNCTIONS else suggestion(name, self.known, self.hint)
                names, whole = (
                    ", ".join(map(str, self.known)) or "(none given)",
                    "" if name == self.text else f" in {_quote(self.text)}",
                )
                raise ValueError(f"`text` must use only the names {names}; got `{name}`{whole}. {hint}")
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
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp() | ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                return self.condition(node, depth)
            case ast.IfExp(test=test, body=body, orelse=other):
                return self.choice(
                    node, self.condition(test, depth + 1), self.whole(body, depth + 1), self.whole(other, depth + 1)
                )
            case ast.Call(func=ast.Name(id="Piecewise"), args=args, keywords=[]):
                return self.piecewise(node, args, depth)
            case ast.Call(func=ast.Attribute(attr=name)):
                raise ValueError(
                    f"`text` must name functions alone, without a module; got {self.piece(node)}. Write {name}(...)."
                )
            case ast.Call(func=ast.Name(id=name)) if name not in FUNCTIONS:
                listed = suggestion(name, NAMED, f"The functions are {', '.join(NAMED)}.")
                near = f"Write {ELSEWHERE[name]}." if name in ELSEWHERE else listed
                raise ValueError(f"`text` must call only functions of formulas; got {self.piece(node)}. {near}")
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                least, most, function, of_float = FUNCTIONS[name]
                if not least <= len(args) <= most or any(isinstance(a, ast.Starred) for a in args):
                    count = f"{least}" if least == most else f"{least} to {most}"
                    raise ValueError(
                        f"`text` must call `{name}` with {count} argument{'s' * (most > 1)}; got {self.piece(node)}."
                    )
                exprs, values = zip(*(self.visit(a, depth + 1) for a in args), strict=True)
                if name in DOMAINS:
                    self.within(DOMAINS[name], exprs[0])
                return self.checked(node, lambda: function(*exprs), lambda: of_float(*values), *values)
        raise ValueError(
            f"`text` must be a formula of numbers, names, + - * / ** and calls such as exp(x); got the piece {self.piece(node)}."
        )

    def condition(self, node: ast.expr, depth: int) -> Parsed:
        """Return the pair of a condition at nesting `depth`, whose value is 1 where it holds and 0 elsewhere; ValueError if it is a number."""
        if depth > DEEPEST:
            raise ValueError(f"`text` must be nested at most {DEEPEST} deep; got {_quote(self.text)}. Expand it, or split it.")
        match node:
            case ast.Constant(value=bool() as value):
                return sp.Integer(value), float(value)
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in RELATIONS for op in ops):
                sides = [self.whole(side, depth + 1) for side in (left, *rights)]
                parts = []
                for op, (u, a), (v, b) in zip(ops, sides, sides[1:], strict=False):
                    relation, of_float = RELATIONS[type(op)]
                    values = () if a is None or b is None else (a, b)
                    parts.append((relation(u, v), float(of_float(a, b)) if values else None))
                return _all(parts)
            case ast.BoolOp(op=op, values=nodes):
                return self.joined(isinstance(op, ast.Or), nodes, depth)
            case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() as op, right=right):
                return self.joined(isinstance(op, ast.BitOr), [left, right], depth)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return _negated(self.condition(operand, depth + 1))
        raise ValueError(
            f"`text` must have conditions of comparisons, such as (x > 0) & (x < 1) in parentheses; got the piece {self.piece(node)}."
        )

    def joined(self, either: bool, nodes: list[ast.expr], depth: int) -> Parsed:
        """Return the pair of the condition that all conditions `nodes` hold, or if `either` that at least one of them holds."""
        parts = [self.condition(node, depth + 1) for node in nodes]
        return _negated(_all(_negated(part) for part in parts)) if either else _all(parts)

    def choice(self, node: ast.expr, condition: Parsed, yes: Parsed, no: Parsed) -> Parsed:
        """Return the pair of a choice between two pairs: `yes` where the condition holds, else `no`; `node` is its piece of the formula."""
        chosen = None if condition[1] is None else yes if condition[1] else no
        expr = Choice(condition[0], yes[0], no[0])
        return chosen if chosen is not None else self.checked(node, lambda: expr, lambda: None, None)

    def piecewise(self, node: ast.expr, args: list[ast.expr], depth: int) -> Parsed:
        """Return the pair of `Piecewise((value, condition), ..., (value, True))`: the value of the first condition that holds."""
        cases = [a.elts for a in args if isinstance(a, ast.Tuple) and len(a.elts) == 2]
        if len(cases) < len(args) or not cases or not (isinstance(cases[-1][1], ast.Constant) and cases[-1][1].value is True):
            raise ValueError(
                f"`text` must write pieces as Piecewise((x, x > 0), (0, True)), the last with True; got {self.piece(node)}."
            )
        if len(cases) > DEEPEST:
            raise ValueError(f"`text` must have at most {DEEPEST} pieces in a Piecewise; got {len(cases)}.")
        out = self.whole(cases[-1][0], depth + 1)
        for value, condition in reversed(cases[:-1]):
            out = self.choice(node, self.condition(condition, depth + 1), self.whole(value, depth + 1), out)
        return out

    def spine(self, node: ast.expr, kinds: tuple[type, ...]) -> list[tuple[ast.expr, type]]:
        """Return a chain of operators of `kinds` as a list (operand, operator): `a - b + c` as [(a, Add), (b, Sub), (c, Add)].

        The first operand has the first of `kinds`. A long sum therefore does not count as deeply nested.
        """
        out = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, kinds):
            out.append((node.right, type(node.op)))
            node = node.left
        return [(node, kinds[0]), *reversed(out)]

    def sum(self, node: ast.expr, depth: int) -> Parsed:
        """Return the pair (SymPy expression, float or None) of a chain of additions and subtractions at nesting `depth`."""
        terms = [(self.visit(term, depth + 1), kind) for term, kind in self.spine(node, (ast.Add, ast.Sub))]
        exprs = [expr if kind is ast.Add else -expr for (expr, _), kind in terms]
        values: list[Any] = [value if kind is ast.Add or value is None else -value for (_, value), kind in terms]
        return self.checked(node, lambda: sp.Add(*exprs), lambda: math.fsum(values), *values)

    def product(self, node: ast.expr, depth: int) -> Parsed:
        """Return the pair (expression, float or None) of a chain of products and quotients at nesting `depth`; ValueError if it divides by 0."""
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
        """Return the pair (expression, float or None) of a power from those of base and exponent; ValueError for one of size above 1000."""
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
        """Return the pair (expression, float) of a node, the float None unless all its operands are numbers.

        The expression is `build()`, the float `evaluate()`, and `values` are the floats of the operands. ValueError if it is not finite and
        real.
        """
        value: Any = None
        if None not in values:
            try:
                value = evaluate()
            except (ArithmeticError, ValueError):
                value = math.nan
            self.require(not isinstance(value, complex) and math.isfinite(value), node)
        expr = tidy(build())
        self.require(_real(expr), node)
        if value is None and not expr.free_symbols:  # the names cancelled, as in x - x + 9
            value = to_float(expr)
            self.require(math.isfinite(value), node)
        if expr.is_Rational and max(abs(expr.p), expr.q).bit_length() > 1024:
            expr = number(value)
        return expr, value

    def require(self, valid: bool, node: ast.expr) -> None:
        """Raise ValueError with the text of `node`, that it is not a finite real number, unless `valid`."""
        if not valid:
            raise ValueError(f"`text` must have finite real numbers; got {self.piece(node)}, which is not one.")


def _all(conditions: Iterable[Parsed]) -> Parsed:
    """Return the pair (SymPy expression, float or None) of the condition that several conditions, given as pairs, all hold."""
    exprs, values = zip(*conditions, strict=True)
    return sp.Mul(*exprs), None if None in values else math.prod(values)


def _negated(condition: Parsed) -> Parsed:
    """Return the pair of the condition that another one, a pair, does not hold."""
    expr, value = condition
    return 1 - expr, None if value is None else 1 - value


def number(value: float) -> sp.Expr:
    """Return a float as a SymPy number: exact for an integer below 2**53 and for a multiple of 1/64 below 2**40, else a SymPy float."""
    value = value if isinstance(value, int) else float(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 2**53):
        return sp.Integer(int(value))
    return sp.Rational(value) if (64 * value).is_integer() and abs(value) < 2**40 else sp.Float(value)


def _real(expr: sp.Expr) -> bool:
    """Return whether a SymPy expression has a finite coefficient and no complex or infinite constant."""
    coefficient = expr.as_coeff_Mul()[0]
    size = to_float(coefficient)
    return math.isfinite(size) and (size != 0 or coefficient == 0) and not expr.has(*REAL_ONLY)


def to_float(expr: sp.Expr) -> float:
    """Return a SymPy number as a float, correctly rounded; NaN if it is too large or not real."""
    try:
        return float(expr) if expr.is_Rational or expr.is_Float else float(sp.N(expr, 20))
    except (OverflowError, TypeError):
        return math.nan
