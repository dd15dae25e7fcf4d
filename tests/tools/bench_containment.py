"""Containments counted: states, calls and round trips, from the local stack's own records."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Iterator

from emulator.call_record import Call, is_change
from support.stack import Execution, LocalStack, StackError, ancestry
from support.victim import (
    DATA, ROOT, Fleet, build_network, build_role, build_scaling_group, build_victims, described_instance, new_target_group, run_instance,
)  # fmt: skip

MACHINE = "cordon-bench"
ISOLATE = "isolate-network"
ID = re.compile(r"\b(i|eni|sg|sgr|vol|snap|vpc)-[0-9a-f]{8,}")
KINDS = ("reads", "changes", "journal", "evidence", "refused")

# Long beside everything that takes time on this machine, so that calls made in parallel are seen to overlap.
LATENCY_SECONDS = 0.4


@dataclass
class Run:
    """One execution, with the calls that the functions made in it."""

    execution: Execution
    calls: list[Call]
    instances: int

    @property
    def transitions(self) -> int:
        """States entered, and every further attempt of a task: AWS bills retries too."""
        kinds = Counter(event["type"] for event in self.execution.history)
        entered = sum(count for kind, count in kinds.items() if kind.endswith("StateEntered"))
        return entered + max(0, kinds["TaskScheduled"] - kinds["TaskStateEntered"])

    @property
    def ec2_side(self) -> list[Call]:
        """All calls but those to the case table and the evidence bucket."""
        return [call for call in self.calls if kind_of(call) not in ("journal", "evidence")]

    @property
    def verdict(self) -> str:
        """How the instances ended, in words: a count of a containment that failed half-way would be worth nothing."""
        verdicts = Counter(one.get("Verdict", "no outcome") for one in self.execution.outcome.get("Instances", []))
        return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or self.execution.status

    @property
    def failures(self) -> Counter[str]:
        """What failed in it, with ids left out, so that the same failure of several instances is one."""
        steps = [step for one in self.execution.outcome.get("Instances", []) for step in one.get("Steps", [])]
        failed = [f"{step.get('Step')}: {step.get('Reason')}" for step in steps if step.get("Status") == "Failed"]
        return Counter(ID.sub(r"\1-…", text).split(" (request id")[0] for text in failed)

    def by_function(self) -> dict[str, Counter[str]]:
        split: dict[str, Counter[str]] = {}
        for call in self.calls:
            split.setdefault(function_of(call), Counter())[kind_of(call)] += 1
        return split


@dataclass
class Path:
    """What had to happen one after the other until the isolation group was attached."""

    states: list[str]
    round_trips: list[list[Call]]
    during_pause: int = 0  # how many of the round trips ran while the conversion group was taking hold, at no cost of time
    functions: set[str] = field(default_factory=set)


def kind_of(call: Call) -> str:
    if call["Service"] == "dynamodb":
        return "journal"
    if call["Service"] == "s3":
        return "evidence"
    if call["Error"] is not None:
        return "refused"
    return "changes" if is_change(call) else "reads"


def function_of(call: Call) -> str:
    """The function's name as its folder has it."""
    return str(call["Caller"] or "unknown").removeprefix(f"{MACHINE}-")


# --- The stack ---------------------------------------------------------------------------------------------------


@contextmanager
def deployed_stack(**parameters: str) -> Iterator[LocalStack]:
    """Everything settles at once here: what is counted is what Cordon asks for, not how often it polls."""
    with LocalStack(settings={"SFN_WAIT_SCALE": "0.05"}) as stack:
        deploy(stack, parameters)
        yield stack


def deploy(stack: LocalStack, parameters: dict[str, str]) -> None:
    """Tries again for a while, since somebody may be building the binaries at this moment."""
    for attempt in range(4):
        try:
            stack.deploy({"StateMachineName": MACHINE, "LogLevel": "ERROR", **parameters}, build=False, name=f"{MACHINE}-{attempt}")
            return
        except StackError:
            if attempt == 3:
                raise
            time.sleep(15)


def contain(stack: LocalStack, instances: list[str], latency: float = 0.0) -> Run:
    if latency:
        stack.inject({"Service": "*", "Action": "*", "DelaySeconds": latency})
    since = time.time()
    try:
        execution = stack.run({"InstanceIds": instances, "Region": stack.region}, wait=900)
    finally:
        stack.inject()
    return Run(execution, stack.calls(since), len(instances))


# --- Until the isolation group is attached -----------------------------------------------------------------------


def path_to_isolation(stack: LocalStack, run: Run, instance: str) -> Path:
    functions = functions_by_state(stack)
    states = states_before(run.execution.history, next(state for state, function in functions.items() if function == ISOLATE))
    on_path = {functions[state] for state in states if state in functions}
    attached = isolating_call(stack, run, instance)
    calls = [call for call in run.calls if function_of(call) in on_path and call["End"] <= attached["End"]]
    round_trips = in_round_trips(calls)
    return Path(states, round_trips, trips_during_pause(round_trips, attached), on_path)


def functions_by_state(stack: LocalStack) -> dict[str, str]:
    """Which function each state of the deployed state machine runs."""
    machine = stack.client("stepfunctions").describe_state_machine(stateMachineArn=stack.outputs["StateMachineArn"])
    return dict(tasks_in(json.loads(machine["definition"])))


def tasks_in(definition: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, state in definition["States"].items():
        if arn := state.get("Arguments", {}).get("FunctionName"):
            yield name, arn.split(":function:")[-1].split(":")[0].removeprefix(f"{MACHINE}-")
        for inner in (*state.get("Branches", []), *filter(None, [state.get("ItemProcessor")])):
            yield from tasks_in(inner)


def states_before(history: list[dict[str, Any]], last: str) -> list[str]:
    """The states that led to the first entry of this one, and it: a Map or a Parallel counts once, its other branches not at all."""
    events = {event["id"]: event for event in history}
    entry = next(event for event in history if event.get("stateEnteredEventDetails", {}).get("name") == last)
    chain = [entry, *(events[id_] for id_ in ancestry(entry, events))]
    return [event["stateEnteredEventDetails"]["name"] for event in reversed(chain) if "stateEnteredEventDetails" in event]


def isolating_call(stack: LocalStack, run: Run, instance: str) -> Call:
    """The last call that put an interface on the group that it has now."""
    now = {group["GroupId"] for one in described_instance(stack, instance)["NetworkInterfaces"] for group in one["Groups"]}
    setting = [call for call in group_settings(run.calls) if call["Parameters"]["SecurityGroupId.1"] in now]
    if not setting:
        raise StackError(f"no call of {ISOLATE} attached the groups that {instance} has now, {sorted(now)}: {run.verdict}")
    return setting[-1]


def group_settings(calls: list[Call]) -> list[Call]:
    return [call for call in calls if function_of(call) == ISOLATE and "SecurityGroupId.1" in call["Parameters"]
            and call["Action"] == "ModifyNetworkInterfaceAttribute" and call["Error"] is None]  # fmt: skip


def in_round_trips(calls: list[Call]) -> list[list[Call]]:
    """Calls by their depth: each began after one of the round trip before had ended, and none of them waited for another.

    The number of round trips is that of the longest chain.
    """
    trips: list[list[Call]] = []
    for call in sorted(calls, key=lambda call: call["Start"]):
        depth = next((n for n in range(len(trips), 0, -1) if any(one["End"] <= call["Start"] for one in trips[n - 1])), 0)
        trips[depth : depth + 1] = [[*trips[depth], call] if depth < len(trips) else [call]]
    return trips


def trips_during_pause(trips: list[list[Call]], attached: Call) -> int:
    """Round trips between the conversion group and the isolation group, if there is a pause between them that is longer."""
    other = [call for call in group_settings([call for trip in trips for call in trip])
             if call["Parameters"]["SecurityGroupId.1"] != attached["Parameters"]["SecurityGroupId.1"]]  # fmt: skip
    if not other:
        return 0
    began = max(call["End"] for call in other)
    within = [trip for trip in trips if all(call["Start"] >= began and call["End"] <= attached["Start"] for call in trip)]
    busy = sum(max(call["End"] for call in trip) - min(call["Start"] for call in trip) for trip in within)
    return len(within) if attached["Start"] - began > busy + LATENCY_SECONDS else 0


# --- What is contained -------------------------------------------------------------------------------------------


def typical_fleet(stack: LocalStack, name: str, members: int) -> Fleet:
    """A new VPC with an Auto Scaling group, one target group and a profile; no instance yet."""
    fleet = Fleet(name)
    build_network(stack, fleet)
    build_role(stack, fleet)
    fleet.instance_targets = new_target_group(stack.client("elbv2"), fleet, "instance")
    build_scaling_group(stack, fleet, members)
    return fleet


def typical_instance(stack: LocalStack, fleet: Fleet, number: int) -> str:
    """One interface and two volumes; it is registered in the target group by joining the Auto Scaling group."""
    instance = run_instance(stack, fleet, f"{fleet.name}-{number}", [ROOT, DATA], profile=fleet.profile)
    stack.client("autoscaling").attach_instances(AutoScalingGroupName=fleet.scaling, InstanceIds=[instance])
    return instance


def run_fleet(stack: LocalStack, count: int) -> Run:
    """A fleet in new VPCs, each instance with two interfaces, and load balancers of each kind."""
    victims = build_victims(stack, count, name=f"fleet-{count}")
    try:
        return contain(stack, [victim.instance for victim in victims])
    finally:
        remove_load_balancing(stack)


def run_among_target_groups(stack: LocalStack, count: int) -> Run:
    """A typical instance in a Region with so many target groups, all of its VPC; it is registered in one of them."""
    fleet = typical_fleet(stack, f"among-{count}", 1)
    elb = stack.client("elbv2")
    for number in range(1, count):
        elb.create_target_group(Name=f"among-{count}-{number}", Protocol="HTTP", Port=80, VpcId=fleet.vpc, TargetType="instance")
    try:
        return contain(stack, [typical_instance(stack, fleet, 1)])
    finally:
        remove_load_balancing(stack)


def remove_load_balancing(stack: LocalStack) -> None:
    """A run's load balancers and target groups would be calls of the next one."""
    elb, classic = stack.client("elbv2"), stack.client("elb")
    for balancer in elb.describe_load_balancers()["LoadBalancers"]:
        elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
    groups = [group for page in elb.get_paginator("describe_target_groups").paginate() for group in page["TargetGroups"]]
    for group in groups:
        elb.delete_target_group(TargetGroupArn=group["TargetGroupArn"])
    for balancer in classic.describe_load_balancers()["LoadBalancerDescriptions"]:
        classic.delete_load_balancer(LoadBalancerName=balancer["LoadBalancerName"])
