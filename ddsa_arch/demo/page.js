// Makes the page usable by keys and screen readers, and takes photos that are dropped anywhere on it.
(() => {
  'use strict';
  const SMALL = 0.02, LARGE = 0.1; // of the width of the pictures, for arrow keys and for page keys

  function nameButtons() {
    for (const button of document.querySelectorAll('button:not([aria-label])')) {
      if (button.innerText.trim() || button.title) continue;
      const image = button.querySelector('img');
      if (!image || !image.src) continue; // it comes later
      const file = decodeURIComponent(image.src.split('/').pop()).replace(/\.\w+$/, '');
      button.setAttribute('aria-label', `Example: ${file.replace(/_/g, ' ')}`);
    }
    const photo = document.querySelector('#photo img');
    if (photo && !photo.alt) photo.alt = 'The photo that was given';
    document.querySelectorAll('#slider img').forEach((image, place) => {
      image.alt = place ? 'The photo without rain' : 'The photo as it came';
    });
  }

  // --- the slider ------------------------------------------------------------------------------------------

  function part(handle) {
    const frame = handle.parentElement.getBoundingClientRect(), own = handle.getBoundingClientRect();
    return Math.min(1, Math.max(0, (own.left + own.width / 2 - frame.left) / frame.width));
  }

  function tell(handle) {
    const value = Math.round(100 * part(handle));
    if (handle.getAttribute('aria-valuenow') === String(value)) return;
    handle.setAttribute('aria-valuenow', value);
    handle.setAttribute('aria-valuetext', `${value} % before`);
  }

  // The handle knows the mouse alone, so that a key is told to it as a drag.
  function drag(handle, target) {
    const frame = handle.parentElement.getBoundingClientRect(), own = handle.getBoundingClientRect();
    const from = own.left + own.width / 2, y = own.top + own.height / 2;
    const event = (kind, x) => new MouseEvent(kind, {bubbles: true, cancelable: true, view: window, clientX: x, clientY: y});
    handle.dispatchEvent(event('mousedown', from));
    window.dispatchEvent(event('mousemove', frame.left + target * frame.width));
    window.dispatchEvent(event('mouseup', frame.left + target * frame.width));
    requestAnimationFrame(() => tell(handle));
  }

  function onKey(event) {
    const now = part(event.currentTarget);
    const target = {
      ArrowLeft: now - SMALL, ArrowDown: now - SMALL, ArrowRight: now + SMALL, ArrowUp: now + SMALL,
      PageDown: now - LARGE, PageUp: now + LARGE, Home: 0, End: 1,
    }[event.key];
    if (target === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    drag(event.currentTarget, Math.min(1, Math.max(0, target)));
  }

  function equipSlider() {
    const handle = document.querySelector('#slider [data-testid=slider]');
    if (!handle) return;
    if (handle.getAttribute('role') !== 'slider') {
      const told = {
        role: 'slider', tabindex: 0, 'aria-label': 'Before and after', 'aria-orientation': 'horizontal',
        'aria-valuemin': 0, 'aria-valuemax': 100,
      };
      for (const [name, value] of Object.entries(told)) handle.setAttribute(name, value);
      handle.addEventListener('keydown', onKey);
    }
    tell(handle);
  }

  // --- photos that are dropped -----------------------------------------------------------------------------

  const carriesFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes('Files');

  // The page's own field takes what is dropped on it; elsewhere a browser would leave the page and open the file.
  function onDrop(event) {
    if (!carriesFiles(event)) return;
    if (event.target.closest('#photo') && !document.querySelector('#photo img')) return;
    event.preventDefault();
    event.stopPropagation();
    const input = document.querySelector('#photo input[type=file]');
    if (!input || !event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  }

  window.addEventListener('dragover', (event) => carriesFiles(event) && event.preventDefault());
  window.addEventListener('drop', onDrop, true);

  const watch = () => {
    nameButtons();
    equipSlider();
  };
  new MutationObserver(watch).observe(document.documentElement, {childList: true, subtree: true, attributeFilter: ['style', 'src']});
  document.addEventListener('DOMContentLoaded', watch);
})();
