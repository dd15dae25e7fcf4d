#!/usr/bin/env python3
"""Compares the calls of two runs: whether Cordon made the same EC2-side changes to each instance, in the same order.

    PYTHONPATH=tests .local/stack/bin/python -m tools.compare_calls .local/run/BEFORE .local/run/AFTER

Each is the folder of one drill. Ids, times and names with random parts differ between runs, so that each is told by what is
done with it. Branches run side by side, and a function makes several calls at once: what is compared is the order of the
functions of a branch, and the order in which an interface is put on Cordon's groups. The exit
code is 1 when the changes differ. All other differences, in reads and in calls to other services, are listed beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Callable, Iterator

from emulator.call_record import Call, is_change, read_calls
from support.stack import ON_MOTO, OURSELVES

# The functions of each branch of the workflow, which call one another's next; any other function is a branch of its own.
BRANCHES = (
    ("detach-autoscaling", "isolate-network", "deregister-targets"),
    ("protect-instance", "preserve-volumes", "tag-resources"),
    ("create-snapshots", "encrypt-snapshots", "share-snapshots", "copy-snapshots", "lock-snapshots", "delete-originals"),
    ("terminate-sessions", "revoke-credentials", "detach-profile"),
)
KINDS = "i|eni|vol|sg|sgr|snap|vpc|subnet|rtb|igw|nat|eipalloc|eipassoc|fl|lt|eni-attach|iip-assoc|vpce|pl"
RANDOM = re.compile(
    rf"(?P<id>\b(?:{KINDS})-[0-9a-f]{{8,17}}\b)|(?P<uuid>\b[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}\b)"
    r"|(?P<time>\b\d{4}-?\d\d-?\d\dT[\d:]+(?:\.\d+)?Z?)|(?P<fleet>\b(?:shop|bare)-[0-9a-f]{6}\b)|(?P<ip>\b10(?:\.\d+){3}\b)|(?P<hex>\b[0-9a-f]{13,64}\b)"
)
ROUNDS = 3  # of telling resources by those that they are used with

Name = Callable[[str], str]


@dataclass(frozen=True)
class Change:
    """One changing call; its parameters have no order, as lists of EC2's have none."""

    instance: str
    phase: str
    function: str
    action: str
    parameters: tuple[tuple[str, str], ...]
    start: float

    def written(self, name: Name) -> str:
        given = sorted(f"{key}={RANDOM.sub(lambda found: name(found[0]), value)}" for key, value in self.parameters)
        return f"{self.function}: {self.action}({', '.join(given)})"

    def parts(self) -> list[str]:
        """What differs from run to run."""
        return [found[0] for _, value in self.parameters for found in RANDOM.finditer(value)]


class Run:
    """What the product called in one run, and names for its resources that do not depend on the run."""

    def __init__(self, folder: Path) -> None:
        self.calls = sorted((call for record in ("moto", "ministack") for call in read_calls(folder / f"{record}.calls")), key=lambda call: call["Start"])
        if not self.calls:
            sys.exit(f"{folder} has no record of calls")
        self._events = {one["Trace"]: one for one in read_calls(folder / "invocations")}

    @cached_property
    def changes(self) -> list[Change]:
        made = [call for call in self.calls if call["Service"] in ON_MOTO and call["Service"] != "sts" and is_change(call) and self._function(call)]
        return [self._change(call) for call in made]

    @cached_property
    def _building(self) -> list[Change]:
        """How the victims were built: the calls of the drill itself before Cordon's first change."""
        first = min((change.start for change in self.changes), default=float("inf"))
        ours = [call for call in self.calls if call["Caller"] == OURSELVES and call["Service"] in ON_MOTO and call["Start"] < first]
        return [self._change(call) for call in ours]

    @cached_property
    def signatures(self) -> dict[str, str]:
        """A victim's parts are told by the order in which the drill names them, what Cordon has made by what it does with it."""
        known: dict[str, str] = {}
        for change in self._building:
            for part in change.parts():
                known.setdefault(part, f"{kind_of(part)} {len(known)}")
        uses: dict[str, list[tuple[Change, str]]] = {}
        for change in self.changes:
            for key, value in change.parameters:
                for found in RANDOM.finditer(value):
                    if found[0] not in known:
                        uses.setdefault(found[0], []).append((change, key))
        for _ in range(ROUNDS):
            made = {part: digest(kind_of(part), *sorted(f"{key} {change.written(lambda one: known.get(one, kind_of(one)))}" for change, key in found))
                    for part, found in uses.items()}  # fmt: skip
            known = {**known, **made}
        return known

    @cached_property
    def built(self) -> set[str]:
        """The parts of the victims, which were there before Cordon was."""
        return {part for change in self._building for part in change.parts()}

    def _function(self, call: Call) -> str:
        """The function's name without that of the state machine; nothing for the drill's own calls."""
        event = self._events.get(call["Trace"] or "")
        if event is None or call["Caller"] in (None, OURSELVES):
            return ""
        return event["Function"].removeprefix("cordon-contain-").removeprefix("cordon-drill-")

    def _change(self, call: Call) -> Change:
        event = self._events.get(call["Trace"] or "", {}).get("Event", "{}")
        instance = re.search(r'"InstanceId": ?"(i-[0-9a-f]+)"', event)
        parameters = tuple((re.sub(r"\.\d+", ".N", key), value) for key, value in call["Parameters"].items() if value)
        phase = "release" if '"Release"' in event else "containment"
        return Change(instance[1] if instance else "", phase, self._function(call), f"{call['Service']}:{call['Action']}", parameters, call["Start"])

    def others(self) -> Counter[str]:
        """All that is not among the changes: by function, call and error, how often."""
        changes = {id(call) for call in self.calls if call["Service"] in ON_MOTO and call["Service"] != "sts" and is_change(call)}
        rest = [call for call in self.calls if self._function(call) and id(call) not in changes]
        return Counter(f"{self._function(call)}: {call['Service']}:{call['Action']}{' ' + call['Error'] if call['Error'] else ''}" for call in rest)


def kind_of(part: str) -> str:
    kind = RANDOM.match(part).lastgroup
    return part.rsplit("-", 1)[0] if kind == "id" else kind


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- Comparing ---------------------------------------------------------------------------------------------------


class Names:
    """Readable names: the same for what is the same in both runs."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}
        self._count: Counter[str] = Counter()

    def of(self, run: Run) -> Name:
        def name(part: str) -> str:
            signature = run.signatures.get(part, part)
            if signature not in self._numbers:
                self._count[kind_of(part)] += 1
                self._numbers[signature] = f"{kind_of(part)}#{self._count[kind_of(part)]}"
            return self._numbers[signature]

        return name


def instances(run: Run) -> list[str]:
    """In the order in which the drill has built them."""
    built = list(run.signatures)
    return sorted({change.instance for change in run.changes}, key=lambda one: built.index(one) if one in built else -1)


def branch_of(function: str) -> tuple[str, ...]:
    return next((branch for branch in BRANCHES if function in branch), (function,))


def orders(changes: list[Change], name: Name, built: set[str]) -> dict[str, list[str]]:
    """What has an order: the functions of each branch, and calls that put one thing of Cordon's after another on a victim."""
    found: dict[str, list[str]] = {}
    for branch in {branch_of(change.function) for change in changes}:
        found[f"the order of {', '.join(branch)}"] = [function for function, _ in groupby(c.function for c in changes if c.function in branch)]
    for change in changes:
        if built & set(change.parts()):
            what = change.written(lambda part: name(part) if part in built else f"some {kind_of(part)}")
            found.setdefault(f"the order of {what}", []).append(change.written(name))
    return found


def differences(before: Run, after: Run) -> Iterator[str]:
    """Sentences; none where the changes are the same."""
    names = Names()
    name_before, name_after = names.of(before), names.of(after)
    pairs = (instances(before), instances(after))
    if len(pairs[0]) != len(pairs[1]):
        yield f"changes were made for {len(pairs[0])} instances before, and for {len(pairs[1])} after"
    for one, other in zip(*pairs):
        for phase in ("containment", "release"):
            was, now = ([c for c in run.changes if (c.instance, c.phase) == (id_, phase)] for run, id_ in ((before, one), (after, other)))
            written = [Counter(change.written(name) for change in changes) for changes, name in ((was, name_before), (now, name_after))]
            of = f"{phase} of {name_before(one) if one else 'all'}"
            yield from (f"{of}: only before: {call}" for call in (written[0] - written[1]).elements())
            yield from (f"{of}: only after:  {call}" for call in (written[1] - written[0]).elements())
            if written[0] == written[1]:
                old, new = orders(was, name_before, before.built), orders(now, name_after, after.built)
                for what in sorted(old):
                    if old[what] != new.get(what):
                        yield f"{of}: {what} was {old[what]}, and is {new.get(what)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="the folder of a run")
    parser.add_argument("after", type=Path, help="the folder of another")
    options = parser.parse_args()
    before, after = Run(options.before), Run(options.after)
    found = list(differences(before, after))
    print(f"EC2-side changes: {len(before.changes)} before, {len(after.changes)} after; {'they differ:' if found else 'the same, in the same order'}")
    for line in found:
        print(f"  {line}")
    others = before.others(), after.others()
    print(f"\nAll other calls: {sum(others[0].values())} before, {sum(others[1].values())} after{'; the same' if others[0] == others[1] else ''}")
    for call in sorted({*others[0], *others[1]}):
        if others[0][call] != others[1][call]:
            print(f"  {call}: {others[0][call]} before, {others[1][call]} after")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
