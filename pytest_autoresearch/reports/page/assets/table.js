// The table of experiments, with search, filters and sorting. Only visible rows are in the document.

const view = { query: '', statuses: new Set(), key: 'number', down: true, places: [], active: -1 };
const costs = rows.cost.some((cost) => cost);
const asks = rows.p.some((p) => p !== null);

// The first click on a column of numbers sorts the better ones first.
const COLUMNS = [
  { key: 'number', name: 'No.', value: (place) => rows.number[place], down: true },
  { key: 'status', name: 'Verdict', value: (place) => rows.status[place] * 1000 + rows.reason[place], down: false },
  { key: 'metric', name: campaign.metric, value: (place) => rows.metric[place], down: !minimize, right: true },
  { key: 'gain', name: 'Change', value: (place) => rows.gain[place], down: true, right: true },
  asks && { key: 'p', name: 'P(better)', value: (place) => rows.p[place], down: true, right: true },
  { key: 'runs', name: 'Runs', value: (place) => rows.runs[place], down: true, right: true },
  { key: 'seconds', name: 'Time', value: (place) => rows.seconds[place], down: true, right: true },
  costs && { key: 'cost', name: 'Cost', value: (place) => rows.cost[place], down: true, right: true },
  { key: 'text', name: 'Description', value: (place) => rows.text[place].toLowerCase(), down: false },
].filter(Boolean);

const shownRows = new Map();
let rowHeight = 38;

function arrange() {
  const column = COLUMNS.find((one) => one.key === view.key);
  const words = view.query.toLowerCase().split(/\s+/).filter(Boolean);
  const active = view.places[view.active];
  const places = [];
  for (let place = 0; place < total; place++) {
    if (view.statuses.size && !view.statuses.has(rows.status[place])) continue;
    if (words.length && !words.every((word) => haystack(place).includes(word))) continue;
    places.push(place);
  }
  const way = view.down ? -1 : 1;
  const values = new Map(places.map((place) => [place, column.value(place)]));
  places.sort((one, other) => {
    const a = values.get(one), b = values.get(other);
    if (a === null || b === null) return a === b ? one - other : a === null ? 1 : -1; // missing values come last
    return a < b ? -way : a > b ? way : one - other;
  });
  view.places = places;
  view.active = places.indexOf(active);
  showHead();
  const all = campaign.head.tried, shown = places.filter((place) => !isBaseline(place)).length;
  byId('count').textContent = shown === all ? plural(all, 'experiment') : `${shown.toLocaleString('en')} of ${plural(all, 'experiment')}`;
  byId('empty').hidden = places.length > 0;
  byId('grid').setAttribute('aria-rowcount', String(places.length + 1));
  refreshRows();
}

function showHead() {
  byId('columns').replaceChildren(
    el('div.cell.pick', { role: 'columnheader' }, el('span.visually-hidden', {}, 'Curve')),
    ...COLUMNS.map((column) => el(`div.cell.${column.key}${column.right ? '.right' : ''}`, {
      role: 'columnheader', 'aria-sort': view.key !== column.key ? 'none' : view.down ? 'descending' : 'ascending',
    }, el('button', { type: 'button', tabindex: '-1', 'data-key': column.key, onclick: () => sortBy(column) },
      column.name, el('span.arrow', { 'aria-hidden': 'true' }, view.key === column.key ? (view.down ? '\u2193' : '\u2191') : '')))));
  byId('order').value = `${view.key} ${view.down ? 'down' : 'up'}`;
}

function sortBy(column) {
  view.down = view.key === column.key ? !view.down : column.down;
  view.key = column.key;
  arrange();
}

function orderMenu() {
  const words = { number: ['newest first', 'oldest first'], metric: ['highest metric', 'lowest metric'], gain: ['largest gain', 'largest loss'],
    seconds: ['longest', 'shortest'], cost: ['most expensive', 'cheapest'], runs: ['most runs', 'fewest runs'], p: ['most probable', 'least probable'],
    status: ['crashed first', 'kept first'], text: ['Z to A', 'A to Z'] };
  const menu = byId('order');
  for (const column of COLUMNS) {
    menu.append(el('option', { value: `${column.key} down` }, words[column.key][0]), el('option', { value: `${column.key} up` }, words[column.key][1]));
  }
  menu.addEventListener('change', () => {
    const [key, way] = menu.value.split(' ');
    Object.assign(view, { key, down: way === 'down' });
    arrange();
  });
}

function chips() {
  const sums = [0, 0, 0];
  rows.status.forEach((status, place) => { sums[status] += !isBaseline(place); });
  byId('chips').replaceChildren(...[KEEP, DISCARD, CRASH].filter((status) => sums[status]).map((status) => el('button.chip', {
    type: 'button', 'aria-pressed': String(view.statuses.has(status)), 'data-status': CLASSES[status],
    onclick: () => {
      if (view.statuses.has(status)) view.statuses.delete(status); else view.statuses.add(status);
      chips();
      arrange();
    },
  }, mark(status), WORDS[status], el('span.sum', {}, sums[status].toLocaleString('en')))));
}

function clearFilters() {
  view.query = byId('query').value = '';
  view.statuses.clear();
  chips();
  arrange();
}

function refreshRows() {
  for (const node of shownRows.values()) node.remove();
  shownRows.clear();
  showRows();
}

function showRows() {
  const box = byId('rows');
  const wanted = parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--row'));
  if (wanted && wanted !== rowHeight) {
    rowHeight = wanted;
    for (const node of shownRows.values()) node.remove();
    shownRows.clear();
  }
  box.style.height = `${view.places.length * rowHeight}px`;
  const top = box.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / rowHeight) - 8);
  const last = Math.min(view.places.length - 1, Math.max(first + 24, Math.ceil((window.innerHeight - top) / rowHeight) + 8));
  for (const [at, node] of shownRows) {
    if (at < first || at > last) { node.remove(); shownRows.delete(at); }
  }
  for (let at = first; at <= last; at++) {
    if (!shownRows.has(at)) {
      const node = row(at, view.places[at]);
      shownRows.set(at, node);
      box.append(node);
    }
  }
}

function row(at, place) {
  const node = el(`div.row.${isBaseline(place) ? 'base' : CLASSES[rows.status[place]]}`, {
    role: 'row', id: `row-${place}`, 'aria-rowindex': String(at + 2), 'aria-selected': String(at === view.active),
    style: { transform: `translateY(${at * rowHeight}px)` },
    onclick: () => { view.active = at; markActive(); openExperiment(place); },
  }, pickCell(place), ...COLUMNS.map((column) => el(`div.cell.${column.key}${column.right ? '.right' : ''}`, { role: 'gridcell' }, ...cell(column.key, place))));
  return node;
}

function pickCell(place) {
  const box = el('input', { type: 'checkbox', tabindex: '-1', 'aria-label': `Show the curve of ${numeral(rows.number[place])}` });
  box.checked = picked.has(place);
  box.addEventListener('change', () => pick(place, box.checked));
  return el('div.cell.pick', { role: 'gridcell', onclick: (event) => event.stopPropagation() }, el('label', {}, box));
}

function cell(key, place) {
  const missing = () => [el('span.faint', {}, NONE)];
  switch (key) {
    case 'number': return [numeral(rows.number[place])];
    case 'status': return [badge(place)];
    case 'metric': return rows.metric[place] === null ? missing()
      : [metric(rows.metric[place]), rows.error[place] === null ? null : el('span.faint.error', {}, ` \u00b1 ${metric(rows.error[place])}`)];
    case 'gain': return rows.gain[place] === null || isBaseline(place) ? missing()
      : [el(`span${rows.status[place] === KEEP ? '.good' : ''}`, {}, moved(rows.gain[place]))];
    case 'p': return rows.p[place] === null ? missing() : [probability(rows.p[place])];
    case 'runs': return [String(rows.runs[place])];
    case 'seconds': return [duration(rows.seconds[place])];
    case 'cost': return rows.cost[place] ? [money(rows.cost[place])] : missing();
    default: return [el('span.words', { title: rows.text[place] }, rows.text[place])];
  }
}

function markActive() {
  for (const [at, node] of shownRows) node.setAttribute('aria-selected', String(at === view.active));
  const place = view.places[view.active];
  if (place === undefined) byId('grid').removeAttribute('aria-activedescendant');
  else byId('grid').setAttribute('aria-activedescendant', `row-${place}`);
}

// Make the row active and scroll it into view, below the sticky header.
function activate(at) {
  if (!view.places.length) return;
  view.active = Math.min(Math.max(at, 0), view.places.length - 1);
  const above = byId('columns').getBoundingClientRect().height + document.querySelector('.bar').getBoundingClientRect().height
    + document.querySelector('.top').getBoundingClientRect().height;
  const top = byId('rows').getBoundingClientRect().top + view.active * rowHeight;
  if (top < above) window.scrollBy(0, top - above - rowHeight);
  else if (top + rowHeight > window.innerHeight - 8) window.scrollBy(0, top + 2 * rowHeight - window.innerHeight);
  showRows();
  markActive();
}

// Column widths depend on which columns this campaign has.
document.body.classList.toggle('no-p', !asks);
document.body.classList.toggle('no-cost', !costs);
