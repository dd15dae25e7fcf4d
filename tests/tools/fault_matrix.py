#!/usr/bin/env python3
"""Every AWS call that containment makes, met by every fault: what came of it, as the account itself shows it.

    make faults [ARGS="[--only isolate-network,…] [--faults 'access denied',…] [--untried] [--at-once 8] [--no-write]"]

The calls are taken from the record of containments without faults. Each fault is meant for one victim, so that many are
under way at once. Faults that pass are put on one victim in tens, and one by one where the lot does not end well. A
cell is good if nothing that Cordon says is better than what the account shows, nothing is lost, and a plain second run
ends as Contained. The table is docs/faults.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from support import member
from emulator.call_record import Call as Recorded
from emulator.call_record import is_change
from support.findings import guardduty_finding
from support.forensic import FORENSIC, deploy_forensic_account, told
from support.hosts import small
from support.oracle import Oracle, World, isolated, lies, lost, not_shown, strays, surplus, taken_away
from support.package import deploy_package
from support.stack import ACCOUNT, PROJECT, REGION, Execution, LocalStack
from support.victim import Victim, bare_instance, build_victims

MACHINE = "cordon-faults"
# Emulators search everything that an account has, so no account gets too much.
MEMBERS = tuple(f"2109876543{n:02d}" for n in range(20, 32))
PAGE = PROJECT / "docs" / "faults.md"
MINUTE = 60.0
# Longer than the SDK waits for one attempt, see crates/runtime/src/serve.rs.
HELD_SECONDS = 16.0
TIMES_OUT_AFTER = 60  # functions with a longer Timeout have this one while that is tried

ONCE, SLOW_DOWN, BROKEN, RESET, SILENT, DENIED, NOT_YET = (
    "throttled once", "throttled for a minute", "500", "connection reset", "time-out", "access denied", "not found yet",
)  # fmt: skip
FAULTS = (ONCE, SLOW_DOWN, BROKEN, RESET, SILENT, DENIED, NOT_YET)
BEFORE, BETWEEN, AFTER, LATE = "killed before its changes", "killed between them", "killed after them", "times out"
ENDS = (BEFORE, BETWEEN, AFTER, LATE)

ISOLATED = "FAILED: reported, isolated"

# How each service says these: code and status.
THROTTLED = {
    "ec2": ("RequestLimitExceeded", 503), "s3": ("SlowDown", 503), "sns": ("Throttled", 429), "ebs": ("RequestThrottledException", 400),
    "iam": ("Throttling", 400), "sts": ("Throttling", 400), "autoscaling": ("Throttling", 400), "elb": ("Throttling", 400),
    "elbv2": ("Throttling", 400),
}  # fmt: skip
REFUSED = {
    "ec2": ("UnauthorizedOperation", 403), "sns": ("AuthorizationError", 403), "s3": ("AccessDenied", 403), "iam": ("AccessDenied", 403),
    "sts": ("AccessDenied", 403), "autoscaling": ("AccessDenied", 403), "elb": ("AccessDenied", 403), "elbv2": ("AccessDenied", 403),
}  # fmt: skip
# What EC2 and IAM say of something that was made a moment ago, by how its id begins
# (aws-behaviour#eventual-consistency).
UNSEEN = {
    "sg-": ("InvalidGroup.NotFound", 400), "snap-": ("InvalidSnapshot.NotFound", 400), "fl-": ("InvalidFlowLogId.NotFound", 400),
    "cordon-deny-": ("NoSuchEntity", 404),
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Row:
    """A call of a function; service as boto3 names it."""

    function: str
    service: str
    action: str

    def __str__(self) -> str:
        return f"{self.service}:{self.action}"


@dataclass(frozen=True, order=True)
class Cell:
    """A row, or a whole function where there is no service, and the fault that it meets."""

    row: Row
    fault: str


@dataclass(frozen=True)
class Scenario:
    """A kind of victim, what is asked for, and the functions that are tried on it; all that others do not have."""

    name: str
    build: Callable[[Yard], tuple[Victim, str]]
    options: dict[str, Any]
    only: frozenset[str] = frozenset()


@dataclass
class Ended:
    """What came of one victim and the faults that it was given."""

    cells: list[Cell]
    execution: Execution | None
    problems: list[str]
    word: str


@dataclass
class Result:
    """What a cell of the table says, and why it must not be so."""

    word: str
    problems: list[str]


class Yard:
    """A stack with victims on it, each in a weather of its own."""

    def __init__(self, stack: LocalStack, forensic: dict[str, str]) -> None:
        self.stack, self.forensic, self.oracle = stack, forensic, Oracle(stack)
        self._lock = threading.Lock()
        self._weather: dict[str, list[dict[str, Any]]] = {}
        self._record = Record(stack)
        self._building = threading.Lock()
        self.accounts = itertools.cycle(MEMBERS)

    def build(self, scenario: Scenario) -> tuple[Victim, str]:
        with self._building:
            return scenario.build(self)

    def set_weather(self, instance: str, faults: list[dict[str, Any]]) -> None:
        with self._lock:
            self._weather[instance] = faults
            self.stack.inject(*(fault for all_ in self._weather.values() for fault in all_))

    def calls(self, instance: str) -> list[Recorded]:
        with self._lock:
            return self._record.of(instance)


    def met(self, instance: str, cells: list[Cell], since: float) -> set[tuple[str, str, str]]:
        """The calls that faults were met by; one whose answer is still held is recorded when it has been given."""
        deadline = time.monotonic() + 5
        while True:
            struck = [call for call in self.calls(instance) if call["Injected"] and call["Start"] >= since]
            met = {(function_of(call), call["Service"], call["Action"]) for call in struck}
            if all(was_met(cell, met) for cell in cells) or time.monotonic() > deadline:
                return met
            time.sleep(0.2)


class Record:
    """The product's calls by the victim that their invocation was about, read as they come."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self._read: dict[Path, int] = {}
        self._events: dict[str, str] = {}
        self._calls: list[Recorded] = []

    def of(self, instance: str) -> list[Recorded]:
        for line in self._new(self._stack.invocations):
            self._events[line["Trace"]] = line["Event"]
        for name in ("moto.calls", "ministack.calls"):
            self._calls += [call for call in self._new(self._stack.folder / name) if call["Trace"]]
        return [call for call in self._calls if instance in self._events.get(call["Trace"], "")]

    def _new(self, path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            whole = file.read().rpartition(b"\n")[0]
        self._read[path] = self._read.get(path, 0) + (len(whole) + 1 if whole else 0)
        return [json.loads(line) for line in whole.splitlines()]


def function_of(call: Recorded) -> str:
    return (call["Caller"] or "").removeprefix(f"{MACHINE}-")


# --- The stack and its victims -----------------------------------------------------------------------------------


@contextmanager
def deployed() -> Iterator[Yard]:
    """With a forensic account, and with originals that are deleted behind a verified copy: where most can go wrong."""
    settings = {"SFN_WAIT_SCALE": "0.1", "MOTO_SNAPSHOT_PENDING_SECONDS": "1"}
    with LocalStack(settings=settings) as stack:
        given = {
            "StateMachineName": MACHINE, "MaxConcurrency": "5", "LogLevel": "ERROR", "DeleteUnencryptedOriginals": "true",
            "ForensicAccountId": FORENSIC, "ForensicKeyArn": f"arn:aws:kms:{REGION}:{FORENSIC}:key/0", **member.PARAMETERS,
            "MemberAccounts": ",".join(MEMBERS),
        }  # fmt: skip
        deploy_package(stack, given)
        forensic = deploy_forensic_account(stack, REGION, "cordon-forensic")
        for account in (ACCOUNT, *MEMBERS, FORENSIC):  # before threads ask for them
            for service in ("ec2", "autoscaling", "elb", "elbv2", "iam", "ssm", "sts", "dynamodb", "s3", "stepfunctions", "lambda"):
                stack.client(service, account=account)
        with told(stack, **forensic):
            yield Yard(stack, forensic)


def of_a_fleet(yard: Yard) -> tuple[Victim, str]:
    """In a member account, so that every step has to get there; somebody is on the host."""
    account = next(yard.accounts)
    member.deploy_member_role(yard.stack, account, SnapshotKeyArn=yard.stack.outputs["KeyArn"], ForensicAccountId=FORENSIC)
    (victim,) = build_victims(yard.stack.elsewhere(account))
    yard.stack.client("ssm", account=account).start_session(Target=victim.instance)
    return victim, account


def with_an_agent(yard: Yard) -> tuple[Victim, str]:
    """Alone, at home, and with a host that answers."""
    victim = bare_instance(yard.stack)
    yard.stack.manage(victim.instance, Path=os.environ["PATH"], **small())
    return victim, ACCOUNT


FLEET = Scenario("fleet", of_a_fleet, {})
HOST = Scenario(
    "host", with_an_agent, {"CaptureVolatile": True, "CaptureMode": "CaptureFirst", "HashSnapshots": True},
    frozenset({"capture-volatile", "hash-snapshots"}),
)  # fmt: skip
SCENARIOS = (FLEET, HOST)


def contain(yard: Yard, victim: Victim, account: str, scenario: Scenario, seconds: float = 900) -> Execution:
    document = {"InstanceIds": [victim.instance], "Region": REGION, "AccountId": account, **scenario.options}
    return yard.stack.run(document, wait=seconds)


# --- Rows and cells ----------------------------------------------------------------------------------------------


@dataclass
class Reference:
    """The calls of a containment in which nothing went wrong."""

    scenario: Scenario
    calls: list[Recorded]
    made: set[str]  # the ids of what it made

    def rows(self) -> list[Row]:
        found = {Row(function_of(call), call["Service"], call["Action"]) for call in self.calls if function_of(call)}
        return sorted(row for row in found if not self.scenario.only or row.function in self.scenario.only)

    def unseen(self, row: Row) -> tuple[str, int] | None:
        """What AWS may say of a resource that the containment has just made and that this call names by its id."""
        if row.action == "PutRolePolicy":  # names what it makes
            return None
        for call in self._of(row):
            named = {value for key, value in call["Parameters"].items() if not key.startswith("Filter")}
            for id_ in named & self.made:
                return next((said for prefix, said in UNSEEN.items() if id_.startswith(prefix)), None)
        return None

    def changes(self, function: str) -> list[Recorded]:
        """A function's changes, in the order in which they were made; the journal is not what it is there to change."""
        return [call for call in self.calls if function_of(call) == function and is_change(call) and call["Service"] not in ("dynamodb", "sts")]

    def _of(self, row: Row) -> list[Recorded]:
        return [call for call in self.calls if Row(function_of(call), call["Service"], call["Action"]) == row]

    def cells(self) -> list[Cell]:
        rows = self.rows()
        cells = [Cell(row, fault) for row in rows for fault in FAULTS if fault != NOT_YET or self.unseen(row)]
        functions = sorted({row.function for row in rows})
        ends = [Cell(Row(function, "", ""), end) for function in functions for end in ENDS]
        return cells + [cell for cell in ends if cell.fault in (BEFORE, LATE) or self.changes(cell.row.function)]

    def faults(self, cell: Cell, instance: str) -> list[dict[str, Any]]:
        """The entries of the fault file, for this victim alone."""
        row = cell.row
        whom = {"Function": row.function, "Event": instance}
        call = {**whom, "Service": row.service, "Action": row.action}
        code, status = THROTTLED.get(row.service, ("ThrottlingException", 400))
        throttled = {**call, "Code": code, "Status": status}
        any_call = {**whom, "Service": "*", "Action": "*"}
        match cell.fault:
            case "throttled once":
                return [{**throttled, "Times": 1}]
            case "throttled for a minute":
                return [{**throttled, "Seconds": MINUTE}]
            case "500":
                return [{**call, "Code": "InternalError", "Status": 500, "Times": 1}]
            case "connection reset":
                return [{**call, "Breaks": "connection", "Executed": True, "Times": 1}]
            case "time-out":
                return [{**call, "DelaySeconds": HELD_SECONDS, "Executed": True, "Times": 1}]
            case "access denied":
                code, status = REFUSED.get(row.service, ("AccessDeniedException", 400))
                return [{**call, "Code": code, "Status": status}]
            case "not found yet":
                code, status = self.unseen(row) or ("", 0)
                return [{**call, "Code": code, "Status": status, "Times": 2}]
            case "times out":
                return [{**any_call, "DelaySeconds": TIMES_OUT_AFTER + 1.0, "Seconds": TIMES_OUT_AFTER - 1.0}]
        changes = self.changes(row.function)
        if not changes:
            return [{**any_call, "Breaks": "process", "Times": 1}]
        first, last = changes[0], changes[-1]
        alike = sum(one["Action"] == last["Action"] and one["Service"] == last["Service"] for one in changes)
        which = {
            BEFORE: (first, {}), BETWEEN: (first, {"Executed": True}), AFTER: (last, {"Executed": True, "After": alike - 1}),
        }[cell.fault]  # fmt: skip
        return [{**whom, "Service": which[0]["Service"], "Action": which[0]["Action"], "Breaks": "process", "Times": 1, **which[1]}]


def look_at_reference(yard: Yard, scenario: Scenario) -> Reference:
    victim, account = yard.build(scenario)
    execution = contain(yard, victim, account, scenario)
    world = yard.oracle.look(victim, account)
    bad = lies(execution, world) + not_shown(world)
    if execution.status != "SUCCEEDED" or bad:
        raise SystemExit(f"without any fault, the {scenario.name} ends as {execution.status}: {execution.cause} {bad}")
    groups = yard.stack.client("ec2", account=account).describe_security_groups(Filters=[{"Name": "group-name", "Values": ["cordon-*"]}])
    made = {one["GroupId"] for one in groups["SecurityGroups"]} | set(world.account["Snapshots"]) | set(world.copies)
    made |= {log for logs in world.flow_logs.values() for log in logs} | {f"cordon-deny-{victim.instance}"}
    made |= {key.split("|")[0] for values in world.journal.values() for key in values if key.startswith("snap-")}  # deleted by now
    return Reference(scenario, yard.calls(victim.instance), made)


# --- One victim --------------------------------------------------------------------------------------------------


def play(yard: Yard, reference: Reference, turns: list[list[Cell]]) -> list[Ended]:
    """A victim is contained in each weather in turn, and once more when all is over.

    Where a first run is not to find a contained victim, the turns end with the first that contains it.
    """
    scenario = reference.scenario
    victim, account = yard.build(scenario)
    before = yard.oracle.look(victim, account)
    ended: list[Ended] = []
    for cells in turns:
        since = time.time()
        yard.set_weather(victim.instance, [fault for cell in cells for fault in reference.faults(cell, victim.instance)])
        try:
            execution = contain(yard, victim, account, scenario)
        finally:
            yard.set_weather(victim.instance, [])
        after = yard.oracle.look(victim, account)
        met = yard.met(victim.instance, cells, since)
        problems = [f"{cell.row} of {cell.row.function} was never met by {cell.fault}" for cell in cells if not was_met(cell, met)]
        problems += lies(execution, after) + lost(before, after) + unreported(cells, execution, after)
        ended.append(Ended(cells, execution, problems, word(execution, after)))
        if ended[-1].word == "Contained" and cells[0].row.function in FIRST:
            break
    again = contain(yard, victim, account, scenario)
    last = yard.oracle.look(victim, account)
    problems = [f"after a second run: {one}" for one in lies(again, last) + lost(before, last) + taken_away(after, last)]
    if again.status != "SUCCEEDED":
        problems.append(f"a second run without the fault ends as {again.status}: {again.cause}")
    problems += [f"in the end {one}" for one in surplus(last)]
    problems += [f"in the end neither the ledger nor the manifest has {one}" for one in strays(last)]
    for one in ended:
        one.problems += problems
    return ended


def was_met(cell: Cell, met: set[tuple[str, str, str]]) -> bool:
    row = cell.row
    return any(one[0] == row.function and (not row.service or one[1:] == (row.service, row.action)) for one in met)


def unreported(cells: list[Cell], execution: Execution, world: World) -> list[str]:
    """A fault that is behind a failed execution is named in its cause: by its call, or by the function that made it."""
    if execution.status == "SUCCEEDED":
        return []
    said = f"{execution.cause} {json.dumps(execution.outcome)}"
    return [f"{cell.row} of {cell.row.function} failed, and the execution does not say so" for cell in cells
            if len(cells) == 1 and cell.row.function not in said and f":{cell.row.action}" not in said]  # fmt: skip


def word(execution: Execution, world: World) -> str:
    if execution.status == "SUCCEEDED":
        return "Contained"
    return ISOLATED if isolated(world) else "FAILED: reported, not isolated"


# --- Executions that meet each other, or their end ---------------------------------------------------------------


def held_between_the_groups(instance: str, seconds: float) -> dict[str, Any]:
    """Isolation stands still when the first interface is on the conversion group."""
    call = {"Service": "ec2", "Action": "ModifyNetworkInterfaceAttribute", "Function": "isolate-network", "Event": instance}
    return {**call, "Times": 1, "Executed": True, "DelaySeconds": seconds}


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it has not come to that")
        time.sleep(0.1)


def a_second_execution(yard: Yard, victim: Victim, account: str) -> list[str]:
    """Started while the first stands between the two groups."""
    yard.set_weather(victim.instance, [held_between_the_groups(victim.instance, 5)])
    first = begin(yard, victim, account)
    until(lambda: yard.oracle.is_converting(victim, account))
    return [first, begin(yard, victim, account)]


def a_stopped_execution(yard: Yard, victim: Victim, account: str) -> list[str]:
    """Stopped by hand between the two groups, with its function killed."""
    call = {"Service": "ec2", "Action": "ModifyNetworkInterfaceAttribute", "Function": "isolate-network", "Event": victim.instance}
    yard.set_weather(victim.instance, [{**call, "Times": 1, "Executed": True, "DelaySeconds": 3, "Breaks": "process"}])
    arn = begin(yard, victim, account)
    until(lambda: yard.oracle.is_converting(victim, account))
    yard.stack.client("stepfunctions").stop_execution(executionArn=arn)
    time.sleep(4)
    return [arn]


def a_finding_that_comes_twice(yard: Yard, victim: Victim, account: str) -> list[str]:
    """EventBridge delivers at least once; the operator has findings contained without a question."""
    known, finding = yard.stack.executions(), guardduty_finding(victim.instance, account=account)
    with yard.stack.reconfigured("intake", RESPONSE_MODE="Contain", INSTANCES_PER_HOUR="1000"):
        for _ in range(2):
            yard.stack.put_event(finding)
        until(lambda: len(set(yard.stack.executions()) - set(known)) >= 2)
        new = [arn for arn in yard.stack.executions() if arn not in known]
        for arn in new:
            yard.stack.wait(arn, 300)
    return new


def a_right_that_is_lost_between_the_groups(yard: Yard, victim: Victim, account: str) -> list[str]:
    """Both interfaces are on the conversion group; from then on nobody may change them."""
    code, status = REFUSED["ec2"]
    call = {"Service": "ec2", "Action": "ModifyNetworkInterfaceAttribute", "Function": "isolate-network", "Event": victim.instance}
    yard.set_weather(victim.instance, [{**call, "After": len(victim.interfaces), "Code": code, "Status": status}])
    return [begin(yard, victim, account)]


def begin(yard: Yard, victim: Victim, account: str) -> str:
    return yard.stack.begin({"InstanceIds": [victim.instance], "Region": REGION, "AccountId": account})


MEETINGS = {
    "a second execution in the middle of the first": a_second_execution,
    "an execution that is stopped between the two groups": a_stopped_execution,
    "a right to change interfaces that is lost between the two groups": a_right_that_is_lost_between_the_groups,
    "a finding that is delivered twice": a_finding_that_comes_twice,
}


def meet(yard: Yard, name: str) -> Result:
    """What came of a victim that several executions were about; each of them may say only what is so."""
    victim, account = yard.build(FLEET)
    before = yard.oracle.look(victim, account)
    try:
        ended = [yard.stack.wait(arn, 300) for arn in MEETINGS[name](yard, victim, account)]
    finally:
        yard.set_weather(victim.instance, [])
    after = yard.oracle.look(victim, account)
    again = contain(yard, victim, account, FLEET)
    last = yard.oracle.look(victim, account)
    problems = [one for execution in ended for one in lies(execution, after) if execution.status != "ABORTED"]
    problems += lost(before, after) + lies(again, last) + taken_away(after, last) + surplus(last) + strays(last)
    problems += [] if again.status == "SUCCEEDED" else [f"a further run ends as {again.status}: {again.cause}"]
    words = sorted(word(one, after) if one.status != "ABORTED" else f"ABORTED: {'' if isolated(after) else 'not '}isolated" for one in ended)
    return Result("; ".join(words), problems)


# --- All of them -------------------------------------------------------------------------------------------------

PASSING = (ONCE, BROKEN, RESET, SILENT, NOT_YET, BEFORE, BETWEEN, AFTER)
# Each works on what the one before it has made.
CHAIN = ("create-snapshots", "encrypt-snapshots", "share-snapshots", "copy-snapshots", "lock-snapshots", "delete-originals")
# Steps that have a row of their own and hand nothing on: a fault that lasts is told apart by the rows that failed.
APART = frozenset({
    *CHAIN, "detach-autoscaling", "deregister-targets", "protect-instance", "preserve-volumes", "tag-resources", "create-flow-logs", "collect-facts",
    "describe-network", "terminate-sessions", "revoke-credentials", "detach-profile", "seal-evidence",
})  # fmt: skip
# Before anything is touched, so that a victim is as good as new after it.
FIRST = ("intake", "describe-instance")
# One victim is enough for several lasting faults of these, one after the other.
IN_TURN = (*FIRST, "verify-containment", "notify")
TURNS = 7
SLEEPING = (SLOW_DOWN, SILENT, LATE)
ONCE_IN_A_PROCESS = "sts:GetCallerIdentity"
ALIKE = 4  # so many calls of one function meet the same fault on the same victim


def lots(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Faults that pass, so that each victim has one kind and at most so many of one function; all others alone."""
    found: list[list[Cell]] = []
    open_: dict[tuple[str, bool], list[list[Cell]]] = {}
    for cell in cells:
        if cell.fault not in PASSING and cell.row.function not in APART:
            found.append([cell])
            continue
        most = ALIKE if cell.fault in PASSING and cell.fault not in (SILENT, *ENDS) else 1
        of_fault = open_.setdefault((cell.fault, cell.row.function in HOST.only), [])
        alike = [one for one in CHAIN if cell.row.function in CHAIN and cell.fault not in PASSING] or [cell.row.function]
        lot = next((lot for lot in of_fault if sum(one.row.function in alike for one in lot) < most), None)
        if lot is None:
            lot = []
            of_fault.append(lot)
            found.append(lot)
        lot.append(cell)
    return found


def in_turns(lots_: list[list[Cell]]) -> list[list[list[Cell]]]:
    """What one victim can live through one after the other."""
    found: list[list[list[Cell]]] = []
    open_: dict[tuple[str, str], list[list[Cell]]] = {}
    for lot in lots_:
        key = (lot[0].fault, lot[0].row.function)
        if len(lot) > 1 or key[1] not in IN_TURN or key[0] not in (SLOW_DOWN, DENIED):
            found.append([lot])
            continue
        if key not in open_ or len(open_[key]) == TURNS:
            open_[key] = []
            found.append(open_[key])
        open_[key].append(lot)
    return found


def run_all(
    yard: Yard, references: list[Reference], cells: list[Cell], at_once: int, say: Callable[[str], None], keep: Callable[[dict[Cell, Result]], None]
) -> None:
    """Every cell; a lot that does not end well is taken apart."""

    def one(turns: list[list[Cell]]) -> None:
        reference = next(one for one in references if (one.scenario is HOST) == (turns[0][0].row.function in HOST.only))
        try:
            ended = play(yard, reference, turns)
        except Exception as error:  # a victim that could not be played to its end is no reason to lose the others
            ended = [Ended(lot, None, [f"{type(error).__name__}: {error}"], "not played") for lot in turns]
        for one_ended in ended:
            note(one_ended)
        if left := turns[len(ended):]:
            one(left)

    def note(ended: Ended) -> None:
        lot = ended.cells
        words = {lot[0]: ended.word} if len(lot) == 1 else told_apart(lot, ended)
        keep({cell: Result(said, ended.problems) for cell, said in words.items()})
        for said in sorted(set(words.values())):
            names = ", ".join(f"{cell.row.function} {cell.row}" for cell in words if words[cell] == said)
            say(f"{'BAD ' if ended.problems else ''}{lot[0].fault}: {names}: {said} {'; '.join(ended.problems)}")
        if alone := [cell for cell in lot if cell not in words]:
            failed = [one for one in (ended.execution.cause or "").splitlines() if "Failed" in one] if ended.execution else []
            say(f"{len(alone)} of {len(lot)} taken apart: {lot[0].fault}: {ended.word} {'; '.join(failed + ended.problems)[-1500:]}")
        for cell in alone:
            one([[cell]])

    # Those that mostly sleep cost little.
    asleep = [turns for turns in in_turns(lots(cells)) if turns[0][0].fault in SLEEPING]
    awake = [turns for turns in in_turns(lots(cells)) if turns[0][0].fault not in SLEEPING]
    with ThreadPoolExecutor(2 * at_once) as sleepers, ThreadPoolExecutor(at_once) as others:
        for _ in (*sleepers.map(one, asleep), *others.map(one, awake)):
            pass


def run_in_new_processes(
    yard: Yard, references: list[Reference], cells: list[Cell], say: Callable[[str], None], keep: Callable[[dict[Cell, Result]], None]
) -> None:
    """What a process asks for once: one victim after the other, each behind functions that have just been deployed anew."""
    for fault in sorted({cell.fault for cell in cells}):
        for reference in references:
            lot = [cell for cell in cells if cell.fault == fault and (cell.row.function in HOST.only) == (reference.scenario is HOST)]
            if lot:
                with ExitStack() as anew:
                    for function in {cell.row.function for cell in lot}:
                        anew.enter_context(yard.stack.reconfigured(function, DEPLOYED_FOR=fault))
                    (ended,) = play(yard, reference, [lot])
                say(f"{'BAD ' if ended.problems else ''}{fault}: {ONCE_IN_A_PROCESS} of all: {ended.word} {'; '.join(ended.problems)}")
                keep({cell: Result(ended.word, ended.problems) for cell in lot})


# --- The page ----------------------------------------------------------------------------------------------------

NOTHING = "–"
NOT_TRIED = "not tried yet"
MET = "what came of them"
BAD = "**NOT AS IT SHOULD BE**"
ABOUT = """# What every fault leads to

Made by `make faults`; do not edit. One victim after the other is contained on the local stack while one call, or one function,
meets a fault. Then the accounts are read, past Cordon: interfaces, groups and their rules, role policies, snapshots, copies,
locks, the journal, the ledger and the objects of the evidence bucket. When the fault is gone the victim is contained once more.

In every cell: whatever Cordon says is done, the account shows; each value that was changed is in the journal as it was first; no
snapshot, object or entry of the ledger is gone; and the second run ends as `Contained`. A cell says what the first run ended as:

* `Contained`: the fault was lived through, and everything is as it should be.
* `FAILED: reported, isolated`: the execution FAILED and names the function or the call. The instance is off the network.
* `FAILED: reported, not isolated`: the same, but the instance is not, or not yet, off the network. A person has to act.
* `–`: there is nothing to try: the call names nothing that the containment has made, or the function changes nothing.
* `not tried yet`: no run of `make faults` has come to it.

The faults: *throttled once*; *throttled for a minute*, each such call of the function; *500*, once; *connection reset*, once,
after the call has had its effect; *time-out*, the same, with an answer that comes after the SDK has given up waiting; *access
denied*, each time; *not found yet*, twice, for something that was made a moment ago. A function is killed before its first
change, after its first, and after its last, each time before it gets the answer; or its first minute passes without an answer.
`report` makes no call that a fault could meet.
"""


def read_page() -> dict[Cell, str]:
    """The cells of the page as it is: a run of some of them leaves the others."""
    found: dict[Cell, str] = {}
    head: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []:
        parts = [part.strip() for part in line.strip("|").split("|")]
        if not line.startswith("|") or set(line) <= set("|-: "):
            continue
        if parts[0] in ("function", "executions"):
            head = parts
            continue
        service, _, action = parts[1].strip("`").partition(":") if head[1] == "call" else ("", "", "")
        named = zip(head[2 if service else 1:], parts[2 if service else 1:])
        found |= {Cell(Row(parts[0], service, action), fault): said for fault, said in named if said not in (NOTHING, NOT_TRIED)}
    return found


def write_page(cells: dict[Cell, str], every: Iterable[Cell]) -> None:
    """`every` is all that there is to try now: what is no longer called has no place any more."""
    cells = {**dict.fromkeys(every, NOT_TRIED), **dict.fromkeys((Cell(Row(name, "", ""), MET) for name in MEETINGS), NOT_TRIED), **cells}
    calls = sorted({cell.row for cell in every if cell.row.service})
    functions = sorted({row.function for row in calls})
    table = [["function", "call", *FAULTS], ["---"] * (len(FAULTS) + 2)]
    table += [[row.function, f"`{row}`", *(cells.get(Cell(row, fault), NOTHING) for fault in FAULTS)] for row in calls]
    ends = [["function", *ENDS], ["---"] * (len(ENDS) + 1)]
    ends += [[function, *(cells.get(Cell(Row(function, "", ""), end), NOTHING) for end in ENDS)] for function in functions]
    meetings = [["executions", MET], ["---"] * 2, *([name, cells.get(Cell(Row(name, "", ""), MET), NOTHING)] for name in MEETINGS)]
    text = [ABOUT, "## Calls", "", *map(line, table), "", "## Functions", "", *map(line, ends), "", "## Executions", "", *map(line, meetings), ""]
    PAGE.write_text("\n".join(text), encoding="utf-8")


def line(parts: list[str]) -> str:
    return f"| {' | '.join(parts)} |"


# --- The command -------------------------------------------------------------------------------------------------


def told_apart(lot: list[Cell], ended: Ended) -> dict[Cell, str]:
    """What each fault of a lot has led to, as far as the rows of the steps say; nothing else may be wrong.

    Of faults that last, one may have failed its step, and the row then names the call; the step of another has lived through it.
    """
    if ended.problems or ended.execution is None:
        return {}
    if ended.word == "Contained":
        return dict.fromkeys(lot, ended.word)
    instances = ended.execution.outcome.get("Instances") or [{}]
    rows = {step["Step"]: step for step in instances[0].get("Steps", [])}
    mine = {cell.row.function for cell in lot}
    if lot[0].fault in PASSING or ended.word != ISOLATED or any(row["Status"] in ("Failed", "InProgress") and step not in mine for step, row in rows.items()):
        return {}
    words = {}
    for cell in lot:
        row = rows.get(cell.row.function, {})
        if row.get("Status") in ("Done", "NotApplicable"):
            words[cell] = "Contained"
        elif row.get("Status") == "Failed" and f":{cell.row.action}" in row.get("Reason", ""):
            words[cell] = ISOLATED
    return words


@contextmanager
def short_of_time(stack: LocalStack) -> Iterator[None]:
    """Functions time out after a minute at most, and not after fifteen."""
    client = stack.client("lambda")
    functions = [one for page in client.get_paginator("list_functions").paginate() for one in page["Functions"]]
    long = {one["FunctionName"]: one["Timeout"] for one in functions if one["FunctionName"].startswith(MACHINE) and one["Timeout"] > TIMES_OUT_AFTER}
    try:
        for name in long:
            client.update_function_configuration(FunctionName=name, Timeout=TIMES_OUT_AFTER)
        yield
    finally:
        for name, seconds in long.items():
            client.update_function_configuration(FunctionName=name, Timeout=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="functions, separated by commas")
    parser.add_argument("--faults", default="", help="faults, separated by commas")
    parser.add_argument("--untried", action="store_true", help=f"only what {PAGE.name} says nothing of yet")
    parser.add_argument("--at-once", type=int, default=8, help="victims under way at the same time")
    parser.add_argument("--no-write", action="store_true", help=f"leave {PAGE.name} as it is")
    arguments = parser.parse_args()
    only, faults = ({part for part in text.split(",") if part} for text in (arguments.only, arguments.faults))
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    results: dict[Cell, Result] = {}
    lock = threading.Lock()
    with deployed() as yard:
        references = [look_at_reference(yard, scenario) for scenario in SCENARIOS]
        every = [cell for reference in references for cell in reference.cells() if (reference.scenario is HOST) == (cell.row.function in HOST.only)]
        rows = {cell.row for cell in every if cell.row.service}
        known = read_page() if arguments.untried else {}
        wanted = lambda cell: (not only or cell.row.function in only) and (not faults or cell.fault in faults) and cell not in known
        cells = [cell for cell in every if wanted(cell)]

        def keep(new: dict[Cell, Result]) -> None:
            """On the page at once, so that a run which is stopped has not been for nothing."""
            with lock:
                results.update(new)
                if not arguments.no_write:
                    write_page({**read_page(), **{cell: BAD if one.problems else one.word for cell, one in new.items()}}, every)

        say(f"{len(rows)} calls, {len(cells)} cells, {len(in_turns(lots(cells)))} victims")
        late = [cell for cell in cells if cell.fault == LATE]
        once = [cell for cell in cells if str(cell.row) == ONCE_IN_A_PROCESS]
        run_all(yard, references, [cell for cell in cells if cell not in late and cell not in once], arguments.at_once, say, keep)
        with short_of_time(yard.stack):
            run_all(yard, references, late, arguments.at_once, say, keep)
        run_in_new_processes(yard, references, once, say, keep)
        meetings = [Cell(Row(name, "", ""), MET) for name in MEETINGS]
        for cell in [] if only else filter(wanted, meetings):
            name = cell.row.function
            met = meet(yard, name)
            keep({cell: met})
            say(f"{name}: {met}")
    bad = {cell: result for cell, result in results.items() if result.problems}
    say(f"{len(results)} cells, {len(bad)} bad, {Counter(result.word for result in results.values()).most_common()}")
    for cell, result in sorted(bad.items()):
        print(f"BAD  {cell.row.function} {cell.row} {cell.fault}: {result.word}: {'; '.join(result.problems)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
