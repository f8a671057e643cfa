"""The loss of SEMI, semi-supervised (https://arxiv.org/abs/1807.11078)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from ddsa_arch.registration import register

FLOOR = 1e-6  # added to every variance


@register(LOSS_REGISTRY)
class SEMILoss(nn.Module):
    """Squared error of the labelled images, likelihood of the photos' rain, smoothness of what is left of the photos.

        mean (x - y)^2 + gmm_weight * mean_n sum_k R_kn e_n^2 / (2 S_k) + tv_weight * TV(photo outputs)

    e are the values of photo - output, all pixels and channels of a batch. They are modelled by a mixture of K
    Gaussians of mean 0 with weights w_k and variances S_k, kept from step to step. Each step does

        E:  R_kn ~ w_k N(e_n; 0, S_k), sum_k R_kn = 1
        M:  w_k = mean_n R_kn;  S_k = sum_n R_kn e_n^2 / sum_n R_kn + 1e-6
        E again;  R and S are constants for the gradient.

    TV is the sum of absolute differences between neighbours, mean over the images. In the first epoch, the mixture is
    fitted to the photos themselves instead of e, each step anew from equal weights and from variances drawn from
    [0, 1).

    From the authors' TensorFlow release: the terms and their weights, K, the steps above, the random variances. Ours,
    where its description is silent: means run over pixels and channels, weights of the mixture begin equal, and a
    batch that is not finite leaves the mixture alone. Left out is the release's last term, 1e-9 times the smallest
    divergence of the labelled rain from a component: it depends on no weight of the network, and a loss does not see
    the labelled input.

    Args:
        loss_weight: factor of the whole loss.
        gmm_weight: of the likelihood.
        tv_weight: of the smoothness.
        components: K.
        epoch_steps: length of the first epoch, in calls of the loss; 0 for none.
    """

    steps: Tensor
    weights: Tensor
    variances: Tensor

    def __init__(
        self,
        loss_weight: float = 1.0,
        gmm_weight: float = 0.5,
        tv_weight: float = 1e-5,
        components: int = 3,
        epoch_steps: int = 50_000,
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f'components: {components} is below 1; the paper has 3')
        self.loss_weight, self.gmm_weight, self.tv_weight = loss_weight, gmm_weight, tv_weight
        self.epoch_steps = epoch_steps
        self.register_buffer('steps', torch.tensor(0))
        self.register_buffer('weights', torch.full((components,), 1 / components))
        self.register_buffer('variances', torch.rand(components) + FLOOR)

    def forward(self, output: Sequence[Tensor], target: Tensor) -> Tensor:
        """
        Args:
            output: ``[photo - photo output, photo output, output]``, ``(B, 3, H, W)`` each, what ``SEMI(semi=True)``
                gives in training.
            target: of the labelled image, ``(B, 3, H, W)`` in [0, 1].

        Raises:
            ValueError: not these three outputs.
        """
        if isinstance(output, Tensor) or len(output) != 3:
            raise ValueError(
                'SEMILoss needs photos without targets too: set network_g.semi: true and '
                'datasets.train.type: SemiRainDataset'
            )
        residual, photo_output, image = output
        with torch.no_grad():
            factor = self.fit(residual, residual + photo_output)
        likelihood = (factor * residual.square()).mean()
        smoothness = total_variation(photo_output)
        return self.loss_weight * (
            F.mse_loss(image, target) + self.gmm_weight * likelihood + self.tv_weight * smoothness
        )

    def fit(self, residual: Tensor, photo: Tensor) -> Tensor:
        """Move the mixture by a step, and return sum_k R_k / (2 S_k) of each value, in the shape of ``residual``."""
        first = self.steps < self.epoch_steps  # no Python branch: it would wait for the device
        values = torch.where(first, photo, residual).square().flatten()
        weights = torch.where(first, 1 / len(self.weights), self.weights)
        variances = torch.where(first, torch.rand_like(self.variances) + FLOOR, self.variances)

        responsibilities = expectation(values, weights, variances)
        weights, variances = maximisation(values, responsibilities)
        responsibilities = expectation(values, weights, variances)

        finite = (weights + variances).isfinite().all()
        self.weights.copy_(torch.where(finite, weights, self.weights))
        self.variances.copy_(torch.where(finite, variances, self.variances))
        self.steps.add_(1)
        return (responsibilities / (2 * variances[:, None])).sum(dim=0).view_as(residual)


def expectation(squares: Tensor, weights: Tensor, variances: Tensor) -> Tensor:
    """R, ``(K, N)``, of N squared values under a mixture of K Gaussians of mean 0; each column sums up to 1."""
    weights, variances = weights[:, None], variances[:, None]
    return (weights.log() - variances.log() / 2 - squares / (2 * variances)).softmax(dim=0)


def maximisation(squares: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and variances, ``(K,)`` each, from N squared values and R, ``(K, N)``."""
    mass = responsibilities.sum(dim=1)
    variances = (responsibilities * squares).sum(dim=1) / mass.clamp_min(torch.finfo(mass.dtype).tiny) + FLOOR
    return responsibilities.mean(dim=1), variances


def total_variation(images: Tensor) -> Tensor:
    """Sum of absolute differences between neighbours in rows and columns, mean over the images of ``(B, C, H, W)``."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().sum()
    across = (images[..., 1:] - images[..., :-1]).abs().sum()
    return (down + across) / images.shape[0]
