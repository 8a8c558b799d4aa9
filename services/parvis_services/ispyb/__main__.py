"""Make the tables of ISPyB from the command line: ``python -m parvis_services.ispyb --help``."""

from __future__ import annotations

import click

from parvis_services.ispyb.errors import IspybError

EXAMPLES = """
\b
Examples:
  python -m parvis_services.ispyb create-schema sqlite:///ispyb.sqlite
  export PARVIS_ISPYB_URL=mysql+pymysql://...
  python -m parvis_services.ispyb create-schema
"""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Prepare a metadata database for a trial; a site's own is prepared by its administrators."""


@main.command("create-schema")
@click.argument("url", envvar="PARVIS_ISPYB_URL")
def create(url: str) -> None:
    """Create the tables of ISPyB that are missing from the database at URL.

    Without URL the environment variable PARVIS_ISPYB_URL says which; other users cannot see a password there.
    An SQLite file is made if there is none. A MariaDB database must exist.
    """
    from parvis_services.ispyb.database import Database
    from parvis_services.ispyb.schema import create_schema

    try:
        database = Database(url)
        create_schema(database)
        database.close()
    except IspybError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"The tables of ISPyB are in {database}.")


if __name__ == "__main__":
    main(prog_name="python -m parvis_services.ispyb")
