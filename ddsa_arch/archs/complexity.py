"""How large a network is and what an image costs: from shapes alone, or in detail from one run.

Counted is the papers' order of operations, also where fast execution, which does a little less, was given to a network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.analysis.jit_handles import (
    addmm_flop_jit,
    batchnorm_flop_jit,
    conv_flop_jit,
    generic_activation_jit,
    get_shape,
    linear_flop_jit,
    norm_flop_counter,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from ddsa_arch.archs.building import sharing_tensors

WEIGHED = {'convolution', 'addmm', 'mm'}  # products with weights; bmm and what is like it multiply features


class _Counter(TorchDispatchMode):
    """Adds up multiply-adds by kind of operator, by the formulas of torch's own FlopCounterMode.

    That one puts hooks on all modules of the process, which would be seen by networks in other threads.

    Attributes:
        macs: by the operator's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = func._overloadpacket
        if kind is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:  # torch knows that of GPUs alone
            flops = sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif kind in flop_registry:
            flops = flop_registry[kind](*args, **(kwargs or {}), out_val=out)
        else:
            return out
        self.macs[str(kind).rpartition('.')[2]] += flops // 2
        return out


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a network.

    Args:
        parameters: each shared tensor once.
        weighed_macs: multiply-adds of convolutions and linear layers, what most papers print.
        feature_macs: multiply-adds of products between features, such as those of attention.
        outputs: images that the network gives, the final one last.
    """

    parameters: int
    weighed_macs: int
    feature_macs: int
    outputs: int

    @property
    def macs(self) -> int:
        """All multiply-adds; norms, activations, pooling and resizing are left out, as torch's counter does."""
        return self.weighed_macs + self.feature_macs


def complexity(net: nn.Module, height: int = 256, width: int = 256) -> Complexity:
    """Count a network for one image, from shapes alone: milliseconds, and no memory for features.

    A network that takes one size alone (``fixed_size``) is counted for as many tiles as the image holds.

    Args:
        net: on the CPU; it is left as it is.
        height: of the image, a multiple of what the network needs.
        width: of the image.
    """
    fixed = getattr(net, 'fixed_size', None)
    size, tiles = ((fixed, fixed), -(-height // fixed) * -(-width // fixed)) if fixed else ((height, width), 1)
    net = sharing_tensors(net).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), _Counter() as counter, torch.no_grad():
        outputs = net(torch.zeros(1, 3, *size))
    counts = {kind: macs * tiles for kind, macs in counter.macs.items()}
    weighed = sum(macs for kind, macs in counts.items() if kind in WEIGHED)
    return Complexity(
        sum(p.numel() for p in net.parameters()),
        weighed,
        sum(counts.values()) - weighed,
        1 if isinstance(outputs, Tensor) else len(outputs),
    )


# --- in detail, from one run -------------------------------------------------------------------------------

Handle = Callable[[Sequence[Any], Sequence[Any]], Counter]  # the inputs and outputs of an operator, as torch.jit has it
MmengineHandle = Callable[[Sequence[Any], Sequence[Any]], Counter | int]

CONV, LINEAR, PRODUCT, OTHER, ACTIVATIONS = 'conv', 'linear', 'product', 'other', 'activations'
# one floating-point operation for each element that comes out, whatever function it is
ELEMENTWISE = (
    'abs', 'add', 'addcmul', 'celu', 'clamp', 'clamp_max', 'clamp_min', 'cos', 'div', 'elu', 'erf', 'exp', 'gelu',
    'hardsigmoid', 'hardswish', 'hardtanh', 'leaky_relu', 'lerp', 'log', 'maximum', 'minimum', 'mish', 'mul', 'neg',
    'pow', 'prelu', 'reciprocal', 'relu', 'relu6', 'rsqrt', 'rsub', 'sigmoid', 'silu', 'sin', 'softplus', 'sqrt',
    'square', 'sub', 'tanh', 'upsample_nearest2d',
)  # fmt: skip
# one for each element that goes in
REDUCTIONS = (
    'adaptive_avg_pool2d', 'avg_pool2d', 'cumsum', 'linalg_vector_norm', 'mean', 'norm', 'prod', 'std', 'sum', 'var',
)  # fmt: skip
# several for each element that comes out, as mmengine has them; softmax: subtract, exponential, sum, divide
PER_OUTPUT = {
    '_upsample_bilinear2d_aa': 4, 'upsample_bilinear2d': 4, 'grid_sampler': 4, 'upsample_bicubic2d': 16,
    'softmax': 4, 'log_softmax': 4,
}  # fmt: skip
# comparing, choosing, moving: nothing, as what mmengine itself ignores
FREE = (
    'alias', 'amax', 'amin', 'argmax', 'argmin', 'argsort', 'broadcast_tensors', 'ceil', 'clone', 'diag_embed',
    'diagonal', 'dropout_', 'empty_like', 'expand_as', 'feature_dropout', 'fill_', 'flip', 'index_select', 'le',
    'logical_and', 'logical_not', 'lt', 'mT', 'max_pool2d', 'masked_fill_', 'meshgrid', 'min', 'movedim', 'ne',
    'new_ones', 'numpy_T', 'ones_like', 'pad', 'pixel_shuffle', 'pixel_unshuffle', 'reflection_pad2d', 'repeat',
    'repeat_interleave', 'replication_pad2d', 'reshape_as', 'round', 'scatter', 'scatter_', 'sign', 'sort', 'swapaxes',
    'topk', 'tril', 'triu', 'unflatten', 'unfold', 'view_as', 'where', 'zero_',
)  # fmt: skip


@dataclass(frozen=True)
class Operations:
    """The operations that a network does for one image, by kind.

    Args:
        conv_macs: multiply-adds of convolutions; of a transposed one by the pixels that go in. Biases are left out.
        linear_macs: multiply-adds of linear layers.
        product_macs: multiply-adds of products of two tensors (matmul, einsum, attention).
        other_flops: floating-point operations beside those: one for each element that an element-wise function
            gives (add, multiply, GELU, sigmoid ...) and for each that a sum, mean or average pooling takes; norms 5 an
            element (4 without weights; batch norm 2, or 1), bilinear resizing 4, bicubic 16, softmax 4; a linear
            system of n equations with m right sides 2/3 n^3 + 2 n^2 m, a Cholesky decomposition 1/3 n^3.
            Comparing, choosing and moving are free, biases are part of their layer.
        activations: elements that convolutions, linear layers and products give; of attention the scores as well.
        uncounted: operators that are in none of these lists, such as those of an extension; sorted.
    """

    conv_macs: int
    linear_macs: int
    product_macs: int
    other_flops: int
    activations: int
    uncounted: tuple[str, ...]

    @property
    def weighed_macs(self) -> int:
        """Multiply-adds with weights, as hooks on layers count them and most papers print them."""
        return self.conv_macs + self.linear_macs

    @property
    def macs(self) -> int:
        """All multiply-adds."""
        return self.weighed_macs + self.product_macs

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-add, and all others."""
        return 2 * self.macs + self.other_flops


def count_operations(net: nn.Module, image: Tensor) -> Operations:
    """Count every operator of one run of a network, by the handles of mmengine's FlopAnalyzer and by ours.

    Ours stand in where mmengine's leave something out: attention in one operator, products that broadcast, einsum,
    linear systems, and all that is no product. The run is a real one: torch.jit traces no tensors without values.

    Args:
        net: takes the image as it is; it is left as it is.
        image: ``(1, 3, H, W)``, where the network is.
    """
    net = sharing_tensors(net).eval()
    analyzer = FlopAnalyzer(net, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analyzer.set_op_handle(**_handles())
    with torch.no_grad():
        counts = analyzer.by_operator()
    conv, linear, product, other, activations = (
        int(counts[kind]) for kind in (CONV, LINEAR, PRODUCT, OTHER, ACTIVATIONS)
    )
    uncounted = tuple(sorted(analyzer.unsupported_ops()))
    return Operations(conv, linear, product, other, activations, uncounted)


def _handles() -> dict[str, Handle | None]:
    """Return the function that counts each operator, by its name in torch.jit; None for operators that cost nothing."""
    products = {'matmul': 0, 'mm': 0, 'bmm': 0, 'mv': 0, 'dot': 0, 'baddbmm': 1}  # place of the first factor
    handles: dict[str, Handle | None] = dict.fromkeys(f'aten::{name}' for name in FREE)
    for name in ELEMENTWISE:
        handles[f'aten::{name}'] = handles[f'aten::{name}_'] = _per_element(outputs=1)
    handles |= {f'aten::{name}': _per_element(outputs=flops) for name, flops in PER_OUTPUT.items()}
    handles |= {f'aten::{name}': _per_element(inputs=1) for name in REDUCTIONS}
    handles |= {f'aten::{name}': _product(first) for name, first in products.items()}
    return handles | {
        'aten::_convolution': _layer(CONV, conv_flop_jit),
        'aten::linear': _layer(LINEAR, linear_flop_jit),
        'aten::addmm': _layer(LINEAR, addmm_flop_jit),
        'aten::batch_norm': _norm(batchnorm_flop_jit),
        'aten::group_norm': _norm(norm_flop_counter(2)),
        'aten::layer_norm': _norm(norm_flop_counter(2)),
        'aten::instance_norm': _norm(norm_flop_counter(1)),
        'aten::scaled_dot_product_attention': _attention,
        'aten::einsum': _einsum,
        'aten::linalg_cholesky_ex': _cholesky,
        'aten::linalg_solve_ex': _solve,
    }


def _shape(value: Any) -> list[int]:
    shape = get_shape(value)
    if shape is None:
        raise ValueError(f'{value.debugName()}: an operator takes or gives a tensor of a shape that was not traced')
    return shape


def _is_float(value: Any) -> bool:
    """Tell whether a value is floating point; while torch.jit traces, sizes are tensors too, of whole numbers."""
    return value.isCompleteTensor() and value.type().scalarType() in ('Float', 'Double', 'Half', 'BFloat16')


def _per_element(inputs: int = 0, outputs: int = 0) -> Handle:
    def count(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
        if not _is_float(given_back[0]) or not given[0].isCompleteTensor():
            return Counter()
        return Counter({OTHER: inputs * prod(_shape(given[0])) + outputs * prod(_shape(given_back[0]))})

    return count


def _layer(kind: str, handle: MmengineHandle) -> Handle:
    """Count a layer with weights by mmengine's handle."""
    activations = generic_activation_jit(ACTIVATIONS)

    def count(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
        found = handle(given, given_back)
        macs = sum(found.values()) if isinstance(found, Counter) else found
        return Counter({kind: macs}) + activations(given, given_back)

    return count


def _norm(handle: MmengineHandle) -> Handle:
    def count(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
        return Counter({OTHER: handle(given, given_back)})

    return count


def _product(first: int) -> Handle:
    """Count the product of two tensors, arguments ``first`` and the next: the first's width for each result.

    mmengine's counts the first tensor's batch alone, where the second's is broadcast to.
    """

    def count(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
        results = prod(_shape(given_back[0]))
        return Counter({PRODUCT: results * _shape(given[first])[-1], ACTIVATIONS: results})

    return count


def _attention(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
    """Count scaled_dot_product_attention: ``(..., N, d)``, ``(..., M, d)``, ``(..., M, e)`` -> ``(..., N, e)``."""
    queries, values, out = _shape(given[0]), _shape(given[2]), _shape(given_back[0])
    scores = prod(out[:-1]) * values[-2]
    return Counter({
        PRODUCT: scores * (queries[-1] + values[-1]),
        OTHER: scores * PER_OUTPUT['softmax'],
        ACTIVATIONS: scores + prod(out),
    })  # fmt: skip


def _einsum(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
    """Count einsum: exactly for two tensors, as one sum for more. (mmengine's count rounds to four digits.)"""
    terms = given[0].toIValue().replace(' ', '').partition('->')[0].split(',')
    shapes = [_shape(value) for value in given[1].node().inputs()]
    if any('.' in term for term in terms):
        raise ValueError(f'einsum {",".join(terms)}: an ellipsis cannot be counted; write the indices out')
    indices = ''.join(terms)
    sizes = dict(zip(indices, (size for shape in shapes for size in shape), strict=True))
    return Counter({PRODUCT: prod(sizes.values()) * (len(terms) - 1), ACTIVATIONS: prod(_shape(given_back[0]))})


def _cholesky(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
    *batch, n, _ = _shape(given[0])
    return Counter({OTHER: prod(batch) * n**3 // 3})


def _solve(given: Sequence[Any], given_back: Sequence[Any]) -> Counter:
    *batch, n, m = _shape(given[1])
    return Counter({OTHER: prod(batch) * (2 * n**3 // 3 + 2 * n**2 * m)})
