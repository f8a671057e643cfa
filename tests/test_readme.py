"""The README says what is so."""

import re
import sys

import pytest
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.complexity import complexity
from ddsa_arch.options.loading import load_options


@pytest.fixture(scope='module')
def readme(repository):
    return (repository / 'README.md').read_text(encoding='utf-8')


def table(readme):
    rows = re.findall(r'\| `(DDSANet\S*\.yml)` \| ([\d,]+) \| ([\d.]+) G \|', readme)
    return {name: (int(parameters.replace(',', '')), float(macs)) for name, parameters, macs in rows}


@pytest.mark.parametrize('name', ['DDSANet_tiny_Rain13K.yml', 'DDSANet_small_Rain13K.yml', 'DDSANet_Rain13K.yml'])
def test_parameters_and_multiply_adds_are_those_measured(name, readme, repository):
    net = build_network(load_options(repository / 'options' / 'train' / name, True)['network_g'])
    measured = complexity(net)
    assert table(readme)[name] == (measured.parameters, pytest.approx(measured.macs / 1e9, abs=0.05))


def test_the_network_to_add_is_built_by_its_option_file(readme, repository, tmp_path, monkeypatch):
    module = next(b for b in re.findall(r'```python\n(.*?)```', readme, re.S) if 'ARCH_REGISTRY.register' in b)
    options = next(b for b in re.findall(r'```yaml\n(.*?)```', readme, re.S) if 'imports:' in b)
    (tmp_path / 'my_arch.py').write_text(module, encoding='utf-8')
    (tmp_path / 'my.yml').write_text(options.replace('PATH_TO', str(repository)), encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    try:
        net = build_network(load_options('my.yml', True)['network_g'])
        assert net.layers[0].out_channels == 48
    finally:
        ARCH_REGISTRY._obj_map.pop('ThreeConvolutions', None)
        sys.modules.pop('my_arch', None)


def test_every_file_that_the_readme_links_is_there(readme, repository):
    links = [link for link in re.findall(r'\]\(([^)]+)\)', readme) if '://' not in link]
    assert len(links) > 5
    assert [link for link in links if not (repository / link).exists()] == []
