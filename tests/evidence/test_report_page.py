"""The report of a case in a real browser, at a phone's width and a desktop's, in both languages, on paper and in the dark.

`cargo test` writes the pages, by the code that writes them in AWS: see crates/case-report/tests/page.rs.
"""

from __future__ import annotations

import re
from typing import Iterator

import pytest
from playwright.sync_api import Browser, Page

from support.browser import chromium
from support.stack import PROJECT

PAGES = PROJECT / "target" / "tmp" / "case-report"
CRATE = PROJECT / "crates" / "case-report"

VERDICTS = {
    "partly": ("Partly contained", "一部のみ封じ込め"),
    "contained": ("Contained", "封じ込め済み"),
    "not-contained": ("Not contained", "封じ込め未完了"),
    "not-approved": ("Not approved", "未承認"),
    "unknown": ("Verdict unknown", "判定不明"),
    "empty": ("Verdict unknown", "判定不明"),
    "hostile": ("Not contained", "封じ込め未完了"),
}
PHONE, DESKTOP, SMALLEST = (360, 740), (1280, 900), (320, 568)
# A4 less the page's margins, in CSS pixels.
PAPER = (688, 1000)
LANGUAGES = ["en", "ja"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    sources = [*CRATE.glob("src/*"), *CRATE.glob("tests/*")]
    written = min((page.stat().st_mtime for page in PAGES.glob("*.html")), default=0)
    assert written > max(source.stat().st_mtime for source in sources), "cargo test writes the pages first"
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


class Opened:
    """A page, and everything that it did beside being shown."""

    def __init__(self, browser: Browser, name: str, size: tuple[int, int], language: str = "en", **options: object):
        width, height = size
        self.page: Page = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.url = (PAGES / f"{name}.html").as_uri()
        self.page.goto(self.url)
        if language == "ja":
            self.page.locator("label[for=lang-ja]").click()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()


# What a person sees: a text node that has a place on the page, and who said it.
SEEN = r"""
() => {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const parent = node.parentElement, text = node.data.trim();
    if (!text || ["TITLE", "DESC", "STYLE"].includes(parent.tagName.toUpperCase())) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].filter(box => box.width > 0 && box.height > 0);
    if (!boxes.length || parent.closest("thead") && getComputedStyle(parent.closest("thead")).position === "absolute") continue;
    const language = parent.closest("[lang]").getAttribute("lang");
    texts.push({ text, language, quoted: !!parent.closest("bdi, [translate=no], text.quoted"), label: parent.localName === "label" });
  }
  return texts;
}
"""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [PHONE, DESKTOP, SMALLEST], ids=["phone", "desktop", "smallest"])
@pytest.mark.parametrize("name", VERDICTS)
def test_a_page_fits_its_screen_and_asks_for_nothing(browser: Browser, name: str, size: tuple[int, int], language: str) -> None:
    with Opened(browser, name, size, language) as opened:
        page = opened.page
        page.mouse.wheel(0, 100_000)
        wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= room
        # `overflow: hidden` hides from the line above what sticks out of its box.
        outside = page.evaluate(
            """() => [...document.querySelectorAll("main *, header *, footer *")]
                 .filter(e => !e.closest("thead, svg svg"))
                 .filter(e => { const b = e.getBoundingClientRect(); return b.width > 0 && (b.left < -0.5 || b.right > innerWidth + 0.5); })
                 .map(e => e.outerHTML.slice(0, 200))"""
        )
        cut = page.evaluate(
            """() => [...document.querySelectorAll("td > div")].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 80))"""
        )
        assert (outside, cut) == ([], [])
        assert opened.requests == [opened.url]
        assert opened.complaints == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_is_the_first_heading_and_in_view(browser: Browser, name: str, size: tuple[int, int], language: str) -> None:
    with Opened(browser, name, size, language) as opened:
        headings = opened.page.locator("h1, h2, h3, h4, h5, h6")
        assert headings.first.inner_text() == VERDICTS[name][LANGUAGES.index(language)]
        ranks = headings.evaluate_all("all => all.filter(h => h.checkVisibility()).map(h => Number(h.localName[1]))")
        assert ranks[0] == 1 and ranks.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(ranks, ranks[1:])), "no rank is left out"
        box = opened.page.locator("h1").bounding_box()
        assert box and box["y"] >= 0 and box["y"] + box["height"] <= size[1] * 0.5
        meaning = opened.page.locator(".meaning").bounding_box()
        assert meaning and meaning["y"] + meaning["height"] <= size[1]


def test_the_language_is_switched_by_keyboard(browser: Browser) -> None:
    with Opened(browser, "partly", PHONE) as opened:
        page = opened.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "lang-en"
        assert page.evaluate("getComputedStyle(document.querySelector('.languages')).outlineStyle") == "solid", "one sees where one is"
        page.keyboard.press("ArrowRight")
        assert page.locator("h1").inner_text() == VERDICTS["partly"][1]
        page.keyboard.press("ArrowLeft")
        assert page.locator("h1").inner_text() == VERDICTS["partly"][0]
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.localName") == "a", "the two languages are one stop"
        assert page.get_by_role("radio", name="日本語").count() == 1


# What is the same in every language.
EVERYWHERE = re.compile(r"Cordon|UTC|SHA-256|[KMGTPE]iB|VPC|AMI|[\d\s.,:;()+·-]")
JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", VERDICTS)
def test_only_the_chosen_language_is_seen_except_in_quotations(browser: Browser, name: str, size: tuple[int, int]) -> None:
    for language in LANGUAGES:
        with Opened(browser, name, size, language) as opened:
            own = [text for text in opened.page.evaluate(SEEN) if not text["quoted"] and not text["label"]]
            assert len(own) > 50
            for text in own:
                if not EVERYWHERE.sub("", text["text"]):
                    continue
                assert text["language"] == language, text
                assert bool(JAPANESE.search(text["text"])) == (language == "ja"), text
            labels = opened.page.evaluate(
                "[...document.querySelectorAll('.cards td')].map(td => getComputedStyle(td, '::before').content).filter(c => c !== 'none')"
            )
            assert all(bool(JAPANESE.search(label)) == (language == "ja") for label in labels)
            assert bool(labels) == (size == PHONE and name != "empty"), "tables are cards where there is no room"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [PHONE, DESKTOP, PAPER], ids=["phone", "desktop", "paper"])
@pytest.mark.parametrize("name", ["partly", "contained"])
def test_the_timeline_is_readable(browser: Browser, name: str, size: tuple[int, int], language: str) -> None:
    with Opened(browser, name, size, language) as opened:
        if size == PAPER:
            opened.page.emulate_media(media="print")
        picture = opened.page.evaluate(
            """() => {
              const shown = [...document.querySelectorAll("svg.picture")].filter(svg => svg.checkVisibility());
              const box = e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
              const [svg] = shown;
              return {
                count: shown.length, lang: svg.getAttribute("lang"), svg: box(svg), role: svg.getAttribute("role"),
                said: svg.getAttribute("aria-labelledby").split(" ").map(id => document.getElementById(id).textContent),
                texts: [...svg.querySelectorAll("text")].map(t => ({ text: t.textContent, box: box(t), room: box(t.parentElement.closest("svg")) })),
                bars: [...svg.querySelectorAll("rect.bar")].map(box), marks: svg.querySelectorAll("svg.mark").length,
              };
            }"""
        )
        assert (picture["count"], picture["lang"], picture["role"]) == (1, language, "img")
        assert all(len(said) > 5 for said in picture["said"])
        rows = len(picture["bars"])
        assert rows >= 5 and picture["marks"] == rows
        assert picture["said"][1].count("." if language == "en" else "。") >= rows

        def inside(inner: list[float], outer: list[float]) -> bool:
            left, top, right, bottom = outer
            return inner[0] >= left - 0.5 and inner[1] >= top - 2 and inner[2] <= right + 0.5 and inner[3] <= bottom + 2

        def meet(one: list[float], other: list[float]) -> bool:
            return one[0] < other[2] - 0.5 and other[0] < one[2] - 0.5 and one[1] < other[3] - 3 and other[1] < one[3] - 3

        texts = picture["texts"]
        for text in texts:
            assert inside(text["box"], text["room"]), text
            assert text["box"][3] - text["box"][1] >= 11, f"too small to read: {text}"
        for number, text in enumerate(texts):
            for other in texts[number + 1 :]:
                assert not meet(text["box"], other["box"]), (text["text"], other["text"])
            for bar in picture["bars"]:
                assert not meet(text["box"], bar), (text["text"], bar)
        assert all(inside(bar, picture["svg"]) for bar in picture["bars"])


# The contrast of every text with what is behind it, as WCAG 2.2 computes it; in pictures also with the bars' tracks.
CONTRAST = r"""
() => {
  const parse = color => { const n = color.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n.slice(0, 3), 1] : n; };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const parent = node.parentElement;
    if (!node.data.trim() || !parent.checkVisibility() || ["title", "desc", "style"].includes(parent.localName)) continue;
    const style = getComputedStyle(parent), picture = parent.closest("svg");
    const backgrounds = [behind(parent)];
    if (picture) for (const track of picture.closest("svg.picture").querySelectorAll(".track")) backgrounds.push(parse(getComputedStyle(track).fill));
    const color = parse(picture ? style.fill : style.color);
    for (const background of backgrounds) found.push([ratio(over(color, background), background), node.data.trim().slice(0, 60)]);
  }
  return found;
}
"""


@pytest.mark.parametrize("name", ["partly", "contained", "not-contained", "not-approved", "unknown", "hostile"])
@pytest.mark.parametrize("media", ["light", "dark", "print"])
def test_every_text_stands_out_from_its_background(browser: Browser, name: str, media: str) -> None:
    with Opened(browser, name, PHONE, color_scheme="light" if media == "light" else "dark") as opened:
        if media == "print":
            opened.page.emulate_media(media="print")
        found = opened.page.evaluate(CONTRAST)
        assert len(found) > 100
        worst = min(found)
        assert worst[0] >= 4.5, worst
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground))) < 60) == (media == "dark"), "paper is white whatever the screen is"


@pytest.mark.parametrize("language", LANGUAGES)
def test_paper_gets_the_chosen_language_and_no_cut_rows(browser: Browser, language: str) -> None:
    with Opened(browser, "partly", PAPER, language) as opened:
        page = opened.page
        page.emulate_media(media="print")
        assert page.locator("h1").inner_text() == VERDICTS["partly"][LANGUAGES.index(language)]
        for gone in ["nav", ".languages"]:
            assert not page.locator(gone).is_visible(), "nothing on paper can be pressed"
        assert page.evaluate("document.documentElement.scrollWidth") <= PAPER[0]
        rows = page.evaluate("[...document.querySelectorAll('tr')].map(row => getComputedStyle(row).breakInside)")
        assert set(rows) == {"avoid"}
        heads = page.evaluate("[...document.querySelectorAll('thead')].map(head => getComputedStyle(head).display)")
        assert set(heads) == {"table-header-group"}
        pdf = page.pdf(prefer_css_page_size=True)
        assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 5


def test_hostile_words_neither_run_nor_become_anything(browser: Browser) -> None:
    for size in [PHONE, DESKTOP]:
        with Opened(browser, "hostile", size) as opened:
            page = opened.page
            assert "pwned" not in page.title() and page.title().startswith("Not contained / 封じ込め未完了: ")
            strangers = "script, img, iframe, object, embed, link, base, form, td > h1, [onload], [onerror], [style], [src]"
            assert page.locator(strangers).count() == 0
            assert page.locator("h1, .verdict, style, main, body").evaluate_all("all => all.map(e => e.localName).sort()") == [
                "body", "h1", "main", "section", "style",
            ]  # fmt: skip
            links = page.evaluate("[...document.links].map(a => [a.getAttribute('href'), !!document.querySelector(a.getAttribute('href'))])")
            assert links and all(href.startswith("#") and there for href, there in links)
            assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length")
            seen = page.locator("body").inner_text()
            assert "<script>document.title='pwned'</script>" in seen, "it is shown as what it is"
            assert "U+202E" in seen and "\u202e" not in seen
            # No quotation covers the verdict, or anything else outside of its own box.
            sticking_out = page.evaluate(
                """() => [...document.querySelectorAll("bdi")].filter(e => {
                     const inner = e.getBoundingClientRect(), outer = e.parentElement.closest("li, td > div, dd, p, h3, .badge, div").getBoundingClientRect();
                     return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 6 || inner.bottom > outer.bottom + 6);
                   }).map(e => e.outerHTML.slice(0, 120))"""
            )
            assert sticking_out == []


def test_what_got_in_all_the_same_could_not_run_nor_load(browser: Browser) -> None:
    with Opened(browser, "contained", DESKTOP) as opened:
        stopped = opened.page.evaluate(
            """async () => {
              const stopped = [];
              addEventListener("securitypolicyviolation", event => stopped.push(event.effectiveDirective));
              const put = (name, attributes, text) => {
                const element = document.body.appendChild(document.createElement(name));
                for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
                element.textContent = text || "";
              };
              put("script", {}, "document.title = 'pwned'");
              put("p", { onclick: "document.title = 'pwned'" }, "");
              document.body.lastChild.click();
              put("img", { src: "data:image/gif;base64,R0lGODlhAQABAAAAACw=" });
              put("style", {}, "h1 { display: none }");
              put("h2", { style: "position: fixed; inset: 0" }, "Contained");
              put("iframe", { src: "data:text/html,x" });
              await new Promise(done => setTimeout(done, 300));
              return stopped;
            }"""
        )
        for directive in ["script-src-elem", "script-src-attr", "img-src", "style-src-elem", "style-src-attr", "frame-src"]:
            assert directive in stopped, stopped
        assert "pwned" not in opened.page.title()
        assert opened.page.locator("h1").is_visible()
        assert all(url == opened.url or url.startswith("data:") for url in opened.requests)
