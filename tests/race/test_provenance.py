from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from steepest.race import provenance
from steepest.race.provenance import code_fingerprint, core_fingerprint


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Modules of one's own in a folder, and fingerprints as a new process would take them."""
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "mine_part.py": "SCALE = 2",
        "mine.py": "import mine_part\nfrom torch.optim import SGD\nclass Mine(SGD): pass",
        "uses.py": "import steepest\nclass Uses(steepest.Muon): pass",
        "other.py": "ONE = 1",
    }
    for name, source in files.items():
        (tmp_path / name).write_text(source)

    def take(target: str) -> str:
        for name in files:
            sys.modules.pop(name.removesuffix(".py"), None)
        importlib.invalidate_caches()
        code_fingerprint.cache_clear()
        return code_fingerprint(target)

    yield take
    code_fingerprint.cache_clear()
    for name in files:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_an_edit_behind_a_class_is_seen_and_one_elsewhere_is_not(tmp_path: Path, fresh) -> None:
    before = fresh("mine:Mine")
    (tmp_path / "other.py").write_text("ONE = 11")
    assert fresh("mine:Mine") == before
    (tmp_path / "mine_part.py").write_text("SCALE = 33")
    after = fresh("mine:Mine")
    assert after != before
    (tmp_path / "mine.py").write_text("from torch.optim import SGD\nclass Mine(SGD): pass")
    assert fresh("mine:Mine") not in (before, after)


def test_the_librarys_source_counts_for_what_uses_it_and_for_nothing_else(fresh, monkeypatch) -> None:
    names = (
        "steepest:Muon",
        "uses:Uses",
        "mine:Mine",
        "torch.optim:AdamW",
        "steepest.race.tasks.digits:task",
    )
    before = [fresh(name) for name in names]
    monkeypatch.setattr(provenance, "core_fingerprint", lambda: "edited")
    changed = [fresh(name) != old for name, old in zip(names, before, strict=True)]
    assert changed == [True, True, False, False, False]


def test_the_librarys_source_is_every_file_of_a_step_and_none_of_the_report(monkeypatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(provenance, "_hash", lambda files: seen.extend(files) or "hash")
    core_fingerprint.__wrapped__()
    root = Path(provenance.__file__).parents[1]
    told = {path.relative_to(root).as_posix() for path in seen}
    assert {"rule.py", "stepping.py", "optimizers/muon.py", "norms.py"} <= told
    assert not any(name.startswith(("race/", "checks/", "cli/")) for name in told)
