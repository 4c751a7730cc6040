"""What an installation says of itself."""

import pytest
import torch

import steepest
from steepest import config
from steepest.kernels.native.library import Unavailable, load


def test_it_is_printed(capsys):
    assert steepest.show_config() is None
    printed = capsys.readouterr().out
    for word in (steepest.__version__, torch.__version__, "native", "triton", "torch fused", "threads"):
        assert word in printed


def test_it_is_returned(capsys):
    found = steepest.show_config("dict")
    assert found is not None
    assert found["threads"] == {"torch": torch.get_num_threads()}
    native = found["native"]
    assert native["available"] == (not isinstance(load(), Unavailable))
    assert ("simd" in native) == native["available"]
    assert ("reason" in native) != native["available"]
    assert not capsys.readouterr().out


def test_the_reason_for_a_missing_path_is_told(monkeypatch, capsys):
    monkeypatch.setattr(config, "load", lambda: Unavailable("switched off by someone", wanted=False))
    steepest.show_config()
    assert "switched off by someone" in capsys.readouterr().out


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="mode must be 'stdout' or 'dict', got 'json'"):
        steepest.show_config("json")  # pyright: ignore[reportArgumentType]
