# All that a person, a hook or CI calls. It needs make and Python 3.11 to 3.14; the first call fills .venv (setup_env.py).
PYTHON ?= python3
PORT ?= 8501
ARGS ?=
FAULTS ?= 200
VENV_PYTHON = .venv/bin/python
CORPUS ?= demo
SOURCE ?=
GRID ?= paper
FOLDS ?= 1
SEEDS ?= 1
WORKERS ?= 1
OUT ?= checkpoints/report
PRESET ?= $(if $(filter crema-d,$(CORPUS)),paper,$(if $(filter demo,$(CORPUS)),demo,fer2013-ravdess))
RUNS = --grid $(GRID) --preset $(PRESET) --folds $(FOLDS) --seeds $(SEEDS) $(if $(F_S),--f-s-corpus $(F_S))

.PHONY: help app test test-cluster faults lint bench costs examples screenshots reproduce clean setup

help:
	@echo "make app     the studio in a browser, at http://127.0.0.1:8501 (another port: make app PORT=8502)"
	@echo "make test    all tests (some of them: make test ARGS='-k conformal')"
	@echo "make faults  kills prepare and fetch 200 times at random moments, and compares (another number: make faults FAULTS=20)"
	@echo "make test-cluster   what needs Ray, on two machines that are two processes of this one; puts requirements-cluster.txt into .venv"
	@echo "make lint    ruff, and mypy on core"
	@echo "make bench   benchmarks, each against a named peer"
	@echo "make costs   how time grows with sizes: plots with fitted exponents and a table into docs/costs (some minutes)"
	@echo "make examples   voices to listen to, real and generated, by the vocoder and by Griffin-Lim, into checkpoints/examples (half a minute)"
	@echo "make screenshots   every page, light and dark, into docs/screenshots (some pages: make screenshots ARGS='home train')"
	@echo "make reproduce CORPUS=demo   the paper's tables and figures: prepare, sweep, report (hours; a look: GRID=quick; FOLDS=5 SEEDS=3 WORKERS=2)"
	@echo "make clean   remove caches; keeps .venv, data and checkpoints"

setup:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "set-up: no command $(PYTHON) here: install Python 3.11 to 3.14, or name yours, as in: make app PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) setup_env.py

app: setup
	@$(VENV_PYTHON) setup_env.py port $(PORT)
	@$(VENV_PYTHON) -m streamlit run app.py --server.port $(PORT)

# All cores for what may share them; then, one after another, what a visitor would feel. 5: none of a part was asked for.
test: setup
	@$(VENV_PYTHON) -m pytest -n auto --dist loadfile -m "not browser" $(ARGS) || [ $$? = 5 ]
	@$(VENV_PYTHON) -m pytest -m browser $(ARGS) || [ $$? = 5 ]

faults: setup
	@FAULTS=$(FAULTS) $(VENV_PYTHON) -m pytest tests/data/test_preparation.py tests/data/test_download.py -k killed --timeout 0 $(ARGS)

# Both files in one resolve, so that Ray comes to the pinned torch and not another torch to Ray.
test-cluster: setup
	@$(VENV_PYTHON) -c "import ray" 2>/dev/null || $(VENV_PYTHON) -m pip install --disable-pip-version-check --no-input -r requirements.txt -r requirements-cluster.txt
	@$(VENV_PYTHON) -m pytest tests/experiments/test_ray_cluster.py tests/data/test_preparation.py::test_ray_makes_the_same_bytes $(ARGS)

lint: setup
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy core

bench: setup
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

costs: setup
	@$(VENV_PYTHON) -m docs.costs

examples: setup
	@$(VENV_PYTHON) -m core examples $(ARGS)

screenshots: setup
	@$(VENV_PYTHON) -m docs.screenshots $(ARGS)

# A corpus that is not drawn is prepared where SOURCE says where it lies. A failed run (status 1) does not keep the others from the report.
reproduce: setup
	@$(if $(SOURCE)$(filter demo,$(CORPUS)),$(VENV_PYTHON) -m core data prepare $(CORPUS) $(if $(SOURCE),--source "$(SOURCE)"),true)
	@$(VENV_PYTHON) -m core sweep $(RUNS) --workers $(WORKERS) --table || [ $$? -eq 1 ]
	@$(VENV_PYTHON) -m core report $(RUNS) --out $(OUT)

clean:
	@find . \( -path ./.venv -o -path ./.git -o -path ./data -o -path ./checkpoints \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@echo "Caches removed. Kept: .venv, data, checkpoints (remove them by hand if you mean it)."
