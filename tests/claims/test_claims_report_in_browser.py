"""The report in headless Chromium: what is on the first screen, and the filter. Skipped where Chromium is not installed."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sdetools.claims import Claim, ClaimContext, Results
from sdetools.claims.verdict import Outcome, judge
from sdetools.report import render

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is not installed (Debian: apt-get install chromium-headless-shell)"
)

STATEMENT = r"The gap is $O(\sqrt{\eta / (1 - \beta)})$ for every $h \in C^4$ with bounded derivatives, uniformly on $[0, T]$."


def claims(supported: int, contradicted: bool) -> Results:
    """Return results in which the contradicted claim is the last one."""
    judged = []
    for i in range(supported + contradicted):
        value, id = (3.0, "wrong-order") if i == supported else (1.0, f"fine-{i}")
        run = ClaimContext(id)
        for j in range(3):
            run.measure(f"quantity {j}", value, at_most=2.0)
        claim = Claim(id, STATEMENT, "Theorem 3.5", print, Path(f"file_{i // 4}.py"), 1)
        judged.append(replace(judge(Outcome(claim, run.record, run.seed, seconds=1.0)), seconds=float(i)))
    return Results("1.0", 0, "quick", tuple(judged))


def seen(page: str, width: int, height: int, script: str, folder: Path) -> dict:
    """Return the value of an expression of JavaScript of `page`, the document in a frame of this size, and `box`, an element's edges in it."""
    wrapper = folder / "wrapper.html"
    frame = f'<iframe id="frame" width="{width}" height="{height}" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
    code = f"""
      const frame = document.getElementById("frame");
      function look() {{
        const page = frame.contentDocument, box = (one) => one.getBoundingClientRect().toJSON();
        document.getElementById("found").textContent = JSON.stringify({script});
      }}
      frame.addEventListener("load", look);
    """
    wrapper.write_text(f'<!DOCTYPE html><pre id="found"></pre>{frame}<script>{code}</script>', encoding="utf-8")
    words = [
        BROWSER,
        "--headless",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width + 100},{height + 100}",
    ]
    words += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    words += ["--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL).group(1)))


BOXES = """({
  badge: box(page.querySelector("details.claim.contradicted .badge")),
  name: box(page.querySelector("#wrong-order h3")),
  interval: box(page.querySelector("#wrong-order .worst svg")),
  last: box(page.querySelector("#fine-88 h3")),
  overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
})"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 800)])
def test_a_contradicted_claim_is_on_the_first_screen(width, height, tmp_path):
    """Its verdict, its name and its worst interval; the last of 89 supported claims is not, so that the measure can fail."""
    found = seen(render(claims(89, True)), width, height, BOXES, tmp_path)

    def visible(box):
        return 0 <= box["top"] < box["bottom"] <= height and 0 <= box["left"] < box["right"] <= width

    assert visible(found["badge"]) and visible(found["name"]) and visible(found["interval"])
    assert not visible(found["last"])
    assert found["overflow"] <= 0


FILTERED = """(() => {
  const form = page.querySelector(".tools"), shown = () => [...page.querySelectorAll("details.claim")].filter((one) => one.checkVisibility()).map((one) => one.id);
  const set = (name, value) => { form[name].value = value; form.dispatchEvent(new Event("input", {bubbles: true})); return shown(); };
  const all = shown(), words = set("words", "FILE_1 theorem");
  const count = form.querySelector("output").value, headings = [...page.querySelectorAll("h2")].filter((one) => one.checkVisibility()).length;
  set("words", "");
  const verdict = set("verdict", "contradicted");
  set("verdict", "");
  return {all, words, count, headings, verdict, longest: set("order", "seconds"), names: set("order", "name"), back: set("order", "")};
})()"""


def test_filter_and_order(tmp_path):
    found = seen(render(claims(8, True)), 1280, 800, FILTERED, tmp_path)
    fine = [f"fine-{i}" for i in range(8)]
    assert found["all"] == ["wrong-order", *fine] == found["back"]
    assert found["words"] == fine[4:] and found["count"] == "4 of 9" and found["headings"] == 1
    assert found["verdict"] == ["wrong-order"]
    assert found["longest"] == ["wrong-order", *fine[::-1]]
    assert found["names"] == [*fine, "wrong-order"]
