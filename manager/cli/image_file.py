"""A file that may hold an image, as the commands look into it."""

import os
from typing import BinaryIO

from manager.schema.image import Image, ImageRejected, read_image


def image_in(file: BinaryIO) -> Image:
    """The image that a file holds.

    Raises:
        ImageRejected: It holds none.
        OSError: It cannot be read.
    """
    number = file.fileno()
    size = os.fstat(number).st_size
    return read_image(size, lambda offset, length: os.pread(number, length, offset))


def holds_image(file: BinaryIO) -> bool:
    """Whether a file holds a whole image: half of one has no header yet."""
    try:
        image_in(file)
    except (ImageRejected, OSError):
        return False
    return True
