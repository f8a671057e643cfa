"""What registered parts take from option files."""

import inspect

import pytest

from ddsa_arch.errors import InputError
from ddsa_arch.options.parts import check_part, part_parameters, wanted_types
from ddsa_arch.options.schema import Part

OPTIMISER = Part('optimiser', 'An optimiser.')
SCHEDULER = Part('scheduler', 'A schedule.', many=True)


def test_a_part_takes_what_its_constructor_takes_less_what_the_caller_gives():
    taken, others = part_parameters('metric', 'derain_psnr')
    assert (list(taken), others) == (['crop_border', 'protocol', 'better'], False)
    taken, others = part_parameters('metric', 'calculate_psnr')
    assert (list(taken), others) == (['crop_border', 'input_order', 'test_y_channel'], True)
    taken, _ = part_parameters('optimiser', 'SparseAdam')
    assert list(taken) == ['lr', 'betas', 'eps', 'maximize']


def test_schedules_of_mmengine_take_what_the_class_behind_them_takes():
    taken, others = part_parameters('scheduler', 'StepLR')
    assert list(taken) == ['step_size', 'gamma', 'begin', 'end', 'last_step', 'by_epoch', 'verbose']
    assert not others
    assert taken['by_epoch'].default is False  # the model steps them in iterations


@pytest.mark.parametrize(
    ('annotation', 'default', 'types'),
    [
        (int, 1, (int,)),
        ('float', 1.0, (float,)),
        ('Sequence[int]', (1,), (list,)),
        ('Sequence[float] | None', None, (list, type(None))),
        ('Optional[int]', 3, (int, type(None))),
        (bool, None, (bool, type(None))),
        ('float | torch.Tensor', 1.0, (float,)),
        ('tuple[float | None, float]', 1, (list,)),
        ('nn.Module', None, ()),
        (inspect.Parameter.empty, 3, ()),
    ],
)
def test_types_are_read_from_annotations(annotation, default, types):
    parameter = inspect.Parameter('x', inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
    assert wanted_types(parameter) == types


def test_values_of_the_right_type_pass_and_whole_numbers_become_integers():
    given = {'type': 'CosineAnnealingLR', 'T_max': 1e4, 'eta_min': None, 'begin': 5}
    assert check_part([given], SCHEDULER, 'x') == [{**given, 'T_max': 10_000}]
    given = {'type': 'AdamW', 'lr': 1, 'betas': [0.9, 0.99], 'fused': None}
    assert check_part(given, OPTIMISER, 'x') == given
    assert check_part(None, OPTIMISER, 'x') is None


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'type': 'AdamW', 'lr': True}, r'x\.lr: True is bool, AdamW takes float'),
        ({'type': 'AdamW', 'lr': None}, r'x\.lr: None is NoneType, AdamW takes float'),
        ({'type': 'AdamW'}, r'x\.lr is missing: AdamW needs it'),
        ({'type': 'AdamW', 'lr': 1, 'wieght_decay': 1}, r"x\.wieght_decay: .* did you mean 'weight_decay'\?$"),
        ({'type': 'SparseAdam', 'lr': 1, 'fused': True}, r'x\.fused: .* `_delete_: true` in x drops what it inherits'),
        ({'type': ['AdamW']}, r"x\.type: no optimiser \['AdamW'\] is registered"),
        ('AdamW', r'x\.type is missing'),
    ],
)
def test_wrong_parts_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        check_part(given, OPTIMISER, 'x')
