"""A body of multipart/form-data as it comes in: aiohttp's reader, fed from any source of bytes."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from mailrail.imports.model import ImportUnreadable

TEXT_BYTES_MAX = 64 * 1024
TEXTS_MAX = 50
CHUNK_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024


class Form:
    """The parts of a form, one after the other: its texts are kept, its file is given to whoever reads it."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        try:
            self._reader = aiohttp.MultipartReader({"Content-Type": content_type}, _Source(body))  # type: ignore[arg-type]  # has what is used of a StreamReader
        except (ValueError, AssertionError) as error:
            raise ImportUnreadable("The form names no boundary that separates its parts.") from error
        self.texts: dict[str, list[str]] = {}

    async def next_file(self) -> "File | None":
        """The next part that is a file; the texts before it are in `texts`, and all of them once there is no file more.

        Raises ImportUnreadable.
        """
        try:
            while (part := await self._reader.next()) is not None:
                if not isinstance(part, aiohttp.BodyPartReader):
                    raise ImportUnreadable("The form has a form within a part.")
                if part.filename is not None or part.name == "file":
                    return File(part)
                await self._keep(part)
        except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
            raise ImportUnreadable("The form is not as multipart/form-data has to be.") from error
        return None

    async def _keep(self, part: aiohttp.BodyPartReader) -> None:
        text = b""
        while data := await part.read_chunk(CHUNK_BYTES):
            text += data
            if len(text) > TEXT_BYTES_MAX:
                raise ImportUnreadable(f"A field of the form has more than {TEXT_BYTES_MAX} bytes. Is it the file?")
        if sum(map(len, self.texts.values())) >= TEXTS_MAX:
            raise ImportUnreadable(f"The form has more than {TEXTS_MAX} fields.")
        self.texts.setdefault(part.name or "", []).append(text.decode())


class File:
    """One file of a form."""

    def __init__(self, part: aiohttp.BodyPartReader) -> None:
        self._part = part
        self.name = part.filename or ""
        self.content_type = part.headers.get("Content-Type", "")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises ImportUnreadable where the form ends before the file does."""
        try:
            while data := await self._part.read_chunk(CHUNK_BYTES):
                yield data
        except (ValueError, AssertionError) as error:
            raise ImportUnreadable("The form ends in the middle of the file.") from error


class _Source:
    """What aiohttp reads from: the part of its StreamReader that a form needs."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._buffer = bytearray()
        self._ended = False

    async def _pull(self) -> None:
        data = await anext(self._body, None)
        if data is None:
            self._ended = True
        else:
            self._buffer += data

    async def read(self, size: int) -> bytes:
        """Up to so many bytes; empty at the end."""
        while not self._buffer and not self._ended:
            await self._pull()
        return self._take(size)

    async def readline(self, **limits: Any) -> bytes:
        """One line with its end, or what is left. Raises ValueError for an endless one."""
        while (end := self._buffer.find(b"\n") + 1) == 0 and not self._ended:
            if len(self._buffer) > limits.get("max_line_length", LINE_BYTES_MAX):
                raise ValueError("a line of the form is too long")
            await self._pull()
        return self._take(end or len(self._buffer))

    def unread_data(self, data: bytes) -> None:
        """Puts bytes back."""
        self._buffer[:0] = data

    def at_eof(self) -> bool:
        """Whether there is nothing more."""
        return self._ended and not self._buffer

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
