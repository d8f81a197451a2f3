// Where a person begins: an archive of one's own, or the sample; and what is under way.
import { html, useState } from './vendor/preact.js';
import { Drop, told, Trouble } from './parts.js';
import { JobTable } from './jobs.js';
import { dataset, sample } from './taking.js';

export function Start({ may }) {
  const [doing, setDoing] = useState(null);
  const [problem, setProblem] = useState(null);
  const tell = (what, share) => setDoing({ what, share });
  async function run(work) {
    setProblem(null);
    try {
      location.hash = await work();
    } catch (error) {
      setProblem(error);
      setDoing(null);
    }
  }
  const archive = ([file]) => run(async () => `#/train?dataset=${(await dataset(file, file.name, { train: 80, test: 20 }, tell)).id}`);
  return html`<h1>What shall a net learn?</h1>
  ${may && (doing
    ? html`<section class="card" role="status"><p>${told(doing.what)}</p><progress max="1" value=${doing.share ?? undefined} aria-label="how far it is"></progress></section>`
    : html`<div class="pair"><section class="card"><h2>Your pictures</h2>
      <${Drop} label="An archive of pictures" accept=".zip,.tar,.gz,.tgz" onFiles=${archive}><strong>Drop an archive here, or choose one</strong>
      <span>zip, tar or tar.gz with a folder of pictures for each label. Four fifths teach the net, one fifth tests it.</span><//></section>
      <section class="card"><h2>Or the sample</h2><p>180 small drawings of six shapes. A little net learns them in half a minute, and then says what you draw.</p>
      <button type="button" class="main" onClick=${() => run(async () => `#/jobs/${(await sample(tell)).id}`)}>Take the sample</button></section></div>`)}
  <${Trouble} of=${problem} />
  <h2>Jobs</h2><${JobTable} most=${10} may=${may} />`;
}
