"""Let spandrel load weight files of DDSANet, and with it what is built on spandrel, such as chaiNNer and ComfyUI.

    from ddsa_arch.integrations.spandrel import install
    import spandrel

    install()
    derain = spandrel.ModelLoader().load_from_file('ddsanet.safetensors')
    clean = derain(rain)  # (1, 3, H, W) in [0, 1], of any size

spandrel hands over the tensors of a file and nothing else, so that the arguments of the network are read from their
names and shapes. ``arguments_of`` says what these cannot tell.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddsa_arch.archs.ddsanet_arch import WIDTH_MULTIPLE, DDSANet, hidden_width
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate

if TYPE_CHECKING:
    import spandrel

ID = 'DDSANet'  # in spandrel's registry
LEVELS = ('encoder0', 'encoder1', 'encoder2', 'encoder3', 'level4')  # the decoder has the blocks of the encoder
DEFAULTS = {name: argument.default for name, argument in inspect.signature(DDSANet).parameters.items()}


def install(registry: spandrel.ArchRegistry | None = None) -> None:
    """Register DDSANet with spandrel; a second time does nothing.

    Args:
        registry: None takes spandrel's own, which its ModelLoader looks into unless it is told otherwise.

    Raises:
        InputError: spandrel or what it needs is not installed.
    """
    try:
        import spandrel
    except ModuleNotFoundError as error:
        raise InputError(f"spandrel cannot be imported ({error}): pip install 'ddsa_arch[spandrel]'") from error

    class DDSANetArchitecture(spandrel.Architecture[DDSANet]):
        """The answers to what spandrel asks about a state dict."""

        def __init__(self) -> None:
            super().__init__(id=ID, detect=lambda state: arguments_of(state) is not None)

        def load(self, state_dict: dict[str, Any]) -> spandrel.ImageModelDescriptor[DDSANet]:
            arguments = arguments_of(state_dict)
            if arguments is None:
                raise ValueError('these weights are not those of a DDSANet')
            net = DDSANet(**arguments)  # float32, whatever the file holds
            accelerate(net)
            return spandrel.ImageModelDescriptor(
                net,
                state_dict,
                architecture=self,
                purpose='Restoration',
                tags=[f'{arguments["dim"]}dim', f'{sum(arguments["blocks"])} blocks', arguments['attention']],
                supports_half=False,  # weights of float16 were never tried on a GPU
                supports_bfloat16=True,
                scale=1,
                input_channels=arguments['in_channels'],
                output_channels=arguments['in_channels'],
                size_requirements=spandrel.SizeRequirements(multiple_of=DDSANet.size_multiple),
                tiling=spandrel.ModelTiling.SUPPORTED,
                call_fn=_call,
            )

    if registry is None:
        registry = spandrel.MAIN_REGISTRY
    if ID in registry:
        return
    # asked before all others: its answer is exact, and theirs look at a few names
    others = tuple(support.architecture.id for support in registry)
    registry.add(spandrel.ArchSupport.from_architecture(DDSANetArchitecture(), before=others))


def arguments_of(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of the DDSANet whose weights these are; None if they are those of anything else.

    A network with these arguments has exactly the given names and shapes. What these do not tell is assumed:

    * ``keep_ratio`` and ``mask_fill``: the defaults of DDSANet.
    * ``attention``: ``dual`` has weights of its two branches; without them it is taken for ``dense``, though ``sparse``
      has the same shapes.
    * ``heads``: they are told by the temperatures. With ``scale: sqrt_d`` there are none, and at levels without blocks
      there is nothing at all: the defaults of DDSANet.
    * ``expansion``: the default if it gives these hidden widths, else the middle of all that do.

    A network without a single block is not recognised.

    Args:
        state: a state dict, without a wrapper.
    """
    if not all(isinstance(value, Tensor) for value in state.values()):
        return None
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        arguments = _read(shapes)
        with torch.device('meta'):
            net = DDSANet(**arguments)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # a name, an axis or a number that cannot be ours
        return None
    return arguments if {name: tuple(value.shape) for name, value in net.state_dict().items()} == shapes else None


def _read(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Read the arguments from the first block and the layers around the blocks."""
    dim, in_channels = shapes['embed.weight'][0], shapes['embed.weight'][1]
    blocks = [len({name.split('.')[1] for name in shapes if name.startswith(f'{level}.')}) for level in LEVELS]
    if not any(blocks):
        raise ValueError('no blocks')
    block = next(f'{level}.0' for level, number in zip(LEVELS, blocks, strict=True) if number)
    heads = [
        shapes.get(f'{level}.0.attention.temperature', (default,))[0]
        for level, default in zip(LEVELS, DEFAULTS['heads'], strict=True)
    ]
    widths = {
        (shape[0], shape[1]) for name, shape in shapes.items() if name.endswith('.feed_forward.project_out.weight')
    }
    return {
        'in_channels': in_channels,
        'dim': dim,
        'blocks': blocks,
        'heads': heads,
        'attention': 'dual' if f'{block}.attention.branch_weights' in shapes else 'dense',
        'scale': 'temperature' if f'{block}.attention.temperature' in shapes else 'sqrt_d',
        'ffn': 'gdfn' if f'{block}.feed_forward.depthwise.weight' in shapes else 'msfn',
        'spatial_attention': f'{block}.feed_forward.spatial_attention.conv.weight' in shapes,
        'expansion': _expansion(widths),
        'norm_bias': f'{block}.norm1.bias' in shapes,
        'bias': 'embed.bias' in shapes,
    }


def _expansion(widths: set[tuple[int, int]]) -> float:
    """Find an expansion that gives every hidden width.

    Args:
        widths: pairs of a dim and its ``hidden_width``.

    Raises:
        ValueError: no expansion gives them all.
    """
    half = WIDTH_MULTIPLE / 2
    low = max((0 if hidden == WIDTH_MULTIPLE else (hidden - half) / dim) for dim, hidden in widths)
    high = min((hidden + half) / dim for dim, hidden in widths)
    for expansion in (DEFAULTS['expansion'], (low + high) / 2):
        if all(hidden_width(dim, expansion) == hidden for dim, hidden in widths):
            return expansion
    raise ValueError(f'no expansion gives the hidden widths {sorted(widths)}')


def _call(net: DDSANet, image: Tensor) -> Tensor:
    """Run the network; in bfloat16 by autocast, as norms and scores are computed in float32."""
    if image.dtype != torch.bfloat16:
        return net(image)
    with torch.autocast(image.device.type, torch.bfloat16):
        return net(image).to(image.dtype)
