"""The database goes away while results arrive: none is lost, none is there twice."""

from __future__ import annotations

from pathlib import Path

from facility import facility
from parvis.transport.embedded.thread import BrokerThread
from parvis_services.ispyb.database import Database
from parvis_services.ispyb.schema import CORE_TABLES, create_schema
from real.mariadb import MariaDb
from running import broker_environment, connected, recipe_message
from waiting import wait_until

IMAGES = 300


def test_results_wait_for_the_database(tmp_path: Path, mariadb: MariaDb) -> None:
    url = mariadb.create_database("outage")
    create_schema(Database(url), tables=CORE_TABLES)
    with (
        BrokerThread(port=0) as broker,
        facility(tmp_path, broker_environment(broker.port), url, {"ISPyBPIA": 1}) as place,
        connected(broker.port) as transport,
    ):
        log = tmp_path / "logs" / "ISPyBPIA.log"
        scan = place.new_grid("a_####.cbf", IMAGES)
        wait_until(lambda: "ready:" in log.read_text(), 30, "the service")

        def send(first: int, last: int) -> None:
            parameters = {"dcid": scan.dcid}
            transport.send(
                *[
                    recipe_message("ispyb_pia", {"file-number": n, "n_spots_total": n}, parameters=parameters)
                    for n in range(first, last + 1)
                ]
            )

        send(1, 100)
        wait_until(lambda: len(scan.rows()) == 100, 30, "the first rows")
        mariadb.stop()
        try:
            send(101, IMAGES)
            wait_until(lambda: "trying again" in log.read_text(), 60, "the first refusal")
        finally:
            mariadb.start()
        wait_until(lambda: len(scan.rows()) == IMAGES, 60, "all rows")
        assert scan.rows() == [(number, number) for number in range(1, IMAGES + 1)]
