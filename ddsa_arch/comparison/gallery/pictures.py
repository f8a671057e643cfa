"""Pictures for the gallery: small enough to show, thumbnails, and maps of the errors."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from ddsa_arch.errors import InputError

ERROR_FACTOR = 4  # grey levels of an error map for a difference of one level: white stands for 64 and more
ERROR_QUALITY = 85  # of WebP
LOSSLESS = 101  # as OpenCV counts: any quality above 100
LARGEST_WEBP = 16383  # pixels on a side
THUMBNAIL = (144, 108)  # largest width and height
THUMBNAIL_QUALITY = 75


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrink an image so that it fits into a box; a smaller one stays as it is.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)``.
        width: of the box, >= 1.
        height: of the box, >= 1.
    """
    scale = min(width / image.shape[1], height / image.shape[0], 1)
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def error_map(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Compute the mean absolute difference over the channels, times ``ERROR_FACTOR``, clipped at 255.

    Args:
        image: ``(H, W, 3)`` uint8.
        target: of the same shape.

    Returns:
        ``(H, W)`` float32 in [0, 255].
    """
    difference = cv2.absdiff(image, target).mean(axis=2, dtype=np.float32)
    return np.minimum(ERROR_FACTOR * difference, 255)


def encoded_errors(image: np.ndarray, target: np.ndarray, quality: int, max_side: int) -> str:
    """Encode the error map as base64 of a grey WebP; errors are taken before anything is shrunk or compressed.

    Args:
        image: ``(H, W, 3)`` uint8.
        target: of the same shape.
        quality: of the pictures; an error map is lossless where they are.
        max_side: see :func:`fit`.
    """
    small = np.rint(fit(error_map(image, target), max_side, max_side)).astype(np.uint8)
    return encode_webp(small, LOSSLESS if quality >= LOSSLESS else ERROR_QUALITY)


def encode_webp(image: np.ndarray, quality: int) -> str:
    """Encode a picture as base64 of a WebP.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` uint8 BGR.
        quality: 1 to 100, or ``LOSSLESS``.

    Raises:
        InputError: OpenCV cannot encode it.
    """
    done, data = cv2.imencode('.webp', image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise InputError(f'a picture of shape {image.shape} cannot be encoded as WebP')
    return base64.b64encode(data.data).decode('ascii')


def encoded_thumbnail(picture: np.ndarray) -> tuple[str, tuple[int, int]]:
    """Encode a picture as base64 of a small WebP that fits into ``THUMBNAIL``; also return its width and height.

    Args:
        picture: ``(H, W, 3)`` uint8 BGR.
    """
    small = fit(picture, *THUMBNAIL)
    return encode_webp(small, THUMBNAIL_QUALITY), (small.shape[1], small.shape[0])


def colour_scale() -> str:
    """Return the colours of 256 error levels, black to yellow, as six hexadecimal digits RRGGBB each."""
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)  # (256, 1, 3) BGR
    return colours[:, 0, ::-1].tobytes().hex()
