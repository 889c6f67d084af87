"""The phrasebook keeps the contract of a backend. Found by its entry point, as a configuration finds it."""

from edgewise.backends import Backend
from edgewise.backends.contract import CancellationTests, GenerationTests, LifetimeTests
from edgewise.backends.registry import find_kind
from edgewise.core.settings import Seconds


class TestPhrasebook(LifetimeTests, GenerationTests, CancellationTests):
    honours_stop = False

    @classmethod
    def make(cls) -> Backend:
        kind = find_kind("phrasebook")
        return kind.build("phrases", kind.settings("all is well " * 20, Seconds(0.001)), {})
