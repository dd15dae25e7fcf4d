"""What a function's role in template.yaml allows, and what the calls in its source need."""

from __future__ import annotations

import functools
import re

from .template import CRATES, FUNCTIONS, functions
# What AWS asks for beside, or instead of, the action that has the call's name.
UNNAMED = {
    "isolate-network": {"ec2:CreateTags"},  # CreateSecurityGroup with tags
    "prepare-fleet": {"kms:GenerateDataKey", "ec2:CreateTags"},  # CreateSecurityGroup with tags
    "report": {"kms:GenerateDataKey", "kms:Decrypt"},
    "encrypt-snapshots": {"ec2:CreateTags", "kms:*"},  # CopySnapshot with tags, under a key
    "describe-instance": {"kms:GenerateDataKey"},  # S3 encrypts with the stack's key
    "describe-network": {"kms:GenerateDataKey"},
    "hash-snapshots": {"kms:GenerateDataKey", "kms:Decrypt"},  # and EBS with the snapshot's key
    "collect-facts": {"kms:GenerateDataKey"},
    "detach-profile": {"iam:PassRole"},  # AssociateIamInstanceProfile hands the instance the profile's role
    "create-flow-logs": {"ec2:CreateTags", "logs:CreateLogDelivery", "logs:DeleteLogDelivery"},  # CreateFlowLogs with tags, to S3
    "capture-volatile": {"kms:GenerateDataKey", "kms:Decrypt"},
    "verify-containment": {"kms:GenerateDataKey"},
    "verify-release": {"kms:GenerateDataKey"},
    "seal-evidence": {"kms:GenerateDataKey", "kms:Decrypt"},
    "notify": {"kms:GenerateDataKey", "kms:Decrypt"},  # and so does SNS
    "watch-drift": {"kms:GenerateDataKey", "kms:Decrypt", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"},
}
# What the calls of the case table's own functions need.
TABLE = {
    "dynamodb:GetItem": r"\b(journal|cases)\.read\(|\bledger\(|\binspect(_release)?\(|\bcases\.(case|last_case|guardrail|monitored|has_drift)\(",
    "dynamodb:PutItem": r"\bcases\.(open|add_drift)\(|\.note_resources\(",
    "dynamodb:Query": r"\bcases\.instances_of\(",
    "dynamodb:UpdateItem": r"\bjournal\.keep\(|\bevidence::enter\(|\.(take_over|add_findings|note_verdict|note_verified|count_automatic|count_drift|close)\(",
}
# What AWS knows no resource for, beside its Describe calls.
WITHOUT_RESOURCE = {
    "cloudtrail:LookupEvents", "logs:CreateLogDelivery", "logs:DeleteLogDelivery",
    "ssm:ListCommands", "ssm:GetCommandInvocation", "ssm:CancelCommand",
}  # fmt: skip
# What goes into another account has to get there.
MEMBER = {"sts:AssumeRole", "sts:TagSession"}
# Functions that call other crates of the workspace: what those read, they need as well.
READS_OF = {
    "describe-instance": ["detach-autoscaling", "isolate-network"],
    "verify-containment": [
        "detach-autoscaling", "isolate-network", "deregister-targets", "protect-instance", "preserve-volumes", "tag-resources",
        "create-snapshots", "encrypt-snapshots", "share-snapshots", "copy-snapshots", "lock-snapshots", "delete-originals",
        "create-flow-logs", "terminate-sessions", "revoke-credentials", "detach-profile",
    ],
    "verify-release": [
        "detach-autoscaling", "isolate-network", "deregister-targets", "protect-instance", "preserve-volumes", "tag-resources",
        "create-flow-logs", "revoke-credentials", "detach-profile",
    ],
}  # fmt: skip
# What those crates read only while they write.
NOT_READ = {
    "describe-instance": {"ec2:DescribeSecurityGroupRules"},
    "verify-containment": {"ec2:DescribeSecurityGroupRules", "autoscaling:DescribeAutoScalingGroups"},
    # What the way into containment reads, and the way back does not.
    "verify-release": {
        "ec2:DescribeSecurityGroupRules", "ec2:DescribeRouteTables", "ec2:DescribeVpcEndpoints", "ec2:DescribeSnapshots", "iam:GetInstanceProfile",
    },
}  # fmt: skip
# What is called with the role of forensic-account.yaml alone; static/test_forensic_role.py compares it with that.
FORENSIC = {
    "copy-snapshots": {"ec2:CopySnapshot"},
    "lock-snapshots": {"ec2:DescribeSnapshots", "ec2:DescribeLockedSnapshots", "ec2:LockSnapshot"},
    "verify-containment": {"ec2:DescribeLockedSnapshots"},
    "seal-evidence": {"ec2:DescribeLockedSnapshots"},
}


def source(crate: str) -> str:
    """A crate's text, tests left out."""
    folder = next(home / crate for home in (FUNCTIONS, CRATES) if (home / crate).is_dir())
    paths = sorted(path for path in (folder / "src").glob("*.rs") if path.name not in ("tests.rs", "call_tests.rs", "recorded.rs", "properties.rs"))
    return "".join(re.split(r"#\[cfg\(test\)\]\nmod \w+ \{", path.read_text(encoding="utf-8"))[0] for path in paths)


# Crates whose functions make calls in the name of whoever calls them.
SHARED = ("instance", "network", "notifications", "registrations", "request", "snapshots")


@functools.cache
def functions_of(crate: str) -> dict[str, str]:
    """A shared crate's functions by name, each with its text."""
    parts = re.split(r"\bfn (\w+)", source(crate))
    texts: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        texts[name] = texts.get(name, "") + text
    return texts


def called_in(text: str, within: str | None = None) -> set[tuple[str, str]]:
    """The functions of shared crates that a text calls: by their crate's name, by an import, as a method of an imported type, or
    within their own crate."""
    called = set()
    for crate in SHARED:
        imports = " ".join(re.findall(rf"\buse (?:::)?{crate}::([^;]*);", text))
        has_types = re.search(r"\b[A-Z]", imports) is not None
        for name in functions_of(crate):
            is_near = crate == within or re.search(rf"\b{name}\b", imports)
            if re.search(rf"\b{crate}::{name}\(" + (rf"|\b{name}\(" if is_near else rf"|\.{name}\(" if has_types else ""), text):
                called.add((crate, name))
    return called


def actions_named_in(crate: str) -> set[str]:
    """The IAM actions that a crate's calls are named by in its errors, and those of the shared functions that it calls."""
    text = source(crate)
    reached: set[tuple[str, str]] = set()
    open_ends = called_in(text)
    while open_ends:
        reached |= open_ends
        open_ends = {one for home, name in open_ends for one in called_in(functions_of(home)[name], home)} - reached
    text += "".join(functions_of(home)[name] for home, name in sorted(reached))
    return set(re.findall(r'Error::aws\(\s*"(\w+:\w+)"', text))


def needed(name: str) -> set[str]:
    actions = actions_named_in(name)
    for other in READS_OF.get(name, []):
        reads = {action for action in actions_named_in(other) if action.split(":")[1].startswith(("Describe", "Get", "List"))}
        actions |= reads - NOT_READ.get(name, set())
    manifest = (FUNCTIONS / name / "Cargo.toml").read_text(encoding="utf-8")
    if "evidence.workspace" in manifest:
        actions |= actions_named_in("evidence")
    actions -= FORENSIC.get(name, set())
    if acts_on_a_target(name) or name in FORENSIC:
        actions |= MEMBER
    if re.search(r"\b(serve(_forensic|_reversible)?_step|run_reversible|run_release)\(", source(name)):
        monitoring = {"dynamodb:PutItem"} if ".monitor_from_now(" in source(name) else set()
        return actions | {"dynamodb:GetItem", "dynamodb:UpdateItem"} | monitoring
    return actions | {action for action, calls in TABLE.items() if "case_table()" in source(name) and re.search(calls, source(name))}


def acts_on_a_target(name: str) -> bool:
    """Whether a function acts in the target's account: only such a one asks for the target's configuration."""
    return re.search(r"\bserve(_reversible)?_step\(|\baws\.of\(", source(name)) is not None


def allowed(name: str) -> set[str]:
    statements = [s for policy in functions()[name]["Properties"].get("Policies", []) for s in policy["Statement"] if s["Effect"] == "Allow"]
    return {action for s in statements for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
