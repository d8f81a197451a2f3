// The shell: who is logged in, which page is shown, and whether the service answers.
import { html, render, useEffect, useState } from './vendor/preact.js';
import { ask, get, listen } from './api.js';
import { Act, told, Trouble } from './parts.js';
import { Start } from './start.js';
import { Data, Dataset } from './data.js';
import { Train } from './train.js';
import { Compare, Jobs } from './jobs.js';
import { Job } from './job.js';
import { Classify } from './classify.js';
import { Model, Models } from './models.js';
import { Promotion, Promotions } from './promotions.js';
import { Team } from './team.js';
import { Operator } from './operator.js';
import { Pipeline } from './pipeline.js';

const PLATFORM = ['pipeline', 'operator'];
const PAGES = [
  ['', 'Start', Start], ['data', 'Data', Data, Dataset], ['train', 'New training', Train], ['jobs', 'Jobs', Jobs, Job],
  ['classify', 'Classify', Classify], ['models', 'Models', Models, Model], ['promotions', 'In use', Promotions, Promotion],
  ['team', 'Team', Team], ['pipeline', 'Pipeline', Pipeline], ['operator', 'Operator', Operator],
];

function place() {
  const [way, query] = location.hash.replace(/^#\/?/, '').split('?');
  const [page = '', ...rest] = way.split('/');
  return { page, id: rest.map(decodeURIComponent)[0], query: Object.fromEntries(new URLSearchParams(query || '')) };
}

function Login({ onMe, first }) {
  const [problem, setProblem] = useState(first);
  const [busy, setBusy] = useState(false);
  async function enter(event, body) {
    event.preventDefault();
    setBusy(true);
    try {
      onMe(await ask('POST', '/v1/session', body));
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  }
  const of = (event, name) => event.target.elements[name].value.trim();
  return html`<main class="login"><h1>Hathi</h1><p>Teams train nets here, look at them, and use them.</p>
  <${Trouble} of=${problem} />
  <form onSubmit=${event => enter(event, { username: of(event, 'username'), password: event.target.elements.password.value, ...(of(event, 'tenant') ? { tenant: of(event, 'tenant') } : {}) })}>
    <label>Name <input name="username" required autocomplete="username" /></label>
    <label>Password <input name="password" type="password" required autocomplete="current-password" /></label>
    <label>Team <small>only where you belong to several</small> <input name="tenant" autocomplete="organization" /></label>
    <button class="main" disabled=${busy}>Log in</button>
  </form>
  <details><summary>With a token</summary><form onSubmit=${event => enter(event, { token: of(event, 'token') })}>
    <label>Token <input name="token" type="password" required autocomplete="off" placeholder="hathi_…" /></label>
    <button disabled=${busy}>Log in</button></form></details></main>`;
}

function App() {
  const [me, setMe] = useState(undefined);
  const [problem, setProblem] = useState(null);
  const [at, setAt] = useState(place);
  const [reached, setReached] = useState(true);
  useEffect(() => {
    listen({ lost: error => { setMe(before => { if (before) setProblem(error); return null; }); }, reached: setReached });
    const moved = () => { setAt(place()); scrollTo(0, 0); };
    addEventListener('hashchange', moved);
    begin();
    return () => removeEventListener('hashchange', moved);
  }, []);
  async function begin() {
    const link = /^#link=(.+)$/.exec(location.hash);
    if (link) history.replaceState(null, '', location.pathname);  // it holds once, and stays in no history
    setAt(place());
    for (;;) {
      try {
        return setMe(link ? await ask('POST', '/v1/session', { token: link[1] }) : await get('/v1/me'));
      } catch (error) {
        if (error.status || link) {
          if (link || error.status !== 401) setProblem(error);
          return setMe(null);
        }
        await new Promise(done => setTimeout(done, 1500));
      }
    }
  }
  async function leave() {
    await ask('DELETE', '/v1/session').catch(() => {});
    setProblem(null);
    setMe(null);
  }
  const [name, title, Page, One] = PAGES.find(([key]) => key === at.page) || PAGES[0];
  useEffect(() => { document.title = me ? `${title} · Hathi` : 'Hathi'; }, [title, me]);
  const away = !reached && html`<div class="away" role="status">The service does not answer. This page goes on by itself when it does.</div>`;
  if (me === undefined) return html`${away}<main aria-busy="true"></main>`;
  if (me === null) return html`${away}<${Login} first=${problem} onMe=${found => { setProblem(null); setMe(found); }} />`;
  const Shown = name === 'jobs' && at.id === 'compare' ? Compare : at.id && One ? One : Page;
  return html`<a class="skip" href="#main" onClick=${event => { event.preventDefault(); document.querySelector('main').focus(); }}>To the page</a>
  <header><a class="brand" href="#/">Hathi</a>
  <nav aria-label="Pages">${PAGES.filter(([key]) => !PLATFORM.includes(key) || me.platform).map(([key, said]) => html`<a href=${`#/${key}`} aria-current=${key === name ? 'page' : undefined}>${said}</a>`)}</nav>
  <span class="who">${told(me.name, 40)} of ${told(me.tenant, 40)}, ${me.role} <${Act} kind="quiet" does=${leave}>Log out<//></span></header>
  ${away}<main tabindex="-1"><${Shown} key=${`${at.page}/${at.id || ''}?${new URLSearchParams(at.query)}`} id=${at.id} query=${at.query} me=${me} may=${me.role !== 'viewer'} /></main>`;
}

render(html`<${App} />`, document.getElementById('app'));
