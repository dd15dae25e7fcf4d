"""Session Manager: sessions."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.credentials import client_with
from support.stack import LocalStack
from support.victim import bare_instance

proves = pytest.mark.proves

def sessions(stack: LocalStack, instance: str, state: str = "Active", **more: Any) -> list[dict[str, Any]]:
    filters = [{"key": "Target", "value": instance}]
    return stack.client("ssm").describe_sessions(State=state, Filters=filters, **more)["Sessions"]


@proves("moto.ssm.sessions.start")
def test_a_session_is_opened_to_a_running_instance_only(moto: LocalStack) -> None:
    instance, before = bare_instance(moto).instance, datetime.now(timezone.utc)
    opened = moto.client("ssm").start_session(Target=instance, Reason="a look")
    (session,) = sessions(moto, instance)
    assert session["SessionId"] == opened["SessionId"] and opened["TokenValue"] and opened["StreamUrl"].startswith("wss://")
    assert (session["Target"], session["Status"], session["Reason"]) == (instance, "Connected", "a look")
    assert abs((session["StartDate"] - before).total_seconds()) < 5
    with pytest.raises(ClientError, match="TargetNotConnected"):
        moto.client("ssm").start_session(Target="i-0123456789abcdef0")


@proves("moto.ssm.sessions.start")
def test_a_session_shows_who_opened_it(moto: LocalStack) -> None:
    instance = bare_instance(moto).instance
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    role = moto.client("iam").create_role(RoleName=f"admin-{uuid.uuid4().hex[:8]}", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    given = moto.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="alice")["Credentials"]
    client_with(moto, given, "ssm").start_session(Target=instance)
    (session,) = sessions(moto, instance)
    assert session["Owner"].endswith(f":assumed-role/{role['RoleName']}/alice") and session["SessionId"].startswith("alice-")


@proves("moto.ssm.sessions.describe")
def test_sessions_are_listed_by_all_filters_in_pages(moto: LocalStack) -> None:
    ssm, (one, other) = moto.client("ssm"), (bare_instance(moto).instance, bare_instance(moto).instance)
    opened = [ssm.start_session(Target=one)["SessionId"] for _ in range(3)]
    ssm.start_session(Target=other)
    assert {session["SessionId"] for session in sessions(moto, one)} == set(opened)
    pages = ssm.get_paginator("describe_sessions").paginate(
        State="Active", Filters=[{"key": "Target", "value": one}], PaginationConfig={"PageSize": 2}
    )
    assert [len(page["Sessions"]) for page in pages] == [2, 1]
    assert sessions(moto, one, "History") == []
    of_one = [{"key": "Target", "value": one}, {"key": "SessionId", "value": opened[1]}]
    assert [session["SessionId"] for session in ssm.describe_sessions(State="Active", Filters=of_one)["Sessions"]] == [opened[1]]


@proves("moto.ssm.sessions.terminate")
def test_a_terminated_session_is_history(moto: LocalStack) -> None:
    ssm, instance = moto.client("ssm"), bare_instance(moto).instance
    opened = ssm.start_session(Target=instance)["SessionId"]
    assert ssm.terminate_session(SessionId=opened)["SessionId"] == opened
    assert sessions(moto, instance) == []
    (ended,) = sessions(moto, instance, "History")
    assert (ended["SessionId"], ended["Status"]) == (opened, "Terminated") and ended["EndDate"] >= ended["StartDate"]
    assert ssm.terminate_session(SessionId=opened)["SessionId"] == opened, "ending it again is no error"


def test_a_session_takes_a_moment_to_end(slow_moto: LocalStack, slow_seconds: float) -> None:
    ssm, instance = slow_moto.client("ssm"), bare_instance(slow_moto).instance
    ssm.terminate_session(SessionId=ssm.start_session(Target=instance)["SessionId"])
    assert [session["Status"] for session in sessions(slow_moto, instance)] == ["Terminating"]
    time.sleep(slow_seconds)
    assert sessions(slow_moto, instance) == []
