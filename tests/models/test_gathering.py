import pytest
from torch.utils.data import Dataset

from ddsa_arch.models.gathering import gather, interleave, shared_loader


class Numbers(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize('world_size', [1, 2, 3, 7])
@pytest.mark.parametrize('count', [1, 6, 7])
def test_shares_cover_every_image_once_and_come_back_in_order(count, world_size):
    shares = [[int(i) for i in shared_loader(Numbers(count), rank, world_size)] for rank in range(world_size)]
    assert sorted(image for share in shares for image in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert interleave(shares) == list(range(count))


def test_one_process_gathers_its_own_part():
    assert gather(['a']) == [['a']]
