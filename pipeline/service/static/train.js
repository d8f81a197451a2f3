// A new training: a template or texts of one's own, judged with its price before anything is queued.
import { html, useEffect, useRef, useState } from './vendor/preact.js';
import { ask, get, list, path } from './api.js';
import { Act, bytes, counted, Facts, number, plain, seconds, told, Trouble, useRead } from './parts.js';
import { judge, train } from './taking.js';

/** The problem with the line and column of what its pointer names, where the service told none: a layer, or a field. */
function located(one, value) {
  const place = { ...one, line: Number(one.line || 0), column: Number(one.column || 1) };
  if (place.line) return place;
  const [, , kind, number] = (one.pointer || '').split('/');
  const bare = value.replace(/#.*/g, said => ' '.repeat(said.length));
  const found = kind === 'layer' && number !== undefined ? [...bare.matchAll(/(?<=^|[\s}])layers?\s*\{/g)][Number(number)]
    : /^[a-z_]+$/.test(kind || '') ? bare.match(new RegExp(`(?<![\\w])${kind}\\s*[:{]`)) : null;
  if (!found) return place;
  const before = value.slice(0, found.index).split('\n');
  return { ...place, line: before.length, column: before.at(-1).length + 1 };
}

function Texts({ name, value, onInput, place, errors }) {
  const wrong = errors.filter(one => (one.pointer || '').startsWith(`#/${name}`)).map(one => located(one, value));
  function show(one) {
    const lines = place.current.value.split('\n');
    const from = lines.slice(0, one.line - 1).reduce((sum, line) => sum + line.length + 1, 0) + one.column - 1;
    place.current.focus();
    place.current.setSelectionRange(from, from + Math.max(1, (lines[one.line - 1] || '').length - one.column + 1));
    place.current.scrollTop = Math.max(0, (one.line - 4) * parseFloat(getComputedStyle(place.current).lineHeight));
  }
  return html`<label>${name === 'net' ? 'Net (prototxt)' : 'Solver (prototxt)'}<textarea ref=${place} spellcheck=${false} rows=${name === 'net' ? 16 : 10} aria-invalid=${wrong.length > 0} value=${value} onInput=${event => onInput(event.target.value)}></textarea></label>
  ${wrong.length > 0 && html`<ul class="wrong" role="alert">${wrong.map(one => html`<li>${one.line > 0 && html`<button type="button" class="quiet" onClick=${() => show(one)}>line ${one.line}, column ${one.column}</button> `}${told(one.detail, 1000)}${one.hint && html` <small>${told(one.hint)}</small>`}</li>`)}</ul>`}`;
}

export function Train({ query, may }) {
  const [sets, problem] = useRead(() => list('/v1/datasets', 200), []);
  const made = (sets || []).filter(one => one.state === 'succeeded');
  const [id, setId] = useState(query.dataset || '');
  const chosen = id || (made[0] && made[0].id) || '';
  const [found, trouble] = useRead(() => (chosen ? get(`${path('datasets', chosen)}/templates`) : { items: [] }), [chosen]);
  const [template, setTemplate] = useState('');
  const [texts, setTexts] = useState({ solver: '', net: '' });
  const [name, setName] = useState('');
  const [judged, setJudged] = useState({ solver: null, problem: null, busy: false });
  const places = { solver: useRef(null), net: useRef(null) };
  const turn = useRef(0);
  const unused = useRef(null);
  const drop = () => {
    if (unused.current) ask('DELETE', path('solvers', unused.current), undefined, { 'If-Match': '*' }).catch(() => {});
    unused.current = null;
  };
  useEffect(() => drop, []);
  useEffect(() => { if (found && found.items.length) take(found.items[0]); }, [found]);
  function take(one) {
    setTemplate(one.name);
    setTexts({ solver: one.solver, net: one.net });
    check({ solver: one.solver, net: one.net });
  }
  async function check(said) {
    const mine = ++turn.current;
    drop();
    setJudged({ solver: null, problem: null, busy: true });
    try {
      const solver = await judge(name || template || 'solver', said, chosen);
      if (mine !== turn.current) return ask('DELETE', path('solvers', solver.id), undefined, { 'If-Match': '*' });
      unused.current = solver.id;
      setJudged({ solver, problem: null, busy: false });
    } catch (error) {
      if (mine === turn.current) setJudged({ solver: null, problem: error, busy: false });
    }
    return null;
  }
  function edit(which, value) {
    setTexts(before => ({ ...before, [which]: value }));
    setTemplate('');
    drop();
    turn.current++;
    setJudged({ solver: null, problem: null, busy: false });
  }
  async function start() {
    const set = made.find(one => one.id === chosen);
    const job = await train(name.trim() || (set ? set.name : 'training'), judged.solver.id);
    unused.current = null;
    location.hash = `#/jobs/${job.id}`;
  }
  if (!may) return html`<h1>New training</h1><p>A viewer looks; a member may train.</p>`;
  if (problem || trouble) return html`<h1>New training</h1><${Trouble} of=${problem || trouble} />`;
  if (sets && !made.length) return html`<h1>New training</h1><p>There is no dataset yet. <a href="#/">Bring an archive, or take the sample</a>.</p>`;
  const price = judged.solver && judged.solver.price;
  const errors = judged.problem ? judged.problem.errors : [];
  const placed = errors.filter(one => /^#\/(solver|net)/.test(one.pointer || ''));
  return html`<h1>New training</h1>
  <div class="row"><label>Dataset <select value=${chosen} onChange=${event => setId(event.target.value)}>${made.map(one => html`<option value=${one.id} selected=${one.id === chosen}>${plain(one.name).slice(0, 80)} (${counted(one.contents.examples, 'picture')})</option>`)}</select></label>
  <label>Name <input value=${name} maxlength="200" placeholder="of the job" onInput=${event => setName(event.target.value)} /></label></div>
  <fieldset class="templates"><legend>Begin with</legend>${((found && found.items) || []).map(one => html`<label class="card"><input type="radio" name="template" checked=${template === one.name} onChange=${() => take(one)} /> <strong>${one.name}</strong><span>${one.about}</span></label>`)}</fieldset>
  <section class="card price" aria-live="polite"><h2>Before it starts</h2>
  ${judged.busy ? html`<p class="soft">judging…</p>` : judged.solver ? html`
    ${price ? html`<${Facts} of=${[['about', html`${seconds(price.seconds)} <small>of computing alone</small>`], ['iterations', number(price.iterations)], ['it learns', html`${number(price.parameters)} <small>numbers</small>`], ['memory', bytes((price.bytes || {}).memory || 0)]]} />` : html`<p>Its price is not known: its data is not.</p>`}
    ${judged.solver.warnings.length > 0 && html`<ul class="warnings">${judged.solver.warnings.map(one => html`<li>${told(one)}</li>`)}</ul>`}
    <${Act} kind="main" does=${start}>Start the training<//>`
    : html`${judged.problem && (placed.length === errors.length && errors.length ? html`<p class="trouble" role="alert">${plain(judged.problem.message)}: ${counted(errors.length, 'place')} below</p>` : html`<${Trouble} of=${judged.problem} />`)}
    <${Act} kind="main" does=${() => check(texts)}>Check the texts<//>`}</section>
  <details open=${!template || errors.length > 0}><summary>Texts</summary><div class="pair texts"><div><${Texts} name="solver" value=${texts.solver} place=${places.solver} errors=${errors} onInput=${value => edit('solver', value)} /></div>
  <div><${Texts} name="net" value=${texts.net} place=${places.net} errors=${errors} onInput=${value => edit('net', value)} /></div></div></details>`;
}
