"""The page in a real browser: it renders, complains about nothing, and asks nobody for anything."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from yoloquant.evaluation.results import ValidationResult
from yoloquant.report import to_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: apt-get install chromium"),
    pytest.mark.slow,
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)
# Appended to a copy of the page: reports what the browser made of it as text that --dump-dom brings back.
PROBE = """
<script>addEventListener('load', () => {
  const seen = node => { const r = node.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
  const facts = {
    photos: [...document.querySelectorAll('img')].map(image => image.naturalWidth),
    uses: [...document.querySelectorAll('use')].every(u => document.querySelector(u.href.baseVal)),
    panels: [...document.querySelectorAll('.panels svg')].map(s => seen(s) && s.querySelectorAll('rect').length),
    plots: [...document.querySelectorAll('svg.plot')].filter(seen).length,
    verdict: document.querySelector('#verdict .word').innerText,
    targets: [...document.querySelectorAll('#summary tbody tr')]
      .filter(seen).map(r => r.querySelector('th').innerText.split('\\n')[0]),
    requests: performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:')),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth, view: innerWidth,
    cut: [...document.querySelectorAll('.card')].filter(c => c.scrollWidth > c.clientWidth).map(c => c.innerText),
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    stroke: getComputedStyle(document.querySelector('svg.plot [style*="--pass"]')).stroke };
  const out = document.createElement('pre'); out.id = 'probe'; out.textContent = JSON.stringify(facts);
  document.body.append(out);
});</script>"""


@dataclass(frozen=True)
class Visit:
    """What a browser printed."""

    dom: str
    errors: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        found = re.search(r'<pre id="probe">(.*?)</pre>', self.dom, flags=re.DOTALL)
        assert found, "the probe did not run"
        facts: dict[str, Any] = json.loads(html.unescape(found[1]))
        return facts


def visit(page: Path, profile: Path, *extra: str) -> Visit:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *extra, "--virtual-time-budget=10000", "--dump-dom"]
    environment = {**os.environ, "HOME": str(profile.parent)}
    done = subprocess.run(
        [*command, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
        encoding="utf-8",
    )
    return Visit(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


@pytest.fixture
def probed(result: ValidationResult, tmp_path: Path) -> Path:
    """A copy of the page with the probe, whose policy lets that one script run."""
    text = to_html(result).replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    path = tmp_path / "probed.html"
    # The embedded photographs once more as <img>, which tell their natural size and are decoded before the load event.
    images = "".join(
        f'<img alt="" width="1" src="{uri}">' for uri in re.findall(r'href="(data:image/jpeg[^"]+)"', text)
    )
    path.write_text(text.replace("</body>", f"{images}{PROBE}</body>"), encoding="utf-8")
    return path


def test_page_renders_without_complaint(result: ValidationResult, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(result), encoding="utf-8")
    seen = visit(page, tmp_path / "profile")
    assert seen.errors == []
    assert "glossary-title" in seen.dom and "<title>ERROR" in seen.dom


def test_console_errors_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    page.write_text(f"<!doctype html>{policy}<img src='http://127.0.0.1:9/x.png'>")
    assert visit(page, tmp_path / "profile").errors != []


def test_everything_is_drawn_and_nothing_is_fetched(probed: Path, tmp_path: Path) -> None:
    seen = visit(probed, tmp_path / "profile", "--window-size=1200,900")
    facts = seen.facts
    assert seen.errors == []
    assert facts["requests"] == []
    assert facts["photos"] == [640] and facts["uses"]
    assert facts["panels"] == [2, 2, 3]
    assert facts["plots"] == 2
    assert "ERROR" in facts["verdict"]
    assert facts["targets"] == ["fp32", "openvino", "onnxruntime", "litert", "tensorrt"]


@pytest.mark.parametrize("width", [360, 881, 1100])
def test_no_width_needs_sideways_scrolling(probed: Path, tmp_path: Path, width: int) -> None:
    # A frame gives the true width; a headless window may have a minimum.
    outer = tmp_path / "phone.html"
    source = html.escape(probed.read_text(encoding="utf-8"), quote=True)
    outer.write_text(
        f'<!doctype html><body><iframe srcdoc="{source}" style="width:{width}px;height:800px;border:0"></iframe>'
        "<script>"
        "addEventListener('load', () => document.body.append("
        "document.querySelector('iframe').contentDocument.querySelector('#probe')))"
        "</script></body>",
        encoding="utf-8",
    )
    facts = visit(outer, tmp_path / "profile", "--window-size=1300,900").facts
    assert facts["view"] == width
    assert facts["wide"] <= 0
    assert facts["cut"] == []
    assert len(facts["targets"]) == 5


def test_dark_mode_reaches_page_and_plots(probed: Path, tmp_path: Path) -> None:
    light = visit(probed, tmp_path / "a", "--blink-settings=preferredColorScheme=1").facts
    dark = visit(probed, tmp_path / "b", "--blink-settings=preferredColorScheme=0").facts
    assert brightness(light["paper"]) > 200 > brightness(light["ink"])
    assert brightness(dark["paper"]) < 60 < brightness(dark["ink"])
    assert light["stroke"] != dark["stroke"]


def brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
