"""The patches themselves: each has a row in README.md, a source, and a test that proves it."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from emulator import readme
from emulator.patches import NEEDED_AS_OF, Patch, patches_of

PATCHES = [patch for emulator in NEEDED_AS_OF for patch in patches_of(emulator)]


def test_every_patch_has_its_row_in_the_readme_and_every_row_its_patch() -> None:
    written = readme.README.read_text(encoding="utf-8")
    assert written == readme.current(), "run: PYTHONPATH=tests .local/stack/bin/python -m emulator.readme"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_a_patch_says_what_aws_does_and_what_the_emulator_does(patch: Patch) -> None:
    paragraphs = (patch.apply.__doc__ or "").strip().split("\n\n")
    assert patch.behaviour.endswith("."), "the first paragraph is a sentence"
    if patch.sources:
        assert len(paragraphs) == 2 and patch.emulator in paragraphs[1]


def test_every_patch_is_proved_by_a_test_and_no_test_proves_another_one() -> None:
    assert set(readme.proofs()) == {patch.name for patch in PATCHES}


@pytest.mark.parametrize("emulator", NEEDED_AS_OF)
def test_the_emulator_is_the_one_whose_need_of_patches_is_known(emulator: str) -> None:
    assert version(emulator) == NEEDED_AS_OF[emulator], "run emulator.needed, delete the patches that can go, and set NEEDED_AS_OF"
