"""Accounts, and the roles that lead into them."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.credentials import client_with
from support.listener import Listener
from support.stack import ACCOUNT, LocalStack
from support.victim import bare_instance, build_victims, described_instance, snapshot_of_world

proves = pytest.mark.proves

MEMBER, STRANGER = "210987654321", "333333333333"
HOME_ROOT = f"arn:aws:iam::{ACCOUNT}:root"
BOTH = ["sts:AssumeRole", "sts:TagSession"]
TAGS = [{"Key": "CordonStep", "Value": "isolate-network"}, {"Key": "CordonInstance", "Value": "i-1"}]


def trust(principal: Any = HOME_ROOT, action: Any = "sts:AssumeRole", effect: str = "Allow", **condition: Any) -> dict[str, Any]:
    who = principal if principal == "*" else {"AWS": principal}
    return {"Effect": effect, "Principal": who, "Action": action, **({"Condition": condition} if condition else {})}


def new_role(stack: LocalStack, *statements: dict[str, Any], path: str = "/cordon/") -> str:
    """A role of the member account with this trust policy."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    made = stack.client("iam", account=MEMBER).create_role(RoleName=f"r{uuid.uuid4().hex[:8]}", Path=path, AssumeRolePolicyDocument=policy)
    return made["Role"]["Arn"]


def assume(stack: LocalStack, role: str, *, account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    return stack.client("sts", account=account).assume_role(RoleArn=role, **{"RoleSessionName": "cordon-drill", **more})["Credentials"]


def refusal(stack: LocalStack, role: str, **more: Any) -> tuple[int, str, str]:
    """The HTTP status, code and message with which the role is refused."""
    with pytest.raises(ClientError) as refused:
        assume(stack, role, **more)
    answer = refused.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


# --- Accounts


@proves("moto.sts.account_of_key")
def test_an_access_key_of_12_digits_belongs_to_the_account_of_that_number(moto: LocalStack) -> None:
    for account in (STRANGER, MEMBER, ACCOUNT):
        assert moto.client("sts", account=account).get_caller_identity()["Account"] == account
        assert moto.client("ec2", account=account).describe_security_groups()["SecurityGroups"][0]["OwnerId"] == account


def test_an_instance_of_another_account_is_seen_only_there(moto: LocalStack) -> None:
    member = moto.elsewhere(MEMBER)
    (victim,) = build_victims(member)
    assert described_instance(member, victim.instance)["State"]["Name"] == "running"
    assert snapshot_of_world(member, victim)["AutoScaling"]["LifecycleState"] == "InService"
    assert f":{MEMBER}:" in snapshot_of_world(member, victim)["Profile"]
    with pytest.raises(ClientError, match="InvalidInstanceID.NotFound"):
        described_instance(moto, victim.instance)


def test_an_instance_can_be_in_another_region(moto: LocalStack) -> None:
    there = moto.elsewhere(region="eu-west-1")
    victim = bare_instance(there)
    assert described_instance(there, victim.instance)["Placement"]["AvailabilityZone"] == "eu-west-1a"


def test_a_roles_credentials_act_in_its_account_and_the_record_shows_it(moto: LocalStack) -> None:
    role, since = new_role(moto, trust(action=BOTH)), time.time()
    given = assume(moto, role, ExternalId="cordon-1", Tags=TAGS)
    identity = client_with(moto, given, "sts").get_caller_identity()
    assert (identity["Account"], identity["Arn"].rsplit(":", 1)[1]) == (MEMBER, f"assumed-role/{role.rsplit('/', 1)[1]}/cordon-drill")
    member = moto.elsewhere(MEMBER)
    (victim,) = build_victims(member)
    ec2, iam = client_with(moto, given, "ec2"), client_with(moto, given, "iam")
    member_of = client_with(moto, given, "autoscaling").describe_auto_scaling_instances(InstanceIds=[victim.instance])
    assert member_of["AutoScalingInstances"][0]["AutoScalingGroupName"] == victim.auto_scaling_group
    assert ec2.describe_instances(InstanceIds=[victim.instance])["Reservations"][0]["OwnerId"] == MEMBER
    assert iam.get_role(RoleName=victim.role)["Role"]["Arn"] == f"arn:aws:iam::{MEMBER}:role/{victim.role}"
    assert client_with(moto, given, "elbv2").describe_target_health(TargetGroupArn=victim.ip_target_group)["TargetHealthDescriptions"]
    balancers = client_with(moto, given, "elb").describe_load_balancers(LoadBalancerNames=[victim.classic_load_balancer])
    assert balancers["LoadBalancerDescriptions"]
    ec2.create_tags(Resources=[victim.instance], Tags=[{"Key": "Case", "Value": "1"}])
    recorded = {(call["Service"], call["Action"]): call["Account"] for call in moto.calls(since, ours=True)}
    assert recorded["ec2", "CreateTags"] == recorded["elb", "DescribeLoadBalancers"] == MEMBER
    assert recorded["sts", "AssumeRole"] == ACCOUNT


def test_a_functions_own_key_belongs_to_the_home_account(bare_stack: LocalStack) -> None:
    answer = bare_stack.client("lambda").invoke(FunctionName=Listener(bare_stack).name, Payload=b"{}")
    key = json.load(answer["Payload"])["AccessKey"]
    assert bare_stack.client("sts", account=key).get_caller_identity()["Account"] == ACCOUNT


# --- Trust policies


@proves("moto.sts.assume_role")
def test_a_role_that_does_not_exist_is_denied_in_the_words_of_aws(moto: LocalStack) -> None:
    role = f"arn:aws:iam::{MEMBER}:role/cordon/nobody"
    status, code, message = refusal(moto, role)
    assert (status, code) == (403, "AccessDenied")
    assert message.startswith(f"User: arn:aws:sts::{ACCOUNT}:")
    assert message.endswith(f" is not authorized to perform: sts:AssumeRole on resource: {role}")


def test_a_role_is_found_by_its_path_and_name(moto: LocalStack) -> None:
    role = new_role(moto, trust())
    assume(moto, role)
    assert refusal(moto, role.replace("/cordon/", "/"))[1] == "AccessDenied"


@proves("moto.sts.assume_role")
@pytest.mark.parametrize(
    ("statement", "external_id", "allowed"),
    [
        (trust(StringEquals={"sts:ExternalId": "cordon-1"}), "cordon-1", True),
        (trust(StringEquals={"sts:ExternalId": "cordon-1"}), "cordon-2", False),
        (trust(StringEquals={"sts:ExternalId": "cordon-1"}), None, False),
        (trust(StringEquals={"sts:externalid": ["cordon-0", "cordon-1"]}), "cordon-1", True),
        (trust(StringLike={"sts:ExternalId": "cordon-*"}), "cordon-1", True),
        (trust(StringLike={"sts:ExternalId": "cordon-*"}), "other-1", False),
        (trust(ArnLike={"sts:ExternalId": "arn:aws:*:stack/cordon"}), "arn:aws:x:stack/cordon", True),
        (trust(StringEquals={"sts:ExternalId": "cordon-1"}, StringLike={"sts:RoleSessionName": "other-*"}), "cordon-1", False),
        (trust(StringEquals={"aws:PrincipalOrgID": "o-1"}), None, True),  # unknown here, so it counts as met
        (trust(ACCOUNT), None, True),
        (trust("*"), None, True),
        (trust([f"arn:aws:iam::{STRANGER}:root", HOME_ROOT]), None, True),
        (trust(f"arn:aws:iam::{STRANGER}:root"), None, False),
        (trust(f"arn:aws:iam::{ACCOUNT}:role/cordon-isolate-network"), None, True),  # any principal of the account may be the caller
        (trust(action="sts:*"), None, True),
        (trust(action="sts:TagSession"), None, False),
    ],
)  # fmt: skip
def test_a_role_is_granted_as_its_trust_policy_says(moto: LocalStack, statement: dict[str, Any], external_id: str | None, allowed: bool) -> None:
    role = new_role(moto, statement)
    asked = {"ExternalId": external_id} if external_id else {}
    assert (assume(moto, role, **asked) if allowed else refusal(moto, role, **asked)[1] == "AccessDenied")


def test_a_deny_in_the_trust_policy_overrides_an_allow(moto: LocalStack) -> None:
    deny = trust("*", effect="Deny", StringLike={"sts:RoleSessionName": "cordon-*"})
    role = new_role(moto, trust(), deny)
    assume(moto, role, RoleSessionName="other")
    assert refusal(moto, role)[1] == "AccessDenied"


def test_session_tags_need_tag_session_in_the_trust_policy(moto: LocalStack) -> None:
    without, with_ = (new_role(moto, trust(action=action)) for action in ("sts:AssumeRole", BOTH))
    assert refusal(moto, without, Tags=TAGS)[2].endswith(f"is not authorized to perform: sts:TagSession on resource: {without}")
    assume(moto, without)
    assume(moto, with_, Tags=TAGS)


def test_session_tags_must_meet_the_conditions_of_the_trust_policy(moto: LocalStack) -> None:
    known = {"ForAllValues:StringEquals": {"aws:TagKeys": ["CordonStep", "CordonInstance"]}, "StringLike": {"aws:RequestTag/CordonInstance": "i-*"}}
    role = new_role(moto, trust(action=BOTH, **known))
    assume(moto, role, Tags=TAGS)
    assert refusal(moto, role, Tags=[*TAGS, {"Key": "Admin", "Value": "yes"}])[1] == "AccessDenied"
    assert refusal(moto, role, Tags=[TAGS[0]])[1] == "AccessDenied"


def test_a_principal_names_a_session_by_its_role_or_its_account_only(moto: LocalStack) -> None:
    first = new_role(moto, trust())
    chained, closed = new_role(moto, trust(first)), new_role(moto, trust(f"arn:aws:iam::{MEMBER}:role/other"))
    sts = client_with(moto, assume(moto, first), "sts")
    assert sts.assume_role(RoleArn=chained, RoleSessionName="chained")["Credentials"]
    with pytest.raises(ClientError, match="AccessDenied"):
        sts.assume_role(RoleArn=closed, RoleSessionName="chained")


@pytest.mark.parametrize("name", ["a b", "arn:aws:ec2", "i-1/isolate"])
def test_an_invalid_session_name_is_refused(moto: LocalStack, name: str) -> None:
    assert refusal(moto, new_role(moto, trust()), RoleSessionName=name)[:2] == (400, "ValidationError")
