"""``ddsa demo``: a page in the browser that removes the rain from a photo and shows it before and after."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from ddsa_arch.models.derainer import AUTO, BUILT_IN, Derainer, choose_device
from ddsa_arch.ops.errors import InputError
from ddsa_arch.ops.images import write_image
from ddsa_arch.ops.photos import Photo, read_photo, write_photo
from ddsa_arch.ops.rain import add_rain, rain_style
from ddsa_arch.ops.sample_photos import TEST_PHOTOS, sample_photos
from ddsa_arch.runners.process import keep_freed_memory

if TYPE_CHECKING:
    import gradio as gr

INSTALL = "pip install 'ddsa_arch[demo]'"
OLDEST_GRADIO = 6
BUILT_IN_NAME = 'DDSANet, small'
HOST = '127.0.0.1'
FIRST_PORT, PORTS = 7860, 100  # those that are tried without --port
LARGEST_PORT = 65535
EXAMPLE_SIDE = 480  # pixels of the longer side
EXAMPLE_RAIN = ('light', 'heavy')
SWEEP = (3600, 24 * 3600)  # every hour, results older than a day go
ERROR_SHOWN = 20  # seconds
SHOWN_FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'PNG', 'WEBP')  # by every browser
# what the page of older releases asks for elsewhere: a script for pages within pages, and connections for fonts
ELSEWHERE = re.compile(rb'<(?:script|link)\b[^>]*\b(?:src|href)=["\']https?://[^>]*>(?:\s*</script>)?')

TITLE = 'Remove the rain from a photo'
ABOUT = 'Drop a photo; the network takes the rain streaks out of it. Nothing leaves the machine that this page runs on.'
SHARED_ABOUT = 'Drop a photo; the network takes the rain streaks out of it.'
CSS = """
.gradio-container {width: 100%; max-width: 1240px !important; margin: 0 auto}
#about p {font-size: 1.05rem}
#told {min-height: 1.5rem}
"""


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
        """In the order in which they were given."""
        return list(self._derainers)

    def __getitem__(self, name: str) -> Derainer:
        derainer = self._derainers[name]
        if not isinstance(derainer, Derainer):
            derainer = self._derainers[name] = derainer()
        return derainer


def derain_photo(derainer: Derainer, photo: str | Path, folder: str | Path, ensemble: bool = False) -> Pair:
    """Derain a photo into a new folder.

    Args:
        derainer: the network.
        photo: a file of any format that Pillow reads, of 8 or 16 bits.
        folder: where the new folder is made.
        ensemble: the mean over 8 flips and turns.

    Raises:
        InputError: the file cannot be read, or the network cannot do it. Its message names the file without folders.
    """
    rainy = _read(photo)
    derainer.ensemble = ensemble
    start = time.perf_counter()
    derained = rainy.with_pixels(derainer(rainy.pixels))
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
    """A file of the same photo that browsers show: itself, or a PNG of the same pixels in a new folder.

    Raises:
        InputError: it cannot be read.
    """
    with contextlib.suppress(OSError, Image.DecompressionBombError), Image.open(photo) as image:
        if image.format in SHOWN_FORMATS:
            return Path(photo)
    target = Path(tempfile.mkdtemp(dir=folder)) / f'{Path(photo).stem}.png'
    write_photo(target, _read(photo))
    return target


def write_examples(folder: str | Path) -> list[Path]:
    """Small photos of scikit-image in rendered rain, those that the quickstart does not train on; none without it."""
    try:
        photos = sample_photos(TEST_PHOTOS)
    except InputError:
        return []
    paths = []
    rng = np.random.default_rng(0)
    for rain in EXAMPLE_RAIN:
        for name, photo in photos.items():
            scale = min(1.0, EXAMPLE_SIDE / max(photo.shape[:2]))
            clean = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            paths.append(Path(folder) / f'{name}_{rain}_rain.png')
            write_image(paths[-1], add_rain(clean, rain_style(rain), rng))
    return paths


def build_demo(
    derainers: Mapping[str, Derainer | Callable[[], Derainer]],
    examples: Sequence[str | Path] = (),
    about: str = ABOUT,
) -> gr.Blocks:
    """The page. ``serve`` shows it; a ``launch()`` of your own does too, in gradio's colours.

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
                ensemble = gr.Checkbox(label='8 flips and turns: slower, a little better', elem_id='ensemble')
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

        def derain(path: str | None, name: str, turns: bool, progress=gr.Progress()) -> tuple:  # noqa: B008
            with _told_on_page(gr):
                if path is None:
                    raise InputError('there is no photo yet: drop one, or take one of those below')
                progress(0.05, desc='loading the network')
                derainer = networks[name]
                progress(0.2, desc='removing the rain')
                pair = derain_photo(derainer, path, page.GRADIO_CACHE, turns)
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


def import_gradio() -> ModuleType:
    """gradio, set neither to report nor to record what it is used for.

    Raises:
        InputError: it is not installed, or too old.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED='0', GRADIO_RUN_HISTORY='False')
    try:
        import gradio
    except ImportError as error:
        raise InputError(f'the page needs gradio, which cannot be imported ({error}): {INSTALL}') from error
    if int(gradio.__version__.split('.')[0]) < OLDEST_GRADIO:
        raise InputError(f'gradio {gradio.__version__} is too old for the page, {OLDEST_GRADIO} will do: {INSTALL}')
    return gradio


def _path_of(payload: Any) -> str | None:
    return payload.path if payload else None


@contextlib.contextmanager
def _told_on_page(gr: ModuleType) -> Iterator[None]:
    """An error that the visitor can mend is shown on the page; the others are gradio's to report."""
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


def free_port(host: str, port: int | None = None) -> int:
    """The port itself if it is free; without one, the first free one from 7860 on.

    Raises:
        InputError: it is taken, all are taken, or the host is not one of this machine.
    """
    if port is not None and not 1 <= port <= LARGEST_PORT:
        raise InputError(f'--port {port}: wanted a number from 1 to {LARGEST_PORT}')
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else [port]:
        try:
            with socket.create_server((host, candidate)):
                return candidate
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EACCES:
                raise InputError(f'--port {candidate}: not allowed ({error.strerror}); try one above 1023') from error
            raise InputError(f'--host {host}: cannot be served here ({error.strerror or error})') from error
    if port is None:
        raise InputError(f'the ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} of {host} are taken; name one: --port N')
    raise InputError(f'--port {port}: another program has it on {host}; name another, or leave --port out')


@contextlib.contextmanager
def serve(
    page: gr.Blocks, host: str = HOST, port: int | None = None, share: bool = False, open_browser: bool = False
) -> Iterator[list[str]]:
    """Serve a page for the time of the block. In the end, networks that still run stop at their next layer.

    Args:
        page: of ``build_demo``.
        host: the address that it listens on; ``0.0.0.0`` for all of this machine.
        port: None takes a free one.
        share: also behind a public address for a week, through a server of gradio's makers.
        open_browser: show it in the browser of this machine.

    Yields:
        The addresses of the page, that of this machine first.

    Raises:
        InputError: it cannot be served there.
    """
    gr = import_gradio()
    from starlette.middleware import Middleware

    fonts = ('system-ui', 'sans-serif'), ('ui-monospace', 'monospace')
    theme = gr.themes.Soft(primary_hue='blue', neutral_hue='slate', font=fonts[0], font_mono=fonts[1])
    port = free_port(host, port)
    try:
        page.launch(
            server_name=host, server_port=port, share=share, inbrowser=open_browser, prevent_thread_lock=True,
            quiet=True, ssr_mode=False, theme=theme, css=CSS, footer_links=[],
            app_kwargs={'middleware': [Middleware(_OwnThingsOnly)]},
        )  # fmt: skip
    except OSError as error:  # a port that was taken in the meantime
        raise InputError(f'--host {host} --port {port}: the page cannot be served there ({error})') from error
    try:
        yield [address.rstrip('/') for address in (page.local_url, page.share_url) if address]
    finally:
        # Python cannot end in the middle of a layer that another thread computes
        stop = register_module_forward_pre_hook(_refuse)
        page.close(verbose=False)
        stop.remove()


def _refuse(*_: Any) -> None:
    raise InputError('the page is closed')


class _OwnThingsOnly:
    """Cuts what a page would fetch from elsewhere out of each page that an ASGI application sends."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        start: dict | None = None
        parts: list[bytes] = []

        async def cut(message: dict) -> None:
            nonlocal start
            headers = {name.lower(): value for name, value in message.get('headers', ())}
            if message['type'] == 'http.response.start' and headers.get(b'content-type', b'').startswith(b'text/html'):
                start = message  # held back, as the length will be another
            elif start is None or message['type'] != 'http.response.body':
                await send(message)
            else:
                parts.append(message.get('body', b''))
                if not message.get('more_body'):
                    body = ELSEWHERE.sub(b'', b''.join(parts))
                    kept = [(name, value) for name, value in start['headers'] if name.lower() != b'content-length']
                    await send({**start, 'headers': [*kept, (b'content-length', str(len(body)).encode())]})
                    await send({'type': 'http.response.body', 'body': body})

        await self.app(scope, receive, cut if scope['type'] == 'http' else send)


@contextlib.contextmanager
def _temporary_files() -> Iterator[Path]:
    """A folder for all files of gradio and of ours, removed in the end, by SIGTERM too."""
    before = os.environ.get('GRADIO_TEMP_DIR')
    handled = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)) if handled else None
    try:
        with tempfile.TemporaryDirectory(prefix='ddsa-demo-', ignore_cleanup_errors=True) as folder:
            os.environ['GRADIO_TEMP_DIR'] = folder
            yield Path(folder)
    finally:
        if handled:
            signal.signal(signal.SIGTERM, handler)
        if before is None:
            os.environ.pop('GRADIO_TEMP_DIR', None)
        else:
            os.environ['GRADIO_TEMP_DIR'] = before


def weight_files(given: Sequence[str]) -> dict[str, Path]:
    """Weight files by the names that the page gives their networks: the small one of the package if none is given.

    Args:
        given: ``NAME=FILE``, or a file alone, whose stem is the name then.

    Raises:
        InputError: no such file, no name, or one name twice.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, _, file = text.partition('=') if not Path(text).is_file() else (Path(text).stem, '', text)
        if not name.strip() or not file:
            raise InputError(f'--weights {text}: no such file; wanted NAME=FILE, such as large=net_g_latest.pth')
        if name in files:
            raise InputError(f'--weights {text}: the name {name!r} is given twice')
        files[name] = Path(file)
    files = files or {BUILT_IN_NAME: BUILT_IN}
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f'weights: no file {path} (of {name!r})')
    return files


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    files = weight_files(args.weights)
    device = choose_device(args.device)
    free_port(args.host, args.port)  # before anything slow
    keep_freed_memory(of_any_size=False)
    derainers = {name: functools.partial(Derainer, path, device=device) for name, path in files.items()}
    with _temporary_files() as folder:  # gradio looks for its folder when it is imported
        page = build_demo(derainers, write_examples(folder / 'examples'), SHARED_ABOUT if args.share else ABOUT)
        with serve(page, args.host, args.port, args.share, not args.no_browser) as addresses:
            print('Ctrl-C ends it')
            print('The page is at', ' and '.join(addresses), flush=True)
            while True:
                time.sleep(3600)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='ddsa demo', description=__doc__)
    add = parser.add_argument
    add('--weights', nargs='+', action='extend', default=[], metavar='NAME=FILE',
        help='of ddsa train or ddsa export, several for a choice (the small network of the package)')  # fmt: skip
    add('--device', default=AUTO, help='auto, cpu, cuda, cuda:1, mps (auto)')
    add('--host', default=HOST, help=f'the address to listen on, 0.0.0.0 for all of this machine ({HOST})')
    add('--port', type=int, metavar='N', help=f'(the first free one from {FIRST_PORT} on)')
    add('--no-browser', action='store_true', help='do not open the page in the browser of this machine')
    add('--share', action='store_true', help='a public address for a week, through a server of the makers of gradio')
    return parser
