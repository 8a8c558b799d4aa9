"""The ring in shared memory: many readers, none of which gets anything but whole messages, in order."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from parvis_services.stream.ring import RingError, RingReader, RingWriter
from parvis_services.stream.ring_layout import kept_path, path_of
from waiting import wait_until

SLOTS, SLOT = 16, 1024


@pytest.fixture
def name() -> Iterator[str]:
    made = f"test-{uuid.uuid4().hex}"
    yield made
    for path in path_of(made).parent.glob(f"parvis-ring-{made}*"):
        path.unlink()


@pytest.fixture
def writer(name: str) -> Iterator[RingWriter]:
    with closing(RingWriter(name, SLOTS, SLOT)) as made:
        yield made


@pytest.fixture
def reader(name: str) -> Iterator[RingReader]:
    with closing(RingReader(name)) as made:
        yield made


def rest(reader: RingReader) -> list[list[bytes]]:
    """Everything that can be read now."""
    messages: list[list[bytes]] = []
    while (message := reader.receive(0)) is not None:
        messages.append([bytes(part) for part in message])
    return messages


def numbered(first: int, last: int) -> list[list[bytes]]:
    return [[b"%d" % number] for number in range(first, last + 1)]


def write(writer: RingWriter, first: int, last: int) -> None:
    for message in numbered(first, last):
        writer.write(message)


def test_two_readers_get_all(writer: RingWriter, name: str) -> None:
    messages = [[b"one"], [b"of", b"", b"three"], [memoryview(b"views")]]
    for message in messages:
        writer.write(message)
    for _ in range(2):
        with closing(RingReader(name)) as reader:
            assert rest(reader) == messages
            assert reader.lost == 0


def test_a_message_larger_than_a_slot(writer: RingWriter, reader: RingReader) -> None:
    large = [os.urandom(5 * SLOT), os.urandom(17)]
    for _ in range(4):  # so that one goes over the end of the memory
        writer.write([b"small"])
        writer.write(large)
        assert rest(reader) == [[b"small"], large]


def test_a_message_larger_than_half_of_the_ring(writer: RingWriter, reader: RingReader) -> None:
    with pytest.raises(RingError, match=r"8,201 bytes does not fit: .* 8,192 bytes"):
        writer.write([bytes(SLOTS // 2 * SLOT + 1)])
    writer.write([b"next"])
    assert rest(reader) == [[b"next"]]


def test_a_reader_that_is_overtaken_knows_what_it_lost(writer: RingWriter, reader: RingReader) -> None:
    write(writer, 1, 2)
    assert rest(reader) == numbered(1, 2)
    write(writer, 3, 3 + 10 * SLOTS)
    read = rest(reader)
    last = 3 + 10 * SLOTS
    assert read == numbered(last - len(read) + 1, last)
    assert SLOTS // 2 <= len(read) <= SLOTS
    assert reader.lost == last - 2 - len(read)


def test_a_reader_that_comes_late_begins_with_the_last_series(writer: RingWriter, name: str) -> None:
    write(writer, 1, 3)
    writer.write([b"start"], keep=True)
    write(writer, 4, 5)
    with closing(RingReader(name)) as reader:
        assert rest(reader) == [[b"start"], [b"4"], [b"5"]]
    write(writer, 6, 5 + 10 * SLOTS)
    with closing(RingReader(name)) as reader:
        first, *others = rest(reader)
        assert first == [b"start"]
        assert others == numbered(6 + 10 * SLOTS - len(others), 5 + 10 * SLOTS)
        assert reader.lost == 2 + 10 * SLOTS - len(others)


def test_a_reader_that_is_overtaken_gets_the_start_of_the_series(
    writer: RingWriter, reader: RingReader
) -> None:
    write(writer, 1, 1)
    assert rest(reader) == numbered(1, 1)
    writer.write([b"start", bytes(3 * SLOT)], keep=True)
    write(writer, 2, 5 * SLOTS)
    first, *others = rest(reader)
    assert first == [b"start", bytes(3 * SLOT)]
    assert reader.lost == 5 * SLOTS - 1 - len(others)


def test_the_start_of_another_ring_is_not_taken(name: str) -> None:
    with closing(RingWriter(name, SLOTS, SLOT)) as writer:
        writer.write([b"old start"], keep=True)
    with closing(RingWriter(name, 2 * SLOTS, SLOT)) as writer, closing(RingReader(name)) as reader:
        write(writer, 1, 2)
        assert rest(reader) == numbered(1, 2)


def test_waiting_for_a_message(writer: RingWriter, reader: RingReader) -> None:
    assert reader.receive(0.01) is None
    timer = threading.Timer(0.05, writer.write, [[b"at last"]])
    timer.start()
    message = reader.receive(20)
    assert message is not None
    assert bytes(message[0]) == b"at last"
    timer.join()


def test_waiting_for_a_ring(name: str, reader: RingReader) -> None:
    assert reader.receive(0.01) is None
    with closing(RingWriter(name, SLOTS, SLOT)) as writer:
        write(writer, 1, 1)
        assert reader.receive(20) is not None


def test_only_one_writes(writer: RingWriter, name: str) -> None:
    with pytest.raises(RingError, match="has a writer already"):
        RingWriter(name, SLOTS, SLOT)
    with pytest.raises(RingError, match="has a writer already"):
        RingWriter(name, 2 * SLOTS, SLOT)
    write(writer, 1, 1)


def test_the_next_writer_goes_on(name: str, reader: RingReader) -> None:
    for number in (1, 2):
        with closing(RingWriter(name, SLOTS, SLOT)) as writer:
            write(writer, number, number)
            assert writer.records == number
        assert rest(reader) == numbered(number, number)
    assert reader.lost == 0


def test_a_ring_of_another_size_takes_its_place(name: str, reader: RingReader) -> None:
    with closing(RingWriter(name, SLOTS, SLOT)) as writer:
        write(writer, 1, 2)
        assert reader.receive(1) is not None
    with closing(RingWriter(name, SLOTS, 2 * SLOT)) as writer:
        write(writer, 3, 4)
        assert rest(reader) == numbered(2, 4)
    assert reader.lost == 0


def test_only_the_writer_takes_it_away(name: str, reader: RingReader) -> None:
    writer = RingWriter(name, SLOTS, SLOT)
    write(writer, 1, 2)
    assert reader.receive(1) is not None
    with closing(RingReader(name)) as other:
        assert other.receive(1) is not None
    assert writer.path.exists()
    writer.write([b"start"], keep=True)
    writer.close(remove=True)
    assert not writer.path.exists()
    assert not kept_path(writer.path).exists()
    assert rest(reader) == [[b"2"], [b"start"]]
    with closing(RingWriter(name, SLOTS, SLOT)) as following:
        write(following, 3, 3)
        assert rest(reader) == [[b"3"]]


def test_who_may_read_it(name: str) -> None:
    with closing(RingWriter(name, SLOTS, SLOT)) as writer:
        assert writer.path.stat().st_mode & 0o777 == 0o600
        writer.write([b"start"], keep=True)
        assert kept_path(writer.path).stat().st_mode & 0o777 == 0o600
    with closing(RingWriter(name, SLOTS, SLOT, group="daemon")) as again:
        status = again.path.stat()
        assert (status.st_mode & 0o777, again.path.group()) == (0o640, "daemon")
        again.write([b"start"], keep=True)
        kept = kept_path(again.path)
        assert (kept.stat().st_mode & 0o777, kept.group()) == (0o640, "daemon")


def test_no_such_group(name: str) -> None:
    with pytest.raises(RingError, match="no group 'nobody-knows'"):
        RingWriter(name, SLOTS, SLOT, group="nobody-knows")


def test_more_memory_than_there_is(name: str) -> None:
    with pytest.raises(RingError, match="give it fewer or smaller slots"):
        RingWriter(name, 1_000_000, 1_000_000_000)
    assert not path_of(name).exists()


def test_all_memory_is_taken_at_the_start(writer: RingWriter) -> None:
    status = writer.path.stat()
    assert status.st_blocks * 512 >= status.st_size > SLOTS * SLOT


@pytest.mark.parametrize("content", [b"", b"x", bytes(512), b"parvisR1" + b"\xff" * 504, bytes(100_000)])
def test_something_else_of_that_name(name: str, reader: RingReader, content: bytes) -> None:
    path_of(name).write_bytes(content)
    with pytest.raises(RingError, match=r"parvis-ring-.* is no ring"):
        reader.receive(0)
    with closing(RingWriter(name, SLOTS, SLOT)) as writer:
        write(writer, 1, 1)
        assert rest(reader) == numbered(1, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_somebody_else_is_not_used(name: str, reader: RingReader) -> None:
    RingWriter(name, SLOTS, SLOT).close()
    os.chown(path_of(name), 12345, 12345)
    with pytest.raises(RingError, match="belongs to somebody else"):
        reader.receive(0)
    with pytest.raises(RingError, match="belongs to somebody else"):
        RingWriter(name, SLOTS, SLOT)


@pytest.mark.parametrize("bad", ["", "../x", "a/b", ".x", "x" * 64])
def test_names_that_cannot_be(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot name a ring"):
        RingReader(bad)


_FAST_WRITER = """
import sys
from parvis_services.stream.ring import RingWriter
writer = RingWriter(sys.argv[1], 8, 65536)
number = writer.records
while True:
    stamp = (number & 0xFFFFFFFF).to_bytes(4, "little")
    writer.write([stamp * (1 + number * 977 % 40_000), stamp], keep=number % 50 == 0)
    number += 1
"""


def fast_writer(name: str) -> subprocess.Popen[bytes]:
    """A process that writes as fast as it can, so that readers are overtaken all the time."""
    return subprocess.Popen([sys.executable, "-c", _FAST_WRITER, name])


def read_checked(reader: RingReader, messages: int) -> list[int]:
    """Read so many messages, and see that each is whole; return their numbers."""
    numbers: list[int] = []
    while len(numbers) < messages:
        message = reader.receive(20)
        assert message is not None, "nothing came for 20 s"
        body, stamp = (bytes(part) for part in message)
        number = int.from_bytes(stamp, "little")
        assert body == stamp * (1 + number * 977 % 40_000), f"message {number} is torn"
        numbers.append(number)
    return numbers


def test_no_message_is_torn_and_none_is_lost_unnoticed(name: str, reader: RingReader) -> None:
    process = fast_writer(name)
    try:
        numbers = read_checked(reader, 20_000)
    finally:
        process.kill()
        process.wait()
    assert numbers == sorted(set(numbers))
    assert reader.lost == numbers[-1] - numbers[0] + 1 - len(numbers)
    assert reader.lost > 0, "the writer was not fast enough to show anything"


def test_a_writer_is_killed_and_another_goes_on(name: str, reader: RingReader) -> None:
    last = -1
    for _ in range(4):
        process = fast_writer(name)
        try:
            numbers = read_checked(reader, 300)
        finally:
            process.kill()
            process.wait()
        assert numbers[0] > last
        last = numbers[-1]
    wait_until(lambda: reader.receive(0) is None, 10, "the rest to be read")
    # A writer that was killed has perhaps left one message half written, which its successor writes over.
    with closing(RingWriter(name, 8, 65536)) as writer:
        writer.write([b"the end"])
        message = reader.receive(1)
    assert message is not None
    assert bytes(message[0]) == b"the end"
    left = {path.name for path in path_of(name).parent.glob(f"*{name}*")}
    assert left == {path_of(name).name, kept_path(path_of(name)).name}
