"""When a fast forward may run: nobody looks at single layers, and all of them are what the fast form knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ddsa_arch.archs.nerdrain_arch import Main

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
GLOBAL_HOOKS = ('_global_forward_hooks', '_global_forward_pre_hooks', '_global_backward_hooks',
                '_global_backward_pre_hooks')  # fmt: skip
OWN = ('forward', 'attention_map', 'attention_maps')  # methods that somebody may have put onto a single module
WEIGHTS = (Tensor, nn.Parameter)  # other kinds, such as quantised ones, compute in their own way


def unobserved(x: Tensor) -> bool:
    """Whether no compiler, tracer, counter or hook for all modules looks at what is computed from ``x`` now.

    What another thread does does not count. So torch.compiler.is_compiling() is not asked, which is true in all threads
    while one of them exports; an exporter of this thread is known by its tensors and its mode.
    """
    return (
        type(x) is Tensor
        and not torch.compiler.is_dynamo_compiling()
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not _get_current_dispatch_mode_stack()
        and all(isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack())
        and not any(getattr(torch_module, hooks, None) for hooks in GLOBAL_HOOKS)
    )


def in_inference(x: Tensor) -> bool:
    """Tell whether a tensor is ``unobserved`` and no gradient is wanted."""
    return not torch.is_grad_enabled() and unobserved(x)


def is_touched(module: nn.Module) -> bool:
    """Whether a module has hooks, is compiled by itself, or was given methods of its own."""
    own = module.__dict__
    return (
        any(own.get(hooks) for hooks in HOOKS)
        or any(name in own for name in OWN)
        or own.get('_compiled_call_impl') is not None
    )


def obstacle(module: nn.Module, *kinds: type[nn.Module], name: str = '') -> str | None:
    """Return why a module is not one of ``kinds`` as it was built; None if it is.

    Args:
        module: any.
        kinds: exact classes; a subclass may do something else.
        name: for the sentence.
    """
    if type(module) not in kinds:
        return f'{name} is a {type(module).__name__}'.strip()
    if is_touched(module):
        return f'{name} has hooks or a forward of its own'.strip()
    return None


def unwrapped(layer: nn.Module) -> nn.Module:
    """Return the layer in a wrapper of NeRD-Rain's, as built and with no hooks, and any other module as it is."""
    if obstacle(layer, Main) or obstacle(inner := layer.get_submodule('main'), nn.Sequential):
        return layer
    children = [*inner.children()]
    return children[0] if len(children) == 1 else layer


def conv_obstacle(module: nn.Module, name: str, kernel: int, groups: int | None = 1, dilation: int = 1) -> str | None:
    """Return why a layer is not a bare convolution of stride 1 that keeps the size; None if it is.

    Args:
        module: any.
        name: for the sentence.
        kernel: its side.
        groups: None for a depth-wise one, with as many groups as channels.
        dilation: of the kernel.
    """
    if why := obstacle(module, nn.Conv2d, name=name):
        return why
    wanted = ((kernel, kernel), (1, 1), (dilation, dilation), 'zeros', module.in_channels if groups is None else groups)
    found = (module.kernel_size, module.stride, module.dilation, module.padding_mode, module.groups)
    padding = dilation * (kernel // 2)
    if found != wanted or module.padding not in ((padding, padding), 'same'):
        return f'{name} is another kind of convolution'
    if groups is None and module.out_channels != module.in_channels:
        return f'{name} is another kind of convolution'
    if any(type(tensor) not in WEIGHTS for tensor in (module.weight, module.bias) if tensor is not None):
        return f'{name} has weights of another kind'
    return None
