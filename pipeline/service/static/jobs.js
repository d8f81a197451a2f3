// All training jobs in a table that moves, and two of them side by side.
import { html, useEffect, useRef, useState } from './vendor/preact.js';
import { ask, follow, get, list, make, path } from './api.js';
import { Chart, Spark } from './chart.js';
import { Act, Bar, Facts, figure, OVER, plain, seconds, State, Table, told, Trouble, useRead, useThing, when } from './parts.js';

/** A tenant's works as they change: on(work) for each, and again() after each break. */
export function useWorks(on, again) {
  const held = useRef({});
  held.current = { on, again };
  useEffect(() => {
    let first = true;
    return follow('/v1/events', (kind, data) => {
      if (kind === 'work') held.current.on(data);
      else if (kind === 'open' && !first) held.current.again();
      if (kind === 'open') first = false;
    });
  }, []);
}

const asked = new Map();
/** A job's loss and accuracy, thinned; asked for once where it is over, else when it has moved on. */
function Curve({ job }) {
  const [metrics, set] = useState((asked.get(job.id) || {}).metrics || {});
  const over = OVER.includes(job.state);
  const turn = over ? 'over' : `${Math.floor((job.progress.iteration || 0) / Math.max(1, (job.progress.of || 100) / 20))}`;
  useEffect(() => {
    const before = asked.get(job.id);
    if (job.state === 'queued' && !job.progress.iteration) return undefined;
    if (before && before.turn === turn) return undefined;
    let gone = false;
    const wait = setTimeout(async () => {
      const found = await get(`${path('training-jobs', job.id)}/metrics?points=48&names=train/loss&names=test/accuracy`).catch(() => null);
      if (!found) return;
      asked.set(job.id, { turn, metrics: found.metrics });
      if (!gone) set(found.metrics);
    }, over ? 0 : 700);
    return () => { gone = true; clearTimeout(wait); };
  }, [turn]);
  const loss = metrics['train/loss'] || [], accuracy = (metrics['test/accuracy'] || []).at(-1);
  return html`<span class="curve"><${Spark} points=${loss} label="loss" />${accuracy && html` <span class="n">${(accuracy[2] * 100).toFixed(1)} %</span>`}</span>`;
}

export async function repeat(job, how) {
  const made = await make(`${path('training-jobs', job.id)}/${how}`, {});
  location.hash = `#/jobs/${made.id}`;
}

export function JobTable({ most = 50, may, chosen, onChoose }) {
  const [jobs, problem, reload, change] = useRead(() => list('/v1/training-jobs', most), [most]);
  const known = useRef(new Set());
  known.current = new Set((jobs || []).map(one => one.id));
  useWorks(work => {
    if (work.kind !== 'train') return;
    if (!known.current.has(work.id)) { known.current.add(work.id); reload(); return; }
    change(all => all && all.map(one => (one.id === work.id ? { ...one, state: work.state, reason: work.reason, progress: work.progress } : one)));
  }, reload);
  if (problem) return html`<${Trouble} of=${problem} />`;
  const rows = (jobs || []).map(job => {
    const { iteration = 0, of, seconds_left } = job.progress, over = OVER.includes(job.state);
    const url = path('training-jobs', job.id);
    return { key: job.id, cells: [
      ...(onChoose ? [html`<input type="checkbox" aria-label=${`compare ${plain(job.name).slice(0, 80)}`} checked=${chosen.includes(job.id)} onChange=${() => onChoose(job.id)} />`] : []),
      html`<a href=${`#/jobs/${job.id}`}>${told(job.name, 60)}</a>`,
      html`<${State} of=${job.state} reason=${job.reason} />`,
      html`<${Curve} job=${job} />`,
      html`<span class="progress">${of ? html`${figure(iteration)} of ${figure(of)}` : '–'}${!over && of ? html`<${Bar} share=${iteration / of} label="iterations" />` : ''}</span>`,
      over ? '–' : seconds(seconds_left), when(job.created_at),
      ...(may ? [over
        ? html`<${Act} kind="quiet" does=${() => repeat(job, 'clone')}>Again<//>`
        : html`<${Act} kind="quiet" asks="Yes, cancel it" does=${() => ask('POST', `${url}/cancel`)}>Cancel<//>`] : []),
    ] };
  });
  const heads = [...(onChoose ? ['compare'] : []), 'name', 'state', 'loss, accuracy', ['iterations'], ['left'], 'asked for', ...(may ? [''] : [])];
  return html`<${Table} caption="Training jobs, the newest first" heads=${heads} rows=${rows} none=${jobs ? 'no job yet' : 'one moment…'} />`;
}

export function Jobs({ may }) {
  const [chosen, setChosen] = useState([]);
  const choose = id => setChosen(all => (all.includes(id) ? all.filter(one => one !== id) : [...all.slice(-1), id]));
  return html`<div class="head"><h1>Jobs</h1><a class="button" href="#/train">New training</a></div>
  <${JobTable} may=${may} most=${100} chosen=${chosen} onChoose=${choose} />
  ${chosen.length === 2 ? html`<a class="button main" href=${`#/jobs/compare?a=${chosen[0]}&b=${chosen[1]}`}>Compare these two</a>` : html`<p class="soft">Tick two jobs to compare them.</p>`}`;
}

export function Compare({ query }) {
  const [a, troubleA] = useThing(path('training-jobs', query.a || '')), [b, troubleB] = useThing(path('training-jobs', query.b || ''));
  const points = id => get(`${path('training-jobs', id)}/metrics?points=500`).then(found => found.metrics);
  const [both, trouble] = useRead(() => Promise.all([points(query.a), points(query.b)]), [query.a, query.b]);
  const [sa] = useRead(() => (a ? get(path('solvers', a.solver_id)) : null), [a && a.id]);
  const [sb] = useRead(() => (b ? get(path('solvers', b.solver_id)) : null), [b && b.id]);
  if (troubleA || troubleB || trouble) return html`<h1>Compare</h1><${Trouble} of=${troubleA || troubleB || trouble} />`;
  if (!a || !b || !both) return html`<h1>Compare</h1>`;
  const names = [...new Set([...Object.keys(both[0]), ...Object.keys(both[1])])].filter(one => /loss|accuracy/.test(one));
  const changed = (one, other) => (one || '').split('\n').filter(line => line.trim() && !(other || '').split('\n').includes(line));
  const of = job => html`<a href=${`#/jobs/${job.id}`}>${told(job.name)}</a> (<${State} of=${job.state} />)`;
  return html`<h1>Compare</h1><${Facts} of=${[['first', of(a)], ['second', of(b)]]} />
  <div class="charts">${names.map(name => html`<${Chart} key=${name} title=${plain(name)} lines=${[{ name: 'first', points: both[0][name] || [] }, { name: 'second', points: both[1][name] || [] }]} />`)}</div>
  ${sa && sb && html`<h2>What differs in their texts</h2><div class="pair">${[[sa, sb, 'first'], [sb, sa, 'second']].map(([one, other, which]) => {
    const lines = [...changed(one.solver, other.solver), ...changed(one.net, other.net)];
    return html`<section class="card"><h3>Only in the ${which}</h3><pre tabindex="0">${lines.length ? lines.map(plain).join('\n') : 'nothing'}</pre></section>`;
  })}</div>`}`;
}
