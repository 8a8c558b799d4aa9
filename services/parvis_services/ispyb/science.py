"""What is known of a sample's chemistry and of the pulses it saw: energy scans, models, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from parvis_services.ispyb.rows import columns_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from parvis_services.ispyb.database import Database
    from parvis_services.ispyb.facts import CollectionFacts

_HC = 12398.42  # eV Angstrom
_REMOTE = 30.0  # eV from the edge beyond which a wavelength is remote


def energy_scan(database: Database, connection: Connection, facts: CollectionFacts) -> dict[str, Any]:
    """The energy scan of the session that is nearest to the wavelength of a data collection.

    Scans of the sample itself go before scans of other samples of the same protein.

    Returns:
        `energyscanid`, `atom_type`, `edge_position` (`peak`, `infl`, `hrem` or `lrem`: above or below the
        edge), and at the peak and the inflection `fp` and `fpp` (electrons); empty if there is no scan.
    """
    wavelength, protein = facts.row["wavelength"], (facts.protein or {}).get("proteinId")
    if not wavelength or wavelength < 0 or protein is None or not facts.session:
        return {}
    scan, sample, crystal = database.tables("EnergyScan", "BLSample", "Crystal")
    statement = (
        sa.select(scan)
        .join(sample, sample.c.blSampleId == scan.c.blSampleId)
        .join(crystal, crystal.c.crystalId == sample.c.crystalId)
        .where(crystal.c.proteinId == protein, scan.c.sessionId == facts.session, scan.c.element.is_not(None))
        .where(scan.c.peakEnergy.is_not(None), scan.c.inflectionEnergy.is_not(None))
        .order_by(scan.c.energyScanId)
    )
    scans = [columns_of(scan.c, row) for row in connection.execute(statement)]
    own = [each for each in scans if each["blSampleId"] == facts.sample_id]
    energy = _HC / wavelength

    def distance(each: dict[str, Any]) -> float:
        return min(abs(each["peakEnergy"] - energy), abs(each["inflectionEnergy"] - energy))

    nearest = min(own or scans, key=distance, default=None)
    return {} if nearest is None else _described(nearest, energy)


def _described(scan: dict[str, Any], energy: float) -> dict[str, Any]:
    peak, inflection = scan["peakEnergy"], scan["inflectionEnergy"]
    described = {"energyscanid": scan["energyScanId"], "atom_type": scan["element"]}
    if energy > peak + _REMOTE:
        return described | {"edge_position": "hrem"}
    if energy < inflection - _REMOTE:
        return described | {"edge_position": "lrem"}
    if abs(energy - inflection) < abs(energy - peak):
        factors = {"fp": scan["inflectionFPrime"], "fpp": scan["inflectionFDoublePrime"]}
        return described | {"edge_position": "infl"} | factors
    return described | {"edge_position": "peak", "fp": scan["peakFPrime"], "fpp": scan["peakFDoublePrime"]}


def protein_models(
    database: Database, connection: Connection, facts: CollectionFacts
) -> list[dict[str, Any]]:
    """The PDB rows of the protein of a data collection's sample: `name`, `code`, `source`, `contents`."""
    protein = (facts.protein or {}).get("proteinId")
    if protein is None:
        return []
    model, link = database.tables("PDB", "Protein_has_PDB")
    wanted = [column for column in model.c if column.name in {"name", "code", "source", "contents"}]
    statement = (
        sa.select(*wanted)
        .join(link, link.c.pdbid == model.c.pdbId)
        .where(link.c.proteinid == protein)
        .order_by(model.c.pdbId)
    )
    return [{"source": None} | columns_of(wanted, row) for row in connection.execute(statement)]


def pulse_events(database: Database, connection: Connection, dcid: int) -> list[dict[str, Any]]:
    """The events (exposures, laser pulses, detections) of each shot of a serial data collection.

    Returns:
        The Event rows, each with its `eventType`.
    """
    event, chain, kind = database.tables("Event", "EventChain", "EventType")
    statement = (
        sa.select(event, kind.c.name)
        .join(chain, chain.c.eventChainId == event.c.eventChainId)
        .join(kind, kind.c.eventTypeId == event.c.eventTypeId)
        .where(chain.c.dataCollectionId == dcid)
        .order_by(event.c.eventId)
    )
    found = connection.execute(statement)
    return [{"eventType": row[-1]} | columns_of(event.c, row) for row in found]


def shots_per_image(events: list[dict[str, Any]]) -> int | None:
    """How many X-ray shots go into one image: the repetitions of the detection events."""
    detections = (event["repetition"] or 0 for event in events if event["eventType"] == "XrayDetection")
    return int(sum(detections)) or None
