# syntax=docker/dockerfile:1
#
# docker build -t bucketfront .
# docker build -t bucketfront --build-arg BASE=python:3.12-slim@sha256:… .   (docs/operations.md has how to find the digest)
# docker run --read-only -p 127.0.0.1:8080:8080 -v bucketfront-cache:/cache -e BUCKETFRONT_MOUNTS__0__BUCKET=my-bucket bucketfront
# docker run --read-only … -v ./proxy.yaml:/etc/bucketfront/proxy.yaml:ro bucketfront
#
# All settings may come from the environment; /etc/bucketfront/proxy.yaml is read if it is there. Both `docker exec … bucketfront
# purge /a` and `docker run … bucketfront check` find them too.
#
# The admin port listens on the container's own loopback until BUCKETFRONT_ADMIN__HOST and BUCKETFRONT_ADMIN__TOKEN (or the
# file) open it. Clients that write to the container's name need it in BUCKETFRONT_SERVER__HOSTS. The clients' port is open to
# the network, so a mount that takes writes needs its `write` rules. `bucketfront demo` is not in the image.

ARG BASE=python:3.12-slim

FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# Only files whose hashes are in the locks. Binary wheels only: there is no compiler here, and without one aiohttp would
# lack its C parser.
RUN python -m venv /opt/bucketfront \
    && /opt/bucketfront/bin/pip install --only-binary=:all: --require-hashes -r requirements.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --only-binary=:all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/bucketfront/bin/pip install --no-deps --no-index /opt/wheels/*.whl


FROM ${BASE}

# A numeric user, so that Kubernetes can check runAsNonRoot.
RUN install -d -o 10001 -g 10001 -m 0750 /cache
COPY --from=build /opt/bucketfront /opt/bucketfront

# Nothing is written outside /cache: the root file system may be read-only.
ENV PATH=/opt/bucketfront/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BUCKETFRONT_SERVER__HOST=0.0.0.0 \
    BUCKETFRONT_CACHE__DIR=/cache
# proxy.yaml is the default file of the working directory, and may be missing.
WORKDIR /etc/bucketfront
USER 10001:10001
VOLUME /cache
EXPOSE 8080 8081

# The command finds the admin port in the same settings as the proxy, also with TLS and on another port.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["bucketfront", "healthcheck"]

ENTRYPOINT ["bucketfront"]
CMD ["serve"]
