"""Which tests run in the same of several processes: those of a file, and all campaigns, which come first.

The groups of xdist itself are lost where pytest is newer than it knows.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

CAMPAIGNS = "campaign"  # the directory they are in


class ByFile(LoadScopeScheduling):
    """Hands files to processes, in the order in which tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return CAMPAIGNS if CAMPAIGNS in file.split("/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Choose which process runs which tests."""
    config.option.loadscopereorder = False  # xdist would put the campaigns last, as they are few
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the campaigns: they take longest, one after the other."""
    items.sort(key=lambda item: CAMPAIGNS not in item.path.parts)
