"""How a model validates and tests: whole images, scores, and the record of the best."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ddsa_arch.models.best import BestWeights
from ddsa_arch.models.gathering import gather, interleave, shared_loader
from ddsa_arch.models.kept_images import KeptImage
from ddsa_arch.models.restore import Recipe, restore, to_uint8
from ddsa_arch.models.results import COLUMNS, ResultFiles
from ddsa_arch.models.scoring import needs_target, score_image

NOT_FINITE = "the network's output is not finite"


class ValidatedModel(SRModel):
    """The part of a model that derains whole images and scores them; DerainModel adds the training.

    Attributes:
        recipe: how images of any size go through the network.
        results: the tables that are written.
        best: the weights with the best mean so far, or None.
        validated_at: the newest iteration of each set.
    """

    lq: Tensor
    gt: Tensor | None
    recipe: Recipe
    results: ResultFiles
    best: BestWeights | None
    validated_at: dict[str, int]
    net_for_inference: nn.Module | None

    @property
    def best_network(self) -> nn.Module:
        """The network that is validated: the averaged one if there is one."""
        if averaged := getattr(self, 'net_g_ema', None):
            return averaged
        return self.net_for_inference or self.get_bare_model(self.net_g)

    def test(self) -> None:
        self.output = restore(self.best_network, self.lq, self.recipe)

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Each process derains its share of the images; the first one writes the results."""
        share = shared_loader(dataloader.dataset, self.opt['rank'], self.opt['world_size'])
        self.nondist_validation(share, current_iter, tb_logger, save_img)

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Derain a set, score it, and write CSV and JSON files beside BasicSR's log."""
        dataset: Any = dataloader.dataset  # BasicSR's have options
        name = dataset.opt['name']
        if self.is_train:
            current_iter = min(int(current_iter), int(self.opt['train']['total_iter']))
            if self.validated_at.get(name) == current_iter:
                return  # the pipeline validates once more after the last iteration
            self.validated_at[name] = current_iter
        batches = tqdm(dataloader, unit='image', desc=name, disable=not self._shows_bar(), leave=False)
        rows = []
        for place, data in enumerate(batches):
            stem = Path(data['lq_path'][0]).stem
            kept = KeptImage.of(self.opt, name, place, stem, current_iter, save_img)
            rows.append(self._validate_image(data, kept))
        rows = interleave(gather(rows))
        metrics = [key for key in rows[0] if key not in COLUMNS]
        write = self.opt['rank'] == 0
        means = self.results.add(name, int(current_iter) if self.is_train else None, metrics, rows, write)
        self.metric_results = means
        if self.is_train and metrics:
            self._initialize_best_metric_results(name)
            for metric, value in means.items():
                self._update_best_metric_result(name, metric, value, current_iter)
        if write:
            self._log_validation_metric_values(current_iter, name, tb_logger)
        if self.is_train and self.best is not None:
            self._follow_best(name, means, int(current_iter))

    def _best_weights(self) -> BestWeights | None:
        options = self.opt['val'].get('best')
        sets = [d['name'] for phase, d in self.opt['datasets'].items() if phase != 'train']
        return BestWeights(options, self.opt['val'].get('metrics') or {}, sets) if options else None

    def _follow_best(self, name: str, means: dict[str, float], iteration: int) -> None:
        """Save the weights with the best mean over the validation sets so far."""
        assert self.best is not None
        mean = self.best.add(name, means, iteration)
        if mean is None:
            return
        if self.best.iteration == iteration:
            self.save_weights('best')
        get_root_logger().info(
            f'Mean {self.best.metric} of the validation sets: {mean:.4f} '
            f'(best {self.best.value:.4f} at iteration {self.best.iteration}, net_g_best.pth)'
        )
        if self.best.is_over:
            get_root_logger().info(
                f'No better mean in {self.best.waited} validations: the training ends (val.best.patience)'
            )

    @property
    def ends_early(self) -> bool:
        """Whether ``val.best.patience`` is used up."""
        return self.best is not None and self.best.is_over

    def _initialize_best_metric_results(self, dataset_name: str) -> None:
        """BasicSR's, with the metrics of sets without targets too."""
        self.best_metric_results = self.best_results()
        if dataset_name not in self.best_metric_results:
            kinds = (self.opt['val'].get(key) or {} for key in ('metrics_without_target', 'metrics'))
            sides = {name: metric.get('better', 'higher') for metrics in kinds for name, metric in metrics.items()}
            self.best_metric_results[dataset_name] = {
                name: {'better': better, 'val': -math.inf if better == 'higher' else math.inf, 'iter': -1}
                for name, better in sides.items()
            }

    def _shows_bar(self) -> bool:
        return bool(self.opt['val'].get('pbar')) and self.opt['rank'] == 0

    def _validate_image(self, data: dict[str, Any], kept: KeptImage) -> dict[str, Any]:
        start = time.perf_counter()
        self.feed_data(data)
        self.test()
        finite = bool(self.output.isfinite().all())
        derained = to_uint8(self.output, self.recipe.rounding)  # waits for the device
        row = {'image': Path(data['lq_path'][0]).stem, 'seconds': round(time.perf_counter() - start, 4)}
        target = None if self.gt is None else to_uint8(self.gt)
        if finite:
            kept.write(derained, self.lq, target)
        val = self.opt['val']
        metrics = val.get('metrics') or {}
        if 'gt' not in data:
            blind = {name: metric for name, metric in metrics.items() if not needs_target(metric['type'])}
            metrics = val.get('metrics_without_target') or blind
        if finite:
            scores, row['note'] = score_image(derained, target, metrics)
            if self.gt is None and not metrics:
                row['note'] = 'no target'
        else:
            scores, row['note'] = dict.fromkeys(metrics, math.nan), NOT_FINITE
        row.update(scores)
        del self.lq, self.gt, self.output  # before the next image comes
        return row

    def best_results(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The best score so far of each validation set and metric: ``better``, ``val`` and ``iter``."""
        return getattr(self, 'best_metric_results', {})
