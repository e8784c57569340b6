// Training curves of the picked experiments, beside those of the best and the baseline.

const MOST_CURVES = 8;
const picked = new Set();
const curves = { chart: null, axis: 'share', drawn: [] };
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

function pick(place, on = !picked.has(place)) {
  if (on && picked.size >= MOST_CURVES && !picked.has(place)) picked.delete([...picked].find((one) => one !== bestPlace));
  if (on) picked.add(place); else picked.delete(place);
  drawCurves();
  refreshRows();
}

const curveColor = (order) => color(`line-${order % 7}`);

let drawing = 0;
async function drawCurves() {
  const mine = ++drawing;
  const places = [...picked].sort((one, other) => one - other);
  const details = await Promise.all(places.map(detailsOf));
  if (mine !== drawing) return;
  let order = 0;
  const lines = places.map((place, at) => ({
    place, curve: details[at].curves?.[0], best: place === bestPlace, order: place === bestPlace ? -1 : order++,
  }));
  const shown = lines.filter((line) => line.curve);
  const shares = shown.length && shown.every((line) => line.curve[3].length);
  listPicked(lines);
  curveSwitch(shares);
  plotCurves(byId('curves-chart'), shown, shares && curves.axis === 'share');
}

function listPicked(lines) {
  byId('picked').replaceChildren(...lines.map((line) => el('li', {},
    el(`span.swatch${line.best ? '.thick' : ''}`, { style: { '--swatch': line.best ? 'var(--keep)' : `var(--line-${line.order % 7})` }, 'aria-hidden': 'true' }),
    el('button.link', { type: 'button', onclick: () => openExperiment(line.place) },
      el('b', {}, numeral(rows.number[line.place])), ` ${line.best ? 'best \u00b7 ' : ''}${rows.text[line.place]}`),
    line.curve ? null : el('span.hint', {}, known.has(rows.number[line.place]) ? 'no curve in its log' : 'no log here'),
    el('button.quiet.small', { type: 'button', 'aria-label': `Remove ${numeral(rows.number[line.place])}`, onclick: () => pick(line.place, false) }, '\u00d7'))));
  byId('curves-note').textContent = lines.length
    ? 'Loss as printed by training, averaged over neighbouring steps. Pick more in the table below, or press x on the active row.'
    : 'Pick experiments in the table below, or press x on the active row.';
}

function curveSwitch(shares) {
  const names = { share: 'share of the budget', step: 'step' };
  byId('curves-axis').hidden = !shares;
  byId('curves-axis').replaceChildren(...Object.entries(names).map(([name, words]) => el('button', {
    type: 'button', 'aria-pressed': String(curves.axis === name), onclick: () => { curves.axis = name; drawCurves(); },
  }, words)));
}

function plotCurves(place, lines, byShare) {
  curves.chart?.end();
  curves.chart = null;
  place.replaceChildren();
  if (!lines.length) {
    place.append(el('p.nothing', {}, 'No curves: these logs have no lines with a step and a loss.'));
    return;
  }
  place.setAttribute('role', 'img');
  place.setAttribute('aria-label', `Training loss of ${lines.map((line) => numeral(rows.number[line.place])).join(', ')}`);
  curves.chart = curveChart(place, lines, byShare, () => (place.clientWidth < 560 ? 240 : 320));
}

// The range follows the losses after the first steps, in which all curves fall steeply.
function curveRange(lines, byShare) {
  let low = Infinity, high = -Infinity;
  for (const { curve } of lines) {
    const xs = byShare ? curve[3] : curve[1];
    const from = xs[xs.length - 1] * 0.06;
    curve[2].forEach((loss, at) => {
      low = Math.min(low, loss);
      if (xs[at] >= from || curve[2].length < 4) high = Math.max(high, loss);
    });
  }
  if (!(high > low)) return [low - 1, low + 1];
  return [low - 0.04 * (high - low), high + 0.04 * (high - low)];
}

function curveChart(place, lines, byShare, height) {
  const tables = lines.map(({ curve }) => [byShare ? curve[3] : curve[1], curve[2]]).map(ascending);
  const data = uPlot.join(tables);
  const series = lines.map((line, at) => ({
    stroke: () => (line.best ? color('keep') : curveColor(line.order)), width: line.best ? 3 : 1.6, spanGaps: true,
    dash: line.best ? [] : DASHES[Math.floor(line.order / 7) % DASHES.length], points: { show: tables[at][0].length < 2, size: 7 }, // a single point draws no line
  }));
  const options = {
    scales: { x: { time: false, range: (plot, from, to) => (data[0].length < 2 ? around(data[0][0] ?? 0) : [from, to]) }, y: { range: () => curveRange(lines, byShare) } },
    series: [{}, ...series],
    axes: [
      axis({ values: (plot, ticks) => ticks.map((tick) => (byShare ? `${tick}%` : tick.toLocaleString('en'))), size: 34 }),
      axis({ values: (plot, ticks) => ticks.map((tick) => fixed(tick, tickDecimals(ticks))), size: 56 }),
    ],
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
    hooks: { setCursor: [(plot) => hoverCurve(plot, lines, tables, byShare)] },
    padding: [12, 24, 0, 0],
  };
  const made = chart(place, options, data, height);
  made.plot.over.addEventListener('mouseleave', hideTip);
  return made;
}

// The range of an axis with a single value.
const around = (value) => [Math.max(0, value - 1), value + 1];

// Steps may go back in a log that was cut or of a run that restarted; those points are dropped.
function ascending([xs, ys]) {
  const x = [], y = [];
  xs.forEach((value, at) => {
    if (!x.length || value > x[x.length - 1]) { x.push(value); y.push(ys[at]); }
  });
  return [x, y];
}

function hoverCurve(plot, lines, tables, byShare) {
  const { left, top } = plot.cursor;
  if (left === undefined || left < 0) return;
  const x = plot.posToVal(left, 'x');
  const items = lines.map((line, at) => {
    const [xs, ys] = tables[at];
    let near = 0;
    while (near + 1 < xs.length && Math.abs(xs[near + 1] - x) <= Math.abs(xs[near] - x)) near++;
    return { line, loss: ys[near] };
  }).sort((one, other) => other.loss - one.loss);
  const box = plot.over.getBoundingClientRect();
  showTip(box.left + left, box.top + top,
    el('div.tip-head', {}, byShare ? `${x.toFixed(0)}% of the budget` : `step ${Math.round(x).toLocaleString('en')}`),
    ...items.map(({ line, loss }) => el('div.tip-line', {},
      el(`span.swatch${line.best ? '.thick' : ''}`, { style: { '--swatch': line.best ? 'var(--keep)' : `var(--line-${line.order % 7})` } }),
      el('b', {}, numeral(rows.number[line.place])), el('span', {}, loss.toPrecision(5)))));
}
