"""What the dispatcher fills recipes in with besides the parameters of a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parvis_services.ispyb.names import field_names

#: What holds unless the message or the site says otherwise: nobody at GDA listens.
DEFAULTS: Mapping[str, Any] = {"gda_host": "mx-control", "gda_port": 9998}

#: Setting of the site's configuration with more of the kind.
SITE_PARAMETERS = "parvis.recipe_parameters"

# What `parvis go` puts into a message beside the data collection.
_GIVEN = {"ispyb_autoprocscalingid", "event"}


def site_parameters(storage: Mapping[str, Any]) -> dict[str, Any]:
    """Return what recipes at this site are filled in with, unless a message says otherwise."""
    configured = storage.get(SITE_PARAMETERS)
    return {**DEFAULTS, **(configured if isinstance(configured, dict) else {})}


def placeholders() -> set[str]:
    """Return the names that the dispatcher fills in, for checking recipes before they run."""
    return {*field_names(), *DEFAULTS, *_GIVEN}
