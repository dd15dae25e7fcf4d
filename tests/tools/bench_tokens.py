"""How long a fleet takes to be isolated under the throttling that AWS documents: a simulation, without a clock or a network.

EC2 throttles each API by a bucket of tokens in each account and Region (EC2 developer guide, "Request throttling for the
Amazon EC2 API"). What a containment asks of the buckets, in which order and what beside what, is measured on the local
stack; its concurrency, its pace and its retries are read from the product's own files; the latencies are assumed. The
buckets of Auto Scaling, Elastic Load Balancing, IAM and Systems Manager are not documented, and not simulated.
"""

from __future__ import annotations

import heapq
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Callable, Generator, Iterator

from support.stack import PROJECT

# Capacity, and refill a second.
CHANGES, READS = (50, 5), (100, 20)
LOOKUPS = (2, 2)  # CloudTrail's LookupEvents, an account and Region's two a second
NOTED = "cloudtrail:LookupEvents"

# Assumed: what a call takes to be answered, and a state to be entered and its function to be there.
CALL_SECONDS, STATE_SECONDS = 0.1, 0.1
BACKOFF_AT_MOST = 20.0  # of the SDK's standard mode, which begins with a second

# The branches of the first Map, and of the second; those of each run one after the other.
FAST = ("detach-autoscaling", "isolate-network", "deregister-targets")
AT_ONCE = (("create-snapshots",), ("terminate-sessions", "revoke-credentials", "detach-profile"), ("describe-network",))
SETTLING = ("protect-instance", "preserve-volumes", "tag-resources")
LATER = (("encrypt-snapshots",), ("create-flow-logs", "collect-facts"))

Trips = list[tuple[float, list[str]]]  # a pause, and the calls that are then made at once
Process = Generator[Any, Any, bool]


@dataclass
class Bucket:
    """Tokens that are refilled continuously up to the capacity; a call takes one, or is refused."""

    capacity: float
    rate: float
    tokens: float = field(init=False)
    at: float = 0.0
    first: float | None = None  # when the first token was taken: until then, nothing is refilled
    granted: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.capacity

    def take(self, now: float) -> bool:
        self.tokens = min(self.capacity, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1 - 1e-9:
            self.refused += 1
            return False
        self.tokens -= 1
        self.granted += 1
        self.first = now if self.first is None else self.first
        return True


@cache
def bucket_of(api: str) -> tuple[float, float] | None:
    """The bucket that AWS documents for an API such as `ec2:DescribeInstances`; none where it documents none."""
    service, action = api.split(":")
    if api == NOTED:
        return LOOKUPS
    if service != "ec2":
        return None
    return READS if action.startswith(("Describe", "Get", "List", "Search")) else CHANGES


@dataclass(frozen=True)
class Settings:
    """The product's own numbers."""

    sdk_attempts: int
    state_retries: dict[str, int]
    inline_at_once: int
    fleet_above: int
    batch: int
    pace: dict[str, float]  # the constants of prepare-fleet

    def paced(self, instances: int) -> tuple[float, float, float]:
        """Seconds between the beginnings of batches, until the first may settle, and between these, as prepare-fleet says.

        The instances have an interface each.
        """
        batches, of = -(-instances // self.batch), self.pace
        alone = instances * of["SECONDS_TO_ISOLATE_AN_INTERFACE"] - of["FULL_AT_FIRST_SECONDS"]
        minute, share = of["ISOLATION_ALONE_SECONDS"], of["SHARE_OF_SETTLING"]
        isolated = (alone - share * minute) / (1 - share) if alone > minute else alone
        described = instances * of["SECONDS_TO_DESCRIBE_AN_INSTANCE"] - of["DESCRIBED_AT_FIRST_SECONDS"]
        last = max(0.0, isolated - of["WAY_TO_ISOLATION_SECONDS"], described)
        after = min(minute, last + of["WAY_TO_ISOLATION_SECONDS"])
        return last / max(1, batches - 1), after, instances / batches * of["SECONDS_TO_SETTLE_AN_INTERFACE"]


@cache
def product() -> Settings:
    """As the template, the state machine and the functions have them."""
    template = (PROJECT / "template.yaml").read_text(encoding="utf-8")
    serve = (PROJECT / "crates/runtime/src/serve.rs").read_text(encoding="utf-8")
    pace = (PROJECT / "functions/prepare-fleet/src/pace.rs").read_text(encoding="utf-8")
    machine = json.loads((PROJECT / "statemachine/contain.asl.json").read_text(encoding="utf-8"))

    def number(pattern: str, text: str) -> float:
        return float(re.search(pattern, text)[1])

    at_once = int(number(r"  MaxConcurrency:\n    Type: Number\n    Default: (\d+)", template))
    return Settings(
        sdk_attempts=int(number(r"with_max_attempts\((\d+)\)", serve)),
        state_retries=dict(retries_in(machine)),
        inline_at_once=at_once,
        fleet_above=int(number(r"  FleetAbove:\n    Type: Number\n    Default: (\d+)", template)),
        batch=at_once,  # a batch has as many instances as are contained at the same time
        pace={name: float(value) for name, value in re.findall(r"const (\w+): f64 = ([\d.]+);", pace)},
    )


def retries_in(machine: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """How often the state machine calls each function again; the first state that calls it counts."""
    for state in reversed(machine["States"].values()):
        for inner in reversed([*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]):
            yield from retries_in(inner)
        if name := state.get("Arguments", {}).get("FunctionName", "").strip("${}"):
            yield re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower(), state["Retry"][0]["MaxAttempts"]


@dataclass
class Outcome:
    """What came of a simulated fleet."""

    isolated: list[float]  # when each instance was, in order
    ended: float
    lost: Counter[str]  # by function: all retries used up
    notes: int  # questions to CloudTrail that were given up, which an instance's facts then say
    buckets: dict[str, Bucket]

    @property
    def all_isolated(self) -> float:
        return self.isolated[-1]

    @property
    def refused(self) -> int:
        return sum(bucket.refused for bucket in self.buckets.values())


class Simulation:
    """Processes that wait, call and run beside each other, on one clock."""

    def __init__(self, trace: dict[str, Trips], settings: Settings, seed: int) -> None:
        self.trace, self.settings, self.random = trace, settings, random.Random(seed)
        self.now, self._events, self._number = 0.0, [], 0
        self.buckets: dict[str, Bucket] = {}
        self.isolated: list[float] = []
        self.lost: Counter[str] = Counter()
        self.notes = 0

    def run(self, instances: int) -> Outcome:
        self._start(self.fleet(instances), lambda _: None)
        while self._events:
            self.now, _, resume = heapq.heappop(self._events)
            resume()
        return Outcome(sorted(self.isolated), self.now, self.lost, self.notes, self.buckets)

    # --- What runs -------------------------------------------------------------------------------------------------

    def fleet(self, instances: int) -> Process:
        yield 2 * STATE_SECONDS + 2 * CALL_SECONDS  # intake
        if instances <= self.settings.fleet_above:
            return (yield [self.execution(instances, 0.0)])
        pages = -(-instances // 200)
        results = yield [self.call("ec2:DescribeInstances") for _ in range(1)]
        yield (pages - 1) * CALL_SECONDS + 8 * CALL_SECONDS  # the other pages, and the groups of a VPC
        began, size = self.now, self.settings.batch
        isolate_every, settle_after, settle_every = self.settings.paced(instances)
        sizes = [min(size, instances - first) for first in range(0, instances, size)]

        def batch(number: int, count: int) -> Process:
            yield number * isolate_every + 4 * STATE_SECONDS + 3 * CALL_SECONDS
            return (yield [self.execution(count, began + settle_after + number * settle_every)])

        return all(results) and all((yield [batch(number, count) for number, count in enumerate(sizes)]))

    def execution(self, instances: int, settle_at: float) -> Process:
        """Both Maps: so many instances at a time in the first, all of them in the second."""
        waiting = iter(range(instances))

        def slot() -> Process:
            for _ in waiting:
                yield [self.instance(settle_at)]
            return True

        yield [slot() for _ in range(min(instances, self.settings.inline_at_once))]
        yield [self.later() for _ in range(instances)]
        return True

    def instance(self, settle_at: float) -> Process:
        yield [self.sequence(("describe-instance",))]
        yield [self.sequence(FAST), *(self.sequence(branch) for branch in AT_ONCE), self.sequence(SETTLING, settle_at)]
        return True

    def later(self) -> Process:
        yield [self.sequence(branch) for branch in LATER]
        yield [self.sequence(("verify-containment", "seal-evidence"))]
        return True

    def sequence(self, functions: tuple[str, ...], not_before: float = 0.0) -> Process:
        yield max(0.0, not_before - self.now)
        for name in functions:
            yield STATE_SECONDS
            yield [self.function(name)]
        return True

    def function(self, name: str) -> Process:
        """One step with the workflow's retries. A step that fails begins anew."""
        retries = self.settings.state_retries.get(name, 0)
        isolating = isolating_trip(self.trace) if name == "isolate-network" else None
        for attempt in range(retries + 1):
            failed = False
            for number, (pause, calls) in enumerate(self.trace.get(name, [])):
                yield pause
                # Calls without a bucket are all answered after the same time, as one of them would be.
                limited = [api for api in calls if bucket_of(api)]
                answered = (yield [self.call(api) for api in limited]) if limited else (yield CALL_SECONDS) or []
                # What CloudTrail has no time for is a note of collect-facts, and no failure.
                failed = not all(done or api == NOTED for api, done in zip(limited, answered))
                self.notes += sum(not done and api == NOTED for api, done in zip(limited, answered))
                if failed:
                    break
                if number == isolating:
                    self.isolated.append(self.now)
                    isolating = None
            if not failed:
                return True
            yield self.random.random() * min(30.0, 2.0**attempt)
        self.lost[name] += 1
        return False

    def call(self, api: str) -> Process:
        """One call with the SDK's retries: standard mode, full jitter, exponential backoff."""
        for attempt in range(self.settings.sdk_attempts):
            yield CALL_SECONDS
            if self.bucket(api).take(self.now):
                return True
            if attempt + 1 < self.settings.sdk_attempts:
                yield self.random.random() * min(BACKOFF_AT_MOST, 2.0**attempt)
        return False

    def bucket(self, api: str) -> Bucket:
        if api not in self.buckets:
            self.buckets[api] = Bucket(*(bucket_of(api) or (float("inf"), 0.0)))
        return self.buckets[api]

    # --- The clock -------------------------------------------------------------------------------------------------

    def _start(self, process: Process, ended: Callable[[bool], None]) -> None:
        self._resume(process, None, ended)

    def _resume(self, process: Process, value: Any, ended: Callable[[bool], None]) -> None:
        try:
            wanted = process.send(value)
        except StopIteration as stop:
            return ended(bool(stop.value))
        if not isinstance(wanted, list):
            return self._after(wanted, lambda: self._resume(process, None, ended))
        results: list[bool] = [False] * len(wanted)
        open_ = len(wanted)

        def one(index: int) -> Callable[[bool], None]:
            def ended_(result: bool) -> None:
                nonlocal open_
                results[index] = result
                open_ -= 1
                if open_ == 0:
                    self._after(0.0, lambda: self._resume(process, results, ended))

            return ended_

        if not wanted:
            return self._after(0.0, lambda: self._resume(process, results, ended))
        for index, inner in enumerate(wanted):
            self._start(inner, one(index))
        return None

    def _after(self, seconds: float, resume: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, resume))


def isolating_trip(trace: dict[str, Trips]) -> int:
    """Which round trip of isolate-network is the one that attaches the isolation group: the last that sets groups."""
    trips = trace["isolate-network"]
    return max(number for number, (_, calls) in enumerate(trips) if "ec2:ModifyNetworkInterfaceAttribute" in calls)


def simulate(trace: dict[str, Trips], instances: int, settings: Settings | None = None, seed: int = 1) -> Outcome:
    """The fleet, contained as the product would: the same for the same seed."""
    return Simulation(trace, settings or product(), seed).run(instances)


def until_isolated(trace: dict[str, Trips]) -> Counter[str]:
    """The calls that an instance needs until it is isolated, by API."""
    isolating = trace["isolate-network"][: isolating_trip(trace) + 1]
    trips = [trip for name in ("describe-instance", "detach-autoscaling") for trip in trace.get(name, [])] + isolating
    return Counter(api for _, calls in trips for api in calls)


def at_best(trace: dict[str, Trips], instances: int) -> tuple[float, str]:
    """What the buckets allow at best, and which of them it is that is waited for.

    All calls that the instances need until they are isolated have to be granted, and a bucket grants no more than what is
    in it at first and what is refilled since the first call of that API. Nothing is quicker than an instance alone.
    """
    alone = simulate(trace, 1)
    limits = {"": alone.all_isolated}
    for api, count in until_isolated(trace).items():
        if bucket := bucket_of(api):
            limits[api] = (alone.buckets[api].first or 0.0) + (count * instances - bucket[0]) / bucket[1]
    slowest = max(limits, key=limits.__getitem__)
    return limits[slowest], slowest


def trace_of(calls: list[dict[str, Any]], function_of: Callable[[dict[str, Any]], str],
             in_round_trips: Callable[[list[dict[str, Any]]], list[list[dict[str, Any]]]], latency: float) -> dict[str, Trips]:  # fmt: skip
    """What each function called of one contained instance, in round trips, with the pauses between them.

    The record is of a run in which every call took `latency` at least, so that what runs beside each other is seen to.
    """
    by_function: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        by_function.setdefault(function_of(call), []).append(call)
    trace: dict[str, Trips] = {}
    for name, of_function in by_function.items():
        ended = None
        for trip in in_round_trips(of_function):
            began = min(call["Start"] for call in trip)
            pause = began - ended if ended is not None else 0.0
            # Half a second is this machine's; what is longer is the product's own.
            pause = round(pause, 1) if pause > max(1.0, 2 * latency) else 0.0
            trace.setdefault(name, []).append((pause, [f"{call['Service']}:{call['Action']}" for call in trip]))
            ended = max(call["End"] for call in trip)
    return trace
