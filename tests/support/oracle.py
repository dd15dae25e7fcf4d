"""What an account shows of a containment, whatever Cordon says of it: the state of moto and ministack, read by other calls than Cordon's.

    world = Oracle(stack).look(victim, account)
    problems = lies(execution, victim, world) + lost(before, world)

Each answer is a list of sentences; an empty one is a good one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable

from .forensic import FORENSIC
from .stack import ACCOUNT, Execution, LocalStack
from .victim import Victim, snapshot_of_world

State = dict[str, Any]
OURS = "cordon-isolation"
INCIDENT = {"SecurityIncidentStatus": "Investigation"}


@dataclass(frozen=True)
class World:
    """An instance as its account shows it, the copies over there, and what Cordon has stored about it at home."""

    victim: Victim
    account: State  # as snapshot_of_world has it
    group_names: dict[str, list[str]]  # of each interface
    flow_logs: dict[str, list[str]]  # by interface
    sessions: list[str]
    copies: dict[str, State]  # in the forensic account, by id
    journal: dict[str, dict[str, Any]]  # by step: first values by RESOURCE|ATTRIBUTE
    ledger: dict[str, State]  # by key and version
    objects: set[str]  # in the bucket, as the ledger names them
    unlisted: set[str]  # what the newest manifest says that the ledger lacks
    case: State

    def of_volume(self, volume: str, *, encrypted: bool) -> list[str]:
        """The finished snapshots, or encrypted copies of them, that hold this volume."""
        found = self.account["Snapshots"].items()
        return [id_ for id_, one in found if one["Tags"].get("VolumeId") == volume and one["State"] == "completed" and one["Encrypted"] >= encrypted]


class Oracle:
    """Looks at everything with the account's own keys."""

    def __init__(self, stack: LocalStack, forensic: bool = True) -> None:
        self._stack, self._forensic = stack, forensic

    def is_converting(self, victim: Victim, account: str = ACCOUNT) -> bool:
        """In one call: the interfaces are on the conversion group for five seconds, and a whole look can take longer."""
        ec2 = self._stack.elsewhere(account).client("ec2")
        found = ec2.describe_network_interfaces(NetworkInterfaceIds=list(victim.interfaces))["NetworkInterfaces"]
        return any(group["GroupName"] == "cordon-conversion" for one in found for group in one["Groups"])

    def look(self, victim: Victim, account: str = ACCOUNT) -> World:
        place = self._stack.elsewhere(account)
        ec2, interfaces = place.client("ec2"), list(victim.interfaces)
        described = ec2.describe_network_interfaces(NetworkInterfaceIds=interfaces)["NetworkInterfaces"]
        logs = ec2.describe_flow_logs(Filters=[{"Name": "resource-id", "Values": interfaces}])["FlowLogs"]
        active = place.client("ssm").describe_sessions(State="Active", Filters=[{"key": "Target", "value": victim.instance}])["Sessions"]
        journal, ledger, case = self._records(victim, account)
        return World(
            victim, snapshot_of_world(place, victim),
            {one["NetworkInterfaceId"]: sorted(group["GroupName"] for group in one["Groups"]) for one in described},
            {id_: [log["FlowLogId"] for log in logs if log["ResourceId"] == id_] for id_ in interfaces},
            [one["SessionId"] for one in active if one["Status"] != "Terminating"],
            self._copies(victim) if self._forensic else {}, journal, ledger, self._objects(victim, account), self._unlisted(victim, account, case),
            case,
        )  # fmt: skip

    def _copies(self, victim: Victim) -> dict[str, State]:
        ec2 = self._stack.client("ec2", account=FORENSIC)
        of_instance = [{"Name": "tag:InstanceId", "Values": [victim.instance]}]
        found = {one["SnapshotId"]: one for one in ec2.describe_snapshots(OwnerIds=["self"], Filters=of_instance)["Snapshots"]}
        locks = ec2.describe_locked_snapshots(SnapshotIds=list(found))["Snapshots"] if found else []
        locked = {one["SnapshotId"]: one["LockState"] for one in locks}
        tags = {id_: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for id_, one in found.items()}
        return {id_: {"State": one["State"], "Lock": locked.get(id_), "Tags": tags[id_]} for id_, one in found.items()}

    def _records(self, victim: Victim, account: str) -> tuple[dict[str, dict[str, Any]], dict[str, State], State]:
        items = self._stack.client("dynamodb").query(
            TableName=self._stack.outputs["CaseTableName"], KeyConditionExpression="#i = :i", ExpressionAttributeNames={"#i": "Instance"},
            ExpressionAttributeValues={":i": {"S": f"{account}/{self._stack.region}/{victim.instance}"}},
        )["Items"]  # fmt: skip
        plain = {item["Record"]["S"]: {name: next(iter(value.values())) for name, value in item.items()} for item in items}
        case = plain.get("case", {})
        steps = {name.rsplit("#", 1)[1]: values for name, values in plain.items() if name.startswith(f"journal#{case.get('CaseId')}#")}
        journal = {step: {name: json.loads(value) for name, value in values.items() if "|" in name} for step, values in steps.items()}
        return journal, journal.pop("evidence", {}), case

    def _objects(self, victim: Victim, account: str) -> set[str]:
        prefix = f"cases/{account}/{self._stack.region}/{victim.instance}"
        pages = self._stack.client("s3").get_paginator("list_object_versions").paginate(Bucket=self._stack.outputs["EvidenceBucketName"], Prefix=prefix)
        return {f"{one['Key']}|{one['VersionId']}" for page in pages for one in page.get("Versions", [])}

    def _unlisted(self, victim: Victim, account: str, case: State) -> set[str]:
        prefix, s3 = f"cases/{account}/{self._stack.region}/{case.get('CaseId')}/", self._stack.client("s3")
        try:
            manifest = json.load(s3.get_object(Bucket=self._stack.outputs["EvidenceBucketName"], Key=f"{prefix}manifest.json")["Body"])
        except s3.exceptions.NoSuchKey:
            return set()
        return {f"{prefix}{one['Name']}|{one['VersionId']}" for one in manifest["Evidence"] if one["State"] == "Unlisted"}


# --- Step by step: what must be so where a step says that it is done ----------------------------------------------


def isolated(world: World) -> bool:
    names = all(groups == [OURS] for groups in world.group_names.values())
    return names and bool(world.group_names) and not any(world.account["Rules"].values())


def window_is_open(world: World) -> bool:
    """An interface that lets everybody in through a group of Cordon's: the conversion group, left behind."""
    return any("cordon-conversion" in groups for groups in world.group_names.values())


def _gone(targets: list[str]) -> bool:
    return all(target.endswith((" draining", " unused")) for target in targets)


def _protected(world: World) -> bool:
    now = world.account["Protection"]
    return now["disableApiTermination"] is True and now["disableApiStop"] is True and now["instanceInitiatedShutdownBehavior"] == "stop"


def _denied(world: World) -> bool:
    policy = world.account["RolePolicies"].get(f"cordon-deny-{world.victim.instance}")
    return bool(policy) and all(one["Effect"] == "Deny" and world.victim.instance in json.dumps(one["Condition"]) for one in policy["Statement"])


def _tagged(world: World) -> bool:
    return all(INCIDENT.items() <= world.account["Tags"][one].items() for one in (world.victim.instance, *world.victim.volumes.values()))


def _each_volume(world: World, *, encrypted: bool) -> bool:
    return all(world.of_volume(volume, encrypted=encrypted) for volume in world.victim.volumes.values())


def _copied(world: World, *, locked: bool = False) -> bool:
    good = [one for one in world.copies.values() if one["State"] == "completed" and (one["Lock"] in ("governance", "compliance") or not locked)]
    return {one["Tags"].get("VolumeId") for one in good} >= set(world.victim.volumes.values())


SHOWN: dict[str, Callable[[World], bool]] = {
    "detach-autoscaling": lambda world: world.account["AutoScaling"] is None,
    "isolate-network": isolated,
    "deregister-targets": lambda world: _gone(world.account["Targets"]) and not world.account["ClassicLoadBalancers"],
    "protect-instance": _protected,
    "preserve-volumes": lambda world: not any((*world.account["VolumesDeletedWithInstance"].values(), *world.account["InterfacesDeletedWithInstance"].values())),
    "tag-resources": _tagged,
    "create-snapshots": lambda world: _each_volume(world, encrypted=False),
    "encrypt-snapshots": lambda world: _each_volume(world, encrypted=True),
    "copy-snapshots": _copied,
    "lock-snapshots": lambda world: _copied(world, locked=True),
    "create-flow-logs": lambda world: all(world.flow_logs.values()),
    "terminate-sessions": lambda world: not world.sessions,
    "revoke-credentials": _denied,
    "detach-profile": lambda world: world.account["Profile"] is None,
}
# Of a victim that has nothing of the kind, and of a stack without a forensic account.
ONLY_WITH_A_FLEET = {"revoke-credentials"}
ONLY_WITH_A_FORENSIC_ACCOUNT = {"copy-snapshots", "lock-snapshots"}


def not_shown(world: World, *, forensic: bool = True) -> list[str]:
    """The steps whose end the account does not show."""
    without = (set() if forensic else ONLY_WITH_A_FORENSIC_ACCOUNT) | (set() if world.victim.role else ONLY_WITH_A_FLEET)
    return [step for step, shown in SHOWN.items() if step not in without and not shown(world)]


# --- What Cordon says, beside that --------------------------------------------------------------------------------


def lies(execution: Execution, world: World, *, forensic: bool = True) -> list[str]:
    """Where what Cordon said is better than what the account shows."""
    instance, missing = execution.instance(world.victim.instance), not_shown(world, forensic=forensic)
    said = {step["Step"]: step["Status"] for step in instance.get("Steps", [])}
    found = [f"{step} is said to be {said[step]}, and the account does not show it" for step in missing if said.get(step) == "Done"]
    if instance.get("Verdict") == "Contained" and missing:
        found.append(f"the verdict is Contained, and the account does not show {', '.join(missing)}")
    # Another execution holds the case, so this one reports only that, and nothing about the instance.
    left_to_another = not instance and any(one.get("InstanceId") == world.victim.instance for one in execution.outcome.get("LeftOut", []))
    if execution.status == "SUCCEEDED" and not left_to_another and (missing or instance.get("Verdict") != "Contained"):
        found.append(f"the execution SUCCEEDED with {instance.get('Verdict')} and without {', '.join(missing) or 'nothing'}")
    if execution.status not in ("SUCCEEDED", "FAILED"):
        found.append(f"the execution ended as {execution.status}")
    if execution.status == "FAILED" and not (execution.error and execution.cause):
        found.append("the execution FAILED without saying why")
    if window_is_open(world) and (execution.status == "SUCCEEDED" or said.get("isolate-network") == "Done"):
        found.append("an interface is on the conversion group, and nothing says so")
    return found


def lost(before: World, after: World) -> list[str]:
    """What can no longer be told or undone: a change whose first value is not in the journal, or evidence that is gone."""
    was, now, journal = before.account, after.account, after.journal
    wanted: dict[tuple[str, str], Any] = {}
    for interface, groups in was["Groups"].items():
        if now["Groups"].get(interface) != groups:
            wanted["isolate-network", f"{interface}|Groups"] = groups
    for device, deleted in was["VolumesDeletedWithInstance"].items():
        if now["VolumesDeletedWithInstance"].get(device) != deleted:
            wanted["preserve-volumes", f"{after.victim.volumes[device]}|DeleteOnTermination"] = deleted
    for interface, deleted in was["InterfacesDeletedWithInstance"].items():
        if now["InterfacesDeletedWithInstance"].get(interface) != deleted:
            wanted["preserve-volumes", f"{interface}|DeleteOnTermination"] = deleted
    for attribute in ("disableApiTermination", "disableApiStop"):
        if now["Protection"][attribute] != was["Protection"][attribute]:
            wanted["protect-instance", f"{after.victim.instance}|{attribute[0].upper()}{attribute[1:]}"] = str(was["Protection"][attribute]).lower()
    if now["Profile"] != was["Profile"]:
        wanted["describe-instance", f"{after.victim.instance}|InstanceProfileArn"] = was["Profile"]
    if now["AutoScaling"] != was["AutoScaling"] and after.victim.auto_scaling_group:
        first = {"LifecycleState": was["AutoScaling"]["LifecycleState"], "ProtectedFromScaleIn": was["AutoScaling"]["ProtectedFromScaleIn"]}
        wanted["detach-autoscaling", f"{after.victim.auto_scaling_group}|Membership"] = first
    if set(now["RolePolicies"]) != set(was["RolePolicies"]):
        wanted["revoke-credentials", f"{after.victim.role}|cordon-deny-{after.victim.instance}"] = None
    absent = object()
    found = [f"{key} was {value!r} and the journal of {step} has {kept!r}" for (step, key), value in wanted.items()
             if (kept := journal.get(step, {}).get(key, absent)) is absent or kept != value]  # fmt: skip
    gone = [target.rsplit(" ", 1)[0] for target in was["Targets"] if not any(one.startswith(target.rsplit(" ", 1)[0]) and not _gone([one]) for one in now["Targets"])]
    registered = [key for key in journal.get("deregister-targets", {}) if "|Target " in key]
    if len(gone) > len(registered):
        found.append(f"{len(gone)} targets are gone and the journal has {len(registered)} of them")
    return found + taken_away(before, after)


def taken_away(before: World, after: World) -> list[str]:
    """Evidence, and first values, that were there and are not any more, or not the same."""
    found = [f"{id_} of the forensic account is gone" for id_ in before.copies if id_ not in after.copies]
    for id_, one in before.account["Snapshots"].items():
        replaced = one["Tags"].get("VolumeId") and after.of_volume(one["Tags"]["VolumeId"], encrypted=True)
        if id_ not in after.account["Snapshots"] and not replaced:
            found.append(f"snapshot {id_} is gone, and no encrypted copy of its volume is there")
    found += [f"object {one} is gone" for one in before.objects - after.objects]
    if before.case.get("CaseId") == after.case.get("CaseId"):
        found += [f"{one} is no longer in the ledger" for one in before.ledger if before.ledger[one] != after.ledger.get(one)]
        for step, values in before.journal.items():
            found += [f"the first value of {key} in the journal of {step} was rewritten" for key in values if after.journal.get(step, {}).get(key, "gone") != values[key]]
    return found


def surplus(world: World) -> list[str]:
    """What a repeated create has made twice: it costs, and nobody is told what it is for."""
    found = []
    for volume in world.victim.volumes.values():
        of_volume = {id_: one for id_, one in world.account["Snapshots"].items() if one["Tags"].get("VolumeId") == volume}
        originals = [id_ for id_, one in of_volume.items() if "SourceSnapshotId" not in one["Tags"]]
        sources = [one["Tags"]["SourceSnapshotId"] for one in of_volume.values() if "SourceSnapshotId" in one["Tags"]]
        found += [f"{volume} has {len(originals)} snapshots"] if len(originals) > 1 else []
        found += [f"{source} has {sources.count(source)} copies" for source in sorted(set(sources)) if sources.count(source) > 1]
    over_there = [one["Tags"].get("VolumeId", "an unnamed volume") for one in world.copies.values()]
    found += [f"{volume} has {over_there.count(volume)} copies in the forensic account" for volume in sorted(set(over_there)) if over_there.count(volume) > 1]
    found += [f"{interface} has {len(logs)} flow logs" for interface, logs in world.flow_logs.items() if len(logs) > 1]
    return found


# What sealing writes anew each time, under the same keys: a version that is not in the ledger has one after it that is.
SEALED = ("report.html", "manifest.json", "manifest.json.sig")


def strays(world: World) -> list[str]:
    """Objects of the case that neither its ledger has nor its manifest warns of."""
    return sorted(one for one in world.objects - set(world.ledger) - world.unlisted if not one.split("|")[0].endswith(SEALED))
