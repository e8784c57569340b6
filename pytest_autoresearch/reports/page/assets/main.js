// Keyboard, theme and address; then everything is drawn.

const THEMES = ['auto', 'light', 'dark'];
const SIGNS = { auto: '\u25d0', light: '\u2600', dark: '\u263e' };
const stored = {
  get: () => { try { return localStorage.getItem('autoresearch-theme'); } catch { return null; } },
  set: (theme) => { try { localStorage.setItem('autoresearch-theme', theme); } catch { /* some browsers store nothing for files opened from disk */ } },
};

function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = byId('theme');
  button.textContent = SIGNS[theme];
  button.title = `Theme: ${theme} (t)`;
  button.setAttribute('aria-label', `Theme: ${theme}`);
  button.dataset.now = theme;
  stored.set(theme);
  redrawCharts();
}

const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(byId('theme').dataset.now) + 1) % THEMES.length]);

const KEYS = [['/', 'search'], ['j k \u2193 \u2191', 'next, previous experiment'], ['Enter', 'open'], ['x', 'add or remove its curve'],
  ['Home End', 'first, last'], ['Esc', 'close, leave the search, clear filters'], ['t', 'theme'], ['?', 'these keys']];

function showKeys() {
  byId('keys').replaceChildren(el('h2', { id: 'keys-title' }, 'Keys'), el('dl.facts', {}, KEYS.flatMap(([key, words]) => [el('dt', {}, key.split(' ').map((one) => el('kbd', {}, one))), el('dd', {}, words)])),
    el('form', { method: 'dialog' }, el('button', {}, 'Close')));
  byId('keys').showModal();
}

function move(by) {
  if (opened.place !== null) { stepExperiment(by); return; }
  activate(view.active < 0 ? 0 : view.active + by);
  byId('grid').focus({ preventScroll: true });
}

function escape(typing) {
  if (opened.place !== null) closeExperiment();
  else if (typing && !view.query) { byId('query').blur(); byId('grid').focus({ preventScroll: true }); }
  else clearFilters();
}

const onGrid = () => document.activeElement === byId('grid') || byId('drawer').contains(document.activeElement);

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('keys').open) return;
  const typing = event.target.matches('input[type=search], select');
  if (event.key === 'Escape') { escape(typing); event.preventDefault(); return; }
  if (typing) {
    if (event.key === 'Enter' || (event.key === 'ArrowDown' && event.target.id === 'query')) { event.preventDefault(); activate(0); byId('grid').focus({ preventScroll: true }); }
    return;
  }
  const inside = event.target.closest('.code') !== null; // arrow keys scroll it
  const actions = {
    '/': () => { byId('experiments').scrollIntoView(); byId('query').focus(); byId('query').select(); },
    j: () => move(1), k: () => move(-1),
    ArrowDown: onGrid() && !inside && (() => move(1)), ArrowUp: onGrid() && !inside && (() => move(-1)),
    Home: onGrid() && opened.place === null && (() => activate(0)), End: onGrid() && opened.place === null && (() => activate(view.places.length - 1)),
    Enter: !event.target.closest('button, a, summary') && view.places[view.active] !== undefined && (() => openExperiment(view.places[view.active])),
    x: () => { const place = opened.place ?? view.places[view.active]; if (place !== undefined) pick(place); },
    t: nextTheme, '?': showKeys,
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function begin() {
  setTheme(THEMES.includes(stored.get()) ? stored.get() : 'auto');
  headline();
  progressLegend();
  lineage();
  sums();
  lanesCard();
  footer();
  orderMenu();
  chips();
  arrange();
  progressChart();
  if (bestPlace !== undefined) {
    picked.add(chain.length > 1 ? placeOf.get(chain[0].number) : bestPlace);
    picked.add(bestPlace);
  }
  drawCurves();
  refreshRows();
  let due = 0;
  const soon = () => { due ||= requestAnimationFrame(() => { due = 0; showRows(); }); };
  window.addEventListener('scroll', () => { soon(); hideTip(); }, { passive: true });
  window.addEventListener('resize', soon);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawCharts);
  document.addEventListener('keydown', press);
  byId('query').addEventListener('input', (event) => { view.query = event.target.value; arrange(); });
  byId('clear').addEventListener('click', clearFilters);
  byId('theme').addEventListener('click', nextTheme);
  byId('keys-button').addEventListener('click', showKeys);
  window.addEventListener('popstate', followHistory);
  window.addEventListener('hashchange', openAddress);
  openAddress();
  // The time of the first picture, for benchmarks/page.py.
  requestAnimationFrame(() => setTimeout(() => { document.documentElement.dataset.ready = performance.now().toFixed(0); }));
}

begin();
