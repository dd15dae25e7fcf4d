"""The documents hold together: every link leads somewhere, and every reference to AWS's behaviour names a section."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Iterator

PROJECT = next(folder for folder in Path(__file__).resolve().parents if (folder / "Cargo.toml").is_file())
BEHAVIOUR = PROJECT / "docs/aws-behaviour.md"

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
REFERENCE = re.compile(r"aws-behaviour(?:\.md)?#([a-z0-9-]+)((?:, #[a-z0-9-]+)*)")


@cache
def tracked(pattern: str = "*") -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", "--", pattern], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := PROJECT / name).is_file()]


@cache
def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def prose(path: Path) -> str:
    """A page without its code blocks, neither fenced nor indented ones, and without HTML comments."""
    kept = FENCE.sub("", re.sub(r"<!--.*?-->", "", text(path), flags=re.DOTALL))
    return "\n".join("" if re.match(r"(    |\t)(?!\s*([*-]|\d+\.) )", line) else line for line in kept.splitlines())


def slug(heading: str) -> str:
    """As GitHub makes an anchor of a heading."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    found: set[str] = set()
    times: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*#*$", prose(path), re.MULTILINE):
        anchor = slug(heading)
        again = times.get(anchor, 0)
        times[anchor] = again + 1
        found.add(f"{anchor}-{again}" if again else anchor)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text(path)))


def links(path: Path) -> list[str]:
    without_code = re.sub(r"`[^`\n]*`", "", prose(path))
    inline = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", without_code)
    return inline + re.findall(r"^\[[^]]+\]:\s*(\S+)", without_code, re.MULTILINE)


def sections(path: Path) -> dict[str, str]:
    parts = re.split(r"^### +(.+)$", text(path), flags=re.MULTILINE)
    return {slug(title): re.split(r"^## ", body, maxsplit=1, flags=re.MULTILINE)[0] for title, body in zip(parts[1::2], parts[2::2])}


def test_every_link_of_every_page_leads_somewhere() -> None:
    broken = []
    for page in tracked("*.md"):
        for link in links(page):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            if not target.exists():
                broken.append(f"{name(page)}: {link}: no such file")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                broken.append(f"{name(page)}: {link}: no such heading")
    assert not broken, "\n".join(broken)


def test_every_reference_to_awss_behaviour_names_a_section() -> None:
    known = set(sections(BEHAVIOUR))
    wrong = []
    for path in tracked():
        if path in (BEHAVIOUR, Path(__file__).resolve()):
            continue
        for match in REFERENCE.finditer(text(path)):
            for anchor in [match.group(1), *re.findall(r"#([a-z0-9-]+)", match.group(2))]:
                if anchor not in known:
                    wrong.append(f"{name(path)}: {anchor}")
    assert not wrong, "\n".join(wrong)


def test_every_section_on_awss_behaviour_says_how_sure_it_is_and_from_where() -> None:
    facts = sections(BEHAVIOUR)
    assert len(facts) > 50
    unsure = [anchor for anchor, body in facts.items() if not re.search(r"\*(Documented|Measured|Inferred)\*", body)]
    assert not unsure, unsure
    sourceless = [anchor for anchor, body in facts.items() if not re.search(r"^.*\*(?:Documented|Measured|Inferred)\*.*(\]\(|README|rustdoc|quoted in|by ).*$", body, re.MULTILINE)]
    assert not sourceless, sourceless


def test_no_fact_is_named_by_a_letter_and_a_number() -> None:
    left = [f"{name(path)}: {match.group(0)}" for path in tracked() if path != Path(__file__).resolve() for match in re.finditer(r"\b[Tt]raps? [A-M][0-9]", text(path))]
    assert not left, "\n".join(left)


def test_every_sentence_of_a_page_has_a_line_of_its_own() -> None:
    """So that a change of one sentence is a change of one line."""
    several = []
    for page in tracked("*.md"):
        if page.name.endswith(".ja.md") or "/reference/" in name(page) or page.name == "faults.md":
            continue
        for number, line in enumerate(prose(page).splitlines(), 1):
            if re.match(r"\s*(\||<|#)", line):
                continue
            plain = re.sub(r"`[^`]*`", "x", re.sub(r"\]\([^)]*\)", "]", line))
            plain = re.sub(r"^\s*(?:(?:[*-]|\d+\.)\s+)?(?:\*\*[^*]*\*\*:? *)?", "", plain)
            if re.search(r"[a-z0-9)\]`\"*x][.!?]\*{0,2} +[A-Z*\"`\[(][a-z`*]", plain) and not re.search(r"\b(e\.g|i\.e|etc|vs|No)\. ", plain):
                several.append(f"{name(page)}: {line[:120]}")
    assert not several, "\n".join(several)


CODE = re.compile(r"\b(?:def|fn) (\w+)")


@cache
def functions_of_the_code() -> set[str]:
    return {found for path in tracked() if path.suffix in (".py", ".rs") for found in CODE.findall(text(path))}


def test_every_test_that_a_page_names_is_there() -> None:
    missing = []
    for page in tracked("*.md"):
        for line in text(page).splitlines():
            if line.strip().startswith("Tested"):
                missing += [f"{name(page)}: {named}" for named in re.findall(r"`(\w+)`", line) if named not in functions_of_the_code()]
    assert not missing, "\n".join(missing)


def test_the_glossary_is_in_alphabetical_order_and_has_each_term_once() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text(PROJECT / "docs/glossary.md"), re.MULTILINE)[2:]
    terms = [term for term, _ in rows]
    assert len(terms) > 60
    assert terms == sorted(set(terms), key=str.lower)
    assert all(japanese.strip() for _, japanese in rows)


def test_the_code_map_has_every_crate_and_no_other() -> None:
    page = text(PROJECT / "docs/architecture.md")
    table = page.split("| crate | role |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == {path.parent.name for path in tracked("crates/*/Cargo.toml")}


def test_the_functions_are_listed_in_the_order_in_which_the_workflow_calls_them() -> None:
    page = text(PROJECT / "functions/README.md")
    listed = re.findall(r"^\| \[`([\w-]+)`\]\(\1\) \| ([^|]+) \|", page, re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(path.parent.name for path in tracked("functions/*/Cargo.toml"))
    called = list(dict.fromkeys(call for machine in ("contain", "release") for call in calls(json.loads(text(PROJECT / f"statemachine/{machine}.asl.json"))["States"])))
    states = dict(reversed(called))
    first = list(dict.fromkeys(function for function, _ in called))
    assert [function for function, _ in listed if function in first] == first
    assert [f"{function}: {state}" for function, state in listed if function in states and states[function] != state] == []


def calls(states: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Functions and the states that call them, in the order of the file."""
    for state, body in states.items():
        arguments = body.get("Arguments")
        placeholder = re.fullmatch(r"\$\{(\w+)\}", arguments.get("FunctionName", "")) if isinstance(arguments, dict) else None
        if placeholder:
            yield re.sub(r"(?<!^)(?=[A-Z])", "-", placeholder.group(1)).lower(), state
        for branch in body.get("Branches", []):
            yield from calls(branch["States"])
        if "ItemProcessor" in body:
            yield from calls(body["ItemProcessor"]["States"])


def test_every_decision_is_in_the_index() -> None:
    index = text(PROJECT / "docs/decisions/README.md")
    records = tracked("docs/decisions/0*.md")
    assert len(records) > 20
    for number, record in enumerate(records, 1):
        assert record.name.startswith(f"{number:04}-")
        title = re.match(rf"# {number}\. (.+)\n", text(record))
        assert title and f"[{title.group(1)}]({record.name})" in index
        assert re.search(r"^\d{4}-\d\d-\d\d, (accepted|superseded by .+)\.$", text(record), re.MULTILINE)
        assert 10 <= len(text(record).splitlines()) <= 40
