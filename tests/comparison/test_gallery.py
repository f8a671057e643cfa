import base64
import hashlib
import json
import math
import re
import weakref
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ddsa_arch.comparison.gallery.build import GalleryImage, write_gallery
from ddsa_arch.comparison.gallery.means import means_legend, means_table
from ddsa_arch.comparison.gallery.pictures import colour_scale, error_map
from ddsa_arch.comparison.scores import SCORES, Score
from ddsa_arch.errors import InputError

METHODS = ('rainy', 'net', 'target')
PSNR, SSIM, NIQE = SCORES['psnr'], SCORES['ssim'], SCORES['niqe']
EVIL = '</script><img src=x onerror=alert(1)>"\'&'
VOID = ('meta', 'link', 'input', 'br')


class Reader(HTMLParser):
    """Collects what a page holds: its tags, the text of each script by id or number, the cells of its tables."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.scripts, self.styles, self.rows, self.words, self.open = [], {}, [], [], [], []
        self.policy = ''
        self.feed(path.read_text('utf-8'))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes = dict(attributes)
        self.tags.append((tag, self.attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th') and self.rows:
            self.rows[-1].append('*' * (self.attributes.get('class') == 'best')
                                 + '+' * (self.attributes.get('class') == 'second'))  # fmt: skip
        if tag == 'meta' and 'http-equiv' in self.attributes:
            self.policy = self.attributes['content']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ['script']:
            name = self.attributes.get('id', f'script {len(self.scripts)}')
            self.scripts[name] = self.scripts.get(name, '') + data
        elif self.open[-1:] == ['style']:
            self.styles.append(data)
        else:
            self.words.append(data)
            if 'td' in self.open or 'th' in self.open:
                self.rows[-1][-1] += data

    @property
    def data(self):
        return json.loads(self.scripts['data'])

    def picture(self, name, flags=cv2.IMREAD_COLOR):
        return cv2.imdecode(np.frombuffer(base64.b64decode(self.scripts[name]), np.uint8), flags)


def noisy(picture, rng, spread=20):
    return np.clip(picture + rng.normal(0, spread, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def image(photo, rng):
    """A set's image named 1, with pictures of all methods."""
    clean = photo[40:120, 60:180]
    pictures = {'rainy': noisy(clean, rng), 'net': noisy(clean, rng, 5), 'target': clean}
    return GalleryImage('Rain100L', '1', pictures, {'rainy': {'psnr': 20.0}, 'net': {'psnr': 31.25}})


def with_name(image, name, **changes):
    return GalleryImage(**{**vars(image), 'name': name, **changes})


def test_pictures_and_errors_can_be_read_back(tmp_path, image):
    path = tmp_path / 'new' / 'page.html'
    assert write_gallery(path, 'Title', METHODS, [PSNR], [image], target='target', quality=101) == 1
    reader = Reader(path)
    blocks = [name for name in reader.scripts if re.fullmatch(r'[pe]\d+-\d+', name)]
    assert blocks == ['p0-0', 'e0-0', 'p0-1', 'e0-1', 'p0-2']
    for method, name in enumerate(METHODS):
        np.testing.assert_array_equal(reader.picture(f'p0-{method}'), image.pictures[name])
    truth = image.pictures['target'].astype(float)
    for method, name in enumerate(METHODS[:2]):
        wanted = np.minimum(255, 4 * np.abs(image.pictures[name] - truth).mean(axis=2))
        found = reader.picture(f'e0-{method}', cv2.IMREAD_GRAYSCALE)
        np.testing.assert_allclose(found, wanted, atol=0.51)
    assert sorted(p.name for p in path.parent.iterdir()) == ['page.html']


def test_lossy_pictures_are_smaller_and_near(tmp_path, image):
    files = {}
    for quality in (60, 90, 101):
        files[quality] = tmp_path / f'{quality}.html'
        write_gallery(files[quality], 'Title', METHODS, [PSNR], [image], target='target', quality=quality)
    sizes = [file.stat().st_size for file in files.values()]
    assert sizes == sorted(set(sizes))
    reader = Reader(files[90])
    clean = image.pictures['target'].astype(float)
    assert np.abs(reader.picture('p0-2') - clean).mean() < 4
    wanted = error_map(image.pictures['rainy'], image.pictures['target'])
    assert np.abs(reader.picture('e0-0', cv2.IMREAD_GRAYSCALE) - wanted).mean() < 6


def test_error_map_is_clipped():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert (error_map(black, white) == 255).all()
    assert (error_map(black, black) == 0).all()
    one_channel = black.copy()
    one_channel[0, 0, 1] = 6  # mean 2 levels, four grey levels each
    assert error_map(one_channel, black).tolist() == [[8, 0], [0, 0]]


def test_colours_run_from_black_to_bright():
    colours = np.frombuffer(bytes.fromhex(colour_scale()), np.uint8).reshape(256, 3).astype(float)
    lightness = colours @ (0.299, 0.587, 0.114)
    assert lightness[0] < 3
    assert lightness[-1] > 240
    assert (np.diff(lightness) > -1).all()


def test_a_large_picture_is_shrunk_and_the_page_says_so(tmp_path, image, rng):
    clean = cv2.resize(image.pictures['target'], (301, 200))
    big = {'rainy': noisy(clean, rng), 'target': clean}
    images = [image, with_name(image, '2', pictures=big)]
    write_gallery(tmp_path / 'page.html', 'T', METHODS, [], images, target='target', quality=101, max_side=150)
    reader = Reader(tmp_path / 'page.html')
    small, large = reader.data['images']
    assert (small['from'], small['width'], small['height']) == (None, 120, 80)
    assert (large['from'], large['width'], large['height']) == ([301, 200], 150, 100)
    wanted = cv2.resize(big['rainy'], (150, 100), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(reader.picture('p1-0'), wanted)
    errors = np.minimum(255, 4 * np.abs(big['rainy'].astype(np.float32) - clean).mean(axis=2))
    wanted = cv2.resize(errors, (150, 100), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(reader.picture('e1-0', cv2.IMREAD_GRAYSCALE), wanted, atol=0.51)
    text = ' '.join(reader.words)
    assert 'Larger than 150 pixels and shown shrunk: 1 of 2 images' in text
    assert large['pictures'] == [1, 0, 1]


def test_thumbnails_are_small(tmp_path, image):
    tall = {'net': np.zeros((400, 20, 3), np.uint8)}
    write_gallery(tmp_path / 'page.html', 'T', METHODS, [], [image, with_name(image, '2', pictures=tall)])
    for record, size in zip(Reader(tmp_path / 'page.html').data['images'], [(120, 80), (5, 108)], strict=True):
        data = np.frombuffer(base64.b64decode(record['thumbnail']), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1::-1] == size == tuple(record['thumbSize'])


def test_without_target_there_are_no_errors(tmp_path, image):
    write_gallery(tmp_path / 'page.html', 'T', METHODS, [PSNR], [image])
    reader = Reader(tmp_path / 'page.html')
    assert not [name for name in reader.scripts if name.startswith('e')]
    assert reader.data['target'] == -1


def test_names_cannot_become_html(tmp_path, image):
    evil = GalleryImage(EVIL, EVIL, {EVIL: image.pictures['net']}, {EVIL: {EVIL: 1.5}}, {EVIL: EVIL})
    score = Score(EVIL, EVIL, EVIL, 1, True)
    write_gallery(tmp_path / 'page.html', EVIL, [EVIL], [score], [evil], target=EVIL, remarks=[EVIL, '$pictures'])
    reader = Reader(tmp_path / 'page.html')
    assert 'img' not in dict(reader.tags)
    assert [tag for tag, _ in reader.tags].count('script') == 3  # data, script, one picture
    data = reader.data
    assert (data['methods'], data['sets'], data['images'][0]['name']) == ([EVIL], [EVIL], EVIL)
    assert data['images'][0]['notes'] == {'0': EVIL}
    assert sum(EVIL in words for words in reader.words) == 5  # title, heading, remark, method and score of the table
    assert '$pictures' in reader.words


def test_a_name_that_is_no_text_is_survived(tmp_path, image):
    write_gallery(tmp_path / 'page.html', 'T', METHODS, [], [with_name(image, 'caf\udce9')])
    assert Reader(tmp_path / 'page.html').data['images'][0]['name'] == 'caf?'


def test_policy_allows_this_style_and_this_script_alone(tmp_path, image):
    write_gallery(tmp_path / 'page.html', 'T', METHODS, [PSNR], [image])
    reader = Reader(tmp_path / 'page.html')
    rules = dict(rule.strip().split(' ', 1) for rule in reader.policy.split(';'))
    runs = [text for name, text in reader.scripts.items() if name.startswith('script ')]
    assert len(runs) == len(reader.styles) == 1
    for rule, text in (('script-src', runs[0]), ('style-src', reader.styles[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert rules['default-src'] == "'none'"
    assert rules['img-src'] == 'blob: data:'
    assert not re.search(r'(?:https?:)?//\w', re.sub(r'<script.*?</script>', '', (tmp_path / 'page.html').read_text()))
    assert not [attributes for _, attributes in reader.tags if 'style' in attributes or 'src' in attributes]


def test_one_image_is_in_memory_at_a_time(tmp_path):
    alive, most = weakref.WeakSet(), 0

    class Picture(np.ndarray):  # plain arrays cannot be hashed, which a weak set needs
        __hash__ = object.__hash__

    def images():
        nonlocal most
        for i in range(5):
            picture = np.full((30, 40, 3), i, np.uint8).view(Picture)
            alive.add(picture)
            most = max(most, len(alive))
            image = GalleryImage('a', str(i), {'net': picture}, {})
            del picture
            yield image
            del image

    assert write_gallery(tmp_path / 'page.html', 'T', ['net'], [], images()) == 5
    assert most == 1


def table(methods, scores, sets, target=None):
    """The cells of the table of means: ``*`` before the best, ``+`` before the second."""
    reader = Reader.__new__(Reader)
    HTMLParser.__init__(reader)
    reader.tags, reader.scripts, reader.styles, reader.rows, reader.words, reader.open = [], {}, [], [], [], []
    reader.feed(means_table(methods, scores, sets, target))
    return reader.rows


def test_means_are_ranked_as_the_score_wants():
    one = [(20, 4.0), (30.004, 3.0), (30.0, 2.0), (10, 9), (99, 1)]
    other = [(22, 5.0), (30, 3.0), (30.0, 2.0), (10, 9), (99, 1)]
    rows = table('abcdt', [PSNR, NIQE], {'x': [one, other]}, 't')
    assert rows == [
        ['Method', 'PSNR in dB ↑', 'NIQE ↓'],
        ['a', '+21.00', '4.500'],
        ['b', '*30.00', '+3.000'],  # printed alike, so marked alike
        ['c', '*30.00', '*2.000'],
        ['d', '10.00', '9.000'],
        ['t', '99.00', '1.000'],
    ]


def test_means_leave_out_what_is_not_finite_and_say_over_how_many():
    nothing = math.nan
    images = [[(math.inf,), (30,), (nothing,)], [(40,), (31,), (nothing,)], [(42,), (nothing,), (nothing,)]]
    rows = table('abc', [PSNR], {'x': images})
    assert rows[1:] == [['a', '*41.00 (2)'], ['b', '+30.50 (2)'], ['c', '-']]
    assert 'in brackets' in means_legend([PSNR], images)
    assert 'in brackets' not in means_legend([PSNR], [image[:1] for image in images[1:]])


def test_a_mean_over_fewer_images_is_not_ranked():
    rows = table('abct', [PSNR], {'x': [[(50,), (30,), (20,), (99,)], [(math.nan,), (31,), (21,), (99,)]]}, 't')
    assert [row[1] for row in rows[1:]] == ['50.00 (1)', '*30.50', '+20.50', '99.00']


def test_means_of_several_sets_stand_side_by_side():
    sets = {'x': [[(10, 0.5)], [(20, 0.7)]], 'y': [[(60, 0.9)]]}
    rows = table('a', [PSNR, SSIM], sets)
    assert rows[0] == ['', 'x, 2 images', 'y, 1 image', 'all sets, 3 images']
    assert rows[2] == ['a', '15.00', '0.6000', '60.00', '0.9000', '30.00', '0.7000']  # one alone is not ranked


def test_table_stands_in_the_page_for_readers_without_javascript(tmp_path, image):
    write_gallery(tmp_path / 'page.html', 'Tit <le>', METHODS, [PSNR], [image], target='target', remarks=['Y channel.'])
    reader = Reader(tmp_path / 'page.html')
    assert ['net', '*31.25'] in reader.rows
    assert 'noscript' in dict(reader.tags)
    assert {'Tit <le>', 'Y channel.'} <= set(reader.words)
    assert ('main', {'hidden': None}) in reader.tags


def test_values_survive_json(tmp_path, image):
    scores = {'rainy': {'psnr': math.inf, 'niqe': math.nan}, 'net': {'psnr': np.float32(31.25), 'niqe': -math.inf}}
    write_gallery(tmp_path / 'page.html', 'T', METHODS, [PSNR, NIQE], [with_name(image, '1', scores=scores)])
    values = Reader(tmp_path / 'page.html').data['images'][0]['values']
    assert values == [['Infinity', None], [31.25, '-Infinity'], [None, None]]


GREY = np.zeros((80, 120), np.uint8)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'methods': ('rainy', 'nett', 'target')}, r"Rain100L/1: 'net' is none of the methods; did you mean 'nett'"),
        ({'methods': ('rainy', 'net', 'rainy', 'target')}, "the method 'rainy' is given twice"),
        ({'methods': ()}, 'no method to show'),
        ({'scores': [PSNR, PSNR]}, "the score 'psnr' is given twice"),
        ({'target': 'targt'}, r"the target 'targt' is none of the methods; did you mean 'target'"),
        ({'quality': 0}, 'the quality is 0; want 1 to 100, or 101'),
        ({'max_side': 0}, 'the largest side is 0; want 1 to 16383'),
        ({'max_side': 20000}, 'the largest side is 20000'),
        ({'count': 0}, r'page\.html: there is no image to show'),
        ({'count': 2}, 'the image Rain100L/1 comes twice'),
        ({'pictures': {}}, 'Rain100L/1 has no picture at all'),
        ({'pictures': {'net': GREY}}, r'the picture of net is uint8 \(80, 120\); want uint8 \(H, W, 3\)'),
        ({'pictures': {'net': np.zeros((4, 4, 3))}}, r'the picture of net is float64 \(4, 4, 3\)'),
        ({'pictures': {'net': np.zeros((0, 4, 3), np.uint8)}}, r'uint8 \(0, 4, 3\)'),
        (
            {'pictures': {'net': np.zeros((4, 6, 3), np.uint8), 'target': np.zeros((6, 4, 3), np.uint8)}},
            r'unequal sizes \(net 6 x 4, target 4 x 6\)',
        ),
    ],
)
def test_what_cannot_be_shown_is_named_and_leaves_no_page(tmp_path, image, changes, message):
    changes = {'methods': METHODS, 'scores': [PSNR], 'target': None, 'count': 1, **changes}
    if 'pictures' in changes:
        image = with_name(image, '1', pictures=changes.pop('pictures'))
    images = [image] * changes.pop('count')
    arguments = [tmp_path / 'page.html', 'T', changes.pop('methods'), changes.pop('scores'), images]
    with pytest.raises(InputError, match=message):
        write_gallery(*arguments, **changes)
    assert list(tmp_path.iterdir()) == []


def test_an_older_page_survives_a_failure(tmp_path, image):
    path = tmp_path / 'page.html'
    path.write_text('old')

    def images():
        yield image
        raise OSError('the disk is gone')

    with pytest.raises(OSError, match='the disk is gone'):
        write_gallery(path, 'T', METHODS, [PSNR], images())
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
