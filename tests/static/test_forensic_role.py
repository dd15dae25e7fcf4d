"""The role in the forensic account lets Cordon make copies and lock them, and do nothing else: least of all take them away.

What IAM would say is asked of the evaluator of support/iam.py.
"""

from __future__ import annotations

import re
from typing import Any

from support import template as responder
from support.forensic_role import (
    ACCOUNT, ADMINISTRATOR, ELSEWHERE, GIVEN, KEY, ORGANIZATION, REGION, RESPONDER, ROLE, SOURCE_KEY, TEMPLATE, allowed, filled, statements, template,
)  # fmt: skip
from support.home_role import FORENSIC
from support.iam import OPERATORS, decision, listed, size, steps_of
from support.stack import PROJECT
from support.template import TOOLS, functions, run

LONGEST = {
    **GIVEN, "AWS::Partition": "aws-us-gov", "CordonStackName": "s" * 28, "OrganizationId": "o-" + "o" * 32, "ExternalId": "e" * 64,
}  # fmt: skip
# seal-evidence only reads over there, by way of the crate of lock-snapshots.
READERS = {"verify-containment", "seal-evidence"}
OURS, OTHER = "i-0123456789abcdef0", "i-0fedcba9876543210"

OPERATORS.setdefault("NumericGreaterThanEquals", lambda wanted, value: float(value) >= float(wanted))
OPERATORS.setdefault("ArnEquals", str.__eq__)


def applying(resource: str) -> list[dict[str, Any]]:
    """The statements as the evaluator takes them: without NotResource, wildcards in actions, and the operator that may be absent."""
    known = []
    for statement in statements():
        if "NotResource" in statement:
            if resource in statement["NotResource"]:
                continue
            statement = {**statement, "Resource": "*"}
        condition = {k: v for k, v in statement.get("Condition", {}).items() if k != "NumericLessThanEqualsIfExists"}
        known.append({**statement, "Condition": condition})
    return known


def may(step: str, action: str, resource: str = "*", **context: Any) -> bool:
    """Whether a session for one step and our instance may do one thing to one resource."""
    session = {"aws:PrincipalTag/CordonStep": step, "aws:PrincipalTag/CordonInstance": OURS}
    keys = {name.replace("__", ":").replace("_of_", "/"): value for name, value in context.items()}
    document = [{**s, "Action": action} if s["Action"] == f"{action.split(':')[0]}:*" else s for s in applying(resource)]
    return decision(document, action, resource, session | keys)


def snapshot(name: str, region: str = REGION) -> str:
    return f"arn:aws:ec2:{region}::snapshot/{name}"


# --- What the role may do ----------------------------------------------------------------------------------------


def test_each_function_may_do_over_there_what_its_calls_are_and_no_more() -> None:
    ec2 = {step: {action for action in allowed(step) if action.startswith("ec2:")} for step in {*FORENSIC, *READERS}}
    assert ec2["copy-snapshots"] == FORENSIC["copy-snapshots"] | {"ec2:DescribeSnapshots", "ec2:CreateTags"}
    assert ec2["lock-snapshots"] == FORENSIC["lock-snapshots"]
    assert ec2["verify-containment"] == ec2["seal-evidence"] == {"ec2:DescribeSnapshots", "ec2:DescribeLockedSnapshots"}
    assert {step for step in allowed_steps() if any(a.startswith("kms:") for a in allowed(step))} == {"copy-snapshots"}


def allowed_steps() -> set[str]:
    return set().union(*map(steps_of, statements()))


def test_nothing_is_allowed_to_a_session_without_a_step_or_to_a_step_that_is_none_of_these() -> None:
    assert all(s["Effect"] == "Deny" or steps_of(s) for s in statements())
    assert allowed_steps() == {*FORENSIC, *READERS} and allowed_steps() - READERS <= set(functions())


def test_nothing_that_takes_evidence_away_is_allowed_at_all() -> None:
    every = {action for s in statements() if s["Effect"] == "Allow" for action in listed(s["Action"])}
    assert not any("*" in action for action in every)
    taking = ("Delete", "Unlock", "Modify", "Reset", "Disable", "Schedule", "Put", "Cancel", "Revoke", "Archive")
    assert not any(action.split(":")[1].startswith(taking) for action in every)


def test_a_wildcard_resource_is_only_for_calls_that_support_nothing_narrower() -> None:
    for s in statements():
        if s["Effect"] == "Allow" and "*" in listed(s["Resource"]):
            assert all(action.split(":")[1].startswith("Describe") for action in listed(s["Action"])), s


LINEAGE = {"aws__RequestTag_of_CordonCase": "c-1", "aws__RequestTag_of_SourceSnapshotId": "snap-1", "aws__RequestTag_of_InstanceId": OURS}


def test_a_copy_is_made_only_with_its_case_its_source_and_its_instance_in_its_tags() -> None:
    copy = "ec2:CopySnapshot"
    assert may("copy-snapshots", copy, snapshot("snap-1", ELSEWHERE)), "the source, in whatever Region"
    assert may("copy-snapshots", copy, snapshot("*"), **LINEAGE)
    for missing in LINEAGE:
        assert not may("copy-snapshots", copy, snapshot("*"), **{k: v for k, v in LINEAGE.items() if k != missing})
    assert not may("copy-snapshots", copy, snapshot("*"), **{**LINEAGE, "aws__RequestTag_of_InstanceId": OTHER})
    assert may("copy-snapshots", copy, snapshot("*", ELSEWHERE), **LINEAGE), "the request that is signed for the source's Region"
    assert not may("lock-snapshots", copy, snapshot("*"), **LINEAGE)


def test_a_copy_may_have_every_tag_that_the_function_writes_and_no_other_and_none_later() -> None:
    source = (PROJECT / "functions/copy-snapshots/src/lib.rs").read_text("utf-8").split("fn lineage(")[1].split("\n}\n")[0]
    incident = (PROJECT / "crates/containment/src/target.rs").read_text("utf-8").split("fn incident_tags(")[1].split("\n    }\n")[0]
    written = set(re.findall(r'"([A-Z]\w+)"', source)) | set(re.findall(r'\("(\w+)"', incident))
    assert {"CordonCase", "VolumeId", "TakenAt", "SourceAccountId", "Owner"} < written
    tag = {"ec2__CreateAction": "CopySnapshot", **LINEAGE}
    assert may("copy-snapshots", "ec2:CreateTags", snapshot("*"), **tag, aws__TagKeys=sorted(written))
    assert not may("copy-snapshots", "ec2:CreateTags", snapshot("*"), **tag, aws__TagKeys=[*written, "Name"])
    assert not may("copy-snapshots", "ec2:CreateTags", snapshot("snap-1"), **LINEAGE, aws__TagKeys=sorted(written))


def test_only_the_copies_of_the_sessions_own_instance_are_locked_and_never_for_fewer_days_than_the_account_wants() -> None:
    ours = {"aws__ResourceTag_of_CordonCase": "c-1", "aws__ResourceTag_of_SourceSnapshotId": "snap-1", "aws__ResourceTag_of_InstanceId": OURS}
    lock = {"ec2__SnapshotLockDuration": "30"}
    assert may("lock-snapshots", "ec2:LockSnapshot", snapshot("snap-8"), **ours, **lock)
    assert not may("lock-snapshots", "ec2:LockSnapshot", snapshot("snap-8"), **ours, ec2__SnapshotLockDuration="6")
    assert not may("lock-snapshots", "ec2:LockSnapshot", snapshot("snap-8"), **ours)
    for missing in ours:
        assert not may("lock-snapshots", "ec2:LockSnapshot", snapshot("snap-8"), **lock, **{k: v for k, v in ours.items() if k != missing})
    assert not may("lock-snapshots", "ec2:LockSnapshot", snapshot("snap-8"), **{**ours, "aws__ResourceTag_of_InstanceId": OTHER}, **lock)
    (statement,) = [s for s in statements() if s["Action"] == "ec2:LockSnapshot"]
    assert statement["Condition"]["NumericLessThanEqualsIfExists"] == {"ec2:SnapshotCoolOffPeriod": "0"}


def test_no_copy_can_be_under_another_key_not_even_the_accounts_default_one() -> None:
    by_ec2, grant = {"kms__ViaService": f"ec2.{REGION}.amazonaws.com"}, {"kms__GrantIsForAWSResource": True}
    for key in (KEY, SOURCE_KEY):
        assert may("copy-snapshots", "kms:Decrypt", key, **by_ec2) and may("copy-snapshots", "kms:CreateGrant", key, **by_ec2, **grant)
        assert not may("copy-snapshots", "kms:CreateGrant", key, **by_ec2) and not may("copy-snapshots", "kms:Decrypt", key)
        assert not may("lock-snapshots", "kms:Decrypt", key, **by_ec2)
    (denied,) = [s for s in statements() if s["Effect"] == "Deny"]
    assert (denied["Action"], denied["NotResource"], "Condition" in denied) == ("kms:*", [SOURCE_KEY, KEY], False)


# --- Who may come in ---------------------------------------------------------------------------------------------


def trust(given: dict[str, str] = GIVEN) -> list[dict[str, Any]]:
    return filled(template()["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"], given)


def admitted(action: str = "sts:AssumeRole", account: str = RESPONDER, **changed: Any) -> bool:
    """Whether the trust lets a caller in who does all as Cordon's copy-snapshots does, but for what is changed."""
    request = {
        "aws:PrincipalArn": f"arn:aws:iam::{account}:role/cordon/cordon-CopySnapshotsRole-a1b2c3d4e5f6",
        "aws:PrincipalOrgID": ORGANIZATION,
        "aws:TagKeys": ["CordonStep", "CordonInstance"],
        "aws:RequestTag/CordonStep": "copy-snapshots",
        "aws:RequestTag/CordonInstance": OURS,
        **({"sts:ExternalId": GIVEN["ExternalId"]} if action == "sts:AssumeRole" else {}),
    }
    request |= {name.replace("__", ":").replace("_of_", "/"): value for name, value in changed.items()}
    of_account = [s for s in trust() if s["Principal"] == {"AWS": f"arn:aws:iam::{account}:root"}]
    return decision(of_account, action, None, {key: value for key, value in request.items() if value is not None})


def test_the_functions_that_copy_lock_and_read_are_trusted_and_no_others() -> None:
    roles = [name for name, one in responder.template()["Resources"].items() if one["Type"].startswith("AWS::Serverless::")]
    home = {name: f"arn:aws:iam::{RESPONDER}:role/cordon/cordon-{name}Role-a1b2c3d4e5f6" for name in [*roles, "SealEvidence"]}
    trusted = {name for name, arn in home.items() if admitted(aws__PrincipalArn=arn)}
    assert trusted == {"CopySnapshots", "LockSnapshots", "VerifyContainment", "SealEvidence"}


def test_a_caller_who_lacks_anything_is_not_let_in() -> None:
    assert admitted() and admitted("sts:TagSession")
    assert not admitted(account=ACCOUNT)
    assert not admitted(sts__ExternalId=None) and not admitted(sts__ExternalId="another")
    for action in ("sts:AssumeRole", "sts:TagSession"):
        assert not admitted(action, aws__PrincipalOrgID=None) and not admitted(action, aws__PrincipalOrgID="o-0000000000")
    assert not admitted(aws__RequestTag_of_CordonStep=None) and not admitted(aws__RequestTag_of_CordonStep="isolate-network")
    assert not admitted(aws__RequestTag_of_CordonInstance=None) and not admitted(aws__RequestTag_of_CordonInstance="*")
    assert not admitted("sts:TagSession", aws__TagKeys=["CordonStep", "CordonInstance", "Admin"])
    for name in ("admin", "cordon-CopySnapshotsRole-x", "cordon/another-CopySnapshotsRole-x", "cordon/cordon-CopySnapshotsRole"):
        assert not admitted(aws__PrincipalArn=f"arn:aws:iam::{RESPONDER}:role/{name}")


# --- The key -----------------------------------------------------------------------------------------------------


def key_policy() -> dict[str, dict[str, Any]]:
    """Its statements by name, the one that a parameter decides about among them."""
    document = template()["Resources"]["Key"]["Properties"]["KeyPolicy"]["Statement"]
    found = [s[1] if isinstance(s, list) else s for s in document]
    return {s["Sid"]: filled(s, GIVEN) for s in found}


def test_the_role_uses_the_key_through_ec2_and_in_no_other_way() -> None:
    denied = key_policy()["ThroughEc2Only"]
    assert (denied["Effect"], denied["Principal"], denied["Action"]) == ("Deny", {"AWS": ROLE}, "kms:*")
    assert denied["Condition"] == {"StringNotLike": {"kms:ViaService": ["ec2.*.amazonaws.com", "ec2.*.amazonaws.com.cn"]}}


def test_nobody_but_the_administrator_can_disable_or_delete_the_key_or_change_who_can() -> None:
    denied = key_policy()["OneAdministrator"]
    assert (denied["Effect"], denied["Principal"]) == ("Deny", {"AWS": "*"})
    assert set(denied["Action"]) == {"kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:PutKeyPolicy"}
    assert denied["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": ADMINISTRATOR}}
    document = template()["Resources"]["Key"]["Properties"]["KeyPolicy"]["Statement"]
    assert [s[0] for s in document if isinstance(s, list)] == ["HasKeyAdministrator"]


def test_the_key_rotates_and_outlives_its_stack() -> None:
    key = template()["Resources"]["Key"]
    assert key["Properties"]["EnableKeyRotation"] is True
    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_the_stacks_own_key_lets_the_forensic_role_copy_through_ec2_and_nobody_else_over_there() -> None:
    document = responder.template()["Resources"]["Key"]["Properties"]["KeyPolicy"]["Statement"]
    conditional = {s[1]["Sid"]: (s[0], s[1]) for s in document if isinstance(s, list)}
    for name in ("ForensicCopies", "ForensicGrants"):
        condition, statement = conditional[name]
        assert condition == "Forensic"
        assert statement["Principal"] == {"AWS": "!Sub arn:${AWS::Partition}:iam::${ForensicAccountId}:root"}
        only = statement["Condition"]
        assert only["ArnEquals"]["aws:PrincipalArn"].endswith("iam::${ForensicAccountId}:role/cordon/${ForensicRoleName}")
        assert only["StringEquals"] == {"aws:PrincipalTag/CordonStep": "copy-snapshots"}
        assert only["StringLike"] == {"kms:ViaService": ["ec2.*.amazonaws.com", "ec2.*.amazonaws.com.cn"]}
    assert conditional["ForensicGrants"][1]["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


# --- Limits and validators ---------------------------------------------------------------------------------------


def test_the_longest_parameters_stay_within_iams_quotas() -> None:
    for name in ("CordonStackName", "OrganizationId", "ExternalId"):
        pattern = template()["Parameters"][name]["AllowedPattern"]
        assert re.fullmatch(pattern, LONGEST[name]) and not re.fullmatch(pattern, LONGEST[name] + LONGEST[name][-1]), name
    managed = [one for one in template()["Resources"].values() if one["Type"] == "AWS::IAM::ManagedPolicy"]
    assert all(size(filled(one["Properties"]["PolicyDocument"], LONGEST)) < 6_144 for one in managed)
    assert size({"Version": "2012-10-17", "Statement": trust(LONGEST)}) < 2_048


def test_every_parameter_is_in_the_console_in_a_group_and_says_what_it_accepts() -> None:
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(template()["Parameters"])
    for name, parameter in template()["Parameters"].items():
        assert parameter["Description"].endswith("."), name
        assert "MinValue" in parameter or parameter["AllowedPattern"] and parameter["ConstraintDescription"], name


def test_cloudformations_linter_finds_nothing_wrong_with_the_template() -> None:
    run(TOOLS / "build/bin/cfn-lint", "--regions", "ap-northeast-1", "--template", TEMPLATE)


def test_the_security_linter_finds_nothing_that_has_no_reason() -> None:
    run(TOOLS / "lint/bin/checkov", "-f", TEMPLATE, "--config-file", ".checkov.yaml")
