"""Plain restatements of the published update rules, one rule per function.

They are written from the equations alone, for one tensor at a time, in the dtype of the inputs (the tests
use float64), without batching, stability tricks or shared state classes. Every function takes the initial
weight, the sequence of gradients and the hyperparameters, and returns the list of iterates.
"""
