// Models: versions, the aliases that name them, what happened, and what each was made of.
import { html, useState } from './vendor/preact.js';
import { ask, get, list, make, path } from './api.js';
import { Use } from './promotions.js';
import { Act, bytes, counted, figure, number, plain, stay, Table, told, Trouble, useRead, useThing, when } from './parts.js';

export function Models() {
  const [all, problem] = useRead(() => list('/v1/models', 200), []);
  const rows = (all || []).map(one => ({ key: one.id, cells: [
    html`<a href=${`#/models/${one.id}`}>${told(one.name)}</a>`, Object.entries(one.aliases).map(([alias, version]) => `${alias}: ${version}`).join(', ') || '–', when(one.created_at) ] }));
  return html`<h1>Models</h1><${Trouble} of=${problem} /><${Table} caption="Models, the newest first" heads=${['name', 'aliases', 'made']} rows=${rows} none="none yet: keep a job's snapshot as a model" />`;
}

function Aliases({ model, versions, reload }) {
  const [alias, setAlias] = useState('best');
  const [version, setVersion] = useState('');
  const url = name => path('models', model.id, 'aliases', name);
  async function name() {
    const wanted = { version: Number(version || versions[0].number) };
    const there = model.aliases[alias] !== undefined;
    const tag = there && (await ask('GET', url(alias), undefined, {}, true)).tag;
    await ask('PUT', url(alias), wanted, there ? { 'If-Match': tag } : { 'If-None-Match': '*' });
    reload();
  }
  async function remove(one) {
    await ask('DELETE', url(one), undefined, { 'If-Match': '*' });
    reload();
  }
  return html`<ul class="aliases">${Object.entries(model.aliases).map(([one, of]) => html`<li><strong>${one}</strong> names version ${of} <${Act} kind="quiet" asks="Yes, remove it" does=${() => remove(one)}>Remove<//></li>`)}</ul>
  ${versions.length > 0 && html`<form class="row" onSubmit=${stay}><label>Alias <input value=${alias} pattern="[a-z][a-z0-9_\\-]*" onInput=${event => setAlias(event.target.value.trim())} /></label>
  <label>names version <select value=${version || versions[0].number} onChange=${event => setVersion(event.target.value)}>${versions.map(one => html`<option value=${one.number}>${one.number}</option>`)}</select></label><${Act} does=${name}>Set<//></form>`}`;
}

function Lineage({ of }) {
  const [solver] = useRead(() => get(path('solvers', of.solver_id)).catch(() => null), [of.solver_id]);
  return html`<ol class="lineage">${of.dataset_id && html`<li><a href=${`#/data/${of.dataset_id}`}>dataset</a></li>`}${Object.keys(of.inputs).map(one => html`<li>datafile ${told(one)}</li>`)}
  <li>solver${solver ? html` ${told(solver.name, 60)}` : ''}</li><li><a href=${`#/jobs/${of.training_job_id}`}>job</a>, iteration ${figure(of.iteration)}</li><li>this version</li></ol>`;
}

export function Model({ id, may, me }) {
  const url = path('models', id);
  const [model, problem, reload] = useThing(url);
  const [versions, trouble, reloadVersions] = useRead(() => list(`${url}/versions`, 200), [url]);
  const [history, , reloadHistory] = useRead(() => list(`${url}/history`, 100), [url]);
  const all = () => { reload(); reloadVersions(); reloadHistory(); };
  if (problem || trouble) return html`<h1>Model</h1><${Trouble} of=${problem || trouble} />`;
  if (!model || !versions) return html`<h1>Model</h1>`;
  async function use(version) {
    const made = await make('/v1/classifiers', { name: `${model.name} ${version}`, model_id: id, version });
    location.hash = `#/classify?classifier=${made.id}`;
  }
  const rows = versions.map(one => ({ key: one.number, cells: [
    number(one.number), Object.entries(one.figures).map(([name, value]) => `${plain(name)} ${figure(value)}`).join(', ') || '–', html`<${Lineage} of=${one.lineage} />`,
    html`<details><summary>${counted(one.files.length, 'file')}</summary><ul>${one.files.map(file => html`<li><a download href=${`${url}/versions/${one.number}/artifacts/${encodeURIComponent(file.name)}`}>${plain(file.name)}</a> ${bytes(file.size)}</li>`)}</ul></details>`,
    told(one.note), when(one.created_at), ...(may ? [html`<${Act} kind="quiet" does=${() => use(one.number)}>Classify<//>`] : []),
  ] }));
  const happened = (history || []).map(one => ({ key: one.id, cells: [when(one.at), told(one.actor), plain(one.action), one.version ?? '–', one.alias ?? '–', one.before ?? '–'] }));
  return html`<h1>${told(model.name)}</h1>
  <h2>Versions</h2><${Table} caption="Versions, the newest first" heads=${[['number'], 'figures of its own test', 'made of', 'files', 'note', 'made', ...(may ? [''] : [])]} rows=${rows} />
  ${versions.length > 0 && html`<${Use} me=${me} versions=${versions.map(one => one.number)} source=${version => ({ model_id: id, version })} />`}
  <h2>Aliases</h2>${may ? html`<${Aliases} model=${model} versions=${versions} reload=${all} />` : html`<ul>${Object.entries(model.aliases).map(([one, of]) => html`<li>${one}: ${of}</li>`)}</ul>`}
  <h2>History</h2><${Table} caption="What happened, the newest first" heads=${['when', 'by', 'what', ['version'], 'alias', ['before']]} rows=${happened} />`;
}
