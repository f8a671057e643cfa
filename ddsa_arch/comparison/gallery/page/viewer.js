// The viewer: two methods with a movable split between them, and the same crop of all methods.

const stage = byId('stage');
const layers = [byId('left-layer'), byId('right-layer')];
const selects = [byId('left'), byId('right')];
const crops = []; // by method: {canvas, missing, scores}
const CROP_SIDES = [208, 168]; // CSS pixels, multiples of every zoom: the larger where all crops stand in one row
const CROP_GAP = 12;
const DRAG = 4; // pixels that a pointer moves before a click becomes a drag

let ticket = 0; // of the newest call: what an older one has decoded comes too late
let sources = []; // by method: what its crop is cut from

function cropSide() {
  const [large, small] = CROP_SIDES;
  return DATA.methods.length * (large + CROP_GAP) - CROP_GAP <= byId('crops').clientWidth ? large : small;
}

function placeholder(text) {
  return make('div', { className: 'missing', textContent: text });
}

function missingText(method, errors) {
  const { pictures } = DATA.images[state.image];
  if (!pictures[method]) return `no picture of ${DATA.methods[method]} for this image`;
  if (errors && !pictures[TARGET]) return `no errors: no picture of ${DATA.methods[TARGET]} for this image`;
  return `the picture of ${DATA.methods[method]} is not in this file: it is cut off or damaged`;
}

const showsErrors = (method, side) =>
  method !== TARGET && (state.errors === 'all' || (state.errors === 'right' && side === 1));

function sourceOf(method, side) {
  return showsErrors(method, side) ? errorsOf(state.image, method) : pictureOf(state.image, method);
}

function scoreParts(method) {
  const values = DATA.scores.map((_, score) => valueOf(state.image, method, score));
  if (method === TARGET && values.every(Number.isNaN)) return [make('span', { textContent: 'ground truth' })];
  return DATA.scores.map(({ label, unit }, score) => {
    const suffix = unit && !Number.isNaN(values[score]) ? ` ${unit}` : '';
    return make('span', { textContent: `${label} ${showNumber(values[score], score)}${suffix}` });
  });
}

function noteParts(method) {
  const note = DATA.images[state.image].notes[method];
  return note ? [make('span', { className: 'note', textContent: note })] : [];
}

function showCaptions() {
  [state.left, state.right].forEach((method, side) => {
    const parts = scoreParts(method);
    if (side === 1 && state.left !== state.right) {
      DATA.scores.forEach((_, score) => {
        const gain = difference(state.image, score);
        if (Number.isNaN(gain)) return;
        const text = ` ${showDifference(gain, score)}`;
        parts[score].append(make('small', { textContent: text, title: 'right minus left' }));
      });
    }
    byId(side ? 'right-scores' : 'left-scores').replaceChildren(...parts, ...noteParts(method));
    selects[side].value = method;
  });
  byId('place').textContent = nameOf(state.image);
  stage.setAttribute('aria-label', `${DATA.methods[state.left]} and ${DATA.methods[state.right]}`);
}

function showFacts() {
  const { width, height, from } = DATA.images[state.image];
  const [x, y, across, down] = cropRegion();
  const parts = [`${width} × ${height} pixels`];
  if (from) parts.push(`shrunk from ${from[0]} × ${from[1]}`);
  if (stage.clientWidth) parts.push(`at ${Math.round((100 * stage.clientWidth) / width)} %`);
  parts.push(`crops x ${x}–${x + across - 1}, y ${y}–${y + down - 1}`);
  byId('facts').textContent = parts.join(', ');
}

function showSplit() {
  stage.style.setProperty('--split', `${state.split}%`);
  const range = byId('split');
  range.value = state.split;
  const names = [DATA.methods[state.left], DATA.methods[state.right]];
  range.setAttribute('aria-valuetext', `${Math.round(state.split)} % ${names[0]}, the rest ${names[1]}`);
}

function moveSplit(percent) {
  state.split = Math.min(100, Math.max(0, percent));
  showSplit();
}

// Decode what the stage shows, then change all of it at once; the crops follow.
async function showPictures() {
  const mine = ++ticket;
  const sides = state.left === state.right ? [state.right] : [state.left, state.right];
  stage.setAttribute('aria-busy', 'true');
  const found = await Promise.all(sides.map((method, i) => sourceOf(method, sides.length > 1 ? i : 1)));
  if (mine !== ticket) return;
  const { width, height } = DATA.images[state.image];
  byId('stack').style.setProperty('--width', width);
  byId('stack').style.setProperty('--height', height);
  stage.classList.toggle('single', sides.length === 1);
  found.forEach((picture, i) => {
    const side = sides.length > 1 ? i : 1;
    const method = sides[i];
    if (picture instanceof Image) picture.alt = `${nameOf(state.image)}, ${DATA.methods[method]}`;
    layers[side].replaceChildren(picture ?? placeholder(missingText(method, showsErrors(method, side))));
  });
  stage.removeAttribute('aria-busy');
  showCaptions();
  showSplit();
  showCropCaptions();
  drawFrame();
  byId('crops').classList.add('waiting'); // with the crops before, until the new ones are there
  sources = [];
  await Promise.all(
    methodNumbers.map(async (method) => {
      const source = await sourceOf(method, 2);
      if (mine !== ticket) return;
      sources[method] = source;
      drawCrop(method, cropRegion());
    }),
  );
  if (mine === ticket) byId('crops').classList.remove('waiting');
}

function buildCrops() {
  byId('crops').replaceChildren(
    ...methodNumbers.map((method) => {
      const canvas = make('canvas');
      const missing = make('div', { className: 'missing' });
      const scores = make('p');
      crops.push({ canvas, missing, scores });
      canvas.setAttribute('role', 'img');
      const key = method < 9 ? [make('kbd', { textContent: method + 1 }), ' '] : [];
      const name = make('p', { className: 'name' }, ...key, make('bdi', { textContent: DATA.methods[method] }));
      const crop = make('div', { className: 'crop' }, canvas, missing);
      return make('figure', {}, crop, make('figcaption', {}, name, scores));
    }),
  );
}

// The region of the picture that the crops show, whole pixels within the picture: [x, y, width, height].
function cropRegion() {
  const { width, height } = DATA.images[state.image];
  const side = cropSide() / state.zoom;
  return [width, height]
    .map((size, axis) => {
      const length = Math.min(side, size);
      const start = Math.round(state.centre[axis] * size - length / 2);
      return [Math.min(Math.max(start, 0), size - length), length];
    })
    .reduce(([x, w], [y, h]) => [x, y, w, h]);
}

function drawCrop(method, [x, y, width, height]) {
  const { canvas, missing } = crops[method];
  const source = sources[method];
  if (source === undefined) return; // being decoded
  canvas.hidden = !source;
  missing.hidden = Boolean(source);
  if (!source) {
    missing.textContent = missingText(method, showsErrors(method, 2));
    return;
  }
  Object.assign(canvas, { width, height }); // empties it
  canvas.style.width = `${width * state.zoom}px`;
  canvas.setAttribute('aria-label', `${DATA.methods[method]}, ${width} × ${height} pixels from ${x}, ${y}`);
  canvas.getContext('2d').drawImage(source, x, y, width, height, 0, 0, width, height);
}

function showCropCaptions() {
  crops.forEach(({ scores }, method) => scores.replaceChildren(...scoreParts(method), ...noteParts(method)));
}

function drawFrame() {
  const [x, y, width, height] = cropRegion();
  const image = DATA.images[state.image];
  const frame = byId('frame').style;
  frame.left = `${(100 * x) / image.width}%`;
  frame.top = `${(100 * y) / image.height}%`;
  frame.width = `${(100 * width) / image.width}%`;
  frame.height = `${(100 * height) / image.height}%`;
  byId('frame').classList.toggle('pinned', state.pinned);
  byId('pin').checked = state.pinned;
  byId('crops').style.setProperty('--side', `${cropSide()}px`);
  showFacts();
}

function drawCrops() {
  drawFrame();
  const region = cropRegion();
  for (const method of methodNumbers) drawCrop(method, region);
}

let cropsAsked = false;

function moveCrop(centre) {
  state.centre = centre.map((part) => Math.min(1, Math.max(0, part)));
  if (cropsAsked) return; // a pointer moves oftener than the screen is drawn
  cropsAsked = true;
  requestAnimationFrame(() => {
    cropsAsked = false;
    drawCrops();
  });
}

// By quarters of the region, from where it is seen: its centre may lie nearer to the border than it can go.
function stepCrop(across, down) {
  const { width, height } = DATA.images[state.image];
  const [x, y, w, h] = cropRegion();
  moveCrop([(x + w / 2 + (across * w) / 4) / width, (y + h / 2 + (down * h) / 4) / height]);
}

function setPinned(pinned) {
  state.pinned = pinned;
  drawCrops();
}

// Drag: split. Click or tap: pin the crop there, or let it go. Hover: the crop follows.
function listenToStage() {
  let start = null;
  let dragging = false;
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  stage.addEventListener('pointerdown', (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    start = event.clientX;
    dragging = false;
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener('pointermove', (event) => {
    if (start !== null && Math.abs(event.clientX - start) >= DRAG) dragging = true;
    if (dragging) moveSplit(100 * place(event)[0]);
    else if (start === null && !state.pinned && event.pointerType !== 'touch') moveCrop(place(event));
  });
  stage.addEventListener('pointerup', (event) => {
    if (start !== null && !dragging) {
      state.pinned = event.pointerType === 'touch' || !state.pinned;
      moveCrop(place(event));
    }
    start = null;
    dragging = false;
  });
  stage.addEventListener('pointercancel', () => {
    start = null;
    dragging = false;
  });
  new ResizeObserver(drawCrops).observe(byId('viewer'));
  byId('split').addEventListener('input', (event) => moveSplit(Number(event.target.value)));
}
