"""One real server for all tests of a class: starting one takes seconds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

from edgewise.backends.contract import LifetimeTests, RemoteTests

from .servers import Running


class OneServer(LifetimeTests, RemoteTests):
    """Subclasses say how it is started. ``server`` is its name in the results."""

    __test__ = False

    server: ClassVar[str]
    running: ClassVar[Running]
    _folder: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def begin(cls, folder: Path) -> Running:
        """Start it, with its files in ``folder``."""
        raise NotImplementedError

    @classmethod
    def setup_class(cls) -> None:
        cls._folder = tempfile.TemporaryDirectory()
        cls.running = cls.begin(Path(cls._folder.name))
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        try:
            super().teardown_class()
        finally:
            cls.running.stop()
            cls._folder.cleanup()

    @classmethod
    async def restart(cls) -> None:
        cls.running.stop()
        cls.running.begin()
