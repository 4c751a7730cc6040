"""Adapters for trainers that build optimizers themselves; each module is imported by whoever uses it.

Nothing here is needed where a trainer takes an optimizer that its user has made (Lightning, Accelerate, plain
loops).
"""
