"""A Dockerfile carried out without an engine: a root for each stage, and its command run as an engine does.

The roots begin with Debian's Python in place of the image of Docker Hub. It needs root, mmdebstrap and Linux's
namespaces. It knows the instructions of bucketfront's Dockerfile, and raises ValueError for others.
"""

import json
import os
import re
import shlex
import shutil
import string
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from installs import NotInstallable

STEP_TIMEOUT_S = 300.0
PACKAGES = "dash,coreutils,libc-bin,sed,grep,findutils,python3,python3-venv"
HOST_FILES = ("/etc/resolv.conf", "/etc/ssl/certs")
"""Of the host, so that pip finds the package index. An engine gives the first one too."""

_INSTRUCTION = re.compile(r"(\w+)\s+(.*)", re.DOTALL)
_ROOT = """\
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/dev"
for name in null zero full random urandom; do : > "$ROOT/dev/$name"; mount --bind "/dev/$name" "$ROOT/dev/$name"; done
"""


@dataclass(frozen=True, slots=True)
class Image:
    """What a stage has made so far."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    volumes: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    entry: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def inside(self, *command: str) -> tuple[str, ...]:
        """Return the command that runs another one in the root, as its user and with its environment only."""
        variables = (f"{name}={value}" for name, value in self.environment.items())
        moved = ("sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command)
        return ("chroot", f"--userspec={self.user}", "--groups=", str(self.root), "env", "-i", *variables, *moved)


def base_root(folder: Path) -> Path:
    """Make a root of Debian with Python, as `python:…-slim` has it. Raises NotInstallable."""
    root = folder / "base"
    codename = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    suite = codename[1] if codename else "stable"
    try:
        _run("mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}", suite, str(root))
    except RuntimeError as error:
        raise NotInstallable(f"Debian's packages cannot be had: {error}") from None
    for name in ("proc", "dev", "tmp", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "usr/bin/python").symlink_to("python3")
    for file in HOST_FILES:
        place = root / file[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(file, place, dirs_exist_ok=True) if Path(file).is_dir() else shutil.copy(file, place)
    return root


def built(dockerfile: Path, base: Path, folder: Path) -> Image:
    """Carry out the Dockerfile in its folder, and return the last stage. The roots are folders of `folder`."""
    stages: dict[str, Image] = {}
    stage = ""
    for name, rest in _instructions(dockerfile.read_text()):
        if name == "FROM":
            stage = rest.partition(" AS ")[2] or str(len(stages))
            root = folder / f"stage-{stage}"
            _run("cp", "-a", "--reflink=auto", str(base), str(root))
            stages[stage] = Image(root, {"PATH": os.defpath})
        elif name == "ARG" and not stages:
            continue  # of the base image, for which `base` stands
        elif name == "RUN":
            _in_root(stages[stage], rest)
        elif name == "COPY":
            _copy(stages[stage], shlex.split(rest), dockerfile.parent, stages)
        else:
            stages[stage] = _described(stages[stage], name, rest)
    return stages[stage]


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if found := _INSTRUCTION.match(line.strip()):
            yield found[1], found[2]


def _described(image: Image, name: str, rest: str) -> Image:
    """Return the image with what an instruction says of it."""
    match name:
        case "ENV":
            pairs = (word.partition("=") for word in shlex.split(rest))
            given = {key: string.Template(value).substitute(image.environment) for key, _, value in pairs}
            changed = replace(image, environment={**image.environment, **given})
        case "WORKDIR":
            (image.root / rest[1:]).mkdir(parents=True, exist_ok=True)
            changed = replace(image, folder=rest)
        case "USER":
            changed = replace(image, user=rest)
        case "VOLUME":
            changed = replace(image, volumes=(*image.volumes, rest))
        case "HEALTHCHECK":
            changed = replace(image, health=tuple(json.loads(rest.partition("CMD")[2])))
        case "ENTRYPOINT":
            changed = replace(image, entry=tuple(json.loads(rest)))
        case "CMD":
            changed = replace(image, command=tuple(json.loads(rest)))
        case "EXPOSE":
            changed = image
        case _:
            raise ValueError(f"{name} is unknown here")
    return changed


def _in_root(image: Image, command: str) -> None:
    """Run a shell's command in the root. pip gets the settings of the host's pip."""
    host = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_CERT_"))}
    ready = replace(image, environment={**host, "HOME": "/root", **image.environment})
    _run(
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f'{_ROOT}exec "$@"',
        "sh",
        *ready.inside("sh", "-c", command),
        root=image.root,
    )


def _copy(image: Image, words: list[str], context: Path, stages: Mapping[str, Image]) -> None:
    if words[0].startswith("--from="):
        context = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    place = image.root / os.path.normpath(os.path.join(image.folder, target)).lstrip("/")  # noqa: PTH118  # no real path
    for source in sources:
        origin = context / source.lstrip("/")
        if origin.is_dir():
            shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(origin, place / origin.name if target.endswith("/") else place)


def start(image: Image, binds: Mapping[str, Path], log: Path) -> "subprocess.Popen[bytes]":
    """Run the image's command as process 1 in a read-only root, with its volumes empty and owned as in the image.

    `binds` are read-only files of the host. The process is `unshare`; `process_1` returns its child.
    """
    script = [_ROOT]
    for path in image.volumes:
        volume = log.parent / f"volume{path.replace('/', '-')}"
        owner = (image.root / path[1:]).stat()
        volume.mkdir()
        volume.chmod(owner.st_mode)
        os.chown(volume, owner.st_uid, owner.st_gid)
        script.append(f'mount --bind {shlex.quote(str(volume))} "$ROOT{path}"\n')
    for path, file in binds.items():
        place = image.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        script.append(f'mount --bind {shlex.quote(str(file))} "$ROOT{path}"\nmount -o remount,bind,ro "$ROOT{path}"\n')
    script.append('mount -o remount,bind,ro "$ROOT"\nexec "$@"')
    command = image.inside(*image.entry, *image.command)
    with log.open("wb") as output:
        return subprocess.Popen(
            ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", "".join(script), "sh", *command),
            env={**os.environ, "ROOT": str(image.root)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def process_1(process: "subprocess.Popen[bytes]") -> int:
    """Return the process that `unshare` has started, by the host's number. Raises ValueError if there is none yet."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def run_beside(image: Image, pid: int, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the namespaces of a running container, as a health check runs."""
    beside = ("nsenter", f"--target={pid}", "--mount", "--pid", "--")
    return subprocess.run(
        (*beside, *image.inside(*command)), capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False
    )


def _run(*command: str, root: Path | None = None) -> None:
    environment = os.environ if root is None else {**os.environ, "ROOT": str(root)}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
