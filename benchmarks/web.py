"""What the web page costs: CPU with many browsers that watch 300 simulated services.

    python benchmarks/web.py [--services N] [--browsers N] [--seconds S]

The services are those of `simulated_services.py`. The browsers are connections that take the events of a
page, without drawing anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from parvis.transport.embedded import BrokerThread

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe_machine
from simulated_services import simulated

SETTLE = 8.0


def main() -> None:
    """Measure with one browser and with many, and print the table."""
    parser = argparse.ArgumentParser(description="What the web page costs.")
    parser.add_argument("--services", type=int, default=300)
    parser.add_argument("--browsers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    print(describe_machine("litestar", "uvicorn"))
    print("page       browsers  services  cards/s     CPU   memory  to each browser")
    with tempfile.TemporaryDirectory() as place, BrokerThread() as broker:
        environment = {
            "PARVIS_STOMP_HOST": "127.0.0.1",
            "PARVIS_STOMP_PORT": str(broker.port),
            "PARVIS_STOMP_PREFIX": "bench",
            "PARVIS_STATE_DIRECTORY": place,
        }
        command = [sys.executable, "-m", "parvis", "web", "--port", "0", "--json"]
        page = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
        try:
            assert page.stdout is not None
            address = json.loads(page.stdout.readline())["address"]
            with simulated(broker.port, given.services) as sent:
                for view, browsers in (
                    ("services", 0),
                    ("services", 1),
                    ("services", given.browsers),
                    ("overview", given.browsers),
                ):
                    asyncio.run(
                        measure(page.pid, address, view, browsers, given.services, given.seconds, sent)
                    )
        finally:
            page.terminate()
            page.wait()


async def measure(
    process: int, address: str, view: str, browsers: int, services: int, seconds: float, sent: list[int]
) -> None:
    """Have browsers watch a view, and print what that took."""
    received = [0]

    async def watch(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", f"/live/{view}") as stream:
            async for piece in stream.aiter_raw():
                received[0] += len(piece)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits, trust_env=False) as client:  # noqa: S113 - events come when they come
        watching = [asyncio.create_task(watch(client)) for _ in range(browsers)]
        await asyncio.sleep(SETTLE)
        watched = psutil.Process(process)
        begun, cards, size = time.monotonic(), sent[0], received[0]
        before = sum(watched.cpu_times()[:2])
        await asyncio.sleep(seconds)
        took = time.monotonic() - begun
        share = (sum(watched.cpu_times()[:2]) - before) / took
        memory = watched.memory_full_info().uss / 1e6
        rate, each = (sent[0] - cards) / took, (received[0] - size) / took / 1000 / max(browsers, 1)
        what = f"{view:<10} {browsers:8d} {services:9d} {rate:8.0f}"
        print(f"{what} {share:7.1%} {memory:5.0f} MB {each:11.1f} kB/s", flush=True)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


if __name__ == "__main__":
    main()
