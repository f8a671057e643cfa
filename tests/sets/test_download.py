"""Downloads from a server in a thread of the test; nothing here needs the net."""

import argparse
import contextlib
import http.server
import io
import re
import sys
import threading
import types
import zipfile
from functools import partial

import pytest
from helpers import LONGEST, names

from ddsa_arch.errors import InputError
from ddsa_arch.runners import cli, data_download
from ddsa_arch.sets import download as module
from ddsa_arch.sets.benchmarks import TEST_SETS, TRAIN_SET, Benchmark
from ddsa_arch.sets.download import Archive, count_problems, download

TRAIN_ID, TEST_ID = '14BidJeG4nSNuFNFDf99K-7eErCq4i47t', '1P_-RAvltEoEhfT-9GrWRdpEi6NSswTs8'
TRAIN_NAMES = [f'train/Rain13K/{side}/{i}.jpg' for side in ('input', 'target') for i in range(3)]
TEST_NAMES = [f'test/Rain100L/{side}/{i}.png' for side in ('input', 'target') for i in range(2)]
QUOTA_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""
SIGN_IN_PAGE = '<!DOCTYPE html><html><head><title>Google Drive: Sign-in</title></head><body>Access denied</body></html>'
SCAN_PAGE = (  # one line, as Google writes it
    '<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>'
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="hidden" name="id" value="{}"><input type="hidden" name="confirm" value="t"></form></body></html>'
)


def zipped(names, size=1000):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        for i, name in enumerate(names):
            archive.writestr(name, bytes([i]) * size)
    return stream.getvalue()


class Server:
    """Answers of a server by path; ``requests`` notes the path and the range of each.

    Attributes:
        files: bytes by path; everything else is 404.
        status: instead of any answer, if set.
        cut: bytes after which the connection breaks, for answers from the beginning.
        page: an HTML page instead of the file.
        disposition: whether an answer names a file, as Google Drive's does.
    """

    def __init__(self):
        self.files, self.requests = {}, []
        self.status = self.cut = self.page = None
        self.disposition = False

    def answer(self, request):
        wanted = request.headers.get('Range')
        self.requests.append((request.path, wanted))
        body = self.files.get(request.path)
        if self.status or (body is None and self.page is None):
            request.send_error(self.status or 404)
            return
        if self.page is not None:
            request.send_response(200)
            request.send_header('Content-Type', 'text/html; charset=utf-8')
            request.send_header('Content-Length', str(len(self.page.encode())))
            request.end_headers()
            request.wfile.write(self.page.encode())
            return
        start = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1]) if wanted else 0
        if wanted and start >= len(body):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        request.send_header('Content-Type', 'application/zip')
        request.send_header('Content-Length', str(len(body) - start))
        if self.disposition:
            request.send_header('Content-Disposition', 'attachment; filename="archive.zip"')
        if start:
            request.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        request.end_headers()
        request.wfile.write(body[start:] if start or self.cut is None else body[: self.cut])


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server, *args):
        self.answers = server
        super().__init__(*args)

    def do_GET(self):
        with contextlib.suppress(BrokenPipeError):  # a reader that has left
            self.answers.answer(self)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server that has both archives, of few images each, and the links of the command led to it."""
    pytest.importorskip('gdown')
    answers = Server()
    answers.files = {f'/{TRAIN_ID}': zipped(TRAIN_NAMES), f'/{TEST_ID}': zipped(TEST_NAMES)}
    running = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, answers))
    answers.address = f'http://127.0.0.1:{running.server_port}'
    thread = threading.Thread(target=running.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.setattr(module, 'LINK', f'{answers.address}/{{}}')
    yield answers
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    """Archives of few images."""
    sets = {'train': Archive(TRAIN_ID, (Benchmark('Rain13K', 3, ('rain13k', 'train')),)),
            'test': Archive(TEST_ID, (Benchmark('Rain100L', 2, ('rain100l',)),))}  # fmt: skip
    monkeypatch.setattr(module, 'ARCHIVES', sets)


@pytest.fixture
def drive(server, monkeypatch, tmp_path):
    """The server in Google Drive's place: gdown's own way through its pages, with no connection but to the server."""
    import requests

    get = requests.Session.get
    hosts = re.compile(r'^https://(drive|docs|drive\.usercontent)\.google\.com')
    monkeypatch.setattr(requests.Session, 'get', lambda self, url, **more: get(
        self, hosts.sub(server.address, url), **more
    ))  # fmt: skip
    monkeypatch.setattr(sys.modules['gdown.download'], 'DEFAULT_COOKIES_FILE', str(tmp_path / 'cookies.txt'))
    monkeypatch.setattr(module, 'LINK', 'https://drive.google.com/uc?id={}')
    server.disposition = True
    return server


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'downloads'


def refusal(out, which=('train',)):
    """The message; nothing has taken the name of an archive, and the steps by hand are there."""
    with pytest.raises(InputError) as error:
        download(which, out)
    message = str(error.value)
    assert not (out / 'train.zip').exists()
    assert f'https://drive.google.com/file/d/{TRAIN_ID}/view -> {out / "train.zip"}\n' in message
    assert f'https://drive.google.com/file/d/{TEST_ID}/view -> {out / "test.zip"}\n' in message
    assert message.endswith(f'then run: ddsa data prepare --root {out} --out datasets')
    lines = message.splitlines()
    assert lines[0] == 'not all archives could be had'
    assert lines[2].startswith('By hand')  # so the reason has one line
    return lines[1]


# What is fetched


def test_ids_are_those_of_the_fields_scripts(monkeypatch):
    monkeypatch.undo()
    assert {name: archive.file_id for name, archive in module.ARCHIVES.items()} == {'train': TRAIN_ID, 'test': TEST_ID}
    assert module.LINK.format('X') == 'https://drive.google.com/uc?id=X'


@pytest.mark.parametrize(
    ('which', 'expected'),
    [([], ['test.zip', 'train.zip']), (['test'], ['test.zip']), (['train', 'train'], ['train.zip'])],
)
def test_archives_are_fetched_as_they_are(which, expected, server, out):
    assert download(which, out) == dict.fromkeys([out / name for name in expected], 'downloaded')
    assert names(out) == expected
    for name in expected:
        file_id = TRAIN_ID if name == 'train.zip' else TEST_ID
        assert (out / name).read_bytes() == server.files[f'/{file_id}']


def test_sound_archive_is_kept_without_a_request(server, out):
    download(['train'], out)
    server.requests.clear()
    changed = (out / 'train.zip').stat().st_mtime_ns
    assert download([], out) == {out / 'train.zip': 'there already', out / 'test.zip': 'downloaded'}
    assert [path for path, _ in server.requests] == [f'/{TEST_ID}']
    assert (out / 'train.zip').stat().st_mtime_ns == changed


def test_sound_archives_need_no_gdown(out, monkeypatch):
    out.mkdir()
    (out / 'train.zip').write_bytes(zipped(TRAIN_NAMES))
    monkeypatch.setitem(sys.modules, 'gdown', None)
    assert download(['train'], out) == {out / 'train.zip': 'there already'}


def test_command_tells_what_it_did_and_what_comes_next(server, out, capsys):
    parser = argparse.ArgumentParser()
    data_download.add_arguments(parser)
    assert data_download.run(parser.parse_args(['--out', str(out)])) == 0
    assert capsys.readouterr().out.splitlines() == [
        f'{out / "train.zip"}: downloaded',
        f'{out / "test.zip"}: downloaded',
        f'next: ddsa data prepare --root {out} --out datasets',
    ]
    assert data_download.run(parser.parse_args(['train', '--out', str(out)])) == 0
    assert f'{out / "train.zip"}: there already' in capsys.readouterr().out


def test_failure_is_one_message_and_exit_code_2(server, out, capsys, monkeypatch):
    """By way of the function that every command of ``ddsa`` runs through."""
    server.status = 403
    parser = argparse.ArgumentParser()
    data_download.add_arguments(parser)
    stand_in = types.SimpleNamespace(main=lambda argv: data_download.run(parser.parse_args(argv)))
    monkeypatch.setattr(cli.importlib, 'import_module', lambda name: stand_in)
    assert cli.run_main('download', ['--out', str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith('error: not all archives could be had\n')
    assert captured.err.count('403 Client Error') == 2


# Interrupted downloads


def test_cut_download_is_kept_and_resumed(server, out):
    """gdown writes half a mebibyte at a time, and loses what it has not written."""
    whole = server.files[f'/{TRAIN_ID}'] = zipped(TRAIN_NAMES, 1 << 19)
    server.cut = 1_500_000
    reason = refusal(out)
    (part,) = out.iterdir()
    kept = part.stat().st_size
    assert kept > 900_000
    assert part.read_bytes() == whole[:kept]
    assert part.name.startswith('train.zip.unchecked')
    assert f'the server announced {len(whole)} bytes' in reason
    assert reason.endswith(f'; run this again to go on from {kept} bytes of it in {part}, or delete that to begin anew')
    server.cut = None
    server.requests.clear()
    assert download(['train'], out) == {out / 'train.zip': 'downloaded'}
    assert (out / 'train.zip').read_bytes() == whole
    assert names(out) == ['train.zip']
    assert (f'/{TRAIN_ID}', f'bytes={kept}-') in server.requests


@pytest.mark.parametrize('name', ['train.zip.unchecked', 'train.zip.uncheckedabcd1234.part'])
def test_download_that_was_killed_after_its_last_byte_is_checked_now(name, server, out):
    """A server answers a request for the bytes behind the last one with an error."""
    out.mkdir()
    (out / name).write_bytes(server.files[f'/{TRAIN_ID}'])
    assert download(['train'], out) == {out / 'train.zip': 'downloaded'}
    assert names(out) == ['train.zip']


def test_rest_of_another_file_is_found_by_the_crc_and_the_next_call_begins_anew(server, out):
    whole = server.files[f'/{TRAIN_ID}']
    out.mkdir()
    other = whole[:500] + b'?' + whole[501:3000]
    (out / 'train.zip.uncheckedabcd1234.part').write_bytes(other)
    reason = refusal(out)
    assert '1 of 6 entries are damaged: train/Rain13K/input/0.jpg' in reason
    assert names(out) == ['train.zip.broken']
    assert download(['train'], out) == {out / 'train.zip': 'downloaded'}
    assert (out / 'train.zip').read_bytes() == whole


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()], ids=['full', 'Ctrl-C'])
def test_what_was_written_stays_when_a_download_is_stopped(error, server, out, monkeypatch):
    def stopped(url, output, **more):
        def stop(*_):
            raise error

        return gdown.download(url, output, progress=stop, **more)

    gdown = pytest.importorskip('gdown')
    server.files[f'/{TRAIN_ID}'] = zipped(TRAIN_NAMES, 1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(module, '_gdown', lambda: stopped)
        if isinstance(error, OSError):
            reason = refusal(out)
        else:
            with pytest.raises(KeyboardInterrupt):
                download(['train'], out)
    (part,) = out.iterdir()
    assert part.stat().st_size > 0
    if isinstance(error, OSError):
        assert 'OSError: [Errno 28] No space left on device' in reason
        assert f'{part.stat().st_size} bytes of it in {part}' in reason
    assert download(['train'], out) == {out / 'train.zip': 'downloaded'}


# What does not come


@pytest.mark.parametrize(('status', 'words'), [(404, '404 Client Error: Not Found'), (403, '403 Client Error')])
def test_refusal_of_the_server_is_told(status, words, server, out):
    server.status = status
    assert words in refusal(out)
    assert names(out) == []


def test_server_that_falls_silent_is_left(server, out, monkeypatch):
    silence = threading.Event()
    monkeypatch.setattr(server, 'answer', lambda request: silence.wait(LONGEST))
    monkeypatch.setattr(module, 'TIMEOUT', 0.2)
    try:
        assert 'Read timed out' in refusal(out)
    finally:
        silence.set()


def test_one_archive_that_fails_keeps_the_other_from_nothing(server, out):
    del server.files[f'/{TRAIN_ID}']
    assert '  train.zip: HTTPError: 404' in refusal(out, [])
    assert names(out) == ['test.zip']


def test_a_web_page_is_no_archive(server, out):
    server.page = QUOTA_PAGE
    reason = refusal(out)
    assert reason.startswith('  train.zip: a web page (Google Drive - Quota exceeded), not the archive; download it')
    assert reason.endswith(f'(kept as {out / "train.zip.broken"})')
    assert names(out) == ['train.zip.broken']


def test_no_network_is_told(out, monkeypatch):
    """A port of this machine at which nobody listens."""
    pytest.importorskip('gdown')
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.setattr(module, 'LINK', 'http://127.0.0.1:9/{}')
    assert '  train.zip: ConnectionError: ' in refusal(out)
    assert names(out) == []


def test_folder_that_is_a_file_is_told(server, tmp_path):
    (tmp_path / 'out').write_text('mine', encoding='utf-8')
    assert 'File exists' in refusal(tmp_path / 'out')
    assert (tmp_path / 'out').read_text(encoding='utf-8') == 'mine'


# Google Drive's own pages


def test_confirmation_of_a_large_file_is_given(drive, out):
    """Google does not scan large files for viruses, and asks first."""
    whole = drive.files.pop(f'/{TRAIN_ID}')
    drive.files[f'/download?id={TRAIN_ID}&confirm=t'] = whole
    answer = drive.answer

    def ask_first(request):
        drive.page = SCAN_PAGE.format(TRAIN_ID) if request.path.startswith('/uc') else None
        answer(request)

    drive.answer = ask_first
    assert download(['train'], out) == {out / 'train.zip': 'downloaded'}
    assert (out / 'train.zip').read_bytes() == whole
    assert [path.split('?')[0] for path, _ in drive.requests] == ['/uc', '/download']


@pytest.mark.parametrize(
    ('page', 'status', 'words'),
    [
        (QUOTA_PAGE, None, 'Too many users have viewed or downloaded this file recently.'),
        (SIGN_IN_PAGE, None, "change the permission to 'Anyone with the link'"),
        (None, 403, 'Cannot retrieve the public link of the file'),
        (None, 404, 'Cannot retrieve the public link of the file'),
    ],
)
def test_drives_refusal_is_told_in_googles_words(page, status, words, drive, out):
    drive.page, drive.status = page, status
    reason = refusal(out)
    assert words in reason
    assert 'You may still' not in reason
    assert names(out) == []


# gdown


def test_missing_gdown_is_told_with_the_command_that_installs_it(out, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gdown', None)
    reason = refusal(out, [])
    assert reason.startswith('  train.zip, test.zip: gdown, ')
    assert 'pip install --upgrade gdown' in reason


def test_gdown_that_is_too_old_is_told(out, monkeypatch):
    """Version 5 knows no timeout, and takes an error page for the file."""
    old = types.SimpleNamespace(__version__='5.2.2', download=lambda url, output, quiet, resume: output)
    monkeypatch.setitem(sys.modules, 'gdown', old)
    assert '  train.zip: gdown 5.2.2 is too old, wanted 6.4 or newer: pip install' in refusal(out)


# The checks


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (zipped(TRAIN_NAMES)[:-60], 'the archive is cut off or damaged; download it again'),
        (zipped(TRAIN_NAMES[:-1]), 'Rain13K has 2 target images, expected 3'),
        (zipped([*TRAIN_NAMES, '../../evil.jpg']), "1 entries name a place outside the folder they are unpacked"),
        (zipped(TRAIN_NAMES).replace(b'\4' * 1000, b'\4' * 999 + b'\5'), '1 of 6 entries are damaged: train/Rain13K/t'),
        (b'', 'empty; download it again'),
    ],
)  # fmt: skip
def test_unsound_archive_never_has_the_name(data, words, server, out):
    server.files[f'/{TRAIN_ID}'] = data
    assert words in refusal(out)
    assert names(out) == ['train.zip.broken']
    assert (out / 'train.zip.broken').read_bytes() == data


def test_unsound_archive_that_is_there_is_set_aside_and_fetched_anew(server, out):
    out.mkdir()
    (out / 'train.zip').write_bytes(b'half')
    server.status = 404  # set aside even so
    assert 'the file that was there: no zip archive' in refusal(out)
    assert names(out) == ['train.zip.broken']
    (out / 'train.zip.broken').rename(out / 'train.zip')
    server.status = None
    (what,) = download(['train'], out).values()
    assert what == (
        f'downloaded; the file that was there: no zip archive; download it again (kept as {out / "train.zip.broken"})'
    )
    assert (out / 'train.zip').read_bytes() == server.files[f'/{TRAIN_ID}']
    assert (out / 'train.zip.broken').read_bytes() == b'half'


def entries(**counts):
    """Entries of an archive by folder, such as train_Rain13K=(3, 3)."""
    for folder, sides in counts.items():
        for side, count in zip(('input', 'target'), sides, strict=True):
            yield from (f'{folder.replace("_", "/")}/{side}/{i}.jpg' for i in range(count))


@pytest.mark.parametrize(
    ('folder', 'sides', 'problems'),
    [
        ('train_Rain13K', (13711, 13711), []),
        ('train', (13712, 13712), []),
        ('Rain13k_train', (13712, 13711), []),
        ('a_b_TRAIN', (13710, 13711), ['Rain13K has 13710 input images, expected 13711 to 13712']),
        ('train', (13711, 13713), ['Rain13K has 13713 target images, expected 13711 to 13712']),
    ],
)
def test_training_images_are_counted(folder, sides, problems):
    assert count_problems(entries(**{folder: sides}), [TRAIN_SET]) == problems


TEST_COUNTS = {'Test100': 98, 'Rain100H': 100, 'Rain100L': 100, 'Test2800': 2800, 'Test1200': 1200}


@pytest.mark.parametrize('above', ['test_', '', 'data_Test_'])
def test_test_images_are_counted(above):
    sides = {f'{above}{name}': (count, count) for name, count in TEST_COUNTS.items()}
    assert count_problems(entries(**sides), TEST_SETS) == []
    assert count_problems(entries(**sides | {f'{above}Test2800': (2801, 2800)}), TEST_SETS) == []
    wrong = sides | {f'{above}Test2800': (2802, 2800), f'{above}Test100': (100, 98), f'{above}Rain100L': (0, 0)}
    assert count_problems(entries(**wrong), TEST_SETS) == [
        'Test100 has 100 input images, expected 98',
        'Rain100L has 0 input images, expected 100',
        'Rain100L has 0 target images, expected 100',
        'Test2800 has 2802 input images, expected 2800 to 2801',
    ]


def test_what_is_no_image_of_a_set_is_not_counted():
    names = ['a/input/1.jpg', 'a/input/2.PNG', 'a\\input\\3.jpg', 'a/input/.4.jpg', 'a/input/5.txt', 'a/input/',
             'a/input/b/6.jpg', 'b/input/7.jpg', '__MACOSX/a/input/._1.jpg', 'input/8.jpg', '', 'a/target/1.jpg',
             'a/target/2.jpg', 'A/Target/3.jpg']  # fmt: skip
    assert count_problems(names, [Benchmark('A', 3, ('a',))]) == []


def test_unknown_archive_is_refused_with_the_nearest(out):
    with pytest.raises(InputError, match="no archive 'trian'; did you mean 'train'"):
        download(['trian'], out)
    assert not out.exists()
