# Two commands do everything on a fresh machine with what the README names: make demo, make test.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MUJOCO_GL ?= egl

.PHONY: help install demo test test-all test-images test-browser test-cluster check format clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## Install everything into .venv, with the versions of constraints.txt

$(INSTALLED): constraints.txt pyproject.toml model/pyproject.toml simulator/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found; install Python 3.11, or name another: make PYTHON=..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable model --editable simulator --editable '.[dev]'
	$(BIN)/python charts/get_helm.py
	touch $@

demo: install ## Run the whole pipeline on this machine, from demonstrations to leaderboard
	$(BIN)/b1k demo

test: check ## Check style and types, run the tests (under 20 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu and not images and not browser and not cluster"

test-all: check ## As test, with the slow tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu and not images and not browser and not cluster"

test-images: export CONTAINERS_CONF ?= $(CURDIR)/tests/images/containers.conf
test-images: install ## Build images and run the pipeline in them (Debian, as root; 20 minutes)
	@missing=$$(for tool in buildah podman runc debootstrap; do command -v $$tool >/dev/null || echo $$tool; done); \
	test -z "$$missing" || { echo "test-images needs" $$missing: apt-get install --no-install-recommends $$missing; exit 2; }
	@test "$$(id -u)" = 0 || { echo "test-images needs root, for debootstrap and buildah: sudo make test-images"; exit 2; }
	$(BIN)/python -m pytest -m images

test-browser: install ## Open the report in Chromium (Debian: apt-get install chromium; 5 minutes)
	@command -v chromium >/dev/null || { echo "test-browser needs Chromium: apt-get install --no-install-recommends chromium"; exit 2; }
	$(BIN)/python -m pytest -m browser tests/browser

test-cluster: install ## Try chart, doctor and all CPU stages on the cluster of the kubeconfig (20 minutes)
	$(BIN)/python -m pytest -m cluster -rs -s

check: install ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and the demo's workspace
	rm -rf $(VENV) workspace
