"""The mutation run: its mutants, its table of formulas, and its distinction of detected from undetected changes."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "benchmarks" / "mutation"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(HOME)
    import mutants
    from evaluation import Order
    from table import Table

SOURCE = b'''
class Rule:
    def step(self, x: int = 3, k=0):
        """A text with 1 + 1."""
        if k < 0:
            raise ValueError(f"got {k + 1}")
        m = beta * x[k] + (1 - beta) * oracle(x, k)
        return x - eta * m / 2, np.zeros(3 + 1), m[1], -m, m**2 + 1e-12, "a" + str(x)
'''


def changes(kind):
    """Return the changes of a kind in SOURCE."""
    return {(m.old, m.new) for m in mutants.mutants_of("f.py", SOURCE) if m.kind == kind}


def test_each_kind_of_change_is_made():
    """Examples of every kind of change."""
    assert ("2", "2.04") in changes("constant") and ("2", "3") in changes("constant")  # a divisor, an exponent
    assert ("eta * m / 2", "1.02 * eta * m / 2") in changes("factor")
    assert ("1 - beta", "1 + beta") in changes("sign") and ("-m", "m") in changes("sign")
    assert {("1 - beta", "1"), ("1 - beta", "-beta"), ("x - eta * m / 2", "x")} <= changes("term")
    assert {("x[k]", "x[k - 1]"), ("1", "2")} <= changes("index")
    assert changes("time") == {("k", "k + 1")}
    assert {("oracle(x, k)", "oracle(k, x)"), ("1 - beta", "(beta - 1)")} <= changes("swap")


def test_code_outside_formulas_is_not_mutated():
    """Validation, messages, annotations, sizes and text stay unchanged."""
    texts = [m.apply(SOURCE).decode() for m in mutants.mutants_of("f.py", SOURCE)]
    for kept in ("x: int = 3", "A text with 1 + 1.", 'f"got {k + 1}"', "if k < 0:", "np.zeros(3 + 1)", "1e-12", '"a" + str(x)'):
        assert all(kept in text for text in texts), kept


def test_a_mutant_is_one_change_that_compiles_and_has_a_key_of_its_own():
    """Mutants are single, syntactically valid changes with unique keys."""
    found = mutants.mutants_of("f.py", SOURCE)
    keys = [m.key for m in found]
    assert len(set(keys)) == len(keys) > 20
    for m in found:
        text = m.apply(SOURCE)
        ast.parse(text)
        assert text != SOURCE and text[: m.start] == SOURCE[: m.start] and text.endswith(SOURCE[m.end :])


def test_the_draw_depends_on_each_mutant_alone():
    """Edits elsewhere do not change the sample: a subset of the mutants gives the same ones."""
    found = mutants.mutants_of("f.py", SOURCE)
    drawn = mutants.sampled(found, 10, seed=3)
    assert mutants.sampled(found[::-1], 10, seed=3) == drawn
    assert [m for m in drawn if m in found[:15]] == mutants.sampled(found[:15], 10, seed=3)[
        : len([m for m in drawn if m in found[:15]])
    ]
    assert mutants.sampled(found, 10, seed=4) != drawn


@pytest.fixture(scope="module")
def table():
    """The table of formulas."""
    return Table.read()


def functions(file):
    """Return the qualified names of a file's functions."""
    return [where for where, _ in mutants.functions(ast.parse((ROOT / file).read_text()))]


@pytest.mark.slow
def test_every_entry_of_the_table_exists(table):
    """Files, functions, tests, claims and keys of the table exist."""
    for entry in [e for f in table.formulas for e in f.code] + list(table.tuning):
        file, _, where = entry.partition(":")
        assert (ROOT / file).is_dir() if file.endswith("/") else (ROOT / file).is_file(), entry
        assert not where or any(w == where or w.startswith(f"{where}.") for w in functions(file)), entry
    for formula in table.formulas:
        assert all((ROOT / test.partition("::")[0]).exists() for test in formula.tests[1:]), formula.name
        assert set(formula.claims) <= set(table.claims), formula.name
    keys = {m.key for file in table.files() for m in mutants.mutants_of(file, (ROOT / file).read_bytes())}
    assert set(table.equivalent) <= keys, sorted(set(table.equivalent) - keys)


def test_no_formula_is_hidden_behind_the_entry_of_its_folder(table):
    """The first entry that lists a function counts: behind that of its folder a formula would never be drawn with its claims."""
    folders = []
    for formula in table.formulas:
        for entry in formula.code:
            assert entry.endswith("/") or not entry.startswith(tuple(folders)), f"{formula.name}: {entry}"
        folders += [entry for entry in formula.code if entry.endswith("/")]
    assert len(folders) > 5


def test_the_claims_of_the_table_are_those_of_the_paper(table):
    """The table finds the same claims as `collect`."""
    from sdetools.claims import collect

    own = {claim.id: str(claim.path.relative_to(ROOT)) for claim in collect(ROOT / "paper_checks")}
    assert table.claims == own


@pytest.mark.slow
def test_every_computing_function_of_these_packages_is_in_the_table(table):
    """Every mutated function is a formula or tuning."""
    files = [
        p
        for package in ("dynamics", "noise", "manifold", "exact", "estimates", "studies")
        for p in sorted((ROOT / "sdetools" / package).rglob("*.py"))
    ]
    files += [
        ROOT / "sdetools" / p
        for p in (
            "schedules.py",
            "bridge/torch_optimisers.py",
            "bridge/torch_general_momentum.py",
            "bridge/torch_sign_descent.py",
            "bridge/optimiser_base.py",
            "bridge/svag.py",
        )
    ]
    for path in files:
        file = str(path.relative_to(ROOT))
        missing = {m.where for m in mutants.mutants_of(file, path.read_bytes()) if table.formula(file, m.where) is None}
        tuned = {
            w for w in missing if any(f"{file}:{w}" == e or f"{file}:{w}".startswith(f"{e}.") or file == e for e in table.tuning)
        }
        assert missing == tuned, f"{file}: {sorted(missing - tuned)} are neither a formula nor tuning"


def test_the_most_sensitive_tests_come_first():
    """Tests that detected a change of the function, then files in listed order, then the package, then slow tests."""
    mutant = mutants.mutants_of("a.py", b"def f(x):\n    return 2 * x\n")[0]
    order = Order({"a.py:f": ["tests/package/test_c.py::old"]}, {"tests/package/test_sharp.py::slow": 9.0})
    tests = ("tests/package/test_sharp.py", "tests/package/test_b.py", "tests/package")
    names = ["test_a.py::a", "test_b.py::b", "test_c.py::old", "test_sharp.py::quick", "test_sharp.py::slow"]
    ranked = sorted((f"tests/package/{name}" for name in names), key=lambda name: order.rank(mutant, name, tests))
    assert [name.split("/")[-1] for name in ranked] == [names[k] for k in (2, 3, 1, 0, 4)]


@pytest.mark.slow
def test_detected_and_undetected_changes_are_distinguished(tmp_path):
    """A toy claim detects a wrong sign but not a change without effect, and the unchanged toy is supported."""
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import evaluation as m, mutants, table as t
tree = m.Tree(Path(sys.argv[2]))
formula = t.Formula("stationary variance", ("sdetools/exact/closed_forms.py",), ("toy",), (t.DOCTESTS, "toy_test.py"))
(tree.folder / "toy.py").write_text('''
import sdetools as st
@st.claim("toy", statement="The stationary variance at eta = 1/2 is 1/3.")
def toy(run):
    run.measure("variance", st.exact.stationary_variance(0.5), expected=1 / 3, tolerance=1e-12)
    run.table("what a wrong number would break", [[{1 / 3: "fine"}[round(3 * st.exact.stationary_variance(0.5)) / 3]]], ["it is"])
''')
(tree.folder / "toy_test.py").write_text('''
import sdetools as st
def test_other():
    assert abs(st.exact.stationary_variance(0.4, 0.6) - 0.21052631578947367) < 1e-12
def test_wrong_anyway():
    assert False
''')
table = t.Table((formula,), {}, {}, {"toy": "toy.py"})
file = "sdetools/exact/closed_forms.py"
own = [x for x in mutants.mutants_of(file, (tree.folder / file).read_bytes()) if x.where == "stationary_variance"]
pick = lambda old, new: next(x for x in own if (x.old, x.new) == (old, new))
wrong = pick("2 - excess", "2 + excess")
hidden = pick("1 + beta", "1 - beta")  # nothing at beta = 0: for the test alone
print(m.claim_verdicts.__name__, m.in_fork(tree, 100, m.claim_verdicts, None, tree, {"toy": "toy.py"}, "quick"))
print(m.evaluate(wrong, formula, table, tree, False).by)
found = m.evaluate(hidden, formula, table, tree, False)
print(found.by)
wrong_anyway = m.replace(found, by="toy_test.py::test_wrong_anyway")
killed = [m.evaluate(wrong, formula, table, tree, False), found, wrong_anyway]
print(set().union(*(rerun(tree) for rerun in m.false_detections(killed, table, m.NO_ORDER))))
print(m.claim_verdicts.__name__, m.in_fork(tree, 100, m.claim_verdicts, None, tree, {"toy": "toy.py"}, "quick"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(HOME), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"SDETOOLS_CACHE": str(tmp_path / "cache")},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    first, wrong, hidden, false_detections, after = done.stdout.splitlines()
    assert first == after == "claim_verdicts {'toy': 'supported'}"  # before, and after the tree is restored
    assert wrong == "toy (quick)"  # contradicted at the number, before the table fails
    assert false_detections == "{'toy_test.py::test_wrong_anyway'}"  # it fails without a mutant too, the others do not
    assert "closed_forms" in hidden or "toy_test" in hidden  # the doctest of the file, or the test
