"""K-FAC: coordinates from what a layer sees and what comes back to it.

- ``kinds``: what a row of input and of output gradient is, per layer type
- ``statistics``: sums over rows
- ``layers``: which layers and parameters form one matrix
- ``hooks``: gathering, and leaving no trace
- ``factors``: covariances, eigenbases, damping
- ``direction``: one layer's gradients to its directions
- ``network``: all layers of a step, on this process or several
- ``front``: in front of another optimizer
"""

from steepest.preconditioners.kfac.factors import ActivationKronecker
from steepest.preconditioners.kfac.front import KFACPreconditioner

__all__ = ["ActivationKronecker", "KFACPreconditioner"]
