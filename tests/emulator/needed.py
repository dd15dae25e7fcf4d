"""Whether the emulators still need their patches: runs the tests that prove each one without it.

    PYTHONPATH=tests .local/stack/bin/python -m emulator.needed [PATCH …]

If all of them pass, the emulator behaves like AWS by now, and the patch can go. Run this after an upgrade, delete what can
go, and then set NEEDED_AS_OF in patches.py.
"""

from __future__ import annotations

import subprocess
import sys
import os
from pathlib import Path

import pytest

from emulator.patches import patches_of

TESTS = Path(__file__).parent / "tests"


class Proving:
    """Keeps the tests that prove the patch."""

    def __init__(self, patch: str) -> None:
        self.patch = patch

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if not any(self.patch in mark.args for mark in item.iter_markers("proves"))]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def verdict(patch: str) -> str:
    """A process of its own for each patch, as a stack takes its settings from the environment."""
    environment = {**os.environ, "EMULATOR_WITHOUT": patch}
    ended = subprocess.run([sys.executable, "-m", "emulator.needed", "--prove", patch], env=environment, capture_output=True, text=True, check=False)
    words = {pytest.ExitCode.TESTS_FAILED: "needed", pytest.ExitCode.OK: "CAN GO", pytest.ExitCode.NO_TESTS_COLLECTED: "UNPROVED"}
    return words.get(ended.returncode, f"pytest ended with {ended.returncode}:\n{ended.stdout[-2000:]}")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--prove"]:
        return pytest.main(["-q", "-p", "no:cacheprovider", str(TESTS)], plugins=[Proving(arguments[1])])
    names = arguments or [one.name for emulator in ("moto", "ministack") for one in patches_of(emulator)]
    verdicts = {}
    for name in names:
        verdicts[name] = verdict(name)
        print(f"{name:<60} {verdicts[name]}", flush=True)
    return 0 if set(verdicts.values()) == {"needed"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
