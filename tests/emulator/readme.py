"""Writes the tables of patches into README.md: PYTHONPATH=tests .local/stack/bin/python -m emulator.readme"""

from __future__ import annotations

import ast
from pathlib import Path

from emulator.patches import AWS, NEEDED_AS_OF, Patch, patches_of

HERE = Path(__file__).parent
README = HERE / "README.md"
MARK = "<!-- What follows is written by `python -m emulator.readme`. -->"


def proofs() -> dict[str, list[str]]:
    """For each patch, the files with tests that prove it."""
    found: dict[str, list[str]] = {}
    for path in sorted((HERE / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "proves":
                for patch in [argument.value for argument in node.args if isinstance(argument, ast.Constant)]:
                    found.setdefault(patch, [])
                    if path.name not in found[patch]:
                        found[patch].append(path.name)
    return found


def source(page: str) -> str:
    return f"[{page.rsplit('/', 1)[1].removesuffix('.html').removeprefix('API_')}]({AWS}{page})"


def upstream(reference: str) -> str:
    """An issue or pull request, `getmoto/moto#1`, or a file of the repository in which the gap is documented."""
    if "#" in reference:
        repository, number = reference.split("#")
        return f"[#{number}](https://github.com/{repository}/issues/{number})"
    repository, path = reference.split(":")
    return f"[known gap](https://github.com/{repository}/blob/master/{path})"


def row(patch: Patch, proved: dict[str, list[str]]) -> str:
    tests = ", ".join(f"[{name}](tests/{name})" for name in proved.get(patch.name, []))
    name = f"[`{patch.name.split('.', 1)[1]}`]({patch.file})"
    if not patch.sources:
        return f"| {name} | {patch.behaviour} | {tests} |"
    links = ", ".join(source(page) for page in patch.sources)
    return f"| {name} | {patch.behaviour} | {links} | {', '.join(upstream(one) for one in patch.upstream) or '–'} | {tests} |"


def tables() -> str:
    proved, lines, instruments = proofs(), [], []
    for emulator, version in NEEDED_AS_OF.items():
        patches = patches_of(emulator)
        lines += [f"## Patches of {emulator}", "", f"None can go yet: {emulator} {version} needs each of them, as `emulator.needed` has found.", ""]
        lines += ["| Patch | What AWS does | Source | Upstream | Proof |", "| --- | --- | --- | --- | --- |"]
        lines += [row(patch, proved) for patch in patches if patch.sources] + [""]
        instruments += [patch for patch in patches if not patch.sources]
    lines += ["## Instruments", "", "What the tests need and AWS does not have.", "These stay.", ""]
    lines += ["| Instrument | What it does | Proof |", "| --- | --- | --- |"]
    lines += [row(patch, proved).replace("[`", f"[`{patch.emulator}.", 1) for patch in instruments]
    return "\n".join(lines) + "\n"


def current() -> str:
    """README.md as it should be."""
    return README.read_text(encoding="utf-8").split(MARK)[0] + MARK + "\n\n" + tables()


if __name__ == "__main__":
    README.write_text(current(), encoding="utf-8")
