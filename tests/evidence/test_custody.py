"""The chain of custody: a case that was sealed on the local stack, downloaded, and checked by the program that people use."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import jsonschema
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from support.cases import cordon_verify, download, public_key
from support.stack import ACCOUNT, PROJECT, Execution, LocalStack, last_output_of
from support.victim import Victim, build_victims

FIXED = {"manifest.json", "manifest.json.sig", "report.html"}


@dataclass(frozen=True)
class Case:
    """A contained instance's case; `seal` is what the workflow does at its end."""

    stack: LocalStack
    victim: Victim
    execution: Execution
    event: dict[str, Any]

    @property
    def bucket(self) -> str:
        return self.stack.outputs["EvidenceBucketName"]

    @property
    def prefix(self) -> str:
        return f"cases/{ACCOUNT}/{self.stack.region}/{self.event['Report']['CaseId']}/"

    def seal(self, **target: Any) -> dict[str, Any]:
        machine = self.stack.outputs["StateMachineArn"].rsplit(":", 1)[1]
        event = {**self.event, "Described": {**self.event["Described"], "Target": {**self.event["Described"]["Target"], **target}}}
        answer = self.stack.client("lambda").invoke(FunctionName=f"{machine}-seal-evidence", Payload=json.dumps(event))
        said = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, said
        return said

    def download(self, folder: Path) -> Path:
        """As `aws s3 sync` does it: the latest version of everything below the prefix."""
        return download(self.stack, self.prefix, folder)

    def key(self, name: str) -> str:
        """The key of the case's only piece of evidence that begins with this name."""
        found = self.stack.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}{name}-")["Contents"]
        (one,) = found
        return one["Key"]


def contained(stack: LocalStack) -> Case:
    (victim,) = build_victims(stack)
    execution = stack.run({"InstanceIds": [victim.instance], "Region": stack.region})
    assert execution.status == "SUCCEEDED", execution.cause
    report = last_output_of("Verify containment", execution.history)
    entered = [event["stateEnteredEventDetails"] for event in execution.history if "stateEnteredEventDetails" in event]
    (target,) = [json.loads(one["input"]) for one in entered if one["name"] == "Describe instance"]
    return Case(stack, victim, execution, {"Described": {"Target": target, "Evidence": described(stack, report, execution)}, "Report": report})


def described(stack: LocalStack, report: dict[str, Any], execution: Execution) -> dict[str, Any]:
    """The ledger's entry that `describe-instance` answers: the history has no variables, so it is made of the object."""
    (pointer,) = [pointer for pointer in report["Evidence"] if "/describe-instance-" in pointer["Key"]]
    body = stack.client("s3").get_object(Bucket=pointer["Bucket"], Key=pointer["Key"])["Body"].read()
    return {
        **pointer, "Sha256": hashlib.sha256(body).hexdigest(), "Size": len(body), "RequestId": "of-the-put", "Resource": report["InstanceId"],
        "Function": "cordon-drill-describe-instance", "Execution": execution.arn,
    }  # fmt: skip


@pytest.fixture(scope="module")
def case(stack: LocalStack) -> Case:
    return contained(stack)


@dataclass(frozen=True)
class Downloaded:
    answer: dict[str, Any]
    folder: Path
    public_key: Path

    def path(self, name: str) -> Path:
        (found,) = self.folder.glob(f"{name}*.json")
        return found

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_bytes())


@pytest.fixture(scope="module")
def sealed(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Downloaded:
    answer = case.seal()
    folder = tmp_path_factory.mktemp("sealed")
    return Downloaded(answer, case.download(folder / "case"), public_key(case.stack, folder))


@pytest.fixture
def copy(sealed: Downloaded, tmp_path: Path) -> Iterator[Downloaded]:
    """The downloaded case, to be tampered with."""
    yield Downloaded(sealed.answer, Path(shutil.copytree(sealed.folder, tmp_path / "case")), sealed.public_key)


def cordon(case: Downloaded, *more: str) -> subprocess.CompletedProcess[str]:
    return cordon_verify(case.folder, case.public_key, *more)


def verified(case: Downloaded) -> tuple[int, dict[str, Any]]:
    """The program's exit code and its answer for programs."""
    ended = cordon(case, "--output", "json")
    return ended.returncode, json.loads(ended.stdout)


def found(case: Downloaded) -> dict[str, str]:
    return {item["Name"]: item["Found"] for item in verified(case)[1]["Items"]}


def step(report: dict[str, Any]) -> dict[str, Any]:
    assert report["Steps"][-1]["Step"] == "seal-evidence"
    return report["Steps"][-1]


def schema() -> dict[str, Any]:
    return json.loads((PROJECT / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))


# --- A case as it should be ----------------------------------------------------------------------------------------


def test_a_contained_case_is_sealed_and_everything_in_it_is_intact(case: Case, sealed: Downloaded) -> None:
    assert step(sealed.answer)["Status"] == "Done", step(sealed.answer)
    assert sealed.answer["Verdict"] == "Contained" and sealed.answer["Open"] == []
    assert [pointer["Key"].removeprefix(case.prefix) for pointer in sealed.answer["Evidence"][-3:]] == ["report.html", "manifest.json", "manifest.json.sig"]
    ended = cordon(sealed)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("INTACT: the signature is valid")
    here = {path.name for path in sealed.folder.iterdir()}
    assert {item["Name"] for item in sealed.manifest["Evidence"]} == here - {"manifest.json", "manifest.json.sig"}
    assert {name.rsplit("-", 1)[0] for name in here - FIXED} == {
        "describe-instance", "describe-network", "collect-facts", "console-output", "console-screenshot", "verify-containment",
    }  # fmt: skip


def test_the_manifest_is_as_its_schema_says(sealed: Downloaded) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(sealed.manifest, schema(), cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sealed.manifest, "Verdict": "Fine"}, schema())


def test_every_piece_says_what_it_is_where_from_by_whom_and_by_which_calls(case: Case, sealed: Downloaded) -> None:
    s3 = case.stack.client("s3")
    for item in sealed.manifest["Evidence"]:
        body = s3.get_object(Bucket=case.bucket, Key=case.prefix + item["Name"], VersionId=item["VersionId"])["Body"].read()
        assert (item["State"], item["Size"], item["Sha256"]) == ("Intact", len(body), hashlib.sha256(body).hexdigest())
        assert item["Execution"] == case.execution.arn and item["Resource"] == case.victim.instance and item["RequestId"]
        assert item["Function"].startswith("cordon-drill-") and item["StoredAt"].endswith("Z")
    calls = {item["Name"].rsplit("-", 1)[0]: item.get("Calls", []) for item in sealed.manifest["Evidence"]}
    made = {call["Action"] for call in case.stack.calls() if (call["Caller"] or "").endswith("describe-instance")}
    recorded = {call.rsplit(" ", 1)[0].split(":")[1] for call in calls["describe-instance"]}
    assert {"DescribeInstances", "DescribeVolumes"} <= recorded <= made
    assert calls["describe-network"] and not calls["verify-containment"]
    callers = [item["Caller"] for item in sealed.manifest["Evidence"] if "Caller" in item]
    assert callers and all(arn.startswith("arn:aws:") for arn in callers)


def test_every_change_is_in_the_manifest_with_before_and_after(case: Case, sealed: Downloaded) -> None:
    steps = {one["Step"]: one for one in sealed.manifest["Steps"]}
    reported = {one["Step"]: one for one in case.execution.instance(case.victim.instance)["Steps"]}
    assert set(reported) <= set(steps) and list(steps)[-1] == "seal-evidence"
    for name, one in reported.items():
        assert steps[name]["Changes"] == one["Changes"], name
    groups = {change["Resource"] for change in steps["isolate-network"]["Changes"] if change["Attribute"] == "Groups"}
    assert groups == set(case.victim.interfaces) and steps["isolate-network"]["Began"] < steps["isolate-network"]["Ended"]


def test_every_snapshot_is_listed_with_its_lineage_state_and_key(case: Case, sealed: Downloaded) -> None:
    shown = {one["SnapshotId"]: one for one in sealed.manifest["Snapshots"]}
    filters = [{"Name": "tag:CordonCase", "Values": [case.event["Report"]["CaseId"]]}]
    in_aws = {one["SnapshotId"]: one for one in case.stack.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]}
    assert set(shown) == set(in_aws) and {one["State"] for one in shown.values()} == {"completed"}
    copies = [one for one in shown.values() if "SourceSnapshotId" in one]
    assert [one["KmsKeyId"] for one in copies] == [case.stack.outputs["KeyArn"]]
    for one in copies:
        source = shown[one["SourceSnapshotId"]]
        assert (one["VolumeId"], one["DeviceName"]) == (source["VolumeId"], source["DeviceName"])
    assert {one["VolumeId"] for one in shown.values()} == set(case.victim.volumes.values())
    assert all(one["SnapshotId"] in cordon(sealed).stdout for one in shown.values())


def test_other_programs_find_the_signature_valid_and_of_this_file_only(sealed: Downloaded) -> None:
    key = load_pem_public_key(sealed.public_key.read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    manifest, signature = (sealed.folder / "manifest.json").read_bytes(), (sealed.folder / "manifest.json.sig").read_bytes()
    key.verify(signature, manifest, ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(signature, manifest + b" ", ec.ECDSA(SHA256()))
    openssl = ["openssl", "dgst", "-sha256", "-verify", str(sealed.public_key), "-signature", "manifest.json.sig", "manifest.json"]
    assert "Verified OK" in subprocess.run(openssl, cwd=sealed.folder, capture_output=True, text=True, check=True).stdout


def test_a_dry_run_needs_no_seal_and_writes_nothing(case: Case) -> None:
    s3 = case.stack.client("s3")
    before = s3.list_object_versions(Bucket=case.bucket, Prefix=case.prefix)["Versions"]
    assert case.seal(DryRun=True) == case.event["Report"]
    assert s3.list_object_versions(Bucket=case.bucket, Prefix=case.prefix)["Versions"] == before


# --- A case that somebody has changed after it was sealed ------------------------------------------------------------


def test_one_flipped_bit_is_found_and_nothing_else_is_called_altered(copy: Downloaded) -> None:
    path = copy.path("describe-instance")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    assert {name for name, state in found(copy).items() if state != "Intact"} == {path.name}
    ended = cordon(copy)
    assert ended.returncode == 1 and ended.stdout.splitlines()[-1].startswith("NOT INTACT: 1 altered;")


def test_a_removed_file_is_missing_and_an_added_one_is_named(copy: Downloaded) -> None:
    path = copy.path("describe-network")
    path.rename(copy.folder / "renamed.json")
    code, said = verified(copy)
    assert code == 1 and {item["Name"] for item in said["Items"] if item["Found"] == "Missing"} == {path.name}
    assert said["Unlisted"] == ["renamed.json"]


def test_an_edited_manifest_is_found_by_its_signature(copy: Downloaded) -> None:
    path = copy.path("describe-instance")
    path.write_bytes(b"{}")
    manifest = copy.manifest
    (item,) = [item for item in manifest["Evidence"] if item["Name"] == path.name]
    item |= {"Size": 2, "Sha256": hashlib.sha256(b"{}").hexdigest()}
    (copy.folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    code, said = verified(copy)
    assert (code, said["Signature"], said["Intact"]) == (1, "Invalid", False)
    assert "INVALID: nothing below proves anything" in cordon(copy).stdout


def test_a_signature_by_another_key_is_no_signature(copy: Downloaded, tmp_path: Path) -> None:
    forger = ec.generate_private_key(ec.SECP256R1())
    (copy.folder / "manifest.json.sig").write_bytes(forger.sign((copy.folder / "manifest.json").read_bytes(), ec.ECDSA(SHA256())))
    assert verified(copy)[1]["Signature"] == "Invalid" and cordon(copy).returncode == 1
    # What the forger's own key says of it shows that nothing else is wrong with the forgery.
    theirs = tmp_path / "theirs.pem"
    theirs.write_bytes(forger.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert verified(Downloaded(copy.answer, copy.folder, theirs))[1]["Signature"] == "Valid"


def test_a_missing_signature_is_said(copy: Downloaded) -> None:
    (copy.folder / "manifest.json.sig").unlink()
    code, said = verified(copy)
    assert (code, said["Signature"]) == (1, "Missing")


# --- A case that somebody has changed in the bucket -------------------------------------------------------------------


@pytest.fixture
def other(stack: LocalStack) -> Case:
    """A case that nobody has sealed yet, or only the workflow."""
    return contained(stack)


def downloaded(case: Case, tmp_path: Path, answer: dict[str, Any]) -> Downloaded:
    return Downloaded(answer, case.download(tmp_path / "case"), public_key(case.stack, tmp_path))


def test_evidence_that_was_deleted_before_the_sealing_is_missing_in_a_signed_manifest(other: Case, tmp_path: Path) -> None:
    s3, key = other.stack.client("s3"), other.key("describe-network")
    version = s3.head_object(Bucket=other.bucket, Key=key)["VersionId"]
    s3.delete_object(Bucket=other.bucket, Key=key, VersionId=version, BypassGovernanceRetention=True)
    answer = other.seal()
    name = key.removeprefix(other.prefix)
    assert step(answer)["Status"] == "Failed" and f"{name} is missing" in step(answer)["Reason"]
    assert answer["Verdict"] == "PartiallyContained" and answer["Open"][-1].startswith("seal-evidence Failed: ")
    case = downloaded(other, tmp_path, answer)
    jsonschema.validate(case.manifest, schema(), cls=jsonschema.Draft202012Validator)
    assert {item["Name"]: item["State"] for item in case.manifest["Evidence"]}[name] == "Missing"
    assert case.manifest["Verdict"] == "PartiallyContained" and case.manifest["Open"]
    code, said = verified(case)
    assert (code, said["Signature"]) == (1, "Valid")
    assert [item["Reason"] for item in said["Items"] if item["Found"] == "Missing"] == ["it was already missing when the case was sealed"]


def test_a_version_that_was_put_over_the_evidence_is_found_in_the_download_and_in_the_next_sealing(other: Case, tmp_path: Path) -> None:
    first = other.seal()
    s3, key = other.stack.client("s3"), other.key("describe-network")
    s3.put_object(Bucket=other.bucket, Key=key, Body=b'{"Replies":[]}', ChecksumAlgorithm="SHA256")
    name = key.removeprefix(other.prefix)
    case = downloaded(other, tmp_path / "first", first)
    assert found(case)[name] == "Altered" and cordon(case).returncode == 1

    second = other.seal()
    assert step(second)["Status"] == "Done" and "not in the ledger" in step(second)["Reason"], "the ledger's version is still there"
    case = downloaded(other, tmp_path / "second", second)
    jsonschema.validate(case.manifest, schema(), cls=jsonschema.Draft202012Validator)
    versions = [item for item in case.manifest["Evidence"] if item["Name"] == name]
    assert sorted(item["State"] for item in versions) == ["Intact", "Unlisted"]
    # Both can be had by their versions, and then everything is accounted for.
    assert cordon(case).returncode == 1
    (genuine,) = [item for item in versions if item["State"] == "Intact"]
    body = s3.get_object(Bucket=other.bucket, Key=key, VersionId=genuine["VersionId"])["Body"].read()
    (case.folder / f"{name}.{genuine['VersionId']}").write_bytes(body)
    ended = cordon(case)
    assert ended.returncode == 0, ended.stdout


def test_a_case_that_is_sealed_again_names_the_manifest_before(other: Case, tmp_path: Path) -> None:
    other.seal()
    first = other.stack.client("s3").get_object(Bucket=other.bucket, Key=f"{other.prefix}manifest.json")
    answer = other.seal()
    case = downloaded(other, tmp_path, answer)
    assert case.manifest["Previous"] == {"VersionId": first["VersionId"], "Sha256": hashlib.sha256(first["Body"].read()).hexdigest()}
    names = [item["Name"] for item in case.manifest["Evidence"]]
    assert names.count("report.html") == 1 and not {"manifest.json", "manifest.json.sig"} & set(names)
    assert cordon(case).returncode == 0


def test_a_key_that_does_not_sign_is_said_and_the_report_goes_on(case: Case, sealed: Downloaded) -> None:
    assert step(sealed.answer)["Status"] == "Done"
    case.stack.inject({"Service": "kms", "Action": "Sign", "Code": "AccessDeniedException", "Status": 400})
    try:
        answer = case.seal()
    finally:
        case.stack.inject()
    assert step(answer)["Status"] == "Failed" and "kms:Sign" in step(answer)["Reason"]
    assert answer["Verdict"] == "PartiallyContained"
