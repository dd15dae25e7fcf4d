"""What ships has no test features of the SDKs."""

from __future__ import annotations

from support.template import run


def test_no_sdk_is_built_with_test_features_for_the_functions() -> None:
    """crates/workspace-features gives them to tests; Cargo would put them into every function that is built beside it."""
    tree = run("cargo", "tree", "--locked", "--workspace", "--edges", "normal,build", "--format", "{p} {f}", "--prefix", "none")
    shipped = {line.removesuffix(" (*)") for line in tree.splitlines() if line.startswith("aws-sdk-")}
    assert len(shipped) > 10 and not [line for line in shipped if "test-util" in line]
