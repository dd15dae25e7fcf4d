"""A seeded part of the fault matrix, the page that the whole of it has made, and whether the oracle can say no.

The whole is `make faults`.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Callable, Iterator

import pytest

from tools.fault_matrix import (
    AFTER, BETWEEN, DENIED, FAULTS, FLEET, HOST, MEETINGS, MET, NOT_YET, ONCE, ONCE_IN_A_PROCESS, RESET, SCENARIOS, SLOW_DOWN, Cell, Ended, Reference, Row, Yard, contain,
    deployed, look_at_reference, lots, meet, play, read_page, word,
)  # fmt: skip
from support.oracle import SHOWN, World, lies, lost, not_shown, strays, surplus, taken_away, window_is_open
from support.stack import Execution
from support.victim import Victim

SEED = 20261121
AT_ONCE = 6
# Where containment would be hurt most.
ALWAYS = (
    Cell(Row("isolate-network", "ec2", "ModifyNetworkInterfaceAttribute"), DENIED), Cell(Row("isolate-network", "dynamodb", "GetItem"), DENIED),
    Cell(Row("verify-containment", "ec2", "DescribeNetworkInterfaces"), DENIED), Cell(Row("seal-evidence", "kms", "Sign"), DENIED),
    Cell(Row("seal-evidence", "dynamodb", "UpdateItem"), DENIED), Cell(Row("tag-resources", "ec2", "CreateTags"), SLOW_DOWN),
    Cell(Row("notify", "sns", "Publish"), DENIED),
)  # fmt: skip
IN_LOTS = (ONCE, RESET, NOT_YET, BETWEEN, AFTER)


@pytest.fixture(scope="module")
def yard() -> Iterator[Yard]:
    with deployed() as whole:
        yield whole


@pytest.fixture(scope="module")
def references(yard: Yard) -> list[Reference]:
    return [look_at_reference(yard, scenario) for scenario in SCENARIOS]


@pytest.fixture(scope="module")
def played(yard: Yard, references: list[Reference]) -> list[Ended]:
    """One lot of each kind of fault that passes, chosen by the seed, and those of which nobody may ever doubt."""
    chance, reference = random.Random(SEED), references[0]
    cells = [cell for cell in reference.cells() if str(cell.row) != "sts:GetCallerIdentity"]
    chosen = [chance.choice([lot for lot in lots(cells) if lot[0].fault == fault]) for fault in IN_LOTS] + [[cell] for cell in ALWAYS if cell in cells]
    assert len(chosen) == len(IN_LOTS) + len(ALWAYS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [one for ended in pool.map(lambda lot: play(yard, reference, [lot]), chosen) for one in ended]


# --- The matrix --------------------------------------------------------------------------------------------------


def test_no_fault_leaves_anything_unreported_or_lost_or_in_the_way_of_a_second_run(played: list[Ended]) -> None:
    assert {str(ended.cells[0]): ended.problems for ended in played if ended.problems} == {}


def test_a_fault_ends_as_the_page_says(played: list[Ended]) -> None:
    """Of those that are tried alone: which of a lot has failed a step, only the whole matrix takes apart."""
    page = read_page()
    tried = {cell: ended.word for ended in played for cell in ended.cells if cell in page and len(ended.cells) == 1}
    assert tried and tried == {cell: page[cell] for cell in tried}


@pytest.mark.parametrize("name", MEETINGS)
def test_executions_that_meet_leave_the_instance_contained_and_only_one_of_them_says_so(yard: Yard, name: str) -> None:
    result = meet(yard, name)
    assert result.problems == [] and result.word == read_page().get(Cell(Row(name, "", ""), MET), result.word)


def test_every_call_that_the_workflow_makes_has_met_every_fault(references: list[Reference]) -> None:
    every = {cell for reference in references for cell in reference.cells() if (reference.scenario is HOST) == (cell.row.function in HOST.only)}
    # What is asked once in a process is not asked by each of them: the matrix starts new ones for it, at its end.
    cells, page = ({cell for cell in some if str(cell.row) != ONCE_IN_A_PROCESS and cell.fault != MET} for some in (every, read_page()))
    assert sorted(cells - page) == [], "make faults ARGS=--untried"
    assert sorted({cell.row for cell in page} - {cell.row for cell in cells}) == [], "no longer made: make faults"


def test_the_page_has_nothing_on_it_that_is_not_as_it_should_be() -> None:
    assert set(read_page().values()) <= {"Contained", "FAILED: reported, isolated", "FAILED: reported, not isolated"} | {
        said for cell, said in read_page().items() if cell.fault == MET
    }  # fmt: skip
    assert all(read_page()[Cell(row, fault)] == "Contained" for row in {cell.row for cell in read_page()} for fault in FAULTS[:1] if Cell(row, fault) in read_page())


# --- The oracle --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contained(yard: Yard, references: list[Reference]) -> tuple[Victim, str, Execution, World, World]:
    """A victim, how it was contained, and how it was before and after."""
    victim, account = yard.build(FLEET)
    before = yard.oracle.look(victim, account)
    execution = contain(yard, victim, account, FLEET)
    return victim, account, execution, before, yard.oracle.look(victim, account)


def test_of_a_containment_that_went_well_the_oracle_says_nothing(contained: tuple[Victim, str, Execution, World, World]) -> None:
    _, _, execution, before, after = contained
    assert execution.status == "SUCCEEDED", execution.cause
    assert lies(execution, after) + lost(before, after) + not_shown(after) + surplus(after) + strays(after) == []
    assert word(execution, after) == "Contained"


def test_of_an_instance_that_nobody_has_touched_the_oracle_sees_every_step_missing(contained: tuple[Victim, str, Execution, World, World]) -> None:
    _, _, execution, before, _ = contained
    assert set(not_shown(before)) == set(SHOWN)
    said = lies(execution, before)
    assert len(said) == len(SHOWN) + 2 and any("the verdict is Contained" in one for one in said) and any("SUCCEEDED" in one for one in said)


def open_again(ec2: Any, victim: Victim, world: World) -> None:
    group = world.account["Groups"][victim.interfaces[0]][0]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])


BEHIND_ITS_BACK: dict[str, tuple[str, Callable[[Any, Victim, World], Any]]] = {
    "isolate-network": ("ec2", open_again),
    "protect-instance": ("ec2", lambda ec2, victim, _: ec2.modify_instance_attribute(InstanceId=victim.instance, DisableApiTermination={"Value": False})),
    "tag-resources": ("ec2", lambda ec2, victim, _: ec2.delete_tags(Resources=[victim.instance], Tags=[{"Key": "SecurityIncidentStatus"}])),
    "deregister-targets": ("elbv2", lambda elb, victim, _: elb.register_targets(TargetGroupArn=victim.instance_target_group, Targets=[{"Id": victim.instance}])),
    "detach-autoscaling": ("autoscaling", lambda asg, victim, _: asg.attach_instances(AutoScalingGroupName=victim.auto_scaling_group, InstanceIds=[victim.instance])),
    "revoke-credentials": ("iam", lambda iam, victim, _: iam.delete_role_policy(RoleName=victim.role, PolicyName=f"cordon-deny-{victim.instance}")),
    "detach-profile": ("ec2", lambda ec2, victim, _: ec2.associate_iam_instance_profile(InstanceId=victim.instance, IamInstanceProfile={"Name": victim.profile})),
    "terminate-sessions": ("ssm", lambda ssm, victim, _: ssm.start_session(Target=victim.instance)),
    "create-flow-logs": ("ec2", lambda ec2, _, world: ec2.delete_flow_logs(FlowLogIds=[id_ for ids in world.flow_logs.values() for id_ in ids])),
    "encrypt-snapshots": ("ec2", lambda ec2, _, world: [ec2.delete_snapshot(SnapshotId=id_) for id_ in world.account["Snapshots"]]),
}  # fmt: skip


def test_what_somebody_undoes_behind_cordons_back_the_oracle_sees(yard: Yard, contained: tuple[Victim, str, Execution, World, World]) -> None:
    """The same words of Cordon, and an account that no longer bears them out."""
    victim, account, execution, _, before = contained
    place = yard.stack.elsewhere(account)
    for step, (service, undo) in BEHIND_ITS_BACK.items():
        undo(place.client(service), victim, before)
        world = yard.oracle.look(victim, account)
        assert step in not_shown(world), step
        assert f"{step} is said to be Done, and the account does not show it" in lies(execution, world)
    assert any("is gone, and no encrypted copy" in one for one in taken_away(before, world))


def test_a_change_without_its_first_value_in_the_journal_is_a_loss(contained: tuple[Victim, str, Execution, World, World]) -> None:
    _, _, _, before, after = contained
    assert lost(before, after) == []
    for step in ("isolate-network", "preserve-volumes", "protect-instance", "describe-instance", "detach-autoscaling", "revoke-credentials", "deregister-targets"):
        without = replace(after, journal={name: values for name, values in after.journal.items() if name != step})
        assert lost(before, without) != [], step
    rewritten = {key: ["sg-somebody"] for key in after.journal["isolate-network"]}
    said = taken_away(after, replace(after, journal={**after.journal, "isolate-network": rewritten}))
    assert len(said) == len(rewritten) and all("was rewritten" in one for one in said)


def test_evidence_that_is_gone_or_there_twice_or_that_nobody_knows_is_seen(contained: tuple[Victim, str, Execution, World, World]) -> None:
    victim, _, _, _, after = contained
    one = next(iter(after.objects))
    assert taken_away(after, replace(after, objects=after.objects - {one})) == [f"object {one} is gone"]
    key = next(iter(after.ledger))
    assert taken_away(after, replace(after, ledger={k: v for k, v in after.ledger.items() if k != key})) == [f"{key} is no longer in the ledger"]
    assert strays(replace(after, objects=after.objects | {"cases/x/facts-1.json|v"})) == ["cases/x/facts-1.json|v"]
    assert strays(replace(after, objects=after.objects | {"cases/x/facts-1.json|v"}, unlisted={"cases/x/facts-1.json|v"})) == []
    id_, copy = next(iter(after.copies.items()))
    assert surplus(replace(after, copies={**after.copies, f"{id_}0": copy})) == [f"{copy['Tags']['VolumeId']} has 2 copies in the forensic account"]


def test_an_interface_that_is_left_on_the_conversion_group_has_to_be_told(contained: tuple[Victim, str, Execution, World, World]) -> None:
    victim, _, execution, _, after = contained
    left = replace(after, group_names={**after.group_names, victim.interfaces[0]: ["cordon-conversion"]})
    assert window_is_open(left) and "an interface is on the conversion group, and nothing says so" in lies(execution, left)
