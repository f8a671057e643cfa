// Joins the parts: choices, keys, colour scheme, address.

// Change image or methods. A method chosen for the side opposite to its own changes places with the other.
function choose({ image = state.image, left, right }) {
  const before = { ...state };
  state.image = image;
  if (left !== undefined && left !== state.left) {
    if (left === state.right) state.right = state.left;
    state.left = left;
  }
  if (right !== undefined && right !== state.right) {
    if (right === state.left) state.left = state.right;
    state.right = right;
  }
  if (['image', 'left', 'right'].every((key) => before[key] === state[key])) return;
  if (before.left === state.left && before.right === state.right) showCurrent();
  else showList();
  showPictures();
  writeAddress(true);
}

function setErrors(errors) {
  state.errors = errors;
  showErrorTools();
  showPictures();
  writeAddress(false);
}

function showErrorTools() {
  byId('errors').hidden = TARGET < 0;
  byId('error-scale').hidden = state.errors === 'off';
  document.querySelector(`input[name=errors][value=${state.errors}]`).checked = true;
  drawScale();
}

function setZoom(zoom) {
  state.zoom = zoom;
  showZoom();
  drawCrops();
  writeAddress(false);
}

function showZoom() {
  document.querySelector(`input[name=zoom][value="${state.zoom}"]`).checked = true;
}

const following = (values, value) => values[(values.indexOf(value) + 1) % values.length];

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  f: () => moveSplit(state.split < 50 ? 100 : 0),
  s: () => choose({ left: state.right }),
  e: () => TARGET >= 0 && setErrors(following(ERRORS, state.errors)),
  z: () => setZoom(following(ZOOMS, state.zoom)),
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest('select')) return; // letters are its own
  const { key, code, shiftKey } = event;
  const control = event.target.closest('input, button');
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(code);
  if (digit) {
    const method = Number(digit[1]) - 1;
    if (method < DATA.methods.length) choose(shiftKey ? { left: method } : { right: method });
  } else if (key in ARROWS) {
    if (control?.matches('input')) return;
    const [across, down] = ARROWS[key];
    if (shiftKey) stepCrop(across, down);
    else if (list.contains(event.target)) {
      if (across) return; // scrolls the table
      step(down);
    } else if (across) moveSplit(state.split + 2 * across);
    else return; // scrolls the page
  } else if (key === 'Enter' && !control) setPinned(!state.pinned);
  else if (!shiftKey && Object.hasOwn(KEYS, key)) KEYS[key]();
  else return;
  event.preventDefault();
}

function showTheme(dark) {
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  byId('theme').textContent = dark ? 'Light' : 'Dark';
  byId('theme').title = `Change to ${dark ? 'light' : 'dark'} colours`;
}

function fillSelects() {
  const options = (names) => names.map((name, number) => make('option', { value: number, textContent: name }));
  for (const [side, select] of selects.entries()) {
    select.append(...options(DATA.methods));
    let byPointer = false;
    select.addEventListener('pointerdown', () => (byPointer = true));
    select.addEventListener('keydown', () => (byPointer = false));
    select.addEventListener('change', () => {
      choose({ [side ? 'right' : 'left']: Number(select.value) });
      if (byPointer) select.blur(); // so that the keys work on the page again
    });
  }
  byId('score').append(...options(DATA.scores.map(({ label }) => label)));
  byId('only').append(make('option', { value: -1, textContent: 'all' }), ...options(DATA.sets));
  byId('score-choice').hidden = DATA.scores.length < 2;
  byId('set-choice').hidden = DATA.sets.length < 2;
  if (TARGET >= 0) byId('target-name').textContent = DATA.methods[TARGET];
}

function showEverything() {
  showErrorTools();
  showZoom();
  showList();
  showPictures();
}

function listen() {
  listenToStage();
  document.addEventListener('keydown', onKey);
  byId('previous').addEventListener('click', () => step(-1));
  byId('next').addEventListener('click', () => step(1));
  byId('swap').addEventListener('click', KEYS.s);
  byId('pin').addEventListener('change', (event) => setPinned(event.target.checked));
  byId('gain').addEventListener('change', (event) => {
    state.gain = Number(event.target.value);
    drawScale();
    showPictures();
  });
  for (const input of document.querySelectorAll('input[name=errors]'))
    input.addEventListener('change', () => setErrors(input.value));
  for (const input of document.querySelectorAll('input[name=zoom]'))
    input.addEventListener('change', () => setZoom(Number(input.value)));
  for (const key of ['score', 'only'])
    byId(key).addEventListener('change', (event) => {
      state[key] = Number(event.target.value);
      showList();
      writeAddress(false);
    });
  byId('body').addEventListener('click', () => {
    // where the list lies below the viewer, what was chosen is out of sight
    if (byId('viewer').getBoundingClientRect().bottom < innerHeight / 2) byId('viewer').scrollIntoView();
  });
  addEventListener('popstate', () => {
    forgetAddress();
    readAddress();
    showEverything();
  });
  const dark = matchMedia('(prefers-color-scheme: dark)');
  showTheme(dark.matches);
  dark.addEventListener('change', () => showTheme(dark.matches));
  byId('theme').addEventListener('click', () => showTheme(document.documentElement.dataset.theme === 'light'));
}

readAddress();
fillSelects();
buildCrops();
buildRows();
listen();
document.querySelector('main').hidden = false;
byId('theme').hidden = false;
showEverything();
