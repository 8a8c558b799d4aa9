"""The metadata database and the site's rules, as the configuration names them."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from parvis_services.ispyb.errors import BadDatabaseUrl

if TYPE_CHECKING:
    from parvis_services.ispyb.database import Database
    from parvis_services.ispyb.directories import Site

CREDENTIALS = "ISPYB_CREDENTIALS"
SITE_SETTING = "parvis.ispyb_site"
_SECTION = "ispyb_sqlalchemy"


class Configuration(Protocol):
    """What is read of a configuration."""

    @property
    def ispyb_url(self) -> str | None: ...

    @property
    def storage(self) -> Mapping[str, Any]: ...


def configured_database(config: Configuration) -> Database | None:
    """Return the configured database, or None if there is none.

    It is the one whose URL the configuration holds, else the one that the file named by `ISPYB_CREDENTIALS`
    describes in its section `ispyb_sqlalchemy`.

    Raises:
        BadDatabaseUrl: The URL or that file is no good.
    """
    from parvis_services.ispyb.database import Database

    if config.ispyb_url:
        return Database(config.ispyb_url)
    file = os.environ.get(CREDENTIALS)
    return Database(_url_from(Path(file))) if file else None


def configured_site(config: Configuration) -> Site:
    """Return the rules of the site: `parvis.ispyb_site` in the storage of the configuration, over defaults.

    Raises:
        BadDatabaseUrl: They are no good.
    """
    from pydantic import ValidationError

    from parvis_services.ispyb.directories import Site

    try:
        return Site.model_validate(config.storage.get(SITE_SETTING) or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadDatabaseUrl(f"{SITE_SETTING} in the configuration: {place}: {first['msg']}") from None


def _url_from(file: Path) -> str:
    import sqlalchemy as sa

    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        section = parser[_SECTION]
        url = sa.URL.create(
            "mysql+pymysql",
            username=section["username"],
            password=section["password"],
            host=section["host"],
            port=section.getint("port", 3306),
            database=section["database"],
        )
    except OSError as error:
        raise BadDatabaseUrl(f"{CREDENTIALS}: {file} cannot be read: {error.strerror}") from None
    except (configparser.Error, KeyError, ValueError):
        raise BadDatabaseUrl(
            f"{CREDENTIALS}: {file} needs [{_SECTION}] with username, password, host, port and database"
        ) from None
    return url.render_as_string(hide_password=False)
