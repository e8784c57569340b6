// The details of one experiment, in a drawer beside the table.

const opened = { place: null, chart: null, from: null };
let leaving = false; // while history.back() is under way: it is asynchronous

// Opening the drawer adds a step to the history, so that "back" closes it; moving to the next experiment adds none.
function remember(number) {
  if (leaving) return;
  if (history.state?.opened) history.replaceState({ opened: true }, '', `#${number}`);
  else if (opened.place === null) pushOpened(number);
  else history.replaceState(null, '', `#${number}`);
}

function pushOpened(number) {
  history.scrollRestoration = 'manual'; // so that "back" leaves the last row in view
  history.pushState({ opened: true }, '', `#${number}`);
  history.scrollRestoration = 'auto';
}

function forget() {
  if (leaving) return;
  if (history.state?.opened) { leaving = true; history.back(); } else history.replaceState(null, '', location.pathname + location.search);
}

function openAddress() {
  const number = /^#(\d{4,})$/.exec(location.hash);
  const place = number ? placeOf.get(Number(number[1])) : undefined;
  if (place === undefined) closeExperiment(false);
  else if (place !== opened.place) openExperiment(place, false);
}

function followHistory() {
  history.scrollRestoration = 'auto';
  if (!leaving) { openAddress(); return; }
  leaving = false;
  if (opened.place !== null) pushOpened(numeral(rows.number[opened.place])); // opened meanwhile
}

function openExperiment(place, told = true) {
  const drawer = byId('drawer');
  if (told) remember(numeral(rows.number[place]));
  if (opened.place === null) opened.from = document.activeElement;
  opened.place = place;
  hideTip();
  const at = view.places.indexOf(place);
  if (at >= 0 && at !== view.active) activate(at);
  drawer.hidden = false;
  document.body.classList.add('reading');
  drawer.replaceChildren(...drawerHead(place), el('p.loading', {}, 'Unpacking\u2026'));
  drawer.scrollTop = 0;
  drawer.focus({ preventScroll: true });
  detailsOf(place).then((detail) => { if (opened.place === place) fillDrawer(place, detail); },
    () => drawer.querySelector('.loading')?.replaceChildren('This browser is too old to unpack the details: use one from 2023 or later.'));
}

function closeExperiment(told = true) {
  if (opened.place === null) return;
  opened.chart?.end();
  Object.assign(opened, { place: null, chart: null });
  byId('drawer').hidden = true;
  document.body.classList.remove('reading');
  if (told) forget();
  const back = opened.from && opened.from.isConnected && opened.from !== document.body ? opened.from : byId('grid');
  back.focus({ preventScroll: true });
}

function stepExperiment(by) {
  const at = view.places.indexOf(opened.place);
  const next = view.places[at + by];
  if (at >= 0 && next !== undefined) { activate(at + by); openExperiment(next); }
}

function drawerHead(place) {
  const button = (text, label, action) => el('button.quiet', { type: 'button', 'aria-label': label, title: label, onclick: action }, text);
  return [
    el('div.drawer-bar', {},
      el('span.no', {}, numeral(rows.number[place])), badge(place), el('span.grow'),
      button('\u2191', 'Previous row (k)', () => stepExperiment(-1)), button('\u2193', 'Next row (j)', () => stepExperiment(1)),
      button('\u00d7', 'Close (Esc)', () => closeExperiment())),
    el('h2.drawer-title', { id: 'drawer-title' }, rows.text[place]),
  ];
}

function fillDrawer(place, detail) {
  opened.chart?.end();
  opened.chart = null;
  const drawer = byId('drawer');
  const head = drawerHead(place);
  head[1].textContent = detail.text ?? rows.text[place];
  drawer.replaceChildren(...[...head,
    el('p.verdict', {}, detail.sentence),
    detail.evidence ? el('p.evidence', {}, 'The keep rule: ', el('q', {}, detail.evidence)) : null,
    detail.message && rows.status[place] !== CRASH ? el('p.evidence', {}, detail.message) : null,
    ...dots(place, detail), ...idea(detail), ...repairs(detail), ...runTable(place, detail), ...diffOf(place, detail), ...curveOf(place, detail),
    ...bars(place, detail), ...logOf(place, detail), ...facts(place, detail)].filter(Boolean));
  drawCurveOf(place, detail);
}

const part = (title, ...content) => [el('h3', {}, title), ...content];

// All runs behind the verdict, of the experiment and of the best, on one scale.
function dots(place, detail) {
  const runs = (detail.runs ?? []).filter((run) => run.metric !== undefined && !run.inconclusive);
  const best = rows.incumbent[place];
  if (!runs.length || (runs.length < 2 && best === null)) return [];
  const own = runs.filter((run) => !run.commit && run.role !== 'extra'), other = runs.filter((run) => run.role === 'incumbent');
  const values = [...runs.map((run) => run.metric), ...(best === null ? [] : [best])];
  const low = Math.min(...values), high = Math.max(...values), room = (high - low) * 0.08 || 1;
  const across = (value) => 12 + 76 * (value - low + room) / (high - low + 2 * room);
  const svg = (name, given) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(given)) node.setAttribute(key, value);
    return node;
  };
  const line = (title, some, mean, y, kind) => {
    const nodes = [svg('line', { x1: '12%', x2: '88%', y1: y, y2: y, class: 'rail' })];
    for (const run of some) {
      const dot = svg('circle', { cx: `${across(run.metric)}%`, cy: y, r: 4.5, class: `${kind} ${run.role === 'screen' ? 'hollow' : ''}` });
      const said = svg('title', {});
      said.textContent = `${run.role}, seed ${run.seed}: ${metric(run.metric)}`;
      dot.append(said);
      nodes.push(dot);
    }
    if (mean !== null) nodes.push(svg('line', { x1: `${across(mean)}%`, x2: `${across(mean)}%`, y1: y - 11, y2: y + 11, class: `mean ${kind}` }));
    const label = svg('text', { x: 0, y: y - 14, class: 'dots-label' });
    label.textContent = title;
    return [...nodes, label];
  };
  const rowsShown = [['this experiment', own, rows.metric[place], isBaseline(place) || rows.status[place] === KEEP ? 'kept' : 'own']];
  if (best !== null) rowsShown.push([other.length ? 'the best so far, run again' : 'the best so far', other, best, 'best']);
  const picture = svg('svg', { class: 'dots', width: '100%', height: String(44 * rowsShown.length + 4), role: 'img',
    'aria-label': `Runs of this experiment: ${own.map((run) => metric(run.metric)).join(', ')}${best === null ? '' : `; best so far ${metric(best)}`}` });
  rowsShown.forEach(([title, some, mean, kind], at) => picture.append(...line(`${title}${mean === null ? '' : ` \u00b7 ${metric(mean)}`}`, some, mean, 30 + 44 * at, kind)));
  const hollow = own.some((run) => run.role === 'screen') && own.length > 1;
  return [el('figure', {}, picture, el('figcaption', {}, `Each dot is a run, each stroke an estimate; ${minimize ? 'left' : 'right'} is better.${hollow ? ' The hollow dot is the run that selected the change.' : ''}`))];
}

function idea(detail) {
  const items = [['Hypothesis', detail.hypothesis], ['Expected', detail.expected], ['Area', detail.area], ['Notes', detail.notes]];
  return items.filter(([, text]) => text).map(([name, text]) => el('div.idea', {}, el('h3', {}, name), el('p.prose', {}, text)));
}

function repairs(detail) {
  if (!detail.repairs) return [];
  return part('Repairs', el('ol.plain', {}, detail.repairs.map(([stage, crash]) => el('li', {}, el('b', {}, `${stage}: `), crash))));
}

function runTable(place, detail) {
  const runs = detail.runs ?? [];
  if (!runs.length) return [];
  const best = numeralOfBase(place);
  const severalLanes = (campaign.lanes?.lanes.length ?? 0) > 1;
  const body = runs.map((run) => {
    const troubles = [run.crash, run.inconclusive && `inconclusive, not counted: ${run.inconclusive}`,
      run.hopeless && `${run.metric === undefined ? 'stopped early' : 'control run, not stopped'}: ${run.hopeless}`].filter(Boolean);
    const outcome = run.metric === undefined ? el('span.bad', {}, run.crash ? 'crashed' : 'stopped') : el(run.inconclusive ? 'span.faint' : 'span', {}, metric(run.metric));
    const whose = run.role === 'batch' ? 'with others' : run.commit && run.role !== 'incumbent' ? 'before the merge' : run.commit && best;
    const where = severalLanes ? `lane ${run.lane}` : '';
    return [el('tr', {}, el('td', {}, run.role, el('span.faint', {}, [whose, where].filter(Boolean).map((words) => ` ${words}`).join(','))), el('td.num', {}, String(run.seed)),
      el('td.num', {}, outcome), el('td.num', {}, duration(run.training)), el('td.num', {}, duration(run.total)), el('td.num', {}, memory(run.memory))),
    troubles.map((trouble) => el('tr.more', {}, el('td', { colspan: '6' }, trouble))),
    run.others ? el('tr.more', {}, el('td', { colspan: '6' }, `other processes on the GPU: ${run.others.join(', ')}`)) : null];
  });
  const heads = ['Role', 'Seed', campaign.metric, 'Training', 'Total', 'Memory'];
  return part(plural(runs.length, 'run'), el('div.scroll', {}, el('table.measured', {},
    el('thead', {}, el('tr', {}, heads.map((name, at) => el(at ? 'th.num' : 'th', { scope: 'col' }, name)))), el('tbody', {}, body.flat(2)))));
}

function numeralOfBase(place) {
  let found = '';
  for (const keep of chain) if (keep.number < rows.number[place]) found = numeral(keep.number);
  return found;
}

function diffOf(place, detail) {
  const sums = rows.added[place] + rows.removed[place] ? `+${rows.added[place]} ${MINUS}${rows.removed[place]}` : '';
  if (!detail.diff) {
    if (isBaseline(place)) return [];
    return part('Change', el('p.note', {}, detail.commit === detail.base ? 'Nothing was committed.' : known.has(rows.number[place]) ? 'The commit is no longer in this repository.' : 'Not read for this page: `autoresearch report` reads all.'));
  }
  return [el('h3', {}, 'Change ', el('span.faint', {}, sums)), el('div.code.diff', { tabindex: '0', role: 'region', 'aria-label': 'Change' }, diffLines(detail.diff))];
}

// Lines are coloured by their first character; in a replaced line, the difference is marked.
function diffLines(text) {
  const lines = text.split('\n');
  const nodes = [];
  let head = true; // in a file's header; below it, lines that look like a header belong to the file
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    head = !line.startsWith('@@') && (head || line.startsWith('diff --git '));
    if (head && /^(diff |index |--- |\+\+\+ |new file|deleted file|old mode|new mode|similarity )/.test(line)) {
      if (line.startsWith('+++ ')) nodes.push(el('div.file', {}, line.slice(4).replace(/^b\//, '')));
      continue;
    }
    if (line.startsWith('@@')) { nodes.push(el('div.hunk', {}, line)); continue; }
    if (!line.startsWith('-')) { nodes.push(diffLine(line)); continue; }
    let removed = at, added;
    while (lines[removed]?.startsWith('-')) removed++;
    added = removed;
    while (lines[added]?.startsWith('+')) added++;
    const olds = lines.slice(at, removed), news = lines.slice(removed, added);
    const pairs = olds.length === news.length ? olds.map((old, place) => changed(old.slice(1), news[place].slice(1))) : [];
    olds.forEach((old, place) => nodes.push(diffLine(old, pairs[place]?.[0])));
    news.forEach((fresh, place) => nodes.push(diffLine(fresh, pairs[place]?.[1])));
    at = added - 1;
  }
  return nodes;
}

function diffLine(line, bounds) {
  const kind = line.startsWith('+') ? 'add' : line.startsWith('-') ? 'del' : 'same';
  const text = line.slice(1);
  const content = bounds ? [text.slice(0, bounds[0]), el('mark', {}, text.slice(bounds[0], bounds[1])), text.slice(bounds[1])] : [text || ' '];
  return el(`div.${kind}`, {}, el('span.sign', { 'aria-hidden': kind === 'same' ? 'true' : null }, kind === 'add' ? '+' : kind === 'del' ? MINUS : ' '), ...content);
}

function changed(old, fresh) {
  let start = 0, end = 0;
  const most = Math.min(old.length, fresh.length);
  while (start < most && old[start] === fresh[start]) start++;
  while (end < most - start && old[old.length - 1 - end] === fresh[fresh.length - 1 - end]) end++;
  // Mark whole words: half a number is hard to read.
  while (start > 0 && /[\w.]/.test(old[start - 1])) start--;
  while (end > 0 && /[\w.]/.test(old[old.length - end])) end--;
  if (start === 0 && end === 0) return undefined;
  return [[start, old.length - end], [start, fresh.length - end]];
}

function curveOf(place, detail) {
  if (!detail.curves) return [];
  const label = () => (picked.has(place) ? 'Remove from the curves' : 'Add to the curves');
  const button = el('button.link', { type: 'button', onclick: () => { pick(place); button.textContent = label(); } }, label());
  return [el('h3', {}, 'Training ', el('span.faint', {}, place === bestPlace ? '' : 'beside the best'), button), el('div.chart.small', { id: 'drawer-chart' })];
}

async function drawCurveOf(place, detail) {
  if (!detail.curves) return;
  const lines = [];
  if (bestPlace !== undefined && bestPlace !== place) {
    const best = (await detailsOf(bestPlace)).curves?.[0];
    if (best) lines.push({ place: bestPlace, curve: best, best: true, order: -1 });
  }
  if (opened.place !== place) return;
  lines.push({ place, curve: detail.curves[0], best: place === bestPlace, order: 0 });
  const byShare = lines.every((line) => line.curve[3].length);
  opened.chart = curveChart(byId('drawer-chart'), lines, byShare, 190);
}

function stack(parts, whole, label) {
  return el('div.stack', { role: 'img', 'aria-label': label }, parts.filter(([, value]) => value > 0).map(([name, value]) => el(`span.s-${name}`, {
    style: { width: `${(100 * value) / whole}%` }, title: `${name}: ${duration(value)} (${percent(value / whole)})`,
  })));
}

function bars(place, detail) {
  const stages = Object.entries(detail.stages ?? {});
  if (!stages.length) return [];
  const whole = stages.reduce((sum, [, seconds]) => sum + seconds, 0);
  const usage = detail.usage;
  const cost = usage ? el('p.note', {}, `${usage.cost === undefined || usage.cost === null ? 'Cost unknown' : `Cost ${money(usage.cost)}`}: ${plural(usage.requests, 'request')}, ${usage.output.toLocaleString('en')} tokens written, ${(usage.input + usage.cache_read + usage.cache_write).toLocaleString('en')} read (${usage.cache_read.toLocaleString('en')} from the cache).`) : null;
  return part('Time', stack(stages, whole, `Time by stage, ${duration(whole)} in total`),
    el('ul.keys', {}, stages.map(([name, seconds]) => el('li', {}, el(`span.chip-color.s-${name}`, { 'aria-hidden': 'true' }), name, el('b', {}, duration(seconds)))),
      el('li', {}, 'total', el('b', {}, duration(whole)))), cost);
}

function logOf(place, detail) {
  if (!detail.log) return (detail.runs ?? []).length ? part('End of the log', el('p.note', {}, known.has(rows.number[place]) ? 'No longer on this machine.' : 'Not read for this page: `autoresearch report` reads all.')) : [];
  return part('End of the log', el('pre.code', { tabindex: '0', 'aria-label': 'End of the log' }, detail.log));
}

function facts(place, detail) {
  const constants = Object.entries(detail.constants ?? {}).map(([name, value]) => `${name} = ${value}`).join(', ');
  const items = [['Proposed by', detail.proposer], ['Constants', constants], ['Judged', when(rows.at[place])], ['Commit', detail.commit], ['Base', detail.base === detail.commit ? '' : detail.base],
    ['Record', `git show refs/autoresearch/${campaign.tag}/${numeral(rows.number[place])}`]];
  return part('For the record', el('dl.facts', {}, items.filter(([, value]) => value).flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)])));
}
