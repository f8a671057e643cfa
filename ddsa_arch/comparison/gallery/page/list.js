// The list of images: a row each, with the scores of all methods, to sort and to choose from.

const rows = []; // by image
const list = byId('rows');
// methods without any score, as the target often is, get no column
const columns = methodNumbers.filter((method) =>
  DATA.images.some(({ values }) => values[method].some((value) => value !== null)),
);

const thumbnails = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      target.src = `data:image/webp;base64,${DATA.images[target.dataset.image].thumbnail}`;
      thumbnails.unobserve(target);
    }
  },
  { root: list, rootMargin: '300px' },
);

// The images that are listed, in the order of the list.
function listed() {
  const numbers = DATA.images.map((_, image) => image);
  const kept = numbers.filter((image) => state.only < 0 || DATA.images[image].set === state.only);
  const byName = (a, b) => {
    const [first, second] = [DATA.images[a], DATA.images[b]];
    return first.set - second.set || ORDER.compare(first.name, second.name);
  };
  const sign = state.order === 'up' ? 1 : -1;
  if (state.sort === 'name') return kept.sort((a, b) => sign * byName(a, b));
  const value = (image) =>
    state.sort === 'difference' ? difference(image, state.score) : valueOf(image, state.sort, state.score);
  const values = new Map(kept.map((image) => [image, value(image)]));
  return kept.sort((a, b) => {
    const [first, second] = [values.get(a), values.get(b)];
    if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second) || byName(a, b);
    return first === second ? byName(a, b) : sign * (first < second ? -1 : 1); // no subtraction: infinities
  });
}

function heading(sort, ...children) {
  const button = make('button', { type: 'button' }, ...children);
  button.addEventListener('click', () => {
    const first = sort === 'name' ? 'up' : 'down';
    state.order = state.sort !== sort ? first : state.order === 'up' ? 'down' : 'up';
    state.sort = sort;
    showList();
    list.scrollTop = 0;
    writeAddress(false);
  });
  const cell = make('th', { scope: 'col' }, button);
  if (state.sort === sort) cell.setAttribute('aria-sort', state.order === 'up' ? 'ascending' : 'descending');
  return cell;
}

function showHeadings() {
  const sides = new Map([[state.left, 'left'], [state.right, 'right']]);
  const focused = [...byId('columns').children].findIndex((cell) => cell.contains(document.activeElement));
  const minus = make('span', { title: 'right minus left' }, 'right', make('br'), '− left');
  byId('columns').replaceChildren(
    heading('name', 'Image'),
    ...(columns.length > 1 ? [heading('difference', minus)] : []),
    ...columns.map((method) => {
      const side = columns.length > 1 ? sides.get(method) : undefined;
      const mark = side ? [make('small', { textContent: side })] : [];
      const cell = heading(method, make('bdi', { textContent: DATA.methods[method] }), ...mark);
      cell.classList.toggle('chosen', Boolean(side));
      return cell;
    }),
  );
  byId('columns').children[focused]?.firstChild.focus({ preventScroll: true });
}

function buildRows() {
  DATA.images.forEach(({ thumbSize }, image) => {
    const [width, height] = thumbSize;
    const thumbnail = make('img', { width, height, alt: '' });
    thumbnail.dataset.image = image;
    const name = make('bdi', { textContent: nameOf(image) });
    const button = make('button', { type: 'button' }, make('span', { className: 'thumb' }, thumbnail), name);
    const head = make('th', { scope: 'row' }, button);
    const cells = Array.from({ length: columns.length + (columns.length > 1) }, () => make('td'));
    const row = make('tr', {}, head, ...cells);
    row.addEventListener('click', () => choose({ image }));
    rows.push(row);
    thumbnails.observe(thumbnail);
  });
}

function showValues() {
  const shift = columns.length > 1 ? 2 : 1;
  rows.forEach((row, image) => {
    if (columns.length > 1) row.children[1].textContent = showDifference(difference(image, state.score), state.score);
    columns.forEach((method, i) => {
      const cell = row.children[i + shift];
      cell.textContent = showNumber(valueOf(image, method, state.score), state.score);
      cell.classList.toggle('chosen', columns.length > 1 && (method === state.left || method === state.right));
    });
  });
}

function showCurrent() {
  const order = listed();
  const at = order.indexOf(state.image);
  for (const row of rows) row.removeAttribute('aria-current');
  const row = rows[state.image];
  row.setAttribute('aria-current', 'true');
  byId('list-title').textContent = at < 0 ? `${order.length} images` : `Image ${at + 1} of ${order.length}`;
  byId('previous').disabled = at === 0 || !order.length;
  byId('next').disabled = at === order.length - 1;
  if (at < 0) return;
  if (byId('body').contains(document.activeElement)) row.querySelector('button').focus({ preventScroll: true });
  // the box is scrolled by hand: scrollIntoView would move the page as well
  const head = byId('columns').offsetHeight;
  const top = row.offsetTop - head;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (row.offsetTop + row.offsetHeight > list.scrollTop + list.clientHeight)
    list.scrollTop = row.offsetTop + row.offsetHeight - list.clientHeight;
}

function showList() {
  byId('score').value = state.score;
  byId('only').value = state.only;
  showHeadings();
  showValues();
  byId('body').replaceChildren(...listed().map((image) => rows[image]));
  showCurrent();
}

// The next image of the list, or the one before; of an image that is filtered out, the first.
function step(by) {
  const order = listed();
  const at = order.indexOf(state.image);
  const image = at < 0 ? order[0] : order[at + by];
  if (image !== undefined) choose({ image });
}
