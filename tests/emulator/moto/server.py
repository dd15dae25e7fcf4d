"""moto's server behind a door that records each call and injects faults, with all of its patches applied.

    PYTHONPATH=tests python -m emulator.moto.server -H 127.0.0.1 -p 5000

MOTO_CALL_RECORD               file to append one line of JSON per call to
MOTO_FAULTS                    file of faults to inject, see faults.py
MOTO_INVOCATIONS               file of the functions' invocations, see invocations.py
MOTO_CLOUDTRAIL_EVENTS         file of events that LookupEvents answers from, see cloudtrail.py
MOTO_SSM_HOSTS                 file of the hosts that Systems Manager manages, see ssm/commands.py
MOTO_SNAPSHOT_PENDING_SECONDS  how long a snapshot stays `pending` (0)
MOTO_DETACH_SECONDS            how long an instance stays `Detaching` (0)
MOTO_DRAIN_SECONDS             how long a deregistered target stays `draining` (0)
MOTO_SESSION_ENDS_SECONDS      how long a session stays `Terminating` (0)
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from moto import backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from emulator.call_record import CallRecord
from emulator.faults import FaultFile
from emulator.invocations import Invocations
from emulator.leash import end_with_starter
from emulator.moto.door import Door
from emulator.patches import apply_patches


class KeepingConnections(MotoRequestHandler):
    """AWS leaves a connection open for the next request."""

    protocol_version = "HTTP/1.1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-H", "--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", type=int, default=5000)
    arguments = parser.parse_args()
    end_with_starter()
    apply_patches("moto")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    record, faults = CallRecord(os.environ.get("MOTO_CALL_RECORD")), FaultFile(os.environ.get("MOTO_FAULTS"))
    # moto would look into its own folder for them at every call.
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    door = Door(DomainDispatcherApplication(create_backend_app), record, faults, Invocations(os.environ.get("MOTO_INVOCATIONS")))
    run_simple(arguments.host, arguments.port, door, threaded=True, request_handler=KeepingConnections)


if __name__ == "__main__":
    main()
