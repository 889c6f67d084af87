"""What a call will take, learned from those before it."""

from .estimator import Estimator, Prior

__all__ = ["Estimator", "Prior"]
