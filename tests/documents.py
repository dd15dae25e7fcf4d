#!/usr/bin/env python3
"""Copies the capture's scripts into the templates that have its documents: `make documents`.

A document must hold its script, and CloudFormation can include a file only from a bucket (AWS::Include), as JSON or YAML.
So the scripts are files that can be run and tested, the templates have copies, and a test compares them.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TEMPLATES = ("template.yaml", "templates/capture-documents.yaml")
COPY = re.compile(r"^( +)# make documents copies this from (\S+)\n +- \|\n(?:\1  .*\n|\n(?=\1  |\n))+", re.MULTILINE)


def with_scripts(template: str) -> str:
    """The template's text with the scripts as they are now."""

    def copied(found: re.Match[str]) -> str:
        margin, path = found.groups()
        script = textwrap.indent((PROJECT / path).read_text(encoding="utf-8"), f"{margin}  ")
        return f"{margin}# make documents copies this from {path}\n{margin}- |\n{script}"

    return COPY.sub(copied, template)


def main() -> None:
    for name in TEMPLATES:
        path = PROJECT / name
        path.write_text(with_scripts(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
