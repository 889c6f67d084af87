"""The contract of a backend as tests, for the backends here and for everybody else's.

Subclass the parts that fit in a test file, say how the backend is made, and pytest does the rest; no plugin is needed::

    class TestMine(LifetimeTests, GenerationTests, CancellationTests):
        @classmethod
        def make(cls) -> Backend:
            return MyBackend("mine", MySettings())

Each test says in its name what a router relies on.
"""

from __future__ import annotations

from .arrays import ClassificationTests, EmbeddingTests, InferenceTests
from .cancellation import CancellationTests
from .counting import CountingTests
from .generation import GenerationTests
from .lifetime import LifetimeTests
from .remote import RemoteTests
from .resumption import ResumptionTests
from .suite import MARKER, Suite

__all__ = [
    "MARKER",
    "CancellationTests",
    "ClassificationTests",
    "CountingTests",
    "EmbeddingTests",
    "GenerationTests",
    "InferenceTests",
    "LifetimeTests",
    "RemoteTests",
    "ResumptionTests",
    "Suite",
]
