import torch

from ddsa_arch.models.protocol import describe_protocol, protocol_block
from ddsa_arch.models.restore import Recipe


class Net(torch.nn.Conv2d):
    size_multiple = 16

    def __init__(self):
        super().__init__(3, 3, 1)


LOADED = {'file': 'w.pth', 'sha256': '0123456789abcdef', 'key': 'params'}


def options():
    metrics = {'psnr': {'type': 'derain_psnr', 'protocol': 'basicsr'}, 'ssim': {'type': 'derain_ssim'}}
    return {
        'is_train': False, 'world_size': 1, 'network_g': {'type': 'Net', 'dim': 8}, 'val': {'metrics': metrics},
        'missing_sets': ['Test100'],
    }  # fmt: skip


def test_every_option_of_the_scores_and_the_weights_digest_are_stored():
    block = protocol_block(options(), Net(), Recipe(rounding='truncate'), torch.device('cpu'), LOADED)
    assert block['metrics']['psnr'] == {
        'type': 'derain_psnr', 'crop_border': 0, 'protocol': 'basicsr', 'better': 'higher'
    }  # fmt: skip
    assert block['metrics']['ssim']['protocol'] == 'paper'  # the default is written out
    assert block['weights'] == LOADED
    assert block['restore']['size_multiple'] == 16
    assert block['restore']['pad'] == 'reflect'
    assert block['rounding'] == 'truncate'
    assert block['missing_sets'] == ['Test100']
    assert block['dtype'] == 'float32'
    assert block['parameters'] == 12
    assert block['versions']['torch'] == torch.__version__
    assert block['device'].startswith('cpu: ')


def test_tiles_of_networks_of_one_size_are_stored():
    net = Net()
    net.fixed_size = 128
    block = protocol_block(options(), net, Recipe(), torch.device('cpu'))
    assert block['restore']['tile_size'] == 128


def test_one_line_says_what_makes_figures_differ():
    block = protocol_block(options(), Net(), Recipe(rounding='truncate'), torch.device('cpu'), LOADED)
    assert describe_protocol(block, ['niqe']).startswith('outputs truncated')
    assert describe_protocol(block, ['psnr', 'ssim']) == (
        'Y basicsr, Y paper, outputs truncated to 8 bits, whole images padded to multiples of 16, weights 0123456789ab'
    )
