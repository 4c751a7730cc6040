# Every target makes its own environment in .venv first; `make race` and `make test` need nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: race test jobs lint blocks examples bench docs check-docs package clean

race: $(READY)
	$(BIN)/steepest race $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --cov --cov-report=term $(ARGS)

# Races on a Ray cluster and as torchrun jobs, whose processes are killed: minutes, most of them waiting.
jobs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m jobs tests/race $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python tools/method_pages.py --check

blocks: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/check_blocks.py

examples: $(READY)
	for example in examples/*.py examples/trainers/*.py; do echo "$$example"; $(BIN)/python $$example || exit 1; done

# Everything: plan an hour or more on two cores; an interrupted call goes on. ARGS="--fresh" starts anew.
bench: $(READY)
	$(BIN)/steepest bench --full --seconds 40 --device cpu --out docs/assets/benchmarks_cpu.json \
		--page docs/benchmarks.md $(ARGS)
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		$(BIN)/steepest bench --full --seconds 40 --device cuda --out docs/assets/benchmarks_cuda.json \
			--page docs/benchmarks.md $(ARGS); \
	fi

# The site, in site/: pages of methods and the README's table from docstrings and recipes, then all of it.
docs: $(READY)
	$(BIN)/python tools/method_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# That the site builds, that the notebook runs, and that pictures and results show what there is.
check-docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site
	OMP_NUM_THREADS=1 $(BIN)/python tools/notebook.py --check
	OMP_NUM_THREADS=1 $(BIN)/python tools/pictures.py --check
	$(BIN)/python tools/results.py --check

# That source archive and wheels install and run in clean environments, with and without a compiler.
package: $(READY)
	$(BIN)/python tools/check_package.py

clean:
	rm -rf .venv build dist src/*.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[race,dev,docs,trainers,finetune]"
	# timm asks for torchvision, which its optimizers do not need and which has no build for the CPU alone.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm
	touch $@
