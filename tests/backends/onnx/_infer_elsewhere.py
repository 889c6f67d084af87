"""One inference by the execution provider named, in whatever environment this runs: model, provider, rows as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy

from edgewise.router import AsyncRouter

CONFIGURATION = """
version: 1
models: {{model: {{source: "file:{model}"}}}}
backends:
  local: {{kind: onnx, task: infer, model: model, location: device, providers: [{provider}]}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  default_data_class: public
  defaults: {{latency_budget: 60s}}
"""


async def infer(model: Path, provider: str, rows: list[list[float]]) -> None:
    """Prints the output ``y``, and what the backend's health says."""
    file = model.parent / "edgewise.yaml"
    file.write_text(CONFIGURATION.format(model=model, provider=provider))
    async with AsyncRouter.from_yaml(file) as router:
        await router.ready()
        tensors = await router.infer("model", {"x": numpy.array(rows, dtype=numpy.float32)})
        said = router.stats().backends["local"].health_sentence
        print(json.dumps({"y": tensors["y"].tolist(), "said": said}))


asyncio.run(infer(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
