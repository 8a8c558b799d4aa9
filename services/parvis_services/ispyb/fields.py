"""The `ispyb_…` fields that recipes are filled with, for one data collection."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parvis_services.ispyb import images, relations, science
from parvis_services.ispyb.directories import Site, Visit, find_visit, job_directory
from parvis_services.ispyb.errors import BadParameter
from parvis_services.ispyb.facts import CollectionFacts, collection_facts
from parvis_services.ispyb.reprocessing import processing_job_fields
from parvis_services.ispyb.visit_files import VisitFiles, look_in_visit

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database

Fields = dict[str, Any]

_GUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST = 2**31 - 1  # of the numbers that ISPyB gives its rows
_NO_PARAMETERS: Mapping[str, Any] = {}
_SITE = Site()


def message_fields(database: Database, parameters: Mapping[str, Any], *, site: Site = _SITE) -> Fields:
    """All fields for the parameters of one message.

    A processing job (`ispyb_process`, also called `ispyb_reprocessing_id`) adds its own fields and names the
    data collection, unless `ispyb_dcid` names another. Parameters that name neither have no fields.

    Raises:
        See `collection_fields` and `processing_job_fields`.
    """
    job_id = parameters.get("ispyb_reprocessing_id") or parameters.get("ispyb_process")
    job = processing_job_fields(database, as_number(job_id, "ispyb_process")) if job_id else {}
    dcid = parameters.get("ispyb_dcid") or (job.get("ispyb_processing_job") or {}).get("dataCollectionId")
    if not dcid:
        return job
    return job | collection_fields(database, dcid, parameters={**parameters, **job}, site=site)


def collection_fields(
    database: Database, dcid: int | str, *, parameters: Mapping[str, Any] = _NO_PARAMETERS, site: Site = _SITE
) -> Fields:
    """All fields of one data collection (`docs/reference/ispyb-fields.md` explains each).

    The number of queries does not depend on how much belongs to the data collection. Models of the protein
    that ISPyB holds are written as files into the visit, where programs can read them.

    Args:
        database: where to look.
        dcid: number of the data collection, also as text.
        parameters: of the message; `guid` names the directories of this job, `ispyb_image` and
            `ispyb_images` are kept as they are given.
        site: the rules of the site.

    Returns:
        The fields by name, of values that JSON can carry.

    Raises:
        UnknownDataCollection: there is none with that number.
        BadParameter: `dcid` or `guid` is not what it must be.
        VisitUnreachable: the files of the visit could not be looked at in time.
        DatabaseUnavailable: the database cannot be reached just now.
        DatabaseError: it is not an ISPyB database, or it refused.
    """
    guid = _guid(parameters.get("guid"))
    number = as_number(dcid, "ispyb_dcid")
    with database.reading() as connection:
        facts = collection_facts(database, connection, number)
        members = relations.group_members(database, connection, facts.group)
        groups = relations.sample_groups(database, connection, facts.sample_id)
        near = relations.same_sample if facts.sample_id else relations.same_directory
        siblings = near(database, connection, facts)
        pin = relations.pin_samples(database, connection, facts.sample)
        scan = science.energy_scan(database, connection, facts)
        models = science.protein_models(database, connection, facts)
        classes = images.scan_classes(facts.row, facts.grid, facts.experiment)
        events = science.pulse_events(database, connection, number) if _has_pulses(classes) else None
    visit = find_visit(facts.row["imageDirectory"], site)
    # No connection is held while a file system may hang.
    files = look_in_visit(visit, facts.row["fileTemplate"], models, site) if visit else VisitFiles()
    if not groups and files.sample_groups and visit and facts.session:
        with database.reading() as connection:
            groups = relations.named_groups(database, connection, facts, visit, files.sample_groups)
    return {
        **_identity(facts, guid, visit),
        **_raw_rows(facts, guid, classes, scan),
        **_image_fields(facts, members, parameters, site),
        **_directories(facts, guid, visit, site),
        **_crystal(facts, files),
        "ispyb_preferred_processing": facts.pipeline or site.preferred_processing,
        "ispyb_msp_sample_ids": pin,
        "ispyb_dcg_dcids": [
            each["dataCollectionId"] for each in members if each["dataCollectionId"] != number
        ],
        "ispyb_related_dcids": [*groups, siblings],
        **({} if events is None else _pulses(events)),
    }


def as_number(value: object, name: str) -> int:
    """A number of a row as messages carry it: a positive integer, or its digits.

    Raises:
        BadParameter: it is something else, or larger than any that ISPyB has.
    """
    digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if re.fullmatch(r"[0-9]{1,10}", digits) and 0 < int(digits) <= _LARGEST:
        return int(digits)
    if re.fullmatch(r"[0-9]+", digits) and digits.strip("0"):
        raise BadParameter(f"{name} is too large: {value!r:.80}, where ISPyB counts to {_LARGEST}")
    raise BadParameter(f"{name} must be a positive whole number, not {value!r:.80}")


def _guid(value: object) -> str:
    if value is None or value == "":
        return str(uuid.uuid4())
    # It becomes the name of a directory.
    if isinstance(value, str) and _GUID.fullmatch(value):
        return value
    raise BadParameter(f"guid must be letters, digits, '-', '_' and '.', at most 64, not {value!r:.80}")


def _has_pulses(classes: Mapping[str, bool | None]) -> bool:
    if classes["grid"] or classes["screen"]:
        return False
    return bool(classes["rotation"] or classes["serial_fixed"] or classes["serial_jet"])


def _identity(facts: CollectionFacts, guid: str, visit: Visit | None) -> Fields:
    prefix, number = facts.row["imagePrefix"], facts.row["dataCollectionNumber"]
    letters = re.sub(r"[^A-Za-z0-9]+", "", f"{prefix}{number}")
    return {
        "ispyb_dcid": facts.dcid,
        "guid": guid,
        "ispyb_beamline": facts.beamline or (visit.beamline if visit else None),
        "ispyb_visit": visit.name if visit else None,
        "ispyb_project": visit.name.replace("-", "v") if visit else "AUTOMATIC",
        "ispyb_crystal": f"x{letters}" if prefix and number else "DEFAULT",
        "ispyb_detectorclass": images.detector_class(facts.detector_model, facts.row["fileTemplate"]),
        "ispyb_detectorname": images.detector_name(facts.detector_model),
    }


def _raw_rows(facts: CollectionFacts, guid: str, classes: Mapping[str, bool | None], scan: Fields) -> Fields:
    sample = facts.sample or {}
    pin = ("containerId", "location", "loopType", "subLocation")
    return {
        "ispyb_dc_info": {**facts.row, "uuid": guid, "gridinfo": facts.grid},
        "ispyb_dc_class": dict(classes),
        "ispyb_dcg_experiment_type": facts.experiment,
        "ispyb_diffraction_plan": facts.plan,
        "ispyb_protein_info": facts.protein,
        "ispyb_energy_scan_info": scan,
        "ispyb_pin_info": {name: sample[name] for name in pin} if facts.sample else {},
        "ispyb_smiles": sample.get("SMILES"),
    }


def _image_fields(
    facts: CollectionFacts, members: list[dict[str, Any]], parameters: Mapping[str, Any], site: Site
) -> Fields:
    row = facts.row
    first, last = images.first_and_last(row)
    whole = parameters.get("ispyb_image") or images.image_range(row)
    sweeps = [(each["dataCollectionId"], *images.first_and_last(each)) for each in members]
    paths = [(each["dataCollectionId"], _first_image(each)) for each in members]
    return {
        "ispyb_image_first": first,
        "ispyb_image_last": last,
        "ispyb_image_template": row["fileTemplate"],
        "ispyb_image_directory": row["imageDirectory"],
        "ispyb_image_pattern": images.image_pattern(row["fileTemplate"]),
        **({"ispyb_image": whole} if whole else {}),
        "ispyb_images": parameters.get("ispyb_images") or _other_rotations(facts, members, site),
        "ispyb_related_sweeps": sweeps,
        "ispyb_related_images": [(dcid, path) for dcid, path in paths if path],
    }


def _first_image(row: Mapping[str, Any]) -> str | None:
    return images.image_path(row["imageDirectory"], row["fileTemplate"], row["startImageNumber"])


def _other_rotations(facts: CollectionFacts, members: list[dict[str, Any]], site: Site) -> str:
    """The other rotations of the group, which are processed together with this one if it is one."""
    directory = facts.row["imageDirectory"] or ""
    if (
        images.is_screening(facts.row)
        or not images.is_rotation(facts.row)
        or directory.startswith(site.unrelated)
    ):
        return ""
    others = (each for each in members if each["dataCollectionId"] != facts.dcid and images.is_rotation(each))
    return ",".join(filter(None, map(images.image_range, others)))


def _directories(facts: CollectionFacts, guid: str, visit: Visit | None, site: Site) -> Fields:
    prefix, number = facts.row["imagePrefix"], facts.row["dataCollectionNumber"]

    def inside(below: str) -> str | None:
        return job_directory(visit, below, prefix, number, guid)

    return {
        "ispyb_visit_directory": visit.directory if visit else None,
        "ispyb_working_directory": inside(site.working),
        "ispyb_results_directory": inside(site.results),
        "ispyb_final_directory": inside(site.final),
    }


def _crystal(facts: CollectionFacts, files: VisitFiles) -> Fields:
    # What the user wrote into the visit counts where ISPyB says nothing.
    known = facts.space_group is not None
    return {
        "ispyb_space_group": facts.space_group if known else files.space_group,
        "ispyb_unit_cell": facts.unit_cell if known else files.unit_cell,
        "ispyb_reference_geometry": files.reference_geometry,
        "ispyb_pdb": files.models,
    }


def _pulses(events: list[dict[str, Any]]) -> Fields:
    return {"ispyb_ssx_events": events or None, "ispyb_ssx_shots_per_image": science.shots_per_image(events)}
