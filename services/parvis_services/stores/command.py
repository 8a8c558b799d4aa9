"""`parvis store`: the group of commands for images that are kept in stores."""

from __future__ import annotations

import click

from parvis.cli.group import CommandTable

_HERE = "parvis_services.stores"
_COMMANDS = {
    "ls": (f"{_HERE}.listing:ls", "List stores, buckets, series and objects."),
    "manifest": (f"{_HERE}.looking:manifest", "Show what became of the images of a series."),
    "ingest": (f"{_HERE}.ingest:ingest", "Put a series that is in files into a store."),
    "submit": (f"{_HERE}.submit:submit", "Have a stored series analysed, and see the results."),
    "digest": (f"{_HERE}.digest:digest", "Analyse a stored series here, without a broker."),
    "get": (f"{_HERE}.get:get", "Fetch an object, by its address or a link, as a file."),
    "link": (f"{_HERE}.looking:link", "Print a link to an object, good for a while."),
    "pin": (f"{_HERE}.keeping:pin", "Keep a series although its time is over."),
    "unpin": (f"{_HERE}.keeping:unpin", "Keep it no longer."),
    "expire": (f"{_HERE}.keeping:expire", "Delete the series whose time is over."),
    "cleanup": (f"{_HERE}.keeping:cleanup", "Delete a series, or a bucket with all its series."),
    "policy": (f"{_HERE}.looking:policy", "Print who has to be allowed what in a bucket."),
}


@click.group(cls=CommandTable, table=_COMMANDS, contributed="parvis.store_commands")
def store() -> None:
    """Look at stored images, put some there, have them analysed, keep and delete them.

    An address is s3://STORE/BUCKET/KEY, or dir://STORE/BUCKET/KEY for a store in a directory. STORE is a name
    under parvis.stores of the configuration, where the logins are, too: an address never holds one.
    """
