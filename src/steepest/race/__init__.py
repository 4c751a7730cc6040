"""Race optimizers fairly on real tasks."""

from steepest.race.task import Task

__all__ = ["Task"]
