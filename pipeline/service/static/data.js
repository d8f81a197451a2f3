// Datafiles and datasets: what is in them, by label and side, and what was left out and why.
import { html, useState } from './vendor/preact.js';
import { ask, get, list, path } from './api.js';
import { Act, Bar, bytes, counted, Drop, Facts, number, OVER, plain, State, Table, told, Trouble, useRead, useThing, when } from './parts.js';
import { useWorks } from './jobs.js';
import { dataset } from './taking.js';

export function Data({ may }) {
  const [sets, problem, reload, change] = useRead(() => list('/v1/datasets', 200), []);
  const [files, trouble, reloadFiles] = useRead(() => list('/v1/datafiles', 200), []);
  const [share, setShare] = useState(80);
  const [doing, setDoing] = useState(null);
  const [wrong, setWrong] = useState(null);
  useWorks(work => {
    if (work.kind !== 'import') return;
    if (OVER.includes(work.state)) return reload();
    change(all => all && all.map(one => (one.id === work.id ? { ...one, state: work.state, progress: work.progress } : one)));
  }, reload);
  async function bring([file]) {
    setWrong(null);
    try {
      const made = await dataset(file, file.name, { train: share, test: 100 - share }, (what, part) => setDoing({ what, part }));
      location.hash = `#/data/${made.id}`;
    } catch (error) {
      setWrong(error);
    }
    setDoing(null);
    reload();
    reloadFiles();
  }
  const remove = (kind, id, then) => async () => { await ask('DELETE', path(kind, id), undefined, { 'If-Match': '*' }); then(); };
  const rows = (sets || []).map(one => ({ key: one.id, cells: [
    html`<a href=${`#/data/${one.id}`}>${told(one.name, 80)}</a>`, html`<${State} of=${one.state} reason=${one.reason} />`,
    one.contents ? number(one.contents.examples) : number(one.progress.pictures), one.contents ? number(one.contents.classes.length) : '–',
    one.contents ? number(Object.values(one.contents.rejected).reduce((sum, more) => sum + more, 0)) : '–', when(one.created_at),
    ...(may ? [html`<${Act} kind="quiet" asks="Yes, delete it" does=${remove('datasets', one.id, reload)}>Delete<//>`] : []),
  ] }));
  const fileRows = (files || []).map(one => ({ key: one.id, cells: [
    told(one.name, 80), bytes(one.size), one.complete ? 'whole' : html`${bytes(one.received)} so far`, when(one.created_at),
    ...(may ? [html`<${Act} kind="quiet" asks="Yes, delete it" does=${remove('datafiles', one.id, reloadFiles)}>Delete<//>`] : []),
  ] }));
  return html`<h1>Data</h1>
  ${may && html`<section class="card"><${Drop} label="An archive of pictures" accept=".zip,.tar,.gz,.tgz" onFiles=${bring}><strong>${doing ? told(doing.what) : 'Drop an archive here, or choose one'}</strong>
    ${doing ? html`<${Bar} share=${doing.part} label="how far it is" />` : html`<span>zip, tar or tar.gz with a folder of pictures for each label</span>`}<//>
    <label class="slider">Of 100 pictures, ${share} teach the net and ${100 - share} test it <input type="range" min="10" max="95" step="5" value=${share} onInput=${event => setShare(Number(event.target.value))} /></label></section>`}
  <${Trouble} of=${wrong || problem || trouble} />
  <h2>Datasets</h2><${Table} caption="Datasets, the newest first" heads=${['name', 'state', ['pictures'], ['labels'], ['rejected'], 'made', ...(may ? [''] : [])]} rows=${rows} />
  <h2>Datafiles</h2><${Table} caption="Datafiles, the newest first" heads=${['name', ['size'], 'here', 'made', ...(may ? [''] : [])]} rows=${fileRows} />`;
}

const THUMBNAILS = 'thumbnails.json';
export function Dataset({ id, may }) {
  const url = path('datasets', id);
  const [one, problem, reload] = useThing(url);
  const over = one && OVER.includes(one.state);
  const [refused] = useRead(() => (over ? get(`${url}/rejections`) : null), [url, over]);
  const [thumbs] = useRead(async () => {
    if (!over || one.state !== 'succeeded') return {};
    const there = (await get(`${url}/files`)).items.some(file => file.name === THUMBNAILS);
    return there ? get(`${url}/files/${THUMBNAILS}`) : {};
  }, [url, over]);
  useWorks(work => { if (work.id === id) reload(); }, reload);
  if (problem) return html`<h1>Dataset</h1><${Trouble} of=${problem} />`;
  if (!one) return html`<h1>Dataset</h1>`;
  const held = one.contents, sides = held ? Object.keys(held.sides) : [];
  const picture = (label, at) => { const found = ((thumbs || {})[label] || [])[at]; return found && html`<img class="thumb" alt="" src=${`data:image/png;base64,${found}`} />`; };
  const labels = held ? held.classes.slice(0, 1000).map(label => ({ key: label, cells: [
    told(label, 80), html`<span class="thumbs">${[0, 1, 2, 3].map(at => picture(label, at))}</span>`, number(held.labels[label]),
    ...sides.map(side => number(held.sides[side].labels[label] || 0)) ] })) : [];
  return html`<div class="head"><h1>${told(one.name, 120)}</h1><span class="acts">
    ${held && may && html`<a class="button main" href=${`#/train?dataset=${id}`}>Train on it</a>`}
    ${!over && may && html`<${Act} asks="Yes, cancel it" does=${() => ask('POST', `${url}/cancel`)}>Cancel<//>`}</span></div>
  <${Facts} of=${[['state', html`<${State} of=${one.state} reason=${one.reason} />`],
    ...(held ? [['pictures', number(held.examples)], ['twice in the archive', number(held.duplicates)], ['rejected', number(Object.values(held.rejected).reduce((sum, more) => sum + more, 0))], ['entries', number(held.entries)]]
      : [['pictures so far', number(one.progress.pictures)]])]} />
  ${one.detail && html`<div class="trouble">${told(one.detail, 4000)}</div>`}
  ${held && held.warnings.length > 0 && html`<ul class="warnings">${held.warnings.map(said => html`<li>${told(said)}</li>`)}</ul>`}
  ${held && html`<h2>Labels</h2><${Table} caption=${`${counted(held.classes.length, 'label')}, in the net's order`} heads=${['label', '', ['pictures'], ...sides.map(side => [side])]} rows=${labels} />`}
  ${refused && refused.items.length > 0 && html`<h2>Rejected</h2><${Table} caption=${Object.entries(refused.counts).map(([reason, count]) => `${count} ${reason}`).join(', ')} heads=${[['entry'], 'name', 'reason', 'why']}
    rows=${refused.items.slice(0, 200).map(row => ({ key: row.number, cells: [number(row.number), told(row.name, 120), plain(row.reason), told(row.detail)] }))} />`}`;
}
