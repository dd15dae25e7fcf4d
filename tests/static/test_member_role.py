"""The role in a member account lets each step do there what its function may do at home, and only to its own instance.

What IAM would say is asked of a small evaluator, which knows the operators that the template uses and fails on any other.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterator

import pytest
import yaml

from support import template as responder
from support.home_role import WITHOUT_RESOURCE, allowed, needed
from support.iam import decision, listed, size, steps_of
from support.member_role import FORENSIC, GIVEN, KEY, MEMBER, RESPONDER, TEMPLATE, acting, elsewhere, policies, role, statements, template
from support.template import CRATES, TOOLS, functions, kebab, run


# The longest of everything, to measure by.
LONGEST = {
    **GIVEN,
    "AWS::Partition": "aws-us-gov",
    "CordonStackName": "s" * 28,
    "OrganizationId": "o-" + "o" * 32,
    "ExternalId": "e" * 64,
    "ContainableRoles": "r" * 128,
    "SnapshotKeyArn": f"arn:aws-us-gov:kms:us-gov-west-1:{RESPONDER}:key/mrk-" + "0" * 32,
}
OURS, OTHER = "i-0123456789abcdef0", "i-0fedcba9876543210"


def logical_id(name: str) -> str:
    return next(resource for resource in responder.template()["Resources"] if kebab(resource) == name)


# --- The evaluator -----------------------------------------------------------------------------------------------


def may(step: str, action: str, resource: str = "*", given: dict[str, str] = GIVEN, **context: Any) -> bool:
    """Whether a session for one step and our instance may do one thing to one resource."""
    session = {"aws:PrincipalTag/CordonStep": step, "aws:PrincipalTag/CordonInstance": OURS}
    keys = {name.replace("__", ":").replace("_of_", "/"): value for name, value in context.items()}
    return decision(statements(given), action, resource, session | keys)


def ec2(resource: str, account: str = MEMBER) -> str:
    return f"arn:aws:ec2:eu-west-1:{'' if resource.startswith('snapshot') else account}:{resource}"


def iam(resource: str) -> str:
    return f"arn:aws:iam::{MEMBER}:{resource}"


# --- What each step may do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(acting()))
def test_a_step_may_do_in_a_member_account_what_its_function_may_do_at_home(name: str) -> None:
    theirs = {action for s in statements() if s["Effect"] == "Allow" and name in steps_of(s) for action in listed(s["Action"])}
    assert theirs == elsewhere(name, allowed(name))
    # Without the detour as well: the calls in the functions' source are the reason for both.
    assert elsewhere(name, needed(name)) <= theirs


def test_nothing_is_allowed_to_a_session_without_a_step() -> None:
    for statement in statements():
        assert statement["Effect"] == "Deny" or steps_of(statement), statement


def test_every_step_with_a_permission_is_a_function_that_acts_on_an_instance() -> None:
    named = set().union(*map(steps_of, statements()))
    assert named == acting()
    assert named.isdisjoint({"intake", "report", "notify", "finding"})


def test_a_wildcard_resource_is_only_for_calls_that_support_nothing_narrower() -> None:
    for statement in statements():
        if "*" in listed(statement["Resource"]):
            actions = listed(statement["Action"])
            assert all(action.split(":")[1].startswith("Describe") or action in WITHOUT_RESOURCE for action in actions), statement


def on_instances() -> Iterator[tuple[str, str, str]]:
    """Each step, call and ARN that is about instances."""
    for statement in statements():
        for arn in listed(statement["Resource"]):
            if ":instance/" in arn:
                yield from ((step, action, arn) for step in steps_of(statement) for action in listed(statement["Action"]))


def test_an_instance_is_changed_only_by_a_session_of_its_own() -> None:
    own = f"arn:aws:ec2:*:{MEMBER}:instance/${{aws:PrincipalTag/CordonInstance}}"
    others = {(step, action) for step, action, arn in on_instances() if arn != own}
    # A Multi-Attach volume is kept for each instance that it is attached to.
    assert others == {("preserve-volumes", "ec2:ModifyInstanceAttribute")}
    assert len(set(on_instances())) > len(others)


def test_every_resource_is_in_the_member_account_but_for_the_key_and_what_is_shared() -> None:
    foreign = {arn for s in statements() for arn in listed(s["Resource"]) if arn != "*" and f":{MEMBER}:" not in arn}
    assert foreign == {KEY, "arn:aws:ec2:*::snapshot/*", "arn:aws:ec2:*:*:subnet/*", "arn:aws:ec2:*:*:vpc/*"}


# --- What IAM would say ------------------------------------------------------------------------------------------

CASE_TAGS = ["CordonCase", "Evidence", "SecurityIncidentStatus", "IncidentTicket", "Owner"]


@pytest.mark.parametrize(
    ("step", "action"),
    [
        ("protect-instance", "ec2:ModifyInstanceAttribute"),
        ("create-snapshots", "ec2:CreateSnapshots"),
        ("detach-profile", "ec2:DisassociateIamInstanceProfile"),
        ("detach-profile", "ec2:AssociateIamInstanceProfile"),
        ("tag-resources", "ec2:CreateTags"),
        ("tag-resources", "ec2:DeleteTags"),
        ("describe-instance", "ec2:DescribeInstanceAttribute"),
        ("collect-facts", "ec2:GetConsoleOutput"),
        ("collect-facts", "ec2:GetConsoleScreenshot"),
    ],
)
def test_a_step_may_touch_the_sessions_instance_and_no_other(step: str, action: str) -> None:
    assert may(step, action, ec2(f"instance/{OURS}"))
    assert not may(step, action, ec2(f"instance/{OTHER}"))
    assert not may(step, action, ec2(f"instance/{OURS}", account=RESPONDER))
    assert not may("report", action, ec2(f"instance/{OURS}"))


def test_only_sessions_to_the_sessions_instance_may_be_ended() -> None:
    session = f"arn:aws:ssm:eu-west-1:{MEMBER}:session/alice-0123"
    to = "ssm__resourceTag_of_aws:ssmmessages:target-id"
    assert may("terminate-sessions", "ssm:TerminateSession", session, **{to: OURS})
    assert not may("terminate-sessions", "ssm:TerminateSession", session, **{to: OTHER})
    assert not may("terminate-sessions", "ssm:TerminateSession", session)
    assert not may("verify-containment", "ssm:TerminateSession", session, **{to: OURS})


def test_an_interface_of_another_instance_is_out_of_reach_where_ec2_asks_about_the_instance() -> None:
    for step in ("isolate-network", "preserve-volumes"):
        assert may(step, "ec2:ModifyNetworkInterfaceAttribute", ec2("network-interface/eni-1"))
        assert may(step, "ec2:ModifyNetworkInterfaceAttribute", ec2(f"instance/{OURS}"))
        assert not may(step, "ec2:ModifyNetworkInterfaceAttribute", ec2(f"instance/{OTHER}"))


def test_a_step_may_not_do_what_another_is_for() -> None:
    web = iam("role/web")
    assert may("revoke-credentials", "iam:PutRolePolicy", web)
    assert [step for step in sorted(acting()) if may(step, "iam:PutRolePolicy", web)] == ["revoke-credentials"]
    assert not may("isolate-network", "iam:PutRolePolicy", web)
    assert not may("verify-containment", "ec2:ModifyInstanceAttribute", ec2(f"instance/{OURS}"))
    assert not may("Isolate-Network", "ec2:DescribeSecurityGroups")


def test_nobody_may_write_a_policy_of_cordons_own_roles() -> None:
    for step in [*acting(), ""]:
        for action in ("iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:PassRole"):
            assert not may(step, action, iam("role/cordon/cordon-member"), iam__PassedToService="ec2.amazonaws.com")
    assert may("revoke-credentials", "iam:GetRolePolicy", iam("role/cordon/cordon-member"))


def test_only_roles_that_may_be_contained_get_a_policy() -> None:
    given = {**GIVEN, "ContainableRoles": "app-*"}
    assert may("revoke-credentials", "iam:PutRolePolicy", iam("role/app-web"), given)
    assert not may("revoke-credentials", "iam:PutRolePolicy", iam("role/admin"), given)
    to_ec2 = {"iam__PassedToService": "ec2.amazonaws.com"}
    assert may("detach-profile", "iam:PassRole", iam("role/app-web"), given, **to_ec2)
    assert not may("detach-profile", "iam:PassRole", iam("role/admin"), given, **to_ec2)
    assert not may("detach-profile", "iam:PassRole", iam("role/app-web"), given, iam__PassedToService="lambda.amazonaws.com")
    assert not may("revoke-credentials", "iam:PassRole", iam("role/app-web"), given, **to_ec2)


def test_tags_are_cordons_and_no_others() -> None:
    for resource in (f"instance/{OURS}", "volume/vol-1", "snapshot/snap-1"):
        assert may("tag-resources", "ec2:CreateTags", ec2(resource), aws__TagKeys=CASE_TAGS)
        assert not may("tag-resources", "ec2:CreateTags", ec2(resource), aws__TagKeys=[*CASE_TAGS, "InstanceId"])
        is_evidence = resource.startswith("snapshot")
        assert may("tag-resources", "ec2:DeleteTags", ec2(resource), aws__TagKeys=[*CASE_TAGS, "CordonReleased"]) != is_evidence
        assert not may("tag-resources", "ec2:DeleteTags", ec2(resource), aws__TagKeys=["Name"])
    group = ec2("security-group/sg-1")
    assert may("isolate-network", "ec2:CreateTags", group, ec2__CreateAction="CreateSecurityGroup")
    assert not may("isolate-network", "ec2:CreateTags", group)
    assert may("encrypt-snapshots", "ec2:CreateTags", ec2("snapshot/*"), ec2__CreateAction="CopySnapshot")
    assert not may("encrypt-snapshots", "ec2:CreateTags", ec2("snapshot/snap-1"))


def test_a_snapshot_is_made_only_with_its_case_and_its_instance_in_its_tags() -> None:
    case, ours, other = ({"aws__RequestTag_of_CordonCase": "c-1"}, *({"aws__RequestTag_of_InstanceId": i} for i in (OURS, OTHER)))
    for action in ("ec2:CreateSnapshots", "ec2:CreateSnapshot"):
        assert may("create-snapshots", action, ec2("volume/vol-1"))
        assert may("create-snapshots", action, ec2("snapshot/*"), **case, **ours)
        assert not may("create-snapshots", action, ec2("snapshot/*"), **case, **other)
        assert not may("create-snapshots", action, ec2("snapshot/*"), **ours)
    lineage = ["VolumeId", "DeviceName", "InstanceId"]
    for keys in ([*CASE_TAGS, "InstanceId"], lineage):
        assert may("create-snapshots", "ec2:CreateTags", ec2("snapshot/snap-1"), aws__TagKeys=keys, **ours)
        assert not may("create-snapshots", "ec2:CreateTags", ec2("snapshot/snap-1"), aws__TagKeys=keys, **other)
    assert not may("create-snapshots", "ec2:CreateTags", ec2("snapshot/snap-1"), aws__TagKeys=[*lineage, "Name"], **ours)


def test_a_flow_log_is_made_only_with_its_case_and_its_instance_in_its_tags() -> None:
    case, ours, other = ({"aws__RequestTag_of_CordonCase": "c-1"}, *({"aws__RequestTag_of_InstanceId": i} for i in (OURS, OTHER)))
    assert may("create-flow-logs", "ec2:CreateFlowLogs", ec2("network-interface/eni-1"))
    assert not may("create-flow-logs", "ec2:CreateFlowLogs", ec2("vpc/vpc-1"))
    for action in ("ec2:CreateFlowLogs", "ec2:CreateTags"):
        assert may("create-flow-logs", action, ec2("vpc-flow-log/*"), **case, **ours)
        assert not may("create-flow-logs", action, ec2("vpc-flow-log/*"), **case, **other)
        assert not may("create-flow-logs", action, ec2("vpc-flow-log/*"), **ours)
    log, tagged = ec2("vpc-flow-log/fl-1"), {"aws__ResourceTag_of_CordonCase": "c-1"}
    assert may("create-flow-logs", "ec2:DeleteFlowLogs", log, **tagged, aws__ResourceTag_of_InstanceId=OURS)
    assert not may("create-flow-logs", "ec2:DeleteFlowLogs", log, **tagged, aws__ResourceTag_of_InstanceId=OTHER)
    assert not may("create-flow-logs", "ec2:DeleteFlowLogs", log, aws__ResourceTag_of_InstanceId=OURS)


def test_only_the_originals_of_the_sessions_own_case_may_be_deleted() -> None:
    original = {"aws__ResourceTag_of_CordonCase": "c-1", "aws__ResourceTag_of_InstanceId": OURS}
    snapshot = ec2("snapshot/snap-1")
    assert may("delete-originals", "ec2:DeleteSnapshot", snapshot, **original)
    assert not may("delete-originals", "ec2:DeleteSnapshot", snapshot, aws__ResourceTag_of_InstanceId=OURS)
    assert not may("delete-originals", "ec2:DeleteSnapshot", snapshot, **{**original, "aws__ResourceTag_of_InstanceId": OTHER})
    assert not may("delete-originals", "ec2:DeleteSnapshot", snapshot, **original, aws__ResourceTag_of_SourceSnapshotId="snap-0")
    assert [step for step in acting() if may(step, "ec2:DeleteSnapshot", snapshot, **original)] == ["delete-originals"]


def test_a_share_is_possible_with_the_forensic_account_only_and_never_with_everybody() -> None:
    snapshot, share = ec2("snapshot/snap-1"), "ec2:ModifySnapshotAttribute"
    ours = {"aws__ResourceTag_of_CordonCase": "c-1", "aws__ResourceTag_of_InstanceId": OURS}
    forensic = {"ec2__Add_of_userId": [FORENSIC]}
    assert may("share-snapshots", share, snapshot, **ours, **forensic)
    assert may("share-snapshots", share, snapshot, **ours, ec2__Remove_of_userId=[RESPONDER])
    assert may("share-snapshots", share, snapshot, **ours, ec2__Remove_of_group="all")
    for others in ([MEMBER], [FORENSIC, MEMBER], [RESPONDER]):
        assert not may("share-snapshots", share, snapshot, **ours, ec2__Add_of_userId=others)
    assert not may("share-snapshots", share, snapshot, **ours, ec2__Add_of_group="all")
    assert not may("share-snapshots", share, snapshot, **ours, **forensic, ec2__Add_of_group="all")
    assert not may("share-snapshots", share, snapshot, **{**ours, "aws__ResourceTag_of_InstanceId": OTHER}, **forensic)
    assert not may("share-snapshots", share, snapshot, **forensic)
    assert [step for step in acting() if may(step, share, snapshot, **ours, **forensic)] == ["share-snapshots"]
    without = statements({**GIVEN, "ForensicAccountId": ""})
    assert not any(share in listed(s["Action"]) for s in without), "nothing can be shared where there is nobody to share with"


def test_a_customers_key_is_used_to_copy_what_is_to_be_shared_by_ec2_only() -> None:
    theirs, by_ec2 = f"arn:aws:kms:eu-west-1:{MEMBER}:key/theirs", {"kms__ViaService": "ec2.eu-west-1.amazonaws.com"}
    assert may("encrypt-snapshots", "kms:Decrypt", theirs, **by_ec2)
    assert not may("encrypt-snapshots", "kms:Decrypt", theirs)
    assert may("encrypt-snapshots", "kms:CreateGrant", theirs, **by_ec2, kms__GrantIsForAWSResource=True)
    assert not may("encrypt-snapshots", "kms:CreateGrant", theirs, **by_ec2)
    assert not may("encrypt-snapshots", "kms:Decrypt", theirs, {**GIVEN, "ForensicAccountId": ""}, **by_ec2)
    assert not any(may(step, "kms:Decrypt", theirs, **by_ec2) for step in acting() - {"encrypt-snapshots"})


def test_the_key_is_used_by_ec2_only_and_not_at_all_without_one() -> None:
    by_ec2 = {"kms__ViaService": "ec2.eu-west-1.amazonaws.com"}
    grant = {"kms__GrantIsForAWSResource": True}
    assert may("encrypt-snapshots", "kms:Decrypt", KEY, **by_ec2)
    assert may("encrypt-snapshots", "kms:CreateGrant", KEY, **by_ec2, **grant)
    assert not may("encrypt-snapshots", "kms:CreateGrant", KEY, **by_ec2)
    assert not may("encrypt-snapshots", "kms:Decrypt", KEY)
    assert not may("encrypt-snapshots", "kms:Decrypt", KEY, kms__ViaService="s3.eu-west-1.amazonaws.com")
    assert not may("encrypt-snapshots", "kms:Decrypt", KEY.replace("0a1b", "0a1c"), **by_ec2)
    assert not may("delete-originals", "kms:Decrypt", KEY, **by_ec2)
    without = statements({**GIVEN, "SnapshotKeyArn": "", "ForensicAccountId": ""})
    assert not any(action.startswith("kms:") for s in without for action in listed(s["Action"]))
    assert len(policies({**GIVEN, "SnapshotKeyArn": ""})) == len(policies()) - 1


# --- Who may come in ---------------------------------------------------------------------------------------------


def admitted(action: str = "sts:AssumeRole", account: str = RESPONDER, **changed: Any) -> bool:
    """Whether the trust lets a caller in who does all as Cordon's isolate-network does, but for what is changed."""
    request = {
        "aws:PrincipalArn": f"arn:aws:iam::{account}:role/cordon/cordon-IsolateNetworkRole-a1b2c3d4e5f6",
        "aws:PrincipalOrgID": GIVEN["OrganizationId"],
        "aws:TagKeys": ["CordonStep", "CordonInstance"],
        "aws:RequestTag/CordonStep": "isolate-network",
        "aws:RequestTag/CordonInstance": OURS,
    }
    if action == "sts:AssumeRole":
        request["sts:ExternalId"] = GIVEN["ExternalId"]
    for name, value in changed.items():
        request[name.replace("__", ":").replace("_of_", "/")] = value
    trust = role()["AssumeRolePolicyDocument"]["Statement"]
    of_account = [s for s in trust if s["Principal"] == {"AWS": f"arn:aws:iam::{account}:root"}]
    return decision(of_account, action, None, {key: value for key, value in request.items() if value is not None})


def home_role(resource: str) -> str:
    return f"arn:aws:iam::{RESPONDER}:role/cordon/cordon-{resource}Role-a1b2c3d4e5f6"


def test_the_functions_that_act_on_an_instance_are_trusted_and_of_the_others_none_may_ask() -> None:
    assert all(admitted(aws__PrincipalArn=home_role(logical_id(name))) for name in acting())
    # The names of all of them would be longer than a trust policy can be; each function's own role says the rest.
    assert {name for name in functions() if "role/cordon/${MemberRoleName}" in json.dumps(functions()[name])} == acting()
    assert acting().isdisjoint({"intake", "report", "notify"})


def test_a_caller_who_lacks_anything_is_not_let_in() -> None:
    assert admitted() and admitted("sts:TagSession")
    assert not admitted(account=MEMBER)
    assert not admitted(sts__ExternalId=None) and not admitted(sts__ExternalId="another")
    for action in ("sts:AssumeRole", "sts:TagSession"):
        assert not admitted(action, aws__PrincipalOrgID=None) and not admitted(action, aws__PrincipalOrgID="o-0000000000")
    assert not admitted(aws__RequestTag_of_CordonStep=None) and not admitted(aws__RequestTag_of_CordonInstance=None)
    assert not admitted(aws__RequestTag_of_CordonInstance="*")
    assert not admitted("sts:TagSession", aws__TagKeys=["CordonStep", "CordonInstance", "Admin"])
    for name in ("admin", "cordon-IsolateNetworkRole-x", "cordon/another-IsolateNetworkRole-x", "cordon/cordon-IsolateNetwork-x"):
        assert not admitted(aws__PrincipalArn=f"arn:aws:iam::{RESPONDER}:role/{name}")


def test_the_tags_of_the_trust_are_those_that_the_functions_pass() -> None:
    member = (CRATES / "runtime" / "src" / "member.rs").read_text(encoding="utf-8").split("#[cfg(test)]")[0]
    passed = re.findall(r'tag\("(\w+)"', member)
    (keys,) = (
        s["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"]
        for s in role()["AssumeRolePolicyDocument"]["Statement"]
        if s["Action"] == "sts:TagSession"
    )
    assert passed == keys == ["CordonStep", "CordonInstance"]


def test_every_policy_is_the_roles_and_it_has_no_other() -> None:
    resources = template()["Resources"]
    assert {one["Type"] for one in resources.values()} == {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}
    for name, one in resources.items():
        if name != "Role":
            assert one["Properties"]["Roles"] == ["!Ref Role"] and one["Properties"]["Path"] == "/cordon/", name
            assert one.get("Condition") == {"SnapshotKey": "HasSnapshotKey", "Sharing": "HasForensicAccount"}.get(name)
    assert role().keys().isdisjoint({"Policies", "ManagedPolicyArns"}) and role()["Path"] == "/cordon/"


# --- Limits ------------------------------------------------------------------------------------------------------


def test_the_longest_parameters_stay_within_iams_quotas() -> None:
    for name, value in LONGEST.items():
        if not name.startswith("AWS::"):
            parameter = template()["Parameters"][name]
            assert re.fullmatch(parameter["AllowedPattern"], value), name
            if name in ("CordonStackName", "OrganizationId", "ExternalId", "ContainableRoles"):
                assert not re.fullmatch(parameter["AllowedPattern"], value + value[-1]), f"{name} can be longer"
    assert max(map(size, policies(LONGEST))) < 6_144, "a managed policy"
    assert len(policies(LONGEST)) <= 10, "a role's managed policies"
    assert size(role(LONGEST)["AssumeRolePolicyDocument"]) < 2_048, "a trust policy, where nobody has asked for more"


def test_no_functions_role_has_a_name_that_cloudformation_would_cut() -> None:
    for name in acting():
        assert len(f"{LONGEST['CordonStackName']}-{logical_id(name)}Role-") + 13 <= 64, name


def test_a_session_lasts_no_longer_than_a_role_assumed_by_a_role_can() -> None:
    assert role()["MaxSessionDuration"] == 3600


def test_every_parameter_is_in_the_console_in_a_group_and_says_what_it_accepts() -> None:
    groups = template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(template()["Parameters"])
    for name, parameter in template()["Parameters"].items():
        assert parameter["Description"].endswith(".") and parameter["AllowedPattern"] and parameter["ConstraintDescription"], name


def test_the_template_needs_no_transform_and_no_alias_so_that_stacksets_take_it_as_it_is() -> None:
    assert "Transform" not in template()
    events = yaml.parse(TEMPLATE.read_text(encoding="utf-8"), yaml.SafeLoader)
    assert not any(isinstance(event, yaml.AliasEvent) for event in events)


# --- Validators --------------------------------------------------------------------------------------------------


def test_cloudformations_linter_finds_nothing_wrong_with_the_template() -> None:
    run(TOOLS / "build/bin/cfn-lint", "--regions", "ap-northeast-1", "--template", TEMPLATE)


def test_the_security_linter_finds_nothing_that_has_no_reason() -> None:
    run(TOOLS / "lint/bin/checkov", "-f", TEMPLATE, "--config-file", ".checkov.yaml")
