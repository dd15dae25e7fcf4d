"""`tools.compare_calls` takes two runs for the same whatever is random in them, and sees a change that is another one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Callable

import pytest

from emulator.call_record import Call
from tools.compare_calls import Run, differences

GROUPS = "ModifyNetworkInterfaceAttribute"


def drill(folder: Path, seed: int, change: Callable[[list[Call]], Any] = lambda calls: None) -> Run:
    """A record such as a drill leaves: an instance is built, tagged, and taken off the network by way of two groups."""
    rng, calls, events = random.Random(seed), [], []
    random_part = lambda kind: f"{kind}-{rng.getrandbits(68):017x}"
    instance, volume, (one, other) = random_part("i"), random_part("vol"), sorted((random_part("eni"), random_part("eni")))
    conversion, isolation = random_part("sg"), random_part("sg")

    def call(caller: str, action: str, **parameters: str) -> None:
        trace = f"{seed}-{len(calls)}"
        events.append({"Trace": trace, "Function": f"cordon-contain-{caller}", "Event": json.dumps({"InstanceId": instance}), "Pid": 1})
        calls.append({
            "Service": "ec2", "Action": action, "Caller": caller if caller == "tests" else f"cordon-contain-{caller}", "Trace": None if caller == "tests" else trace,
            "Error": None, "Parameters": parameters, "Start": float(len(calls)), "End": len(calls) + 0.5,
        })  # fmt: skip

    interfaces = [one, other] if seed % 2 else [other, one]
    call("tests", "AttachVolume", VolumeId=volume, InstanceId=instance)
    for interface in interfaces:
        call("tests", "AttachNetworkInterface", NetworkInterfaceId=interface, InstanceId=instance)
    call("isolate-network", "AuthorizeSecurityGroupIngress", GroupId=conversion)
    call("isolate-network", "RevokeSecurityGroupEgress", GroupId=isolation)
    call("tag-resources", "CreateTags", **{"ResourceId.1": instance, "Tag.1.Value": f"{instance}-202611{seed:02d}T030007Z"})
    # Both interfaces at once: which of them comes first is chance.
    for group in (conversion, isolation):
        for interface in (one, other):
            call("isolate-network", GROUPS, **{"NetworkInterfaceId": interface, "SecurityGroupId.1": group})
    call("deregister-targets", "DeregisterTargets", Id=instance)
    change(calls)
    folder.mkdir()
    (folder / "moto.calls").write_text("".join(f"{json.dumps(one)}\n" for one in calls), encoding="utf-8")
    (folder / "invocations").write_text("".join(f"{json.dumps(one)}\n" for one in events), encoding="utf-8")
    return Run(folder)


def put(start: float, action: str) -> Callable[[list[Call]], Any]:
    return lambda calls: next(one for one in calls if one["Action"] == action).update(Start=start)


def refused(calls: list[Call]) -> None:
    calls[-1]["Error"] = "AccessDenied"


def on_the_wrong_group(calls: list[Call]) -> None:
    groups = [one["Parameters"] for one in calls if one["Action"] == GROUPS]
    groups[-1]["SecurityGroupId.1"] = groups[0]["SecurityGroupId.1"]


def test_two_runs_with_other_ids_and_times_are_the_same(tmp_path: Path) -> None:
    assert list(differences(drill(tmp_path / "before", 2), drill(tmp_path / "after", 3))) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda calls: calls.pop(), id="a call that is missing"),
        pytest.param(refused, id="a call that was refused"),
        pytest.param(on_the_wrong_group, id="an interface on another group"),
        pytest.param(put(99.0, GROUPS), id="an interface on its groups the other way round"),
        pytest.param(put(3.1, "DeregisterTargets"), id="a branch's functions the other way round"),
    ],
)
def test_what_is_done_otherwise_is_told(tmp_path: Path, change: Callable[[list[Call]], Any]) -> None:
    assert list(differences(drill(tmp_path / "before", 2), drill(tmp_path / "after", 3, change))) != []
