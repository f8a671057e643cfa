import base64
import csv
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ddsa_arch.files.key_lists import read_keys
from ddsa_arch.sets import audit_report
from ddsa_arch.sets.audit_report import (
    PICTURES_OF_A_KIND,
    Finding,
    Picture,
    Targets,
    choose_pictures,
    duplicate_findings,
    leak_findings,
    report_page,
    write_excluded_keys,
    write_findings,
)
from ddsa_arch.sets.near_duplicates import Match

VOID = ('img', 'meta')


class Reader(HTMLParser):
    """Collects the text and the pictures of a page, and checks that every tag is closed in turn."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.sources, self.tags = [], [], [], set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ('src', 'href')]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def leaks(count):
    return [Finding('leak', 'train', f'a{i}', 'test', f'b{i}', 0.9, 'as is', 'near duplicate') for i in range(count)]


def test_page_embeds_small_pictures_that_can_be_decoded():
    wide, tall = np.full((300, 900, 3), (200, 30, 60), np.uint8), np.full((600, 100, 3), 9, np.uint8)
    pictures = {'leak': [Picture('alike', [('train, a0', wide), ('test, b0', tall)])]}
    reader = Reader(report_page(('set', 'leak'), [('train', 1)], leaks(1), pictures))
    assert len(reader.sources) == 2
    shapes = []
    for source in reader.sources:
        kind, data = source.split(',')
        assert kind == 'data:image/jpeg;base64'
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        shapes.append(shown.shape)
    assert shapes == [(150, 450, 3), (150, 25, 3)]
    assert {'alike', 'train, a0', 'test, b0'} <= set(reader.words)


def test_names_cannot_become_html(photo):
    evil = '<script>alert("&")</script>'
    findings = [Finding('leak', evil, evil, evil, evil, 1, 'as is', evil), Finding('swapped', evil, '', detail=evil)]
    page = report_page(('set',), [(evil,)], findings, {'leak': [Picture(evil, [(evil, photo)])]})
    assert '<script' not in page
    reader = Reader(page)
    assert 'script' not in reader.tags
    assert sum(evil in words for words in reader.words) == 4  # cell, sentence, title, label


def test_page_says_how_many_stand_in_the_table_only(photo):
    shown = {'leak': [Picture('x', [('y', photo)])] * 3}
    broken = [Finding('broken', 'train', 'c', detail='cut off')] * 2
    text = ' '.join(Reader(report_page(('set',), [('train',)], leaks(10) + broken, shown)).words)
    assert 'leak: 10' in text
    assert '7 more stand in audit.csv.' in text
    assert '2 stand without a picture in audit.csv.' in text
    assert 'Nothing was found' not in text


def test_page_without_findings_says_so():
    assert 'Nothing was found.' in Reader(report_page(('set',), [('train',)], [], {})).words


def test_pictures_are_capped_and_the_doubtful_come_first():
    doubtful = Finding('leak', 'train', 'z', 'test', 'y', 0.71, 'as is', 'near duplicate')
    same_test_image = Finding('leak', 'train', 'x', 'test', 'y', 0.99, 'as is', 'near duplicate')
    lonely = Finding('no partner', 'train', 'q')
    chosen = choose_pictures([*leaks(100), same_test_image, doubtful, lonely])
    assert list(chosen) == ['leak']
    assert len(chosen['leak']) == PICTURES_OF_A_KIND
    assert chosen['leak'][0] == doubtful
    assert same_test_image not in chosen['leak']


def test_each_faulty_pair_is_shown():
    findings = [Finding('darker', 'train', key) for key in 'abc'] + [Finding('identical', 'train', 'a')]
    assert choose_pictures(findings) == {'darker': findings[:3], 'identical': findings[3:]}


def test_table_can_be_read_back(tmp_path):
    findings = [Finding('leak', 'Rain, "all"', 'ü\n', 'b', 'c', 0.98765, 'as is', 'x'), Finding('broken', 's', 'k')]
    write_findings(tmp_path / 'audit.csv', findings)
    with open(tmp_path / 'audit.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.reader(file))
    assert rows == [
        ['kind', 'set', 'key', 'other_set', 'other_key', 'similarity', 'orientation', 'detail'],
        ['leak', 'Rain, "all"', 'ü\n', 'b', 'c', '0.988', 'as is', 'x'],
        ['broken', 's', 'k', '', '', '', '', ''],
    ]


def test_excluded_keys_stand_once_in_natural_order_under_their_reasons(tmp_path):
    findings = [
        Finding('leak', 'train', 'n-10', 'Test100', 'x'),
        Finding('leak', 'train', 'n-9', 'Test100', 'x'),
        Finding('leak', 'train', 'ö', 'Rain100H', 'x'),
        Finding('leak', 'train', 'ö', 'Rain100L', 'x'),
        Finding('leak', 'train', 'n-9', 'Test100', 'y'),
        Finding('unequal sizes', 'train', 'n-10'),
        Finding('unequal sizes', 'train', 'n-11'),
        Finding('unequal sizes', 'Test100', 'not of training'),
        Finding('duplicate', 'train', 'n-12', 'train', 'n-9'),
        Finding('broken', 'train', 'n-13'),
    ]
    path = tmp_path / 'keys.txt'
    assert write_excluded_keys(path, findings, 'train') == 4
    assert path.read_text(encoding='utf-8').splitlines() == [
        '# near duplicates of Test100', 'n-9',
        '# near duplicates of Test100; unequal sizes', 'n-10',
        '# unequal sizes', 'n-11',
        '# near duplicates of Rain100H, Rain100L', 'ö',
    ]  # fmt: skip
    assert read_keys(path, 'exclude_keys') == ['n-9', 'n-10', 'n-11', 'ö']
    assert write_excluded_keys(path, findings, 'another set') == 0
    assert path.read_text(encoding='utf-8') == ''


@pytest.fixture
def targets():
    """Training files p (twice), q, r, s, and test files p, t; s is flat, so that it was not searched."""
    training = Targets('train', {b'p': ['1', '2'], b'q': ['3'], b'r': ['4', '5'], b's': ['6']}, [b'p', b'q', b'r'])
    return training, Targets('test', {b't': ['10', '11'], b'p': ['12']}, [b't', b'p'])


def test_leaks_are_a_row_for_each_training_key(targets):
    matches = [Match(2, 0, 0.8, 3), Match(0, 0, 0.75, 0)]
    found = [(f.key, f.other_key, f.similarity, f.orientation, f.detail) for f in leak_findings(*targets, matches)]
    assert found == [
        ('1', '12', 1.0, 'as is', 'identical bytes'),
        ('2', '12', 1.0, 'as is', 'identical bytes'),
        ('4', '10', 0.8, 'turned by 180', 'near duplicate'),
        ('5', '10', 0.8, 'turned by 180', 'near duplicate'),
    ]


def test_duplicates_are_a_row_for_each_member_but_the_first(targets):
    found = duplicate_findings(targets[0], [Match(2, 0, 0.8, 1)])
    assert [(f.kind, f.set, f.key, f.other_set, f.other_key, f.similarity, f.detail) for f in found] == [
        ('duplicate', 'train', '2', 'train', '1', 1.0, 'identical bytes'),
        ('duplicate', 'train', '4', 'train', '1', 0.8, 'near duplicate'),
        ('duplicate', 'train', '5', 'train', '1', 0.8, 'near duplicate'),
    ]


def test_every_kind_has_a_meaning_on_the_page():
    findings = [Finding(kind, 'train', 'k') for kind in audit_report.KINDS]
    page = report_page(('set',), [('train',)], findings, {})
    assert len(re.findall(r'<h2>[^<]+: 1</h2><p>[A-Z][^<]+\.</p>', page)) == len(audit_report.KINDS) == 8
