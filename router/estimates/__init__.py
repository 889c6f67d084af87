"""What a call will take, learned from those before it."""

from .estimator import Estimator, Trial
from .prior import Prior

__all__ = ["Estimator", "Prior", "Trial"]
