"""The server of ``ddsa demo``: gradio, kept to this machine, on a free port, and stopped without a trace."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch.nn.modules.module import register_module_forward_pre_hook

from ddsa_arch.errors import InputError

if TYPE_CHECKING:
    import gradio as gr

INSTALL = "pip install 'ddsa_arch[demo]'"
OLDEST_GRADIO = 6
HOST = '127.0.0.1'
FIRST_PORT, PORTS = 7860, 100  # those that are tried without --port
LARGEST_PORT = 65535
# what the page of older releases asks for elsewhere: a script for pages within pages, and connections for fonts
ELSEWHERE = re.compile(rb'<(?:script|link)\b[^>]*\b(?:src|href)=["\']https?://[^>]*>(?:\s*</script>)?')
SCRIPT = Path(__file__).with_name('page.js')
CSS = """
.gradio-container {width: 100%; max-width: 1240px !important; margin: 0 auto}
#about p {font-size: 1.05rem}
#told {min-height: 1.5rem}
"""


def import_gradio() -> ModuleType:
    """Import gradio, set neither to report nor to record its use.

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


def free_port(host: str, port: int | None = None) -> int:
    """Return the port if it is free; if none is given, the first free one from 7860 on.

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
    page: gr.Blocks,
    host: str = HOST,
    port: int | None = None,
    share: bool = False,
    open_browser: bool = False,
    hosts: Sequence[str] = (),
) -> Iterator[list[str]]:
    """Serve a page for the time of the block. In the end, networks that still run stop at their next layer.

    Args:
        page: of ``build_demo``.
        host: the address that it listens on; ``0.0.0.0`` for all of this machine.
        port: None takes a free one.
        share: also behind a public address for a week, through a server of gradio's makers.
        open_browser: show it in the browser of this machine.
        hosts: names by which others reach this machine, such as that of a server before it.

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
    names = (host, *hosts, socket.gethostname(), *(('.gradio.live',) if share else ()))
    try:
        page.launch(
            server_name=host, server_port=port, share=share, inbrowser=open_browser, prevent_thread_lock=True,
            quiet=True, ssr_mode=False, theme=theme, css=CSS, footer_links=[],
            head=f'<script>{SCRIPT.read_text("utf-8")}</script>',
            app_kwargs={'middleware': [Middleware(OwnHostOnly, names), Middleware(_OwnThingsOnly)]},
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


class OwnHostOnly:
    """Refuses requests to an ASGI application under names that are not this machine's.

    A page of somebody else may let its own name lead to this machine, and would then read what is served here. An
    address in numbers cannot be used so, and is always taken.

    Args:
        app: the application.
        names: of this machine, besides ``localhost``; one that begins with a dot stands for all that end so.
    """

    def __init__(self, app: Callable, names: Sequence[str]) -> None:
        self.app = app
        self.names = {name.lower() for name in names}

    def takes(self, header: str) -> bool:
        """Whether a ``Host`` header, a name or an address with or without a port, is one of this machine."""
        host = header.strip().lower()
        host = host[1 : host.find(']')] if host.startswith('[') else host.partition(':')[0]
        try:
            ipaddress.ip_address(host)
        except ValueError:
            host = host.rstrip('.')
            ends = tuple(name for name in self.names if name.startswith('.'))
            return host == 'localhost' or host.endswith(('.localhost', *ends)) or host in self.names
        return True

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope['type'] not in ('http', 'websocket'):
            await self.app(scope, receive, send)
            return
        found = [value.decode('latin-1') for name, value in scope['headers'] if name.lower() == b'host']
        if len(found) <= 1 and all(map(self.takes, found)):
            await self.app(scope, receive, send)
        elif scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008})
        else:
            shown = ''.join(letter for letter in (found or [''])[0] if letter.isprintable())[:100]
            text = (
                f'This page is not served under the name {shown!r}. Open it by the address that ddsa demo printed; or, '
                'if the name is yours, start ddsa demo with --allow-host NAME.\n'
            ).encode()
            headers = [(b'content-type', b'text/plain; charset=utf-8'), (b'content-length', str(len(text)).encode())]
            await send({'type': 'http.response.start', 'status': 421, 'headers': headers})
            await send({'type': 'http.response.body', 'body': text})


class _OwnThingsOnly:
    """Removes from each page of an ASGI application whatever it would fetch from other hosts."""

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
def temporary_files() -> Iterator[Path]:
    """Give a folder for all files of gradio and of ours, which is removed at the end, after SIGTERM too."""
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
