# syntax=docker/dockerfile:1
# Evaluation: the official BEHAVIOR-1K release (OmniGibson on Isaac Sim) as its authors publish it, and beside it
# the policy server with a Python of its own. They share neither interpreter nor library, so that the release may
# be of either edition of the challenge, whatever its Python. The evaluate stage starts
# `omnigibson-python -m omnigibson.eval.eval ...` (2025: omnigibson.learning.eval) and
# `python3 -m pi_behavior.policy.server ...`. Of the release it needs /entrypoint.sh, which runs a command in the
# simulator's environment. Build with `docker buildx bake -f images/docker-bake.hcl evaluator`.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
ARG BEHAVIOR_RELEASE=3.9.3-post1@sha256:3dda0241dae8c6afc5dc3b5d29f9d6e52035d96cc68e8117db37723e7fbb674e
ARG BEHAVIOR_IMAGE=stanfordvl/behavior:${BEHAVIOR_RELEASE}

# A Python that needs nothing of the system but an old glibc, in a folder that can be copied.
FROM ${PYTHON_IMAGE} AS interpreter
RUN pip install --no-cache-dir uv==0.13.9 && \
    uv python install --no-bin --install-dir /opt/b1k/interpreter 3.11.14 && \
    ln -s cpython-3.11.14-linux-x86_64-gnu /opt/b1k/interpreter/3.11 && \
    /opt/b1k/interpreter/3.11/bin/python3 -m venv --without-pip /opt/b1k

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
COPY --from=interpreter /opt/b1k /opt/b1k
COPY constraints.txt pyproject.toml images/constraints-cuda.txt ./
COPY model/pyproject.toml model/
# Our distributions are installed empty here, only to bring in what they need, so that a change of our code
# does not install or push the libraries (gigabytes of CUDA) again.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p model/src && touch README.md && \
    pip --python /opt/b1k/bin/python3 install \
        --constraint constraints.txt --constraint constraints-cuda.txt ./model ".[evaluate]" "jax[cuda12]" && \
    pip --python /opt/b1k/bin/python3 uninstall --yes b1k pi-behavior && \
    pip install --constraint constraints.txt cyclonedx-bom && \
    cyclonedx-py environment --output-reproducible --output-file /opt/b1k/sbom.cdx.json /opt/b1k/bin/python3

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
RUN --mount=type=cache,target=/root/.cache/pip pip install setuptools==84.2.1
COPY pyproject.toml ./
COPY components components
COPY model model
RUN touch README.md && \
    pip install --no-cache-dir --no-build-isolation --no-deps --target /packages ./model . && \
    rm -r /packages/bin

FROM ${BEHAVIOR_IMAGE} AS evaluator
USER 0:0
# The user has a name, for programs that ask for it: a cluster adds no entry, and without one the group would be 0.
RUN groupadd --gid 10001 b1k && \
    useradd --no-log-init --uid 10001 --gid b1k --no-create-home --home-dir /tmp --shell /usr/sbin/nologin b1k
COPY --from=dependencies /opt/b1k /opt/b1k
COPY --from=packages /packages /opt/b1k/lib/python3.11/site-packages
COPY --chmod=755 images/omnigibson-python /usr/local/bin/omnigibson-python
COPY LICENSE /usr/share/licenses/b1k/LICENSE

ARG BEHAVIOR_IMAGE
ARG B1K_VERSION
ARG B1K_GIT_COMMIT
# YES accepts NVIDIA's licence of Isaac Sim on behalf of whoever builds this image; without it the simulator
# refuses to start.
ARG OMNI_KIT_ACCEPT_EULA=NO
LABEL b1k.stages="evaluate" \
      org.opencontainers.image.title="b1k-evaluator" \
      org.opencontainers.image.description="Evaluation stage of the BEHAVIOR challenge pipeline (OmniGibson, JAX)" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BEHAVIOR_IMAGE}" \
      org.opencontainers.image.version="${B1K_VERSION}" \
      org.opencontainers.image.revision="${B1K_GIT_COMMIT}"
# HOME, OMNIGIBSON_APPDATA_PATH: a cluster may run us as any user, so nothing may be written outside /tmp and the
# volumes. OMNIGIBSON_DATA_PATH (the licensed assets) is set by the pipeline, as it lies on a volume.
# XLA_PYTHON_CLIENT_PREALLOCATE: the policy shares the GPU with the simulator and must leave it memory.
ENV PATH=/opt/b1k/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=all \
    JAX_PLATFORMS=cuda,cpu \
    XLA_PYTHON_CLIENT_PREALLOCATE=false \
    OMNI_KIT_ACCEPT_EULA=${OMNI_KIT_ACCEPT_EULA} \
    OMNIGIBSON_APPDATA_PATH=/tmp/omnigibson \
    B1K_SBOM=/opt/b1k/sbom.cdx.json \
    B1K_VERSION=${B1K_VERSION} \
    B1K_GIT_COMMIT=${B1K_GIT_COMMIT}
WORKDIR /tmp
USER 10001:10001
# The release's own entry point would activate the simulator's environment for our command.
ENTRYPOINT []
CMD ["python3", "-m", "components.evaluate", "--help"]
