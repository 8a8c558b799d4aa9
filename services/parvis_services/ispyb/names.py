"""The names of all fields, for checking recipes before they run; it needs no database and imports nothing."""

from __future__ import annotations

_IDENTITY = (
    *("guid", "ispyb_dcid", "ispyb_beamline", "ispyb_visit", "ispyb_project", "ispyb_crystal"),
    *("ispyb_detectorclass", "ispyb_detectorname"),
)
_ROWS = (
    *("ispyb_dc_info", "ispyb_dc_class", "ispyb_dcg_experiment_type", "ispyb_diffraction_plan"),
    *("ispyb_protein_info", "ispyb_energy_scan_info", "ispyb_pin_info", "ispyb_smiles"),
    *("ispyb_ssx_events", "ispyb_ssx_shots_per_image"),
)
_IMAGES = (
    *("ispyb_image", "ispyb_image_first", "ispyb_image_last", "ispyb_image_template"),
    *("ispyb_image_directory", "ispyb_image_pattern", "ispyb_images"),
    *("ispyb_related_sweeps", "ispyb_related_images"),
)
_DIRECTORIES = (
    *("ispyb_visit_directory", "ispyb_working_directory", "ispyb_results_directory"),
    "ispyb_final_directory",
)
_SCIENCE = (
    *("ispyb_space_group", "ispyb_unit_cell", "ispyb_reference_geometry", "ispyb_pdb"),
    "ispyb_preferred_processing",
)
_RELATIONS = ("ispyb_dcg_dcids", "ispyb_related_dcids", "ispyb_msp_sample_ids")
_PROCESSING_JOB = (
    *("ispyb_process", "ispyb_processing_job", "ispyb_processing_parameters"),
    "ispyb_reprocessing_parameters",
)


def field_names() -> frozenset[str]:
    """The names that `message_fields` may fill in."""
    return frozenset((*_IDENTITY, *_ROWS, *_IMAGES, *_DIRECTORIES, *_SCIENCE, *_RELATIONS, *_PROCESSING_JOB))
