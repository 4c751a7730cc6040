"""Every method has its picture, made at a rate that is on record."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from steepest.catalogue import methods

pytest.importorskip("matplotlib")
ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "assets" / "gallery"


def tool():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "tools" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_picture_and_a_rate():
    rates = json.loads((GALLERY / "rates.json").read_text())
    assert rates.keys() == methods().keys()
    for name in methods():
        assert (GALLERY / f"{name}.webp").stat().st_size > 10_000


def test_what_differs_is_told(monkeypatch):
    pictures = tool()
    rates = json.loads((GALLERY / "rates.json").read_text())
    few = {name: cls for name, cls in methods().items() if name in ("SignSGD", "ANDI")}
    monkeypatch.setattr(pictures, "methods", lambda: few)
    recorded = {few[name]: SimpleNamespace(**rates[name]) for name in few}
    monkeypatch.setattr(pictures, "walk", lambda cls, lr: recorded[cls])
    kept = {name: dict(rates[name]) for name in few}
    assert {line.partition(":")[0] for line in pictures.wrong(kept)} == {"surplus"}
    kept["ANDI"]["loss"] *= 2
    del kept["SignSGD"]
    told = pictures.wrong(kept)
    assert "no rate: SignSGD" in told
    assert any(line.startswith("changed: ANDI") for line in told)
