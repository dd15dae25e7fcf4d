"""A case's evidence as people have it: downloaded, with the key that its manifest is checked by; and the command line."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

from .stack import OURSELVES, PROJECT, LocalStack, inherited_environment

# cargo-lambda builds every program of the workspace, and calls each of them this.
CORDON = PROJECT / "target" / "lambda" / "cordon" / "bootstrap"


def download(stack: LocalStack, prefix: str, folder: Path) -> Path:
    """As `aws s3 sync` does it: the latest version of everything below the case's prefix."""
    s3, bucket = stack.client("s3"), stack.outputs["EvidenceBucketName"]
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            path = folder / one["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read())
    return folder


def public_key(stack: LocalStack, folder: Path) -> Path:
    """What the pipeline in the output ManifestPublicKey makes of KMS's answer, in which boto3 has decoded the base64."""
    ask, *pipeline = stack.outputs["ManifestPublicKey"].split(" | ")
    assert ask.startswith("aws kms get-public-key ") and f"--key-id {stack.outputs['ManifestKeyArn']} " in ask
    answer = base64.b64encode(stack.client("kms").get_public_key(KeyId=stack.outputs["ManifestKeyArn"])["PublicKey"])
    subprocess.run(["bash", "-o", "pipefail", "-c", " | ".join(pipeline)], input=answer + b"\n", check=True, cwd=folder)
    return folder / f"{stack.outputs['StateMachineArn'].rsplit(':', 1)[1]}-manifest.pem"


def cordon_verify(folder: Path, key: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`cordon verify`, offline: it gets no environment."""
    command = [CORDON, "verify", folder, "--public-key", key, *more]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env={})


def cordon_environment(stack: LocalStack) -> dict[str, str]:
    """What a responder's shell has; the program's calls are told apart from those of the functions."""
    machine = {"CORDON_STATE_MACHINE": stack.outputs["StateMachineArn"].rsplit(":", 1)[1]}
    inherited = {name: value for name, value in inherited_environment().items() if name != "COLUMNS"}  # pytest-xdist sets it
    return {**inherited, **stack.environment(), **machine, "AWS_SDK_UA_APP_ID": OURSELVES}


def cordon(
    stack: LocalStack, *arguments: str, machine: str | None = None, stdin: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line, as it is typed in a shell that sees the stack."""
    environment = dict(environment or cordon_environment(stack))
    if machine:
        environment["CORDON_STATE_MACHINE"] = machine
    return subprocess.run([str(CORDON), *arguments], capture_output=True, text=True, check=False, env=environment, input=stdin)
