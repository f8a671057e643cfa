"""MATLAB's formulas, as GNU Octave computes them: PSNR, SSIM, NIQE and BRISQUE of 30 photos.

score_pairs.m holds the formulas and octave_scores.csv what they gave; the slow test runs Octave anew where it is
installed (with its image package), and leaves a new octave_scores.csv in pytest's temporary folder.
"""

import csv
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ddsa_arch.files.images import write_image
from ddsa_arch.metrics.brisque import regression
from ddsa_arch.metrics.derain_metric import _pristine_model, derain_brisque, derain_niqe
from ddsa_arch.ops.quality import psnr_y, ssim_y

HERE = Path(__file__).parent
# NIQE and BRISQUE divide pixels into those above and below 0; in flat places rounding errors decide on which side
NIQE_TOLERANCE = 3e-2  # astronaut has a black background
BRISQUE_TOLERANCE = 1e-3

needs_model = pytest.mark.skipif(find_spec('brisque') is None, reason='the package brisque is not installed')


def test_psnr_and_ssim_are_those_of_matlabs_formulas(octave_pairs, octave_scores):
    assert octave_pairs.keys() == octave_scores.keys()
    for name, (image, target) in octave_pairs.items():
        assert psnr_y(image, target) == pytest.approx(octave_scores[name]['psnr'], abs=1e-8), name
        assert ssim_y(image, target) == pytest.approx(octave_scores[name]['ssim'], abs=1e-8), name


def test_niqe_is_that_of_matlabs_formulas(octave_pairs, octave_scores):
    for name, (image, _) in octave_pairs.items():
        assert derain_niqe(image) == pytest.approx(octave_scores[name]['niqe'], abs=NIQE_TOLERANCE), name


@needs_model
def test_brisque_is_that_of_matlabs_formulas(octave_pairs, octave_scores):
    for name, (image, _) in octave_pairs.items():
        assert derain_brisque(image) == pytest.approx(octave_scores[name]['brisque'], abs=BRISQUE_TOLERANCE), name


@pytest.mark.slow
@needs_model
@pytest.mark.skipif(not shutil.which('octave'), reason='GNU Octave is not installed')
def test_octave_gives_the_stored_scores(octave_pairs, octave_scores, tmp_path):
    write_parameters(tmp_path)
    lines = []
    for name, pair in octave_pairs.items():
        files = [tmp_path / f'{name}_{side}.png' for side in ('image', 'target')]
        for file, image in zip(files, pair, strict=True):
            write_image(file, image)
        lines.append('\t'.join([name, *map(str, files)]))
    (tmp_path / 'list.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    code = f"addpath('{HERE}'); score_pairs('{tmp_path}/list.txt', '{tmp_path}', '{tmp_path}/octave_scores.csv')"
    subprocess.run(['octave', '--no-gui', '--quiet', '--eval', code], check=True, capture_output=True)
    with (tmp_path / 'octave_scores.csv').open(encoding='utf-8') as file:
        anew = {row.pop('name'): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}
    assert anew.keys() == octave_scores.keys()
    for name, scores in anew.items():
        assert scores == pytest.approx(octave_scores[name], abs=1e-6), name


def write_parameters(folder):
    """The trained parts of NIQE and BRISQUE, for Octave."""
    mean, covariance, _ = _pristine_model()
    model = regression()
    tables = {
        'niqe_mean': mean.reshape(1, -1),
        'niqe_cov': covariance,
        'brisque_min': model.low[None],
        'brisque_max': model.high[None],
        'brisque_sv': model.vectors,
        'brisque_coef': model.coefficients[:, None],
        'brisque_gamma_rho': np.array([[model.kernel_gamma, model.offset]]),
    }
    for name, table in tables.items():
        np.savetxt(folder / f'{name}.csv', table, '%.17g', ',')
