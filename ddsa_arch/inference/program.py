"""Write networks as programs, ONNX or torch.export, which `inference.exported` reads and runs."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddsa_arch.archs.cards import CARDS
from ddsa_arch.archs.weights import BLOCK
from ddsa_arch.errors import InputError
from ddsa_arch.inference.exported import INPUT, ONNX, OUTPUT, first_line, import_for_export
from ddsa_arch.inference.onnx_graph import OPSETS, finish, store_half
from ddsa_arch.models.restore import final_output

ONNX_BYTES = 1_500_000_000  # of weights; a file of ONNX holds 2 GiB, and the exporter splits it from here on
EXAMPLE = (48, 64)  # pixels, more or less, of the image by which a network is traced


def write_program(path: Path, net: nn.Module, about: Mapping[str, Any], opset: int | None, half: bool) -> None:
    """Write a network as a program that runs without its code.

    Args:
        path: the file, ``.onnx`` or ``.pt2``.
        net: (B, 3, H, W) -> the same, in evaluation mode.
        about: metadata, which the sizes that the program takes join.
        opset: version of the operations of ONNX; None takes the lowest.
        half: store float16, in ONNX.

    Raises:
        InputError: the exporter cannot take the network apart, or it is too large for a file of ONNX.
    """
    size = sum(value.numel() * value.element_size() for value in net.state_dict().values())
    if path.suffix == ONNX and size > ONNX_BYTES:
        raise InputError(f'{size / 1e9:.1f} GB of weights do not fit into a file of ONNX; take .pt2')
    multiple, fixed = size_multiple_of(net), getattr(net, 'fixed_size', None)
    try:
        with _quiet():
            program, batch = _program(net, multiple, fixed)
            block = {**about, 'size_multiple': multiple, 'fixed_size': fixed, 'batch': batch}
            text = json.dumps(block, ensure_ascii=False)
            if path.suffix == ONNX:
                onnx = torch.onnx.export(
                    program, dynamo=True, verbose=False, optimize=False, input_names=[INPUT], output_names=[OUTPUT],
                    opset_version=OPSETS[0] if opset is None else opset,
                )  # fmt: skip
                assert onnx is not None  # with dynamo
                with contextlib.suppress(Exception):  # the optimiser stumbles over some graphs, which run without it
                    onnx.optimize()
                for part in onnx.model.graph.all_nodes():
                    part.metadata_props.clear()  # lines of code, with paths of this machine
                onnx.model.metadata_props[BLOCK] = text
                model = finish(onnx.model_proto, multiple, fixed, batch)
                import_for_export('onnx').save(store_half(model) if half else model, path)
            else:
                written = io.BytesIO()  # on a full disk, torch ends the process if it writes the file itself
                torch.export.save(program, written, extra_files={BLOCK: text})
                path.write_bytes(written.getbuffer())
    except OSError:
        raise  # of the disk, not of the network
    except Exception as error:  # of any kind, from any layer of the exporter
        raise InputError(f'{type(net).__name__} cannot be exported as {path.suffix}: {first_line(error)}') from error


def size_multiple_of(net: nn.Module) -> int:
    """Return the size multiple of H and W, from the network itself or from its card."""
    multiple = getattr(net, 'size_multiple', None)
    if multiple is not None:
        return multiple
    return next((c.size_multiple for c in CARDS if c.network == type(net).__name__ and c.size_multiple), 1)


class _Final(nn.Module):
    """A network that gives its final image alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, rain: Tensor) -> Tensor:
        return final_output(self.net(rain))


def _program(net: nn.Module, multiple: int, fixed: int | None) -> tuple[torch.export.ExportedProgram, int | None]:
    """Export the network for any H and W, and for any B where possible; also return the only B, if there is one."""
    inner = getattr(net, 'inner_multiple', 1)
    if fixed:
        height = width = fixed
        axes = {}
    else:
        height, width = (multiple * max(place + 2, -(-side // multiple)) for place, side in enumerate(EXAMPLE))
        # a network that pads by itself: torch takes the one pixel that small sides leave for a constant
        least = inner + 1 if inner > 1 else None
        axes = {axis: multiple * torch.export.Dim(name) if multiple > 1 else torch.export.Dim(name, min=least)
                for axis, name in ((2, 'h'), (3, 'w'))}  # fmt: skip

    def traced(batch: int, axes: Mapping[int, Any]) -> torch.export.ExportedProgram:
        rain = torch.rand(batch, 3, height, width)
        program = torch.export.export(
            _Final(net), (rain,), dynamic_shapes={'rain': dict(axes)}, strict=False,
            prefer_deferred_runtime_asserts_over_guards=inner > 1,  # which its rounded-up sizes fulfil
        )  # fmt: skip
        for part in program.graph_module.modules():
            for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
                node.meta.pop('stack_trace', None)  # lines of code, with paths of this machine
        return program

    try:
        return traced(2, {0: torch.export.Dim('batch'), **axes}), None
    except Exception:  # of any kind; where the batch is not to blame, the next line fails too
        return traced(1, axes), 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' remarks about themselves, for the time of the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
