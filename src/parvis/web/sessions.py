"""Session cookies: the library's, and no complaint about one that somebody has made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.exceptions import SerializationException
from litestar.middleware.session.client_side import ClientSideSessionBackend, CookieBackendConfig


class _Backend(ClientSideSessionBackend):
    def load_data(self, data: list[bytes]) -> dict[str, Any]:
        try:
            return super().load_data(data)
        except (KeyError, TypeError, ValueError, SerializationException):
            return {}  # no session of ours


@dataclass
class SessionCookies(CookieBackendConfig):
    """How session cookies are made; as `CookieBackendConfig`."""

    _backend_class = _Backend
