"""Images as PNG files, in memory."""

from __future__ import annotations

import io
from typing import Any

# Half the time of the default level 6, for files a tenth larger.
_COMPRESSION = 3


def encode_png(image: Any) -> bytes:
    """A PIL image as a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=_COMPRESSION)
    return stream.getvalue()
