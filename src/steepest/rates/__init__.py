"""Which lr: carried over from AdamW by the size of updates, or found by a sweep."""

from steepest.rates.range_test import RangeTest, lr_range_test
from steepest.rates.suggest import Suggestion, suggest_lr

__all__ = ["RangeTest", "Suggestion", "lr_range_test", "suggest_lr"]
