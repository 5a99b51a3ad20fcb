"""Losses given by expressions: exact values, kinks, adversarial text, symbols, caching, pickling."""

import math
import os
import pickle
import time
import warnings
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sdetools.losses import from_expression
from sdetools.losses.expression import compile, derivatives, latex, parse

pytestmark = pytest.mark.filterwarnings("error")


class Sym:
    """A stand-in for a traced value: it contains a float and cannot be converted to one."""

    def __init__(self, value):
        self.value = float(value)

    def __bool__(self):
        raise TypeError("a symbol has no truth value")

    def select(self, yes, no):
        """Choose between two values by the truth of this one."""
        return Sym(_v(yes) if self.value else _v(no))


def _v(a):
    return a.value if isinstance(a, Sym) else float(a)


def _binary(name, f):
    setattr(Sym, f"__{name}__", lambda a, b: Sym(f(a.value, _v(b))))
    setattr(Sym, f"__r{name}__", lambda a, b: Sym(f(_v(b), a.value)))


for _name, _f in {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b,
}.items():
    _binary(_name, _f)
for _name, _f in {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}.items():
    setattr(Sym, f"__{_name}__", lambda a, b, f=_f: Sym(f(a.value, _v(b))))
for _name in ["exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "log1p", "expm1"]:
    setattr(Sym, _name, lambda a, f=_name: Sym(getattr(np, f)(a.value)))
Sym.__neg__ = lambda a: Sym(-a.value)
Sym.__abs__ = lambda a: Sym(abs(a.value))


def _power(a, b):
    assert not isinstance(b, Sym), "only constant exponents can be traced"
    return Sym(a.value**b)


Sym.__pow__ = _power


def symbols(x):
    """Return numbers as an object array of symbols."""
    out = np.empty(len(x), dtype=object)
    out[:] = [Sym(v) for v in x]
    return out


def numbers(a):
    """Return symbols as an array of floats."""
    return np.vectorize(_v, otypes=[float])(a)


def test_hyperbola_by_hand():
    """Value and derivatives of (x y - 1)^2 / 2 at one point."""
    loss = from_expression("(x*y - 1)**2 / 2", variables="x y")
    x = np.array([2.0, 1.0])
    assert loss.dim == 2 and loss.names == ("x", "y")
    assert loss.value(x) == 0.5 and np.ndim(loss.value(x)) == 0
    assert loss.gradient(x).tolist() == [1.0, 2.0]
    assert loss.hessian(x).tolist() == [[1.0, 3.0], [3.0, 4.0]]
    third = loss.third(x)  # L_xxy = 2y, L_xyy = 2x
    assert third[0, 0, 0] == 0 and third[0, 0, 1] == 2 and third[0, 1, 1] == 4 and third[1, 1, 1] == 0
    assert all(np.array_equal(third, third.transpose(o)) for o in permutations(range(3)))
    assert loss.third_contracted(x, np.eye(2)).tolist() == [4.0, 2.0]
    assert loss.hessian_product(x, [1.0, -1.0]).tolist() == [-2.0, -1.0]
    assert loss.quadratic() is None


def test_shapes_with_paths():
    """Results on many paths are those of single points, with the paths last; inputs are unchanged."""
    loss = from_expression("x**3 * y + 1", variables="x y")
    x = np.random.default_rng(0).standard_normal((2, 7))
    before = x.copy()
    v, M = x[::-1], np.ones((2, 2))
    for method, shape in ((loss.value, (7,)), (loss.gradient, (2, 7)), (loss.hessian, (2, 2, 7)), (loss.third, (2, 2, 2, 7))):
        many = method(x)
        assert many.shape == shape and many.dtype == float
        for j in range(7):
            np.testing.assert_allclose(many[..., j], method(x[:, j]), rtol=1e-15)
    assert loss.hessian_product(x, v).shape == loss.hessian_product(x, v[:, 0]).shape == (2, 7)
    assert loss.hessian_product(x[:, 0], v).shape == (2, 7)
    assert loss.third_contracted(x, M).shape == loss.third_contracted(x, M[..., None] * x[0]).shape == (2, 7)
    np.testing.assert_array_equal(x, before)


def test_constant_components_are_broadcast_over_paths():
    """Derivatives that do not depend on x have one entry for each path."""
    loss = from_expression("x + 2", variables="x y")
    assert loss.gradient(np.zeros((2, 3))).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert from_expression("3", variables="x").value(np.zeros((1, 2))).tolist() == [3, 3]


def test_results_do_not_alias_the_input():
    """Writing to a gradient does not change the point."""
    loss, x = from_expression("x**2 / 2", "x"), np.ones((1, 2))
    loss.gradient(x)[:] = 5
    assert x.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x0**2 + x1", ("x0", "x1")),
        ("x1 - x0 + x10 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9", tuple(f"x{i}" for i in range(11))),
        ("b*a", ("a", "b")),
        ("theta**2 * pi + e + exp(theta)", ("theta",)),
        ("x**2", ("x",)),
    ],
)
def test_default_names(text, names):
    """Coordinates are x0, x1, ... or all free names in alphabetical order."""
    assert from_expression(text).names == names


@pytest.mark.parametrize("text", ["x0 + x2", "x1**2", "x0 + y", "3 + pi"])
def test_ambiguous_names_are_rejected(text):
    """A gap in x0, x1, ..., a mixture of names, and no name at all need `variables`."""
    with pytest.raises(ValueError, match="variables"):
        from_expression(text)


def test_parameters():
    """Parameters are named numbers that `p` replaces; unused, infinite and ambiguous ones are rejected."""
    loss = from_expression("a*x**2/2 + b*x", variables="x", parameters={"a": 2.0, "b": -1.0})
    assert loss.parameters.tolist() == [2.0, -1.0] and loss.parameter_names == ("a", "b")
    assert loss.gradient([3.0]).tolist() == [5.0]
    assert loss.gradient([3.0], p=[1.0, 0.0]).tolist() == [3.0]
    H, c, level = loss.quadratic()
    assert (H.tolist(), c.tolist(), level) == ([[2.0]], [-1.0], 0.0)
    with pytest.raises(ValueError, match="`p` must contain the 2 parameters"):
        loss.gradient([1.0], p=[1.0])
    with pytest.raises(ValueError, match="got `c`, which does not occur in"):
        from_expression("x**2", variables="x", parameters={"c": 1.0})
    with pytest.raises(ValueError, match="must be a finite number"):
        from_expression("a*x", variables="x", parameters={"a": math.nan})
    with pytest.raises(ValueError, match="must not have the name of a coordinate"):
        from_expression("x**2", variables="x", parameters={"x": 1.0})


def test_a_parameter_in_an_exponent_becomes_part_of_the_formula():
    """It is no entry of `parameters`, and belongs to the identity."""
    loss = from_expression("a*abs(x)**k", variables="x", parameters={"a": 2.0, "k": 4.0})
    assert loss.parameter_names == ("a",)
    assert loss.third([0.0]).item() == 0 and loss.third([-1.0]).item() == -48
    for k in (1.0, 0.0, 1e9):  # 1/(k - 1), 1/k and k as exponents
        with pytest.raises(ValueError, match=r"finite real|exponents"):
            from_expression("x**(1/(k - 1)) + x**(1/k) + x**k", variables="x", parameters={"k": k})
    three = from_expression("a*abs(x)**k", variables="x", parameters={"a": 2.0, "k": 3.0})
    assert three.value([2.0]) == 16 and loss.value([2.0]) == 32
    assert three.identity != loss.identity


@pytest.mark.parametrize("x", [-2.0, -0.5, 0.0, 0.5, 2.0])
def test_kinks(x):
    """Derivatives at kinks: sign(0) = 0, and no delta functions."""
    sign = float(np.sign(x))
    loss = from_expression("abs(x)", "x")
    assert (loss.value([x]), loss.gradient([x]).item(), loss.hessian([x]).item()) == (abs(x), sign, 0.0)
    assert from_expression("sqrt(x**2)", "x").gradient([x]).item() == sign
    assert from_expression("abs(x)**2", "x").hessian([x]).item() == 2
    cube = from_expression("abs(x)**3", "x")
    assert (cube.gradient([x]).item(), cube.hessian([x]).item()) == (3 * x * abs(x), 6 * abs(x))
    assert from_expression("sign(x)", "x").value([x]) == sign
    assert from_expression("sign(x)*x", "x").gradient([x]).item() == sign
    assert from_expression("max(x, 0.5)", "x").value([x]) == max(x, 0.5)
    assert from_expression("min(x, 0.5)", "x").value([x]) == min(x, 0.5)
    assert from_expression("max(x, 0)**2", "x").gradient([x]).item() == 2 * max(x, 0)


def test_kinks_propagate_nan_and_are_not_quadratic():
    """The functions abs, sign, max and min of NaN are NaN."""
    for text in ("abs(x)", "sign(x)", "max(x, 1)", "min(1, x)"):
        loss = from_expression(text, "x")
        assert np.isnan(loss.value([math.nan]))
        assert loss.quadratic() is None
    assert from_expression("max(x, 1)", "x").value([math.inf]) == math.inf


def test_outside_the_domain_there_is_no_warning():
    """All derivatives are NaN or infinite there, for one point and for many."""
    x = np.array([[-1.0, 0.0, 1.0, 1e200, np.inf, np.nan]])
    for text in (
        "log(x)",
        "sqrt(x)",
        "1/x",
        "x**-1.5",
        "exp(x**3)",
        "sqrt(abs(x-1))",
        "x**x",
        "atan(1/x)",
        "abs(log(x))",
        "tan(x)",
    ):
        loss = from_expression(text, "x")
        for point in (x, *x.T):
            for method in (loss.value, loss.gradient, loss.hessian, loss.third):
                method(point)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("exp(x) + e**x", lambda x: 2 * math.exp(x)),
        ("log(x)", math.log),
        ("sin(x + pi/2)", math.cos),
        ("tan(x + pi/2)", lambda x: -1 / math.tan(x)),
        ("sinh(x)*cosh(x)", lambda x: math.sinh(x) * math.cosh(x)),
        ("tanh(x) - atan(x)", lambda x: math.tanh(x) - math.atan(x)),
        ("x**-2", lambda x: x**-2),
        ("2**x", lambda x: 2**x),
        ("x**x", lambda x: x**x),
        ("x**1.5 + x**(1/3)", lambda x: x**1.5 + x ** (1 / 3)),
        ("x**33 - x**7", lambda x: x**33 - x**7),
        ("+x - -x", lambda x: 2 * x),
        ("1e-3*x + 0.1", lambda x: 1e-3 * x + 0.1),
        ("-2**2 + x", lambda x: -4 + x),
        ("2**3**2*x", lambda x: 512 * x),
        ("1 - x - 2 - 3", lambda x: -4 - x),
        ("x / 2 / 4 * 3", lambda x: x / 2 / 4 * 3),
        ("-x/(1 + x**2) - sqrt(2)*pi", lambda x: -x / (1 + x * x) - math.sqrt(2) * math.pi),
        ("(1.000000001**64)**64*x", lambda x: 1.000000001**4096 * x),
        ("λ**2".replace("λ", "x"), lambda x: x * x),
    ],
)
def test_values(text, function):
    """Values are those of Python's arithmetic and functions."""
    loss = from_expression(text, "x")
    for x in (0.3, 1.0, 1.7):
        assert loss.value([x]) == pytest.approx(function(x), rel=1e-14, abs=1e-15)


def test_decimals_are_exact_to_the_bit():
    """A number in a formula is the float that Python reads."""
    for number in (0.1, 1 / 3, 123456.789, 1e22, 5e-324, 0.30000000000000004):
        assert from_expression(f"{number!r} * x", "x").value([1.0]) == number


def test_unicode_names_are_normalised_as_in_python():
    """Greek letters are names, and a ligature is its letters."""
    assert from_expression("λ**2 / 2").names == ("λ",)
    assert from_expression("ﬁ**2", variables="ﬁ").gradient([3.0]).item() == 6  # NFKC: the ligature is fi


ADVERSARIAL = [
    "__import__('os').system('touch {mark}')",
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "x.real",
    "(lambda: 1)()",
    "lambda: x",
    "[x for x in (1,)]",
    "{x: 1}",
    "[x]",
    "(x, x)",
    "x[0]",
    "x if x else 1",
    "x < y",
    "x and x",
    "not x",
    "~x",
    "x // 2",
    "x % 2",
    "x @ x",
    "x << 2",
    "x | 1",
    "(x := 1)",
    "x = 1",
    "x; x",
    "import os",
    "f'{x}'",
    "'x'",
    "b'x'",
    "True",
    "None",
    "...",
    "1j",
    "await x",
    "yield x",
    "*x",
    "sin",
    "sin()",
    "sin(x, x)",
    "sin(x=x)",
    "sin(*x)",
    "sin(**x)",
    "sin(cos)",
    "max(x)",
    "foo(x)",
    "eval('x')",
    "exec('x')",
    "print(x)",
    "exp(x)(x)",
    "e(x)",
    "y",
    "Symbol",
    "numpy",
    "p",
    "",
    "   ",
    "x +",
    "2x",
    "x!",
    "x\0",
    "#",
    "x # (",
    "9**9**9",
    "(x - x + 9)**(x - x + 9)**(x - x + 9)",
    "(0*x + 9**9)**(0*x + 1000)",
    "exp(0*x + 1000)",
    "1/(x - x)",
    "(-2)**x",
    "sqrt(0*x - 1)",
    "2**-10**9",
    "x**9**9",
    "x**10**400",
    "x**1e6",
    "x**-1001",
    "(10**300*x)**1000",
    "((10**300*x)**1000)**1000",
    "(x/10**300)**1000",
    "10**300*x*10**300",
    "1e999",
    "-1e999*x",
    "9" * 5000,
    "9" * 400,
    "1/0",
    "x/0",
    "x/(2 - 2)",
    "0**-1",
    "sqrt(-1)",
    "log(0)",
    "log(-1)",
    "(-8)**(1/3)",
    "sqrt(-x**2)",
    "tan(pi/2)",
    "exp(1000)",
    "exp(exp(exp(10)))",
    "sinh(10**5)",
    "(" * 300 + "x" + ")" * 300,
    "-" * 5000 + "x",
    "sin(" * 60 + "x" + ")" * 60,
    "x" + "**1" * 60,
    "+x" * 6000,
    "*".join(f"(x + {i})" for i in range(300)),
    "x if x else 0",
    "x is x",
    "x in x",
    "x < 1 < __import__",
    "Piecewise()",
    "Piecewise((x, x > 0))",
    "Piecewise((9**9**9, x > 0), (0, True))",
    "Piecewise(" + "(x, x > 0), " * 60 + "(0, True))",
    "max(" + "x, " * 101 + "x)",
    "not " * 60 + "(x > 0)",
    "floor(1e999)",
    "(x > 0)" + " if x > 0 else x" * 60,
    "erfinv_of_a_function_with_a_long_name_that_does_not_exist_anywhere(x)",
]


@pytest.mark.parametrize("text", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_adversarial_text_is_rejected_in_one_sentence(text, tmp_path):
    """Attacks by evaluation, memory, time and depth give a short ValueError within a second of processor time, however busy the machine is."""
    mark = tmp_path / "mark"
    before, start = dict(os.environ), time.thread_time()
    with pytest.raises(ValueError) as caught:
        from_expression(text.replace("{mark}", str(mark)), variables="x")
    assert time.thread_time() - start < 1
    assert not mark.exists() and dict(os.environ) == before
    message = str(caught.value)
    assert message.endswith((".", "?")) and "\n" not in message and len(message) < 260
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("text", [None, 3, b"x", ["x"], object()])
def test_other_types_than_text_are_rejected(text):
    """Only a string is a formula."""
    with pytest.raises(ValueError, match="formula in quotes"):
        from_expression(text, variables="x")


def test_the_power_sign_and_unknown_names_are_explained():
    """The messages suggest `**`, the known names, and a call of a function."""
    with pytest.raises(ValueError, match=r"`\*\*`; got `\^` in `x\^2`"):
        from_expression("x^2", variables="x")
    with pytest.raises(ValueError, match=r"only the names x, y; got `z`"):
        from_expression("x*y*z", variables="x y")
    with pytest.raises(ValueError, match=r"Call it, as in exp\(x\)"):
        from_expression("x*exp", variables="x")


@pytest.mark.parametrize("variables", ["exp", "pi", "e", "x x", "1x", "x-y", "lambda", ["x", 3], [], "", "a.b", ["x y"]])
def test_invalid_variables_are_rejected(variables):
    """Reserved, repeated and malformed names are rejected."""
    with pytest.raises(ValueError, match="`variables`"):
        from_expression("1 + 1", variables=variables)


def test_names_are_data_even_when_they_are_names_in_our_code():
    """Names of Python, NumPy and SymPy are ordinary coordinates."""
    for name in ("self", "np", "numpy", "slots", "x0", "_", "__import__", "print", "I", "S", "N", "Q", "oo", "zoo", "nan", "E"):
        assert from_expression(f"{name}**2 / 2", variables=name).gradient([3.0]).item() == 3


def test_long_sums_are_not_deep():
    """A sum of 300 terms does not count as nested."""
    names = [f"x{i}" for i in range(300)]
    loss = from_expression(" + ".join(f"{n}**2/2" for n in names), variables=names)
    x = np.linspace(-1, 1, 300)
    np.testing.assert_array_equal(loss.gradient(x), x)


def test_wrong_points_are_rejected():
    """The message gives the shape that a point must have."""
    loss = from_expression("x*y", "x y")
    for x in (1.0, [1.0], [1.0, 2.0, 3.0], np.zeros((3, 2))):
        with pytest.raises(ValueError, match=r"must have shape \(2,\)"):
            loss.gradient(x)


TEXTS = [
    "(x*y - 1)**2 / 2",
    "exp(a*x)*y**2/2 - log(2 + sin(x)*cos(y))",
    "abs(x - 1) + sign(y)*y**3 + max(x, y)*min(x, 2*y)",
    "sqrt(1 + x**2)*y/(1 + tanh(y)**2) + atan(x*y)",
    "2**x + (1 + y**2)**-1.7 + (1 + x**2)**x + tan(x/4) + cosh(y)/sinh(1 + y**2)",
    "x",
    "7",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("point", [(0.7, -1.3), (1.0, 1.0), (-0.4, 0.2)])
def test_symbols_agree_with_numbers(text, point):
    """All methods run on symbols and give the values of numbers."""
    loss = from_expression(text, "x y", {"a": 1.5} if "a*" in text else None)
    x, s, p = np.array(point), symbols(point), symbols(loss.parameters)
    for method, order in ((loss.value, 0), (loss.gradient, 1), (loss.hessian, 2), (loss.third, 3)):
        traced = method(s, p)
        if order:
            assert traced.dtype == object and traced.shape == (2,) * order
        np.testing.assert_allclose(numbers(traced), method(x), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(numbers(loss.hessian_product(s, x)), loss.hessian_product(x, x), rtol=1e-12, atol=1e-13)
    M = np.array([[1.0, 0.5], [0.5, 2.0]])
    np.testing.assert_allclose(numbers(loss.third_contracted(s, M)), loss.third_contracted(x, M), rtol=1e-12, atol=1e-13)


def test_the_same_text_is_compiled_once():
    """Equal formulas share the expression, its derivatives and its compiled function."""
    a = from_expression("sin(x)*x", "x")
    b = from_expression("sin(x)*x", "x")
    assert a.expr is b.expr
    assert compile([a.expr], ["x"]) is compile([b.expr], ["x"])
    assert derivatives(a.expr, ("x",), 3) is derivatives(b.expr, ("x",), 3)


def test_common_subexpressions_are_computed_once():
    """The exponential and the cosine of both derivatives are one step each."""
    f = compile(list(derivatives(parse("exp(sin(x*y))", "x y"), ("x", "y"), 1).values()), ["x", "y"])
    assert sum(function is np.exp for function, _ in f.steps) == 1
    assert sum(function is np.cos for function, _ in f.steps) == 1


@pytest.mark.parametrize("used", [False, True])
def test_pickle(used):
    """A loss pickles as plain data, before and after its first use."""
    loss = from_expression("a*exp(x)*y**2 + x**k", "x y", {"a": 0.5, "k": 2})
    if used:
        loss.third([1.0, 2.0])
    text = pickle.dumps(loss)
    assert len(text) < 5000
    again = pickle.loads(text)
    assert again.identity == loss.identity and again.names == loss.names
    np.testing.assert_array_equal(again.third([1.0, 2.0]), loss.third([1.0, 2.0]))


def test_identity():
    """The identity depends on the text, the order of the names and the constants."""
    base = from_expression("a*x**2 + y", "x y", {"a": 1.0})
    assert base.identity == from_expression("a*x**2 + y", ["x", "y"], {"a": 1.0}).identity
    others = [("a*x**2 + y", "y x", {"a": 1.0}), ("a*x**2 + y", "x y", {"a": 2.0}), ("a*x**2 - y", "x y", {"a": 1.0})]
    assert len({base.identity, *(from_expression(*o).identity for o in others)}) == 4


def test_parse_and_compile_for_other_packages():
    """Parsed expressions compile together; wrong arguments are rejected; LaTeX of kinks."""
    expr = parse("a*x**2 + y", ["x", "y"], ["a"])
    f = compile([expr, expr**2, 3], ["x", "y"], ["a"])
    row = np.array([1.0, 2.0])
    out = f(np.array([row, row]), [3.0])
    assert len(out) == 3 and out[0].tolist() == [4, 14] and out[1].tolist() == [16, 196] and out[2] == 3.0
    assert f(np.array([1.0, 2.0]), [3.0])[0] == 5
    with pytest.raises(ValueError, match="must be given 3"):
        f(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="must not contain"):
        compile([expr], ["x"], ["a"])
    power = compile([parse("x**a", "x", ["a"])], ["x"], ["a"])
    assert power([2.0], [3.0])[0] == pytest.approx(8.0, rel=1e-15)
    assert latex(parse("abs(x)**3 + sign(x)", "x")) == r"\left|{x}\right|^{3} + \operatorname{sign}\left(x\right)"
    assert latex(parse("max(x, 1)**2", "x")) == r"\max^{2}\left(x, 1\right)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x**2 + 3*x*y - y + 2", ([[2, 3], [3, 0]], [0, -1], 2)),
        ("(x + y)**2 / 2 - (x - y)**2 / 2", ([[0, 2], [2, 0]], [0, 0], 0)),
        ("(x + 1)**3 - x**3 - y**2", ([[6, 0], [0, -2]], [3, 0], 1)),
        ("(x**3 + x**2)/x + y", ([[2, 0], [0, 0]], [1, 1], 0)),
        ("x - 2*y", ([[0, 0], [0, 0]], [1, -2], 0)),
        ("5", ([[0, 0], [0, 0]], [0, 0], 5)),
    ],
)
def test_quadratic_formulas_are_recognised(text, expected):
    """Also those whose higher terms cancel."""
    H, c, level = from_expression(text, "x y").quadratic()
    assert (H.tolist(), c.tolist(), level) == expected


@pytest.mark.parametrize(
    "text", ["x**3", "x*y**2", "(x + y)**1000", "1/x", "exp(x)", "sin(x)", "abs(x) + y**2", "x**2 + 1e-6*x**4"]
)
def test_other_formulas_are_not_quadratic(text):
    """Also a tiny fourth power, and a quadratic with a kink."""
    assert from_expression(text, "x y").quadratic() is None


terms = st.lists(
    st.tuples(st.integers(-4, 4), st.integers(0, 4), st.integers(0, 3)).filter(lambda t: t[0]), min_size=1, max_size=5
)
points = st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(np.array)


@given(terms, points)
@settings(max_examples=60, deadline=None)
def test_polynomials_against_their_own_derivatives(terms, x):
    """Random polynomials have the derivatives of their terms."""
    loss = from_expression(" + ".join(f"({c})*x**{i}*y**{j}" for c, i, j in terms), "x y")

    def partial(a, b):  # d^a/dx^a d^b/dy^b, term by term
        return sum(c * math.perm(i, a) * x[0] ** max(i - a, 0) * math.perm(j, b) * x[1] ** max(j - b, 0) for c, i, j in terms)

    scale = dict(rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(loss.value(x), partial(0, 0), **scale)
    np.testing.assert_allclose(loss.gradient(x), [partial(1, 0), partial(0, 1)], **scale)
    np.testing.assert_allclose(loss.hessian(x), [[partial(2, 0), partial(1, 1)], [partial(1, 1), partial(0, 2)]], **scale)
    assert loss.third(x)[0, 1, 0] == pytest.approx(partial(2, 1), rel=1e-12, abs=1e-11)
    step = 6e-6
    numeric = [(loss.value(x + step * d) - loss.value(x - step * d)) / (2 * step) for d in np.eye(2)]
    # |third derivative| <= 4 * 5 * 24 * 2**7, so h^2/6 of it is below 1e-7; rounding adds eps/h of the value
    np.testing.assert_allclose(loss.gradient(x), numeric, atol=1e-6)


@given(st.sampled_from(TEXTS), st.lists(points, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_batched_is_pointwise(text, rows):
    """Random points: many at once give what each gives alone."""
    loss = from_expression(text, "x y", {"a": 1.5} if "a*" in text else None)
    x = np.stack(rows, axis=1)
    before = x.copy()
    for method in (loss.value, loss.gradient, loss.hessian, loss.third):
        many = method(x)
        for j in range(len(rows)):
            np.testing.assert_allclose(many[..., j], method(x[:, j]), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(x, before)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_formula_or_a_value_error(text):
    """Random text raises no other error and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            loss = from_expression(text, variables="x")
        except ValueError as error:
            assert str(error)
        else:
            loss.gradient([0.5])


@given(
    st.recursive(
        st.sampled_from(["x", "y", "2", "0.5", "pi"]),
        lambda s: (
            st.tuples(s, st.sampled_from("+-*/"), s).map("({0[0]}{0[1]}{0[2]})".format)
            | st.tuples(st.sampled_from(["exp", "sin", "abs", "sqrt", "log", "-", "tanh"]), s).map("{0[0]}({0[1]})".format)
        ),
        max_leaves=8,
    )
)
@settings(max_examples=100, deadline=None)
def test_random_formulas_equal_pythons_arithmetic(text):
    """Random formulas have the value that Python computes from their text."""
    x, y = 0.7, 1.3
    scope = {
        "x": np.float64(x),
        "y": np.float64(y),
        "pi": math.pi,
        **{n: getattr(np, n) for n in ("exp", "sin", "sqrt", "log", "tanh")},
    }
    try:
        loss = from_expression(text, "x y")
    except ValueError:
        return
    with np.errstate(all="ignore"):
        expected = eval(text, {"__builtins__": {"abs": abs}}, scope)
    value = loss.value([x, y])
    if np.isfinite(expected) and abs(expected) < 1e10 and np.isfinite(value):
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-6)  # cancellation differs between the two orders of summation
