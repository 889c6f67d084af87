"""Ask one question and show why the answer came from where it came: ``python examples/ask.py edgewise.yaml``."""

from __future__ import annotations

import sys

from edgewise.router import EdgewiseError, Router


def ask(router: Router, question: str, data_class: str) -> None:
    """Print the answer as it comes, and the decision behind it."""
    with router.stream(question, data_class=data_class, latency_budget=60, max_output_tokens=64) as chunks:
        for chunk in chunks:
            if chunk.seam is not None:
                print(f"⟦{chunk.seam.from_backend} → {chunk.seam.to_backend}⟧", end="")
            print(chunk.text, end="", flush=True)
            if chunk.answer is not None:
                print(f"\n\n{chunk.answer.decision.explain()}\n")


def main() -> None:
    """One question of each class; the configuration's file is the argument."""
    file = sys.argv[1] if len(sys.argv) > 1 else "edgewise.yaml"
    try:
        with Router.from_yaml(file) as router:
            ask(router, "Why is the sky blue?", "public")
            ask(router, "What may help a patient who sleeps badly?", "health")
    except EdgewiseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
