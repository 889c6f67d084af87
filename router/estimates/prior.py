"""What a backend is taken to need before anything was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prior:
    """What is taken for granted before anything was measured.

    ``first`` is the median time to the first token of a short prompt (for all but ``generate``: to the result),
    ``prompt_token`` what each further prompt token adds to it, ``output_token`` the time per output token, ``load``
    what a cold load takes; all in seconds. ``sigma`` is the deviation of their logarithms.
    """

    first: float
    prompt_token: float
    output_token: float
    load: float
    sigma: float = 0.5


ON_DEVICE = Prior(first=0.08, prompt_token=0.004, output_token=0.025, load=1.5)
REMOTE = Prior(first=0.3, prompt_token=0.0002, output_token=0.015, load=1.0)
ON_DEVICE_ARRAYS = Prior(first=0.02, prompt_token=0.0003, output_token=0.0, load=1.0)
REMOTE_ARRAYS = Prior(first=0.1, prompt_token=0.0001, output_token=0.0, load=1.0)
