# Two commands matter: `make demo` and `make test`. Both set up their own .venv first.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
DATA ?= ../shared/data

.PHONY: demo test lint types contracts proofs unit deployment guides bench accountant contained sensitivity understated empirical questions nightly mutants longer hostile kills lock sbom peers tabular clean help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Torch is fixed by its version alone: it comes as other builds (CPU, CUDA) for other machines.
$(VENV)/.ready: pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "privagg needs Python 3.11 or newer; try: make PYTHON=python3.12 demo"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv"; exit 2; }
	$(BIN)/python -m pip install -q --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(VENV)/.ready  ## three hospitals train one model; results in out/
	$(BIN)/privagg demo --output out

test: $(VENV)/.ready lint types contracts unit deployment proofs  ## everything that CI runs

lint: $(VENV)/.ready  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready  ## mypy, strict
	$(BIN)/mypy privagg

contracts: $(VENV)/.ready  ## import contracts and the proofs' bindings
	$(BIN)/lint-imports
	$(BIN)/python -m proofs.bind

proofs: $(VENV)/.ready  ## every theorem, by Rocq, and what privagg answers; PROOFS=--required fails without Rocq
	$(BIN)/python -m proofs.vectors --check
	$(BIN)/python -m proofs.check $(PROOFS)
	$(BIN)/python -m proofs.certificates $(PROOFS)

# Ledgers are synced to disk thousands of times: a folder in memory halves the time on a slow disk.
unit: $(VENV)/.ready  ## pytest; its files in the folder SCRATCH, where one is named (/dev/shm/privagg)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not deployment and not nightly' \
		$(if $(SCRATCH),--basetemp=$(SCRATCH))

deployment: $(VENV)/.ready  ## SuperLink, SuperNodes and key holder as processes on loopback
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'deployment and not nightly' tests/flower

guides: $(VENV)/.ready  ## every command of the guides to deployments, between processes on this machine
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m deployment tests/documents

bench: $(VENV)/.ready  ## heart and credit on DATA (default ../shared/data), and compression
	$(BIN)/python -m tests.benchmarks.heart --data $(DATA)/heart --json out/heart.json
	$(BIN)/python -m tests.benchmarks.credit --data $(DATA)/credit --json out/credit.json
	$(BIN)/python -m tests.benchmarks.defaults --data $(DATA) --json out/defaults.json
	$(BIN)/python -m tests.benchmarks.compression --json out/compression.json

accountant: $(VENV)/.ready  ## certified intervals on 2,000 settings: widths, times; a ledger's next round
	$(BIN)/python -m tests.benchmarks.certified --count 2000 --json out/certified.json

contained: $(VENV)/.ready  ## certified intervals against quadrature of the definition, 300 settings
	$(BIN)/python -m tests.benchmarks.contained --json out/contained.json

sensitivity: $(VENV)/.ready  ## how far one record moves a sum, by adversarial search
	$(BIN)/python -m tests.benchmarks.sensitivity --json out/sensitivity.json

understated: $(VENV)/.ready  ## where dp-accounting and Opacus lie below the proven epsilon
	$(BIN)/python -m tests.benchmarks.under_reports --json out/under_reports.json

empirical: $(VENV)/.ready  ## epsilon from below: canaries through the sites' own code
	$(BIN)/python -m tests.benchmarks.empirical --json out/empirical.json

FUZZ ?= 300000
KILLS ?= 200

nightly: $(VENV)/.ready test mutants guides longer hostile kills empirical accountant contained understated sensitivity  ## hours: all of it

mutants: $(VENV)/.ready  ## changes of the code that the theorems' vectors must notice; and coqchk
	$(BIN)/python -m proofs.check --required --kernel
	$(BIN)/python -m tests.benchmarks.mutants --json out/mutants.json

longer: $(VENV)/.ready  ## the long forms of tests whose short forms are in `make unit`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m nightly

hostile: $(VENV)/.ready  ## FUZZ (300,000) hostile inputs against every parser and the aggregator
	PRIVAGG_FUZZ=$(FUZZ) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --timeout 40000 \
		tests/protocol/test_fuzz.py tests/protocol/test_parsers.py

kills: $(VENV)/.ready  ## a ledger under 8 writers that are killed KILLS (200) times, here and on PostgreSQL
	$(BIN)/python -m tests.benchmarks.ledger --kills $(KILLS) --json out/ledger.json

LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

lock: $(VENV)/.ready  ## requirements*.lock: the hashes of what constraints.txt and the SBOM's tool name
	grep -v '^torch==' constraints.txt | $(BIN)/$(LOCK) --no-deps - -o requirements.lock
	echo 'cyclonedx-bom==7.5.0' | $(BIN)/$(LOCK) - -o requirements-sbom.lock

.tools/sbom/.ready: requirements-sbom.lock
	$(PYTHON) -m venv .tools/sbom
	.tools/sbom/bin/python -m pip install -q --require-hashes --no-deps -r $<
	@touch $@

sbom: $(VENV)/.ready .tools/sbom/.ready  ## what is installed here, as CycloneDX, in out/sbom.json
	@mkdir -p out
	.tools/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--validate --of JSON -o out/sbom.json $(BIN)/python

# Peers pin other versions than we do (NVIDIA FLARE 2.9: tenseal 0.3.15), so each has its own venv.
.peers/flare/.ready: Makefile
	$(PYTHON) -m venv .peers/flare
	.peers/flare/bin/python -m pip install -q 'nvflare[HE]==2.9.0'
	@touch $@

.peers/flower/.ready: Makefile
	$(PYTHON) -m venv .peers/flower
	.peers/flower/bin/python -m pip install -q 'flwr==1.41.0'
	@touch $@

.peers/opendp/.ready: Makefile
	$(PYTHON) -m venv .peers/opendp
	.peers/opendp/bin/python -m pip install -q 'opendp==0.16.0'
	@touch $@

.peers/interpret/.ready: Makefile
	$(PYTHON) -m venv .peers/interpret
	.peers/interpret/bin/python -m pip install -q 'interpret-core==0.7.8'
	@touch $@

# It is built from source, which takes a compiler, cmake and some minutes; it wants numpy before 2.
.peers/dp-xgboost/.ready: Makefile
	$(PYTHON) -m venv .peers/dp-xgboost
	.peers/dp-xgboost/bin/python -m pip install -q 'dp-xgboost==0.2.10' 'numpy<2' 'scikit-learn<1.8'
	@touch $@

tabular: $(VENV)/.ready .peers/interpret/.ready .peers/dp-xgboost/.ready  ## scorecards, and peers' private models of tables
	$(BIN)/python -m tests.benchmarks.tabular --data $(DATA) --peers 5 --json out/tabular.json

questions: $(VENV)/.ready .peers/opendp/.ready  ## private statistics against OpenDP's central answers
	$(BIN)/python -m tests.benchmarks.questions --data $(DATA) --json out/questions.json

peers: $(VENV)/.ready .peers/flare/.ready .peers/flower/.ready  ## our aggregation against NVIDIA FLARE's and Flower's
	$(BIN)/python -m tests.benchmarks.peers --json out/peers.json --plot out/peers.png

clean:  ## remove what the targets made
	rm -rf $(VENV) .peers .tools out build *.egg-info .mypy_cache .ruff_cache .pytest_cache
