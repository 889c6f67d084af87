"""What is known of the network."""

from .connectivity import Connectivity

__all__ = ["Connectivity"]
