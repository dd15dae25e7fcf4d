"""The README stays short, and the Japanese one says the same."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ENGLISH, JAPANESE = PROJECT / "README.md", PROJECT / "README.ja.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    """Without code blocks, in which a number sign is a comment and brackets are no link."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def levels(page: Path) -> list[int]:
    return [len(level) for level, _ in HEADING.findall(prose(page))]


def links(page: Path) -> list[str]:
    return LINK.findall(prose(page))


def commands(page: Path) -> list[str]:
    """Whatever a reader pastes or compares: all code but the drawing, whose words are translated."""
    text = page.read_text(encoding="utf-8")
    fenced = [code for _, code in FENCE.findall(text) if "-> Isolate network" not in code]
    return re.findall(r"^    (.*)$", FENCE.sub("", text), re.MULTILINE) + fenced


def test_the_readme_fits_into_150_lines() -> None:
    assert len(ENGLISH.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_names_how_to_test() -> None:
    assert "`make test`" in prose(ENGLISH) and "`make check`" in prose(ENGLISH)


def test_the_japanese_readme_has_the_same_headings_links_and_commands() -> None:
    there = {"README.md": "README.ja.md", "README.ja.md": "README.md"}
    assert levels(JAPANESE) == levels(ENGLISH)
    assert sorted(there.get(link, link) for link in links(JAPANESE)) == sorted(links(ENGLISH))
    assert commands(JAPANESE) == commands(ENGLISH)
