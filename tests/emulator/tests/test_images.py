"""EC2: images of other accounts."""

from __future__ import annotations

import uuid

import pytest

from support.refusal import refusal
from support.stack import LocalStack
from support.victim import Victim

proves = pytest.mark.proves

OTHER = "999999999999"


@proves("moto.ec2.images.shared")
def test_an_image_is_seen_by_those_it_is_shared_with_or_by_all(moto: LocalStack, bare: Victim) -> None:
    theirs, ours = moto.client("ec2", account=OTHER), moto.client("ec2")
    image = theirs.register_image(Name=f"tools-{uuid.uuid4().hex[:6]}", RootDeviceName="/dev/sda1")["ImageId"]
    assert refusal(ours.describe_images, ImageIds=[image])[0] == "InvalidAMIID.NotFound"
    theirs.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "123456789012"}]})
    (seen,) = ours.describe_images(ImageIds=[image])["Images"]
    assert (seen["OwnerId"], seen["Public"]) == (OTHER, False)
    assert refusal(moto.client("ec2", account="888888888888").describe_images, ImageIds=[image])[0] == "InvalidAMIID.NotFound"
    theirs.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"Group": "all"}]})
    (seen,) = moto.client("ec2", account="888888888888").describe_images(ImageIds=[image])["Images"]
    assert seen["Public"] is True
