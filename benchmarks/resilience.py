"""How long an answer takes when a server fails: this SDK, and a client with timeouts and retries written by hand.

    python -m benchmarks.resilience [--only "slow drip"]

Both ask the same real gRPC server, which misbehaves frame by frame, for the same stream, and both may fall back to the
same device. The one by hand does what is usual: a timeout for each try, three tries with growing pauses, then the
device. Ours has one budget, as long as one of those timeouts. The last column says what the caller got.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router import AsyncRouter, RequestError
from edgewise.testing import Script, ScriptedBackend
from tests.faults.catalogue import FAULTS, SECRET, Where

TIMEOUT = 2.0
TRIES = 3
PAUSES = (0.2, 0.4)
DEVICE = Script(words=("three ", "four "), first_after=0.05, every=0.02)

_CONFIGURATION = """
version: 1
models:
  tiny: {{source: "file:tiny.gguf"}}
backends:
  cloud:
    kind: grpc
    target: {target}
    location: {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}
    quality: 0.9
    {more}
  phone: {{kind: llama_cpp, model: tiny, location: device, quality: 0.3}}
policy:
  data_classes: {{public: {{process_in: [any]}}, secret: {{process_in: []}}}}
  default_data_class: public
  defaults: {{latency_budget: {timeout}s, order: [quality]}}
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller got, and after how many seconds the first of it and the end."""

    text: str
    first: float
    whole: float
    finished: bool = True

    @property
    def verdict(self) -> str:
        """What the text is worth."""
        if not self.finished:
            return "a cut answer, as if it were whole"
        known = {
            "one two ": "the server's",
            "three four ": "the device's",
            "one two three four ": "the server's, continued by the device",
            "one one two two ": "the server's, as it sent it",
        }
        return known.get(self.text, f"wrong: {self.text!r}" if self.text else "nothing")


async def ours(where: Where, folder: Path) -> Told:
    """By this SDK."""
    path = folder / "edgewise.yaml"
    path.write_text(_CONFIGURATION.format(target=where[0], more=where[1], timeout=TIMEOUT))
    async with AsyncRouter.from_yaml(path, backends={"phone": ScriptedBackend("phone", DEVICE)}) as router:
        for _ in range(6):  # a router that has been at work knows its device
            await router.generate("warm", data_class="secret")
        begun, first, text = time.perf_counter(), 0.0, ""
        try:
            async for chunk in router.stream(SECRET, max_output_tokens=4):
                first = first or time.perf_counter() - begun
                text += chunk.text
        except RequestError:
            pass
        return Told(text, first, time.perf_counter() - begun)


async def by_hand(where: Where, folder: Path) -> Told:
    """With a timeout and retries, as it is usually written."""
    target, tls = where
    begun, first, text = time.perf_counter(), 0.0, ""
    roots = (folder / "roots.pem").read_bytes() if tls else b""
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots))
        if tls
        else grpc.aio.insecure_channel(target)
    )
    call = channel.unary_stream(
        "/edgewise.v1.ModelService/Generate",
        request_serializer=wire.GenerateRequest.SerializeToString,
        response_deserializer=wire.GenerateResponse.FromString,
    )
    request = wire.GenerateRequest(max_output_tokens=4)
    async with channel:
        for number in range(TRIES):
            text, finished = "", False
            try:
                async for response in call(request, timeout=TIMEOUT):
                    first = first or time.perf_counter() - begun
                    text += response.delta.text
                    finished = finished or response.HasField("finish")
                return Told(text, first, time.perf_counter() - begun, finished)
            except (grpc.aio.AioRpcError, AttributeError):  # grpc gives None for a message that it cannot read
                if number < len(PAUSES):
                    await asyncio.sleep(PAUSES[number])
    await asyncio.sleep(DEVICE.first_after)
    first = time.perf_counter() - begun  # what a failed try had shown was taken back
    await asyncio.sleep(DEVICE.every)
    return Told("".join(DEVICE.words), first, time.perf_counter() - begun)


async def _measure(fault: str) -> tuple[Told, Told]:
    with tempfile.TemporaryDirectory() as folder:
        async with FAULTS[fault](Path(folder)) as where:
            hand = await by_hand(where, Path(folder))
            return await ours(where, Path(folder)), hand


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FAULTS, action="append", help="this fault alone")
    faults = parser.parse_args().only or list(FAULTS)
    table = Table("fault", "ours: first, whole", "by hand: first, whole", "by hand / ours", "ours got", "by hand got")
    console = Console(width=150)
    ratios, told = [], []
    for fault in faults:
        mine, hand = asyncio.run(_measure(fault))
        told.append(mine)
        ratios.append(hand.whole / mine.whole)
        times = [f"{each.first:.2f} s, {each.whole:.2f} s" for each in (mine, hand)]
        table.add_row(fault, *times, f"{ratios[-1]:.1f} ×", mine.verdict, hand.verdict)
    console.print(table)
    slowest = max(each.whole for each in told)
    print(
        f"median ratio {statistics.median(ratios):.1f}; the slowest of ours took {slowest:.2f} s of its {TIMEOUT:.0f} s"
    )


if __name__ == "__main__":
    main()
