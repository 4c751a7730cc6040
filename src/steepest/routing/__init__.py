"""Which parameter plays which role, and which options follow from it."""

from steepest.routing.plan import param_groups
from steepest.routing.table import ParamGroups

__all__ = ["ParamGroups", "param_groups"]
