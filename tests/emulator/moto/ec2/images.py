"""EC2: images of other accounts."""

from __future__ import annotations

from typing import Any

from moto.ec2 import ec2_backends
from moto.ec2.exceptions import InvalidAMIIdError
from moto.ec2.models.amis import AmiBackend

from emulator.patches import patch


@patch("AWSEC2/latest/APIReference/API_DescribeImages.html")
def shared() -> None:
    """`DescribeImages` by id shows an account its own images, those shared with it, and public ones.

    moto shows the caller's own only.
    """
    upstream = AmiBackend.describe_images

    def describe_images(self: Any, ami_ids: Any = (), *args: Any, **kwargs: Any) -> Any:
        shared = [ami for id_ in ami_ids or () if (ami := shared_with(self.account_id, self.region_name, id_)) is not None]
        try:
            return [*upstream(self, ami_ids, *args, **kwargs), *shared]
        except InvalidAMIIdError:
            if not shared:
                raise
            return shared

    AmiBackend.describe_images = describe_images


def shared_with(account: str, region: str, ami_id: str) -> Any:
    for other, backends in list(ec2_backends.items()):
        ami = backends[region].amis.get(ami_id) if other != account else None
        # The first image of the file that moto starts with is in every account.
        if ami and ami_id not in ec2_backends[account][region].amis and (ami.is_public or {"UserId": account} in ami.launch_permissions):
            return ami
    return None
