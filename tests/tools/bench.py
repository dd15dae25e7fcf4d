#!/usr/bin/env python3
"""How little Cordon needs: states, AWS calls and round trips of a containment, and what its functions weigh.

    make bench [ARGS="[--quick] [--only path|growth|fleet|functions] [--runs N]"]

States, calls and round trips are counted from the local stack's own records, so they do not depend on this machine;
cold starts do, so read their ratios. It asserts nothing: the exit code is 0 unless something could not be measured.
The figures are also written to .local/run/bench.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any, Iterable

from .bench_containment import (
    KINDS, Path, Run, contain, deployed_stack, function_of, kind_of, path_to_isolation, remove_load_balancing, run_among_target_groups,
    run_fleet, typical_fleet, typical_instance, LATENCY_SECONDS,
)  # fmt: skip
from .bench_fleet import BATCHES_AT_ONCE, FleetRun, figures as fleet_figures, measure_trace, run_fleet_of
from .bench_functions import COMPARED, Figures, function_bench, function_names
from .bench_tokens import at_best, product, simulate
from support.stack import RUNS, LocalStack, StackError

PARTS = ("path", "growth", "fleet", "functions")
NEW, SEEN = "new VPC", "VPC seen before"

# The aims, and what a well-known version without functions needs, where every call is a state.
PATH_STATES = {"aim": 8, "all-ASL": 18}
PATH_TRIPS = {"aim": "8, new VPC 12", "all-ASL": 13}
ALL_ASL_TRANSITIONS, ALL_ASL_CALLS = "87 to 99", "36 to 42"
ALL_ASL_AMONG_100 = 568
COLD_AIM, MEMORY_AIM = 40, 8

Row = Iterable[Any]


def main() -> int:
    options = parse()
    parts = [options.only] if options.only else PARTS
    figures: dict[str, Any] = {}
    try:
        if "path" in parts or "growth" in parts:
            with deployed_stack() as stack:
                if "path" in parts:
                    figures |= bench_path(stack)
                if "growth" in parts:
                    figures |= bench_growth(stack, options.quick)
        if "fleet" in parts:
            # A deployment of its own: this machine has no room for as many batches at a time as AWS.
            with deployed_stack(FleetConcurrency=str(BATCHES_AT_ONCE)) as stack:
                figures |= bench_fleet(stack, options)
        if "functions" in parts:
            figures |= bench_functions(options.runs)
    except StackError as error:
        print(f"\nNot measured: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        save(figures)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out 50 instances and 100 target groups: 3 minutes, not 9")
    parser.add_argument("--thousand", action="store_true", help="a fleet of 1,000 instances on the local stack too: more than half an hour")
    parser.add_argument("--only", choices=PARTS, help="one part of the figures")
    parser.add_argument("--runs", type=int, default=9, metavar="N", help="how many processes of each function the medians are of (9)")
    return parser.parse_args()


# --- One instance ------------------------------------------------------------------------------------------------


def bench_path(stack: LocalStack) -> dict[str, Any]:
    """Two instances of one VPC, one after the other: Cordon's groups are there for the second."""
    fleet = typical_fleet(stack, "typical", 2)
    runs, paths = {}, {}
    for number, where in enumerate((NEW, SEEN), start=1):
        instance = typical_instance(stack, fleet, number)
        runs[where] = contain(stack, [instance], LATENCY_SECONDS)
        paths[where] = path_to_isolation(stack, runs[where], instance)
    remove_load_balancing(stack)
    show_path(paths)
    show_whole(runs)
    return {
        "Path": {where: path_figures(path) for where, path in paths.items()},
        "Containment": {where: run_figures(run) for where, run in runs.items()},
    }


def show_path(paths: dict[str, Path]) -> None:
    heading("Until the isolation group is attached")
    print("  One interface, two volumes, an Auto Scaling group, a target group, a profile.")
    new, seen = paths[NEW], paths[SEEN]
    trips = {where: len(path.round_trips) for where, path in paths.items()}
    print(table(("", SEEN, NEW, "aim", "all-ASL"), [
        ("states entered in sequence", len(seen.states), len(new.states), *PATH_STATES.values()),
        ("AWS round trips in sequence", trips[SEEN], trips[NEW], *PATH_TRIPS.values()),
        ("  of which beside a pause that runs anyway", seen.during_pause, new.during_pause, "", ""),
        ("  left to wait for", trips[SEEN] - seen.during_pause, trips[NEW] - new.during_pause, "", ""),
        ("AWS calls in these", calls_in(seen), calls_in(new), "", ""),
    ]))  # fmt: skip
    print("\n  Below, AT counts in round trips too: where it leaps, something else than AWS was waited for.")
    for where, path in reversed(paths.items()):
        print(f"\n  {where}: {' > '.join(path.states)}\n")
        print(table(("", "AT", "FUNCTION", "CALLS"), chain_rows(path)))


def calls_in(path: Path) -> int:
    return sum(len(trip) for trip in path.round_trips)


def chain_rows(path: Path) -> list[Row]:
    """A line for each round trip and function; the time, in round trips of the injected latency, shows where something else was waited for."""
    rows: list[Row] = []
    began = path.round_trips[0][0]["Start"]
    for number, trip in enumerate(path.round_trips, start=1):
        at = (min(call["Start"] for call in trip) - began) / LATENCY_SECONDS
        for function in dict.fromkeys(function_of(call) for call in trip):
            calls = Counter(call_name(call) for call in trip if function_of(call) == function)
            rows.append((number, f"{at:.1f}", function, ", ".join(counted(name, count) for name, count in calls.items())))
    return rows


def call_name(call: dict[str, Any]) -> str:
    return f"{call['Service']}:{call['Action']}" + (f" ({call['Error']})" if call["Error"] else "")


def counted(name: str, count: int) -> str:
    return name if count == 1 else f"{count} {name}"


def show_whole(runs: dict[str, Run]) -> None:
    heading("The whole containment")
    new, seen = runs[NEW], runs[SEEN]
    print(table(("", SEEN, NEW, "all-ASL"), [
        ("verdict", seen.verdict, new.verdict, ""),
        ("state transitions", seen.transitions, new.transitions, ALL_ASL_TRANSITIONS),
        ("AWS calls, EC2 side", len(seen.ec2_side), len(new.ec2_side), ALL_ASL_CALLS),
        ("AWS calls, with DynamoDB and S3", len(seen.calls), len(new.calls), ""),
    ]))  # fmt: skip
    print("  Snapshots, draining and detaching settle at once here; on AWS each poll of one adds a task, a choice and a wait.")
    print(f"\n  Calls by function, {SEEN}:\n")
    split = seen.by_function()
    rows: list[Row] = [(name, *(counts[kind] for kind in KINDS), counts.total()) for name, counts in sorted(split.items())]
    total = Counter(kind_of(call) for call in seen.calls)
    print(table(("FUNCTION", *(kind.upper() for kind in KINDS), "ALL"), [*rows, ("all", *(total[kind] for kind in KINDS), total.total())]))


# --- Growth ------------------------------------------------------------------------------------------------------


def bench_growth(stack: LocalStack, quick: bool) -> dict[str, Any]:
    among = {count: run_among_target_groups(stack, count) for count in ((1, 10) if quick else (1, 10, 100))}
    heading("With target groups in the Region, one typical instance in a new VPC")
    print(growth_table("TARGET GROUPS", among, {100: ALL_ASL_AMONG_100}))
    fleets = {count: run_fleet(stack, count) for count in ((1, 10) if quick else (1, 10, 50))}
    heading("With instances, two interfaces each, in one Auto Scaling group in new VPCs")
    print(growth_table("INSTANCES", fleets, {1: ALL_ASL_TRANSITIONS}))
    show_failures(fleets)
    per_instance = [(count, *(f"{number / count:.1f}" for number in sizes(run))) for count, run in fleets.items()]
    print("\n  Per instance:\n")
    print(table(("INSTANCES", "TRANSITIONS", "CALLS, EC2 SIDE", "OF WHICH CHANGES", "ALL CALLS"), per_instance))
    return {
        "Instances": {str(count): run_figures(run) for count, run in fleets.items()},
        "TargetGroups": {str(count): run_figures(run) for count, run in among.items()},
    }


def growth_table(what: str, runs: dict[int, Run], all_asl: dict[int, Any]) -> str:
    header = (what, "TRANSITIONS", "CALLS, EC2 SIDE", "OF WHICH CHANGES", "ALL CALLS", "ALL-ASL TRANSITIONS", "VERDICT")
    return table(header, [(count, *sizes(run), all_asl.get(count, ""), run.verdict) for count, run in runs.items()])


def show_failures(runs: dict[int, Run]) -> None:
    """A count of calls is worth little where containment failed, so the reader must see that and why."""
    for count, run in runs.items():
        for text, times in run.failures.items():
            print(f"  of {count}, failed {times} times: {text[:220]}")


def sizes(run: Run) -> tuple[int, int, int, int]:
    changes = sum(kind_of(call) == "changes" for call in run.calls)
    return run.transitions, len(run.ec2_side), changes, len(run.calls)


# --- Fleets ------------------------------------------------------------------------------------------------------

AT_BEST_AIM = 1.2


def bench_fleet(stack: LocalStack, options: argparse.Namespace) -> dict[str, Any]:
    trace = measure_trace(stack)
    counts = (1, 10) if options.quick else (1, 10, 100, *((1_000,) if options.thousand else ()))
    fleets = {count: run_fleet_of(stack, count) for count in counts}
    heading("Fleets on the local stack, one interface and two volumes each, in one Auto Scaling group and a new VPC")
    header = ("INSTANCES", "BATCHES", "STATES IN SEQUENCE", "TRANSITIONS EACH", "EC2-SIDE CALLS EACH", "ALL CALLS EACH", "VERDICTS")
    print(table(header, [fleet_row(count, run) for count, run in fleets.items()]))
    print("  STATES IN SEQUENCE are those until an instance's isolation is begun.")
    show_failures({count: run.run for count, run in fleets.items()})
    simulated = {count: (simulate(trace, count), *at_best(trace, count)) for count in (1, 10, 100, 1_000, *(() if options.quick else (10_000,)))}
    settings = product()
    heading("Until all are isolated, simulated against EC2's documented token buckets, in one account and Region")
    print(f"  Calls as measured above. {settings.sdk_attempts} attempts of the SDK, batches of {settings.batch}; assumed: a call 0.1 s, a state 0.1 s.")
    header = ("INSTANCES", "ISOLATED AFTER s", "AT BEST s", "RATIO", f"AIM {AT_BEST_AIM}", "WHAT LIMITS", "REFUSED, TRIED AGAIN", "LOST", "ALL DONE AFTER s")
    rows = []
    for count, (outcome, best, limit) in simulated.items():
        ratio = outcome.all_isolated / best
        met = "met" if ratio <= AT_BEST_AIM else "MISSED"
        rows.append((count, f"{outcome.all_isolated:.1f}", f"{best:.1f}", f"{ratio:.2f}", met, limit or "its own way", outcome.refused,
                     outcome.lost.total(), f"{outcome.ended:.0f}"))  # fmt: skip
    print(table(header, rows))
    print("  REFUSED counts CloudTrail's LookupEvents, which may be left out of an instance's facts; LOST, steps whose retries were all used up.")
    return {
        "Fleets": {str(count): fleet_figures(run) for count, run in fleets.items()},
        "Simulated": {
            str(count): {"IsolatedAfter": one.all_isolated, "AtBest": best, "Limit": limit, "Refused": one.refused, "Lost": dict(one.lost),
                         "Notes": one.notes, "EndedAfter": one.ended}
            for count, (one, best, limit) in simulated.items()
        },
    }  # fmt: skip


def fleet_row(count: int, run: FleetRun) -> Row:
    each = [f"{number / count:.1f}" for number in (run.transitions, len(run.run.ec2_side), len(run.run.calls))]
    return (count, len(run.batches), run.states_in_sequence, *each, run.verdicts)


# --- Functions ---------------------------------------------------------------------------------------------------


def bench_functions(runs: int) -> dict[str, Any]:
    with function_bench() as bench:
        rust, python = bench.compare(runs)
        others = [bench.measure(name, runs) for name in function_names() if name != COMPARED]
    measured = sorted([rust, *others], key=lambda one: one.name)
    heading(f"Functions: spawn to first answer, over TLS to a stub on this machine, medians of {runs}")
    header = ("FUNCTION", "BINARY MB", "ZIPPED MB", "COLD ms", "WARM ms", "PEAK MB", "CALLS", "CONNECTIONS", "WARM CONNECTIONS", "ANSWER")
    print(table(header, [function_row(one) for one in measured]))
    print("  A step only plans here. WARM CONNECTIONS are opened by a second call although the first call's were still there.")
    show_comparison(rust, python)
    cold, memory = python.cold_ms / rust.cold_ms, python.peak_mb / rust.peak_mb
    return {"Functions": {one.name: asdict(one) for one in measured}, "Python": asdict(python), "Ratios": {"Cold": cold, "Memory": memory}}


def show_comparison(rust: Figures, python: Figures) -> None:
    heading(f"{COMPARED} beside Python 3.11 with boto3, for the same {python.calls} calls, in turns")
    print(table(("", "Rust", "Python", "ratio", "aim"), [
        ("cold start, ms", f"{rust.cold_ms:.1f}", f"{python.cold_ms:.1f}", ratio(rust.cold_ms, python.cold_ms), f"1/{COLD_AIM}"),
        ("peak memory, MB", f"{rust.peak_mb:.1f}", f"{python.peak_mb:.1f}", ratio(rust.peak_mb, python.peak_mb), f"1/{MEMORY_AIM}"),
        ("warm call, ms", f"{rust.warm_ms:.1f}", f"{python.warm_ms:.1f}", ratio(rust.warm_ms, python.warm_ms), ""),
        ("connections, cold", rust.connections, python.connections, "", ""),
        ("connections, warm", rust.warm_connections, python.warm_connections, "", ""),
    ]))  # fmt: skip
    if rust.calls != python.calls:
        print(f"  The calls differ: {rust.calls} by Rust. tests/tools/describe_with_boto3.py is to follow functions/{COMPARED}.")


def ratio(ours: float, theirs: float) -> str:
    return f"1/{theirs / ours:.1f}"


def function_row(one: Figures) -> Row:
    megabytes = [f"{(size or 0) / 1e6:.1f}" for size in (one.binary_bytes, one.zipped_bytes)]
    measured = [f"{value:.1f}" for value in (one.cold_ms, one.warm_ms, one.peak_mb)]
    return (one.name, *megabytes, *measured, one.calls, one.connections, one.warm_connections, one.answer)


# --- Figures -----------------------------------------------------------------------------------------------------


def path_figures(path: Path) -> dict[str, Any]:
    trips = [[f"{function_of(call)} {call_name(call)}" for call in trip] for trip in path.round_trips]
    return {"States": path.states, "RoundTrips": len(trips), "DuringPause": path.during_pause, "Calls": calls_in(path), "Chain": trips}


def run_figures(run: Run) -> dict[str, Any]:
    kinds = Counter(kind_of(call) for call in run.calls)
    return {
        "Verdict": run.verdict, "Transitions": run.transitions, "CallsEc2Side": len(run.ec2_side), "Calls": len(run.calls),
        "Failures": dict(run.failures), "ByKind": dict(kinds), "ByFunction": {name: dict(counts) for name, counts in run.by_function().items()},
    }  # fmt: skip


def save(figures: dict[str, Any]) -> None:
    """Parts that were not measured this time keep their figures of the last."""
    path = RUNS / "bench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**old, **figures}, indent=2), encoding="utf-8")


def heading(text: str) -> None:
    print(f"\n{text}\n", flush=True)


def table(header: Row, rows: Iterable[Row]) -> str:
    """Columns as wide as their content; numbers stand on the right."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    right = [all(is_number(line[index]) for line in lines[1:]) for index in range(len(widths))]
    return "\n".join("  " + "  ".join(map(aligned, line, widths, right)).rstrip() for line in lines)


def is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit()


def aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


if __name__ == "__main__":
    sys.exit(main())
