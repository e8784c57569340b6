// Metric over experiments: the best so far as a step line, keeps on it, discards behind, crashes in a strip below.

const progress = { chart: null, hovered: null, hidden: new Set() };

function progressChart() {
  const place = byId('progress-chart');
  const [low, high] = campaign.limits;
  const crashes = rows.status.some((status) => status === CRASH);
  const strip = crashes ? 0.1 * (high - low) : 0;
  const best = campaign.best;
  place.setAttribute('role', 'img');
  place.setAttribute('aria-label', `${campaign.metric} over ${plural(total, 'experiment')}; the table below has every number.`);
  const options = {
    scales: { x: { time: false, range: (plot, from, to) => total < 2 ? [rows.number[0] - 1, rows.number[0] + 1] : [from - Math.max(1, (to - from) * 0.015), to + Math.max(1, (to - from) * 0.015)] },
      y: { range: () => [low - strip, high] } },
    series: [{}, { stroke: () => color('keep'), width: 2, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } }],
    axes: [
      axis({ values: (plot, ticks) => ticks.map((tick) => (Number.isInteger(tick) && tick >= 0 ? tick : '')), size: 34 }),
      axis({ values: (plot, ticks) => ticks.map((tick) => (tick < low ? '' : fixed(tick, tickDecimals(ticks)))), size: 68 }),
    ],
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false } },
    hooks: {
      drawAxes: [(plot) => drawStrip(plot, low, strip)],
      draw: [drawPoints],
      setCursor: [hoverPoint],
    },
    padding: [14, 14, 0, 0],
  };
  progress.chart = chart(place, options, [rows.number, best], () => (place.clientWidth < 560 ? 280 : 380));
  const over = progress.chart.plot.over;
  over.addEventListener('mouseleave', () => { progress.hovered = null; hideTip(); progress.chart.plot.redraw(false); });
  let pressed = 0;
  over.addEventListener('mousedown', (event) => { pressed = event.clientX; });
  over.addEventListener('click', (event) => { // a drag to zoom ends in a click, too
    if (progress.hovered !== null && Math.abs(event.clientX - pressed) < 4) openExperiment(progress.hovered);
  });
}

// The decimals of the step between two ticks.
function tickDecimals(ticks) {
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  let decimals = 0;
  while (decimals < 12 && Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-4) decimals++;
  return decimals;
}

// The position of a point in canvas pixels; points beyond the range are placed at the edge.
function spot(plot, place) {
  const x = plot.valToPos(rows.number[place], 'x', true);
  const { top, height } = plot.bbox;
  if (rows.status[place] === CRASH) return { x, y: top + height - 9 * uPlot.pxRatio, edge: 0 };
  const value = rows.metric[place];
  if (value === null) return null;
  const [low, high] = campaign.limits;
  const edge = value > high ? 1 : value < low ? -1 : 0;
  return { x, y: plot.valToPos(Math.min(Math.max(value, low), high), 'y', true), edge };
}

function drawStrip(plot, low, strip) {
  if (!strip) return;
  const { ctx, bbox } = plot;
  const y = plot.valToPos(low, 'y', true);
  ctx.save();
  ctx.fillStyle = color('strip');
  ctx.fillRect(bbox.left, y, bbox.width, bbox.top + bbox.height - y);
  ctx.fillStyle = color('muted');
  ctx.font = `${11 * uPlot.pxRatio}px system-ui, sans-serif`;
  ctx.textAlign = 'right';
  ctx.textBaseline = 'middle';
  ctx.fillText('crashes', bbox.left - 8 * uPlot.pxRatio, bbox.top + bbox.height - 9 * uPlot.pxRatio);
  ctx.restore();
}

function drawPoints(plot) {
  const { ctx, bbox } = plot;
  const unit = uPlot.pxRatio;
  const { min, max } = plot.scales.x;
  const many = total > 2000;
  const spots = [[], [], []];
  for (let place = 0; place < total; place++) {
    const status = rows.status[place];
    if (progress.hidden.has(status) || rows.number[place] < min || rows.number[place] > max) continue;
    const at = spot(plot, place);
    if (at) spots[status].push([place, at]);
  }
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left - 2, bbox.top - 8 * unit, bbox.width + 8 * unit, bbox.height + 8 * unit);
  ctx.clip();
  drawErrors(plot, [...spots[DISCARD], ...spots[KEEP]]);
  ctx.fillStyle = color('discard-dot');
  const small = (many ? 1.6 : 2.6) * unit;
  for (const [, at] of spots[DISCARD]) {
    ctx.beginPath();
    if (at.edge) triangle(ctx, at.x, at.y, 3.4 * unit, at.edge);
    else ctx.arc(at.x, at.y, small, 0, 7);
    ctx.fill();
  }
  ctx.strokeStyle = color('crash');
  ctx.lineWidth = 1.6 * unit;
  const arm = (many ? 2.2 : 3.2) * unit;
  ctx.beginPath();
  for (const [, at] of spots[CRASH]) {
    ctx.moveTo(at.x - arm, at.y - arm);
    ctx.lineTo(at.x + arm, at.y + arm);
    ctx.moveTo(at.x + arm, at.y - arm);
    ctx.lineTo(at.x - arm, at.y + arm);
  }
  ctx.stroke();
  ctx.fillStyle = color('keep');
  ctx.strokeStyle = color('card');
  ctx.lineWidth = 1.5 * unit;
  for (const [, at] of spots[KEEP]) {
    ctx.beginPath();
    ctx.arc(at.x, at.y, (many ? 3.4 : 4.6) * unit, 0, 7);
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
  labelKeeps(plot, spots[KEEP]);
  if (progress.hovered !== null) ring(plot, progress.hovered);
}

function drawErrors(plot, some) {
  const { ctx } = plot;
  const unit = uPlot.pxRatio;
  for (const status of [DISCARD, KEEP]) {
    ctx.strokeStyle = color(status === KEEP ? 'keep' : 'discard-dot');
    ctx.globalAlpha = status === KEEP ? 0.55 : 0.5;
    ctx.lineWidth = unit;
    ctx.beginPath();
    for (const [place, at] of some) {
      const error = rows.error[place];
      if (error === null || at.edge || rows.status[place] !== status) continue;
      const from = plot.valToPos(rows.metric[place] - error, 'y', true);
      const to = plot.valToPos(rows.metric[place] + error, 'y', true);
      ctx.moveTo(at.x, from);
      ctx.lineTo(at.x, to);
      if (total > 400) continue;
      for (const end of [from, to]) {
        ctx.moveTo(at.x - 2.5 * unit, end);
        ctx.lineTo(at.x + 2.5 * unit, end);
      }
    }
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

function triangle(ctx, x, y, size, up) {
  const way = up > 0 ? -1 : 1;
  ctx.moveTo(x, y + way * size);
  ctx.lineTo(x - size, y - way * size * 0.6);
  ctx.lineTo(x + size, y - way * size * 0.6);
  ctx.closePath();
}

function ring(plot, place) {
  const at = spot(plot, place);
  if (!at) return;
  const { ctx } = plot;
  ctx.save();
  ctx.strokeStyle = color('ink');
  ctx.lineWidth = 1.5 * uPlot.pxRatio;
  ctx.beginPath();
  ctx.arc(at.x, at.y, 8 * uPlot.pxRatio, 0, 7);
  ctx.stroke();
  ctx.restore();
}

// Labels the largest gains where there is room: above the line if it falls, below it if it rises.
function labelKeeps(plot, keeps) {
  if (plot.width < 640) return;
  const { ctx, bbox } = plot;
  const unit = uPlot.pxRatio;
  const wanted = keeps.filter(([place]) => !isBaseline(place) && rows.gain[place] > 0)
    .sort((one, other) => rows.gain[other[0]] - rows.gain[one[0]]).slice(0, 7);
  const taken = [];
  ctx.save();
  ctx.font = `500 ${11.5 * unit}px system-ui, sans-serif`;
  ctx.textBaseline = 'middle';
  ctx.textAlign = 'left';
  for (const [place, at] of wanted) {
    const text = rows.text[place].length > 34 ? `${rows.text[place].slice(0, 33).trimEnd()}\u2026` : rows.text[place];
    const width = ctx.measureText(text).width;
    for (const lift of [20, 36, 52]) {
      const y = at.y + (minimize ? -1 : 1) * lift * unit;
      const x = at.x + 8 * unit;
      const box = { left: x - 4 * unit, right: x + width + 4 * unit, top: y - 9 * unit, bottom: y + 9 * unit };
      const free = box.right < bbox.left + bbox.width && box.top > bbox.top && box.bottom < bbox.top + bbox.height - 20 * unit
        && !taken.some((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top);
      if (!free) continue;
      taken.push(box);
      ctx.strokeStyle = color('muted');
      ctx.lineWidth = unit;
      ctx.beginPath();
      ctx.moveTo(at.x, at.y + (minimize ? -6 : 6) * unit);
      ctx.lineTo(at.x, y);
      ctx.lineTo(x - 3 * unit, y);
      ctx.stroke();
      ctx.lineWidth = 4 * unit;
      ctx.strokeStyle = color('card');
      ctx.lineJoin = 'round';
      ctx.strokeText(text, x, y);
      ctx.fillStyle = color('ink');
      ctx.fillText(text, x, y);
      break;
    }
  }
  ctx.restore();
}

function hoverPoint(plot) {
  const { left, top } = plot.cursor;
  if (left === undefined || left < 0) return;
  const unit = uPlot.pxRatio;
  const x = left * unit + plot.bbox.left, y = top * unit + plot.bbox.top;
  let nearest = null, least = (26 * unit) ** 2;
  for (let place = 0; place < total; place++) {
    if (progress.hidden.has(rows.status[place])) continue;
    const at = spot(plot, place);
    if (!at) continue;
    // A keep wins over a discard at the same distance.
    const away = ((at.x - x) ** 2 + (at.y - y) ** 2) * (rows.status[place] === KEEP ? 0.5 : 1);
    if (away < least) { least = away; nearest = place; }
  }
  if (nearest !== progress.hovered) {
    progress.hovered = nearest;
    plot.redraw(false);
  }
  plot.over.style.cursor = nearest === null ? 'crosshair' : 'pointer';
  if (nearest === null) { hideTip(); return; }
  const at = spot(plot, nearest);
  const box = plot.over.getBoundingClientRect();
  showTip(box.left + (at.x - plot.bbox.left) / unit, box.top + (at.y - plot.bbox.top) / unit, ...tipOf(nearest));
}

function tipOf(place) {
  const error = rows.error[place];
  const value = rows.metric[place] === null ? reasonWords(place)
    : `${campaign.metric} ${metric(rows.metric[place])}${error === null ? '' : ` \u00b1 ${metric(error)}`}`;
  const runs = rows.counted[place] > 1 ? ` \u00b7 ${plural(rows.counted[place], 'run')}` : '';
  const change = rows.gain[place] === null ? '' : ` \u00b7 ${moved(rows.gain[place])}`;
  return [
    el('div.tip-head', {}, el('b', {}, numeral(rows.number[place])), badge(place)),
    el('div.tip-text', {}, rows.text[place]),
    el('div.tip-numbers', {}, value + change + runs),
  ];
}

function progressLegend() {
  const sums = [campaign.head.kept, campaign.head.discarded, campaign.head.crashed];
  const items = [el('li', {}, el('span.line-key', { 'aria-hidden': 'true' }), 'best so far')];
  for (const status of [KEEP, DISCARD, CRASH]) {
    if (!sums[status]) continue;
    const button = el('button.key', { type: 'button', 'aria-pressed': 'true', title: 'Show or hide' }, mark(status), `${WORDS[status]} ${sums[status].toLocaleString('en')}`);
    button.addEventListener('click', () => {
      const shown = progress.hidden.has(status);
      if (shown) progress.hidden.delete(status); else progress.hidden.add(status);
      button.setAttribute('aria-pressed', String(shown));
      progress.chart.plot.redraw(false);
    });
    items.push(el('li', {}, button));
  }
  byId('progress-legend').replaceChildren(...items);
  const notes = [`${minimize ? 'Lower' : 'Higher'} is better.`];
  if (campaign.noise && rows.error.some((error) => error !== null)) {
    notes.push(`Bars show one standard error, from repeated runs in this campaign (standard deviation of one run ${metric(campaign.noise.sd)}, ${plural(campaign.noise.degrees, 'degree')} of freedom).`);
  }
  if (campaign.best.some((best, at) => at && best !== null && (minimize ? best > campaign.best[at - 1] : best < campaign.best[at - 1]))) {
    notes.push(`The line ${minimize ? 'rises' : 'falls'} where new runs of the best were worse than its estimate.`);
  }
  const [low, high] = campaign.limits;
  const beyond = rows.metric.filter((value, place) => value !== null && rows.status[place] !== CRASH && (value > high || value < low)).length;
  if (beyond) notes.push(`${plural(beyond, 'outlier')} ${beyond === 1 ? 'is a triangle' : 'are triangles'} at the edge.`);
  const bare = rows.metric.filter((value, place) => value === null && rows.status[place] === DISCARD).length;
  if (bare) notes.push(`${plural(bare, 'experiment')} without a metric, mostly stopped early, ${bare === 1 ? 'is' : 'are'} not drawn.`);
  notes.push('Drag to zoom, double-click to reset.');
  byId('progress-note').textContent = notes.join(' ');
}
