import hashlib

import torch

from ddsa_arch.models.protocol import describe_protocol, protocol_block, sha256
from ddsa_arch.models.restore import Recipe


class Net(torch.nn.Conv2d):
    size_multiple = 16

    def __init__(self):
        super().__init__(3, 3, 1)


def options(tmp_path, **paths):
    weights = tmp_path / 'w.pth'
    weights.write_bytes(b'weights')
    metrics = {'psnr': {'type': 'derain_psnr', 'protocol': 'basicsr'}, 'ssim': {'type': 'derain_ssim'}}
    return {
        'is_train': False, 'world_size': 1, 'network_g': {'type': 'Net', 'dim': 8}, 'val': {'metrics': metrics},
        'path': {'pretrain_network_g': str(weights), 'param_key_g': 'params_ema'}, 'missing_sets': ['Test100'],
    }  # fmt: skip


def test_every_option_of_the_scores_and_the_weights_digest_are_stored(tmp_path):
    block = protocol_block(options(tmp_path), Net(), Recipe(rounding='truncate'), torch.device('cpu'))
    assert block['metrics']['psnr'] == {
        'type': 'derain_psnr', 'crop_border': 0, 'protocol': 'basicsr', 'better': 'higher'
    }  # fmt: skip
    assert block['metrics']['ssim']['protocol'] == 'paper'  # the default is written out
    assert block['weights']['sha256'] == hashlib.sha256(b'weights').hexdigest()
    assert block['restore']['size_multiple'] == 16
    assert block['restore']['pad'] == 'reflect'
    assert block['rounding'] == 'truncate'
    assert block['missing_sets'] == ['Test100']
    assert block['dtype'] == 'float32'
    assert block['parameters'] == 12
    assert block['versions']['torch'] == torch.__version__
    assert block['device'].startswith('cpu: ')


def test_tiles_of_networks_of_one_size_are_stored(tmp_path):
    net = Net()
    net.fixed_size = 128
    block = protocol_block(options(tmp_path), net, Recipe(), torch.device('cpu'))
    assert block['restore']['tile_size'] == 128


def test_one_line_says_what_makes_figures_differ(tmp_path):
    block = protocol_block(options(tmp_path), Net(), Recipe(rounding='truncate'), torch.device('cpu'))
    digest = hashlib.sha256(b'weights').hexdigest()[:12]
    assert describe_protocol(block, ['niqe']).startswith('outputs truncated')
    assert describe_protocol(block, ['psnr', 'ssim']) == (
        f'Y basicsr, Y paper, outputs truncated to 8 bits, whole images padded to multiples of 16, weights {digest}'
    )


def test_a_large_file_is_digested_in_parts(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / 'large').write_bytes(content)
    assert sha256(tmp_path / 'large') == hashlib.sha256(content).hexdigest()
