"""Fleets counted on the local stack: what each instance costs, and what has to happen one after the other."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from .bench_containment import (
    ISOLATE, LATENCY_SECONDS, Run, contain, function_of, functions_by_state, in_round_trips, remove_load_balancing, states_before,
    typical_fleet, typical_instance,
)  # fmt: skip
from .bench_tokens import Trips, trace_of
from support.stack import Execution, LocalStack

# The machine's own room: so many batches at a time, where AWS starts them at EC2's pace.
BATCHES_AT_ONCE = 3


@dataclass
class FleetRun:
    """One containment of so many instances, with all executions that belong to it."""

    run: Run
    batches: list[Execution]
    states_in_sequence: int  # entered one after the other until an instance's isolation is begun

    @property
    def verdicts(self) -> str:
        counts = self.run.execution.outcome.get("Counts", {}).get("Verdicts")
        return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) if counts else self.run.verdict

    @property
    def transitions(self) -> int:
        """Of the execution and its batches; those of the Distributed Map's children, three each, too."""
        of_batches = sum(Run(batch, [], 0).transitions for batch in self.batches)
        return self.run.transitions + of_batches + 3 * len(self.batches)


def measure_trace(stack: LocalStack) -> dict[str, Trips]:
    """What one instance asks for, in round trips: in a VPC that has Cordon's groups already, as those of a fleet have."""
    fleet = typical_fleet(stack, "traced", 2)
    contain(stack, [typical_instance(stack, fleet, 1)])
    run = contain(stack, [typical_instance(stack, fleet, 2)], LATENCY_SECONDS)
    remove_load_balancing(stack)
    return trace_of(run.calls, function_of, in_round_trips, LATENCY_SECONDS)


def run_fleet_of(stack: LocalStack, count: int) -> FleetRun:
    """Typical instances of one new VPC, in one Auto Scaling group and target group."""
    fleet = typical_fleet(stack, f"of-{count}", count)
    instances = [typical_instance(stack, fleet, number) for number in range(count)]
    since = time.time()
    execution = stack.run({"InstanceIds": instances, "Region": stack.region}, wait=60 + 20 * count)
    run = Run(execution, stack.calls(since), count)
    remove_load_balancing(stack)
    batches = batches_of(stack, execution)
    return FleetRun(run, batches, states_in_sequence(stack, execution, batches))


def batches_of(stack: LocalStack, execution: Execution) -> list[Execution]:
    client = stack.client("stepfunctions")
    described = [client.describe_execution(executionArn=arn) for arn in stack.executions()]
    of_fleet = [one for one in described if json.loads(one["input"]).get("Batch", {}).get("Execution") == execution.arn]
    return [stack.wait(one["executionArn"]) for one in of_fleet]


def states_in_sequence(stack: LocalStack, execution: Execution, batches: list[Execution]) -> int:
    isolate = next(state for state, function in functions_by_state(stack).items() if function == ISOLATE)
    if not batches:
        return len(states_before(execution.history, isolate))
    waits = 2  # the states of the Distributed Map's child: its turn, and the batch
    return len(states_before(execution.history, "Contain fleet")) + waits + len(states_before(batches[0].history, isolate))


def figures(run: FleetRun) -> dict[str, Any]:
    calls = run.run
    return {
        "Verdicts": run.verdicts, "Batches": len(run.batches), "StatesInSequence": run.states_in_sequence, "Transitions": run.transitions,
        "CallsEc2Side": len(calls.ec2_side), "Calls": len(calls.calls), "Seconds": round(calls.execution.seconds, 1),
    }  # fmt: skip
