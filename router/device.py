"""What policies may know of the device, sampled off the request's path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..policies.facts import DeviceFacts

SAMPLE_EVERY = 5.0


class Device:
    """The device's last sample, renewed in the background when a request finds it older than `SAMPLE_EVERY` seconds.

    The first is taken here and now, so that no request is judged by facts that nobody looked at: it blocks for some
    20 ms. ``sample`` blocks; later ones run in the loop's default executor. Tests give their own.
    """

    def __init__(self, sample: Callable[[], DeviceFacts]) -> None:
        self._sample = sample
        self._facts = sample()
        self._sampled_at = asyncio.get_running_loop().time()
        self._renewal: asyncio.Task[None] | None = None

    def facts(self) -> DeviceFacts:
        """The last sample. Returns at once."""
        loop = asyncio.get_running_loop()
        stale = loop.time() - self._sampled_at > SAMPLE_EVERY
        if stale and (self._renewal is None or self._renewal.done()):
            self._renewal = loop.create_task(self._renew())
        return self._facts

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        self._sampled_at = loop.time()
        self._facts = await loop.run_in_executor(None, self._sample)

    async def stop(self) -> None:
        """End a renewal that runs."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)


def sample_device() -> DeviceFacts:
    """Read battery, load, memory and temperature from the operating system. Blocks for a few milliseconds."""
    import psutil

    # Platforms without the sensor have no such function, by psutil's documentation.
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    return DeviceFacts(
        battery_percent=100 if battery is None else round(battery.percent),
        has_battery=battery is not None,
        charging=battery is None or battery.power_plugged is not False,
        load_percent=min(100, round(load * 100)),
        memory_free_mb=psutil.virtual_memory().available // (1 << 20),
        thermal=_thermal(),
    )


def _thermal() -> str:
    import psutil

    readings = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    states = {"nominal"}
    for sensors in readings.values():
        for sensor in sensors:
            if sensor.critical and sensor.current >= sensor.critical:
                states.add("critical")
            elif sensor.high and sensor.current >= sensor.high:
                states.add("serious")
    return next(state for state in ("critical", "serious", "nominal") if state in states)
