// For who runs the installation: its troubles, its workers, what waits for them, and its tenants with their limits.
import { html, useState } from './vendor/preact.js';
import { ask, list, make, path } from './api.js';
import { Act, counted, Findings, number, plain, seconds, stay, Table, told, Trouble, useRead, useThing, when } from './parts.js';

function Work() {
  const [scaling, problem] = useThing('/v1/scaling', 5000);
  const [found, trouble] = useThing('/v1/installation', 30000);
  const kinds = Object.entries((scaling || {}).kinds || {}).map(([kind, one]) => ({ key: kind, cells: [kind, number(one.desired), number(one.workers), number(one.running), number(one.queued), one.queued ? seconds(one.oldest_seconds) : '–'] }));
  const workers = ((found && found.workers) || []).map(one => ({ key: one.id, cells: [html`<code>${one.id}</code>`, one.kind, told(one.host, 60), one.retired ? 'ends' : 'works', when(one.started_at), when(one.heard_at)] }));
  const failures = Object.entries((found && found.failures) || {}).map(([reason, count]) => ({ key: reason, cells: [plain(reason) || 'no reason', number(count)] }));
  return html`<${Trouble} of=${problem || trouble} />
  ${found && html`<${Findings} of=${found.troubles} lead=${counted(found.troubles.length, 'trouble')} />`}
  <h2>Work</h2><${Table} caption="By kind, all tenants together" heads=${['kind', ['workers wanted'], ['workers'], ['running'], ['queued'], ['the oldest waits for']]} rows=${kinds} none="one moment…" />
  <${Table} caption="Workers of the last hour, the newest first" heads=${['worker', 'kind', 'host', 'state', 'began', 'last heard of']} rows=${workers} none=${found ? 'none: begin hathi service worker' : 'one moment…'} />
  ${failures.length > 0 && html`<${Table} caption="Failures of the last day" heads=${['reason', ['work']]} rows=${failures} />`}`;
}

export function Operator() {
  const [tenants, problem, reload] = useRead(() => list('/v1/tenants', 200), []);
  const [name, setName] = useState('');
  async function change(one, field, value) {
    await ask('PATCH', path('tenants', one.id), { [field]: Number(value) }, { 'If-Match': '*' });
    reload();
  }
  const input = (one, field) => html`<input type="number" min="0" class="small" aria-label=${`${field} of ${one.name}`} value=${one[field]} onChange=${event => change(one, field, event.target.value)} />`;
  const rows = (tenants || []).map(one => ({ key: one.id, cells: [told(one.name), input(one, 'running'), input(one, 'weight'), when(one.created_at)] }));
  return html`<h1>Operator</h1><${Trouble} of=${problem} />
  <${Work} /><h2>Tenants</h2><form class="row" onSubmit=${stay}><label>Name <input value=${name} pattern="[a-z0-9][a-z0-9_\\-]*" onInput=${event => setName(event.target.value.trim())} /></label><${Act} does=${async () => { await make('/v1/tenants', { name }); setName(''); reload(); }}>Make a tenant<//></form>
  <${Table} caption=${`${number(rows.length)} tenants`} heads=${['name', ['jobs at once'], ['weight'], 'made']} rows=${rows} />`;
}
