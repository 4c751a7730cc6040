"""Records by code, and a strict reader of the pages made of them."""

import math
from html.parser import HTMLParser

from steepest.race.records import RunRecord
from steepest.race.report import Origin
from steepest.race.report.page import render_pages
from steepest.race.statistics import summarize

VOID = {"meta", "br", "hr", "col"}


class Document(HTMLParser):
    """Reads a document strictly: every tag must be closed in its place."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "data", "xlink:href", "action"):
                self.links.append(value or "")
            assert not name.startswith("on"), f"event handler {name}"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def prose(self) -> str:
        return " ".join(self.words)


def record(task: str, optimizer: str, phase: str, lr: float, seed: int, loss: float | None) -> RunRecord:
    ok = loss is not None
    end = loss if loss is not None else math.nan
    curve = tuple((step, 2.3 + (end - 2.3) * step / 100) for step in range(0, 101, 5))
    return RunRecord(
        key=f"{task}/{optimizer}/{phase}/{lr}/{seed}",
        task=task,
        task_version="1",
        optimizer=optimizer,
        target=f"package.module:{optimizer}",
        kwargs={"betas": [0.9, 0.99]},
        lr=lr,
        aux_lr=0.003,
        seed=seed,
        phase=phase,
        steps=100,
        status="ok" if ok else "diverged",
        error=None if ok else "loss is not finite at step 7\nmore",
        train_curve=curve,
        val_curve=curve,
        metrics={"val_loss": end, "val_accuracy": 1 - end / 4} if ok else {},
        final_loss=end if ok else math.inf,
        seconds=1.5,
        step_ms=0.5,
        fwd_bwd_ms=2.0,
        state_bytes=8000,
        param_count=1000,
        started="2026-01-02T03:04:05Z",
        versions={"torch": "2.13.0", "steepest": "0.1.0"},
        hardware={"cpu": "some processor", "cores": 2},
        settings={"batch_size": 64, "phase_seed": seed},
    )


def race(*tasks: str, optimizers: tuple[str, ...] = ("AdamW", "ANDI", "SGD")) -> list[RunRecord]:
    records: list[RunRecord] = []
    for task in tasks:
        for k, name in enumerate(optimizers):
            for lr, excess in ((0.001, 0.4), (0.01, 0.0), (0.1, 0.3)):
                records.append(record(task, name, "sweep", lr, 0, 0.5 + 0.1 * k + excess))
            records.append(record(task, name, "sweep", 1.0, 0, None))
            records += [
                record(task, name, "final", 0.01, s, 0.5 + 0.1 * k + 0.002 * s * (k + 1)) for s in (1, 2, 3)
            ]
    return records


def pages(records: list[RunRecord], command: str = "steepest race") -> dict[str, Document]:
    origins = [Origin(command, frozenset(r.key for r in records))]
    written = render_pages(summarize(records), records=records, origins=origins)
    return {name: Document(source) for name, source in written.items()}


def prose(records: list[RunRecord], command: str = "steepest race") -> str:
    return " ".join(page.prose for page in pages(records, command).values())
