"""A worker process: reads runs as JSON lines, answers with records as JSON lines.

Its standard output belongs to the answers; what a task or an optimizer prints goes to the log. It uses
the threads that a run asks for, one by default, so that results do not depend on how many workers there
are, and it ends at once when its parent is gone.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import TextIO

READY = "ready"


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    import torch

    from steepest.race.spec import RunSpec
    from steepest.race.torchrun import perform

    waiting: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(waiting,), daemon=True).start()
    _answer(answers, READY)
    while True:
        spec = RunSpec.from_dict(json.loads(waiting.get()))
        torch.set_num_threads(spec.engine.threads)
        _answer(answers, perform(spec).to_json())


def _read(waiting: queue.Queue[str]) -> None:
    for line in sys.stdin:
        waiting.put(line)
    os._exit(0)


def _answer(stream: TextIO, line: str) -> None:
    print(line, file=stream, flush=True)


if __name__ == "__main__":
    main()
