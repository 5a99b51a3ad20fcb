"""Tests of the report page, its formulas and its plots."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from sdetools import Estimate
from sdetools.claims import Claim, ClaimContext, Results
from sdetools.claims.deciding import deciding
from sdetools.claims.record import svg_text
from sdetools.claims.verdict import Outcome, flagged, judge
from sdetools.estimates import ConfidenceInterval
from sdetools.plots import gap_curve, loglog_orders
from sdetools.report import render, typeset, write
from sdetools.report.images import compact_svg, data_url
from sdetools.report.page import interval_bar

HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(1)> & '{{ 7*7 }}' %s \\"""
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """A parser that checks the nesting of tags and collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def estimate(value: float, half: float, n: int = 1000, diverged: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        value=value,
        low=value - half,
        high=value + half,
        n=n,
        diverged=diverged,
        confidence_interval=lambda level: ConfidenceInterval(value - half, value + half, level),
    )


def results(*writers, statement: str = r"The gap is $O(\sqrt{\eta / (1 - \beta)})$.", source: str = "Theorem 3.5") -> Results:
    outcomes = []
    for i, write_down in enumerate(writers):
        run = ClaimContext(f"claim-{i}")
        write_down(run)
        outcomes.append(Outcome(Claim(run.id, statement, source, write_down, Path("c.py"), 1), run.record, run.seed, seconds=1.5))
    judged = tuple(judge(outcome, outcome if flagged(outcome) else None) for outcome in outcomes)
    return Results("1.0", 0, "quick", judged)


def full(run: ClaimContext) -> None:
    run.measure("order", estimate(1.0, 0.05), expected=1.0, tolerance=0.2)
    run.measure("gap", estimate(0.01, 0.002, diverged=4), at_most=0.05)
    run.measure("exact", 0.3, at_least=0.1)
    run.measure("undefined", math.nan, expected=0.0, tolerance=1.0)
    with run.control("a wrong rate $2\\eta$"):
        run.measure("order", estimate(2.0, 0.05), expected=1.0, tolerance=0.2)
    run.figure("gaps", loglog_orders([0.1, 0.05], [0.2, 0.1]), r"Gaps against $\eta$.")
    run.table("values", [[0.1, 12], [0.05, 13]], [r"$\eta$", "n"])
    run.note("A note.")


def test_the_page_contains_all_results_and_tags_nest():
    page = Page(render(results(full)))
    for words in (
        "claim-0",
        "Theorem 3.5",
        "inconclusive",
        "a wrong rate",
        "failed, as it must",
        "4 diverged",
        "Gaps against",
        "A note.",
    ):
        assert words in page.text
    for words in ("1.000", "[0.950, 1.050]", "1 ± 0.2", "≤ 0.05", "≥ 0.1", "not a number", "1.5 s"):
        assert words in page.text
    assert sum(tag == "math" for tag, _ in page.tags) >= 4
    (alt,) = (attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert re.match(
        r"gaps\. Horizontal: eta, from [\d.]+ to [\d.]+, logarithmic\. Vertical: weak gap, from .*, logarithmic\. ", alt
    )


def test_the_page_has_no_external_resources():
    text = render(results(full, full))
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r'src="data:[^"]*"', "", text))
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert {"link", "iframe", "object", "base"} & set(tags) == set() and tags.count("script") == 1
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    # The browser runs only the script with this hash.
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#" if tag == "a" else "data:image/svg+xml,")
        assert not any(name.startswith("on") for name in attributes)


def test_failures_come_first_and_are_open():
    """The order of the verdicts is that of the page, whatever the order of the claims, and counts link to their sections."""
    wanted = [lambda run: run.measure("q", 1.0, at_most=2.0), lambda run: run.measure("q", math.nan, at_most=2.0)]
    found = results(*wanted, lambda run: run.measure("q", 3.0, at_most=2.0), wanted[0])
    page = Page(render(found))
    claims = [a for tag, a in page.tags if tag == "details" and "claim" in (a["class"] or "").split()]
    assert [(a["id"], a["data-verdict"], "open" in a) for a in claims] == [
        ("claim-2", "contradicted", True),
        ("claim-1", "inconclusive", True),
        ("claim-0", "supported", False),
        ("claim-3", "supported", False),
    ]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links == ["#_contradicted", "#_inconclusive", "#_supported"]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids) and {link[1:] for link in links} <= set(ids)
    # The filter is of use only with JavaScript, which removes the attribute.
    assert [("hidden" in a) for tag, a in page.tags if tag == "form"] == [True]
    assert page.text.index("Worst interval") < page.text.index("What would decide") < page.text.index("How to read")


def test_supported_claims_are_listed_by_file():
    found = results(*[lambda run: run.measure("q", 1.0, at_most=2.0)] * 3)
    places = ["b.py", "a.py", "b.py"]
    claims = tuple(dataclasses.replace(item, file=file) for item, file in zip(found.claims, places, strict=True))
    text = render(dataclasses.replace(found, claims=claims))
    order = re.findall(r'<h2 id="_file_\d+">([^ ]+)|<details class="claim supported" id="([^"]+)"', text)
    assert [file or claim for file, claim in order] == ["b.py", "claim-0", "claim-2", "a.py", "claim-1"]


def test_the_worst_interval_is_the_farthest_outside():
    def wide(run):
        run.measure("near", estimate(1.3, 0.05), expected=1.0, tolerance=0.2)
        run.measure("far", estimate(2.0, 0.05), expected=1.0, tolerance=0.2)
        run.measure("open", estimate(1.0, 5.0), expected=1.0, tolerance=0.2)

    def powerless(run):
        run.measure("q", 1.0, at_most=2.0)
        with run.control("the same"):
            run.measure("q in it", 1.5, at_most=2.0)

    contradicted, open_, fine = results(wide, powerless, lambda run: run.measure("q", 1.0, at_most=2.0)).claims
    assert (contradicted.verdict, contradicted.worst.name) == ("contradicted", "far")
    # far: [1.95, 2.05] lies at [4.75, 5.25] where the tolerance is [-1, 1].
    assert contradicted.worst.excess == pytest.approx(4.25)
    assert (open_.verdict, open_.worst.name) == ("inconclusive", "q in it")
    assert fine.worst is None and fine.measurements[0].excess == pytest.approx(-0.5)


def _deciding(*writers) -> list[tuple[str, ...]]:
    found = results(*writers)
    return [deciding(dataclasses.replace(item, file="c.py"), found) for item in found.claims]


def test_what_would_decide():
    def diverged(run):
        run.measure("q", estimate(1.0, 0.01, diverged=3), expected=1.0, tolerance=0.2)

    def powerless(run):
        run.measure("q", 1.0, at_most=2.0)
        with run.control("same"):
            run.measure("q", 1.5, at_most=2.0)

    few, seeds, loose, control, edge, number, outside = _deciding(
        # Half of the interval is 3 times the tolerance, so 9 times the paths are needed: those of the budget standard.
        lambda run: run.measure("q", estimate(1.0, 0.6), expected=1.0, tolerance=0.2),
        lambda run: run.measure("q", Estimate(1.0, 0.01, 5), expected=1.0, tolerance=0.2),
        diverged,
        powerless,
        lambda run: run.measure("q", estimate(1.2, 0.1), expected=1.0, tolerance=0.2),
        lambda run: run.measure("q", math.nan, at_most=1.0),
        lambda run: run.measure("q", 3.0, at_most=1.0),
    )
    assert few == (
        "q: about 9,000 paths would decide, and it has 1,000. The budget standard has enough.",
        "sdetools verify c.py --only claim-0 --budget standard",
    )
    assert seeds[0].startswith("q: 12 values, such as seeds")
    assert loose[0].startswith("The diverged paths would have to stay finite")
    assert control[0].startswith("The control same has no power")
    assert edge[0].startswith("q: no number of paths, since it lies on the edge")
    assert number[0].startswith("q: no number of paths, since it is not a finite number")
    assert outside[0].startswith("The number has no sampling error") and outside[1] == "sdetools verify c.py --only claim-6"
    assert _deciding(lambda run: run.measure("q", 1.0, at_most=2.0)) == [()]


def test_a_contradiction_by_draws_asks_for_another_seed():
    (found,) = _deciding(lambda run: run.measure("q", Estimate(3.0, 0.01, 1000), at_most=1.0))
    assert found[0].startswith("Fresh draws agree") and found[1] == "sdetools verify c.py --only claim-0 --seed 1"


def test_an_image_is_smaller_and_has_the_same_marks():
    svg = svg_text(loglog_orders([0.1, 0.05], {"$x^2$": [0.2, 0.1], "y": [0.3, 0.2]}))
    small = compact_svg(svg)
    assert len(small) < 2 / 3 * len(svg)
    old, new = (ElementTree.fromstring(text) for text in (svg, small))
    for tag in ("path", "use"):
        assert sum(node.tag.endswith(f"}}{tag}") for node in old.iter()) == sum(
            node.tag.endswith(f"}}{tag}") for node in new.iter()
        )
    ids = {node.get("id") for node in new.iter()}
    assert {node.get("href")[1:] for node in new.iter() if node.get("href")} <= ids
    assert set(re.findall(r"url\(#(.+?)\)", small)) <= ids
    assert {node.get("class") for node in new.iter()} - {None} == set(re.findall(r"\.(c\d+)\{", small))
    # As a URL it is the same text again.
    assert unquote(html.unescape(data_url(svg)).partition(",")[2]).replace("'", '"') == small


def test_hostile_text_is_escaped():
    def hostile(run):
        run.measure(HOSTILE, 1.0, at_most=2.0)
        with run.control(HOSTILE):
            run.measure(HOSTILE, 3.0, at_most=2.0)
        run.table(HOSTILE, [[HOSTILE, 1]], [HOSTILE, "n"])
        run.note(HOSTILE)
        run.figure(HOSTILE, gap_curve([0, 1], [0, 1]), HOSTILE)

    found = results(hostile, statement=HOSTILE + r" $\href{javascript:alert(1)}{x}$ $<script>$", source=HOSTILE)
    page = Page(render(found))
    assert [tag for tag, _ in page.tags if tag in ("script", "iframe")] == ["script"]
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert not any(
        name.startswith("on") or "javascript" in (value or "")
        for _, a in page.tags
        for name, value in a.items()
        if name not in ("aria-label", "alt", "data-words")
    )
    assert "49" not in page.text.split("How to read")[0].replace(str(found.claims[0].seed), "")
    broken = Outcome(
        Claim("b", "s", "", print, Path("c.py"), 1),
        ClaimContext("b").record,
        1,
        verdict="error",
        reason=HOSTILE,
        traceback=HOSTILE,
    )
    page = Page(render(Results("1", 0, "quick", (judge(broken),))))
    assert "<script>alert(1)</script>" in page.text


def test_every_verdict_has_a_label_a_symbol_and_a_class():
    text = render(
        results(
            lambda run: run.measure("q", 1.0, at_most=2.0),
            lambda run: run.measure("q", 3.0, at_most=2.0),
            lambda run: run.measure("q", math.nan, at_most=2.0),
        )
    )
    for sign, word in (("✓", "supported"), ("✗", "contradicted"), ("?", "inconclusive")):
        assert f'<span class="badge {word}"><span aria-hidden="true">{sign}</span> {word}</span>' in text
        assert f'href="#_{word}"><b>1</b> {word}</a>' in text


def test_formulas_are_typeset_in_reasons_but_not_in_errors():
    text = render(results(lambda run: run.measure(r"order of $\eta$", 3.0, at_most=2.0)))
    assert "$" not in text
    broken = Outcome(
        Claim("b", "s", "", print, Path("c.py"), 1), ClaimContext("b").record, 1, verdict="error", reason="KeyError: '$HOME$'"
    )
    assert "KeyError: &#39;$HOME$&#39;" in render(Results("1", 0, "quick", (judge(broken),)))


def test_a_run_without_claims_has_a_page():
    Page(render(Results("1", 0, "quick", ())))


def test_write(tmp_path):
    found = results(full)
    path = write(found, tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render(found)
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain & <b>", ["plain &amp; &lt;b&gt;"]),
        (r"order $\eta^{1/2}$ at rate $\beta$", ["<msup>", "<mi>η</mi>", "<mi>β</mi>"]),
        (r"$$\max_k |\mathbb{E} h(x_k)|$$", ['display="block"', "<munder><mo>max</mo>"]),
        (r"\emph{sharp} and \textbf{bold}, 5\% of \$3", ["<em>sharp</em>", "<strong>bold</strong>", "5% of $3"]),
        ("pages 3--5", ["3–5"]),
        (r"bad $\frac{$ formula", [r"<code>\frac{</code>"]),
        ("", [""]),
    ],
)
def test_typeset(text, pieces):
    out = str(typeset(text))
    for piece in pieces:
        assert piece in out
    Page(out)
    assert "xmlns" not in out


@pytest.mark.parametrize(
    "formula",
    [
        r"\bar\eta_k = (1 - \beta_k) \sum_{s \ge k} \eta_s \prod_{t=k+1}^{s} \beta_t",
        r"\mathrm{d}X_t = -\lambda_t(\nabla L(X_t)\,\mathrm{d}t + \sigma\sqrt{\eta}\,\Sigma^{1/2}(X_t)\,\mathrm{d}W_t)",
        r"\max_{k \le T/\eta} \left|\mathbb{E}\,h(x_k) - \mathbb{E}\,h(z_k)\right| \le C\,\eta^{(1-\alpha)/2}",
        r"\partial\Phi(X)\Sigma^{1/2}, \quad \tfrac12 \partial^2\Phi(X)[\Sigma]",
        r"\operatorname{tr}(H) \approx \widehat{H}, \ \text{for all } x \in \Gamma, \ \|x\|^2",
        r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
    ],
)
def test_the_formulas_of_the_field_are_typeset(formula):
    out = str(typeset(f"${formula}$"))
    assert out.startswith("<math")
    assert "<code>" not in out
    assert "\\" not in Page(out).text


def test_interval_bars_stay_within_the_figure():
    def measured(value, half, **criterion):
        return results(lambda run: run.measure("q", estimate(value, half), **criterion)).claims[0].measurements[0]

    cases = [
        measured(1.0, 0.1, expected=1.0, tolerance=0.5),
        measured(1e6, 0.1, expected=1.0, tolerance=0.5),
        measured(1.0, 1e6, expected=1.0, tolerance=1e-6),
        measured(1.0, 0.1, at_most=2.0),
        measured(1.0, 0.1, at_least=2.0),
        measured(0.0, 0.0, at_most=0.0),
        measured(math.nan, 0.1, at_most=0.0),
        measured(1.0, math.inf, expected=1.0, tolerance=0.1),
    ]
    for item in cases:
        svg = str(interval_bar(item))
        Page(svg)
        assert "nan" not in svg
        marks = re.findall(r'\bcx="([^"]*)"', svg) + re.findall(r"[MH]([-\d.]+)", "".join(re.findall(r' d="([^"]*)"', svg)))
        assert marks and all(-0.1 <= float(x) <= 220.2 for x in marks)


def test_plots_are_reproducible():
    def draw():
        return loglog_orders(
            [0.1, 0.05, 0.025],
            {"$x^2$": [0.2, 0.11, 0.06], "|x|": [0.3, 0.2, 0.001]},
            low={"$x^2$": [0.19, 0.1, 0.05], "|x|": [0.25, 0.15, -0.01]},
            high={"$x^2$": [0.21, 0.12, 0.07], "|x|": [0.35, 0.25, 0.02]},
            exact={"$x^2$": [0.2, 0.1, 0.05]},
        )

    assert svg_text(draw().figure) == svg_text(draw().figure)
    assert "<dc:date>" not in svg_text(draw().figure)


def test_plots_do_not_change_global_state():
    import matplotlib

    before = dict(matplotlib.rcParams)
    svg_text(
        gap_curve(
            [0, 1, 2], {"a": [0, 1, 0.5]}, low={"a": [0, 0.9, 0.4]}, high={"a": [0, 1.1, 0.6]}, exact={"a": [0, 1, 0.5]}
        ).figure
    )
    assert dict(matplotlib.rcParams) == before


def test_an_unresolved_point_is_drawn_hollow():
    axes = loglog_orders([0.1, 0.05], [0.2, 0.01], low=[0.1, -0.01], high=[0.3, 0.03])
    faces = {line.get_markerfacecolor(): len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"}
    assert faces["white"] == 1


@pytest.mark.parametrize(("draw", "axis"), [(loglog_orders, [0.1, 0.05]), (gap_curve, [0.0, 1.0])])
def test_plots_refuse_different_lengths(draw, axis):
    with pytest.raises(ValueError, match="`values` must have 2 entries"):
        draw(axis, [1.0])
    with pytest.raises(ValueError, match="`low` must have 2 entries"):
        draw(axis, [1.0, 2.0], low=np.ones(3))


def test_a_logarithmic_axis_needs_positive_step_sizes():
    with pytest.raises(ValueError, match="`etas` must be positive step sizes"):
        loglog_orders([0.1, 0.0], [1.0, 1.0])


def test_a_plot_without_resolved_points():
    svg_text(loglog_orders([0.1, 0.05], [-0.1, 0.0]))


def test_a_run_of_all_claims_has_a_page_below_two_and_a_half_megabytes():
    """With the numbers of this project's own claims: 90, with 25 measurements each, and 40 figures of two curves with bands."""

    def large(run):
        for i in range(25):
            run.measure(
                f"gap of x**2 at eta=1/{2**i}, beside Definitions 2.2 and 2.3", estimate(1.0, 0.05), expected=1.0, tolerance=0.2
            )
        curves = {"$x^2$": np.linspace(0.2, 0.1, 5), "$|x|$": np.linspace(0.3, 0.1, 5)}
        low, high = ({name: factor * v for name, v in curves.items()} for factor in (0.9, 1.1))
        run.figure("gaps", loglog_orders(0.1 / 2.0 ** np.arange(5), curves, low, high), r"Gaps against $\eta$.")

    (one,) = results(large).claims
    claims = [dataclasses.replace(one, id=f"claim-{i}", figures=one.figures if i < 40 else ()) for i in range(90)]
    page = render(Results("1.0", 0, "quick", tuple(claims)))
    assert page.count("<img ") == 40 and page.count('<th scope="row">') == 90 * 25
    assert len(page.encode()) < 2_500_000
