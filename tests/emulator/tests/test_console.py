"""EC2: the console of an instance."""

from __future__ import annotations

import base64

import pytest

from support.refusal import refusal
from support.stack import LocalStack
from support.victim import AMI, Victim, bare_instance

proves = pytest.mark.proves

@proves("moto.ec2.console.screenshot")
def test_only_a_running_virtual_instance_has_a_screenshot(moto: LocalStack) -> None:
    ec2, victim = moto.client("ec2"), bare_instance(moto)
    picture = ec2.get_console_screenshot(InstanceId=victim.instance)
    assert base64.b64decode(picture["ImageData"]).startswith(b"\xff\xd8\xff") and picture["InstanceId"] == victim.instance
    ec2.stop_instances(InstanceIds=[victim.instance])
    assert refusal(ec2.get_console_screenshot, InstanceId=victim.instance)[0] == "IncorrectInstanceState"
    metal = ec2.run_instances(ImageId=AMI, InstanceType="m5.metal", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    assert refusal(ec2.get_console_screenshot, InstanceId=metal)[0] == "UnsupportedOperation"


@proves("moto.ec2.console.latest_output")
def test_the_latest_output_is_for_nitro_instances_only(moto: LocalStack, bare: Victim) -> None:
    ec2 = moto.client("ec2")
    assert ec2.get_console_output(InstanceId=bare.instance, Latest=True)["Output"]
    older = ec2.run_instances(ImageId=AMI, InstanceType="t2.micro", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    assert refusal(ec2.get_console_output, InstanceId=older, Latest=True)[0] == "UnsupportedOperation"
    assert ec2.get_console_output(InstanceId=older)["Output"]
