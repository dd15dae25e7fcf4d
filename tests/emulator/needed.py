"""Whether the emulators still need their patches: runs the tests that prove each one without it.

    PYTHONPATH=tests .local/stack/bin/python -m emulator.needed [PATCH …]

If all of them pass, the emulator behaves like AWS by now, and the patch can go. Run this after an upgrade, delete what can
go, and then set NEEDED_AS_OF in patches.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from emulator.patches import NEEDED_AS_OF, patches_of

TESTS = Path(__file__).parent / "tests"
NEEDED = "needed"


class Proving:
    """Keeps the tests that prove the patch, and counts those that fail by their own assertions."""

    def __init__(self, patch: str) -> None:
        self.patch, self.passed, self.failed, self.broken = patch, 0, 0, 0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if not any(self.patch in mark.args for mark in item.iter_markers("proves"))]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed
        self.failed += report.when == "call" and report.failed
        self.broken += report.when != "call" and report.failed

    def verdict(self) -> str:
        if self.failed:
            return NEEDED
        return "CAN GO" if self.passed and not self.broken else "UNKNOWN: its tests did not run"


def prove(patch: str) -> None:
    """In a process of its own: a stack takes its settings from the environment."""
    proving = Proving(patch)
    with tempfile.TemporaryDirectory() as cache:
        pytest.main(["-q", "-o", f"cache_dir={cache}", str(TESTS)], plugins=[proving])
    print(proving.verdict())


def verdict(patch: str) -> str:
    environment = {**os.environ, "EMULATOR_WITHOUT": patch}
    ended = subprocess.run([sys.executable, "-m", "emulator.needed", "--prove", patch], env=environment, capture_output=True, text=True, check=False)
    return ended.stdout.splitlines()[-1] if ended.returncode == 0 else f"UNKNOWN: {ended.stderr[-2000:]}"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--prove"]:
        prove(arguments[1])
        return 0
    names = arguments or [one.name for emulator in NEEDED_AS_OF for one in patches_of(emulator)]
    verdicts = {}
    for name in names:
        verdicts[name] = verdict(name)
        print(f"{name:<60} {verdicts[name]}", flush=True)
    return 0 if set(verdicts.values()) == {NEEDED} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
