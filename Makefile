# Every target makes its own environment in .venv first; `make race` and `make test` need nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: race test lint blocks examples bench docs clean

race: $(READY)
	$(BIN)/steepest race $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --cov --cov-report=term $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python tools/method_pages.py --check

blocks: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/check_blocks.py

examples: $(READY)
	for example in examples/*.py; do echo "$$example"; $(BIN)/python $$example || exit 1; done

# Everything: plan an hour or more on two cores; an interrupted call goes on. ARGS="--fresh" starts anew.
bench: $(READY)
	$(BIN)/steepest bench --full --seconds 120 --device cpu --out docs/assets/benchmarks_cpu.json \
		--page docs/benchmarks.md $(ARGS)
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		$(BIN)/steepest bench --full --seconds 120 --device cuda --out docs/assets/benchmarks_cuda.json \
			--page docs/benchmarks.md $(ARGS); \
	fi

# The pages of the methods and the README's table, from docstrings and recipes.
docs: $(READY)
	$(BIN)/python tools/method_pages.py

clean:
	rm -rf .venv build dist src/*.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[race,dev,trainers]"
	touch $@
