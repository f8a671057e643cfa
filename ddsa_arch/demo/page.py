"""The page of ``ddsa demo``: what it shows, and what its buttons do."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from PIL import Image

from ddsa_arch.demo.server import import_gradio
from ddsa_arch.errors import InputError
from ddsa_arch.files.photos import Photo, read_photo, write_photo
from ddsa_arch.inference.derainer import Derainer

if TYPE_CHECKING:
    import gradio as gr

FLIPS = 4  # views of the ensemble
SWEEP = (3600, 24 * 3600)  # every hour, results older than a day go
ERROR_SHOWN = 20  # seconds
SHOWN_FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')  # by every browser

TITLE = 'Remove the rain from a photo'
ABOUT = 'Drop a photo; the network takes the rain streaks out of it. Nothing leaves the machine that this page runs on.'


@dataclass(frozen=True)
class Pair:
    """A photo with and without rain, as files.

    Args:
        before: the photo as it came, upright, as PNG.
        after: the same without rain, in full size, as PNG.
        seconds: that the network took.
        size: width and height in pixels.
        notes: what was done otherwise than one might think, one sentence each.
    """

    before: Path
    after: Path
    seconds: float
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


class Networks:
    """Networks by name, each loaded when it is first asked for and kept from then on.

    Args:
        derainers: each a ``Derainer``, or what makes it.

    Raises:
        InputError: there are none.
    """

    def __init__(self, derainers: Mapping[str, Derainer | Callable[[], Derainer]]) -> None:
        if not derainers:
            raise InputError('there is no network to offer')
        self._derainers = dict(derainers)

    @property
    def names(self) -> list[str]:
        """Return the names in the order in which they were given."""
        return list(self._derainers)

    def __getitem__(self, name: str) -> Derainer:
        derainer = self._derainers[name]
        if not isinstance(derainer, Derainer):
            derainer = self._derainers[name] = derainer()
        return derainer


def derain_photo(
    derainer: Derainer,
    photo: str | Path,
    folder: str | Path,
    ensemble: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Pair:
    """Derain a photo into a new folder.

    Args:
        derainer: the network.
        photo: a file of any format that Pillow reads, of 8 or 16 bits.
        folder: where the new folder is made.
        ensemble: see ``Derainer``.
        progress: see ``Derainer.__call__``.

    Raises:
        InputError: the file cannot be read, or the network cannot do it. Its message names the file without folders.
    """
    rainy = _read(photo)
    start = time.perf_counter()
    derained = rainy.with_pixels(derainer(rainy.pixels, ensemble=ensemble, progress=progress))
    seconds = time.perf_counter() - start
    target = Path(tempfile.mkdtemp(dir=folder))
    stem = Path(photo).stem
    before, after = target / f'{stem}.png', target / f'{stem}_derained.png'
    write_photo(before, rainy)
    lost = write_photo(after, derained)
    height, width = rainy.pixels.shape[:2]
    return Pair(before, after, seconds, (width, height), (*rainy.notes, *lost, *derainer.notes))


def _read(path: str | Path) -> Photo:
    """Read a photo; a message names the file as its owner knows it."""
    try:
        return read_photo(path)
    except InputError as error:
        raise InputError(f'{Path(path).name}: {str(error).removeprefix(f"{path}: ")}') from error


def as_shown(photo: str | Path, folder: str | Path) -> Path:
    """Return a file of the same photo that browsers show: itself, or a PNG of the same pixels in a new folder.

    Raises:
        InputError: it cannot be read.
    """
    with contextlib.suppress(OSError, Image.DecompressionBombError), Image.open(photo) as image:
        if image.format in SHOWN_FORMATS:
            return Path(photo)
    target = Path(tempfile.mkdtemp(dir=folder)) / f'{Path(photo).stem}.png'
    write_photo(target, _read(photo))
    return target


def build_demo(
    derainers: Mapping[str, Derainer | Callable[[], Derainer]],
    examples: Sequence[str | Path] = (),
    about: str = ABOUT,
) -> gr.Blocks:
    """Build the page. ``serve`` shows it; a ``launch()`` of your own does too, in gradio's colours.

    Args:
        derainers: by the name that the page gives them, each a ``Derainer`` or what makes it on first use.
        examples: photos to try.
        about: one sentence or two below the title.

    Raises:
        InputError: gradio is not installed, or there is no network.
    """
    gr = import_gradio()
    networks = Networks(derainers)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP, fill_width=True) as page:
        gr.Markdown(f'# {TITLE}')
        gr.Markdown(about, elem_id='about')
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                photo = gr.Image(
                    type='filepath', image_mode=None, sources=['upload', 'clipboard'], label='Photo', height=300,
                    elem_id='photo', buttons=[],
                )  # fmt: skip
                photo.preprocess = _path_of  # gradio would open it, and tell nothing of what is wrong with it
                network = gr.Dropdown(
                    networks.names, value=networks.names[0], label='Network', visible=len(networks.names) > 1,
                    elem_id='network',
                )  # fmt: skip
                ensemble = gr.Checkbox(label='Mean over 4 flips: slower, a little better', elem_id='ensemble')
                button = gr.Button('Remove the rain', variant='primary', elem_id='derain')
                if examples:
                    gr.Examples([[str(path)] for path in examples], [photo], label='Try one of these',
                                cache_examples=False, elem_id='examples')  # fmt: skip
            with gr.Column(scale=3, min_width=400):
                slider = gr.ImageSlider(
                    type='filepath', label='Before and after', interactive=False, height=480, max_height=480,
                    elem_id='slider', buttons=['fullscreen'],
                )  # fmt: skip
                told = gr.Markdown(elem_id='told')
                download = gr.DownloadButton('Download the result', interactive=False, elem_id='download')

        def show(path: str | None) -> str | None:
            with _told_on_page(gr):
                return path and str(as_shown(path, page.GRADIO_CACHE))

        def derain(path: str | None, name: str, flips: bool, progress=gr.Progress()) -> tuple:  # noqa: B008
            with _told_on_page(gr):
                if path is None:
                    raise InputError('there is no photo yet: drop one, or take one of those below')
                progress(0.05, desc='loading the network')
                derainer = networks[name]
                progress(0.2, desc='removing the rain')
                pair = derain_photo(
                    derainer, path, page.GRADIO_CACHE, FLIPS if flips else 1,
                    lambda done: progress(0.2 + 0.75 * done, desc='removing the rain'),
                )  # fmt: skip
                progress(1.0, desc='done')
            label = f'Download the result ({_size(pair.after)}, PNG)'
            return (
                (str(pair.before), str(pair.after)),
                _sentence(pair, name, str(derainer.device)),
                gr.DownloadButton(label, value=str(pair.after), interactive=True),
            )

        hidden: dict[str, Any] = {'concurrency_limit': 1, 'api_visibility': 'private'}
        uploaded = photo.upload(show, [photo], [photo], show_progress='hidden', **hidden)
        uploaded.failure(lambda: None, None, [photo], show_progress='hidden', **hidden)  # no broken picture stays
        button.click(
            derain, [photo, network, ensemble], [slider, told, download], show_progress_on=[slider],
            concurrency_id='network', **hidden,
        )  # fmt: skip
    page.queue(default_concurrency_limit=1)
    return page


def _path_of(payload: Any) -> str | None:
    return payload.path if payload else None


@contextlib.contextmanager
def _told_on_page(gr: ModuleType) -> Iterator[None]:
    """Show an error that the visitor can mend on the page, and leave others to gradio."""
    try:
        yield
    except (InputError, OSError) as error:
        raise gr.Error(str(error), duration=ERROR_SHOWN, print_exception=False) from error


def _sentence(pair: Pair, network: str, device: str) -> str:
    width, height = pair.size
    told = f'**{width} × {height} pixels** in **{pair.seconds:.1f} s** by {network} on {device}'
    return '\n'.join([told, '', *(f'- {note}' for note in pair.notes)]).strip()


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{max(1, round(size / 1e3))} kB'
