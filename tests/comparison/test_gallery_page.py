"""The gallery's page in a real browser: what a reader sees and does."""

import base64
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest
from helpers import LONGEST

from ddsa_arch.comparison.gallery.build import GalleryImage, write_gallery
from ddsa_arch.comparison.scores import SCORES
from ddsa_arch.ops.rain import add_rain, rain_style

PSNR, SSIM = SCORES['psnr'], SCORES['ssim']
EVIL = '</script><img src=x onerror=alert(1)>"\'&'
ENDLESS = 'a_method_with_a_name_that_does_not_end_' * 2
METHODS = ('rainy', 'blur', EVIL, ENDLESS, 'target')
L, T = 'Rain100L', 'Test<100>'
NAMES = [(L, '2'), (L, '10'), (L, '1' + EVIL), (T, 'a'), (T, 'b')]  # in natural order but for the third
BY_NAME = ['1' + EVIL, '2', '10', 'a', 'b']
READY = """() => !document.getElementById('stage').hasAttribute('aria-busy')
    && !document.getElementById('crops').classList.contains('waiting')"""


def psnr(picture, target):
    error = np.mean((picture.astype(float) - target) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


@pytest.fixture(scope='module')
def images(photo):
    """Five images by place: one without 'blur', one without target, one portrait, one of 20 x 12 pixels."""
    cuts = [photo[:160, :240], photo[100:260, 200:440], photo[50:200, 100:196], photo[120:132, 150:170],
            photo[140:300, 60:300]]  # fmt: skip
    found = {}
    for i, (place, clean) in enumerate(zip(NAMES, cuts, strict=True)):
        rng = np.random.default_rng(i)
        rainy = add_rain(clean, rain_style('heavy'), rng)
        pictures = {
            'rainy': rainy,
            'blur': cv2.GaussianBlur(rainy, (0, 0), 1 + i),
            EVIL: np.clip(1.3 * clean.astype(float) + 9 * i, 0, 255).astype(np.uint8),
            ENDLESS: np.clip(clean + (i > 0) * rng.normal(0, 6, clean.shape), 0, 255).astype(np.uint8),
            'target': clean,
        }
        scores = {name: {'psnr': psnr(picture, clean), 'ssim': 0.5 + i / 10} for name, picture in pictures.items()}
        del scores['target']
        if i == 1:
            del pictures['blur'], scores['blur']
        if i == 4:
            del pictures['target']
            scores['rainy']['psnr'] = math.nan
        notes = {ENDLESS: 'identical to the target'} if i == 0 else {}
        found[place] = GalleryImage(*place, pictures, scores, notes)
    return found


@pytest.fixture(scope='module')
def page_path(images, tmp_path_factory):
    path = tmp_path_factory.mktemp('gallery') / 'page.html'
    remarks = ['Y channel of the full picture.', EVIL]
    write_gallery(path, f'A <comparison> {EVIL}', METHODS, [PSNR, SSIM], images.values(), target='target',
                  remarks=remarks, quality=101)  # fmt: skip
    return path


@pytest.fixture
def visit(chromium, page_path):
    """Opens a page; in the end no error has been reported, and nothing else has been asked for."""
    contexts, complaints = [], []

    def open_page(address='', path=page_path, width=1400, height=900, wait_until='load', **options):
        context = chromium.new_context(viewport={'width': width, 'height': height}, **options)
        context.set_default_timeout(1000 * LONGEST)
        contexts.append(context)
        page = context.new_page()
        url = path if str(path).startswith('http') else Path(path).as_uri()
        page.on('console', lambda message: complaints.append(message.text))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on('request', lambda request: request.url.split('#')[0] == url
                or request.url.startswith(('data:', 'blob:')) or complaints.append(request.url))  # fmt: skip
        page.goto(url + address, wait_until=wait_until)
        if options.get('java_script_enabled', True):
            page.wait_for_function(READY)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def address(**words):
    return '#' + urlencode(words)


def pixels(page, selector):
    """The pixels of a canvas, (H, W, 3) BGR."""
    data = page.eval_on_selector(selector, "(canvas) => canvas.toDataURL('image/png').split(',')[1]")
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def crop(page, method):
    return pixels(page, f'#crops figure:nth-child({METHODS.index(method) + 1}) canvas')


def stage_shot(page):
    return cv2.imdecode(np.frombuffer(page.locator('#stage').screenshot(), np.uint8), cv2.IMREAD_COLOR)


def seen_split(page, left, right):
    """Where the stage changes from one picture to the other, in percent: the split that explains the screen best."""
    shot = stage_shot(page).astype(float)
    height, width = shot.shape[:2]
    costs = [np.abs(cv2.resize(picture, (width, height)) - shot).mean(axis=(0, 2)) for picture in (left, right)]
    before = np.concatenate([[0], np.cumsum(costs[0])])
    after = np.concatenate([np.cumsum(costs[1][::-1])[::-1], [0]])
    at = int(np.argmin(before + after))
    assert (before + after)[at] / width < 12  # a small part is covered by the line and the frame
    return 100 * at / width


def split(page):
    return float(page.input_value('#split'))


def names(page):
    return page.locator('#body bdi').all_inner_texts()


def short(name):
    """As the list prints it, which tells the set where there are several."""
    return name.split(' / ', 1)[1]


def current(page):
    return page.text_content('#place').split(' / ', 1)[1]


def next_frame(page):
    page.evaluate('() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_function(READY)


def test_first_picture_shows_input_against_first_method(visit, images):
    page = visit()
    first = images[NAMES[0]]
    assert page.locator('#left option:checked').inner_text() == 'rainy'
    assert page.locator('#right option:checked').inner_text() == 'blur'
    assert abs(seen_split(page, first.pictures['rainy'], first.pictures['blur']) - 50) < 1.5
    assert page.text_content('#left-scores') == f'PSNR {first.scores["rainy"]["psnr"]:.2f} dBSSIM 0.5000'
    gain = first.scores['blur']['psnr'] - first.scores['rainy']['psnr']
    assert f'{gain:+.2f}' in page.text_content('#right-scores').replace('−', '-')
    assert page.locator('#stage img').first.get_attribute('alt') == f'{L} / 2, rainy'


def test_split_follows_mouse_and_keys(visit, images):
    page = visit()
    sides = [images[NAMES[0]].pictures[name] for name in ('rainy', 'blur')]
    box = page.locator('#stage').bounding_box()
    at = lambda part: (box['x'] + part * box['width'], box['y'] + box['height'] / 2)  # noqa: E731
    page.mouse.move(*at(0.5))
    page.mouse.down()
    page.mouse.move(*at(0.6))
    page.mouse.move(*at(0.8))
    page.mouse.up()
    assert abs(split(page) - 80) <= 1
    assert abs(seen_split(page, *sides) - 80) < 1.5
    page.mouse.move(*at(0.3))  # no button: nothing is dragged
    assert abs(split(page) - 80) <= 1
    assert not page.is_checked('#pin')  # a drag is no click
    press(page, 'ArrowLeft', 'ArrowLeft', 'ArrowRight')
    assert abs(split(page) - 78) <= 1
    page.focus('#split')
    press(page, 'Home')
    assert split(page) == 0
    assert seen_split(page, *sides) < 1.5
    press(page, 'ArrowRight')
    assert split(page) == 1  # the slider's own step
    assert page.get_attribute('#split', 'aria-valuetext') == '1 % rainy, the rest blur'
    press(page, 'f')
    assert split(page) == 100
    assert seen_split(page, *sides) > 98.5
    press(page, 'f')
    assert split(page) == 0


def test_split_follows_a_finger_and_a_tap_places_the_crops(visit, images):
    page = visit(width=390, height=844, has_touch=True, is_mobile=True)
    page.locator('#split').scroll_into_view_if_needed()
    box = page.locator('#stage').bounding_box()
    fingers = page.context.new_cdp_session(page)

    def touch(kind, part, down=0.5):
        points = [{'x': box['x'] + part * box['width'], 'y': box['y'] + down * box['height']}]
        fingers.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [] if kind == 'touchEnd' else points})

    touch('touchStart', 0.5)
    for part in (0.45, 0.4, 0.3, 0.2):
        touch('touchMove', part)
    touch('touchEnd', 0.2)
    assert abs(split(page) - 20) <= 1
    first = images[NAMES[0]]
    assert abs(seen_split(page, first.pictures['rainy'], first.pictures['blur']) - 20) < 2
    touch('touchStart', 0.75, 0.25)
    touch('touchEnd', 0.75)
    page.wait_for_function("() => document.getElementById('pin').checked")
    assert abs(split(page) - 20) <= 1
    page.wait_for_function("() => document.getElementById('facts').textContent.includes('crops x 159–200, y 19–60')")
    np.testing.assert_array_equal(crop(page, 'target'), first.pictures['target'][19:61, 159:201])
    page.locator('#next').tap()
    page.wait_for_function(READY)
    assert current(page) == '10'


def test_methods_are_chosen_by_list_and_digit(visit, images):
    page = visit()
    pictures = images[NAMES[0]].pictures
    page.select_option('#right', label='target')
    page.wait_for_function(READY)
    assert abs(seen_split(page, pictures['rainy'], pictures['target']) - 50) < 1.5
    assert page.text_content('#right-scores') == 'ground truth'
    press(page, '3')
    assert abs(seen_split(page, pictures['rainy'], pictures[EVIL]) - 50) < 1.5
    press(page, 'Shift+Digit4')
    assert abs(seen_split(page, pictures[ENDLESS], pictures[EVIL]) - 50) < 1.5
    assert 'PSNR ∞ dB' in page.text_content('#left-scores')
    assert 'identical to the target' in page.text_content('#left-scores')
    press(page, 's')
    assert abs(seen_split(page, pictures[EVIL], pictures[ENDLESS]) - 50) < 1.5
    press(page, '3')  # stands on the left: the two change places
    assert abs(seen_split(page, pictures[ENDLESS], pictures[EVIL]) - 50) < 1.5


def test_all_crops_show_the_place_under_the_pointer(visit, images):
    page = visit(address(set=L, image='2', zoom=8))
    pictures = images[NAMES[0]].pictures
    box = page.locator('#stage').bounding_box()
    side = page.eval_on_selector('.crop', 'element => element.clientWidth') // 8

    def hover(x, y):
        """To a source pixel of the 240 x 160; the place that the crops should begin at."""
        page.mouse.move(box['x'] + (x + 0.5) * box['width'] / 240, box['y'] + (y + 0.5) * box['height'] / 160)
        next_frame(page)
        return [min(max(round(at + 0.5 - side / 2), 0), size - side) for at, size in ((x, 240), (y, 160))]

    for place in ((100, 60), (0, 159), (231, 3)):
        x, y = hover(*place)
        for name in METHODS:
            np.testing.assert_array_equal(crop(page, name), pictures[name][y : y + side, x : x + side])
        assert f'crops x {x}–{x + side - 1}, y {y}–{y + side - 1}' in page.text_content('#facts')
    x, y = hover(100, 60)
    page.mouse.down()
    page.mouse.up()
    next_frame(page)
    assert page.is_checked('#pin')
    hover(30, 30)
    np.testing.assert_array_equal(crop(page, 'rainy'), pictures['rainy'][y : y + side, x : x + side])
    press(page, 'Shift+ArrowRight', 'Shift+ArrowDown')
    next_frame(page)
    np.testing.assert_array_equal(crop(page, EVIL), pictures[EVIL][y + side // 4 :, x + side // 4 :][:side, :side])
    press(page, 'Enter')
    assert not page.is_checked('#pin')
    press(page, 'z')
    assert page.is_checked('input[name=zoom][value="2"]')
    assert crop(page, 'rainy').shape[1] == side * 4
    rendering = page.eval_on_selector('#crops canvas', 'canvas => getComputedStyle(canvas).imageRendering')
    assert rendering == 'pixelated'


def test_crops_of_a_tiny_picture_are_the_picture(visit, images):
    page = visit(address(set=T, image='a'))
    np.testing.assert_array_equal(crop(page, 'rainy'), images[T, 'a'].pictures['rainy'])
    assert '20 × 12 pixels' in page.text_content('#facts')


def test_errors_are_those_of_the_full_picture(visit, images):
    page = visit(address(set=L, image='10', right=EVIL, errors='right'))
    pictures = images[L, '10'].pictures
    errors = np.minimum(255, 4 * np.abs(pictures[EVIL].astype(float) - pictures['target']).mean(axis=2))

    def coloured(gain):
        levels = np.minimum(255, np.rint(errors) * gain).astype(np.uint8)
        return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)

    def wrong(gain):
        """The share of pixels that are not as expected; rounding half up or half to even makes a few."""
        found = pixels(page, '#right-layer canvas').astype(int)
        return (np.abs(found - coloured(gain)).max(axis=2) > 12).mean()

    assert wrong(2) < 0.01
    assert page.locator('#left-layer img').count() == 1
    assert page.locator('#ticks').inner_text().split() == ['0', '8', '16', '24', '≥', '32']
    page.select_option('#gain', '8')
    page.wait_for_function(READY)
    assert wrong(2) > 0.1
    assert wrong(8) < 0.02
    assert page.locator('#ticks').inner_text().split() == ['0', '2', '4', '6', '≥', '8']
    page.locator('#stage').click()
    before = crop(page, EVIL)
    press(page, 'e')
    assert page.is_checked('input[name=errors][value=all]')
    assert page.locator('#left-layer canvas').count() == 1
    assert (crop(page, EVIL) != before).any()
    assert (crop(page, 'target') == pictures['target'][59:101, 99:141]).all()
    press(page, 'e')
    assert page.is_checked('input[name=errors][value=off]')
    assert not page.is_visible('#error-scale')


def test_keys_and_buttons_walk_through_the_list(visit):
    page = visit()
    assert current(page) == '2'  # the first of the file, the second by name
    press(page, 'j')
    assert current(page) == '10'
    press(page, 'k', 'k', 'k')
    assert current(page) == BY_NAME[0]
    assert page.is_disabled('#previous')
    assert page.text_content('#list-title') == 'Image 1 of 5'
    page.click('#next')
    page.wait_for_function(READY)
    assert current(page) == '2'
    page.locator('#body tr').nth(3).click()
    page.wait_for_function(READY)
    assert current(page) == 'a'
    page.locator('#body button').nth(3).focus()
    press(page, 'ArrowDown')
    assert current(page) == 'b'
    assert page.is_disabled('#next')
    assert page.evaluate("document.activeElement.closest('tr').getAttribute('aria-current')") == 'true'
    page.focus('#left')
    press(page, 'k')  # types into the list of methods
    assert current(page) == 'b'


def test_list_sorts_by_any_method_with_missing_values_last(visit, images):
    page = visit()
    assert [short(name) for name in names(page)] == BY_NAME

    def by(value, down):
        rows = [(value(image.scores), image.name) for image in images.values()]
        some = sorted((row for row in rows if not math.isnan(row[0])), key=lambda row: row[0], reverse=down)
        return [name for _, name in some + [row for row in rows if math.isnan(row[0])]]

    def score(method):
        return lambda scores: scores.get(method, {}).get('psnr', math.nan)

    heads = page.locator('#columns button')
    for column, method in ((2, 'rainy'), (3, 'blur'), (5, ENDLESS)):
        for down in (True, False):
            heads.nth(column).click()
            assert [short(name) for name in names(page)] == by(score(method), down)
            direction = page.locator('#columns th').nth(column).get_attribute('aria-sort')
            assert direction == ('descending' if down else 'ascending')
    page.select_option('#right', label=EVIL)
    heads.nth(1).click()
    gains = lambda scores: score(EVIL)(scores) - score('rainy')(scores)  # noqa: E731
    assert [short(name) for name in names(page)] == by(gains, down=True)
    assert page.locator('#body tr').nth(0).locator('td').nth(0).inner_text().startswith('+')
    assert page.locator('#body tr').nth(4).locator('td').nth(0).inner_text() == '–'
    page.select_option('#score', label='SSIM')
    heads.nth(4).click()
    assert [short(name) for name in names(page)] == [name for _, name in NAMES][::-1]
    heads.nth(0).click()
    assert [short(name) for name in names(page)] == BY_NAME
    page.select_option('#only', label=T)
    assert names(page) == [f'{T} / a', f'{T} / b']
    assert page.text_content('#list-title') == '2 images'
    press(page, 'Escape')
    page.locator('#only').blur()
    press(page, 'j')  # from an image that is not listed to the first that is
    assert current(page) == 'a'


def test_address_restores_a_view_and_back_goes_back(visit, images):
    page = visit(address(set=L, image='1' + EVIL, left=EVIL, right='target', sort=f'method:{EVIL}', order='down',
                         only=L, errors='all', zoom='2', score='ssim'))  # fmt: skip
    assert current(page) == '1' + EVIL
    assert page.locator('#left option:checked').inner_text() == EVIL
    assert [short(name) for name in names(page)] == ['1' + EVIL, '10', '2']
    assert page.is_checked('input[name=zoom][value="2"]')
    assert page.is_checked('input[name=errors][value=all]')
    assert page.locator('#score option:checked').inner_text() == 'SSIM'
    start = page.url
    press(page, 'j')
    page.wait_for_function('(start) => location.href !== start', arg=start)
    assert current(page) == '10'
    there = page.url
    press(page, '1')
    page.wait_for_function('(there) => location.href !== there', arg=there)
    page.go_back()
    page.wait_for_function("() => document.querySelector('#right option:checked').textContent === 'target'")
    page.go_back()
    page.wait_for_function(READY)
    assert current(page) == '1' + EVIL
    page.go_forward()
    page.wait_for_function("() => document.getElementById('place').textContent.endsWith('/ 10')")
    assert page.url == there
    other = visit('#' + there.split('#')[1])
    assert current(other) == '10'
    assert [short(name) for name in names(other)] == ['1' + EVIL, '10', '2']


def test_nonsense_in_the_address_shows_the_first_image(visit):
    page = visit('#set=x&image=%00&left=target&right=target&sort=method:x&zoom=3&errors=maybe&score=&only=7&%%')
    assert current(page) == '2'
    assert page.locator('#left option:checked').inner_text() == 'rainy'


def test_a_missing_picture_is_said_so(visit):
    page = visit(address(set=L, image='10'))  # against 'blur', which it lacks
    assert page.inner_text('#right-layer') == 'no picture of blur for this image'
    assert page.locator('#left-layer img').count() == 1
    assert page.locator('#crops figure').nth(1).inner_text().startswith('no picture of blur')
    assert not page.locator('#crops canvas').nth(1).is_visible()
    assert 'PSNR –' in page.inner_text('#right-scores')
    press(page, 'e')
    assert page.inner_text('#right-layer') == 'no picture of blur for this image'
    press(page, 'j', 'j')
    assert current(page) == 'b'
    assert page.inner_text('#right-layer') == 'no errors: no picture of target for this image'
    assert page.evaluate('[...document.images].filter(i => i.complete && !i.naturalWidth && i.src).length') == 0


def test_names_stay_text(visit):
    page = visit(address(set=L, image='1' + EVIL, left=EVIL))
    assert page.locator('img[src=x]').count() == 0
    assert EVIL in page.inner_text('h1')
    assert page.locator('.means th', has_text=EVIL).count() == 1
    assert page.locator('#crops figcaption', has_text=EVIL).count() == 1


def test_without_target_or_with_one_method_the_page_still_works(visit, images, tmp_path):
    first = images[NAMES[0]]
    write_gallery(tmp_path / 'two.html', 'T', ['rainy', 'blur'], [], [
        GalleryImage(L, '1', {name: first.pictures[name] for name in ('rainy', 'blur')}, {})])  # fmt: skip
    page = visit(path=tmp_path / 'two.html')
    assert not page.is_visible('#errors')
    assert abs(seen_split(page, first.pictures['rainy'], first.pictures['blur']) - 50) < 1.5
    press(page, 'e')
    assert page.locator('#right-layer img').count() == 1
    assert not page.is_visible('#only')
    write_gallery(tmp_path / 'one.html', 'T', ['rainy'], [PSNR], [
        GalleryImage(L, '1', {'rainy': first.pictures['rainy']}, {'rainy': {'psnr': 20}})])  # fmt: skip
    page = visit(path=tmp_path / 'one.html')
    shot = stage_shot(page)
    picture = cv2.resize(first.pictures['rainy'], shot.shape[1::-1])
    assert np.abs(shot.astype(float) - picture).mean() < 8
    assert not page.is_visible('#split')
    press(page, 's', 'f', '1', 'ArrowLeft')
    assert page.locator('#columns th').count() == 2


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1400])
def test_page_fits_and_is_legible(visit, width, scheme):
    page = visit(address(errors='all', image='10', set=L), width=width, color_scheme=scheme)
    assert page.evaluate('document.documentElement.scrollWidth <= document.documentElement.clientWidth')
    lightness = 'element => getComputedStyle(element).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)'
    assert (sum(page.eval_on_selector('body', lightness)) < 382) == (scheme == 'dark')
    for _ in range(2):
        assert page.evaluate(LOW_CONTRAST) == []
        page.click('#theme')
    page.click('#theme')
    assert (sum(page.eval_on_selector('body', lightness)) < 382) != (scheme == 'dark')


LOW_CONTRAST = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest(':disabled')) continue;
        let ground = element;
        while (numbers(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
        const pair = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
        const [low, high] = pair.map((colour) => luminance(numbers(colour))).sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) found.push([element.outerHTML.slice(0, 80), ratio, ...pair]);
    }
    return found;
}"""  # noqa: E501


NAMELESS = """() => [...document.querySelectorAll('button, select, input, [tabindex="0"]')]
    .filter((e) => !e.labels?.[0]?.textContent.trim() && !e.ariaLabel && !e.textContent.trim()
        && !e.hasAttribute('aria-labelledby')).map((e) => e.outerHTML)"""
RING = """() => {
    const element = document.activeElement;
    const style = getComputedStyle(element.type === 'radio' ? element.nextElementSibling : element);
    return style.outlineStyle + ' ' + style.outlineWidth;
}"""


def test_every_control_has_a_name_and_a_visible_focus(visit):
    page = visit(address(errors='all'))
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press('Tab')
    rings = set()
    for _ in range(12):
        page.keyboard.press('Tab')
        rings.add(page.evaluate(RING))
    assert rings == {'solid 2px'}


def test_without_javascript_the_means_are_there(visit):
    page = visit(java_script_enabled=False)
    assert 'need JavaScript' in page.inner_text('noscript')
    assert page.is_visible('.means table')
    assert not page.is_visible('#viewer')


def test_page_is_usable_while_the_rest_arrives(visit, page_path):
    content = page_path.read_bytes()
    cut = content.index(b'id="p1-0"') + 2000  # in the middle of the second image's first picture
    go_on = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Type', 'text/html; charset=utf-8')
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])
            self.wfile.flush()
            go_on.wait(LONGEST)
            self.wfile.write(content[cut:])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = visit(path=f'http://127.0.0.1:{server.server_port}/page.html', wait_until='commit')
        assert page.evaluate('document.readyState') == 'loading'
        assert current(page) == '2'
        page.keyboard.press('j')
        page.wait_for_function("() => document.getElementById('stage').hasAttribute('aria-busy')")
        go_on.set()
        page.wait_for_function(READY)
        assert current(page) == '10'
        assert page.locator('#left-layer img').count() == 1
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()


def test_a_page_that_was_cut_off_says_so(visit, page_path, tmp_path):
    content = page_path.read_bytes()
    (tmp_path / 'cut.html').write_bytes(content[: content.index(b'id="p1-0"') - 30])
    page = visit(address(set=L, image='10'), path=tmp_path / 'cut.html')
    assert page.inner_text('#left-layer') == 'the picture of rainy is not in this file: it is cut off or damaged'
    press(page, 'k')
    assert page.locator('#left-layer img').count() == 1


@pytest.mark.slow
def test_a_hundred_images_of_ten_methods_are_decoded_where_they_are_seen(visit, photo, tmp_path):
    methods = ['rainy', *(f'net {i}' for i in range(1, 9)), 'target']
    photo = cv2.resize(photo, (640, 426))

    def images():
        for i in range(100):
            rng = np.random.default_rng(i)
            y, x = rng.integers(0, 106), rng.integers(0, 160)
            clean = np.ascontiguousarray(photo[y : y + 320, x : x + 480][:, :: 1 if i % 2 else -1])
            rainy = add_rain(clean, rain_style('light'), rng)
            pictures = {'rainy': rainy, 'target': clean}
            for method in range(1, 9):
                pictures[f'net {method}'] = cv2.addWeighted(rainy, method / 12, clean, 1 - method / 12, 0)
            yield GalleryImage(L, str(i + 1), pictures, {
                name: {'psnr': psnr(picture, clean)} for name, picture in pictures.items() if name != 'target'
            })  # fmt: skip

    path = tmp_path / 'large.html'
    assert write_gallery(path, 'T', methods, [PSNR], images(), target='target') == 100
    page = visit(path=path, wait_until='commit')
    page.wait_for_load_state('load')
    assert 0 < page.locator('#body img[src]').count() < 50  # thumbnails are decoded near where they are seen
    press(page, *['j'] * 20)
    page.locator('#columns button').nth(3).click()
    assert len(names(page)) == 100
    session = page.context.new_cdp_session(page)
    session.send('HeapProfiler.collectGarbage')
    assert path.stat().st_size < 200e6
    assert session.send('Runtime.getHeapUsage')['usedSize'] < 100e6
    assert page.evaluate("document.querySelectorAll('*').length") < 10_000
