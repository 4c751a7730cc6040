"""Every test has a cache of its own and no folder of the user's."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STEEPEST_OFFLINE", "1")
    monkeypatch.delenv("STEEPEST_DATA", raising=False)
    return tmp_path / "cache"
