"""Tests of the decorator `claim` and of the collection of claims from files and folders."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sdetools._install import install_command, install_line
from sdetools.claims import Claim, claim, collect, select

HEAD = "from sdetools.claims import claim\n"
ONE = '@claim("{id}", statement="A statement.")\ndef {name}(run):\n    run.measure("q", 1.0, at_most=2.0)\n'


def write(path: Path, *ids: str, head: str = HEAD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join(ONE.format(id=id, name=f"f{i}") for i, id in enumerate(ids)))
    return path


@pytest.mark.parametrize("id", ["", "Theorem", "two words", "a_b", "-a", "a-", "a..b", "3.5", "a/b", "é", None])
def test_invalid_ids(id):
    with pytest.raises(ValueError, match="a claim's id must be lower-case words joined by dashes or dots"):
        claim(id, statement="s")


@pytest.mark.parametrize("id", ["a", "theorem-3.5", "a.b-c1", "lemma2"])
def test_valid_ids(id):
    assert claim(id, statement="s")(lambda run: None).id == id


@pytest.mark.parametrize("statement", ["", "  ", None])
def test_a_claim_must_have_a_statement(statement):
    with pytest.raises(ValueError, match="must have a statement"):
        claim("a", statement=statement)


def test_formulas_must_be_closed():
    with pytest.raises(ValueError, match="must close every formula"):
        claim("a", statement=r"an open $\eta formula")
    claim("a", statement=r"it costs \$5 and $\eta$")


def test_the_function_of_a_claim_takes_only_the_context():
    for function in (lambda: None, lambda run, other: None):
        with pytest.raises(ValueError, match="must take one argument, the context of the claim"):
            claim("a", statement="s")(function)
    assert claim("a", statement="s")(lambda run, extra=3: extra)(None) == 3


def test_a_file_yields_its_claims_in_order(tmp_path):
    path = write(tmp_path / "some file.py", "z", "a", "m")
    found = collect(path)
    assert [item.id for item in found] == ["z", "a", "m"]
    assert [item.line for item in found] == [2, 6, 10]
    assert all(item.path == path.resolve() for item in found)


def test_a_folder_is_searched_in_alphabetical_order_without_tests_and_scripts(tmp_path):
    write(tmp_path / "b.py", "b")
    write(tmp_path / "a" / "x.py", "a")
    write(tmp_path / "test_c.py", "c")
    write(tmp_path / ".hidden" / "d.py", "d")
    write(tmp_path / "__pycache__" / "e.py", "e")
    (tmp_path / "script.py").write_text("raise SystemExit('a script without claims must not run')")
    assert [item.id for item in collect([tmp_path])] == ["a", "b"]
    assert [item.id for item in collect([tmp_path / "test_c.py"])] == ["c"]


def test_a_file_that_is_given_twice_is_collected_once(tmp_path):
    path = write(tmp_path / "a.py", "a")
    assert [item.id for item in collect([path, tmp_path, str(path)])] == ["a"]


def test_files_of_equal_name_and_imported_claims_do_not_clash(tmp_path):
    one, two = write(tmp_path / "one" / "claims.py", "a"), write(tmp_path / "two" / "claims.py", "b")
    assert [item.id for item in collect([one, two])] == ["a", "b"]
    write(tmp_path / "one" / "user.py", "c", head=HEAD + "from claims import f0 as other\n")
    assert [item.id for item in collect([tmp_path / "one" / "user.py"])] == ["c"]
    sys.modules.pop("claims", None)


def test_collect_does_not_change_the_import_path(tmp_path):
    before = list(sys.path)
    collect(write(tmp_path / "a.py", "a"))
    assert sys.path == before


def test_import_errors_report_file_and_line(tmp_path):
    cases = {
        "value = 1\nvalue / 0\n": r"line 2: ZeroDivisionError: division by zero",
        "x = (\n": r"line 1: SyntaxError",
        "import a_module_that_does_not_exist\n": r"line 1: ModuleNotFoundError: No module named 'a_module_that_does_not_exist'",
        HEAD + "@claim('Bad Id', statement='s')\ndef f(run): ...\n": r"line 2: a claim's id must be lower-case words",
        "raise SystemExit(3)\n": r"line 1: SystemExit: 3",
    }
    for i, (text, words) in enumerate(cases.items()):
        path = tmp_path / f"broken{i}.py"
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"the file {re.escape(str(path))} could not be imported: {words}") as caught:
            collect(path)
        assert "\n" not in str(caught.value)


def test_invalid_paths(tmp_path):
    with pytest.raises(ValueError, match="must exist; got .*nowhere"):
        collect(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must contain at least one file with claims"):
        collect(tmp_path)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="must contain at least one claim"):
        collect(tmp_path / "empty.py")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match="must be a Python file"):
        collect(tmp_path / "text.txt")
    with pytest.raises(ValueError, match="got none"):
        collect([])


def test_an_id_is_unique_within_a_run(tmp_path):
    write(tmp_path / "a.py", "same")
    write(tmp_path / "b.py", "other", "same")
    with pytest.raises(ValueError, match=r"got `same` in .*a.py, line 2, and in .*b.py, line 6"):
        collect(tmp_path)


def test_two_functions_of_equal_name_are_two_claims(tmp_path):
    """Claims are collected although a function of the same name, a loop, a list or `del` hides them in the module."""
    text = ONE.format(id="first", name="f") + ONE.format(id="second", name="f")
    text += "for n in (1, 2):\n    @claim(f'loop-{n}', statement='s')\n    def g(run, n=n): ...\n"
    text += "kept = [claim('kept', statement='s')(lambda run: None)]\n"
    text += "@claim('gone', statement='s')\ndef h(run): ...\ndel h\n"
    (tmp_path / "a.py").write_text(HEAD + text)
    assert [item.id for item in collect(tmp_path)] == ["first", "second", "loop-1", "loop-2", "kept", "gone"]
    assert [item.id for item in collect(tmp_path)] == ["first", "second", "loop-1", "loop-2", "kept", "gone"]


@pytest.mark.parametrize("names", [("f", "f"), ("f", "g")])
def test_equal_ids_in_one_file_are_refused_with_both_lines(tmp_path, names):
    (tmp_path / "a.py").write_text(HEAD + "".join(ONE.format(id="same", name=name) for name in names))
    with pytest.raises(ValueError, match=r"must be unique within a run; got `same` in .*a.py, line 2, and in .*a.py, line 5"):
        collect(tmp_path)


def test_only_a_function_can_be_a_claim(tmp_path):
    for thing in (3, print, claim("a", statement="s")(lambda run: None)):
        with pytest.raises(ValueError, match="`@claim` must mark a function; got"):
            claim("b", statement="s")(thing)


def test_a_file_that_needs_a_missing_extra_yields_one_claim(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    path = write(tmp_path / "With_Torch.py", "a", head=HEAD + "import torchsde\n")
    (item,) = collect(path)
    assert item.id == "with-torch"
    with pytest.raises(ModuleNotFoundError):
        item(None)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), install_command("torch")),
        (ModuleNotFoundError("No module named 'torchsde'", name="torchsde"), install_command("torchsde")),
        (ModuleNotFoundError("No module named 'mlxtend.x'", name="mlxtend.x"), install_command("vision")),
        (ModuleNotFoundError("No module named 'foo'", name="foo"), "pip install foo"),
        (ModuleNotFoundError("this needs torch: pip install 'sdetools[text]'."), "pip install 'sdetools[text]'"),
    ],
)
def test_install_line(error, line):
    assert install_line(error) == line


def test_select(tmp_path):
    found = collect(write(tmp_path / "a.py", "theorem-3.5.smooth", "theorem-3.5.kink", "lemma-2.4"))
    assert [item.id for item in select(found, None)] == [item.id for item in found]
    assert [item.id for item in select(found, "3.5")] == ["theorem-3.5.smooth", "theorem-3.5.kink"]
    assert [item.id for item in select(found, "lemma*")] == ["lemma-2.4"]
    with pytest.raises(
        ValueError, match="`only` must match the id of a claim; got 'corollary', and the claims are theorem-3.5.smooth"
    ):
        select(found, "corollary")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a", ["a-b", "a.c", "b-a"]),
        ("a-*", ["a-b"]),
        ("a and not c", ["a-b", "b-a"]),
        ("(a.c or d-1) and not b", ["a.c", "d-1"]),
        ("not a", ["d-1"]),
        ("?-?", ["a-b", "b-a", "d-1"]),
    ],
)
def test_expressions_of_patterns(pattern, found):
    claims = [Claim(id, "s", "", lambda run: None, Path("a.py"), 1) for id in ("a-b", "a.c", "b-a", "d-1")]
    assert [item.id for item in select(claims, pattern)] == found


@pytest.mark.parametrize("pattern", ["a b", "and", "(a", "a or", "not", "", "a (a)", "True"])
def test_what_is_no_expression_is_refused(pattern):
    """And nothing in a pattern is executed."""
    claims = [Claim("a", "s", "", lambda run: None, Path("a.py"), 1)]
    with pytest.raises(ValueError, match="`only` must"):
        select(claims, pattern)
    with pytest.raises(ValueError, match="`only` must"):
        select(claims, "__import__('os')")
