"""Measure optimizer steps side by side: time, first step, memory, scaling, and the library's own targets."""
