"""Take the pictures of the status monitor in `images/`: `python docs/take_monitor_screenshots.py`.

They show the monitor as it is, with the cards of a site that does not exist. It takes a few seconds.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from pathlib import Path
from typing import Any

from parvis.monitor.log_view import LogLines
from parvis.monitor.status import StatusApp
from parvis.observe.cards import CardBoard
from parvis.observe.log_broadcast import LoggedLine
from parvis.recipe.envelope import dump_json
from parvis.transport.stomp import StompTransport

IMAGES = Path(__file__).parent / "images"
SEED = 7
made_up = random.Random()  # noqa: S311 - for a picture
INSTANCES = {
    "Dispatcher": 2,
    "FileWatcher": 4,
    "ISPyBPIA": 3,
    "JSONLines": 1,
    "NotifyGDA": 2,
    "PerImageAnalysis": 170,
    "XRayCentring": 4,
    "DLS Mailer": 1,
    "DLS Cluster Submission": 3,
    "xia2 (cm37235-1)": 10,
}
MESSAGES = (
    ("PerImageAnalysis", "INFO", "found 17 spots in /data/i03/cm37235-1/grid_00017.cbf"),
    ("FileWatcher", "INFO", "seen 40 of 200 files, waiting for grid_00041.cbf"),
    ("XRayCentring", "INFO", "grid scan 993677: centre at (12.5, 4.0), 812 spots"),
    (
        "PerImageAnalysis",
        "WARNING",
        "tried again in 2 s: /data/i03/cm37235-1/grid_00018.cbf is not whole yet",
    ),
    ("Dispatcher", "INFO", "started per-image-analysis-gridscan for data collection 993677"),
    ("ISPyBPIA", "INFO", "stored 120 results of data collection 993677"),
)


class _Connected(StompTransport):
    """A connection that nobody asks for anything."""

    def __init__(self) -> None:
        super().__init__([("cs04r-broker", 61613)], "", "", "zocalo")

    @property
    def is_connected(self) -> bool:
        return True


def main() -> None:
    """Take all pictures."""
    few = {name: min(count, 3) for name, count in INSTANCES.items()}
    take("monitor-cards.svg", (120, 40), dict.fromkeys(INSTANCES, 1) | {"FileWatcher": 2, "NotifyGDA": 2}, [])
    take("monitor-services.svg", (80, 24), INSTANCES, ["down"] * 5)
    take("monitor-details.svg", (120, 40), few, ["down"] * 7 + ["enter"])
    print(f"Pictures are in {IMAGES}")


def take(name: str, size: tuple[int, int], instances: dict[str, int], keys: list[str]) -> None:
    """Take a picture of the monitor with these instances, after some keys were pressed."""
    made_up.seed(SEED)
    board, lines = CardBoard(), LogLines()
    hosts = [(service, number) for service, count in instances.items() for number in range(count)]
    for place, (service, number) in enumerate(hosts):
        card = _card(service, place, number)
        board.put(dump_json(card), time.monotonic() - (17 if (service, number) == ("NotifyGDA", 1) else 0))
        if service == "FileWatcher":
            lines.put(_line(card, 1))
    for number in range(len(MESSAGES)):
        lines.put(_line({"host": "vm"}, number))
    app = StatusApp(board, lines, _Connected(), "cs04r-broker:61613 zocalo")

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.5)
            await pilot.press(*keys)
            await pilot.pause(0.5)
            (IMAGES / name).write_text(_without_strangers(app.export_screenshot()), encoding="utf-8")

    asyncio.run(run())


def _without_strangers(picture: str) -> str:
    """A picture that asks nobody for fonts, and keeps its spaces."""
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return picture.replace("Fira Code, monospace", "monospace").replace(
        "<text ", '<text xml:space="preserve" '
    )


def _card(service: str, place: int, number: int) -> dict[str, Any]:
    busy = 0.01 if service in {"DLS Mailer", "Dispatcher"} else made_up.random()
    works = busy > 0.4 or service.startswith("xia2")
    card: dict[str, Any] = {
        "host": f"uk.ac.site.cs05r-sc-com{place % 31:02d}.{4100 + 13 * place}",
        "status": 7 if (service, number) == ("PerImageAnalysis", 20) else 4 if works else 2,
        "utilization": {"2": 1 - busy, "4": busy},
    }
    if service.startswith("xia2"):
        return card | {"task": service, "zocalo": "1.5.0", "cluster_JOB_ID": str(88120 + number)}
    card |= {"service": service, "serviceclass": service.removeprefix("DLS ").replace(" ", "")}
    if service.startswith("DLS"):
        return card | {"zocalo": "1.5.0"}
    reason = "no such file: /data/i03/cm37235-1/grid_00400.cbf" if place % 7 == 3 else ""
    rows = [
        [time.time() - 2 * past, _recipe(), "3", "reject" if reason and past == 0 else "done",
         made_up.uniform(0.03, 0.06), reason if past == 0 else ""]
        for past in range(5)
    ]  # fmt: skip
    errors = {"reject": 3, "fail": 1} if reason else {}
    card |= {
        "parvis": "0.0.9" if service == "ISPyBPIA" and number == 0 else "0.1.0",
        "mem-uss": round(made_up.uniform(24, 90), 1),
        "parvis-recent": {"handled": made_up.randrange(900, 60_000), "errors": errors, "last": rows},
    }
    if works:
        card["parvis-recipe"] = _recipe()
    if service == "FileWatcher":
        card["parvis-flow"] = {"held": 2 - number % 3, "in-flight": 1846, "room": 12}
    return card


def _recipe() -> str:
    return f"{made_up.getrandbits(32):08x}-4f0e-4a51-9c1d-{made_up.getrandbits(48):012x}"


def _line(card: dict[str, Any], number: int) -> LoggedLine:
    service, level, message = MESSAGES[number]
    return LoggedLine(time.time(), level, service, card["host"], _recipe(), message)


if __name__ == "__main__":
    main()
