# syntax=docker/dockerfile:1
# A policy as it is delivered: the policy server with one checkpoint, on 64 ports. The checkpoint's digest, which
# `b1k checkpoint inspect` prints, is checked and is a label. Build with
#   CHECKPOINT=DIR CHECKPOINT_SHA256=DIGEST docker buildx bake -f images/docker-bake.hcl policy
# or, with Podman, podman build --build-context checkpoint=DIR --build-arg CHECKPOINT_SHA256=DIGEST ...
# and try it with `b1k rehearse IMAGE`.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
# jax alone makes an image for a CPU.
ARG JAX=jax[cuda12]
COPY constraints.txt images/constraints-cuda.txt ./
COPY model/pyproject.toml model/
# Our distribution is installed empty here, only to bring in what it needs, so that a change of our code
# does not install or push the libraries (gigabytes of CUDA) again.
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir -p model/src && \
    python3 -m venv --without-pip /opt/b1k && \
    pip --python /opt/b1k/bin/python3 install --constraint constraints.txt --constraint constraints-cuda.txt \
        ./model "${JAX}" && \
    pip --python /opt/b1k/bin/python3 uninstall --yes pi-behavior && \
    pip install --constraint constraints.txt cyclonedx-bom && \
    cyclonedx-py environment --output-reproducible --output-file /opt/b1k/sbom.cdx.json /opt/b1k/bin/python3

FROM ${PYTHON_IMAGE} AS wheels
WORKDIR /build
RUN --mount=type=cache,target=/root/.cache/pip pip install setuptools==84.2.1
COPY model model
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels ./model

FROM ${PYTHON_IMAGE} AS policy
# The user has a name, for programs that ask for it: a cluster adds no entry, and without one the group would be 0.
RUN groupadd --gid 10001 b1k && \
    useradd --no-log-init --uid 10001 --gid b1k --no-create-home --home-dir /tmp --shell /usr/sbin/nologin b1k
COPY --from=dependencies /opt/b1k /opt/b1k
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip --python /opt/b1k/bin/python3 install --no-cache-dir --no-deps --no-index /wheels/*.whl
COPY LICENSE /usr/share/licenses/b1k/LICENSE

ARG CHECKPOINT_SHA256
# Checked before it is part of the image; readable by any user.
RUN --mount=type=bind,from=checkpoint,target=/checkpoint \
    cp -r /checkpoint /policy && chmod -R a+rX /policy && \
    /opt/b1k/bin/python3 -c "import sys; from pathlib import Path; from pi_behavior.checkpoint import digest; \
        found = digest(Path('/policy')); found == sys.argv[1] or sys.exit(f'its digest is {found}')" \
        "${CHECKPOINT_SHA256}"

ARG PYTHON_IMAGE
ARG B1K_VERSION
ARG B1K_GIT_COMMIT
LABEL b1k.stages="" \
      b1k.services="policy" \
      b1k.checkpoint.sha256="${CHECKPOINT_SHA256}" \
      org.opencontainers.image.title="b1k-policy" \
      org.opencontainers.image.description="Policy server of the BEHAVIOR challenge pipeline with its checkpoint (JAX, CUDA 12)" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      org.opencontainers.image.version="${B1K_VERSION}" \
      org.opencontainers.image.revision="${B1K_GIT_COMMIT}"
# NVIDIA_*: ask the container runtime for the GPU driver's libraries.
# HOME: a cluster may run us as any user, so nothing may be written outside /tmp and the volumes.
# JAX_PLATFORMS: without a working GPU it fails at once instead of answering too slowly; `cpu` tries it on a CPU.
# XLA_PYTHON_CLIENT_MEM_FRACTION: the policy has its GPU for itself, and `b1k serve --plan` counts on this share.
ENV PATH=/opt/b1k/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    JAX_PLATFORMS=cuda,cpu \
    XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 \
    B1K_SBOM=/opt/b1k/sbom.cdx.json \
    B1K_VERSION=${B1K_VERSION} \
    B1K_GIT_COMMIT=${B1K_GIT_COMMIT}
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000-8063
CMD ["python3", "-m", "pi_behavior.policy.server", "--checkpoint", "/policy", "--host", "0.0.0.0", "--ports", "64", "--batch-sizes", "1", "10"]
