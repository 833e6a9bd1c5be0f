"""schemathesis makes requests from the admin port's own description, and judges the responses by it (I27)."""

import os
import re
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import installs
import pytest
from bucketfront_process import bucketfront
from case import Case
from programs import Program, run
from site_under_test import Origin

PACKAGE = "schemathesis==4.32.5"
TOKEN = "0123456789abcdef0123456789abcdef"
EXAMPLES = 10  # for each path and method, besides those of the phase "coverage"
TIMEOUT_S = 300.0
# 501 is for the methods that HTTP/1.1 has and no server needs.
SETTINGS = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501"]\n'
# An archive is bytes to schemathesis, which knows no tar.
HOOKS = 'import schemathesis\n\nschemathesis.serializer.alias("application/x-tar", "application/octet-stream")\n'
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.parametrize("access", ["no token is set", "with the token", "without the token"])
def test_schemathesis(access: str, origin: Origin, tmp_path: Path, case: Case, trial: Callable[..., None]) -> None:
    """No request gets a 5xx, and each response has a status, a type and a body of the description."""
    packages = installs.pip(PACKAGE, dependencies=True)
    name, _, version = PACKAGE.partition("==")
    case.of(Program(name, sys.executable, version), f"requests by /openapi.json: {access}")
    settings = origin.configuration(tmp_path)
    if access != "no token is set":
        settings = settings.replace("admin: {port: 0}", f"admin: {{port: 0, token: {TOKEN}}}")
    with bucketfront(settings, tmp_path) as started:
        fields = ["-H", f"Authorization: Bearer {TOKEN}"] if access == "with the token" else []
        location = f"{started.admin_url}/openapi.json"
        if access == "without the token":
            location = _document_of(started.admin_url, tmp_path)
        (tmp_path / "schemathesis.toml").write_text(SETTINGS)
        (tmp_path / "hooks.py").write_text(HOOKS)
        result = run(
            *(sys.executable, "-m", "schemathesis.cli", "run", location, "--url", started.admin_url, *fields),
            *("--checks", CHECKS, "--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"),
            *("--phases", "examples,coverage,fuzzing"),
            folder=tmp_path,
            environment={
                "PYTHONPATH": f"{packages}:{tmp_path}",
                "SCHEMATHESIS_HOOKS": "hooks",
                "HOME": str(tmp_path),
                "PATH": os.environ["PATH"],
            },
            timeout=TIMEOUT_S,
        )
        assert "Traceback" not in started.printed()
    found = re.search(r"(\d+) generated", result.output)
    assert found is not None, result.output[-2000:]
    trial("the admin port", f"{name} {version}, {access}", int(found[1]), "no 5xx; each response as described")


def _document_of(url: str, folder: Path) -> str:
    """Return a file with the description, which is for operators alone, so schemathesis cannot fetch it."""
    file = folder / "openapi.json"
    request = urllib.request.Request(f"{url}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        file.write_bytes(response.read())
    return str(file)
