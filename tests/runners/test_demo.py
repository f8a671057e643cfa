"""The page of ``ddsa demo``: its functions, and the page itself in a real browser."""

import asyncio
import base64
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import LONGEST, ORIENTATION, TINY, free_port, variables
from PIL import Image

from ddsa_arch.archs.building import build_network
from ddsa_arch.archs.weights import write_weights
from ddsa_arch.demo import page as demo_page
from ddsa_arch.demo import server as demo_server
from ddsa_arch.errors import InputError
from ddsa_arch.files.photos import read_photo
from ddsa_arch.inference.derainer import Derainer
from ddsa_arch.ops.rain import add_rain, rain_style
from ddsa_arch.runners import demo
from ddsa_arch.runners.cli import main as ddsa


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A network that changes an image, but is no good."""
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    torch.manual_seed(0)
    write_weights(path, build_network(TINY).state_dict(), TINY, {})
    return path


@pytest.fixture(scope='module')
def derainer(weights):
    return Derainer(weights, device='cpu')


@pytest.fixture(scope='module')
def rainy(photo):
    """(150, 200, 3) uint8 BGR."""
    return add_rain(photo[80:230, 100:300], rain_style('light'), np.random.default_rng(0))


@pytest.fixture
def gradio():
    return pytest.importorskip('gradio', minversion='6', reason=f'gradio is not installed ({demo_server.INSTALL})')


def bgr(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_photo_in_pair_out(tmp_path, derainer, rainy):
    cv2.imwrite(str(tmp_path / 'street.png'), rainy)
    pair = demo_page.derain_photo(derainer, tmp_path / 'street.png', tmp_path)
    assert np.array_equal(bgr(pair.before.read_bytes()), rainy)
    after = bgr(pair.after.read_bytes())
    assert after.shape == rainy.shape
    assert not np.array_equal(after, rainy)
    assert np.array_equal(after, derainer(rainy, bgr=True))
    assert (pair.after.name, pair.size, pair.notes) == ('street_derained.png', (200, 150), ())
    assert pair.seconds > 0
    again = demo_page.derain_photo(derainer, tmp_path / 'street.png', tmp_path, ensemble=4)
    assert again.after != pair.after
    assert not np.array_equal(bgr(again.after.read_bytes()), after)


def test_photo_is_turned_upright(tmp_path, derainer, rainy):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise
    Image.fromarray(rainy[..., ::-1]).save(tmp_path / 'a.jpg', exif=exif)
    pair = demo_page.derain_photo(derainer, tmp_path / 'a.jpg', tmp_path)
    assert pair.size == (150, 200)
    for path in (pair.before, pair.after):
        with Image.open(path) as image:
            assert image.size == (150, 200)
            assert ORIENTATION not in image.getexif()


def test_message_names_the_file_alone(tmp_path, derainer):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    for act in (lambda p: demo_page.derain_photo(derainer, p, tmp_path), lambda p: demo_page.as_shown(p, tmp_path)):
        with pytest.raises(InputError, match=r'^broken\.png: no image of a known kind'):
            act(tmp_path / 'broken.png')


@pytest.mark.parametrize(('suffix', 'kept'), [('png', True), ('jpg', True), ('webp', True), ('tif', False)])
def test_browsers_get_what_they_show(tmp_path, rainy, suffix, kept):
    path = tmp_path / f'a.{suffix}'
    cv2.imwrite(str(path), rainy.astype(np.uint16) * 257 if suffix == 'tif' else rainy)
    shown = demo_page.as_shown(path, tmp_path)
    assert (shown == path) == kept
    if not kept:
        assert shown.name == 'a.png'
        assert np.array_equal(read_photo(shown).pixels, read_photo(path).pixels)


def test_networks_are_loaded_once_and_when_needed(derainer):
    made = []
    makers = {name: lambda name=name: made.append(name) or derainer for name in 'ab'}
    networks = demo_page.Networks(makers)
    assert (networks.names, made) == (['a', 'b'], [])
    assert networks['b'] is networks['b'] is derainer
    assert made == ['b']
    with pytest.raises(InputError, match='no network'):
        demo_page.Networks({})


def test_weights_are_named(tmp_path, monkeypatch, weights):
    other = tmp_path / 'a=b.pth'
    shutil.copy(weights, other)
    assert demo.weight_files([f'small={weights}', str(weights), str(other)]) == {
        'small': weights, 'tiny': weights, 'a=b': other,
    }  # fmt: skip
    monkeypatch.setattr(demo, 'BUILT_IN', weights)
    assert demo.weight_files([]) == {demo.BUILT_IN_NAME: weights}
    for given, complaint in [
        (['net.pth'], 'wanted NAME=FILE'), ([f'={weights}'], 'wanted NAME=FILE'), (['a='], 'wanted NAME=FILE'),
        (['a=none.pth'], "no file none.pth .of 'a'"), ([str(weights), f'tiny={weights}'], 'twice'),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=complaint):
            demo.weight_files(given)


def test_port(capsys, weights):
    with socket.create_server((demo_server.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f'--port {port}: another program has it'):
            demo_server.free_port(demo_server.HOST, port)
        assert ddsa(['demo', '--weights', str(weights), '--device', 'cpu', '--no-browser', '--port', str(port)]) == 2
        assert capsys.readouterr().err.count('\n') == 1
    assert demo_server.free_port(demo_server.HOST, port) == port
    first, ports = demo_server.FIRST_PORT, demo_server.PORTS
    assert first <= demo_server.free_port(demo_server.HOST) < first + ports
    with pytest.raises(InputError, match='--port 70000: wanted'):
        demo_server.free_port(demo_server.HOST, 70000)
    with pytest.raises(InputError, match=r'--host 192\.0\.2\.1: cannot be served here'):
        demo_server.free_port('192.0.2.1')


def test_missing_gradio_is_told(monkeypatch, capsys, weights):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert ddsa(['demo', '--weights', str(weights)]) == 2
    assert "pip install 'ddsa_arch[demo]'" in capsys.readouterr().err


def test_outdated_gradio_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', type(sys)('gradio'))
    sys.modules['gradio'].__version__ = '4.44.1'
    with pytest.raises(InputError, match=r'gradio 4\.44\.1 is too old'):
        demo_server.import_gradio()


def test_errors_are_shown_on_the_page(gradio, tmp_path, derainer, rainy, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
    cv2.imwrite(str(tmp_path / 'a.png'), rainy)
    (tmp_path / 'broken.png').write_bytes(b'no image')
    page = demo_page.build_demo({'a': derainer, 'b': lambda: Derainer('none.pth')})
    derain = next(event.fn for event in page.fns.values() if event.name == 'derain')
    pair, told, _ = derain(str(tmp_path / 'a.png'), 'a', False)
    assert [Path(path).name for path in pair] == ['a.png', 'a_derained.png']
    assert told.startswith('**200 × 150 pixels** in **')
    for path, network, complaint in [(None, 'a', 'no photo yet'), ('a.png', 'b', 'no file none.pth'),
                                     ('broken.png', 'a', '^broken.png: no image')]:  # fmt: skip
        with pytest.raises(gradio.Error) as caught:
            derain(path and str(tmp_path / path), network, False)
        assert re.search(complaint, caught.value.message)


def test_pages_lose_what_lies_elsewhere():
    page = (
        b'<head><link rel="preconnect"\n href="https://fonts.gstatic.com" crossorigin /><link href="./a.css">'
        b'<script\n src="https://cdnjs.cloudflare.com/x.js" async\n></script><script src="./a.js"></script></head>'
        b'<a href="https://example.org">a</a>'
    )
    wanted = b'<head><link href="./a.css"><script src="./a.js"></script></head><a href="https://example.org">a</a>'
    assert demo_server.ELSEWHERE.sub(b'', page) == wanted


@pytest.mark.parametrize(('host', 'taken'), [
    ('127.0.0.1:7860', True), ('localhost', True), ('LOCALHOST:1', True), ('[::1]:7860', True), ('192.168.0.7:1', True),
    ('demo.localhost', True), ('my.machine:7860', True), ('a.gradio.live', True), ('localhost.', True),
    ('evil.example', False), ('127.0.0.1.evil.example', False), ('localhost.evil.example', False), ('', False),
    ('evilgradio.live', False), ('not.my.machine', False), ('user@localhost', False),
])  # fmt: skip
@pytest.mark.parametrize('kind', ['http', 'websocket'])
def test_names_of_others_are_refused(host, taken, kind):
    """Else a page of theirs whose name leads here could read what is served."""

    async def page(scope, receive, send):
        await send('the page')

    sent = []

    async def send(message):
        sent.append(message)

    app = demo_server.OwnHostOnly(page, ['0.0.0.0', 'my.machine', '.gradio.live'])
    asyncio.run(app({'type': kind, 'headers': [(b'host', host.encode())]}, None, send))
    if taken:
        assert sent == ['the page']
    elif kind == 'websocket':
        assert sent == [{'type': 'websocket.close', 'code': 1008}]
    else:
        assert sent[0]['status'] == 421
        assert b'start ddsa demo with --allow-host NAME' in sent[1]['body']


@pytest.fixture
def server(gradio, tmp_path, weights):
    """The address of a running ``ddsa demo``; in the end Ctrl-C stops it, and leaves no files."""
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    port = free_port()
    arguments = ['demo', '--no-browser', '--device', 'cpu', '--port', str(port)]
    arguments += ['--weights', f'first={weights}', f'second={weights}']
    with open(tmp_path / 'log.txt', 'w', encoding='utf-8') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'ddsa_arch.runners.cli', *arguments], stdout=log, stderr=subprocess.STDOUT,
            env=variables(TMPDIR=str(temporary)), cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
        )  # fmt: skip
    try:
        address = f'http://{demo_server.HOST}:{port}'
        began = time.monotonic()
        while address not in (said := (tmp_path / 'log.txt').read_text('utf-8')):
            assert process.poll() is None, said
            assert time.monotonic() - began < LONGEST, said
            time.sleep(0.1)
        yield address
        said = (tmp_path / 'log.txt').read_text('utf-8')
        assert said.splitlines()[-1] == f'The page is at {address}'
        process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST) == 130
        assert list(temporary.iterdir()) == []
    finally:
        process.kill()
        process.wait()


DROP = """([place, name, data]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type: 'image/png'}));
    for (const kind of ['dragenter', 'dragover', 'drop']) document.querySelector(place).dispatchEvent(
        new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: carried}));
}"""


@pytest.mark.skipif(sys.platform == 'win32', reason='no SIGINT to one process')
def test_page_in_a_browser(chromium, server, tmp_path, rainy):
    cv2.imwrite(str(tmp_path / 'street.png'), rainy)
    cv2.imwrite(str(tmp_path / 'large.png'), cv2.resize(rainy, (1600, 1200)))
    (tmp_path / 'broken.png').write_bytes(b'no image')
    page = chromium.new_context(viewport={'width': 1200, 'height': 900}).new_page()
    page.set_default_timeout(1000 * LONGEST)
    complaints = []
    page.on('console', lambda message: message.type == 'error' and complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('request', lambda request: request.url.startswith((server, 'data:', 'blob:'))
            or complaints.append(request.url))  # fmt: skip
    page.goto(server)
    page.wait_for_selector('#derain')

    def pictures(old=''):
        """The two of the slider, once the second is a new one."""
        page.wait_for_function(
            """(old) => {const found = [...document.querySelectorAll('#slider img')];
            return found.length == 2 && found.every((i) => i.complete && i.naturalWidth) && found[1].src != old}""",
            arg=old,
        )  # fmt: skip
        found = page.locator('#slider img')
        return [(found.nth(i).get_attribute('src'), found.nth(i).evaluate('(i) => [i.naturalWidth, i.naturalHeight]'))
                for i in range(2)]  # fmt: skip

    # dropped beside the field, where a browser would open the file itself
    page.evaluate(DROP, ['#about', 'street.png', base64.b64encode((tmp_path / 'street.png').read_bytes()).decode()])
    page.wait_for_selector('#photo img')
    page.click('#derain')
    shown = pictures()
    assert [size for _, size in shown] == [[200, 150]] * 2
    before, after = (bgr(page.request.get(source).body()) for source, _ in shown)
    assert np.array_equal(before, rainy)
    assert after.shape == rainy.shape
    assert not np.array_equal(after, rainy)
    assert re.search(r'200 × 150 pixels in \d+\.\d s by first on cpu', page.inner_text('#told'))
    handle = page.get_by_role('slider', name='Before and after')
    handle.focus()
    at = int(handle.get_attribute('aria-valuenow'))
    for key, moved in (('ArrowRight', 2), ('ArrowRight', 4), ('ArrowLeft', 2), ('PageUp', 12)):
        page.keyboard.press(key)
        page.wait_for_function(
            f"Math.abs(document.querySelector('[role=slider]').getAttribute('aria-valuenow') - {at + moved}) <= 1"
        )
    shown_part = page.locator('#slider img').nth(1).evaluate('(image) => image.style.clipPath')
    assert abs(float(re.findall(r'[\d.]+', shown_part)[-1]) - at - 12) <= 1.5
    nameless = """() => [...document.querySelectorAll('button')].filter(
        (b) => !(b.getAttribute('aria-label') || b.title || b.innerText.trim())).length"""
    assert page.evaluate(nameless) == 0
    assert page.get_by_role('button', name=re.compile('Example: .*rain')).count() > 0
    with page.expect_download() as download:
        page.click('#download')
    assert download.value.suggested_filename == 'street_derained.png'
    assert np.array_equal(bgr(Path(download.value.path()).read_bytes()), after)
    page.screenshot(path=tmp_path / 'result.png', full_page=True)

    page.locator('#photo button:not([disabled])').first.click()  # takes the photo away
    page.set_input_files('#photo input[type=file]', tmp_path / 'broken.png')
    page.get_by_text('broken.png: no image of a known kind').wait_for()
    page.locator('#photo img').wait_for(state='detached')
    page.screenshot(path=tmp_path / 'error.png', full_page=True)
    page.locator('#examples img').first.click()
    page.wait_for_function("document.querySelector('#photo img')?.naturalWidth == 451")
    page.click('#derain')
    assert pictures(shown[1][0])[1][1] == [451, 300]
    page.screenshot(path=tmp_path / 'example.png', full_page=True)
    assert complaints == []

    # Ctrl-C comes in the middle of this
    page.locator('#photo button:not([disabled])').first.click()
    page.set_input_files('#photo input[type=file]', tmp_path / 'large.png')
    page.wait_for_function("document.querySelector('#photo img')?.naturalWidth == 1600")
    page.click('#ensemble input')
    page.click('#derain')
    page.get_by_text('removing the rain').wait_for()
