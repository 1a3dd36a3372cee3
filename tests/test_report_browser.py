"""Pages as a real browser shows them: whole, quiet, readable, on a desk, a phone and on paper.

Screenshots are kept in ``report-screenshots/`` beside the tests (not under version control).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, chromium
from reports import made_up_values

import dask_embstab as es
from dask_embstab.demo.run import run_demo

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("test_report_browser")]

KEPT = Path(__file__).resolve().parent.parent / "report-screenshots"
PAGES = ("series", "year", "hostile", "runs", "run", "demo")
CONTRASTS = """
(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const note = (ink, behind, text) => {
    const value = ratio(light(parse(ink)), light(behind));
    if (!(value >= 4.5)) found.push([text.slice(0, 30), ink, behind.join(), value]);
  };
  let n = 0;
  for (const e of document.querySelectorAll('main *')) {
    if (e.closest('svg')) continue;
    const own = [...e.childNodes].some(c => c.nodeType === 3 && c.data.trim());
    if (own && e.getClientRects().length) {
      n += 1; note(getComputedStyle(e).color, ground(e), e.textContent);
    }
  }
  for (const e of document.querySelectorAll('svg text')) {
    const square = [...e.classList].map(c => c.match(/^i(.+)$/)).find(Boolean);
    const key = square && document.querySelector('svg .k' + CSS.escape(square[1]));
    const behind = key ? parse(getComputedStyle(key).fill) : ground(e);
    n += 1; note(getComputedStyle(e).fill, behind, e.textContent);
  }
  return [n, found];
})()
"""
MARKS = """
(() => {
  // Lines, filled shapes and shaded squares; no grid line, threshold, pattern or legend.
  const is_data = m => !m.classList.contains('legend')
    && [...m.classList].some(c => /^(l|f\\d+|k\\w+)$/.test(c));
  const drawn = m => { const b = m.getBBox(); return b.width + b.height > 0; };
  const full = s => [...s.querySelectorAll('path, rect')].some(m => is_data(m) && drawn(m));
  return [...document.querySelectorAll('figure')].map(f => {
    const drawings = [...f.querySelectorAll('svg')];
    return [f.querySelector('h3').textContent, drawings.length > 0 && drawings.every(full)];
  });
})()
"""
EMPTIED = """
(() => {
  const [first, second] = document.querySelectorAll('figure');
  first.querySelectorAll('svg').forEach(s => s.remove());
  second.querySelectorAll('svg :is(.l, [class^=f], [class^=k]):not(.legend)')
    .forEach(m => m.remove());
})()
"""
OVERLAPS = """
(() => {
  const found = [];
  for (const s of document.querySelectorAll('svg')) {
    const box = s.getBoundingClientRect();
    const texts = [...s.querySelectorAll('text')]
      .map(t => [t.textContent, t.getBoundingClientRect()]);
    for (const [text, r] of texts) {
      if (r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 1)
        found.push(['cut', s.querySelector('title').textContent, text]);
    }
    texts.sort((a, b) => a[1].left - b[1].left);
    for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
      const [a, b] = [texts[i][1], texts[j][1]];
      if (b.left >= a.right - 1) break;
      if (Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
        found.push(['over', s.querySelector('title').textContent, texts[i][0], texts[j][0]]);
    }
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of every kind, made by the verbs."""
    folder = tmp_path_factory.mktemp("pages")
    seen = {name: folder / f"{name}.html" for name in PAGES}
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(400, 8)) + 0.3, rng.normal(size=(500, 8)) + 0.3
    series = es.Series.init(folder / "shop")
    for k in range(6):
        turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
        items, users = (rows + 0.15 * rng.normal(size=rows.shape) for rows in (items, users))
        items = np.concatenate([items[10:], rng.normal(size=(10, 8)) + 0.3])
        ids = {"item_ids": np.arange(400) + 10 * k, "user_ids": np.arange(500)}
        run = es.create_run(folder / f"2026-01-{k + 1:02}.zarr", items @ turn, users @ turn, **ids)
        series.add(run)
    es.report(series, out=seen["series"])
    es.report(series.open(1), series.open(6), out=seen["runs"])
    es.report(series.open(6), out=seen["run"])
    es.Report(made_up_values(365)).save(seen["year"])
    hostile = '<script>console.log("run")<img src=x onerror=console.log(1)>\u202e{}'
    es.Report(made_up_values(20, name=hostile)).save(seen["hostile"])
    made = run_demo(
        folder / "demo", say=lambda _: None, users=600, items=300, days=4, components=8, seed=0
    )
    seen["demo"] = Path(made["paths"]["report"])
    return seen


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(chromium(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_quiet_and_readable(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    before, asked = len(browser.messages), len(browser.requests)
    browser.open(pages[name], width=width, scheme=scheme)
    KEPT.mkdir(exist_ok=True)
    browser.screenshot(KEPT / f"{name}-{width}-{scheme}.png")
    assert browser.messages[before:] == []
    assert browser.requests[asked:] == [pages[name].as_uri()], "no network"

    wide = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert browser.ask(wide) <= width
    assert browser.ask("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
    ground = browser.ask("getComputedStyle(document.querySelector('main')).backgroundColor")
    assert (min(map(int, re.findall(r"\d+", ground))) < 60) is (scheme == "dark")

    marks = browser.ask(MARKS)
    assert len(marks) >= 2
    assert [title for title, has_marks in marks if not has_marks] == []
    n, faint = browser.ask(CONTRASTS)
    assert n > 50
    assert faint == []
    assert browser.ask(OVERLAPS) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_figure_without_its_drawing_or_its_data_has_no_marks(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name], width=1440, scheme="light")
    browser.ask(EMPTIED)
    emptied, others = (marks := [result for _, result in browser.ask(MARKS)])[:2], marks[2:]
    assert emptied == [False, False]
    assert all(others)


@pytest.mark.parametrize("name", PAGES)
def test_tables_open_without_widening_the_page(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    browser.open(pages[name], width=375, scheme="light")
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask("document.documentElement.scrollWidth") <= 375
    n, faint = browser.ask(CONTRASTS)
    assert n > 50
    assert faint == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_whole(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=1440, scheme="dark")
    titles = browser.ask("[...document.querySelectorAll('h2, h3')].map(h => h.textContent)")
    data = browser.pdf()
    (KEPT / f"{name}.pdf").write_bytes(data)
    assert data.startswith(b"%PDF")
    assert data.rstrip().endswith(b"%%EOF")
    drawn = sum(len(stream) for stream in streams(data))
    assert drawn > 500 * len(titles), "every figure is drawn"
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.call("Emulation.setEmulatedMedia", **media)
    paper = browser.ask("getComputedStyle(document.querySelector('main')).backgroundColor")
    shown = browser.ask(
        "[...document.querySelectorAll('figure')].every(f => f.querySelector('svg')"
        " && [...f.querySelectorAll('svg')].every(s => s.getBoundingClientRect().width))"
    )
    browser.call("Emulation.setEmulatedMedia", media="")
    assert paper == "rgb(255, 255, 255)"
    assert shown


def streams(pdf: bytes) -> Iterator[bytes]:
    """The decompressed streams of a PDF."""
    for matches in re.finditer(rb"/FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(matches[1])
        except zlib.error:
            continue


def test_a_browser_that_is_not_there_is_a_skip_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("browser.NAMES", ("no-such-browser",))
    with pytest.raises(pytest.skip.Exception, match="no browser is installed"):
        chromium()
