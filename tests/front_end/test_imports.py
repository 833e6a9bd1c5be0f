"""What the process that forks front ends imports. Each start of the proxy waits for that, and each front end has it."""

import subprocess
import sys

# The SDK, the database of the index, and what only the owner does. Together they take half of a second of the CPU.
OF_THE_OWNER = {"aiobotocore", "botocore", "prometheus_client", "opentelemetry", "werkzeug", "boto3", "moto"}
ROOMS_OF_THE_OWNER = {"s3", "warm", "admin", "tracing", "app", "takeover", "checks", "cli"}


def test_a_front_end_imports_no_s3() -> None:
    """A front end has neither the SDK nor the rooms of the owner in memory, because it does without S3."""
    source = "import sys, bucketfront.front_end.__main__; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    modules = result.stdout.split()
    assert "bucketfront.front_end.front_end" in modules
    assert not OF_THE_OWNER & {name.partition(".")[0] for name in modules}
    rooms = {name.split(".")[1] for name in modules if name.startswith("bucketfront.")}
    assert not ROOMS_OF_THE_OWNER & rooms
    assert "bucketfront.server.handlers" not in modules
