"""Per-image analysis by DIALS itself, where it is installed.

The steps are those of `dials.find_spots_server`: spots are found without limits of resolution, and their
centroids filtered afterwards.
"""

from __future__ import annotations

from typing import Any

from parvis_services.xray.errors import BrokenImageError, FrameRangeError, TooManyStrongPixelsError
from parvis_services.xray.parameters import AnalysisParameters, MaskParameters
from parvis_services.xray.statistics import ImageAnalysis


def analyse(path: str, parameters: AnalysisParameters, frame: int | None = None) -> ImageAnalysis:
    """The nine numbers of one image, found by DIALS.

    Raises:
        RuntimeError: DIALS is not installed.
        ValueError: The parameters ask for what is not passed on to DIALS.
        ImageError: DIALS cannot read or analyse the image.
    """
    dials = _import_dials()
    if parameters.masks != MaskParameters():
        raise ValueError("masks are not passed on to DIALS: leave them out, or use the engine 'parvis'")
    try:
        experiments = dials.ExperimentListFactory.from_filenames([path])
    except Exception as error:
        raise BrokenImageError(path, f"DIALS cannot read it: {error}") from error
    settings = _settings(dials, parameters)
    experiments = _select_frame(path, experiments, settings, frame or 0)
    try:
        reflections = dials.flex.reflection_table.from_observations(experiments, settings)
    except RuntimeError as error:
        raise TooManyStrongPixelsError(path, f"DIALS finds no spots: {error}") from error
    reflections.centroid_px_to_mm(experiments)
    reflections.map_centroids_to_reciprocal_space(experiments)
    reflections = _within_resolution(reflections, parameters)
    result = dials.stats_for_reflection_table(
        reflections, filter_ice=parameters.filter_ice, ice_rings_width=parameters.ice_rings_width
    )
    return ImageAnalysis(**result._asdict())


class _Dials:
    """The parts of DIALS that are used."""

    def __init__(self) -> None:
        from dials.algorithms.spot_finding.per_image_analysis import (  # pyright: ignore[reportMissingImports]
            stats_for_reflection_table,
        )
        from dials.array_family import flex  # pyright: ignore[reportMissingImports]
        from dials.command_line.find_spots import phil_scope  # pyright: ignore[reportMissingImports]
        from dxtbx.model.experiment_list import (  # pyright: ignore[reportMissingImports]
            ExperimentListFactory,
        )

        self.stats_for_reflection_table: Any = stats_for_reflection_table
        self.flex: Any = flex
        self.phil_scope: Any = phil_scope
        self.ExperimentListFactory: Any = ExperimentListFactory


def _import_dials() -> _Dials:
    try:
        return _Dials()
    except ImportError as error:
        raise RuntimeError(
            f"the engine 'dials' needs DIALS in this Python ({error}): start Parvis from an environment that "
            "has it, or use the engine 'parvis', which gives the same numbers"
        ) from error


def _settings(dials: _Dials, parameters: AnalysisParameters) -> Any:
    settings = dials.phil_scope.extract()
    finder = settings.spotfinder
    finder.write_hot_mask = False
    finder.threshold.algorithm = parameters.algorithm
    finder.filter.disable_parallax_correction = True
    finder.filter.d_min = finder.filter.d_max = None
    finder.filter.max_separation = parameters.filters.max_separation
    finder.filter.max_spot_size = parameters.filters.max_spot_size
    finder.filter.max_strong_pixel_fraction = parameters.filters.max_strong_pixel_fraction
    if parameters.filters.min_spot_size is not None:
        finder.filter.min_spot_size = parameters.filters.min_spot_size
    dispersion = finder.threshold.dispersion
    if parameters.threshold.gain != 1:
        dispersion.gain = parameters.threshold.gain
    dispersion.kernel_size = list(parameters.threshold.kernel_size)
    dispersion.sigma_background = parameters.threshold.n_sigma_b
    dispersion.sigma_strong = parameters.threshold.n_sigma_s
    dispersion.min_local = parameters.threshold.min_local
    dispersion.global_threshold = parameters.threshold.global_threshold
    finder.mp.nproc = 1
    return settings


def _select_frame(path: str, experiments: Any, settings: Any, frame: int) -> Any:
    """One image: of many stills by choosing the experiment, of a rotation by the range of its scan."""
    if len(experiments) > 1:
        if frame >= len(experiments):
            raise FrameRangeError(path, f"there is no frame {frame}: it has {len(experiments)}")
        return experiments[frame : frame + 1]
    imageset = experiments[0].imageset
    if frame >= len(imageset):
        raise FrameRangeError(path, f"there is no frame {frame}: it has {len(imageset)}")
    scan = experiments[0].scan
    number = (scan.get_image_range()[0] if scan else 1) + frame
    settings.spotfinder.scan_range = [(number, number)]
    return experiments


def _within_resolution(reflections: Any, parameters: AnalysisParameters) -> Any:
    d_star = reflections["rlp"].norms()
    reflections = reflections.select(d_star > 0)
    for limit, is_finest in ((parameters.d_min, True), (parameters.d_max, False)):
        if limit is not None:
            d_star = reflections["rlp"].norms()
            wanted = d_star <= 1 / limit if is_finest else d_star >= 1 / limit
            reflections = reflections.select(wanted)
    return reflections
