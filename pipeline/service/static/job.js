// One training: its curves as they grow, its log, snapshots, what it gets wrong, and a picture of one's own.
import { html, useEffect, useRef, useState } from './vendor/preact.js';
import { ask, follow, get, path, text } from './api.js';
import { Chart, grown } from './chart.js';
import { Act, Bar, bytes, Copy, counted, curl, Facts, figure, OVER, plain, seconds, State, stay, Table, told, Trouble, useRead, when } from './parts.js';
import { repeat } from './jobs.js';
import { Use } from './promotions.js';
import { Evaluation } from './evaluation.js';
import { Picture } from './classify.js';
import { kept, modelName } from './taking.js';

const MOST = 3000;
const GROUPS = [['Loss', /loss/i], ['Accuracy', /accuracy|precision|recall/i]];

/** The job, its metrics and what went wrong, live. */
function useJob(id) {
  const url = path('training-jobs', id);
  const [job, setJob] = useState(null);
  const [metrics, setMetrics] = useState({});
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    let stop = () => {}, gone = false, waiting = [], timer = 0;
    const grow = () => {
      timer = 0;
      const rows = waiting;
      waiting = [];
      setMetrics(before => grown(before, rows));
    };
    (async () => {
      for (;;) {
        try {
          const [now, found] = await Promise.all([get(url), get(`${url}/metrics?points=1000`)]);
          if (gone) return;
          setJob(now);
          setMetrics(found.metrics);
          stop = follow(`${url}/events`, (kind, data) => {
            if (kind === 'job') setJob(before => ({ ...before, ...data, position: data.state === 'queued' ? before.position : null }));
            if (kind === 'metrics') waiting.push(...data.rows);
            if (kind === 'gone') setProblem(Object.assign(new Error('this job was deleted'), { hint: '' }));
            if (waiting.length && !timer) timer = setTimeout(grow, 300);
          }, found.last_event_id);
          return;
        } catch (error) {
          if (gone) return;
          if (error.status) return setProblem(error);
          await new Promise(done => setTimeout(done, 1500));
        }
      }
    })();
    return () => { gone = true; stop(); clearTimeout(timer); };
  }, [id]);
  return [job, metrics, problem];
}

/** Another number once a thing has moved, at most each so many ms. */
function useTurn(thing, ms) {
  const [turn, set] = useState(0);
  const wait = useRef(0);
  useEffect(() => { wait.current = wait.current || setTimeout(() => { wait.current = 0; set(one => one + 1); }, ms); }, [thing]);
  useEffect(() => () => clearTimeout(wait.current), []);
  return turn;
}

function Log({ url, job }) {
  const [said] = useRead(() => text(`${url}/logs?tail=16384`), [url, useTurn(job, 2000)]);
  const place = useRef(null);
  useEffect(() => { if (place.current) place.current.scrollTop = place.current.scrollHeight; }, [said]);
  if (!said) return html`<p class="soft">no line yet</p>`;
  return html`<pre class="log" tabindex="0" aria-label="the end of the log" ref=${place}>${said.split('\n').map(plain).join('\n')}</pre>`;
}

function Snapshots({ url, job, may }) {
  const { iteration = 0 } = job.progress;
  const [found] = useRead(() => get(`${url}/snapshots`), [url, useTurn(job, 5000)]);
  const rows = ((found && found.items) || []).map(one => ({ key: one.iteration, cells: [
    figure(one.iteration), bytes(one.size), when(one.created_at),
    html`<details><summary>${counted(one.files.length, 'file')}</summary><ul>${one.files.map(file => html`<li><a href=${`${url}/snapshots/${one.iteration}/${encodeURIComponent(file.name)}`} download>${plain(file.name)}</a> ${bytes(file.size)}</li>`)}</ul></details>`,
    html`<a href=${`#/classify?job=${job.id}&iteration=${one.iteration}`}>Classify with it</a>`,
    ...(may ? [html`<${Keep} job=${job} iteration=${one.iteration} />`] : []),
  ] }));
  return html`<${Table} caption="Snapshots, the newest first" heads=${[['iteration'], ['size'], 'when', 'files', '', ...(may ? [''] : [])]} rows=${rows} none="no snapshot yet" />`;
}

/** A snapshot becomes a version of a model that is there, or of a new one. */
function Keep({ job, iteration }) {
  const [open, setOpen] = useState(false);
  const [models] = useRead(() => (open ? get('/v1/models?limit=200') : null), [open]);
  const name = useRef(null);
  if (!open) return html`<button type="button" class="quiet" onClick=${() => setOpen(true)}>Keep as a model</button>`;
  async function keep() {
    location.hash = `#/models/${(await kept(job, iteration, name.current.value.trim())).model_id}`;
  }
  return html`<form class="row" onSubmit=${stay}><label>Model <input ref=${name} value=${modelName(job)} list="models" pattern="[a-z0-9][a-z0-9_\\-]*" /></label>
  <datalist id="models">${((models && models.items) || []).map(one => html`<option value=${one.name} />`)}</datalist><${Act} does=${keep}>Keep<//></form>`;
}

export function Job({ id, may, me }) {
  const [job, metrics, problem] = useJob(id);
  const url = path('training-jobs', id);
  if (problem) return html`<h1>Training</h1><${Trouble} of=${problem} />`;
  if (!job) return html`<h1>Training</h1>`;
  const over = OVER.includes(job.state), { iteration = 0, of, seconds_left } = job.progress;
  const names = Object.keys(metrics).sort();
  const group = fits => names.filter(fits).map(name => ({ name, points: metrics[name].slice(-MOST) }));
  const known = GROUPS.map(([title, fits]) => [title, group(name => fits.test(name))]);
  const rest = names.filter(name => !GROUPS.some(([, fits]) => fits.test(name)));
  const accuracy = (metrics['test/accuracy'] || []).at(-1);
  async function remove() {
    const { tag } = await ask('GET', url, undefined, {}, true);
    await ask('DELETE', url, undefined, { 'If-Match': tag });
    location.hash = '#/jobs';
  }
  return html`<div class="head"><h1>${told(job.name, 120)}</h1>
  ${may && html`<span class="acts">${!over && html`<${Act} asks="Yes, cancel it" does=${() => ask('POST', `${url}/cancel`)}>Cancel<//>`}
    ${over && job.state !== 'succeeded' && iteration > 0 && html`<${Act} does=${() => repeat(job, 'resume')}>Go on<//>`}
    ${over && html`<${Act} does=${() => repeat(job, 'clone')}>Train again<//>`}${over && html`<${Act} kind="quiet" asks="Yes, delete it" does=${remove}>Delete<//>`}</span>`}</div>
  <${Facts} of=${[
    ['state', html`<${State} of=${job.state} reason=${job.reason} />${job.cancel_requested && !over ? ', being cancelled' : ''}${job.state === 'queued' && job.position ? html` <small>number ${job.position} in the queue</small>` : ''}`],
    ['iteration', of ? `${figure(iteration)} of ${figure(of)}` : '–'],
    ['accuracy in the test', accuracy ? `${(accuracy[2] * 100).toFixed(1)} %` : '–'],
    over ? ['it took', job.started_at && job.finished_at ? seconds(job.finished_at - job.started_at) : '–'] : ['left', seconds(seconds_left)],
  ]} />
  ${!over && html`<${Bar} share=${of ? iteration / of : 0} label="iterations" />`}
  ${job.detail && html`<div class="trouble" role=${job.state === 'failed' ? 'alert' : undefined}><pre tabindex="0">${job.detail.split('\n').map(plain).join('\n')}</pre></div>`}
  ${job.state === 'succeeded' && html`<section class="card own"><h2>Classify a picture of your own</h2><${Picture} job=${job} may=${may} />
    <p class="soft"><a href=${`#/classify?job=${job.id}`}>More pictures, URLs, and other snapshots</a>. Keep a snapshot below as a version of a model to use it elsewhere.</p>
    <${Use} me=${me} source=${() => kept(job, job.result.iteration, modelName(job))} /></section>`}
  <div class="charts">${known.map(([title, lines]) => (lines.length || title === 'Loss') && html`<${Chart} key=${title} title=${title} lines=${lines} />`)}</div>
  ${rest.length > 0 && html`<details><summary>${counted(rest.length, 'more curve')}</summary><div class="charts">${rest.map(name => html`<${Chart} key=${name} title=${plain(name).slice(0, 80)} lines=${group(one => one === name)} height=${160} />`)}</div></details>`}
  ${job.state === 'succeeded' && html`<${Evaluation} url=${url} />`}
  <h2>Snapshots</h2><${Snapshots} url=${url} job=${job} may=${may} />
  <h2>Log</h2><${Log} url=${url} job=${job} />
  <${Copy} of=${[curl('GET', url), curl('GET', `${url}/metrics?points=1000`), curl('GET', `${url}/logs`), curl('GET', `${url}/events`, '-N')].join('\n')} />`;
}
