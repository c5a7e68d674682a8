"""No secret in what we make for a cluster, and what checkov says of it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.definitions.compiling import BUILDERS, compile_pipeline
from pipelines.definitions.profiles import load_profile

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text()
SETTINGS = ROOT / "charts" / "checkov.yaml"
CASES = {"defaults": {}} | {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((Path(__file__).parent / "values").glob("*.yaml"))
}
VALUES = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "B1K_API_KEY": "key-of-the-policy-server",
}
FORMS = {
    "an AWS key": r"\bA(?:KI|SI)A[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a token": r"\b(?:ghp|gho|hf|glpat|sk)[_-][0-9A-Za-z]{16,}",
    "a JSON web token": r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ",
    "a registry login": r'"auths"\s*:',
    "a password in an address": r"://[^/\s:@]+:[^/\s@]+@",
}
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD", re.IGNORECASE)


def leaks(text: str) -> list[str]:
    """What of a text looks like a secret, or is one of this machine's environment."""
    found = [name for name, form in FORMS.items() if re.search(form, text)]
    for name, value in VALUES.items():
        encoded = base64.b64encode(value.encode()).decode()
        found += [name for one in (value, encoded) if one in text]
    return found


def variables(node: object) -> list[dict]:
    """All environment variables with their values in a document."""
    if isinstance(node, list):
        return [one for item in node for one in variables(item)]
    if not isinstance(node, dict):
        return []
    env = node.get("env")
    here = [one for one in env if isinstance(one, dict)] if isinstance(env, list) else []
    return here + [one for item in node.values() for one in variables(item)]


@pytest.fixture
def secrets_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)


def test_the_search_finds_what_it_looks_for() -> None:
    assert leaks(VALUES["WANDB_API_KEY"]) == ["WANDB_API_KEY"]
    assert leaks(base64.b64encode(VALUES["AWS_SECRET_ACCESS_KEY"].encode()).decode()) == [
        "AWS_SECRET_ACCESS_KEY"
    ]
    assert leaks("remote: https://user:word@example.org/x") == ["a password in an address"]
    assert variables({"a": [{"env": [{"name": "X_KEY", "value": "1"}]}]}) == [{"name": "X_KEY", "value": "1"}]


@pytest.mark.usefixtures("secrets_around")
@pytest.mark.parametrize(
    ("pipeline", "profile"),
    [
        (pipeline, profile)
        for pipeline in BUILDERS
        for profile in ("h200x8", "one_gpu", "cluster_small")
        if load_profile(profile).runs(pipeline)
    ],
)
def test_no_secret_in_a_compiled_pipeline(pipeline: str, profile: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    compile_pipeline(pipeline, profile, path)
    text = path.read_text()
    assert leaks(text) == []
    documents = list(yaml.safe_load_all(text))
    values = [one for document in documents for one in variables(document)]
    assert values, "the profiles set some variables"
    assert [one["name"] for one in values if SECRET_NAME.search(one["name"]) and one.get("value")] == []
    if pipeline != "evaluate":  # which neither fetches data nor trains
        assert "secretAsEnv" in text, "keys come by reference"


@pytest.mark.usefixtures("secrets_around")
@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_no_secret_in_the_rendered_chart(helm, values: dict) -> None:
    for command in ("template", "install"):
        dry = ["--dry-run=client"] if command == "install" else []
        done = helm(command, "b1k", ROOT / "charts" / "b1k", *dry, values=values)
        assert done.returncode == 0, done.stderr
        assert leaks(done.stdout) == []
        assert "kind: Secret\n" not in done.stdout


def test_exceptions_are_written_down() -> None:
    skipped = yaml.safe_load(SETTINGS.read_text())["skip-check"]
    templates = (ROOT / "charts" / "b1k" / "templates").rglob("*.yaml")
    annotated = {
        one for path in templates for one in re.findall(r"checkov\.io/skip\d+: (\w+)=", path.read_text())
    }
    table = set(re.findall(r"^\| `(CKV\w+)` \|", GUIDE, re.MULTILINE))
    assert table == {*skipped, *annotated}


@pytest.mark.slow
def test_checkov_finds_nothing_else(helm, tmp_path: Path) -> None:
    checkov = os.environ.get("CHECKOV") or shutil.which("checkov")
    if not checkov:
        pytest.skip("checkov is not here: `pipx install checkov`, or CHECKOV=path of the command")
    digest = f"sha256:{'0' * 64}"
    values = {**CASES["services"], "images": {"digests": {"toolbox": digest, "trainer": digest}}}
    done = helm("template", "b1k", ROOT / "charts" / "b1k", "--namespace", "robots", values=values)
    (tmp_path / "chart.yaml").write_text(done.stdout)
    for path in (ROOT / "images").glob("*.Dockerfile"):
        shutil.copy(path, tmp_path)
    words = [checkov, "--config-file", SETTINGS, "--directory", tmp_path]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    passed = [int(count) for count in re.findall(r"Passed checks: (\d+), Failed checks: 0", found.stdout)]
    assert passed or not found.stdout.strip(), found.stdout
