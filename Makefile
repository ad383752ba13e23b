# make demo       install, run the whole workflow on the demo cohort, say where the report is
# make test       install, run the tests that take minutes; make test-all: those that take longer too
# make test-sge   the tests that take minutes on a real Grid Engine, which fail where none answers; as an ordinary user, with
#                 the cell that tests/sge/cell.sh starts (as root). test-all has them too, and skips them where none answers
# make test-slurm the same on a real Slurm, of tests/slurm/cell.sh; make test-cluster: both, side by side
# make lint       the checks that every commit passes
# make bench      measure speed
# make bench-gpu  measure speed on a GPU, in at most eight minutes; nothing is installed. Tables into the folder OUT, or bench-gpu
# make docs       the pages of docs/ as a website, in site/; make dag draws docs/images/dag.svg anew (needs Graphviz)
# make quality    measure brain mask, registration and N4 on 147 real scans, where they are (../shared/data/ixi-hh-2mm)
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)

.PHONY: demo test test-sge test-slurm test-cluster test-all lint format bench bench-gpu quality docs dag lock
.DEFAULT_GOAL := demo

.venv/installed: envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("mriflow needs Python 3.11, 3.12 or 3.13, $(PYTHON) is %s.%s; run make PYTHON=python3.11" % sys.version_info[:2] if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement envs/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: .venv/installed
	$(SNAKEMAKE) --quiet reason host
	@echo
	@echo "report:  $(CURDIR)/results/report.html  (open it in a browser)"
	@echo "figures: $(CURDIR)/results/*/figures/"
	@echo "models:  $(CURDIR)/results/*/fold-*/model.pt"

test: .venv/installed
	$(BIN)/pytest -m "not long" --ignore=tests/cluster -n 2 --dist loadgroup --durations=30

# Such a test mostly waits for its jobs, so there are more of them at once than cores.
test-sge: .venv/installed
	REQUIRE_SGE=1 $(BIN)/pytest tests/cluster -m "sge and not long" -n 6

test-slurm: .venv/installed
	REQUIRE_SLURM=1 $(BIN)/pytest tests/cluster -m "slurm and not long" -n 6

test-cluster: .venv/installed
	REQUIRE_SGE=1 REQUIRE_SLURM=1 $(BIN)/pytest tests/cluster -m "not long" -n 8

test-all: .venv/installed
	$(BIN)/pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/python -m mriflow.reference --check

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow/rules
	$(BIN)/python -m mriflow.reference

bench: .venv/installed
	$(BIN)/python tests/benchmarks/bench.py

# By the Python of .venv, if there is one; it needs torch, numpy, pandas, nibabel and monai.
bench-gpu:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) tests/benchmarks/gpu.py $(OUT)

quality: .venv/installed
	$(BIN)/python tests/benchmarks/quality.py

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build
	@echo "pages: $(CURDIR)/site/index.html"

.venv-docs/installed: envs/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --requirement envs/docs.txt
	@touch $@

# The rules of a run on real scans. tred leaves an arrow out where a longer way leads to the same place.
dag: .venv/installed
	$(SNAKEMAKE) --forceall --rulegraph --configfile config/experiments/ixi-age.yaml > .dag.dot
	tred .dag.dot | gvpr -c -f docs/dag.gvpr | dot -Tsvg > docs/images/dag.svg
	rm .dag.dot

# Resolves requirements.txt anew. A local version tag (+cpu) is dropped: each machine gets its own build.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --requirement envs/requirements.txt
	(head -1 envs/requirements.lock; .venv-lock/bin/pip freeze | sed -E 's/^(torch==[0-9.]+)\+.*/\1/') > envs/requirements.new
	mv envs/requirements.new envs/requirements.lock
	rm -r .venv-lock
