"""CloudTrail: the event history."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Iterator

import pytest

from support.refusal import refusal
from support.stack import LocalStack
from support.trail import put_event

proves = pytest.mark.proves

@pytest.fixture
def account(moto: LocalStack) -> Iterator[str]:
    """Each test has an account of its own, as two requests a second is an account's limit."""
    yield str(uuid.uuid4().int)[:12]


def by(key: str, value: str) -> dict[str, Any]:
    return {"LookupAttributes": [{"AttributeKey": key, "AttributeValue": value}]}


@proves("moto.cloudtrail.lookup_events")
def test_events_are_found_in_their_account_and_region_newest_first(moto: LocalStack, account: str) -> None:
    for name, ago in (("RunInstances", 300), ("StopInstances", 100), ("StartInstances", 200)):
        put_event(moto, name, ago=ago, about=["i-1"], account=account)
    put_event(moto, "RunInstances", about=["i-1"], account=account, region="us-east-1")
    put_event(moto, "RunInstances", about=["i-2"], account=account)
    trail = moto.client("cloudtrail", account=account)
    found = trail.lookup_events(**by("ResourceName", "i-1"))["Events"]
    assert [event["EventName"] for event in found] == ["StopInstances", "StartInstances", "RunInstances"]
    assert json.loads(found[0]["CloudTrailEvent"])["userIdentity"]["arn"] == f"arn:aws:iam::{account}:user/eve"
    assert [event["Resources"][0]["ResourceName"] for event in trail.lookup_events(**by("EventName", "RunInstances"))["Events"]] == ["i-2", "i-1"]


def test_a_roles_session_is_found_by_its_name_as_username(moto: LocalStack, account: str) -> None:
    put_event(moto, "ListBuckets", by="web", session="i-1", account=account)
    put_event(moto, "ListBuckets", account=account)
    found = moto.client("cloudtrail", account=account).lookup_events(**by("Username", "i-1"))["Events"]
    assert [event["Username"] for event in found] == ["i-1"]


def test_only_the_given_span_of_the_last_90_days_is_returned(moto: LocalStack, account: str) -> None:
    for ago in (10, 7_200, 91 * 86_400):
        put_event(moto, "StopInstances", ago=ago, account=account)
    trail = moto.client("cloudtrail", account=account)
    assert len(trail.lookup_events(StartTime=time.time() - 3_600, EndTime=time.time())["Events"]) == 1
    assert len(trail.lookup_events(StartTime=0, EndTime=time.time())["Events"]) == 2


def test_a_page_has_fifty_events_and_its_token_fits_no_other_request(moto: LocalStack, account: str) -> None:
    for number in range(1, 61):
        put_event(moto, "DescribeInstances", ago=number, account=account, about=["i-1"])
    trail = moto.client("cloudtrail", account=account)
    asked = {**by("ResourceName", "i-1"), "StartTime": time.time() - 600, "EndTime": time.time()}
    first = trail.lookup_events(**asked)
    second = trail.lookup_events(**asked, NextToken=first["NextToken"])
    assert (len(first["Events"]), len(second["Events"]), "NextToken" in second) == (50, 10, False)
    time.sleep(1)
    other = {**asked, **by("ResourceName", "i-2")}
    assert refusal(trail.lookup_events, **other, NextToken=first["NextToken"])[0] == "InvalidNextTokenException"


def test_a_third_request_within_a_second_is_throttled_in_this_region_only(moto: LocalStack, account: str) -> None:
    trail = moto.client("cloudtrail", account=account)
    trail.lookup_events()
    trail.lookup_events()
    assert refusal(trail.lookup_events)[0] == "ThrottlingException"
    moto.client("cloudtrail", account=account, region="us-east-1").lookup_events()
    time.sleep(1)
    trail.lookup_events()


def test_two_attributes_or_a_reversed_span_are_refused(moto: LocalStack, account: str) -> None:
    trail = moto.client("cloudtrail", account=account)
    assert refusal(trail.lookup_events, StartTime=time.time(), EndTime=time.time() - 60)[0] == "InvalidTimeRangeException"
    two = [{"AttributeKey": "EventName", "AttributeValue": "a"}, {"AttributeKey": "Username", "AttributeValue": "b"}]
    assert refusal(trail.lookup_events, LookupAttributes=two)[0] == "InvalidLookupAttributesException"
