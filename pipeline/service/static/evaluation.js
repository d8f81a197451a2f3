// What the last test of a job says of its examples.
import { html } from './vendor/preact.js';
import { counted, figure, plain, told, Trouble, useThing, Wide } from './parts.js';

const FEW = 12;
const percent = share => (share == null ? '–' : `${(share * 100).toFixed(1)} %`);

function Matrix({ test, name }) {
  const heads = test.shown.map(name);
  if (test.matrix.length > heads.length) heads.push('others');
  const label = `${counted(test.examples, 'example')}: a row for each label, a column for each answer`;
  return html`<div class="matrix"><${Wide} label="Confusion matrix"><table><caption>${label}</caption>
  <thead><tr><th scope="col">label</th>${heads.map(one => html`<th scope="col">${told(one, 18)}</th>`)}</tr></thead>
  <tbody>${test.matrix.map((row, at) => html`<tr><th scope="row">${told(heads[at], 18)}</th>${row.map((count, to) =>
    html`<td class=${count && at === to ? 'hit' : count ? 'miss' : 'none'}>${count}</td>`)}</tr>`)}</tbody></table><//></div>`;
}

function Mistakes({ test, name }) {
  const one = mistake => {
    const [taken] = mistake.likeliest;
    return html`<figure class="card">${mistake.picture
      ? html`<img src=${`data:image/png;base64,${mistake.picture}`} alt=${`the picture ${plain(mistake.name).slice(0, 80)}`} />`
      : ''}<figcaption>taken for <strong>${told(name(taken.label), 40)}</strong>${test.probabilities ? ` with ${percent(taken.score)}` : ''},
      is <strong>${told(name(mistake.label), 40)}</strong>${mistake.of_label == null ? '' : ` (got ${percent(mistake.of_label)})`}<br /><small>${told(mistake.name, 60)}</small></figcaption></figure>`;
  };
  const sure = [...test.mistakes].sort((a, b) => b.likeliest[0].score - a.likeliest[0].score), shown = sure.slice(0, FEW), rest = sure.slice(FEW);
  return html`<h3>Its surest mistakes</h3><div class="mistakes">${shown.map(one)}</div>
  ${rest.length > 0 && html`<details><summary>${counted(rest.length, 'more mistake')}</summary><div class="mistakes">${rest.map(one)}</div></details>`}`;
}

function Test({ test, labels, several }) {
  const name = number => (labels && labels[number]) ?? String(number);
  if (test.why) return html`<p class="soft">${several ? `${plain(test.name)}: ` : ''}${told(test.why)}</p>`;
  const wrong = test.examples - test.right;
  return html`${several && html`<h3>${plain(test.name)}</h3>`}
  <p>${figure(test.right)} of ${counted(test.examples, 'example')} right (${percent(test.right / test.examples)}), at iteration ${figure(test.iteration)}.
  ${test.pairs.slice(0, 3).map(one => html` ${counted(one.examples, 'time')} it calls ${told(name(one.label), 40)} ${told(name(one.predicted), 40)}.`)}</p>
  <${Matrix} test=${test} name=${name} />${wrong > 0 && html`<${Mistakes} test=${test} name=${name} />`}`;
}

export function Evaluation({ url }) {
  const [found, problem] = useThing(`${url}/evaluation`);
  if (problem) return html`<${Trouble} of=${problem} />`;
  if (!found || !found.tests.length) return null;
  return html`<section><h2>What it gets wrong</h2>${found.tests.map(test => html`<${Test} test=${test} labels=${found.labels} several=${found.tests.length > 1} />`)}</section>`;
}
