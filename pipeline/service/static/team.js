// Who belongs to the team, its tokens, what it may use, and who changed which right.
import { html, useState } from './vendor/preact.js';
import { ask, list, make, path } from './api.js';
import { Act, bytes, Facts, number, plain, stay, Table, told, Trouble, useRead, useThing, when } from './parts.js';

const LIMITS = { stored_bytes: 'stored', queued: 'jobs that wait', running: 'jobs at once', submitted: 'new in a minute' };
const ROLES = ['viewer', 'member', 'operator', 'admin'];
const Role = ({ value, onChange, most = 'admin', label }) => html`<select aria-label=${label} value=${value} onChange=${event => onChange(event.target.value)}>${ROLES.slice(0, ROLES.indexOf(most) + 1).map(one => html`<option value=${one} selected=${one === value}>${one}</option>`)}</select>`;

function Tokens({ me, may }) {
  const [all, problem, reload] = useRead(() => list('/v1/tokens', 200), []);
  const [name, setName] = useState('');
  const [role, setRole] = useState('viewer');
  const [made, setMade] = useState(null);
  async function add() {
    setMade(await make('/v1/tokens', { name: name.trim() || 'token', role }));
    setName('');
    reload();
  }
  const rows = (all || []).map(one => ({ key: one.id, cells: [told(one.name, 80), one.role, when(one.created_at), when(one.used_at), when(one.expires_at),
    html`<${Act} kind="quiet" asks="Yes, revoke it" does=${async () => { await ask('DELETE', path('tokens', one.id)); reload(); }}>Revoke<//>`] }));
  return html`<h2>Tokens</h2><${Trouble} of=${problem} />
  <form class="row" onSubmit=${stay}><label>Name <input value=${name} maxlength="200" onInput=${event => setName(event.target.value)} placeholder="what it is for" /></label>
  <label>Role <${Role} value=${role} most=${me.role} onChange=${setRole} /></label><${Act} does=${add}>Make a token<//></form>
  ${made && html`<div class="card" role="status"><p>It is shown this once:</p><pre tabindex="0" class="secret">${made.token}</pre></div>`}
  <${Table} caption="Tokens" heads=${['name', 'role', 'made', 'used', 'ends', '']} rows=${rows} />`;
}

function Password({ name }) {
  const [said, setSaid] = useState(null);
  async function change(event) {
    event.preventDefault();
    const { current, fresh } = event.target.elements;
    setSaid(null);
    try {
      await ask('PUT', '/v1/me/password', { ...(current.value ? { current: current.value } : {}), new: fresh.value });
      location.reload();
    } catch (problem) {
      setSaid(problem);
    }
  }
  return html`<details><summary>Your password</summary><form class="row" onSubmit=${change}><input name="username" autocomplete="username" value=${name} hidden /><label>The one that holds now <input name="current" type="password" autocomplete="current-password" /></label>
  <label>The new one <input name="fresh" type="password" minlength="8" required autocomplete="new-password" /></label><button>Change it, and log in again</button></form><${Trouble} of=${said} /></details>`;
}

export function Team({ me, may }) {
  const admin = me.role === 'admin';
  const [members, problem, reload] = useThing('/v1/members');
  const [now] = useThing('/v1/me');
  const [audit] = useRead(() => (admin ? list('/v1/audit', 100) : []), []);
  async function give(one, role) {
    await ask('PATCH', path('members', one.user_id), { role }, { 'If-Match': '*' });
    reload();
  }
  async function remove(one) {
    await ask('DELETE', path('members', one.user_id), undefined, { 'If-Match': '*' });
    reload();
  }
  const names = Object.fromEntries(((members && members.items) || []).map(one => [one.user_id, one.name]));
  const rows = ((members && members.items) || []).map(one => ({ key: one.user_id, cells: [
    html`${told(one.name)}${one.user_id === me.user_id ? ' (you)' : ''}`, admin && one.user_id !== me.user_id ? html`<${Role} label=${`role of ${plain(one.name)}`} value=${one.role} onChange=${role => give(one, role)} />` : one.role, when(one.created_at),
    ...(admin ? [one.user_id !== me.user_id ? html`<${Act} kind="quiet" asks="Yes, remove them" does=${() => remove(one)}>Remove<//>` : ''] : []) ] }));
  return html`<h1>${told(me.tenant)}</h1>
  <h2>What it may use</h2><${Facts} of=${Object.entries(me.quotas).map(([name, most]) => {
    const said = /bytes/.test(name) ? bytes : number;
    return [LIMITS[name] || name, html`${now && name in now.used ? `${said(now.used[name])} of ` : ''}${said(most)}`];
  })} />
  <h2>Members</h2><${Trouble} of=${problem} /><${Table} caption="Members" heads=${['name', 'role', 'since', ...(admin ? [''] : [])]} rows=${rows} />
  <${Tokens} me=${me} may=${may} /><${Password} name=${me.name} />
  ${admin && html`<h2>Who changed which right</h2><${Table} caption="The newest first" heads=${['when', 'by', 'what', 'of', '']} rows=${(audit || []).map(one => ({ key: one.id, cells: [when(one.at), told(names[one.actor] || one.actor), plain(one.action), told(one.object), told(one.detail)] }))} />`}`;
}
