# The image of keysync. docs/container.md describes how to build and run it.
#
# BASE has Python 3.11 or newer with venv. It is a tag, so that each build gets its security fixes. For a build that can be
# repeated, pin its digest, which `docker buildx imagetools inspect python:3.11-slim` prints:
#   docker build --build-arg BASE=python:3.11-slim@sha256:DIGEST .
# RUNTIME_BASE is the base of the final image. It may be smaller, down to Python alone: it needs no shell, venv or pip. Its
# Python must be the same version at the same path, and its user root.
ARG BASE=python:3.11-slim
ARG RUNTIME_BASE=${BASE}

# pip, for the stages that build.
FROM ${BASE} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN ["python3", "-m", "venv", "/tools"]

# The wheel. Its build backend is pinned by hash like everything else. The secrets are for a private package index, and optional.
FROM tools AS wheel
WORKDIR /src
COPY requirements/build.txt requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip-cert \
    ["/tools/bin/pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", "requirements/build.txt"]
COPY pyproject.toml README.md LICENSE ./
COPY keysync/ keysync/
RUN ["/tools/bin/pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "/wheels", "."]

# The runtime: the pinned packages and the wheel, in an environment without pip.
FROM tools AS packages
# requirements/runtime.txt has no extras: leader election, traces.
ARG REQUIREMENTS=requirements/image.txt
COPY ${REQUIREMENTS} /tmp/requirements.txt
RUN ["python3", "-m", "venv", "--without-pip", "/opt/keysync"]
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip-cert \
    ["/tools/bin/pip", "--python", "/opt/keysync/bin/python3", "install", "--quiet", "--no-compile", "--require-hashes", "--only-binary=:all:", "-r", "/tmp/requirements.txt"]
COPY --from=wheel /wheels/ /wheels/
RUN ["/tools/bin/pip", "--python", "/opt/keysync/bin/python3", "install", "--quiet", "--no-compile", "--no-deps", "--no-index", "--find-links", "/wheels", "keysync"]
COPY deploy/container/tidy.py /container/
RUN ["python3", "/container/tidy.py", "packages", "/opt/keysync"]

FROM ${RUNTIME_BASE}
COPY --from=packages /opt/keysync /opt/keysync
# Also removes the base's own pip.
RUN --mount=type=bind,from=packages,source=/container,target=/container ["python3", "-B", "/container/tidy.py", "base"]

# Used if the configuration does not set `listen`. A container has its own network, and the host decides what reaches it.
ENV PATH=/opt/keysync/bin:$PATH PYTHONDONTWRITEBYTECODE=1 KEYSYNC_LISTEN=0.0.0.0:8080
EXPOSE 8080
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/opt/keysync/bin/keysync", "health"]
ENTRYPOINT ["/opt/keysync/bin/keysync"]
CMD ["run"]

# Last, since they change with each build. CREATED is SOURCE_DATE_EPOCH in the format of RFC 3339.
ARG RUNTIME_BASE
ARG SOURCE=""
ARG VERSION="0.1.0"
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="keysync" \
      org.opencontainers.image.description="Keeps Azure Key Vault in sync with the keys of Azure Batch accounts" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${RUNTIME_BASE}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
