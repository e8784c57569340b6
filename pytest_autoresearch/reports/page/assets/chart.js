// Shared by the charts: theme colours, sizes, and the tip beside the pointer.

const charts = new Set();
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axis(more = {}) {
  return {
    stroke: () => color('muted'),
    grid: { stroke: () => color('grid'), width: 1 },
    ticks: { stroke: () => color('grid'), width: 1, size: 4 },
    font: '12px system-ui, sans-serif',
    labelFont: '12px system-ui, sans-serif',
    ...more,
  };
}

// A chart that follows the width of its container and the theme.
function chart(place, options, data, height) {
  const tall = () => (typeof height === 'function' ? height() : height);
  const plot = new uPlot({
    width: Math.max(place.clientWidth, 200), height: tall(), legend: { show: false }, ...options,
  }, data, place);
  const watch = new ResizeObserver(() => {
    const width = Math.max(place.clientWidth, 200);
    if (width !== plot.width || tall() !== plot.height) plot.setSize({ width, height: tall() });
  });
  watch.observe(place);
  charts.add(plot);
  return { plot, end() { watch.disconnect(); charts.delete(plot); plot.destroy(); } };
}

function redrawCharts() {
  for (const plot of charts) plot.redraw(false, true);
  redrawLanes();
}

function showTip(x, y, ...lines) {
  const tip = byId('tip');
  tip.replaceChildren(...lines.filter(Boolean));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = x + 16 + width > window.innerWidth - 8;
  tip.style.left = `${Math.max(8, right ? x - width - 16 : x + 16)}px`;
  tip.style.top = `${Math.max(8, Math.min(y - height / 2, window.innerHeight - height - 8))}px`;
}

function hideTip() {
  byId('tip').hidden = true;
}
