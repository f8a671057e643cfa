"""Who made which network: one card for each network that the comparison knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PUBLISHED = Path(__file__).with_name('published.yml')
NOT_SEEN = 'no licence seen'
MEASURED, REPORTED = 'measured', 'reported'  # where a row of a table comes from
AVERAGES = 'averages'  # key of the tables of published.yml that have nothing else
EXCEPTIONS = ('own', 'retrained')  # keys of published.yml for rows whose provenance is not their table's


@dataclass(frozen=True)
class Card:
    """A network of the comparison.

    Args:
        name: as tables have it, and as ``published.yml`` does.
        network: registered name.
        arguments: that make it the published network; none are the defaults.
        paper: link.
        year: of publication.
        licence: of the published code; ours is written from the papers and described behaviour, not from that code.
        golden: files of tests/archs/golden against which it is checked; none where no outputs are known.
        note: what a reader should know.
        size_multiple: of H and W, where the network does not say itself.
    """

    name: str
    network: str
    paper: str
    year: int
    licence: str
    golden: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: str = ''
    size_multiple: int | None = None


ACADEMIC = 'Academic Public License, non-commercial'
OF_BASICSR = 'Apache 2.0 (BasicSR)'
CONVIR = 'https://github.com/c-yn/ConvIR'
SFHFORMER = 'https://www.ecva.net/papers/eccv_2024/papers_ECCV/papers/06190.pdf'

CARDS = (
    Card('DDSANet', 'DDSANet', 'https://arxiv.org/abs/2308.07781', 2023, NOT_SEEN, note='this project'),
    Card('DerainNet', 'DerainNet', 'https://arxiv.org/abs/1609.02087', 2017, NOT_SEEN, note='no outputs known'),
    Card('SEMI', 'SEMI', 'https://arxiv.org/abs/1807.11078', 2019, NOT_SEEN, note='no outputs known'),
    Card(
        'DIDMDN', 'DIDMDN', 'https://arxiv.org/abs/1802.07412', 2018, NOT_SEEN, ('didmdn_derain',),
        note='de-raining network with a given rain density; DIDMDNChain estimates it',
    ),
    Card('UMRL', 'UMRL', 'https://arxiv.org/abs/1906.11129', 2019, NOT_SEEN, ('umrl',)),
    Card('RESCAN', 'RESCAN', 'https://arxiv.org/abs/1807.05698', 2018, 'MIT', ('rescan',)),
    Card('PReNet', 'PReNet', 'https://arxiv.org/abs/1901.09221', 2019, NOT_SEEN, ('prenet',)),
    Card('PReNet_r', 'PReNet_r', 'https://arxiv.org/abs/1901.09221', 2019, NOT_SEEN, ('prenet_prenet_r',)),
    Card('PRN', 'PRN', 'https://arxiv.org/abs/1901.09221', 2019, NOT_SEEN, ('prenet_prn',)),
    Card('PRN_r', 'PRN_r', 'https://arxiv.org/abs/1901.09221', 2019, NOT_SEEN, ('prenet_prn_r',)),
    Card('MSPFN', 'MSPFN', 'https://arxiv.org/abs/2003.10985', 2020, NOT_SEEN, note='no outputs known'),
    Card('MPRNet', 'MPRNet', 'https://arxiv.org/abs/2102.02808', 2021, ACADEMIC, ('mprnet',)),
    Card('DGUNet', 'DGUNet', 'https://arxiv.org/abs/2204.13348', 2022, NOT_SEEN, ('dgunet',)),
    Card('DGUNet+', 'DGUNetPlus', 'https://arxiv.org/abs/2204.13348', 2022, NOT_SEEN, ('dgunet_plus',)),
    Card('Uformer-T', 'Uformer', 'https://arxiv.org/abs/2106.03106', 2022, 'MIT', arguments={
        'embed_dim': 16, 'depths': [2, 2, 2, 2, 2, 2, 2, 2, 2], 'modulator': False}, note='checked as Uformer-B'),
    Card('Uformer-S', 'Uformer', 'https://arxiv.org/abs/2106.03106', 2022, 'MIT', arguments={
        'embed_dim': 32, 'depths': [2, 2, 2, 2, 2, 2, 2, 2, 2], 'modulator': False}, note='checked as Uformer-B'),
    Card('Uformer-B', 'Uformer', 'https://arxiv.org/abs/2106.03106', 2022, 'MIT', ('uformer',)),
    Card('IDT', 'IDT', 'https://github.com/jiexiaou/IDT', 2022, 'MIT', ('idt',), note='counted for 4 tiles of 128'),
    Card('Restormer', 'Restormer', 'https://arxiv.org/abs/2111.09881', 2022, ACADEMIC, ('restormer',)),
    Card('DRSformer', 'DRSformer', 'https://arxiv.org/abs/2303.11950', 2023, NOT_SEEN, ('drsformer',)),
    Card('DRSformer, no MEFC', 'DRSformer', 'https://arxiv.org/abs/2303.11950', 2023, NOT_SEEN,
         ('drsformer_no_mefc',), {'mefc': False}, note='for Rain200L and SPA-Data'),
    Card('ELF', 'ELF', 'https://arxiv.org/abs/2207.10455', 2022, NOT_SEEN, ('elf_orb10',), note='published size'),
    Card('ELF, released', 'ELF', 'https://arxiv.org/abs/2207.10455', 2022, NOT_SEEN, ('elf',), {'depth': 5},
         note='the released file'),
    Card('ELF-LW', 'ELFLW', 'https://arxiv.org/abs/2207.10455', 2022, NOT_SEEN, ('elf_lw',)),
    Card('NAFNet', 'NAFNet', 'https://arxiv.org/abs/2204.04676', 2022, 'MIT', ('nafnet',),
         note='published for noise and blur; width 32'),
    Card('ConvIR-S', 'ConvIR', CONVIR, 2024, 'MIT', arguments={'num_res': 4}, note='checked as ConvIR-L'),
    Card('ConvIR-B', 'ConvIR', CONVIR, 2024, 'MIT', arguments={'num_res': 8}, note='checked as ConvIR-L'),
    Card('ConvIR-L', 'ConvIR', CONVIR, 2024, 'MIT', ('convir',), note='published size for rain'),
    Card('SFHformer-s', 'SFHformer', SFHFORMER, 2024, 'MIT', ('sfhformer_s',), {'depths': [2, 2, 4, 2, 2]}),
    Card('SFHformer-m', 'SFHformer', SFHFORMER, 2024, 'MIT', ('sfhformer_m',), {'depths': [4, 4, 8, 4, 4]}),
    Card('SFHformer-l', 'SFHformer', SFHFORMER, 2024, 'MIT', ('sfhformer_l',), note='published size for rain'),
    Card('NeRD-Rain', 'NeRDRain', 'https://arxiv.org/abs/2404.01547', 2024, NOT_SEEN, ('nerdrain',)),
    Card('NeRD-Rain-S', 'NeRDRain', 'https://arxiv.org/abs/2404.01547', 2024, NOT_SEEN, ('nerdrain_s',), {'dim': 32}),
    Card('SwinIR', 'SwinIR', 'https://arxiv.org/abs/2108.10257', 2021, OF_BASICSR, arguments={
        'upscale': 1, 'img_size': 128, 'window_size': 8, 'depths': [6, 6, 6, 6, 6, 6], 'embed_dim': 180,
        'num_heads': [6, 6, 6, 6, 6, 6], 'mlp_ratio': 2, 'upsampler': ''}, note="BasicSR's own",
        size_multiple=8),
    Card('RCAN', 'RCAN', 'https://arxiv.org/abs/1807.02758', 2018, OF_BASICSR, arguments={
        'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 1}, note="BasicSR's own"),
    Card('EDSR', 'EDSR', 'https://arxiv.org/abs/1707.02921', 2017, OF_BASICSR, arguments={
        'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 1}, note="BasicSR's own"),
    Card('RIDNet', 'RIDNet', 'https://arxiv.org/abs/1904.07396', 2019, OF_BASICSR, arguments={
        'in_channels': 3, 'mid_channels': 64, 'out_channels': 3}, note="BasicSR's own"),
)  # fmt: skip


def published_scores() -> dict[str, Any]:
    """Read the tables of scores in ``published.yml``; comments in that file explain its keys."""
    return {name: table for name, table in _published().items() if AVERAGES not in table}


def published_averages() -> dict[str, Any]:
    """Read the tables of ``published.yml`` that have averages alone, with which nothing measured here is ranked."""
    return {name: table for name, table in _published().items() if AVERAGES in table}


@cache
def _published() -> dict[str, Any]:
    return yaml.safe_load(PUBLISHED.read_text(encoding='utf-8'))


def printed_digits(table: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many decimals the two scores of a table have, at least 2 and 3, as YAML drops zeros at the end."""
    pairs = [pair for scores in table['rows'].values() for pair in scores.values()]
    first, second = (max(len(str(pair[place]).partition('.')[2]) for pair in pairs) for place in (0, 1))
    return max(first, 2), max(second, 3)


def provenance(table: Mapping[str, Any], row: str) -> str:
    """Tell where the scores of one row come from: ``own``, ``retrained``, ``quoted`` or ``re-evaluated``."""
    return next((kind for kind in EXCEPTIONS if row in table.get(kind, ())), table['provenance'])


def describe_provenance(table: Mapping[str, Any]) -> str:
    """Tell where the scores of a table come from, and of which rows this differs."""
    return table['provenance'] + ''.join(
        f', {kind} for {", ".join(table[kind])}' for kind in EXCEPTIONS if kind in table
    )
