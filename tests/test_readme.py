"""The README files say what is so: figures, commands, links."""

import argparse
import re
import shlex
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from basicsr.utils.registry import ARCH_REGISTRY

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.complexity import complexity
from ddsa_arch.options.loading import load_options
from ddsa_arch.runners import cli

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in [*REPOSITORY.glob('*.md'), *(p for top in ('.github', 'datasets', 'ddsa_arch', 'options', 'tests')
                                             for p in (REPOSITORY / top).rglob('*.md'))]
)  # fmt: skip
MOST_WORDS = 1200  # of README.md, as wc counts them


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
    (tmp_path / 'my.yml').write_text(options, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    try:
        net = build_network(load_options('my.yml', True)['network_g'])
        assert net.layers[0].out_channels == 48
    finally:
        ARCH_REGISTRY._obj_map.pop('ThreeConvolutions', None)
        sys.modules.pop('my_arch', None)


def page_id(path):
    return str(path.relative_to(REPOSITORY))


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r'^#+ (.*)$', text, re.M)
    return {re.sub(r'[^\w\- ]', '', heading).strip().lower().replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', PAGES, ids=page_id)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.S)
    dead = []
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match(r'[a-z]+:', link):
            continue
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding='utf-8'))):
            dead.append(link)
    assert dead == []


def test_the_first_page_is_short(readme):
    assert len(readme.split()) <= MOST_WORDS


class Parsed(Exception):
    """A parser took the words of a command."""


def commands():
    """(page, command) for each ``ddsa ...`` in the shell blocks of all pages."""
    for page in PAGES:
        for block in re.findall(r'```bash\n(.*?)```', page.read_text(encoding='utf-8'), re.S):
            for line in block.replace('\\\n', ' ').splitlines():
                words = list(takewhile(lambda word: word not in ('>', '|', ';'), shlex.split(line, comments=True)))
                if 'ddsa' in words:
                    yield pytest.param(words[words.index('ddsa') + 1 :], id=f'{page_id(page)}: {line.split(" #")[0]}')


@pytest.mark.parametrize('words', commands())
def test_every_command_is_one_that_the_parsers_take(words, monkeypatch, repository):
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(self, *args, **keywords):
        raise Parsed(parse(self, *args, **keywords))

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_alone)
    with pytest.raises(Parsed):
        cli.main(words)
    if words[0] in ('train', 'test') and not words[2].endswith('.yml'):
        assert (repository / 'options' / words[0] / f'{words[2]}.yml').is_file()
