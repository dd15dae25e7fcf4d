"""Settings of an emulator, which the stack hands over as environment variables."""

from __future__ import annotations

import os


def seconds(name: str) -> float:
    """How long something takes here that takes minutes on AWS; no time at all by default."""
    return float(os.environ.get(name, "0"))
