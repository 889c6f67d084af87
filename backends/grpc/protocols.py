"""The protocols by name. A new one is one file, one line here, and its name in ``settings.py``."""

from __future__ import annotations

from .edgewise_protocol import EdgewiseProtocol
from .wire_protocol import WireProtocol

PROTOCOL_TYPES: dict[str, type[WireProtocol]] = {
    "edgewise": EdgewiseProtocol,
}
