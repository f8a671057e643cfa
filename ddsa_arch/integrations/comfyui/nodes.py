"""Two nodes of ComfyUI: one loads a network, the other removes the rain from images.

ComfyUI's contract: images are float32 tensors (B, H, W, C) in [0, 1], RGB or RGBA; a node says its inputs by
``INPUT_TYPES``, its outputs by ``RETURN_TYPES``, and its method by ``FUNCTION``, which returns a tuple.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddsa_arch.archs.weights import WEIGHT_SUFFIXES
from ddsa_arch.errors import InputError
from ddsa_arch.inference.call import ENSEMBLES
from ddsa_arch.inference.derainer import SMALLEST_TILE, TILE_STEP, Derainer

CATEGORY = 'image/restoration'
BUILT_IN_NAME = 'built-in small DDSANet'
FOLDERS = ('derainers', 'upscale_models')  # of ComfyUI's models, in which weight files are looked for
SUFFIXES = (*WEIGHT_SUFFIXES, '.onnx')
DERAINER = 'DERAINER'  # the type of what goes from one node to the other
LARGEST_TILE = 4096


class LoadDerainer:
    """Loads the network of a weight file of ``ddsa train`` or ``ddsa export``."""

    CATEGORY = CATEGORY
    DESCRIPTION = 'Loads a network that removes rain: the small one that comes along, or a file in models/derainers.'
    RETURN_TYPES = (DERAINER,)
    RETURN_NAMES = ('derainer',)
    FUNCTION = 'load'

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return what ComfyUI asks for."""
        return {'required': {'weights': ([BUILT_IN_NAME, *weight_files()], {'tooltip': 'a file in models/derainers'})}}

    def load(self, weights: str) -> tuple[Derainer]:
        """Return the network.

        Raises:
            InputError: the file cannot be used.
        """
        if weights == BUILT_IN_NAME:
            return (Derainer(),)
        path = weight_files().get(weights)
        if path is None:
            raise InputError(f'weights: {weights!r} is not there any more; put it into models/derainers')
        return (Derainer(path),)


class DerainImage:
    """Removes the rain from images, all or in part."""

    CATEGORY = CATEGORY
    DESCRIPTION = 'Removes rain streaks from images of any size.'
    RETURN_TYPES = ('IMAGE',)
    FUNCTION = 'derain'

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return what ComfyUI asks for."""
        strength = {
            'default': 1.0, 'min': 0.0, 'max': 1.0, 'step': 0.05, 'tooltip': '0 is the image as it is, 1 without rain',
        }  # fmt: skip
        tile = {
            'default': 0, 'min': 0, 'max': LARGEST_TILE, 'step': TILE_STEP,
            'tooltip': 'side of tiles in pixels, for little memory; 0 is as large as the memory allows',
        }  # fmt: skip
        return {
            'required': {
                'derainer': (DERAINER,),
                'image': ('IMAGE',),
                'strength': ('FLOAT', strength),
                'tile': ('INT', tile),
                'ensemble': (list(ENSEMBLES), {'tooltip': 'mean over 4 flips, or 8 flips and turns; slower'}),
            }
        }

    def derain(
        self, derainer: Derainer, image: Tensor, strength: float = 1.0, tile: int = 0, ensemble: int = 1
    ) -> tuple[Tensor]:
        """Return the images without rain, ``(B, H, W, C)`` on the device and in the type of those given.

        Raises:
            InputError: an image or a tile that cannot be used.
        """
        if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
            raise InputError(
                f'image: a tensor of shape {tuple(image.shape)}; wanted (B, H, W, C) with 1, 3 or 4 channels'
            )
        if tile and (tile < SMALLEST_TILE or tile % TILE_STEP):
            raise InputError(f'tile: {tile}; wanted 0, or a multiple of {TILE_STEP}')
        arrays = image.detach().float().cpu().clamp(0, 1)
        before, derainer.tile = derainer.tile, tile or derainer.tile
        try:
            done = []
            for one in arrays:
                _stop_if_asked()
                done.append(torch.from_numpy(derainer(one.numpy(), ensemble=int(ensemble))))
        finally:
            derainer.tile = before
        derained = torch.stack(done) if done else arrays
        return (torch.lerp(arrays, derained, float(strength)).to(image.device, image.dtype),)


def weight_files() -> dict[str, Path]:
    """Return the weight files that ComfyUI's model folders have, by their names; none outside of ComfyUI."""
    try:
        folders: Any = importlib.import_module('folder_paths')
    except ImportError:
        return {}
    own = Path(folders.models_dir) / FOLDERS[0]
    if FOLDERS[0] not in folders.folder_names_and_paths:
        folders.add_model_folder_path(FOLDERS[0], str(own))
    places = [Path(place) for name in FOLDERS for place in folders.folder_names_and_paths.get(name, ([],))[0]]
    found: dict[str, Path] = {}
    for place in places:
        for path in sorted(place.rglob('*')) if place.is_dir() else ():
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(path.relative_to(place).as_posix(), path)
    return found


def _stop_if_asked() -> None:
    """End the work where its user has cancelled it."""
    try:
        management: Any = importlib.import_module('comfy.model_management')
    except ImportError:
        return
    management.throw_exception_if_processing_interrupted()


NODE_CLASS_MAPPINGS = {'DDSALoadDerainer': LoadDerainer, 'DDSADerainImage': DerainImage}
NODE_DISPLAY_NAME_MAPPINGS = {'DDSALoadDerainer': 'Load Derainer', 'DDSADerainImage': 'Derain Image'}
