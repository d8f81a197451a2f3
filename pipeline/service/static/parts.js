// What all pages share: words and numbers as people read them, tables, problems, and what is read again by itself.
import { html, useEffect, useRef, useState } from './vendor/preact.js';
import { get, sleep } from './api.js';

export { html };
const TURNING = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ue000-\uf8ff]/g;
/** A tenant's text: letters that hide, turn or control are written as their numbers. */
export const plain = said => String(said ?? '').replace(TURNING, one => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
export function told(of, most = 300) {
  const all = plain(of);
  return html`<bdi title=${all.length > most ? all.slice(0, 2000) : undefined}>${all.length > most ? `${all.slice(0, most)}…` : all}</bdi>`;
}

export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
export const number = value => COUNT.format(value ?? 0);
export const figure = value => (value == null ? '–' : Math.abs(value) >= 1000 ? number(Math.round(value)) : String(+value.toPrecision(4)));
export function bytes(size) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  for (; size >= 1024 && at < 4; at++) size /= 1024;
  return `${at ? size.toPrecision(3) : size} ${units[at]}`;
}
export function seconds(value) {
  if (value == null) return '–';
  if (value < 60) return `${value < 10 ? Math.max(0.1, +value.toFixed(1)) : Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  return value < 172800 ? `${(value / 3600).toFixed(1)} h` : `${(value / 86400).toFixed(1)} days`;
}
// made once: a table that moves asks hundreds of times
const CLOCK = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' }), COUNT = new Intl.NumberFormat('en');
export const when = at => (at == null ? '–' : html`<time datetime=${new Date(at * 1000).toISOString()}>${CLOCK.format(at * 1000)}</time>`);
export const stay = event => event.preventDefault();

export const OVER = ['succeeded', 'failed', 'cancelled'];
export const State = ({ of, reason }) => html`<span class="state ${of}">${of}${reason ? `: ${plain(reason)}` : ''}</span>`;
export const Bar = ({ share, label }) =>
  html`<progress class="bar" max="1" value=${Math.min(1, share || 0)} aria-label=${label}></progress>`;
export const Wide = ({ label, children }) => html`<div class="wide" role="region" aria-label=${label} tabindex="0">${children}</div>`;
/** heads: [name, ends] pairs, or names; ends: a number's column.  rows: lists of cells. */
export const Table = ({ caption, heads, rows, none = 'nothing yet' }) => html`<${Wide} label=${caption}>
  <table><caption>${caption}</caption>
  <thead><tr>${heads.map(one => html`<th scope="col" class=${Array.isArray(one) ? 'n' : ''}>${Array.isArray(one) ? one[0] : one}</th>`)}</tr></thead>
  <tbody>${rows.length
    ? rows.map(row => html`<tr key=${row.key}>${row.cells.map((cell, at) => html`<td class=${Array.isArray(heads[at]) ? 'n' : ''}>${cell}</td>`)}</tr>`)
    : html`<tr><td colspan=${heads.length} class="soft">${none}</td></tr>`}</tbody></table><//>`;
export const Facts = ({ of }) => html`<dl class="facts">${of.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
export const Trouble = ({ of }) =>
  of &&
  html`<div class="trouble" role="alert"><strong>${told(of.message, 2000)}</strong>
  ${of.hint && html`<div>${told(of.hint, 2000)}</div>`}
  ${(of.errors || []).length > 0 && html`<ul>${of.errors.map(one => html`<li>${one.line && html`line ${one.line}, column ${one.column}: `}${told(one.detail, 2000)}${one.hint && html` (${told(one.hint)})`}</li>`)}</ul>`}</div>`;

/** What is wrong and what to do about it; or that nothing is. */
export const Findings = ({ of, lead }) => of.length
  ? html`<div class="trouble" role="alert"><strong>${lead}</strong><ul>${of.map(one => html`<li>${told(one.text, 1000)}${one.hint && html`<br /><small>To do: ${told(one.hint, 1000)}</small>`}</li>`)}</ul></div>`
  : html`<p role="status">Nothing stands in the way of the work.</p>`;

/** [value, problem, again, set]: what load() gives, read again after each break and, with every, each so many ms. */
export function useRead(load, on, every = 0) {
  const [found, set] = useState({ value: null, problem: null });
  const [turn, again] = useState(0);
  useEffect(() => {
    let gone = false;
    (async () => {
      while (!gone) {
        try {
          const value = await load();
          if (!gone) set({ value, problem: null });
          if (!every) return;
        } catch (problem) {
          if (gone) return;
          set(before => ({ value: problem.status ? null : before.value, problem: problem.status ? problem : null }));
          if (problem.status && problem.status !== 503) return;
        }
        await sleep(every || 1500);
      }
    })();
    return () => { gone = true; };
  }, [...on, turn]);
  return [found.value, found.problem, () => again(one => one + 1), change => set(before => ({ ...before, value: change(before.value) }))];
}
export const useThing = (url, every) => useRead(() => get(url), [url], every);

/** A button that works once at a time, and says what went wrong. */
export function Act({ does, children, kind = '', asks, ...more }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const [sure, setSure] = useState(false);
  const there = useRef(true);
  useEffect(() => () => { there.current = false; }, []);
  async function run() {
    if (asks && !sure) return setSure(true);
    setBusy(true);
    setProblem(null);
    try {
      await does();
    } catch (error) {
      if (there.current) setProblem(error);
    }
    if (there.current) { setBusy(false); setSure(false); }
  }
  return html`<span class="act"><button type="button" class=${kind} disabled=${busy} onClick=${run} ...${more}>${busy ? 'One moment…' : sure ? asks : children}</button>
  ${sure && !busy && html`<button type="button" class="quiet" onClick=${() => setSure(false)}>No</button>`}
  ${problem && html`<${Trouble} of=${problem} />`}</span>`;
}

/** A place for files: dropped, pasted by keyboard or chosen. */
export function Drop({ onFiles, accept, multiple, children, label }) {
  const [above, setAbove] = useState(false);
  const give = files => files.length && onFiles([...files]);
  return html`<label class=${`drop ${above ? 'above' : ''}`} onDragOver=${event => { event.preventDefault(); setAbove(true); }}
    onDragLeave=${() => setAbove(false)} onDrop=${event => { event.preventDefault(); setAbove(false); give(event.dataTransfer.files); }}>
    <input type="file" aria-label=${label} accept=${accept} multiple=${multiple} onChange=${event => { give(event.target.files); event.target.value = ''; }} />
    ${children}</label>`;
}

export function Copy({ of, label = 'With curl' }) {
  const [done, setDone] = useState(false);
  return html`<details class="curl"><summary>${label}</summary><pre tabindex="0">${of}</pre>
  ${navigator.clipboard && html`<button type="button" class="quiet" onClick=${async () => { await navigator.clipboard.writeText(of); setDone(true); }}>${done ? 'Copied' : 'Copy'}</button>`}</details>`;
}
export const curl = (method, url, more = '') => `curl -H "Authorization: Bearer $TOKEN" ${method === 'GET' ? '' : `-X ${method} `}${more}${more && ' '}'${location.origin}${url}'`;
