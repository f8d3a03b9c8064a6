# Build:  docker build -t keysync .
# Run:    docker run --rm -v "$PWD/keysync.yaml:/etc/keysync/keysync.yaml:ro" keysync sync
ARG BASE=python:3.11-slim

# The wheel: its build backend is pinned by hash like all else.
FROM ${BASE} AS wheel
WORKDIR /src
COPY requirements/dev.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/dev.txt
COPY pyproject.toml README.md LICENSE ./
COPY keysync/ keysync/
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# What runs: the pinned packages and the wheel, compiled to bytecode, since the user below cannot write it later.
FROM ${BASE} AS packages
COPY requirements/runtime.txt /tmp/
RUN python -m venv /opt/keysync && /opt/keysync/bin/pip install --no-cache-dir --require-hashes -r /tmp/runtime.txt
COPY --from=wheel /wheels/ /wheels/
RUN /opt/keysync/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM ${BASE}
COPY --from=packages /opt/keysync /opt/keysync
ENV PATH=/opt/keysync/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["keysync"]
