"""The reference pages are as the template, the schemas and the code are now."""

from __future__ import annotations

import pytest

from tools.reference import PAGES, WRITTEN, load


@pytest.mark.parametrize("name", WRITTEN)
def test_a_reference_page_is_not_stale(name: str) -> None:
    assert (PAGES / name).read_text(encoding="utf-8") == WRITTEN[name](), "make reference"


def test_every_parameter_belongs_to_a_group() -> None:
    template = load("template.yaml")
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template["Parameters"])
