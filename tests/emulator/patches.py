"""The registry of patches: where an emulator behaves unlike AWS, and what the tests need that AWS does not have.

A patch is one function that replaces or adds one behaviour inside an emulator. It is registered under its module and its name,
`moto.ec2.instances.malformed_ids` for one. The first paragraph of its docstring is AWS's behaviour, as README.md shows it.

An emulator's server loads every module of its package and applies all patches in it: modules by name, and within a module from
top to bottom. EMULATOR_WITHOUT names one that is left out, to see whether the emulator still needs it (see needed.py).
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from dataclasses import dataclass
from typing import Callable

# The releases that needed.py has last run against; a test compares them with those that are installed.
NEEDED_AS_OF = {"moto": "5.2.5", "ministack": "1.5.33"}

AWS = "https://docs.aws.amazon.com/"


@dataclass(frozen=True)
class Patch:
    name: str
    apply: Callable[[], None]
    sources: tuple[str, ...]  # pages below AWS; none for what AWS does not have
    upstream: tuple[str, ...]  # owner/repository#number

    @property
    def emulator(self) -> str:
        return self.name.split(".")[0]

    @property
    def file(self) -> str:
        return self.name.rsplit(".", 1)[0].replace(".", "/") + ".py"

    @property
    def behaviour(self) -> str:
        return " ".join((inspect.getdoc(self.apply) or "").split("\n\n")[0].split())


REGISTERED: dict[str, Patch] = {}


def patch(*sources: str, upstream: tuple[str, ...] = ()) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """AWS's behaviour: the pages that say so, and the issues or pull requests of the emulator about it."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        name = f"{function.__module__.removeprefix('emulator.')}.{function.__name__}"
        REGISTERED[name] = Patch(name, function, sources, upstream)
        return function

    return register


def instrument(function: Callable[[], None]) -> Callable[[], None]:
    """What a test needs and AWS does not have, such as a record of all calls."""
    return patch()(function)


def patches_of(emulator: str) -> list[Patch]:
    package = importlib.import_module(f"emulator.{emulator}")
    for module in sorted(found.name for found in pkgutil.walk_packages(package.__path__, f"emulator.{emulator}.")):
        if not module.endswith(".server"):
            importlib.import_module(module)
    return [one for one in REGISTERED.values() if one.emulator == emulator]


def apply_patches(emulator: str) -> None:
    for one in patches_of(emulator):
        if one.name != os.environ.get("EMULATOR_WITHOUT"):
            one.apply()
