"""Compare networks with outputs of the published code for weights that anyone can draw again.

A golden file ``golden/<name>.npz`` holds the names and shapes of the published weights, how each is drawn, and for one
or more runs (mode, gain) the outputs in float64: every n-th pixel as float32, and of the whole output its mean,
deviation, extremes and first values. golden/README.md has the rules.
"""

import copy
import hashlib
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / 'golden'
INPUT_SEED = 2026
TOLERANCE = 1e-6  # of the output's magnitude, in float64
FLOAT32_FACTOR = 10  # times the published code's own error in float32


class Golden:
    """One golden file.

    Args:
        name: its stem.
    """

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f'{name}.npz') as file:
            self.arrays = dict(file)
        self.spec = json.loads(self.arrays.pop('spec').tobytes())

    def runs(self) -> list[str]:
        return list(self.spec['runs'])

    def check_parameters(self, net: nn.Module) -> None:
        """Names, shapes and number of the weights are the published ones."""
        wanted = {key: tuple(shape) for key, (shape, _) in self.spec['keys'].items()}
        found = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        assert {k: v for k, v in found.items() if wanted.get(k) != v} == {}
        assert sorted(wanted.keys() - found.keys()) == []
        assert sum(p.numel() for p in net.parameters()) == self.spec['params']

    def weights(self, gain: float = 1.0) -> dict[str, Tensor]:
        """The deterministic weights; buffers that the constructor makes are left out."""
        drawn = {
            key: _draw(key, shape, rule, gain)
            for key, (shape, rule) in self.spec['keys'].items()
            if rule != 'constructor' and not rule.startswith('alias:')
        }
        aliases = {
            key: drawn[rule.removeprefix('alias:')]
            for key, (_, rule) in self.spec['keys'].items()
            if rule.startswith('alias:')
        }
        return {key: torch.from_numpy(value) for key, value in (drawn | aliases).items()}

    def load(self, net: nn.Module, gain: float = 1.0, sha256: str | None = None) -> None:
        """Give a network the deterministic weights, all of them."""
        weights = self.weights(gain)
        made = {k: v for k, v in net.state_dict().items() if self.spec['keys'][k][1] == 'constructor'}
        net.load_state_dict(weights | made, strict=True)
        if sha256:
            own = [key for key, (_, rule) in self.spec['keys'].items() if not rule.startswith('alias:')]
            state = net.state_dict()
            assert hashlib.sha256(b''.join(state[k].numpy().tobytes() for k in own)).hexdigest() == sha256

    def check(
        self,
        net: nn.Module,
        outputs: Callable[[nn.Module, Tensor], dict[str, Tensor]],
        run: str = 'plain',
        float32: bool = True,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Every output of a run is reached, in float64 and, where the file knows its error, in float32.

        Args:
            net: float32, as built; it is not changed.
            outputs: the network's outputs by their published names, from the network and an input as the published
                code took it.
            run: name of the run.
            float32: False where the published code itself is of no use in float32.
            tolerance: of the output's magnitude.
        """
        wanted = self.spec['runs'][run]
        net = copy.deepcopy(net)
        self.check_parameters(net)
        self.load(net, wanted['gain'], wanted['sha256'])
        net.train(wanted['mode'] == 'train')
        for tag, stored in wanted['outputs'].items():
            x = torch.from_numpy(golden_input(tuple(map(int, tag.split('x')))))
            state = copy.deepcopy(net.state_dict())
            with torch.no_grad():
                exact = outputs(net.double(), x.double())
            net.float().load_state_dict(state)  # batch norm moves its statistics in training mode
            assert exact.keys() == stored.keys()
            for name, value in exact.items():
                self._compare(run, f'{name}_{tag}', value, stored[name], tolerance)
            errors = {name: wanted['f32'].get(f'{name}_{tag}') for name in exact}
            if float32 and None not in errors.values():
                with torch.no_grad():
                    rounded = outputs(net, x)
                net.load_state_dict(state)
                for name, value in rounded.items():
                    error = (value.double() - exact[name]).abs().max().item()
                    assert error <= FLOAT32_FACTOR * errors[name], f'{name}_{tag}: {error} in float32'

    def _compare(self, run: str, name: str, value: Tensor, stored: dict, tolerance: float) -> None:
        assert list(value.shape) == stored['shape'], name
        allowed = tolerance * max(abs(stored['min']), abs(stored['max']))
        array = value.numpy()
        for key, number in (('mean', array.mean()), ('std', array.std()), ('min', array.min()), ('max', array.max())):
            assert math.isclose(number, stored[key], rel_tol=0, abs_tol=allowed), f'{name}: {key}'
        first = array.ravel()[: len(stored['first4'])]
        assert np.abs(first - stored['first4']).max() <= allowed, name
        pixels = self.arrays.get(f'{run}/{name}')
        if pixels is not None:
            stride = self.spec['runs'][run]['strides'][name]
            seen = array[..., ::stride, ::stride] if array.ndim == 4 else array
            assert np.abs(seen - pixels).max() <= allowed, name


def _draw(key: str, shape: list[int], rule: str, gain: float) -> np.ndarray:
    v = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape).astype(np.float32)
    if rule == 'zero':
        return np.zeros(shape, np.int64)
    if rule == 'conv':
        v = v * np.float32(math.sqrt(1 / math.prod(shape[1:])))
        return v if gain == 1 else v * np.float32(gain)
    return {
        'norm': lambda: 1 + np.float32(0.1) * v,
        'bias': lambda: np.float32(0.05) * v,
        'prelu': lambda: np.float32(0.25) + np.float32(0.05) * v,
        'running_mean': lambda: np.float32(0.1) * v,
        'running_var': lambda: 1 + np.float32(0.1) * np.abs(v),
    }[rule]()


def golden_input(shape: tuple[int, ...]) -> np.ndarray:
    """The input of the golden runs, float32 in [0, 1)."""
    return np.random.Generator(np.random.PCG64(INPUT_SEED)).random(size=shape, dtype=np.float32)


@pytest.fixture(scope='session')
def golden() -> type[Golden]:
    return Golden
