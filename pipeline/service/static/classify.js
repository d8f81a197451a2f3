// Pictures in, names out: from a job's snapshot, a model's version or an alias.
import { html, useEffect, useRef, useState } from './vendor/preact.js';
import { ask, get, list, make, path } from './api.js';
import { Act, Copy, curl, Drop, plain, Table, told, Trouble, useRead, when } from './parts.js';
import { classifier, classify } from './taking.js';

/** Results as bars, each beside its picture.  shown: [{url, result}] */
function Results({ shown }) {
  return html`<div class="results" role="status">${shown.map(({ url, result }) => html`<figure class="card">
    ${url ? html`<img src=${url} alt=${`the picture ${plain(result.name).slice(0, 80)}`} />` : html`<p>${told(result.name)}</p>`}
    ${result.failure ? html`<p class="trouble">${told(`${result.failure.reason}: ${result.failure.detail}`)}</p>`
      : html`<ol class="bars">${result.predictions.map(one => {
        const share = one.probability ?? null;
        return html`<li><span class="label">${told(one.label, 60)}</span>${share == null ? html`<span class="n">${one.score.toPrecision(3)}</span>`
          : html`<progress max="1" value=${share} aria-hidden="true"></progress><span class="n">${(share * 100).toFixed(1)} %</span>`}</li>`;
      })}</ol>`}</figure>`)}</div>`;
}

/** A square to draw in; a picture is given when the pen is lifted. */
function Pad({ onPicture }) {
  const place = useRef(null);
  const last = useRef(null);
  const clear = () => {
    const pen = place.current.getContext('2d');
    pen.fillStyle = '#fff';
    pen.fillRect(0, 0, 196, 196);
  };
  useEffect(clear, []);
  const at = event => {
    const box = place.current.getBoundingClientRect();
    return [(event.clientX - box.left) * 196 / box.width, (event.clientY - box.top) * 196 / box.height];
  };
  function move(event) {
    if (!last.current) return;
    const pen = place.current.getContext('2d'), now = at(event);
    pen.lineWidth = 14;
    pen.lineCap = pen.lineJoin = 'round';
    pen.strokeStyle = '#000';
    pen.beginPath();
    pen.moveTo(...last.current);
    pen.lineTo(...now);
    pen.stroke();
    last.current = now;
  }
  function lift() {
    if (!last.current) return;
    last.current = null;
    place.current.toBlob(blob => onPicture(new File([blob], 'drawing.png', { type: 'image/png' })));
  }
  return html`<div class="pad"><canvas width="196" height="196" ref=${place} role="img" aria-label="draw here with a mouse or a finger; by keyboard, choose a file"
    onPointerDown=${event => { last.current = at(event); event.target.setPointerCapture(event.pointerId); move(event); }} onPointerMove=${move} onPointerUp=${lift} onPointerCancel=${lift}></canvas>
    <div><span class="soft">Or draw one here</span><br /><button type="button" class="quiet" onClick=${clear}>Wipe it</button></div></div>`;
}

/** A drop zone and a pad over one source: {job, iteration} or {id} of a classifier. */
export function Picture({ job, iteration, id, may }) {
  const [shown, setShown] = useState([]);
  const [problem, setProblem] = useState(null);
  const [made, setMade] = useState(id || null);
  const [busy, setBusy] = useState(false);
  const [asked, setAsked] = useState('');
  const urls = useRef([]);
  useEffect(() => () => urls.current.forEach(one => URL.revokeObjectURL(one)), []);
  async function look(files, links = []) {
    setBusy(true);
    setProblem(null);
    try {
      const known = made || (await classifier(job, iteration, await list('/v1/classifiers', 1000))).id;
      setMade(known);
      const results = await classify(known, files.slice(0, 64), links);
      const pictures = files.slice(0, 64).map(one => URL.createObjectURL(one));
      urls.current.push(...pictures);
      setShown(results.map((result, at) => ({ url: pictures[at], result })));
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  }
  if (!may) return html`<p class="soft">A viewer looks; a member may classify.</p>`;
  return html`<div class="own"><div class="pair"><${Drop} label="Pictures to classify" accept="image/*" multiple onFiles=${files => look(files)}><strong>${busy ? 'One moment…' : 'Drop pictures here, or choose some'}</strong><span>up to 64 at once</span><//>
  <${Pad} onPicture=${file => look([file])} /></div>
  <form class="row" onSubmit=${event => { event.preventDefault(); look([], asked.split(/\s+/).filter(Boolean).slice(0, 64)); }}><label class="grow">URLs of pictures <input value=${asked} onInput=${event => setAsked(event.target.value)} placeholder="https://…" /></label><button disabled=${busy || !asked.trim()}>Fetch and classify</button></form>
  <${Trouble} of=${problem} /><${Results} shown=${shown} />
  ${made && html`<${Copy} label="The same with curl, and by the Open Inference Protocol" of=${`${curl('POST', `${path('classifiers', made)}/classify?top=5`, "-H 'Content-Type: image/png' --data-binary @picture.png")}\n${curl('GET', `/v2/models/${made}`)}`} />`}</div>`;
}

function Named({ query, may }) {
  const [source, problem] = useRead(async () => {
    if (query.job) return { job: await get(path('training-jobs', query.job)), iteration: query.iteration ? Number(query.iteration) : undefined };
    return { id: query.classifier, said: await get(path('classifiers', query.classifier)) };
  }, [query.job, query.classifier, query.iteration]);
  if (problem) return html`<${Trouble} of=${problem} />`;
  if (!source) return null;
  return html`<p>By ${source.job ? html`the job <a href=${`#/jobs/${source.job.id}`}>${told(source.job.name)}</a>${source.iteration != null ? `, iteration ${source.iteration}` : ', its newest snapshot'}` : html`${told(source.said.name)}: ${source.said.classes} classes, pictures of ${source.said.shape.slice(1).join(' × ')}`}.</p>
  <${Picture} ...${source} may=${may} />`;
}

export function Classify({ query, may }) {
  const [all, problem, reload] = useRead(() => list('/v1/classifiers', 200), []);
  const chosen = query.job || query.classifier;
  async function remove(one) {
    await ask('DELETE', path('classifiers', one.id), undefined, { 'If-Match': '*' });
    reload();
  }
  const rows = (all || []).map(one => ({ key: one.id, cells: [
    html`<a href=${`#/classify?classifier=${one.id}`}>${told(one.name, 80)}</a>`,
    one.training_job_id ? html`<a href=${`#/jobs/${one.training_job_id}`}>a job</a>, iteration ${one.iteration}` : html`<a href=${`#/models/${one.model_id}`}>a model</a>, ${one.alias ? `alias ${one.alias}` : `version ${one.version}`}`,
    when(one.created_at), ...(may ? [html`<${Act} kind="quiet" asks="Yes, delete it" does=${() => remove(one)}>Delete<//>`] : []),
  ] }));
  return html`<h1>Classify</h1>${chosen ? html`<${Named} query=${query} may=${may} />` : html`<p>Choose a classifier, or open a job that has succeeded: its page takes pictures.</p>`}
  <${Trouble} of=${problem} /><h2>Classifiers</h2><${Table} caption="Classifiers, the newest first" heads=${['name', 'made of', 'when', ...(may ? [''] : [])]} rows=${rows} none="none yet: open a job that has succeeded, and drop a picture there" />`;
}
