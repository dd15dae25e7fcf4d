"""ministack's gateway with all of its patches applied.

    PYTHONPATH=tests python -m emulator.ministack.server

Besides ministack's own environment variables:

MINISTACK_CALL_RECORD  file to append one line of JSON per call to
MINISTACK_FAULTS       file of faults to inject, see faults.py
MINISTACK_INVOCATIONS  file of the functions' invocations, see invocations.py
MINISTACK_CODE         folder for the functions' code, which several stacks may share
MINISTACK_DELIVERIES   file of the messages that SNS would have sent out of AWS, see sns.py
SFN_WAIT_SCALE         ministack's own: shortens Wait states and the pauses between retries, but no TimeoutSeconds
"""

from __future__ import annotations

import ministack.app as gateway

from emulator.leash import end_with_starter
from emulator.patches import apply_patches


def main() -> None:
    end_with_starter()
    apply_patches("ministack")
    gateway.main()


if __name__ == "__main__":
    main()
