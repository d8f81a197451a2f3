// For who runs the installation: its tenants and their limits.
import { html, useState } from './vendor/preact.js';
import { ask, list, make, path } from './api.js';
import { Act, Moment, number, Table, Text, Trouble, useRead } from './parts.js';

export function Operator({ me }) {
  const [tenants, problem, reload] = useRead(() => (me.platform ? list('/v1/tenants', 200) : []), []);
  const [name, setName] = useState('');
  if (!me.platform) return html`<h1>Operator</h1><p>Only an operator of the installation sees this.</p>`;
  async function change(one, field, value) {
    await ask('PATCH', path('tenants', one.id), { [field]: Number(value) }, { 'If-Match': '*' });
    reload();
  }
  const input = (one, field) => html`<input type="number" min="0" class="small" aria-label=${`${field} of ${one.name}`} value=${one[field]} onChange=${event => change(one, field, event.target.value)} />`;
  const rows = (tenants || []).map(one => ({ key: one.id, cells: [html`<${Text} of=${one.name} />`, input(one, 'running'), input(one, 'weight'), html`<${Moment} at=${one.created_at} />`] }));
  return html`<h1>Operator</h1><${Trouble} of=${problem} />
  <h2>Tenants</h2><form class="row" onSubmit=${event => event.preventDefault()}><label>Name <input value=${name} pattern="[a-z0-9][a-z0-9_\\-]*" onInput=${event => setName(event.target.value.trim())} /></label><${Act} does=${async () => { await make('/v1/tenants', { name }); setName(''); reload(); }}>Make a tenant<//></form>
  <${Table} caption=${`${number(rows.length)} tenants`} heads=${['name', ['jobs at once'], ['weight'], 'made']} rows=${rows} />`;
}
