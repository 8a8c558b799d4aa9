"""`parvis store get`: an object, by its address or by a link, as a file."""

from __future__ import annotations

import contextlib
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from parvis_services.stores.arguments import UrlType, opened, with_storage, written_size
from parvis_services.stores.progress import progress_bar

if TYPE_CHECKING:
    from parvis_services.stores.link import Link
    from parvis_services.stores.url import ObjectUrl

_MEGABYTE: Final = 1_000_000


class _LinkOrUrlType(UrlType):
    """The address of an object, or a link to one."""

    def convert(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> ObjectUrl | Link:
        """Read it; neither is repeated if it is no good, as there may be a secret in it."""
        from parvis_services.stores.link import BadLink, Link, is_link

        if not isinstance(value, str) or not is_link(value):
            return super().convert(value, param, ctx)
        try:
            return Link.parse(value)
        except BadLink as error:
            self.fail(str(error), param, ctx)


@click.command(
    epilog="""\b
Examples:
  parvis store get s3://ceph/i04/993677/1/000007 -o image
  parvis store get s3://ceph/i04/993677/1/header | jq .header
  parvis store get 'https://ceph/i04/993677/1/000007?X-Amz-...' -o image
""",
)
@click.argument("source", metavar="URL|LINK", type=_LinkOrUrlType())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write; otherwise, or with '-', standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@with_storage
def get(source: ObjectUrl | Link, output: Path | None, force: bool, storage: Mapping[str, Any]) -> None:
    """Fetch an object by its address, which takes the role read, or by a link, which takes no login.

    What comes is compared with the SHA-256 that is stored with it. A link that has expired is answered with
    403 by the store: ask for a new one. Quote a link, for the shell's sake.

    Exit code: 0 it is there, whole; 1 it cannot be had, or the file is there already; 2 wrong usage.
    """
    if output is None and sys.stdout.isatty():
        raise click.UsageError("an image is nothing for a terminal: give -o FILE")
    file = None if output is None or str(output) == "-" else output
    if file is not None:
        _check(file, force)
    data, was_compared = _fetch(source, storage)
    if file is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    _write(file, data, force)
    compared = "its SHA-256 is right" if was_compared else "there was no SHA-256 to compare it with"
    click.echo(f"{file}: {written_size(len(data))}, {compared}")


def _fetch(source: ObjectUrl | Link, storage: Mapping[str, Any]) -> tuple[bytes, bool]:
    """The content, and whether there was a checksum to compare."""
    from parvis_services.stores.link import Link, fetch_link
    from parvis_services.stores.store import CHECKSUM

    with progress_bar("MB fetched") as moved:
        if isinstance(source, Link):
            return fetch_link(
                source,
                storage,
                lambda done, total: moved(done // _MEGABYTE, None if total is None else total // _MEGABYTE),
            )
        if not source.key:
            raise click.UsageError(f"{source} is no object: name one")
        found = opened(source, "read", storage).get(source.bucket, source.key)
        return found.data, CHECKSUM in found.info.metadata


def _check(file: Path, force: bool) -> None:
    """Refuse what must not be written to, before anything is fetched."""
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise click.ClickException(f"{file} is no plain file, and is left alone")
    if not force:
        raise click.ClickException(f"{file} is there already: --force overwrites it")


def _write(file: Path, data: bytes, force: bool) -> None:
    """Write a file: all of it is there, or nothing of it. Raises OSError."""
    # What is to be overwritten stays until all is written.
    target = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part") if force else file
    try:
        stream = target.open("xb")
    except FileExistsError:
        raise click.ClickException(f"{file} is there already: --force overwrites it") from None
    try:
        with stream:
            stream.write(data)
        if force:
            target.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise
