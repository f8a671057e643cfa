// Pictures stand as text behind the page. Only those of the image at hand are decoded, and forgotten with the next one.

const LOADING_PAUSE = 40; // ms between two looks at a file that is still being read
const COLOURS = Uint8Array.from(DATA.colours.match(/../g), (pair) => parseInt(pair, 16)); // r, g, b of 256 levels

const decoded = new Map(); // block -> promise of an <img>, or of null
const errorMaps = new Map(); // method -> promise of {levels, canvas}, or of null
let decodedImage = -1;

// The text of a block once the browser has read all of it; null if the file ends before.
async function blockText(id) {
  for (;;) {
    const complete = document.readyState !== 'loading';
    const block = byId(id);
    if (block && (complete || block.nextSibling)) return block.textContent;
    if (complete) return null;
    await new Promise((done) => setTimeout(done, LOADING_PAUSE));
  }
}

async function decode(id) {
  const text = await blockText(id);
  if (text === null) return null;
  const picture = new Image();
  picture.draggable = false;
  try {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    picture.src = URL.createObjectURL(new Blob([bytes], { type: 'image/webp' }));
    await picture.decode();
  } catch {
    return null; // cut off or damaged: a placeholder stands for it
  } finally {
    URL.revokeObjectURL(picture.src); // what is decoded needs it no longer
  }
  return picture;
}

function forgetOthers(image) {
  if (image === decodedImage) return;
  decoded.clear();
  errorMaps.clear();
  decodedImage = image;
}

function pictureOf(image, method) {
  forgetOthers(image);
  if (!DATA.images[image].pictures[method]) return Promise.resolve(null);
  const id = `p${image}-${method}`;
  if (!decoded.has(id)) decoded.set(id, decode(id));
  return decoded.get(id);
}

async function readErrors(image, method) {
  const { pictures, width, height } = DATA.images[image];
  if (!pictures[method] || !pictures[TARGET] || method === TARGET) return null;
  const picture = await decode(`e${image}-${method}`);
  if (!picture) return null;
  const canvas = make('canvas', { width, height });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const map = { levels: context.getImageData(0, 0, width, height), canvas, gain: 0 };
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', `Errors of ${DATA.methods[method]}, ${nameOf(image)}`);
  return map;
}

// A canvas with the errors in colours, or null.
async function errorsOf(image, method) {
  forgetOthers(image);
  if (!errorMaps.has(method)) errorMaps.set(method, readErrors(image, method));
  const map = await errorMaps.get(method);
  if (!map) return null;
  if (map.gain !== state.gain) {
    const { width, height, data } = map.levels;
    const coloured = new ImageData(width, height);
    for (let i = 0; i < data.length; i += 4) {
      const colour = 3 * Math.min(255, data[i] * state.gain);
      coloured.data[i] = COLOURS[colour];
      coloured.data[i + 1] = COLOURS[colour + 1];
      coloured.data[i + 2] = COLOURS[colour + 2];
      coloured.data[i + 3] = 255;
    }
    map.canvas.getContext('2d').putImageData(coloured, 0, 0);
    map.gain = state.gain;
  }
  return map.canvas;
}

function drawScale() {
  const context = byId('scale').getContext('2d');
  const row = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) row.data.set([...COLOURS.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  context.putImageData(row, 0, 0);
  const most = 256 / DATA.errorFactor / state.gain; // levels at the right end, where the colours stop
  const ticks = [0, 1, 2, 3, 4].map((quarter) => `${(most * quarter) / 4}`);
  ticks[4] = `≥ ${ticks[4]}`;
  byId('ticks').replaceChildren(...ticks.map((tick) => make('span', { textContent: tick })));
}
