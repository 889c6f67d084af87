"""Processes that submit, replay and read until they are killed. Each writes down a receipt once it has it.

Reads lines ``OUTBOX JOURNAL SEED``. Each starts a process, forked from this one, which has imported everything and
started no loop and no thread; its number is printed, and once it has ended, its status. No network is needed: the
backend is scripted and answers with what it was asked, so that an answer can be told from another.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from edgewise.backends import CallContext
from edgewise.core.answer import Delta, Finish, FinishReason, GenerateEvent
from edgewise.core.content import GenerateInput
from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter, DeadLetter, EdgewiseError
from edgewise.router.config import loads
from edgewise.router.outbox import Outbox, Receipt, Replayer
from edgewise.router.outbox.pacer import Pacer
from edgewise.testing import ScriptedBackend

CONFIGURATION = """\
version: 1
backends:
  cloud: {{kind: grpc, target: '127.0.0.1:1', location: {{process_in: [NL], store_in: [], operators: [NL]}}}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  default_data_class: public
  offline: {{outbox: {outbox}, max_entries: 100000, max_sends: 1000}}
"""


_LONGEST = 120
"""Seconds after which a process ends by itself."""


class Echo(ScriptedBackend):
    """Answers with the prompt, and a word that differs from answer to answer."""

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """One delta."""
        await asyncio.sleep(0.001)
        yield Delta(f"{call.messages[-1].text} {random.getrandbits(64):016x}")
        yield Finish(FinishReason.STOP)


class Journal:
    """A file that outlives a killed process: what the application was told, line by line."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def write(self, *words: str) -> None:
        """One line, in one write."""
        os.write(self._file, (" ".join(words) + "\n").encode())


async def work(outbox: Path, journal: Journal, dice: random.Random) -> None:
    """Submit, read, cancel, for ever; a replay runs beside it."""
    configuration = loads(CONFIGURATION.format(outbox=outbox), outbox.parent)
    async with AsyncRouter(configuration, backends={"cloud": Echo("cloud")}, sample=DeviceFacts) as router:
        own = Outbox(configuration.policy_settings.offline, time.time)
        pacer = Pacer(dice, start_rate=300.0, highest_rate=300.0)
        replayer = Replayer(own, router, dice, pacer=pacer, lease_seconds=0.2)
        replaying = asyncio.create_task(replayer.run())
        journal.write("open")
        receipts: list[Receipt] = []
        while not replaying.done():
            prompt = f"note-{dice.getrandbits(64):016x}"
            receipt = await router.submit(prompt, order_key=dice.choice([None, "a", "b"]))
            journal.write("receipt", receipt, prompt)
            receipts.append(receipt)
            await look(router, journal, dice.choice(receipts))
            if dice.random() < 0.05:
                chosen = dice.choice(receipts)
                if await router.cancel(chosen):
                    journal.write("cancelled", chosen)
            async for result in router.results():
                text = result.answer.text if result.answer is not None else f"dead {result.receipt}"
                journal.write("result", result.receipt, text)
            await asyncio.sleep(dice.random() * 0.01)


async def look(router: AsyncRouter, journal: Journal, receipt: Receipt) -> None:
    """Read one result, and write down what it said."""
    try:
        answer = await router.result(receipt)
    except DeadLetter as error:
        journal.write("result", receipt, "dead", error.receipt)
    else:
        if answer is not None:
            journal.write("result", receipt, answer.text)


def run(outbox: Path, journal: Journal, seed: int) -> None:
    """Work until killed."""
    try:
        asyncio.run(work(outbox, journal, random.Random(seed)))
    except EdgewiseError as error:
        journal.write("failed", type(error).__name__, str(error))
        raise


def main() -> None:
    """One process for each line, one after the other."""
    for line in sys.stdin:
        outbox, journal, seed = line.split()
        child = os.fork()
        if child == 0:
            signal.alarm(_LONGEST)  # where nobody is left to kill it
            run(Path(outbox), Journal(Path(journal)), int(seed))
            os._exit(1)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
