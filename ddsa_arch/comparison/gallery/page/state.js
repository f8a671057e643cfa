'use strict';
// What the page shows: the data it came with, the choices of the reader, and how both stand in the address.

const DATA = JSON.parse(document.getElementById('data').textContent);
const TARGET = DATA.target; // its number among the methods; -1 for none
const ORDER = new Intl.Collator('en', { numeric: true });
const ADDRESS_DELAY = 200; // ms: a key held down shall not fill the history
const ZOOMS = [2, 4, 8];
const ERRORS = ['off', 'right', 'all'];

const byId = (id) => document.getElementById(id);
const methodNumbers = DATA.methods.map((_, method) => method);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The first method that is not the target is the input, the next one stands against it.
function defaultSides() {
  const others = methodNumbers.filter((method) => method !== TARGET);
  const sides = [...others, ...methodNumbers.filter((method) => method === TARGET)];
  return [sides[0], sides[Math.min(1, sides.length - 1)]];
}

const state = {
  image: 0,
  left: defaultSides()[0],
  right: defaultSides()[1],
  split: 50, // percent of the width
  errors: 'off',
  gain: 2,
  zoom: 4,
  pinned: false,
  centre: [0.5, 0.5], // of the crop, as parts of width and height
  score: 0,
  sort: 'name', // or 'difference', or the number of a method
  order: 'up',
  only: -1, // the set that is listed; -1 for all
};

// Value of a score; NaN where there is none. JSON knows no infinity, so that it comes as a string.
function valueOf(image, method, score) {
  const value = DATA.images[image].values[method][score];
  return value === null ? NaN : Number(value);
}

function showNumber(value, score) {
  if (Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  return value.toFixed(DATA.scores[score].digits).replace('-', '−');
}

// Right minus left; without a number where one of them has none, or both are infinite.
function difference(image, score) {
  return valueOf(image, state.right, score) - valueOf(image, state.left, score);
}

function showDifference(value, score) {
  const text = showNumber(value, score);
  return value > 0 ? `+${text}` : text;
}

function nameOf(image) {
  const { set, name } = DATA.images[image];
  return DATA.sets.length > 1 ? `${DATA.sets[set]} / ${name}` : name;
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (names, word, otherwise) => {
    const found = names.indexOf(words.get(word));
    return found < 0 ? otherwise : found;
  };
  const set = words.get('set');
  const image = DATA.images.findIndex((i) => DATA.sets[i.set] === set && i.name === words.get('image'));
  state.image = Math.max(image, 0);
  const [left, right] = defaultSides();
  state.left = number(DATA.methods, 'left', left);
  state.right = number(DATA.methods, 'right', right);
  if (state.left === state.right) [state.left, state.right] = [left, right];
  state.score = number(DATA.scores.map((score) => score.name), 'score', 0);
  state.only = number(DATA.sets, 'only', -1);
  const sort = words.get('sort') ?? 'name';
  const method = sort.startsWith('method:') ? DATA.methods.indexOf(sort.slice(7)) : -1;
  state.sort = method >= 0 ? method : sort === 'difference' ? 'difference' : 'name';
  state.order = words.get('order') === 'down' ? 'down' : 'up';
  state.errors = TARGET >= 0 && ERRORS.includes(words.get('errors')) ? words.get('errors') : 'off';
  state.zoom = ZOOMS.find((zoom) => `${zoom}` === words.get('zoom')) ?? 4;
}

function address() {
  const { set, name } = DATA.images[state.image];
  const words = new URLSearchParams({ set: DATA.sets[set], image: name });
  words.set('left', DATA.methods[state.left]);
  words.set('right', DATA.methods[state.right]);
  if (state.score) words.set('score', DATA.scores[state.score].name);
  if (state.sort !== 'name' || state.order !== 'up') {
    words.set('sort', typeof state.sort === 'number' ? `method:${DATA.methods[state.sort]}` : state.sort);
    words.set('order', state.order);
  }
  if (state.only >= 0) words.set('only', DATA.sets[state.only]);
  if (state.errors !== 'off') words.set('errors', state.errors);
  if (state.zoom !== 4) words.set('zoom', state.zoom);
  return `#${words}`;
}

let addressTimer = 0;
let newEntry = false;

// Another image or method is a step that "back" undoes; sorting and the like only change the present address.
function writeAddress(step) {
  newEntry ||= step;
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    if (address() !== location.hash) history[newEntry ? 'pushState' : 'replaceState'](null, '', address());
    newEntry = false;
  }, ADDRESS_DELAY);
}

function forgetAddress() {
  clearTimeout(addressTimer);
  newEntry = false;
}
