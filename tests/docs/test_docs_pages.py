"""The documentation: its code runs, it names every public name, and its build fails on broken code, links and names."""

import ast
import html.parser
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

import sdetools as st

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "docs"
sys.path.insert(0, str(DOCS / "tools"))
from execute import PageError, blocks_of, execute, rendered  # noqa: E402

PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if page.name != "paper.md")  # a paper of its own
EXECUTED = [page for page in PAGES if any(b.kind != "text" for b in blocks_of((DOCS / page).read_text(encoding="utf-8")))]
TUTORIALS = ("verify", "order", "loss-and-noise", "optimiser", "sde", "manifold", "momentum", "drop", "cluster")
CACHE = Path(os.environ.get("SDETOOLS_DOCS_CACHE") or TOP / ".cache" / "docs")


def _text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_the_tutorials_are_there_and_executed():
    assert {f"tutorials/{name}.md" for name in TUTORIALS} <= set(EXECUTED)
    assert len([page for page in EXECUTED if page.startswith("how-to/")]) >= 12
    assert {"start.md", "gallery.md", "theory/claims.md", "how-we-know.md"} <= set(EXECUTED)


@pytest.mark.documents
@pytest.mark.parametrize("page", EXECUTED)
def test_the_code_of_a_page_runs(page):
    """The build has the same executor and cache, and so executes no page a second time."""
    if any(word in _text(page) for word in ("import torch", "st.bridge")):
        pytest.importorskip("torch"), pytest.importorskip("sklearn")
    outcome = execute(_text(page), page, CACHE)
    assert any(output["text"] or output["figures"] for output in outcome.outputs)
    assert rendered(_text(page), outcome, lambda svg: "figure.svg", page)


SQUARE = "```python\nx = 3\nprint(x * x)\n```\n"


def test_a_page_is_executed_once_until_its_code_or_a_module_changes(tmp_path, monkeypatch):
    cache, tree = tmp_path / "cache", tmp_path / "tree"
    (tree / "docs").mkdir(parents=True)
    shutil.copytree(DOCS / "tools", tree / "docs" / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "used.py").write_text("NUMBER = 4\n", encoding="utf-8")
    (tree / "data.csv").write_text("1\n", encoding="utf-8")
    page = 'A page.\n\n```python\nimport used\nfrom pathlib import Path\nprint(used.NUMBER, Path(used.__file__).with_name("data.csv").read_text())\n```\n'
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from execute import execute;"
        "found = execute(sys.argv[3], 'page.md', Path(sys.argv[2])); print(found.cached, found.outputs[0]['text'].split())"
    )
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(text: str) -> str:
        words = [sys.executable, "-c", code, str(tree / "docs" / "tools"), str(cache), text]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    assert run(page) == "False ['4', '1']" and run(page) == "True ['4', '1']"
    assert run(page.replace("A page.", "Other words.")) == "True ['4', '1']"
    (tree / "used.py").write_text("NUMBER = 5\n", encoding="utf-8")
    assert run(page) == "False ['5', '1']" and run(page) == "True ['5', '1']"
    (tree / "data.csv").write_text("2\n", encoding="utf-8")
    assert run(page) == "False ['5', '2']"
    (tree / "unused.py").write_text("", encoding="utf-8")
    assert run(page) == "True ['5', '2']"
    assert run(page.replace("print(", "print(0, ")) == "False ['0', '5', '2']"
    # A shell starts processes, so its page depends on every file of the package.
    (tree / "sdetools").mkdir()
    (tree / "sdetools" / "part.py").write_text("", encoding="utf-8")
    shell = "```sh run\necho 1\n```\n"
    assert run(shell) == "False ['1']" and run(shell) == "True ['1']"
    (tree / "sdetools" / "part.py").write_text("# changed\n", encoding="utf-8")
    assert run(shell) == "False ['1']"


def test_blocks_share_a_namespace_and_options_do_what_they_say():
    page = (
        f"{SQUARE}text\n\n```python\nprint(x + 1)\n```\n\n```sh run\necho from the shell\n```\n\n"
        '```python file="module.py"\nvalue = 7\n```\n\n```python code="hidden" output="markdown"\nimport module\n\n'
        'print(f"**{module.value}**")\n```\n\n```sh\nnot executed\n```\n\n```text\nnor this\n```\n'
    )
    outcome = execute(page, "page.md")
    assert [output["text"] for output in outcome.outputs] == ["9\n", "4\n", "from the shell\n", "", "**7**\n"]
    written = rendered(page, outcome, lambda svg: "figure.svg")
    assert "\n9\n```" in written and "\n**7**\n" in written and "import module" not in written
    assert "not executed" in written and 'title="module.py"' in written


def test_a_figure_is_shown_with_its_caption_and_is_equal_in_every_run():
    page = '```python figure="A line."\nimport matplotlib.pyplot as plt\n\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\naxes\n```\n'
    first, second = execute(page, "page.md"), execute(page, "page.md")
    assert first.outputs[0]["figures"] == second.outputs[0]["figures"] and "<svg" in first.outputs[0]["figures"][0]
    assert "![A line.](figure.svg)" in rendered(page, first, lambda svg: "figure.svg")
    with pytest.raises(PageError, match="needs figure="):
        rendered(page.replace(' figure="A line."', ""), first, lambda svg: "figure.svg")
    with pytest.raises(PageError, match="shows no figure"):
        rendered('```python figure="A line."\nprint(1)\n```\n', execute(SQUARE, "page.md"), lambda svg: "figure.svg")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (f"{SQUARE}\n```python\nprint(x)\nprint(y)\n```\n", "page.md, line 8: NameError: name 'y'"),
        ("```python\nx = (\n```\n", "page.md, line 2: .*SyntaxError"),
        ("```sh run\nfalse\n```\n", "page.md, line 2: RuntimeError: exit code 1"),
        ("```python\nimport os\n\nos._exit(3)\n```\n", "page.md, line 2: the process ended with code 3"),
        ('```python colour="red"\n1\n```\n', "page.md, line 1: unknown option"),
    ],
)
def test_an_error_in_a_block_names_the_page_and_the_line(page, message):
    with pytest.raises(PageError, match=message):
        execute(page, "page.md")


def _resolve(name: str) -> object:
    """Return the object with a dotted name, as in `sdetools.exact.risk`."""
    found: object = st
    parts = name.split(".")
    for i, part in enumerate(parts[1:], 2):
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(".".join(parts[:i]))
    return found


def _public_names() -> set[str]:
    """Return every public name: those of all stubs, and those of the packages that list theirs in `__all__`."""
    names = {"sdetools.__version__"}
    for stub in (TOP / "sdetools").rglob("__init__.pyi"):
        package = ".".join(stub.relative_to(TOP).parts[:-1])
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                names |= {f"{package}.{alias.name}" for alias in node.names}
    for name in st.__all__:
        package = getattr(st, name)
        if isinstance(package, ModuleType):
            inner = getattr(package, "__all__", None) or [
                n
                for n, value in vars(package).items()
                if inspect.isfunction(value) and value.__module__ == package.__name__ and n[0] != "_"
            ]
            names |= {f"sdetools.{name}.{one}" for one in inner} if name not in ("recipes", "weak") else set()
    return names


def _documented(texts: list[str]) -> list[str]:
    return [name for text in texts for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]


def _missing(documented: list[str]) -> list[str]:
    """Return the public names without an entry; an object with several public names needs one."""
    objects = {id(_resolve(name)) for name in documented}
    known = (ModuleType, type)
    return sorted(
        name
        for name in _public_names() - set(documented)
        if not (isinstance(found := _resolve(name), known) or callable(found)) or id(found) not in objects
    )


def test_every_public_name_is_in_the_reference():
    documented = _documented([_text(page) for page in PAGES])
    assert len(documented) == len(set(documented)) > 250
    assert not _missing(documented)


@pytest.mark.parametrize(
    "name", ["sdetools.weak_gap", "sdetools.exact.risk", "sdetools.plots.INK", "sdetools.claims.BUDGETS", "sdetools.manifold"]
)
def test_a_name_without_an_entry_is_noticed(name):
    documented = _documented([_text(page) for page in PAGES])
    assert name in documented
    assert name in _missing([one for one in documented if one != name])


def test_theory_names_functions_and_claims_that_exist():
    """Every formula has its source, function and claim; the build checks the links."""
    for page in ("plain-sgd", "slow-clock", "least-squares", "adaptive", "integrators"):
        text = _text(f"theory/{page}.md")
        assert text.count("- Source:") == text.count("- Function:") == text.count("- Claim:") >= 5
        assert "](claims.md#" in text and "][sdetools." in text


def test_the_paper_cites_what_its_bibliography_has_and_has_the_length_of_one():
    """Every source is cited, every citation has its source, and every name in code is public."""
    head, text = _text("paper.md").split("---\n", 2)[1:]
    cited = set(re.findall(r"@([a-z]+\d{4})", text))
    assert cited == set(re.findall(r"^@\w+\{(\w+),", _text("paper.bib"), re.MULTILINE)) and len(cited) > 8
    assert "bibliography: paper.bib" in head and 500 < len(text.split()) < 1750
    names = set(re.findall(r"`([A-Za-z_]+)`", text)) - {"sdetools"}
    assert names and names <= set(st.__all__)


def test_the_citation_has_the_version_and_the_licence():
    text = (TOP / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {st.__version__}\n" in text and f"\nlicense: {project['license']}\n" in text
    assert text.startswith("cff-version: 1.2.0\n") and all(f"\n{key}:" in text for key in ("message", "title", "authors"))


def _build(tree: Path, site: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SDETOOLS_DOCS_CACHE": str(cache), "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, check=False)


class _Page(html.parser.HTMLParser):
    """What a page of the site links to, what it loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif values.get("src"):
            self.loads.append(values["src"])
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values.get("href", ""))


def _site(place: Path) -> dict[str, _Page]:
    """Build the site in a folder, and return its files by name."""
    done = _build(TOP, place, CACHE)
    assert done.returncode == 0, done.stdout + done.stderr
    styles = "".join(file.read_text(encoding="utf-8") for file in place.rglob("*.css"))
    assert not re.search(r"url\(['\"]?(https?:)?//", styles)
    files = {file.relative_to(place).as_posix(): "" for file in place.rglob("*") if file.is_file()}
    return {name: _Page((place / name).read_text(encoding="utf-8") if name.endswith(".html") else "") for name in files}


def _broken_links(site: dict[str, _Page]) -> list[str]:
    broken = []
    for name, page in site.items():
        for link in page.links + page.loads:
            if re.match(r"[a-z]+:|//", link) or name == "404.html":
                continue
            path, _, anchor = unquote(link).partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            target = "index.html" if target == "." else target
            if target not in site or (anchor and anchor not in site[target].anchors and not anchor.startswith("__")):
                broken.append(f"{name}: {link}")
    return broken


@pytest.mark.documents
def test_the_site_has_every_public_name_and_its_links_hold_and_nothing_is_loaded_from_another_host(tmp_path):
    pytest.importorskip("mkdocs"), pytest.importorskip("mkdocstrings")
    pytest.importorskip("torch"), pytest.importorskip("sklearn")
    site = _site(tmp_path)
    for page in PAGES:
        for name in _documented([_text(page)]):
            assert name in site[page.removesuffix(".md") + ".html"].anchors, name
    assert len(site) > 100 and sum(len(page.links) for page in site.values()) > 2_000
    assert not _broken_links(site)
    assert not [(name, load) for name, page in site.items() for load in page.loads if re.match(r"(https?:)?//", load)]
    sample = dict(site) | {"x.html": _Page('<a href="no.html">a</a><a href="index.html#no">b</a><a href="index.html">c</a>')}
    assert _broken_links(sample) == ["x.html: no.html", "x.html: index.html#no"]


GOOD = "# A page\n\n```python\nimport sdetools as st\n\nprint(st.__version__)\n```\n\n[a link](names.md#sdetools.losses.quadratic), $x^2$\n"
BREAKS = {
    "nothing": ("", "", ""),
    "an example": ("print(st.", "print(st.no_such_name, st.", "page.md, line 6: AttributeError"),
    "a link": ("names.md", "no-such-page.md", "link 'no-such-page.md"),
    "an anchor": ("#sdetools.losses.quadratic", "#no-such-anchor", "no-such-anchor"),
    "a name in the reference": ("quadratic\n    options", "no_such_name\n    options", "no_such_name"),
    "a formula": ("$x^2$", "$x^2^2$", "not a formula"),
    "a command in a formula": ("$x^2$", "$\\nosuch x$", "not a formula"),
}


@pytest.mark.documents
@pytest.mark.parametrize("what", BREAKS)
def test_the_strict_build_fails_on_what_is_broken(what, tmp_path):
    """The configuration and tools are the site's own, with two pages; without a break the build passes."""
    pytest.importorskip("mkdocs"), pytest.importorskip("mkdocstrings")
    tree, (old, new, message) = tmp_path / "tree", BREAKS[what]
    (tree / "docs").mkdir(parents=True)
    shutil.copytree(DOCS / "tools", tree / "docs" / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(DOCS / "assets", tree / "docs" / "assets")
    (tree / "sdetools").symlink_to(TOP / "sdetools")
    settings = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    (tree / "mkdocs.yml").write_text(settings[: settings.index("\nnav:\n")] + "\nnav: [page.md, names.md]\n", encoding="utf-8")
    pages = {"page.md": GOOD, "names.md": "# Names\n\n::: sdetools.losses.quadratic\n    options:\n      heading_level: 2\n"}
    assert not old or sum(text.count(old) for text in pages.values()) == 1
    for name, text in pages.items():
        (tree / "docs" / name).write_text(text.replace(old, new) if old else text, encoding="utf-8")
    done = _build(tree, tmp_path / "site", tmp_path / "cache")
    assert (done.returncode == 0) == (what == "nothing"), done.stdout + done.stderr
    assert message in done.stdout + done.stderr
