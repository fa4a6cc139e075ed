"""The page of a preview in a real browser: as wide as a phone, and with the worst that a database can hold."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from runbooks.engine.preview_page import page
from tests.engine.previews import HOSTILE, ZONE, Read, previewed
from tests.foreign import foreign

MEASURE = """
const root = document.documentElement;
const outside = [...document.querySelectorAll("body *")].filter(
  (each) => !each.closest("table") && each.getBoundingClientRect().right > innerWidth);
parent.postMessage({
  name: location.pathname.split("/").pop().split(".")[0], width: innerWidth, scrolls: root.scrollWidth,
  outside: outside.map((each) => each.outerHTML.slice(0, 200)),
  boxes: [...document.querySelectorAll(".wide")].map((each) => [each.clientWidth, each.scrollWidth]),
  elements: [...document.querySelectorAll("body, body *")].filter((each) => each !== document.currentScript)
    .map((each) => each.localName),
  texts: [...document.querySelectorAll("h1, li, caption")].map((each) => each.textContent),
  margin: getComputedStyle(document.body).margin,
  number: getComputedStyle(document.querySelector("td.number")).textAlign,
}, "*");
"""
ALLOWED = base64.b64encode(hashlib.sha256(MEASURE.encode()).digest()).decode()
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><script>
const all = {};
addEventListener("message", ({data}) => {
  all[data.name] = data;
  document.documentElement.dataset.measured = JSON.stringify(all);
});
</script>"""
WORST = previewed("".join(HOSTILE), rows=3)
WORST = WORST.model_copy(update={"preview": WORST.preview.model_copy(update={"warnings": HOSTILE})})
WIDTHS = {"phone": 390, "desktop": 1280, "wrong": 390}
PAGES = {
    "phone": page(WORST, ZONE),
    "desktop": page(previewed("public.clients"), ZONE),
    "wrong": page(previewed(), ZONE).replace("</style>", " </style>"),
}


@dataclass(frozen=True)
class Seen:
    by_page: dict[str, dict[str, Any]]
    complaints: list[str]
    """What the browser wrote to its console."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All pages in one window, each in a frame as wide as its screen: a window is never as narrow as a phone. They are
    copies that may run the one script that measures.
    """
    chromium, folder = foreign("chromium"), tmp_path_factory.mktemp("pages")
    frames = FRAMES
    for name, text in PAGES.items():
        copy = text.replace("base-uri", f"script-src &#39;sha256-{ALLOWED}&#39;; base-uri", 1)
        copy = copy.replace("</body>", f"<script>{MEASURE}</script></body>")
        (folder / f"{name}.html").write_text(copy, encoding="utf-8")
        frames += f'<iframe src="{name}.html" width="{WIDTHS[name]}" height="900" style="border:0"></iframe>'
    (folder / "frames.html").write_text(frames)
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=10000", "--dump-dom", (folder / "frames.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    found = re.search(r'data-measured="([^"]*)"', done.stdout)
    assert found, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(json.loads(html.unescape(found[1])), complaints)


def test_the_worst_page_fits_a_phone(seen: Seen) -> None:
    measured = seen.by_page["phone"]
    assert (measured["width"], measured["scrolls"], measured["outside"]) == (390, 390, [])
    (wide, wide_scrolls), (sample, sample_scrolls) = measured["boxes"]
    assert wide < wide_scrolls < 3000, "a wide table scrolls in a box of its own"
    assert sample_scrolls == sample, "a sample is folded"


def test_the_browser_reads_in_the_worst_page_what_we_have_written_and_nothing_else(seen: Seen) -> None:
    read = Read(PAGES["phone"])
    tags = [tag for tag, _ in read.elements]
    assert seen.by_page["phone"]["elements"] == tags[tags.index("body") :]
    assert seen.by_page["phone"]["texts"] == read.texts("h1", "li", "caption")


def test_on_a_desktop_nothing_has_to_be_scrolled_sideways(seen: Seen) -> None:
    measured = seen.by_page["desktop"]
    assert (measured["width"], measured["scrolls"], measured["outside"]) == (1280, 1280, [])
    assert all(inner == outer for outer, inner in measured["boxes"])


def test_the_browser_takes_the_pages_own_style_and_no_other_and_complains_of_nothing_else(seen: Seen) -> None:
    for name in ("phone", "desktop"):
        assert (seen.by_page[name]["margin"], seen.by_page[name]["number"]) == ("0px", "right")
    assert seen.by_page["wrong"]["margin"] == "8px"
    (complaint,) = seen.complaints
    assert "wrong.html" in complaint
    assert "inline style" in complaint
