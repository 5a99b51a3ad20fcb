"""Rules of the project: imports between packages, cost of an import, documentation, pinned dependencies, the two commands."""

import ast
import dataclasses
import functools
import importlib
import inspect
import os
import re
import runpy
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdetools as st
from sdetools.studies.execution import ExecutionOptions

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "sdetools"

BELOW_DYNAMICS = {"graph", "losses", "noise", "schedules", "starts", "manifold"}
BELOW_STUDIES = BELOW_DYNAMICS | {"dynamics", "estimates", "exact", "results", "simulation"}
ALLOWED_IMPORTS = {
    "graph": set(),
    "losses": {"graph"},
    "noise": {"graph", "losses"},
    "schedules": set(),
    "starts": {"graph", "losses", "noise"},
    "manifold": {"graph", "losses", "noise"},
    "dynamics": BELOW_DYNAMICS,
    "simulation": BELOW_DYNAMICS | {"dynamics"},
    "exact": BELOW_DYNAMICS | {"dynamics", "results"},
    "estimates": set(),
    "results": set(),
    "studies": BELOW_STUDIES,
    "claims": BELOW_STUDIES | {"studies"},
    "bridge": BELOW_STUDIES | {"claims", "studies"},
    "benchmarking": BELOW_STUDIES | {"claims", "studies", "top level"},
    "recipes": BELOW_STUDIES | {"bridge", "claims", "studies"},
    "plots": set(),
    "_arrays": {"graph"},
    "_check": set(),
    "_identity": set(),
    "_install": set(),
    "_lazy": set(),
    "_compiled": set(),
    "_machine_code": set(),
    "_moved": set(),
    "_version": set(),
}
"""The packages from which each package may import; packages that are not listed (the report, the commands) may import from all."""
UNRESTRICTED = {
    "plots",
    "_arrays",
    "_check",
    "_compiled",
    "_identity",
    "_install",
    "_lazy",
    "_machine_code",
    "_moved",
    "_version",
}
HEAVY_DEPENDENCIES = {"sympy", "numba", "xarray", "pandas", "matplotlib", "torch", "scipy.stats"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".html", ".css", ".json", ""}
TORCH_PACKAGES = {"torch", "torchsde", "torchvision", "transformers"}


def _subpackage(module: str) -> str:
    return [*module.split("."), "top level"][1]


def _imports(text: str, module: str, is_package: bool, known: set[str]) -> Iterator[tuple[str, int]]:
    """Yield the modules that the source of a file imports, also within functions, with their lines."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield (f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base), node.lineno


def _modules() -> dict[str, Path]:
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(TOP).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _forbidden_imports(module: str, text: str, is_package: bool, known: set[str]) -> list[str]:
    package = _subpackage(module)
    wrong = []
    for target, line in _imports(text, module, is_package, known):
        other = _subpackage(target)
        allowed = ALLOWED_IMPORTS.get(package)
        if (
            target.split(".")[0] == "sdetools"
            and other != package
            and allowed is not None
            and other not in allowed | UNRESTRICTED
        ):
            wrong.append(f"{module}, line {line}: {package} imports {other}")
    return wrong


def test_packages_import_only_from_allowed_packages():
    modules = _modules()
    wrong = [
        row
        for name, file in modules.items()
        for row in _forbidden_imports(name, file.read_text(encoding="utf-8"), file.name == "__init__.py", set(modules))
    ]
    assert not wrong, "\n".join(wrong)


def _import_cycle(imports: dict[str, set[str]]) -> list[str]:
    """Return the files of import cycles: those that remain when files without imports of remaining files are removed repeatedly."""
    left = dict(imports)
    while done := {name for name, known in left.items() if not known & left.keys()}:
        left = {name: known for name, known in left.items() if name not in done}
    return sorted(left)


def _imports_within(package: str) -> dict[str, set[str]]:
    """Return the files of a package that each of its files imports, also within functions; `__init__.py` is not counted."""
    modules = {name: file for name, file in _modules().items() if _subpackage(name) == package and file.name != "__init__.py"}
    texts = {name: file.read_text(encoding="utf-8") for name, file in modules.items()}
    return {
        name: {target for target, _ in _imports(text, name, False, set(modules))} & modules.keys() for name, text in texts.items()
    }


@pytest.mark.parametrize("package", [p.name for p in sorted(PACKAGE.iterdir()) if (p / "__init__.py").exists()])
def test_files_of_a_package_have_no_import_cycle(package):
    assert not _import_cycle(_imports_within(package))


def test_every_package_is_in_the_table_of_imports():
    packages = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    above = {"__main__", "cli", "pytest_plugin", "report", "weak"}  # may import from all packages
    assert packages == set(ALLOWED_IMPORTS) | above


def test_no_file_is_longer_than_400_lines():
    long = {name: n for name, file in _modules().items() if (n := len(file.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long


def _private_imports(module: str, text: str) -> list[str]:
    """Return the private names of other packages that a file uses, by an import or as an attribute of an imported module."""
    found, modules = [], {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sdetools":
            for alias in node.names:
                other = _subpackage(f"{node.module}.{alias.name}")
                if other != _subpackage(module):
                    modules[alias.asname or alias.name] = other
                    if alias.name.startswith("_") and alias.name != "__version__" and node.module != "sdetools":
                        found.append(f"{module}, line {node.lineno}: {node.module}.{alias.name}")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
            and node.attr[0] == "_" != node.attr[1]
        ):
            found.append(f"{module}, line {node.lineno}: {node.value.id}.{node.attr}")
    return found


@pytest.mark.slow
def test_no_package_imports_private_names_of_another():
    assert not [row for name, file in _modules().items() for row in _private_imports(name, file.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("text", ["from sdetools.noise.base import _draw", "from sdetools.noise import base\n\nbase._draw()"])
def test_a_private_import_is_detected(text):
    assert _private_imports("sdetools.studies.new", text)
    assert not _private_imports("sdetools.noise.new", text)


def test_no_two_files_or_classes_share_a_name():
    """Exceptions: `base.py`, commands named after the function they run, torch forms of rules, and `Settings` of recipes."""
    files: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    for name, file in _modules().items():
        if file.stem not in ("__init__", "base") and _subpackage(name) != "cli":
            files.setdefault(file.stem, []).append(name)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.ClassDef)
                and node.name[0] != "_"
                and not (_subpackage(name) == "bridge" and file.name.startswith("torch_"))
                and (_subpackage(name), node.name) != ("recipes", "Settings")
            ):
                classes.setdefault(node.name, []).append(name)
    assert not {name: places for name, places in (files | classes).items() if len(places) > 1}
    assert len(files) > 100 and len(classes) > 100


def test_an_import_cycle_is_detected():
    assert _import_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set(), "e": {"d"}}) == ["a", "b", "c"]
    assert not _import_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_rules_and_sdes_import_neither_each_other_nor_integrators():
    may = {"rules": {"rules", "base"}, "sdes": {"sdes", "base"}, "integrators": {"integrators", "sdes", "base"}, "base": set()}
    may |= {"catalogue": {"rules", "sdes", "integrators"}, "arguments": {"base"}}
    wrong = [
        (name, target)
        for name, targets in _imports_within("dynamics").items()
        for target in targets
        if target.split(".")[2] not in may[name.split(".")[2]]
    ]
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "from sdetools.studies import simulate",
        "from ..dynamics import SGD",
        "import sdetools as st",
        "def f():\n    from .. import studies",
    ],
)
def test_a_forbidden_import_is_detected(text):
    assert _forbidden_imports("sdetools.losses.new", text, False, {"sdetools.studies", "sdetools.dynamics"})


def test_torch_is_imported_only_in_allowed_files():
    wrong = []
    for name, file in _modules().items():
        may = file.name.startswith("torch") or {"bridge", "recipes"} & {*file.parts}
        targets = {target.split(".")[0] for target, _ in _imports(file.read_text(encoding="utf-8"), name, True, set())}
        if not may and targets & TORCH_PACKAGES:
            wrong.append(name)
    assert not wrong


def _output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP, check=True)
    return done.stdout.strip()


def test_import_is_fast_and_loads_no_heavy_dependency():
    code = "import sys, time; t = time.process_time(); import sdetools; print(time.process_time() - t, *sys.modules)"
    # Processor time, the least of three, because the machine may be busy.
    seconds, loaded = min((float(words[0]), words[1:]) for words in (_output_of(code).split() for _ in range(3)))
    assert seconds < 1.5
    assert not HEAVY_DEPENDENCIES & set(loaded)


def test_every_public_name_exists_and_is_listed():
    for name in st.__all__:
        assert getattr(st, name) is not None
    assert set(st.__all__) <= set(dir(st))
    # The stub that a type checker reads lists exactly the names that are loaded, each once and under its own name.
    for stub in PACKAGE.rglob("__init__.pyi"):
        names = [
            alias
            for node in ast.parse(stub.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        assert all(alias.name == alias.asname for alias in names) and len({alias.name for alias in names}) == len(names)
        package = importlib.import_module(".".join(stub.relative_to(TOP).parts[:-1]))
        assert sorted(alias.name for alias in names) == package.__all__


def _public() -> Iterator[tuple[str, object]]:
    yield "st", st
    for name in sorted(set(dir(st)) - {"report", "plots", "recipes"}):  # they have tests of their own
        thing = getattr(st, name)
        yield f"st.{name}", thing
        if inspect.ismodule(thing):
            for inner in getattr(
                thing, "__all__", [n for n, v in vars(thing).items() if getattr(v, "__module__", "") == thing.__name__]
            ):
                if not inner.startswith("_"):
                    yield f"st.{name}.{inner}", getattr(thing, inner)


def test_every_public_name_has_a_docstring():
    lacking = [name for name, thing in _public() if not _docstring(thing)]
    assert not lacking, ", ".join(lacking)


def test_every_public_method_of_a_public_class_has_a_docstring():
    """A method without a docstring inherits that of the method it overrides."""
    lacking = [
        f"{name}.{method}"
        for name, thing in _public()
        if inspect.isclass(thing) and thing.__module__.startswith("sdetools")
        for method, own in vars(thing).items()
        if method[0] != "_" and (inspect.isfunction(own) or isinstance(own, (property, classmethod, staticmethod)))
        if not inspect.getdoc(getattr(thing, method))
    ]
    assert not lacking, ", ".join(lacking)


def _docstring(thing: object) -> str:
    text = inspect.getdoc(thing) or ""
    # The signature that dataclasses generate as a docstring does not count.
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else text


def test_every_public_function_has_an_example():
    # These take files of claims; the blocks of the documents and tests/claims run them.
    on_files = {"st.verify", "st.claims.verify", "st.claims.collect", "st.claims.select"}
    functions = [(name, thing) for name, thing in _public() if inspect.isfunction(thing) and name not in on_files]
    assert len(functions) > 40
    lacking = [name for name, thing in functions if ">>>" not in (thing.__doc__ or "")]
    assert not lacking, ", ".join(lacking)


SIMULATING = (
    *("exit_time", "extrapolate", "multilevel", "order_study", "simulate"),
    *("slow_study", "stationary", "weak_gap", "work_precision"),
)
"""Functions that simulate and therefore take the options of `st.Execution`."""


def test_every_function_that_takes_options_of_execution_is_tested():
    taking = {
        name.rpartition(".")[2]
        for name, thing in _public()
        if inspect.isfunction(thing) and "execution" in inspect.signature(thing).parameters
    }
    assert taking == {*SIMULATING}


def test_public_signatures_accept_no_unknown_keywords():
    for name, thing in _public():
        if inspect.isfunction(thing):
            kinds = {p.name for p in inspect.signature(thing).parameters.values() if p.kind is p.VAR_KEYWORD}
            if name == "st.sweep":  # the parameters of the function, which are examined when it is called
                assert kinds == {"parameters"}
                continue
            assert kinds <= {"execution"}, name
            assert not kinds or typing.get_type_hints(thing)["execution"] == typing.Unpack[ExecutionOptions], name


def test_options_of_execution_are_the_same_for_all_functions():
    options = [f.name for f in dataclasses.fields(st.Execution)]
    for name in SIMULATING:
        function = getattr(st, name)
        hint = typing.get_type_hints(function)["execution"]
        assert [*typing.get_args(hint)[0].__annotations__] == options
        assert not {*inspect.signature(function).parameters} & {*options}
    # Documented once, in the dataclass, to which every function refers.
    assert all(f"        {name}: " in st.Execution.__doc__ for name in options)
    assert all(f"Options of `st.Execution`: {', '.join(options)}." in getattr(st, name).__doc__ for name in SIMULATING)


def _pair(eta: float) -> tuple[st.Dynamics, st.Dynamics]:
    oracle, plan = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1)), st.schedules.constant(eta=eta)
    return st.SGD(oracle, plan), st.SGD(oracle, plan)


VALLEY = st.NoisyOracle(st.losses.exponential_valley(), st.noise.gaussian(dim=2))
EULER = functools.partial(st.EulerMaruyama, st.SDE(drift=["-x"], diffusion=["1"], variables="x"))
CALLS = {
    "simulate": lambda **how: st.simulate(_pair(0.5)[0], [1.0], 1.0, 4, ["x0"], **how).table(),
    "weak_gap": lambda **how: st.weak_gap(*_pair(0.5), [1.0], 1.0, 4, ["x0"], **how).table(),
    "order_study": lambda **how: st.order_study(_pair, [0.5], [1.0], 1.0, 4, ["x0"], **how).table(),
    "extrapolate": lambda **how: st.extrapolate(EULER, 0.5, [1.0], 1.0, 4, ["x"], **how).table(),
    "exit_time": lambda **how: st.exit_time(EULER(0.5), [0.5], "x - 1", 4.0, 8, **how).table(),
    "stationary": lambda **how: st.stationary(EULER(0.5), [0.5], 40.0, 2, ["x"], **how).table(),
    "work_precision": lambda **how: st.work_precision([EULER], [0.5], [1.0], 1.0, 4, ["x"], expected=0.4, **how).table(
        seconds=False
    ),
    "multilevel": lambda **how: st.multilevel(EULER, [1.0], 1.0, 0.5, ["x"], **how).table(),
    "slow_study": lambda **how: st.slow_study(VALLEY, st.schedules.constant(eta=0.5), [0.0, 0.0], 0.5, 4, shown=0, **how).table(),
}


@pytest.mark.parametrize("name", SIMULATING)
def test_functions_that_simulate_accept_options_and_refuse_unknown_ones(name, tmp_path):
    with pytest.raises(TypeError, match="`thread`. Did you mean `threads`"):
        CALLS[name](thread=1)
    with pytest.raises(TypeError, match="Parameters are .*; options of execution are threads"):
        CALLS[name](colour=1)
    with pytest.raises(ValueError, match="`backend` must be"):
        CALLS[name](backend=3)
    with pytest.raises(ValueError, match="`resume` must be True or False; got 'yes'"):
        CALLS[name](resume="yes")
    plain = CALLS[name](backend="numpy")
    kept = tmp_path / "kept.sqlite"
    assert CALLS[name](**st.Execution(threads=1, backend="numpy", store=kept)) == plain
    assert CALLS[name](threads=3, backend="numpy", store=kept, resume=True) == plain


def _mypy(*files: Path) -> tuple[int, str]:
    pytest.importorskip("mypy", reason="mypy is not installed; it comes with the extra `test`")
    words = [sys.executable, "-m", "mypy", *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=TOP, env=os.environ | {"MYPYPATH": str(TOP)}, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_passes_and_reports_errors_of_a_user(tmp_path):
    code, output = _mypy()
    assert code == 0, output
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import sdetools as st\n\nplan = st.schedules.constant('0.1')\nst.SGD(1, plan)\n", encoding="utf-8")
    code, output = _mypy(wrong)
    assert code == 1 and "wrong.py:3:" in output and "wrong.py:4:" in output, output


def test_only_functions_compiled_by_numba_may_lack_annotations():
    loose = [o for o in _settings()["tool"]["mypy"]["overrides"] if not o.get("disallow_untyped_defs", True)]
    files = {name: _modules()[name].read_text(encoding="utf-8") for o in loose for name in o["module"]}
    compiler = {"numba", "sdetools._compiled"}
    assert files and not [n for n, text in files.items() if not compiler & {m for m, _ in _imports(text, n, False, set())}]


def _text_files() -> Iterator[Path]:
    """Yield every text file of the project that git lists; without git, every file outside hidden folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split("\0") if listed.returncode == 0 else [str(f.relative_to(TOP)) for f in TOP.rglob("*.*")]
    for name in names:
        file = TOP / name
        hidden = any(part.startswith(".") and part != ".ci" for part in Path(name).parts[:-1])
        if name and not hidden and file.is_file() and file.suffix in TEXT_SUFFIXES:
            yield file


def test_no_file_contains_a_path_of_a_machine():
    # Composed of parts, so that this file itself is not found.
    places = re.compile("|".join("/" + name + "/" for name in ("work", "root", "farm", "tmp/w", "home/[a-z]+")))
    found = [
        f"{file.relative_to(TOP)}, line {number}"
        for file in _text_files()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]
    assert not found, "\n".join(found)


def _settings() -> dict:
    return tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_defined_once():
    settings = _settings()
    assert "version" in settings["project"]["dynamic"]
    source = (TOP / settings["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    assert re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE).group(1) == st.__version__
    assert f"## {st.__version__}" in (TOP / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_contains_its_data_files():
    for name in ("py.typed", "report/template.html", "report/style.css", "report/filter.js"):
        assert (PACKAGE / name).is_file()


def _requirement(line: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", line).group(0).lower()


def test_all_packages_that_the_two_commands_install_are_pinned():
    project = _settings()["project"]
    extras = project["optional-dependencies"]
    wanted = {
        _requirement(line)
        for line in [
            *project["dependencies"],
            *(line for one in ("data", "docs", "test", "torch", "vision", "text") for line in extras[one]),
        ]
    }
    lines = [line for line in (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert wanted <= {_requirement(line) for line in lines}


def _blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (TOP / file).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_conda_recipe_has_the_version_and_the_dependencies_of_the_project():
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (TOP / ".ci" / "recipe.yaml").read_text(encoding="utf-8")
    run = re.search(r"^  run:\n((?:    - .*\n)+)", recipe, re.MULTILINE).group(1)
    assert [line[6:].replace(" ", "") for line in run.splitlines()] == [
        f"python{project['requires-python']}",
        *(one.replace(" ", "") for one in project["dependencies"]),
    ]
    assert f'version: "{st.__version__}"' in recipe


def test_the_two_commands_of_the_readme_and_the_ci_script_agree():
    lines = (line for block in _blocks("README.md", "sh") for line in block.splitlines() if line.startswith(".ci/install"))
    first, second, third = lines
    assert first.endswith("&& .venv/bin/sdetools verify paper_checks --budget quick --jobs 2")
    assert "&& .venv/bin/python -m pytest" in second and "&& .venv/bin/mkdocs build --strict" in third
    extras = _settings()["project"]["optional-dependencies"]
    assert all(set(line.split()[1].split(",")) <= set(extras) for line in (first, second, third))
    assert "-c constraints.txt" in (TOP / ".ci" / "install").read_text(encoding="utf-8")
    shown = subprocess.run([TOP / ".ci" / "run", "--show"], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == second
    assert all(os.access(TOP / ".ci" / name, os.X_OK) for name in ("run", "install", "release", "versions"))


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_the_code_in_the_documents_runs(file, tmp_path, monkeypatch, capsys):
    """Every block is a complete file; a block with claims is run by `verify`."""
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(file, "python")
    assert blocks
    for i, block in enumerate(blocks):
        path = tmp_path / f"block_{i}.py"
        path.write_text(block, encoding="utf-8")
        if "@st.claim" in block:
            results = st.verify(path)
            assert [item.verdict for item in results.claims] == ["supported"] * len(results.claims), results.claims
        else:
            runpy.run_path(str(path), run_name="__main__")
            printed = capsys.readouterr().out
            for line in re.findall(r"^# prints: (.+)$", block, re.MULTILINE):
                assert line in printed


def test_the_readme_lists_every_package():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    packages = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()} | {"schedules.py", "starts.py"}
    assert not [package for package in packages if f"`{package}" not in text]


def test_every_module_has_a_docstring():
    lacking = [name for name, file in _modules().items() if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert not lacking


WORDS = {
    "diverged, discarded": r"lost|first loss(es)?",
    "accumulated moments, record": r"came to|come to|books?",
    "input validation, boundary, input form": r"doors?",
    "context of a claim": r"hand that",
    "constant": r"for ever|held(?![-_]out)",
    "described, reported": r"told",
    "gather, reduce, accumulate": r"gathered",
    "stability limit": r"bears|thrown",
    "standard error, confidence level": r"surely|much",
    "figure, plot, image": r"pictures?",
    "transposed, permuted": r"turned",
    "weak_order=": r"weak=",
    "sharpness, eta lambda_max": r"stiffness(?! ratio)",
}
"""The project's glossary: words to write, and words that are not written in code, messages or documents."""
EARLIER = r"RenamedAttribute|EARLIER_NAMES|renamed_argument|DeprecationWarning|RENAMED|^\s*\"\w+\": \"\w+\",$"
"""Lines that name what has another name now; so does the line after one."""
FORWARDED = {
    "sdetools/simulation/clusters.py": "lost",
    "sdetools/studies/slow_clock.py": "picture",
    "tests/studies/test_studies_extrapolation.py": "weak=",
    "tests/studies/test_studies_multilevel.py": "weak=",
    "tests/studies/test_studies_saving.py": "lost",
}
"""Earlier names that these files forward or test, and a name in another package's settings."""


def _lines() -> Iterator[tuple[str, int, str]]:
    for path in sorted(TOP.rglob("*")):
        parts = path.relative_to(TOP).parts
        if (
            path.is_file()
            and path.suffix in {".py", ".pyi", ".md", ".html", ".toml"}
            and not any(p[0] == "." or p in ("dist", "build") for p in parts)
        ):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield "/".join(parts), number, line


@pytest.mark.slow
def test_the_glossary_is_kept():
    """But where earlier names are forwarded or the CHANGELOG says what has which name now."""
    found, before = [], ""
    for where, number, line in _lines():
        earlier, before = re.search(EARLIER, before) or re.search(EARLIER, line), line
        if where == "tests/test_project.py" or earlier:
            continue
        for instead, words in WORDS.items():
            for hit in re.finditer(rf"(?<![a-z])({words})(?![a-z])", line, re.IGNORECASE):
                if FORWARDED.get(where) != hit.group(0) and (
                    where != "CHANGELOG.md" or "`" not in line[hit.start() - 11 : hit.end() + 3]
                ):
                    found.append(f"{where}:{number}: {hit.group(0)!r} (write: {instead}): {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_modules_import_alone():
    for name in (
        "losses",
        "noise",
        "schedules",
        "starts",
        "dynamics",
        "estimates",
        "studies",
        "exact",
        "claims",
        "report",
        "plots",
    ):
        assert importlib.import_module(f"sdetools.{name}").__doc__


def test_imports_from_the_library_in_other_folders_exist():
    """Checks imports in claims, examples and benchmarks, also within functions, which may run for minutes before an import."""
    missing = []
    for file in (f for folder in ("paper_checks", "examples", "benchmarks") for f in sorted((TOP / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sdetools":
                package = importlib.import_module(node.module)
                missing += [
                    f"{file.name}, line {node.lineno}: {node.module}.{alias.name}"
                    for alias in node.names
                    if not hasattr(package, alias.name) and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
                ]
    assert not missing, "\n".join(missing)


def test_deprecated_names_work_with_a_warning():
    """Each module of `sdetools.weak` forwards the names of its successor; unknown names are an AttributeError."""
    from sdetools import weak

    names = {
        "distance": "distance",
        "gap": "weak_gap",
        "run": "simulate",
        "study": "order_study",
        "estimate": "quantile",
        "levels": "LevelSampler",
    }
    for old, name in names.items():
        package = importlib.import_module(f"sdetools.weak.{old}")
        with pytest.warns(DeprecationWarning, match=f"weak.{old}.{name}` is now `sdetools"):
            found = getattr(package, name)
        assert found.__module__.startswith(("sdetools.studies", "sdetools.estimates")) and found.__name__ == name
    with pytest.warns(DeprecationWarning, match="`sdetools.estimates.Estimate`"):
        assert weak.Estimate is st.Estimate
    from sdetools import bridge, claims

    homes = [home for new in (*weak.MOVED.values(), *bridge.MOVED.values()) for home in ([new] if isinstance(new, str) else new)]
    assert len(homes) > 30 and all(importlib.util.find_spec(f"sdetools.{home}") for home in homes)
    with pytest.warns(DeprecationWarning, match="`sdetools.recipes.training.TrainingTask`"):
        assert importlib.import_module("sdetools.bridge.training").Task.__name__ == "TrainingTask"
    with pytest.warns(DeprecationWarning, match="`sdetools.claims.context.ClaimContext`"):
        assert claims.Run is claims.ClaimContext
    for call in (lambda: importlib.import_module("sdetools.weak.gap").weak_gap, lambda: claims.Run, lambda: weak.Estimate):
        with pytest.warns(DeprecationWarning) as caught:
            call()
        assert caught[0].filename == __file__  # the warning points to the line that uses the old name
    with pytest.raises(AttributeError, match="no_such_name"):
        weak.no_such_name  # noqa: B018
