// Curves over iterations as SVG, in the page's own colours; a place of a chart is read by pointer or by arrow keys.
import { html, useEffect, useRef, useState } from './vendor/preact.js';
import { figure, plain } from './parts.js';

const LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 26;

/** Round numbers from low to high, about so many. */
export function ticks(low, high, about) {
  const span = high - low || 1, raw = span / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(one => one * power >= raw) * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(+(at * step).toPrecision(12));
  return found;
}

function drawn(points, x, y) {
  let path = '', pen = 'M';
  for (const [step, , value] of points) {
    if (value == null) { pen = 'M'; continue; }
    path += `${pen}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = 'L';
  }
  return path;
}

/** The last point at or before a step. */
function before(points, step) {
  let low = 0, high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle + 1; else high = middle;
  }
  return points[low - 1];
}

/** lines: [{name, points: [[step, time, value]]}].  Each line has a colour and dashes of its own. */
export function Chart({ title, lines, height = 240 }) {
  const place = useRef(null);
  const [width, setWidth] = useState(480);
  const [at, setAt] = useState(null);
  useEffect(() => {
    const resized = new ResizeObserver(([one]) => setWidth(Math.max(200, Math.round(one.contentRect.width))));
    resized.observe(place.current);
    return () => resized.disconnect();
  }, []);
  let low = Infinity, high = -Infinity, first = Infinity, last = -Infinity;
  for (const { points } of lines) {
    for (const [step, , value] of points) {
      if (step < first) first = step;
      if (step > last) last = step;
      if (value != null && value < low) low = value;
      if (value != null && value > high) high = value;
    }
  }
  const empty = !(low <= high);
  if (empty) [low, high, first, last] = [0, 1, 0, 1];
  if (high === low) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  if (low > 0 && low < high / 2) low = 0;
  if (last === first) last = first + 1;
  const wide = width - LEFT - RIGHT, tall = height - TOP - BOTTOM;
  const x = step => LEFT + (step - first) * wide / (last - first), y = value => TOP + tall - (value - low) * tall / (high - low);
  const steps = ticks(first, last, Math.max(2, wide / 90)).filter(one => Number.isInteger(one)), values = ticks(low, high, 5);
  const most = lines.reduce((longest, one) => (one.points.length > longest.length ? one.points : longest), []);
  const read = at == null || empty ? null : Math.min(last, Math.max(first, at));
  function pointed(event) {
    const box = event.currentTarget.getBoundingClientRect();
    setAt(Math.round(first + (event.clientX - box.left - LEFT) * (last - first) / wide));
  }
  function typed(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Home') setAt(first);
    else if (event.key === 'End') setAt(last);
    else if (way) {
      const now = most.findIndex(([step]) => step >= (read ?? last)), next = most[Math.min(most.length - 1, Math.max(0, now + way))];
      if (next) setAt(next[0]);
    } else return;
    event.preventDefault();
  }
  const said = lines.filter(one => one.points.length).map(one => `${plain(one.name).slice(0, 80)} ${figure(one.points.at(-1)[2])}`);
  return html`<figure class="chart" data-points=${most.length}><figcaption>${title}</figcaption>
  <ul class="legend">${lines.map((one, number) => {
    const point = read == null ? one.points.at(-1) : before(one.points, read);
    return html`<li><svg class="key" viewBox="0 0 28 8" aria-hidden="true"><path class=${`line l${number % 8}`} d="M0 4H28" /></svg><bdi>${plain(one.name).slice(0, 60)}</bdi> <span class="n">${point ? figure(point[2]) : '–'}</span></li>`;
  })}<li class="soft n">${read == null ? 'at last' : `iteration ${figure(read)}`}</li></ul>
  <div ref=${place}><svg class="plot" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" tabindex="0" aria-label=${`${title} by iteration; at last: ${said.join(', ') || 'no value yet'}`}
    onPointerMove=${pointed} onPointerLeave=${() => setAt(null)} onKeyDown=${typed} onBlur=${() => setAt(null)}>
    ${values.map(one => html`<path class="grid" d=${`M${LEFT} ${y(one)}H${width - RIGHT}`} /><text x=${LEFT - 6} y=${y(one) + 4} text-anchor="end">${figure(one)}</text>`)}
    ${steps.map(one => html`<text x=${x(one)} y=${height - 8} text-anchor=${x(one) > width - 30 ? 'end' : 'middle'}>${figure(one)}</text>`)}
    <path class="axis" d=${`M${LEFT} ${TOP}V${TOP + tall}H${width - RIGHT}`} />
    ${lines.map((one, number) => html`<path class=${`line l${number % 8}`} d=${drawn(one.points, x, y)} />
      ${one.points.length < 25 && one.points.filter(point => point[2] != null).map(point => html`<circle class=${`dot l${number % 8}`} cx=${x(point[0]).toFixed(1)} cy=${y(point[2]).toFixed(1)} r="2.5" />`)}`)}
    ${read != null && html`<path class="reading" d=${`M${x(read).toFixed(1)} ${TOP}V${TOP + tall}`} />`}</svg></div></figure>`;
}

/** A curve in a cell of a table. */
export function Spark({ points, label }) {
  const values = points.map(([, , value]) => value).filter(value => value != null);
  if (values.length < 2) return html`<span class="soft">–</span>`;
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  const line = values.map((value, at) => `${(at * 96 / (values.length - 1)).toFixed(1)},${(22 - (value - low) * 20 / span).toFixed(1)}`);
  return html`<svg class="spark" viewBox="0 0 96 24" role="img" aria-label=${`${label}: from ${figure(values[0])} to ${figure(values.at(-1))}`}><polyline points=${line.join(' ')} /></svg>`;
}

/** Points of a job as they come: more rows of {step, time, values} behind what is there; a step computed anew replaces. */
export function grown(metrics, rows) {
  const found = { ...metrics };
  for (const { step, time, values } of rows) {
    for (const [name, value] of Object.entries(values)) {
      const points = found[name] === metrics[name] ? [...(metrics[name] || [])] : found[name];
      while (points.length && points.at(-1)[0] >= step) points.pop();
      points.push([step, time, typeof value === 'number' && isFinite(value) ? value : null]);
      found[name] = points;
    }
  }
  return found;
}
