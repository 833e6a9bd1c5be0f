# syntax=docker/dockerfile:1
#
# docker build -t bucketfront .
# docker run --read-only -p 8080:8080 -v ./proxy.yaml:/etc/bucketfront/proxy.yaml:ro -v bucketfront:/cache bucketfront
#
# The admin port listens on the container's own loopback until proxy.yaml (or BUCKETFRONT_ADMIN__HOST and
# BUCKETFRONT_ADMIN__TOKEN) opens it. Clients that write to the container's name need it in BUCKETFRONT_SERVER__HOSTS. The
# clients' port is open to the network, so a mount that takes writes needs its `write` rules. `origin.endpoint_url: embedded`
# is not in the image.

FROM python:3.12-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/bucketfront
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY proxy ./proxy
# Binary wheels only: there is no compiler here, and without one aiohttp would lack its C parser.
RUN /opt/bucketfront/bin/pip install --no-cache-dir --only-binary=:all: --no-binary=bucketfront \
        --constraint requirements.lock .


FROM python:3.12-slim

# A numeric user, so that Kubernetes can check runAsNonRoot.
RUN install -d -o 10001 -g 10001 -m 0750 /cache
COPY --from=build /opt/bucketfront /opt/bucketfront

# Nothing is written outside /cache: the root file system may be read-only.
ENV PATH=/opt/bucketfront/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BUCKETFRONT_SERVER__HOST=0.0.0.0 \
    BUCKETFRONT_CACHE__DIR=/cache
USER 10001:10001
WORKDIR /cache
VOLUME /cache
EXPOSE 8080 8081

# No proxy of the environment may stand between the check and the loopback port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8081/healthz', timeout=2)"]

ENTRYPOINT ["bucketfront"]
CMD ["serve", "-c", "/etc/bucketfront/proxy.yaml"]
