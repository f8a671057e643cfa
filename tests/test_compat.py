"""What compat mends and what it refuses, most of it in a process of its own."""

import os
import subprocess
import sys

import pytest

from ddsa_arch.compat import repair
from ddsa_arch.registration import import_registering_modules


def run(code, cwd, repository):
    environment = {**os.environ, 'PYTHONPATH': str(repository)}
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, env=environment, capture_output=True, text=True)


def test_importing_the_package_fills_the_registries_and_says_what_was_mended(tmp_path, repository):
    code = """
import ddsa_arch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
assert {'DDSANet', 'DDSA', 'SEFN', 'SwinIR'} <= set(ARCH_REGISTRY.keys())
assert 'PairedRainDataset' in DATASET_REGISTRY and 'DerainL1Loss' in LOSS_REGISTRY
assert 'derain_psnr' in METRIC_REGISTRY and 'DerainModel' in MODEL_REGISTRY
from torchvision.transforms.functional_tensor import rgb_to_grayscale
import torchvision
assert not ddsa_arch.compat.REPAIRS or all(': ' in line for line in ddsa_arch.compat.REPAIRS)
"""
    done = run(code, tmp_path, repository)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert done.stdout == ''


def test_a_second_import_changes_nothing():
    repair()
    repair()


def test_a_folder_that_hides_basicsr_is_named(tmp_path, repository):
    (tmp_path / 'basicsr').mkdir()
    (tmp_path / 'basicsr' / '__init__.py').touch()
    done = run('import ddsa_arch', tmp_path, repository)
    assert done.returncode != 0
    assert 'is not the BasicSR toolbox but a folder of the same name' in done.stderr
    assert str(tmp_path / 'basicsr') in done.stderr


@pytest.mark.parametrize(('package', 'words'), [('basicsr', 'basicsr is not installed'),
                                                ('torchvision', 'torchvision is not installed')])  # fmt: skip
def test_a_missing_package_is_named_with_the_remedy(package, words, tmp_path, repository):
    code = f"""
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == {package!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.split('.')[0] == {package!r} else find(name, *a)
import ddsa_arch
"""
    done = run(code, tmp_path, repository)
    assert done.returncode != 0
    assert words in done.stderr


def test_a_module_that_registers_and_fails_is_named(tmp_path, monkeypatch):
    folder = tmp_path / 'some_parts'
    folder.mkdir()
    (folder / '__init__.py').touch()
    (folder / 'good_arch.py').touch()
    (folder / 'broken_arch.py').write_text('1 / 0', encoding='utf-8')
    (folder / 'other.py').write_text('raise SystemExit(3)', encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    told = r'some_parts\.broken_arch could not be imported, so it registers nothing: division by zero'
    with pytest.raises(ImportError, match=told):
        import_registering_modules('some_parts', '_arch')
    (folder / 'broken_arch.py').write_text('', encoding='utf-8')
    assert import_registering_modules('some_parts', '_arch') == ['some_parts.broken_arch', 'some_parts.good_arch']
    for name in [name for name in sys.modules if name.startswith('some_parts')]:
        del sys.modules[name]
