"""What a verb prints arrives whole, however little its reader takes at a time."""

from __future__ import annotations

import io

from scripts.answer import print_document, whole


class Narrow(io.RawIOBase):
    """A pipe that takes ten bytes at a time, as an interrupted one may."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data)[:10])  # type: ignore[arg-type]
        self.taken += piece
        return len(piece)


def unbuffered(pipe: Narrow) -> io.TextIOWrapper:
    """Standard output as Python opens it under PYTHONUNBUFFERED."""
    return io.TextIOWrapper(pipe, encoding="utf-8", write_through=True)  # type: ignore[arg-type]


def test_a_document_arrives_whole_where_standard_output_is_unbuffered() -> None:
    pipe = Narrow()
    stdout = unbuffered(pipe)
    document = {"runs": ["x" * 1000] * 100}
    print_document(document, whole(stdout))
    assert pipe.taken.endswith(b"]\n}\n")
    assert pipe.taken.count(b"x") == 100_000


def test_a_buffered_stream_is_left_as_it_is() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert whole(stream) is stream
    text = io.StringIO()
    assert whole(text) is text
