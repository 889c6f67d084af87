"""A whole request on a device without any network: run by test_without_network.py in a namespace of its own.

Prints what came of it, and every name that was looked up and every address that was connected to in this process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

touched: list[str] = []


def note(event: str, arguments: tuple[object, ...]) -> None:
    """Note what would touch a network."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        touched.append(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}")


def main() -> None:
    """Ask what only the device may answer, and what anybody may."""
    sys.addaudithook(note)
    from edgewise.router import Router

    with Router.from_yaml(Path(sys.argv[1])) as router:
        router.ready()
        own = router.generate("Say hello.", data_class="secret", latency_budget="60s", max_output_tokens=4)
        anybody = router.generate("Say hello.", data_class="public", latency_budget="60s", max_output_tokens=4)
        print(
            json.dumps(
                {
                    "own": own.backend,
                    "anybody": anybody.backend,
                    "refusals": [refusal.sentence for refusal in anybody.decision.refusals],
                    "state": router.connectivity.state,
                    "touched": touched,
                }
            )
        )


if __name__ == "__main__":
    main()
