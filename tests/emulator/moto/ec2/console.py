"""EC2: the console of an instance."""

from __future__ import annotations

import base64
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response

from emulator.patches import patch

# The first and last bytes of a JPEG.
JPEG = base64.b64encode(bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")).decode()


@patch("AWSEC2/latest/UserGuide/troubleshoot-unreachable-instance.html", "AWSEC2/latest/APIReference/API_GetConsoleOutput.html")
def latest_output() -> None:
    """`GetConsoleOutput` with `Latest` is for instances on the Nitro System only.

    moto has the same output for every instance, and ignores `Latest`.
    """
    upstream = EC2Response.get_console_output

    def get_console_output(self: Any) -> Any:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if self._get_bool_param("Latest") and instance.instance_type.split(".")[0] in ("t1", "t2", "m3", "m4", "c3", "c4"):
            raise EC2ClientError("UnsupportedOperation", "This instance type does not support retrieving the latest console logs.")
        return upstream(self)

    EC2Response.get_console_output = get_console_output


@patch(
    "AWSEC2/latest/APIReference/API_GetConsoleScreenshot.html", "AWSEC2/latest/UserGuide/troubleshoot-unreachable-instance.html",
    upstream=("getmoto/moto:IMPLEMENTATION_COVERAGE.md",),
)  # fmt: skip
def screenshot() -> None:
    """`GetConsoleScreenshot` returns a JPEG of a running instance's screen, but not of a bare-metal instance.

    moto does not have the call.
    """

    def get_console_screenshot(self: Any) -> Any:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if instance.instance_type.endswith(".metal"):
            raise EC2ClientError("UnsupportedOperation", "The operation is not supported for instances of this type.")
        if instance.state != "running":
            raise EC2ClientError("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'running' state.")
        return ActionResult({"InstanceId": instance.id, "ImageData": JPEG})

    EC2Response.get_console_screenshot = get_console_screenshot
