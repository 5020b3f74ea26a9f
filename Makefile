# Two commands do everything on a fresh machine with python3 >= 3.11, pip and make:
#   make tour    builds, trains and audits federated prompts on built-in data, lesson by lesson
#   make test    lint, types, every lesson at the smoke profile, all tests
# make lab opens copies of the lessons in Jupyter; make docs writes all pages and the API reference into build/docs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The towers here are small: one thread a process is faster than two that wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: tour test test-slow wheel-check lessons-seeds lessons-nightly lab deploy-trial soak gpu-rows gpu-carry families docs pages format clean

tour: $(VENV)/installed
	$(BIN)/fvlfp tour --out runs/tour

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow"

# The checks that take minutes: lessons in a real JupyterLab (needs chromium-driver), long runs, real processes
test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow -k "not other_seeds"

# Every lesson at the smoke profile, seeds 0 to 3 (some 20 minutes); at night the lesson profile, seeds 0 to 4
lessons-seeds: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m slow tests/test_notebooks.py -k smoke-seed

lessons-nightly: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m slow tests/test_notebooks.py -k lesson-seed

# The wheel in a fresh environment and an empty folder: audit, student, sweep, tour. Nothing is downloaded: the
# dependencies are those of $(VENV); WHEEL_CHECK=--fresh installs them anew.
wheel-check: $(VENV)/installed
	$(BIN)/python tests/wheel_check.py $(WHEEL_CHECK)

# Lessons without solutions in lab/, which keeps what you change; the solutions are in lab/solutions
lab: $(VENV)/installed
	$(BIN)/fvlfp student --out lab --solutions
	$(BIN)/jupyter lab lab

# SuperLink and three SuperNodes on the loopback, TLS and keys, one run, the audit report, everything ended
deploy-trial: $(VENV)/installed
	$(BIN)/python -m deploy.trial all runs/trial

# Twelve SuperNodes, twenty rounds, one killed about every minute: fifteen minutes at most
soak: $(VENV)/installed
	$(BIN)/python -m deploy.soak runs/soak

# Every number that needs a GPU, in eight minutes at most; benchmarks/gpu_rows.py says how to carry it
gpu-rows: $(VENV)/installed
	$(BIN)/python -m benchmarks.gpu_rows

# What a machine with torch but without network needs beside the repository, for this Python, into build/carry
gpu-carry: $(VENV)/installed
	mkdir -p build
	$(BIN)/python -m pip freeze --exclude-editable | grep -ivE "^(torch|torchvision|nvidia|cuda|triton)" > build/carry.txt
	$(BIN)/python -m pip download --quiet --no-deps --dest build/carry -r build/carry.txt

# every family of open_clip, audited and prompted with random weights (some ten minutes)
families: $(VENV)/installed
	$(BIN)/python -m benchmarks.families

# The site, its lessons with their outputs; pages renders without running, with what runs/tour holds.
# REPOSITORY=OWNER/NAME, on GitHub, adds links to Colab and Binder.
docs: tour pages

pages: $(VENV)/installed
	$(BIN)/python -m docs.build --run runs/tour --out build/docs $(if $(REPOSITORY),--repository $(REPOSITORY))

format: $(VENV)/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
