"""Reads a configuration: YAML with positions, all sections judged together, all mistakes at once."""

from .backends import BackendEntry
from .configuration import Configuration, load, loads

__all__ = ["BackendEntry", "Configuration", "load", "loads"]
