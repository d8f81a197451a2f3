// A model goes into use for a feature set of the lake: the click, what is in use, and how far a back-fill is.
import { html, useState } from './vendor/preact.js';
import { get, list, make, path } from './api.js';
import { Act, Bar, counted, Facts, figure, number, OVER, plain, State, stay, Table, told, Trouble, useRead, useThing, when } from './parts.js';

/** For who may, and the sets that are granted.  source(version): {model_id, version}, made first where it is not there. */
export function Use({ me, source, versions = [] }) {
  const may = ['operator', 'admin'].includes(me.role);
  const [sets] = useRead(() => (may ? get('/v1/feature-sets').then(found => found.items) : []), [may]);
  const [chosen, setChosen] = useState('');
  const [backfill, setBackfill] = useState(true);
  const [version, setVersion] = useState('');
  if (!sets || !sets.length) return null;
  const name = chosen || sets[0].name, one = sets.find(set => set.name === name) || sets[0];
  async function use() {
    const made = await make('/v1/promotions', { feature_set: one.name, backfill, ...(await source(Number(version || versions[0]))) });
    location.hash = `#/promotions/${made.id}`;
  }
  return html`<h2>Use it for a feature set</h2><form class="row" onSubmit=${stay}>
  ${versions.length > 1 && html`<label>Version <select value=${version || versions[0]} onChange=${event => setVersion(event.target.value)}>${versions.map(one => html`<option value=${one}>${one}</option>`)}</select></label>`}
  <label>Feature set <select value=${name} onChange=${event => setChosen(event.target.value)}>${sets.map(set => html`<option value=${set.name}>${set.name}</option>`)}</select></label>
  <label class="check"><input type="checkbox" checked=${backfill} onChange=${event => setBackfill(event.target.checked)} /> also compute anew what is there</label>
  <${Act} does=${use} asks=${`Yes, ${one.lakes.length ? `in ${one.lakes.join(', ')}` : 'do it'}`}>Use it for this set<//>
  ${one.with_others && html`<span class="soft">Other sets follow the same model and are not yours: it will be refused.</span>`}</form>`;
}

const of = one => (one.model_id ? html`<a href=${`#/models/${one.model_id}`}>a model</a>, version ${one.version}${one.alias ? html` (${told(one.alias)})` : ''}` : `number ${one.number} again`);

export function Promotions() {
  const [all, problem] = useRead(() => list('/v1/promotions', 100), [], 5000);
  const rows = (all || []).map(one => ({ key: one.id, cells: [
    html`<a href=${`#/promotions/${one.id}`}>${told(one.feature_set)}</a>`, of(one), html`<${State} of=${one.state} reason=${one.reason} />`,
    (one.in_use || []).map(use => `${plain(use.lake)}: ${use.number}`).join(', ') || '–', when(one.created_at) ] }));
  return html`<h1>Models in use</h1><p>A promotion puts a model's version into use for a feature set of the lake. The pipeline then makes its features with it.</p><${Trouble} of=${problem} />
  <${Table} caption="Promotions" heads=${['feature set', 'of', 'state', 'number by lake', 'asked for']} rows=${rows} none=${all ? 'none yet: a model’s page puts it into use' : 'one moment…'} />`;
}

function BackFill({ of: far }) {
  if (!far) return null;
  const done = far.computed + far.failures;
  return html`<h2>What was there before</h2><p role="status">${far.delivered === far.snapshots && far.snapshots ? 'All of it is computed anew and in the lake.' : 'It is computed anew.'}</p>
  <${Bar} share=${far.refs ? done / far.refs : far.snapshots ? far.delivered / far.snapshots : 1} label="image refs" />
  <${Facts} of=${[['snapshots in the lake', `${number(far.delivered)} of ${number(far.snapshots)}`], ['image refs', number(far.refs)], ['features', number(far.features)], ['failures', number(far.failures)]]} />`;
}

export function Promotion({ id, me }) {
  const [one, problem, reload] = useThing(path('promotions', id), 1500);
  const back = one && OVER.includes(one.state) && one.in_use && me.role !== 'viewer';
  if (problem) return html`<h1>Promotion</h1><${Trouble} of=${problem} />`;
  if (!one) return html`<h1>Promotion</h1>`;
  async function again(use) {
    const made = await make('/v1/promotions', { feature_set: one.feature_set, number: use.number, lake: use.lake, backfill: one.backfill });
    location.hash = `#/promotions/${made.id}`;
  }
  const rows = (one.in_use || []).map(use => ({ key: use.lake, cells: [told(use.lake), told(use.model), figure(use.number), use.new ? 'new' : 'these files were in use before',
    html`<code>${plain(use.fingerprint).slice(0, 16)}</code>`, html`<code>${plain(use.before).slice(0, 16) || '–'}</code>`,
    ...(back ? [html`<${Act} kind="quiet" asks="Yes" does=${() => again(use)}>Put number ${use.number} into use again<//>`] : [])] }));
  return html`<h1>${told(one.feature_set)}</h1>
  <${Facts} of=${[['state', html`<${State} of=${one.state} reason=${one.reason} />`], ['of', of(one)], ['asked for', when(one.created_at)], ['in use since', when(one.in_use ? one.finished_at : null)]]} />
  ${one.detail && html`<div class="trouble" role="alert"><pre tabindex="0">${one.detail.split('\n').map(plain).join('\n')}</pre></div>`}
  ${one.why && html`<p>${told(one.why)}</p>`}
  ${rows.length > 0 && html`<${Table} caption=${`In use in ${counted(rows.length, 'lake')}`} heads=${['lake', 'model', ['number'], 'files', 'fingerprint from now on', 'until then', ...(back ? [''] : [])]} rows=${rows} />`}
  ${one.backfill && html`<${BackFill} of=${one.progress} />`}`;
}
