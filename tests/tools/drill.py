#!/usr/bin/env python3
"""A fire drill on this machine: builds compromised instances, lets Cordon contain them, and shows what changed.

    make drill [ARGS="[--instances N] [--dry-run | --finding | --approve] [--release] [--keep]"]

With --finding nobody types anything: GuardDuty's finding on the event bus starts it. With --approve a person is asked
about the finding by e-mail, and pastes the command that approves. No AWS account, no credentials and no Docker: everything
happens on 127.0.0.1. The exit code is 0 only when the execution succeeded and every instance is contained (in a dry
run: planned, and nothing at all was changed). With --release it was a false alarm: the instances are released again, and are
as they were, or else the exit code is not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import Any, Callable, Iterable

from support.cases import CORDON, cordon_environment, cordon_verify, download, public_key
from support.findings import attack_sequence, guardduty_finding
from support.inbox import Inbox, paste
from support.stack import ACCOUNT, PROJECT, Execution, LocalStack, StackError
from support.victim import Victim, build_victims, differences, snapshot_of_world

World = dict[str, Any]
Row = Iterable[Any]

GOOD, MIDDLING, BAD = "32", "33", "31"
COLORS = {
    **dict.fromkeys(("Done", "Contained", "Released", "SUCCEEDED"), GOOD),
    **dict.fromkeys(("InProgress", "NotApplicable", "Unsupported", "Planned", "PartiallyContained", "PartiallyReleased"), MIDDLING),
    **dict.fromkeys(("Failed", "NotContained", "NotReleased", "FAILED", "TIMED_OUT", "ABORTED"), BAD),
}
COLORFUL = sys.stdout.isatty() and "NO_COLOR" not in os.environ
WIDTH = shutil.get_terminal_size((140, 40)).columns


def main() -> int:
    options = parse()
    sys.stdout.reconfigure(line_buffering=True)  # what the command line prints comes in between
    stack = LocalStack()
    try:
        with say("Starting a small AWS on this machine"):
            stack.start()
        with say("Deploying template.yaml"):
            stack.deploy(parameters(options), build=options.build or None)
        with say(f"Building {options.instances} compromised instance{'s' * (options.instances > 1)}"):
            victims = build_victims(stack, options.instances)
        contained = drill(stack, victims, options)
        if options.keep:
            keep(stack, victims)
        return 0 if contained else 1
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130
    finally:
        stack.stop()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="how many instances are compromised (1)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--dry-run", action="store_true", help="only plan; then show that nothing was changed")
    start.add_argument("--finding", action="store_true", help="start from a finding on the event bus, which nobody is asked about")
    start.add_argument("--approve", action="store_true", help="start from a finding, and approve what the e-mail asks")
    parser.add_argument("--release", action="store_true", help="then release them, and show that they are as they were")
    parser.add_argument("--keep", action="store_true", help="leave the stack up afterwards, to look around, until Ctrl-C")
    parser.add_argument("--build", action="store_true", help="run sam build first, even when binaries are there")
    return parser.parse_args()


def parameters(options: argparse.Namespace) -> dict[str, str]:
    """What the stack is deployed with; by default, a finding leads to a question."""
    limits = dict.fromkeys(("InstancesPerExecution", "InstancesPerHour"), str(options.instances))
    return {"ResponseMode": "Contain", **limits} if options.finding else {}


def drill(stack: LocalStack, victims: list[Victim], options: argparse.Namespace) -> bool:
    """The containment itself, between two looks at the world."""
    inbox = Inbox(stack)
    show_victims(stack, victims)
    before = {victim.instance: snapshot_of_world(stack, victim) for victim in victims}
    since = time.time()
    arn = begin_by_finding(stack, victims) if options.finding or options.approve else begin_by_hand(stack, victims, options.dry_run)
    heading("Containment")
    follow(stack, arn, approver(stack, inbox, arn) if options.approve else lambda: None)
    execution = stack.wait(arn)
    changed = False
    for victim in victims:
        changed |= show_differences(stack, victim, before[victim.instance])
    show_calls(stack, since)
    show_notifications(inbox, arn)
    evidence = all([show_evidence(stack, execution, victim) for victim in victims]) or options.dry_run
    contained = evidence and verdict(stack, execution, victims, dry_run=options.dry_run, changed=changed)
    return released(stack, victims, before, inbox) and contained if options.release and not options.dry_run else contained


# --- Starting ----------------------------------------------------------------------------------------------------


def begin_by_hand(stack: LocalStack, victims: list[Victim], dry_run: bool) -> str:
    document: dict[str, Any] = {"InstanceIds": [victim.instance for victim in victims], "Region": stack.region}
    if dry_run:
        document["DryRun"] = True
    heading("Started by hand")
    print(f"  aws stepfunctions start-execution --input '{json.dumps(document)}'")
    return stack.begin(document)


def begin_by_finding(stack: LocalStack, victims: list[Victim]) -> str:
    """One finding about all of them; the rule of the stack starts the execution."""
    sequence = [(ACCOUNT, stack.region, victim.instance) for victim in victims]
    event = guardduty_finding(victims[0].instance) if len(victims) == 1 else attack_sequence(*sequence)
    heading("A finding on the event bus")
    put = {"source": event["source"], "detail-type": event["detail-type"], "detail": event["detail"]}
    print(indented(json.dumps(put, indent=2)))
    known = stack.executions()
    stack.put_event(event)
    arn = stack.new_execution(known)
    print(f"\n  the rule has started {arn}")
    return arn


# --- Before ------------------------------------------------------------------------------------------------------


def show_victims(stack: LocalStack, victims: list[Victim]) -> None:
    for victim in victims:
        world = snapshot_of_world(stack, victim)
        rules = sorted({rule for rules in world["Rules"].values() for rule in rules if rule.startswith("in ")})
        heading(f"Compromised: {victim.instance} ({victim.private_ip}, {world['State']})")
        facts = [
            ("interfaces", [f"{interface} in {vpc}" for interface, vpc in zip(victim.interfaces, victim.vpcs)]),
            ("open to", rules),
            ("volumes", [f"{device} {volume}" for device, volume in victim.volumes.items()]),
            ("Auto Scaling", [f"{world['AutoScaling']['AutoScalingGroupName']}, {world['AutoScaling']['LifecycleState']}"]),
            ("targets", world["Targets"]),
            ("classic ELB", world["ClassicLoadBalancers"]),
            ("role", [victim.role]),
        ]
        for name, values in facts:
            for index, value in enumerate(values):
                print(f"  {name if index == 0 else '':<13} {value}")


# --- Meanwhile ---------------------------------------------------------------------------------------------------


def follow(stack: LocalStack, arn: str, meanwhile: Callable[[], None]) -> None:
    """`cordon watch`, as a responder types it, which prints each task, the steps of each instance and the verdict."""
    print(f"  $ cordon watch {arn}\n")
    watching = subprocess.Popen([CORDON, "watch", arn], env=cordon_environment(stack))
    while watching.poll() is None:
        meanwhile()
        time.sleep(0.2)


def approver(stack: LocalStack, inbox: Inbox, arn: str) -> Callable[[], None]:
    """A person who reads each question's e-mail as it arrives, and pastes its command."""
    answered = 0

    def approve() -> None:
        nonlocal answered
        questions = [message for message in inbox.messages(arn) if message.kind == "ApprovalRequested"]
        for question in questions[answered:]:
            command = question.command("send-task-success")
            heading(f"E-mail: {question.subject}\n")
            print(f"{indented(question.email, '  | ')}\n\n  $ {command}\n")
            paste(stack, command)
        answered = len(questions)

    return approve


# --- After -------------------------------------------------------------------------------------------------------


def show_differences(stack: LocalStack, victim: Victim, before: World) -> bool:
    """What AWS says is different; returns whether anything is."""
    different = differences(before, snapshot_of_world(stack, victim))
    heading(f"{victim.instance}, read back from AWS by the drill itself")
    print(table(("WHAT", "BEFORE", "AFTER"), different) if different else "  nothing is different")
    return bool(different)


def show_calls(stack: LocalStack, since: float) -> None:
    calls, changes = stack.calls(since), stack.changes(since)
    heading("Calls")
    print(f"  {len(calls)} calls to AWS, {len(changes)} of which changed something on the EC2 side")


def show_notifications(inbox: Inbox, arn: str) -> None:
    """The rule outside the workflow may need a moment to tell of a bad end."""
    heading("Notifications")
    for message in inbox.messages(arn, seconds=2):
        print(f"  {message.kind:<20} {message.record['Headline']}")
    if not inbox.messages(arn):
        print("  none: nobody is told of a dry run that somebody has started by hand")


def show_evidence(stack: LocalStack, execution: Execution, victim: Victim) -> bool:
    """The case as an investigator gets it: downloaded, checked, and with the page to read; returns whether it is intact."""
    pointers = execution.instance(victim.instance).get("Evidence") or []
    manifests = [pointer["Key"] for pointer in pointers if pointer["Key"].endswith("/manifest.json")]
    if not manifests:
        return False
    prefix = manifests[0].removesuffix("manifest.json")
    heading(f"Evidence of {victim.instance}")
    print(f"  $ aws s3 sync s3://{stack.outputs['EvidenceBucketName']}/{prefix} CASE && cordon verify CASE --public-key KEY\n")
    folder = download(stack, prefix, stack.folder / victim.instance)
    checked = cordon_verify(folder, public_key(stack, stack.folder))
    print(indented(checked.stdout + checked.stderr))
    print(f"\n  the report, for a browser: {folder.relative_to(PROJECT) / 'report.html'}")
    return checked.returncode == 0


def verdict(stack: LocalStack, execution: Execution, victims: list[Victim], *, dry_run: bool, changed: bool) -> bool:
    wanted = "Planned" if dry_run else "Contained"
    reached = [victim for victim in victims if execution.instance(victim.instance).get("Verdict") == wanted]
    saved = stack.folder / "outcome.json"
    saved.write_text(json.dumps(execution.outcome, indent=2), encoding="utf-8")
    good = execution.status == "SUCCEEDED" and len(reached) == len(victims) and not (dry_run and changed)
    heading("Verdict")
    if execution.cause and not execution.outcome:
        print(f"  {execution.error}: {execution.cause}\n")
    if dry_run and changed:
        print("  A dry run that changed something.")
    summary = f"{len(reached)} of {len(victims)} instances {wanted.lower()}, execution {execution.status} in {execution.seconds:.1f} s"
    print(f"  {colored(summary, GOOD if good else BAD)}")
    print(f"  the whole outcome: {saved.relative_to(PROJECT)}")
    return good


def keep(stack: LocalStack, victims: list[Victim]) -> None:
    """The stack stays up, and this says how to look around in it."""
    instance = victims[0].instance
    heading("The stack stays up until Ctrl-C")
    for name, value in stack.environment().items():
        print(f"  export {name}={value}")
    print(f"""
  aws ec2 describe-instances --instance-ids {instance}
  aws ec2 describe-network-interfaces --filters Name=attachment.instance-id,Values={instance}
  aws stepfunctions start-execution --state-machine-arn {stack.outputs.get("StateMachineArn")} \\
      --input '{{"InstanceIds":["{instance}"],"Region":"{stack.region}"}}'
  aws dynamodb scan --table-name {stack.outputs.get("CaseTableName")}
  aws s3 ls --recursive s3://{stack.outputs.get("EvidenceBucketName")}

  records and logs: {stack.folder.relative_to(PROJECT)}""", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


# --- A false alarm -----------------------------------------------------------------------------------------------


# What a release leaves on purpose: evidence, the tag that says so, and the group, which has a replacement by now.
ON_PURPOSE = re.compile(r"Snapshots |Tags \S+ (CordonReleased|aws:autoscaling:groupName)$|AutoScaling$")


def released(stack: LocalStack, victims: list[Victim], before: dict[str, World], inbox: Inbox) -> bool:
    """Undoes the containment; returns whether every instance is as it was."""
    machine = stack.outputs["ReleaseStateMachineArn"]
    document = {"InstanceIds": [victim.instance for victim in victims], "Region": stack.region}
    heading("It was a false alarm")
    print(f"  aws stepfunctions start-execution --state-machine-arn {machine} --input '{json.dumps(document)}'")
    arn = stack.begin(document, machine)
    heading("Release")
    follow(stack, arn, lambda: None)
    execution, good = stack.wait(arn), True
    for victim in victims:
        heading(f"{victim.instance}, read back from AWS by the drill itself")
        found = differences(before[victim.instance], snapshot_of_world(stack, victim))
        left = [row for row in found if not ON_PURPOSE.match(row[0])]
        print(f"  as before the containment, but for {len(found) - len(left)} things that stay on purpose: snapshots, a tag, the Auto Scaling group")
        if left:
            print(f"  {colored('and for this:', BAD)}\n{table(('WHAT', 'BEFORE', 'AFTER'), left)}")
        good &= not left and execution.instance(victim.instance).get("Verdict") == "Released"
    show_notifications(inbox, arn)
    summary = f"{'all' if good else 'NOT all'} instances are as they were, execution {execution.status} in {execution.seconds:.1f} s"
    print(f"\n  {colored(summary, GOOD if good else BAD)}")
    return good and execution.status == "SUCCEEDED"


# --- Printing ----------------------------------------------------------------------------------------------------


class say:
    """A line for something that takes a while, completed with the time it took."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._began = time.monotonic()
        print(f"{self._what} … ", end="", flush=True)

    def __exit__(self, kind: object, *_: object) -> None:
        print("failed" if kind else f"{time.monotonic() - self._began:.1f} s", flush=True)


def heading(text: str) -> None:
    print(f"\n{text}")


def indented(text: str, margin: str = "  ") -> str:
    return "\n".join(f"{margin}{line}".rstrip() for line in text.splitlines())


def colored(text: str, color: str | None = None) -> str:
    color = color or COLORS.get(text)
    return f"\033[{color}m{text}\033[0m" if COLORFUL and color else text


def plain(value: Any) -> str:
    """A value in a cell."""
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(plain(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={plain(one)}" for key, one in value.items() if key != "Tags" and one is not None)
    text = str(value)
    return text.split(":", 5)[5] if text.startswith("arn:") else text  # the resource tells an ARN from the others


def table(header: Row, rows: Iterable[Row]) -> str:
    """Aligned columns, as wide as their content and together as wide as the screen; the last cell of a short row takes the rest of the line."""
    lines = [[plain(cell) for cell in row] for row in (header, *rows)]
    columns = len(lines[0])
    aligned = [line if len(line) == columns else line[:-1] for line in lines]
    widths = [max(len(line[index]) for line in aligned if index < len(line)) for index in range(columns)]
    while sum(widths) + 2 * columns > WIDTH and max(widths) > 16:
        widths[widths.index(max(widths))] -= 1
    return "\n".join("  " + fitted(line, widths) for line in lines)


def clipped(text: str, width: int) -> str:
    """The whole of a long text is in the outcome's file."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def fitted(line: list[str], widths: list[int]) -> str:
    cells = []
    for index, (cell, width) in enumerate(zip(line, widths)):
        overflows = index == len(line) - 1 and len(line) < len(widths)
        width = WIDTH - sum(widths[:index]) - 2 * index - 3 if overflows else width
        shown = clipped(cell, width)
        cells.append(colored(shown) + " " * (width - len(shown)))
    return "  ".join(cells).rstrip()


if __name__ == "__main__":
    sys.exit(main())
