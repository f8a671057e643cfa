"""Let spandrel load weight files of DDSANet and the networks that it is compared with, and so chaiNNer and ComfyUI.

    from ddsa_arch.integrations.spandrel import install
    import spandrel

    install()
    derain = spandrel.ModelLoader().load_from_file('ddsanet.safetensors')
    clean = derain(rain)  # (1, 3, H, W) in [0, 1], of any size

spandrel hands over the tensors of a file and nothing else, so that the arguments of the network are read from their
names and shapes, and from a tensor that tells what these do not. ``arguments_of`` says more of DDSANet, and
``spandrel_zoo`` of the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddsa_arch.archs.ddsanet_arch import WIDTH_MULTIPLE, DDSANet, hidden_width
from ddsa_arch.archs.weight_names import MARKER, UNSEEN, as_tensor, of_tensor
from ddsa_arch.archs.weights import read_weights
from ddsa_arch.errors import InputError
from ddsa_arch.fast import accelerate
from ddsa_arch.integrations.spandrel_zoo import KEYS, build, networks, section_of, shapes_of, told_section
from ddsa_arch.models.restore import final_output, restore

if TYPE_CHECKING:
    import spandrel

ID = 'DDSANet'  # in spandrel's registry
OTHER_IDS = 'ddsa_arch.'  # before the names of the others, some of which spandrel's extra networks have too
KEY = 'embed.weight'  # of DDSANet
LEVELS = ('encoder0', 'encoder1', 'encoder2', 'encoder3', 'level4')  # the decoder has the blocks of the encoder
SIZES = ('in_channels', 'dim', 'blocks')  # arguments that the shapes tell
DEFAULTS = {name: argument.default for name, argument in inspect.signature(DDSANet).parameters.items()}


def install(registry: spandrel.ArchRegistry | None = None) -> None:
    """Register DDSANet and the networks that spandrel lacks; a second time does nothing.

    From then on spandrel's ModelLoader also reads how a network is built where a file says it beside the tensors.

    Args:
        registry: None takes spandrel's own, which its ModelLoader looks into unless it is told otherwise.

    Raises:
        InputError: spandrel or what it needs is not installed.
    """
    try:
        import spandrel
    except ModuleNotFoundError as error:
        raise InputError(f"spandrel cannot be imported ({error}): pip install 'ddsa_arch[spandrel]'") from error

    class Architecture(spandrel.Architecture[nn.Module]):
        """The answers to what spandrel asks about a state dict."""

        def __init__(self, name: str) -> None:
            super().__init__(
                id=name if name == ID else f'{OTHER_IDS}{name}', name=name, detect=lambda state: _is(name, state)
            )

        def load(self, state_dict: dict[str, Any]) -> spandrel.ImageModelDescriptor[nn.Module]:
            section = _section(self.name, state_dict)
            if section is None:
                raise ValueError(f'these weights are not those of a {self.name}')
            net = build(section, state_dict).eval()  # float32, whatever the file holds
            accelerate(net)
            fixed = getattr(net, 'fixed_size', None)
            channels = section.get('in_channels', section.get('inp_channels', 3))
            return spandrel.ImageModelDescriptor(
                net,
                {name: value for name, value in state_dict.items() if name not in (MARKER, UNSEEN)}
                | {name: value for name, value in net.state_dict().items() if name == UNSEEN},
                architecture=self,
                purpose='Restoration',
                tags=_tags(section),
                supports_half=False,  # weights of float16 were never tried on a GPU
                supports_bfloat16=True,
                scale=1,
                input_channels=channels,
                output_channels=channels,
                size_requirements=spandrel.SizeRequirements(
                    multiple_of=1 if fixed else getattr(net, 'size_multiple', 1)
                ),
                tiling=spandrel.ModelTiling.INTERNAL if fixed else spandrel.ModelTiling.SUPPORTED,
                call_fn=_call,
            )

    _read_files_too(spandrel.ModelLoader)
    if registry is None:
        registry = spandrel.MAIN_REGISTRY
    if ID not in registry:
        # asked before all others: its answer is exact, and theirs look at a few names
        others = tuple(support.architecture.id for support in registry)
        registry.add(spandrel.ArchSupport.from_architecture(Architecture(ID), before=others))
    for name in networks():
        registry.add(spandrel.ArchSupport.from_architecture(Architecture(name)), ignore_duplicates=True)


def _is(name: str, state: Mapping[str, Any]) -> bool:
    try:
        return _section(name, state) is not None
    except InputError:  # ours, and its load says what is wrong
        return True


def _section(name: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``{type, arguments}`` of the network of a state dict if it is of this name."""
    if name != ID:
        return section_of(state, name)
    arguments = arguments_of(state)
    return None if arguments is None else {'type': ID, **arguments}


def _tags(section: Mapping[str, Any]) -> list[str]:
    if section['type'] != ID:
        return [f'{name} {value}' for name, value in section.items() if name != 'type']
    return [f'{section["dim"]}dim', f'{sum(section["blocks"])} blocks', section['attention']]


def _read_files_too(loader: Any) -> None:
    """Let spandrel's loader add what a file of ours says of its network to the tensors, where they do not say it."""
    read = loader.load_state_dict_from_file
    if getattr(read, 'tells_network', False):
        return

    def load_state_dict_from_file(self: Any, path: str | Path) -> dict[str, Any]:
        state = read(self, path)
        if MARKER in state or not any(key in state for key in (KEY, *KEYS.values())):
            return state
        try:
            section = read_weights(path).checkpoint.get('network_g')
        except InputError:
            return state
        if not isinstance(section, Mapping) or section.get('type') not in (ID, *KEYS):
            return state
        told = {**state, MARKER: as_tensor(section)}
        try:
            arguments_of(told)
        except InputError:  # a section that is not of these weights, which may tell enough themselves
            return state
        return told

    load_state_dict_from_file.tells_network = True  # type: ignore[attr-defined]
    loader.load_state_dict_from_file = load_state_dict_from_file


def arguments_of(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of the DDSANet whose weights these are; None if they are those of anything else.

    A network with these arguments has exactly the given names and shapes. What these do not tell stands in the state
    dict itself: networks other than the paper's have a buffer of ``unseen_arguments``, and files may have ``MARKER``.
    ``expansion`` is the default if it gives these hidden widths, else the middle of all that do.

    A network without a single block is not recognised.

    Args:
        state: a state dict, without a wrapper.

    Raises:
        InputError: the weights are those of a DDSANet, from before there was such a buffer, whose arguments cannot be
            told; or what they tell does not go with them.
    """
    if KEY not in state or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    shapes, section = shapes_of(state), told_section(state)
    if section is not None and section['type'] != ID:
        return None
    try:
        arguments = _read(shapes)
        sizes = [arguments[name] for name in SIZES]
        if not _fits(arguments, shapes):
            return None
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # a name, an axis or a number that cannot be ours
        return None
    unseen = of_tensor(state.get(UNSEEN))
    if section is not None:
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in DEFAULTS.items()}
        arguments = {**told, **{name: value for name, value in section.items() if name != 'type'}}
    elif unseen is not None:
        arguments |= unseen
    elif arguments['attention'] != 'dual' or arguments['scale'] != 'temperature':
        raise InputError(
            'these weights of a DDSANet do not tell its arguments (attention dense or sparse, heads, keep_ratio); '
            'write them by `ddsa export FILE -o FILE.safetensors`, from a file that has them'
        )
    try:
        fits = [arguments[name] for name in SIZES] == sizes and _fits(arguments, shapes)
    except (TypeError, ValueError, ZeroDivisionError):
        fits = False
    if not fits:
        raise InputError('these weights of a DDSANet do not go with the arguments that they tell; export them again')
    return arguments


def _fits(arguments: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    with torch.device('meta'):
        return shapes_of(DDSANet(**arguments).state_dict()) == shapes


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


def _call(net: nn.Module, image: Tensor) -> Tensor:
    """Run the network; in bfloat16 by autocast, as norms and scores are computed in float32."""
    if image.dtype != torch.bfloat16:
        return _run(net, image)
    with torch.autocast(image.device.type, torch.bfloat16):
        return _run(net, image).to(image.dtype)


def _run(net: nn.Module, image: Tensor) -> Tensor:
    return restore(net, image) if getattr(net, 'fixed_size', None) else final_output(net(image))
