"""A server that revokes a token: its clients leave it alone, and come back when their file has another."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.core.decision import RefusalCode
from edgewise.core.settings import Secret
from edgewise.router import AsyncRouter, BackendError
from edgewise.router.config import loads

from .conftest import Scripted, Serve

CONFIGURATION = """
version: 1
backends:
  far:
    kind: grpc
    target: {target}
    credentials_from: {{file: token}}
    location: {{process_in: [NL]}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  defaults: {{latency_budget: 5s, order: [quality]}}
"""


async def test_a_backend_out_of_use_for_its_token_is_back_once_its_file_has_another(
    serve: Serve, tmp_path: Path
) -> None:
    backend = Scripted("m")
    server = await serve(backend, tokens=(Secret("right"),))
    (tmp_path / "token").write_text("revoked\n")
    async with AsyncRouter(loads(CONFIGURATION.format(target=server.address), tmp_path)) as router:
        with pytest.raises(BackendError, match="credentials"):
            await router.generate("Hello")
        (refusal,) = (await router.plan("Hello")).refusals
        assert refusal.code is RefusalCode.QUARANTINED
        assert not backend.seen
        (tmp_path / "new").write_text("right\n")
        (tmp_path / "new").rename(tmp_path / "token")
        assert (await router.generate("Hello")).text == "hello there"
