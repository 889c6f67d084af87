"""For applications' tests and our own: a scripted backend, and a clock that needs no waiting."""

from .scripted import ReceivedCall, Resumption, Script, ScriptedBackend
from .virtual_time import VirtualTimeLoop, run_in_virtual_time

__all__ = ["ReceivedCall", "Resumption", "Script", "ScriptedBackend", "VirtualTimeLoop", "run_in_virtual_time"]
