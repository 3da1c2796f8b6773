# Developer commands; `make help` lists them. They need make and Python 3.11 to 3.14; the first call fills .venv.
PYTHON ?= python3
PORT ?= 8501
ARGS ?=
# kills of prepare and download in make faults
FAULTS ?= 200
VENV_PYTHON = .venv/bin/python
CORPUS ?= demo
SOURCE ?=
GRID ?= paper
FOLDS ?= $(if $(filter quick,$(GRID)),1,5)
SEEDS ?= 1
WORKERS ?= 1
OUT ?= checkpoints/report
# presets of a corpus; both: the paper's two corpora in one report
PRESETS_crema-d = paper
PRESETS_both = paper ravdess
PRESET ?= $(or $(PRESETS_$(CORPUS)),$(CORPUS))
RUNS = --grid $(GRID) --preset $(PRESET) --folds $(FOLDS) --seeds $(SEEDS)$(if $(METHOD), --method $(METHOD))$(if $(F_S), --f-s-corpus $(F_S))$(if $(CELLS), --cells $(CELLS))
# corpora that are prepared, each from the folder that its variable names
FOLDERS_crema-d = "crema-d=$(SOURCE)"
FOLDERS_ravdess = "ravdess=$(SOURCE)"
FOLDERS_both = "crema-d=$(CREMA_D)" "ravdess=$(RAVDESS)"
FOLDERS_fer2013-ravdess = "fer2013=$(FER2013)" "ravdess=$(RAVDESS)"
KILLED = tests/data/test_preparation_interrupted.py tests/data/test_download.py
ON_RAY = tests/experiments/test_ray_cluster.py tests/data/test_preparation_interrupted.py::test_ray_makes_the_same_bytes

.PHONY: help app audit test test-slow test-cluster faults lint docs bench costs examples screenshots reproduce clean setup setup-test

help:
	@echo "make app          the studio in a browser at http://127.0.0.1:8501 (another port: make app PORT=8502)"
	@echo "make test         all tests (some of them: make test ARGS='-k conformal')"
	@echo "make test-cluster the tests that need Ray, on two local nodes; installs requirements-cluster.txt"
	@echo "make test-slow    tests that take minutes each: lost machines, both corpora's report, speed of pages, every view by axe"
	@echo "make faults       kills, full disks, uploads, strangers' runs: a table; hours (fewer: FAULTS=20 ARGS='--kills 5')"
	@echo "make audit        known weaknesses of the pinned packages, by pip-audit; needs a network"
	@echo "make lint         ruff, and mypy on core"
	@echo "make docs         docs/equations.md and docs/cli.md, generated from the code"
	@echo "make bench        benchmarks, each against a named peer (one: make bench ARGS=fid)"
	@echo "make costs        how time grows with size: plots and fitted exponents into docs/costs (minutes)"
	@echo "make examples     wavs of the shipped runs, real and generated, into checkpoints/examples"
	@echo "make screenshots  every page, light and dark, into docs/screenshots (some: ARGS='home train')"
	@echo "make reproduce    the paper's tables and figures: prepare, sweep, report. Hours; a quick look: GRID=quick"
	@echo "                  CORPUS=demo, crema-d or ravdess with SOURCE=FOLDER, fer2013-ravdess with FER2013= and RAVDESS=,"
	@echo "                  both (one report of the paper's two corpora) with CREMA_D= and RAVDESS=;"
	@echo "                  METHOD=paper, strict or studio; CELLS='\"EncDec · CP\"'; FOLDS=5 SEEDS=1 WORKERS=1"
	@echo "make clean        remove caches; .venv, data and checkpoints stay"

setup setup-test:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "set-up: there is no command $(PYTHON): install Python 3.11 to 3.14, or name yours, as in: make app PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) setup_env.py $(if $(filter setup-test,$@),test)

app: setup
	@$(VENV_PYTHON) setup_env.py port $(PORT)
	@$(VENV_PYTHON) -m streamlit run app.py --server.port $(PORT)

# One process more than there are cores, as a browser's tests wait for it half of their time. A file
# stays in one process, and files are taken in the order of names: long ones are not the last.
# Status 5: no test was selected.
test: setup-test
	@$(VENV_PYTHON) -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS) || [ $$? = 5 ]

test-slow: setup-test
	@$(VENV_PYTHON) -m pytest -m slow $(ARGS)

# ARGS: counts of the table's classes, as in: make faults FAULTS=20 ARGS='--kills 5 --uploads 50'
faults: setup-test
	@FAULTS=$(FAULTS) $(VENV_PYTHON) -m pytest $(KILLED) -k killed --timeout 0
	@$(VENV_PYTHON) -m tests.support.faults $(ARGS)

audit: setup-test
	@$(VENV_PYTHON) setup_env.py audit

# All files in one resolve, so that Ray joins the pinned torch and brings no other.
test-cluster: setup-test
	@$(VENV_PYTHON) -c "import ray" 2>/dev/null || $(VENV_PYTHON) -m pip install --disable-pip-version-check --no-input -r requirements.txt -r requirements-test.txt -r requirements-cluster.txt
	@$(VENV_PYTHON) -m pytest $(ON_RAY) $(ARGS)

lint: setup-test
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy core

docs: setup
	@$(VENV_PYTHON) -m docs.generate

bench: setup-test
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

costs: setup
	@$(VENV_PYTHON) -m benchmarks.scaling
	@$(VENV_PYTHON) -m benchmarks.grids

examples: setup
	@$(VENV_PYTHON) -m core examples $(ARGS)

screenshots: setup-test
	@$(VENV_PYTHON) -m docs.screenshots $(ARGS)

# A corpus whose folder is given is prepared from it, demo is drawn. A failed run (status 1) does not keep the others from the report.
reproduce: setup
	@for one in $(FOLDERS_$(CORPUS)); do \
		[ -z "$${one#*=}" ] || $(VENV_PYTHON) -m core data prepare "$${one%%=*}" --source "$${one#*=}" || exit 1; \
	done
	@$(if $(filter demo,$(CORPUS)),$(VENV_PYTHON) -m core data prepare demo,true)
	@$(VENV_PYTHON) -m core sweep $(RUNS) --workers $(WORKERS) --table || [ $$? -eq 1 ]
	@$(VENV_PYTHON) -m core report $(RUNS) --out $(OUT)

clean:
	@find . \( -path ./.venv -o -path ./.git -o -path ./data -o -path ./checkpoints \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@echo "Caches removed. .venv, data and checkpoints stay; remove them by hand if you mean it."
