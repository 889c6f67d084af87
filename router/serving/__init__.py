"""`edgewise serve`: this device's backends, offered to other routers over gRPC.

Importing this imports no gRPC; ``server.py`` does.
"""

from .settings import ServeSettings, check

__all__ = ["ServeSettings", "check"]
