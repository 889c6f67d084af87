"""The protocols by name. A new one is one file, one line here and one in ``settings.py``."""

from __future__ import annotations

from .edgewise_protocol import EdgewiseProtocol
from .google_protocols import GeminiProtocol, VertexProtocol
from .oip_protocol import OipProtocol
from .settings import ProtocolName
from .wire_protocol import WireProtocol

PROTOCOL_TYPES: dict[ProtocolName, type[WireProtocol]] = {
    ProtocolName.EDGEWISE: EdgewiseProtocol,
    ProtocolName.OIP: OipProtocol,
    ProtocolName.GEMINI: GeminiProtocol,
    ProtocolName.VERTEX: VertexProtocol,
}
