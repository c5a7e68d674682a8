# syntax=docker/dockerfile:1
# The CPU stages: settings, data, planning, scores and reports. Build with `docker buildx bake -f images/docker-bake.hcl toolbox`.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
COPY constraints.txt pyproject.toml ./
COPY model/pyproject.toml model/
# Our distributions are installed empty here, only to bring in what they need, so that a change of our code
# does not install or push the libraries again.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p model/src && touch README.md && \
    python3 -m venv --without-pip /opt/b1k && \
    pip --python /opt/b1k/bin/python3 install --constraint constraints.txt ./model ".[dataset,results]" && \
    pip --python /opt/b1k/bin/python3 uninstall --yes b1k pi-behavior && \
    pip install --constraint constraints.txt cyclonedx-bom && \
    cyclonedx-py environment --output-reproducible --output-file /opt/b1k/sbom.cdx.json /opt/b1k/bin/python3

FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /build
RUN --mount=type=cache,target=/root/.cache/pip pip install setuptools==84.2.1
COPY pyproject.toml ./
COPY components components
COPY model model
RUN touch README.md && pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels ./model .

FROM ${PYTHON_IMAGE} AS toolbox
# The user has a name, for programs that ask for it: a cluster adds no entry, and without one the group would be 0.
RUN groupadd --gid 10001 b1k && \
    useradd --no-log-init --uid 10001 --gid b1k --no-create-home --home-dir /tmp --shell /usr/sbin/nologin b1k
# DVC reads the dataset's repository with git. Volumes may belong to another user than ours, and git would refuse.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ca-certificates git && \
    rm -rf /var/lib/apt/lists/* && \
    git config --system --add safe.directory '*'
COPY --from=dependencies /opt/b1k /opt/b1k
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip --python /opt/b1k/bin/python3 install --no-cache-dir --no-deps --no-index /wheels/*.whl && \
    rm /opt/b1k/bin/b1k
COPY LICENSE /usr/share/licenses/b1k/LICENSE

ARG PYTHON_IMAGE
ARG B1K_VERSION
ARG B1K_GIT_COMMIT
LABEL b1k.stages="settings news dataset prepare statistics plan group leaderboard trial promote notify" \
      b1k.services="results" \
      org.opencontainers.image.title="b1k-toolbox" \
      org.opencontainers.image.description="CPU stages of the BEHAVIOR challenge pipeline" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${B1K_VERSION}" \
      org.opencontainers.image.revision="${B1K_GIT_COMMIT}"
# HOME: a cluster may run us as any user, so nothing may be written outside /tmp and the volumes.
ENV PATH=/opt/b1k/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    JAX_PLATFORMS=cpu \
    B1K_SBOM=/opt/b1k/sbom.cdx.json \
    B1K_VERSION=${B1K_VERSION} \
    B1K_GIT_COMMIT=${B1K_GIT_COMMIT}
WORKDIR /tmp
USER 10001:10001
CMD ["python3", "-m", "components.dataset", "--help"]
