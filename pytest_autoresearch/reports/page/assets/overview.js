// The headline, the kept changes, and the totals of time and money.

const CHAIN_SHOWN = 12;

function headline() {
  const { head, setting, metric: name } = campaign;
  byId('tag').textContent = campaign.tag;
  byId('kicker').textContent = [`${name}, ${minimize ? 'lower' : 'higher'} is better`, setting.hardware,
    setting.budget ? `${duration(setting.budget)} per run` : '', campaign.position].filter(Boolean).join(' \u00b7 ');
  const title = byId('headline');
  if (head.last === null) title.replaceChildren('No baseline yet');
  else if (head.kept === 0) title.replaceChildren(el('span.big', {}, metric(head.last)), ' ', el('span.sub', {}, `${name}: the baseline${head.tried ? ' still stands' : ''}`));
  else {
    const gain = minimize ? head.first - head.last : head.last - head.first;
    title.replaceChildren(el('span.from', {}, metric(head.first)), el('span.arrow', { 'aria-label': 'to' }, '\u2192'), el('span.big', {}, metric(head.last)),
      el('span.delta', {}, moved(gain), head.first ? el('span', {}, ` (${gain * (minimize ? -1 : 1) > 0 ? '+' : MINUS}${percent(Math.abs(gain / head.first))})`) : null));
  }
  byId('claim').replaceChildren(...claim(head));
  byId('tiles').replaceChildren(...tiles(head));
}

function claim(head) {
  if (head.last === null) return ['The baseline is not measured yet.'];
  const words = [];
  if (head.kept) {
    words.push(el('b', {}, `${plural(head.kept, 'change')} kept`), ` of ${head.tried.toLocaleString('en')} tried`);
    words.push(...luck(head), '. ');
  } else words.push(head.tried ? `No change of ${plural(head.tried, 'experiment')} was kept. ` : 'The baseline is measured; no experiment has been judged yet. ');
  words.push(head.audit ? el('span.audited', {}, `${head.audit[0].toUpperCase()}${head.audit.slice(1)}.`)
    : head.kept ? el('span.unaudited', {}, 'Not audited: the runs that measured the gain also selected it.') : '');
  return words;
}

// How many of the kept changes are probably luck, with the numbers behind it in a tooltip.
function luck(head) {
  if (head.exact) return [];
  if (head.nothing === null) return [', each measured once: part of the gain may be luck'];
  const expected = Math.round(head.nothing);
  const said = expected ? `about ${expected.toLocaleString('en')} of them ${expected === 1 ? 'is' : 'are'} probably luck`
    : head.kept === 1 ? 'probably not by luck' : 'probably none of them is luck';
  const bare = head.kept - head.asked;
  const title = `By their probabilities, ${head.nothing.toFixed(1)} of the kept changes are expected to be no improvement. `
    + `Chance alone would keep ${head.chance.toFixed(head.chance < 10 ? 1 : 0)} of ${head.judged.toLocaleString('en')} changes without any effect.`
    + (bare ? ` ${plural(bare, 'keep')} ${bare === 1 ? 'has' : 'have'} no probability.` : '');
  return ['; ', el('abbr', { title, tabindex: '0' }, said)];
}

function tiles(head) {
  const time = Object.values(campaign.time.kind).reduce((sum, seconds) => sum + (seconds ?? 0), 0);
  const spent = Object.values(campaign.money.kind).reduce((sum, dollars) => sum + (dollars ?? 0), 0);
  const items = [
    ['Kept', head.kept, head.tried ? `${percent(head.kept / head.tried)} of ${head.tried.toLocaleString('en')}` : ''],
    ['Discarded', head.discarded, reasonsOf(DISCARD)],
    ['Crashed', head.crashed, reasonsOf(CRASH)],
    ['Training runs', head.runs, [head.again ? `${head.again.toLocaleString('en')} for noise and confirmation` : '', head.stopped ? `${head.stopped.toLocaleString('en')} stopped early` : ''].filter(Boolean).join(', ')],
    ['Time', duration(time), head.saved ? `${duration(head.saved)} saved by early stops` : span(campaign.began_at, campaign.ended_at)],
  ];
  if (spent || campaign.money.unknown) items.push(['Cost', spent ? money(spent) : 'unknown', head.kept && spent ? `${money(spent / head.kept)} per keep` : '']);
  return items.map(([name, value, more]) => el('div.tile', {}, el('dt', {}, name), el('dd', {}, typeof value === 'number' ? value.toLocaleString('en') : value), more ? el('dd.more', {}, more) : null));
}

// The most frequent reasons, in words.
function reasonsOf(status) {
  const counts = new Map();
  rows.status.forEach((one, place) => {
    if (one !== status) return;
    const name = reasonWords(place);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  });
  const items = [...counts].sort((one, other) => other[1] - one[1]);
  const rest = items.splice(2).reduce((sum, [, count]) => sum + count, 0);
  return [...items, ...(rest ? [['more', rest]] : [])].map(([name, count]) => `${count.toLocaleString('en')} ${name}`).join(', ');
}

function lineage() {
  const place = byId('chain');
  if (chain.length < 2) { place.replaceChildren(el('p.note', {}, 'Nothing kept yet.')); return; }
  const most = Math.max(...chain.slice(1).map((keep) => Math.abs(keep.gain ?? 0))) || 1;
  const items = chain.map((keep, at) => chainItem(keep, at, most));
  const list = el('ol.chain', {}, items.slice(0, CHAIN_SHOWN + 1));
  place.replaceChildren(list);
  if (items.length > CHAIN_SHOWN + 1) {
    const more = el('button.link', { type: 'button', onclick: () => { list.append(...items.slice(CHAIN_SHOWN + 1)); more.remove(); } }, `Show ${plural(items.length - CHAIN_SHOWN - 1, 'more keep')}`);
    place.append(more);
  }
  place.append(el('p.note', {}, 'Bar and number show the gain over the best at that time. \u201cnow\u201d includes later runs of the same commit.'));
}

function chainItem(keep, at, most) {
  const number = placeOf.get(keep.number);
  const later = keep.now_runs && keep.now !== null && metric(keep.now) !== metric(keep.metric) ? `now ${metric(keep.now)} over ${plural(keep.now_runs, 'run')}` : '';
  const facts = [at && keep.p !== null ? `P ${probability(keep.p)}` : '', later].filter(Boolean).join(' \u00b7 ');
  return el('li', {}, el('button.step', { type: 'button', onclick: () => openExperiment(number) },
    el('span.no', {}, numeral(keep.number)), el('span.words', { title: rows.text[number] }, rows.text[number]),
    el('span.gain', {}, at ? moved(keep.gain) : metric(keep.metric)),
    el('span.facts', {}, at ? el('span.track', { 'aria-hidden': 'true' }, el(`span${keep.gain < 0 ? '.worse' : ''}`, { style: { width: `${(100 * Math.abs(keep.gain ?? 0)) / most}%` } })) : el('span', {}, 'starting point'), el('span', {}, facts))));
}

function sums() {
  const { time, money: spent } = campaign;
  const stages = campaign.stages.map((name) => [name, time.stage[name] ?? 0]);
  const kinds = ['baseline', 'keep', 'discard', 'crash'].map((name) => [name, time.kind[name] ?? 0]);
  const roles = Object.entries(time.role).map(([name, [count, seconds]]) => [name, seconds ?? 0, count]);
  const words = { keep: 'kept', discard: 'discarded', crash: 'crashed' };
  const blocks = [sumBlock('By stage', stages, duration), sumBlock('By outcome', kinds.map(([name, value]) => [name, value]), duration, words),
    sumBlock('Training runs by purpose', roles, duration, {}, roles.map(([, , count]) => plural(count, 'run')))];
  const dollars = Object.entries(spent.kind).map(([name, value]) => [name, value ?? 0]);
  if (dollars.some(([, value]) => value)) blocks.push(sumBlock('Money by outcome', dollars, money, words));
  const tokens = Object.values(spent.tokens).reduce((sum, count) => sum + count, 0);
  if (tokens) {
    const models = Object.entries(spent.models).map(([name, count]) => `${name} (${plural(count, 'request')})`).join(', ');
    const read = tokens - spent.tokens.output;
    blocks.push(el('p.note', {}, `${models}: ${tokens.toLocaleString('en')} tokens, ${read ? percent(spent.tokens.cache_read / read) : '0%'} of the input from the cache.${spent.unknown ? ` The cost of ${plural(spent.unknown, 'experiment')} is unknown.` : ''}`));
  }
  if (campaign.head.spared) blocks.push(el('p.note', {}, `Control of early stops: ${campaign.head.wrong} of ${plural(campaign.head.spared, 'hopeless run')} that could finish would have been stopped wrongly.`));
  if (campaign.head.inconclusive) blocks.push(el('p.note', {}, `${plural(campaign.head.inconclusive, 'run')} ${campaign.head.inconclusive === 1 ? 'was' : 'were'} inconclusive because of the machine and repeated.`));
  byId('sums').replaceChildren(...blocks.filter(Boolean));
}

function sumBlock(title, parts, format, words = {}, more = []) {
  const whole = parts.reduce((sum, [, value]) => sum + value, 0);
  if (!whole) return null;
  return el('div.sum-block', {}, el('h3', {}, title, el('span.whole', {}, format(whole))),
    el('div.stack', { role: 'img', 'aria-label': `${title}: ${parts.map(([name, value]) => `${words[name] ?? name} ${format(value)}`).join(', ')}` },
      parts.filter(([, value]) => value > 0).map(([name, value]) => el(`span.s-${name}`, { style: { width: `${(100 * value) / whole}%` }, title: `${words[name] ?? name}: ${format(value)}` }))),
    el('ul.keys', {}, parts.map(([name, value], at) => (value > 0 ? el('li', { title: more[at] ?? '' }, el(`span.chip-color.s-${name}`, { 'aria-hidden': 'true' }), words[name] ?? name, el('b', {}, format(value)), el('span.faint', {}, percent(value / whole))) : null))));
}

function footer() {
  const { setting } = campaign;
  const parts = [`Branch ${setting.branch}`, `sandbox: ${setting.sandbox}`];
  parts.push(...campaign.changes);
  if (campaign.written_at) parts.push(`written ${when(campaign.written_at)}${campaign.running ? '; the session is running: reload for updates' : ''}`);
  if (campaign.left_out) parts.push(`the logs and diffs of ${plural(campaign.left_out, 'experiment')} were not read: autoresearch report ${campaign.tag} reads all`);
  byId('footer').replaceChildren(el('p', {}, parts.join(' \u00b7 ')), el('p', {}, 'One file, no network. Charts by uPlot 1.6.32 (MIT, Leon Sorokin).'));
  if (campaign.running) document.querySelector('.brand').append(el('span.live', {}, 'running'));
}
