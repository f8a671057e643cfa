"""Remove the rain from images in memory: arrays, tensors and PIL images of any size."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ddsa_arch.archs.weights import read_weights
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate
from ddsa_arch.fast.memory_format import lay_out
from ddsa_arch.files.pillow_images import as_array, from_array
from ddsa_arch.inference.call import Call, Report, blended, checked_ensemble, checked_strength, views
from ddsa_arch.inference.exported import ExportedNetwork, device_for_onnx, is_exported, is_onnx
from ddsa_arch.inference.hub import pretrained_file, push_folder, save_pretrained
from ddsa_arch.inference.image_memory import ImageMemory, free_memory, is_out_of_memory
from ddsa_arch.inference.image_progress import ImageProgress
from ddsa_arch.inference.loading import (
    AUTO,
    BUILT_IN,
    choose_device,
    load_derainer_network,
    load_network,
    network_section,
)
from ddsa_arch.models.restore import Recipe, restore
from ddsa_arch.ops.pixels import check_image, from_rgb, to_rgb
from ddsa_arch.ops.tiling import tile_rows, tiled_pixels

SMALLEST_TILE = 64
TILE_STEP = 64  # sides of tiles are multiples of it, and so of what every network of the package needs
LARGEST_TILE = 1536  # pixels; larger ones save no time, and a row of them takes memory
OVERLAP = 32  # pixels that neighbouring tiles share
TILE_WEIGHT = 'pyramid'
REPORTED = 2**20  # pixels from which on an image takes so long that its progress is reported
ALWAYS_WHOLE = 2**18  # pixels of an image that no machine has to cut
BUDGET = 0.8  # of the free memory
FLOATS = 12  # bytes of a pixel as three float32 values
ROW_COPIES = 5  # of such values of a row of tiles that exist at the same time
WHOLE_COPIES = 6  # and of those of a whole image
CHECKED_ROWS = 1024  # at a time
HALF = {'cuda': torch.float16, 'mps': torch.float16}  # elsewhere bfloat16

Picture = TypeVar('Picture', np.ndarray, Tensor, Image.Image)


class Derainer:
    """Removes rain from images in memory.

        derain = Derainer()                      # the small network that comes with the package
        clean = derain(imageio.imread('photo.jpg'))

    Args:
        weights: a file of ``ddsa train`` or ``ddsa export`` (.pth, .safetensors, .onnx, .pt2); None takes the small
            DDSANet that comes with the package. A .pt2 can run code, so it must come from somebody you trust.
        network: how the network is built, for weights that do not say it: a registered name, or ``{type, arguments}``.
        device: ``auto`` takes CUDA, else MPS, else the CPU; or a name that torch knows, such as ``cuda:1``.
        half: compute in 16 bits by autocast, float16 on GPUs and bfloat16 on CPUs. What fails in it or is not finite
            is computed again in float32. Not for ONNX.
        tile: ``auto`` takes the whole image where memory is enough, else overlapping tiles as large as fit; a number
            is the side of the tiles in pixels; None takes the whole image, even if memory runs out.
        ensemble: 1, or the mean over the 4 flips of an image, or over its 8 flips and quarter turns, at so many times
            the cost. 8 is for networks that were trained on turned images: to others rain that falls sideways is none.
        strength: 1 for the network's result, 0 for the image as it was, or a number between for a blend of both.
        fast: let the network run its fast execution, see ``ddsa_arch.fast``; False takes the paper's order of
            operations, which gives the same to rounding, in more time and memory.

    Attributes:
        net: the network, in evaluation mode.
        notes: what was done otherwise than asked, one sentence each.

    Raises:
        InputError: weights, network, device, tile, ensemble or strength cannot be used.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        network: str | Mapping[str, Any] | None = None,
        device: str | torch.device = AUTO,
        half: bool = False,
        tile: int | str | None = AUTO,
        ensemble: int = 1,
        fast: bool = True,
        strength: float = 1.0,
    ) -> None:
        self.device = choose_device(device)
        if weights is not None and is_onnx(weights):
            if half:
                raise InputError(f'half: {weights} computes in float32; give the weights (.pth, .safetensors)')
            self.device = device_for_onnx(self.device, asked=device != AUTO)
        self._source = BUILT_IN if weights is None else Path(weights), network
        net = load_derainer_network(weights, network, self.device).eval()
        exported = isinstance(net, ExportedNetwork)  # one that was written for its own layout of memory
        self.net = net if exported else lay_out(net.to(self.device), torch.channels_last)
        if fast:
            accelerate(self.net)
        self.half, self.ensemble, self.strength = half, checked_ensemble(ensemble), checked_strength(strength)
        self.notes: list[str] = []
        self.tile = _checked_tile(tile, self.net)
        self._memory: ImageMemory | None = None
        self._reporter: ImageProgress | None = None

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, cache: str | Path | None = None, **how: Any
    ) -> Derainer:
        """Make one with the weights of a folder, or of a repository of the Hugging Face Hub.

        Args:
            source: a folder of ``save_pretrained``, or ``user/name`` on the Hub, from which they are downloaded once.
            revision: branch, tag or commit on the Hub.
            cache: where downloads are kept.
            how: the other arguments of the class.

        Raises:
            InputError: there is nothing of this name, or it cannot be used.
        """
        return cls(pretrained_file(source, revision, cache), **how)

    def save_pretrained(self, folder: str | Path, about: Mapping[str, Any] | None = None) -> Path:
        """Write the weights, as they were loaded, into a folder that ``from_pretrained`` takes.

        Args:
            folder: made if it is missing.
            about: joins what the weights tell of themselves: ``licence``, ``data``, ``scores``, ``title`` ...

        Raises:
            InputError: the network came from an exported file, which has no weights to share.
        """
        path, network = self._source
        if is_exported(path):
            raise InputError(f'weights: {path} is exported; share the weights that it was exported from')
        file = read_weights(path)
        net = load_network(file, network)
        return save_pretrained(
            folder, net.state_dict(), network_section(file, network), {**file.about, **dict(about or {})}
        )

    def push_to_hub(self, repository: str, private: bool = False, about: Mapping[str, Any] | None = None) -> str:
        """Share the weights on the Hugging Face Hub, and return the address.

        Args:
            repository: ``user/name``; made if it is missing.
            private: whether only its owner sees a new one.
            about: see ``save_pretrained``.

        Raises:
            InputError: see ``save_pretrained``; or the Hub refuses it.
        """
        with tempfile.TemporaryDirectory() as folder:
            return push_folder(self.save_pretrained(folder, about), repository, private)

    @overload
    def __call__(
        self,
        image: Picture,
        bgr: bool = False,
        *,
        ensemble: int | None = None,
        strength: float | None = None,
        progress: Report | None = None,
    ) -> Picture: ...

    @overload
    def __call__(
        self,
        image: Sequence[Picture],
        bgr: bool = False,
        *,
        ensemble: int | None = None,
        strength: float | None = None,
        progress: Report | None = None,
    ) -> list[Picture]: ...

    def __call__(  # Any: of the kinds above
        self,
        image: Any,
        bgr: bool = False,
        *,
        ensemble: int | None = None,
        strength: float | None = None,
        progress: Report | None = None,
    ) -> Any:
        """Derain one image, a batch, or a list of images.

        Args:
            image: one of

                * an array (H, W, 3), (H, W), (H, W, 1), (H, W, 2) or (H, W, 4), or a batch (B, H, W, 1 to 4): uint8,
                  uint16, or float16, float32 or float64 in [0, 1], of any byte order and layout; RGB, a second or
                  fourth channel is alpha and stays; whole numbers of other types and bool are refused;
                * a PIL image; its mode stays if it is L, LA, RGB, RGBA, I;16, I (from 0 to 65535) or F (in [0, 1]);
                  1 becomes L, and all others RGB, or RGBA if they have transparency; what its ``info`` holds stays;
                * a tensor (3, H, W) or (B, 3, H, W), uint8, uint16 or floating point in [0, 1], RGB, on any device;
                  the result has no gradient;
                * a list of any of these, of any sizes.
            bgr: arrays are BGR, as OpenCV has them.
            ensemble, strength: for this call, instead of those that the object was made with.
            progress: called now and then while an image of more than a megapixel is derained, with the part of it that
                is done, rising to 1.

        Returns:
            The same kind, shape, type, range and device.

        Raises:
            InputError: something else, or values outside the range.
        """
        call = Call(
            self.ensemble if ensemble is None else checked_ensemble(ensemble),
            self.strength if strength is None else checked_strength(strength),
            progress,
        )
        if isinstance(image, list | tuple):
            return [self._one(one, bgr, call) for one in image]
        return self._one(image, bgr, call)

    def _one(self, image: Any, bgr: bool, call: Call) -> Any:
        if isinstance(image, Tensor):
            return self._tensor(image, call)
        if isinstance(image, Image.Image):
            try:
                pixels, mode = as_array(image)
            except (OSError, SyntaxError) as error:  # of a file that Pillow reads only now
                raise InputError(f'the PIL image cannot be read ({error})') from error
            return from_array(self._array(pixels, False, call), mode, image)
        if isinstance(image, np.ndarray):
            if image.ndim == 4:
                return np.stack([self._array(one, bgr, call) for one in image]) if len(image) else image.copy()
            return self._array(image, bgr, call)
        raise InputError(f'an image is an array, a PIL image or a tensor, not a {type(image).__name__}')

    def _tensor(self, image: Tensor, call: Call) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3:
            raise InputError(f'a tensor of shape {tuple(image.shape)} is no image; wanted (3, H, W) or (B, 3, H, W)')
        if image.dtype == torch.bfloat16:
            raise InputError('a tensor of bfloat16 is no image; give float32, and half=True for speed')
        if image.layout != torch.strided or image.is_quantized or image.is_complex():
            raise InputError('a sparse, quantised or complex tensor is no image; give one of float32')
        image = image.detach()
        batch = image if image.ndim == 4 else image[None]
        arrays = [one.permute(1, 2, 0).cpu().numpy() for one in batch]
        results = [torch.from_numpy(self._array(one, False, call)).permute(2, 0, 1) for one in arrays]
        derained = torch.stack(results) if results else torch.empty_like(batch)
        return derained.reshape(image.shape).to(image.device)

    def _array(self, image: np.ndarray, bgr: bool, call: Call) -> np.ndarray:
        """Derain an image whole, or in tiles that become smaller until they fit."""
        check_image(image)
        if call.strength == 0:
            for top in range(0, len(image), CHECKED_ROWS):
                to_rgb(image[top : top + CHECKED_ROWS])  # which checks the values
            return image.copy()
        tile = self._tile_for(image)
        with self._reporting(image, tile, call):
            while True:
                try:
                    return self._derained(image, bgr, call, tile)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    smaller = _smaller(tile, image, self.net)
                    if smaller is None:
                        size = f'{image.shape[1]} x {image.shape[0]}'
                        raise InputError(
                            f'out of memory with tiles of {tile or size} pixels on {self.device}'
                        ) from error
                    self._note(f'out of memory with {tile or "the whole image"}; went on with tiles of {smaller}')
                    tile = smaller
                if self.device.type == 'cuda':
                    torch.cuda.empty_cache()

    def _derained(self, image: np.ndarray, bgr: bool, call: Call, tile: int | None) -> np.ndarray:
        fixed = getattr(self.net, 'fixed_size', None)
        if tile and call.ensemble == 1 and tile <= min(image.shape[:2]) and not fixed:
            return self._in_rows_of_tiles(image, bgr, call, tile)
        rgb, alpha = to_rgb(image, bgr)
        rain = torch.from_numpy(rgb.transpose(2, 0, 1)[None])
        first, *others = views(call.ensemble)
        out = self._in_precision(first.of(rain), tile)
        for view in others:
            out = out + view.back(self._in_precision(view.of(rain), tile))
        if others:
            out = out / call.ensemble
        return from_rgb(blended(rain, out, call)[0].permute(1, 2, 0).numpy(), image, alpha, bgr)

    def _in_rows_of_tiles(self, image: np.ndarray, bgr: bool, call: Call, tile: int) -> np.ndarray:
        """Derain an image in tiles, of which one row at a time is in memory as floating point."""

        def read(top: int, bottom: int) -> Tensor:
            return torch.from_numpy(to_rgb(image[top:bottom], bgr)[0].transpose(2, 0, 1)[None])

        height, width = image.shape[:2]
        derained = np.empty(image.shape, image.dtype)
        for top, rows in tile_rows(
            lambda x: self._in_precision(x, None), read, height, width, tile, OVERLAP, TILE_WEIGHT
        ):
            part = image[top : top + rows.shape[2]]
            rain = read(top, top + rows.shape[2]) if call.strength < 1 else rows
            values = part[..., None] if part.ndim == 2 else part
            alpha = values[..., -1] if values.shape[2] in (2, 4) else None
            mixed = blended(rain, rows, call)[0].permute(1, 2, 0).numpy()
            derained[top : top + rows.shape[2]] = from_rgb(mixed, part, alpha, bgr)
        return derained

    @contextlib.contextmanager
    def _reporting(self, image: np.ndarray, tile: int | None, call: Call) -> Iterator[None]:
        """Report how far the network is with an image, if anybody listens and the image is large."""
        height, width = image.shape[:2]
        if call.progress is None or height * width < REPORTED:
            yield
            return
        if self._reporter is None:
            self._reporter = ImageProgress(self.net, self.device)
        pixels = tiled_pixels(height, width, tile, OVERLAP) if tile else height * width
        with self._reporter.reporting(pixels * call.ensemble, call.progress):
            yield

    def _in_precision(self, rain: Tensor, tile: int | None) -> Tensor:
        """In 16 bits if asked for, and in float32 if not or if that fails."""
        recipe = Recipe(tile_size=tile, tile_overlap=OVERLAP if tile else 0, tile_weight=TILE_WEIGHT)
        rain = rain.to(self.device, memory_format=torch.channels_last)
        if self.half:
            try:
                with torch.autocast(self.device.type, HALF.get(self.device.type, torch.bfloat16)):
                    out = restore(self.net, rain, recipe).float().cpu()
                if bool(out.isfinite().all()):
                    return out
                self._note('16 bits gave numbers that are not finite; such images were computed in float32')
            except (RuntimeError, ValueError) as error:
                if is_out_of_memory(error):
                    raise
                self.half = False
                self._note(f'16 bits do not work here ({str(error).splitlines()[0]}); float32 was taken')
        return restore(self.net, rain, recipe).float().cpu()

    def _tile_for(self, image: np.ndarray) -> int | None:
        if not isinstance(self.tile, str):  # AUTO
            return self.tile
        height, width = image.shape[:2]
        if height * width <= ALWAYS_WHOLE or getattr(self.net, 'fixed_size', None):
            return None
        free = free_memory(self.device)
        if free is None:
            return None
        if self._memory is None:
            self._memory = ImageMemory.measure(self.net, self.device)
        budget = free * BUDGET
        large = self.device.type == 'cpu' and height * width > LARGEST_TILE**2  # so that its copies count
        copies = WHOLE_COPIES * FLOATS * height * width if large else 0
        if height * width <= self._memory.largest_image(max(0.0, budget - copies)):
            return None
        side = min(LARGEST_TILE, int(self._memory.largest_image(budget) ** 0.5))
        if large:
            beside = image.nbytes + ROW_COPIES * FLOATS * side * width
            side = min(side, int(self._memory.largest_image(max(0.0, budget - beside)) ** 0.5))
        return max(SMALLEST_TILE, side // TILE_STEP * TILE_STEP)

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def _checked_tile(tile: int | str | None, net: nn.Module) -> int | str | None:
    if tile is None or tile == AUTO:
        return tile
    if isinstance(tile, str) and tile.isdecimal():
        tile = int(tile)
    multiple = getattr(net, 'size_multiple', 1)
    if not isinstance(tile, int) or tile < SMALLEST_TILE or tile % multiple:
        raise InputError(f'tile: {tile!r}; wanted {AUTO}, or a multiple of {multiple} from {SMALLEST_TILE} pixels up')
    return tile


def _smaller(tile: int | None, image: np.ndarray, net: nn.Module) -> int | None:
    """The next side to try, None if there is none."""
    if getattr(net, 'fixed_size', None):
        return None
    side = (tile or max(image.shape[:2])) // 2 // TILE_STEP * TILE_STEP
    return side if side >= SMALLEST_TILE else None
