"""Data collections with all that belongs to them, made for one test."""

from __future__ import annotations

import itertools
from typing import Any

import sqlalchemy as sa

from parvis_services.ispyb.collections import (
    create_collection,
    create_grid,
    create_group,
    create_proposal,
    create_session,
)
from parvis_services.ispyb.database import Database

_numbers = itertools.count(1)


def insert(database: Database, table: str, **values: Any) -> int:
    """Insert one row; gives its number."""
    target = database.table(table)
    with database.writing() as connection:
        inserted = connection.execute(sa.insert(target).values(values)).inserted_primary_key
    assert inserted is not None
    return inserted[0]


def session(database: Database, *, beamline: str = "i03") -> int:
    """A session of a proposal of its own."""
    return create_session(database, _proposal(database), visit=1, beamline=beamline)


def group(
    database: Database, *, experiment: str = "SAD", sample: int | None = None, of: int | None = None
) -> int:
    """A data collection group, in a session of its own unless one is given."""
    return create_group(database, of or session(database), experiment=experiment, sample=sample)


def rotation(database: Database, in_group: int, *, directory: str | None = None, **more: Any) -> int:
    """A rotation of 100 images of 0.1 degrees, in a directory of its own unless one is given."""
    where = directory or f"/dls/i03/data/2026/cm{next(_numbers):05d}-1/thaumatin/"
    number = more.pop("number", 1)
    return create_collection(
        database,
        in_group,
        directory=where,
        template=f"thau_{number}_####.cbf",
        images=100,
        number=number,
        axis_range=0.1,
        more=more,
    )


def grid(database: Database, in_group: int, *, steps: tuple[int, int] = (4, 3), **more: Any) -> int:
    """A grid scan."""
    dcid = create_collection(
        database,
        in_group,
        directory=f"/dls/i03/data/2026/cm{next(_numbers):05d}-1/grid/",
        template="grid_1_####.cbf",
        images=steps[0] * steps[1],
        more=more,
    )
    create_grid(database, dcid, steps=steps, step_size=(0.02, 0.02))
    return dcid


def protein(database: Database, name: str = "thaumatin", **more: Any) -> int:
    """A protein, of a proposal of its own."""
    return insert(database, "Protein", proposalId=_proposal(database), name=name, **more)


def sample(database: Database, **more: Any) -> int:
    """A sample with crystal and protein; `crystal` and `protein` may name existing ones."""
    of = more.pop("protein", None) or protein(database, acronym="thau")
    about = more.pop("about_crystal", {})
    crystal = more.pop("crystal", None) or insert(database, "Crystal", proteinId=of, **about)
    return insert(database, "BLSample", crystalId=crystal, name="thau8", **more)


def _proposal(database: Database) -> int:
    return create_proposal(database, "cm", next(_numbers))
