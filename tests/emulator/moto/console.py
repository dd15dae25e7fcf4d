"""The console: moto has the same output for every instance, whatever is asked for, and no screenshots."""

from __future__ import annotations

import base64
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response

# As a JPEG begins and ends; nobody looks at it.
JPEG = base64.b64encode(bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")).decode()


def mend_latest_console_output() -> None:
    """AWS: `Latest` is for instances of the Nitro System only; of others there is the output of the last start or stop.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html
    """
    upstream = EC2Response.get_console_output

    def get_console_output(self: Any) -> Any:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if self._get_bool_param("Latest") and instance.instance_type.split(".")[0] in ("t1", "t2", "m3", "m4", "c3", "c4"):
            raise EC2ClientError("UnsupportedOperation", "This instance type does not support retrieving the latest console logs.")
        return upstream(self)

    EC2Response.get_console_output = get_console_output


def mend_console_screenshot() -> None:
    """AWS: a JPEG of a running instance's screen, but not of a bare-metal type.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshoot-unreachable-instance.html
    """

    def get_console_screenshot(self: Any) -> Any:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if instance.instance_type.endswith(".metal"):
            raise EC2ClientError("UnsupportedOperation", "The operation is not supported for instances of this type.")
        if instance.state != "running":
            raise EC2ClientError("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'running' state.")
        return ActionResult({"InstanceId": instance.id, "ImageData": JPEG})

    EC2Response.get_console_screenshot = get_console_screenshot


MENDS = (mend_latest_console_output, mend_console_screenshot)
