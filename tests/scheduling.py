"""Which tests run in the same of several processes: those of a file, and all campaigns."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """Hands files to processes, in the order in which tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "campaign" if "/campaign/" in file else file
