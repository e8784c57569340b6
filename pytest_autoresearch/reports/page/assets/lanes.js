// What each lane did when: a row of runs for each, in the colour of the experiment's verdict.

const ROLE_WORDS = { baseline: 'baseline run', screen: 'first run', confirm: 'confirmation', incumbent: 'the best, run again', extra: 'a run that the verdict did not need', batch: 'several proposals together' };
const OF_OTHERS = ['incumbent', 'batch'];
const isOwn = (run, campaign) => !OF_OTHERS.includes(campaign.roles[run[3]]);
const lanes = { bands: [] };

function lanesCard() {
  const known = campaign.lanes;
  for (const node of [byId('lanes'), byId('lanes-link')]) node.hidden = !known;
  if (!known) return;
  const count = (run, status) => isOwn(run, campaign) && !isBaseline(run[2]) && rows.status[run[2]] === status;
  const runs = known.lanes.flatMap((lane) => lane.runs);
  const keys = [KEEP, DISCARD, CRASH].filter((status) => runs.some((run) => count(run, status)));
  byId('lanes-legend').replaceChildren(
    ...keys.map((status) => laneKey(CLASSES[status], WORDS[status])),
    laneKey('base', 'baseline, and the best run again'), laneKey('idle', 'idle'));
  const tall = known.lanes.length > 16 ? 8 : 20;
  byId('lanes-chart').replaceChildren(...known.lanes.map((lane) => laneRow(lane, tall)));
  const idle = known.lanes.reduce((sum, lane) => sum + lane.idle, 0) / known.lanes.length;
  const paused = known.pauses.length ? `; a dashed line is a pause between sessions, which is left out` : '';
  byId('lanes-note').textContent = `${plural(known.lanes.length, 'lane')} over ${duration(known.seconds)} of sessions, ${percent(idle)} idle${paused}.`;
}

const laneKey = (kind, words) => el('li', {}, el(`span.lane-key.${kind}`, { 'aria-hidden': 'true' }), words);

function laneRow(lane, tall) {
  const said = `${plural(lane.runs.length, 'run')}, ${percent(lane.idle)} idle`;
  const canvas = el('canvas', { role: 'img', 'aria-label': `Lane ${lane.lane}: ${said}`, style: { height: `${tall}px` } });
  const band = { lane, canvas, tall };
  lanes.bands.push(band);
  new ResizeObserver(() => drawLane(band)).observe(canvas);
  canvas.addEventListener('mousemove', (event) => hoverLane(band, event));
  canvas.addEventListener('mouseleave', hideTip);
  canvas.addEventListener('click', (event) => { const run = runAt(band, event); if (run) openExperiment(run[2]); });
  return el('div.lane', {}, el('span.lane-name', {}, el('b', {}, `lane ${lane.lane}`), el('span.hint', {}, `${percent(lane.idle)} idle`)), canvas);
}

function drawLane({ lane, canvas, tall }) {
  const wide = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(wide * ratio);
  canvas.height = Math.round(tall * ratio);
  const ctx = canvas.getContext('2d');
  ctx.scale(ratio, ratio);
  ctx.fillStyle = color('lane-idle');
  ctx.fillRect(0, 0, wide, tall);
  const scale = wide / (campaign.lanes.seconds || 1);
  for (const run of lane.runs) {
    ctx.fillStyle = color(laneColor(run));
    const width = run[1] * scale;
    ctx.fillRect(run[0] * scale, 0, Math.max(width - (width > 3 ? 1 : 0), 0.5), tall); // a thin gap between two runs
  }
  ctx.strokeStyle = color('ink');
  ctx.setLineDash([2, 2]);
  for (const at of campaign.lanes.pauses) {
    ctx.beginPath();
    ctx.moveTo(at * scale, 0);
    ctx.lineTo(at * scale, tall);
    ctx.stroke();
  }
}

function laneColor(run) {
  if (isBaseline(run[2]) || !isOwn(run, campaign)) return 'lane-base';
  return ['keep', 'discard-dot', 'crash'][rows.status[run[2]]];
}

function runAt({ lane, canvas }, event) {
  const at = ((event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth) * campaign.lanes.seconds;
  return lane.runs.find((run) => run[0] <= at && at <= run[0] + run[1]);
}

function hoverLane(band, event) {
  const run = runAt(band, event);
  band.canvas.classList.toggle('pointing', Boolean(run));
  if (!run) { hideTip(); return; }
  const place = run[2];
  showTip(event.clientX, event.clientY,
    el('div.tip-head', {}, el('b', {}, numeral(rows.number[place])), ` ${rows.text[place]}`),
    el('div.tip-line', {}, badge(place), `${ROLE_WORDS[campaign.roles[run[3]]]}, ${duration(run[1])}`));
}

function redrawLanes() {
  for (const band of lanes.bands) drawLane(band);
}
