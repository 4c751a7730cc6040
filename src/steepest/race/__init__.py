"""Race optimizers fairly on real tasks."""

from steepest.race.paper import Claim, Paper
from steepest.race.task import Task

__all__ = ["Claim", "Paper", "Task"]
