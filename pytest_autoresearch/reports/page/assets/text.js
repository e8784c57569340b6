// Numbers for people, and `el`, the only way to build the page: it inserts text as text, never as markup.

function el(name, given = {}, ...children) {
  const [tag, ...classes] = name.split('.');
  const node = document.createElement(tag || 'div');
  if (classes.length) node.className = classes.join(' ');
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'style') for (const [property, to] of Object.entries(value)) node.style.setProperty(property, to);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ''));
  return node;
}

const byId = (id) => document.getElementById(id);
const MINUS = '\u2212';
const NONE = '\u2013';

const numeral = (number) => String(number).padStart(4, '0');

function fixed(value, decimals) {
  return value.toFixed(Math.min(Math.max(decimals, 0), 12)).replace('-', MINUS);
}

function metric(value, more = 0) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  if (size && (size >= 1e9 || size < 10 ** -(campaign.decimals + 3))) return value.toPrecision(4).replace('-', MINUS);
  return fixed(value, campaign.decimals + more);
}

function signed(value) {
  if (value === null || value === undefined) return '';
  const text = metric(Math.abs(value));
  return (value > 0 ? '+' : value < 0 ? MINUS : '\u00b1') + text;
}

// The change of the metric: negative for a gain if the metric is minimized.
function moved(gain) {
  return gain === null || gain === undefined ? '' : signed(minimize ? -gain : gain);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 100 ? `${hours} h ${String(minutes % 60).padStart(2, '0')} min` : `${hours.toLocaleString('en')} h`;
}

function money(dollars) {
  if (dollars === null || dollars === undefined) return NONE;
  return `$${dollars.toFixed(dollars && dollars < 1 ? 3 : 2)}`;
}

function probability(p) {
  if (p === null || p === undefined) return '';
  if (p >= 0.995) return '>0.99';
  if (p < 0.005) return '<0.01';
  return p.toFixed(2);
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)}%`;
const plural = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
const memory = (mb) => (mb < 10000 ? `${Math.round(mb)} MB` : `${(mb / 1024).toFixed(1)} GB`);

function when(seconds) {
  const options = { weekday: 'short', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' };
  return new Date(1000 * seconds).toLocaleString('en-GB', options);
}

// A period; the dates are shown if it spans more than one day.
function span(from, to) {
  const clock = { hour: '2-digit', minute: '2-digit' };
  const [began, ended] = [new Date(1000 * from), new Date(1000 * to)];
  const options = began.toDateString() === ended.toDateString() ? clock : { day: 'numeric', month: 'short', ...clock };
  return `${began.toLocaleString('en-GB', options)} to ${ended.toLocaleString('en-GB', options)}`;
}

// The mark of a verdict, which differs in shape as well as in colour.
function mark(status, baseline = false) {
  const kind = baseline ? 'base' : CLASSES[status];
  return el(`span.mark.${kind}`, { 'aria-hidden': 'true' });
}

function badge(place) {
  const status = rows.status[place];
  const baseline = isBaseline(place);
  const word = baseline ? 'baseline' : WORDS[status];
  const more = baseline || ['improved', 'not-improved'].includes(reasonOf(place)) ? '' : reasonWords(place);
  return el(`span.badge.${baseline ? 'base' : CLASSES[status]}`, {}, mark(status, baseline), el('b', {}, word),
    more ? el('span.why', {}, more) : null);
}
