"""For applications' tests: a scripted backend, and a clock that needs no waiting."""

from .router.testing import ReceivedCall, Resumption, Script, ScriptedBackend, VirtualTimeLoop, run_in_virtual_time

__all__ = ["ReceivedCall", "Resumption", "Script", "ScriptedBackend", "VirtualTimeLoop", "run_in_virtual_time"]
