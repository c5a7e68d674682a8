# syntax=docker/dockerfile:1
# Every stage without a GPU, for the profile cluster_small; training and evaluation of laptop and smoke (`b1k run
# --containers`): CPU JAX, the policy server and the household simulator, which renders with Mesa. Build with `docker buildx bake -f images/docker-bake.hcl household`.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
COPY constraints.txt pyproject.toml ./
COPY model/pyproject.toml model/
COPY simulator/pyproject.toml simulator/
# Our distributions are installed empty here, only to bring in what they need, so that a change of our code
# does not install or push the libraries again.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p model/src simulator/src && touch README.md && \
    python3 -m venv --without-pip /opt/b1k && \
    pip --python /opt/b1k/bin/python3 install --constraint constraints.txt ./model ./simulator ".[dataset,train,evaluate]" && \
    pip --python /opt/b1k/bin/python3 uninstall --yes b1k pi-behavior household && \
    pip install --constraint constraints.txt cyclonedx-bom && \
    cyclonedx-py environment --output-reproducible --output-file /opt/b1k/sbom.cdx.json /opt/b1k/bin/python3

FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /build
RUN --mount=type=cache,target=/root/.cache/pip pip install setuptools==84.2.1
COPY pyproject.toml ./
COPY components components
COPY model model
COPY simulator simulator
RUN touch README.md && \
    pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels ./simulator ./model .

FROM ${PYTHON_IMAGE} AS household
# The user has a name, for programs that ask for it: a cluster adds no entry, and without one the group would be 0.
RUN groupadd --gid 10001 b1k && \
    useradd --no-log-init --uid 10001 --gid b1k --no-create-home --home-dir /tmp --shell /usr/sbin/nologin b1k
# Mesa: MuJoCo renders through EGL on the CPU. DVC keeps the demonstrations in a repository of git, which refuses the
# folders of other users otherwise: volumes may belong to one.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends ca-certificates git libegl1 libgl1 libgl1-mesa-dri && \
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
# b1k.stages names the stages that no other image has, b1k.laptop-stages those that run here without a GPU.
LABEL b1k.stages="collect" \
      b1k.laptop-stages="settings news dataset prepare statistics train plan evaluate group leaderboard trial promote notify" \
      org.opencontainers.image.title="b1k-household" \
      org.opencontainers.image.description="All stages without a GPU (JAX on CPU, MuJoCo)" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${B1K_VERSION}" \
      org.opencontainers.image.revision="${B1K_GIT_COMMIT}"
# HOME: we run as whoever calls, so nothing may be written outside /tmp and the workspace.
ENV PATH=/opt/b1k/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    JAX_PLATFORMS=cpu \
    MUJOCO_GL=egl \
    B1K_SBOM=/opt/b1k/sbom.cdx.json \
    B1K_VERSION=${B1K_VERSION} \
    B1K_GIT_COMMIT=${B1K_GIT_COMMIT}
WORKDIR /tmp
USER 10001:10001
CMD ["python3", "-m", "components.evaluate", "--help"]
