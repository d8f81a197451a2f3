// The public REST, and nothing else: answers, problems (RFC 9457), uploads and server-sent events.

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the service answered ${status}`);
    this.status = status;
    this.hint = body.hint || '';
    this.errors = body.errors || [];
  }
}

const listeners = { lost: () => {}, reached: () => {} };
/** lost: the session is over.  reached(yes): whether the service answered just now. */
export const listen = more => Object.assign(listeners, more);
export const sleep = ms => new Promise(done => setTimeout(done, ms));
/** A word that nobody else has, for an Idempotency-Key. */
export const word = () => [...crypto.getRandomValues(new Uint8Array(16))].map(one => one.toString(16).padStart(2, '0')).join('');
export const path = (...parts) => '/v1/' + parts.map(encodeURIComponent).join('/');

async function fetched(url, given) {
  let answer;
  try {
    answer = await fetch(url, { credentials: 'same-origin', cache: 'no-store', ...given });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    listeners.reached(false);
    throw new Problem(0, { detail: 'the service does not answer', hint: 'this page goes on by itself when it does' });
  }
  listeners.reached(true);
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const problem = new Problem(answer.status, body);
  if (answer.status === 401 && url !== '/v1/session') listeners.lost(problem);
  throw problem;
}

/** The JSON of an answer, null without one.  Throws Problem.  tag: asks for {value, tag} with its ETag. */
export async function ask(method, url, body, headers = {}, tag = false) {
  const given = { method, headers: { ...headers } };
  if (body instanceof Blob || body instanceof FormData) given.body = body;
  else if (body !== undefined) {
    given.body = JSON.stringify(body);
    given.headers['Content-Type'] = 'application/json';
  }
  const answer = await fetched(url, given);
  const value = answer.status === 204 ? null : await answer.json();
  return tag ? { value, tag: answer.headers.get('ETag') } : value;
}

export const get = url => ask('GET', url);
export const text = async url => (await fetched(url, {})).text();
/** Makes a thing; a lost answer is asked for again with the same key, and makes nothing twice. */
export async function make(url, body) {
  const key = word();
  for (let tries = 0; ; tries++) {
    try {
      return await ask('POST', url, body, { 'Idempotency-Key': key });
    } catch (problem) {
      if (problem.status !== 0 || tries === 20) throw problem;
      await sleep(1000);
    }
  }
}
/** All rows of a list, at most so many. */
export async function list(url, most = 200) {
  const items = [];
  let next = null;
  do {
    const joint = url.includes('?') ? '&' : '?';
    const page = await get(`${url}${joint}limit=${Math.min(most, 200)}${next ? `&cursor=${encodeURIComponent(next)}` : ''}`);
    items.push(...page.items);
    next = page.next;
  } while (next && items.length < most);
  return items;
}

const PIECE = 8 * 2 ** 20;
/** Announces a file and brings its bytes, piece by piece; what broke goes on where it broke.  told(share): 0 to 1. */
export async function upload(file, name, told) {
  let datafile = await make('/v1/datafiles', { name, size: file.size });
  const url = path('datafiles', datafile.id);
  for (let at = 0, tries = 0; at < file.size; ) {
    const end = Math.min(at + PIECE, file.size);
    try {
      datafile = await ask('PUT', `${url}/content`, file.slice(at, end), { 'Content-Range': `bytes ${at}-${end - 1}/${file.size}` });
      tries = 0;
    } catch (problem) {
      if (tries++ === 30 || ![0, 409, 416, 500, 503].includes(problem.status)) throw problem;
      await sleep(1000);
      datafile = await get(url).catch(() => datafile);
    }
    at = datafile.received;
    told(at / file.size);
  }
  return datafile;
}

/** Asks again until a thing is over; told(thing) each time. */
export async function over(url, told = () => {}) {
  for (;;) {
    try {
      const thing = await get(url);
      told(thing);
      if (['succeeded', 'failed', 'cancelled'].includes(thing.state)) return thing;
    } catch (problem) {
      if (problem.status) throw problem;
    }
    await sleep(500);
  }
}

/** Server-sent events, gone on with after each break.  on(kind, data); kind `open` at each connection.  Returns stop. */
export function follow(url, on, last = '') {
  const ending = new AbortController();
  let wait = 1000;
  async function once() {
    const headers = { Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) };
    const answer = await fetched(url, { headers, signal: ending.signal });
    on('open', null);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let held = ''; ; ) {
      const { done, value } = await reader.read();
      if (done) return false;
      wait = 1000;
      const blocks = (held + value).split('\n\n');
      held = blocks.pop();
      for (const block of blocks) {
        const said = { event: 'message', data: '' };
        for (const line of block.split('\n')) {
          const colon = line.indexOf(': ');
          if (colon > 0) said[line.slice(0, colon)] = line.slice(colon + 2);
        }
        if (said.id) last = said.id;
        if (said.data) on(said.event, JSON.parse(said.data));
        if (said.event === 'end' || said.event === 'gone') return true;
      }
    }
  }
  (async () => {
    while (!ending.signal.aborted) {
      try {
        if (await once()) return;
      } catch (problem) {
        if (ending.signal.aborted || [401, 403, 404].includes(problem.status)) return;
        if (!problem.status) listeners.reached(false);
      }
      await sleep(wait);
      wait = Math.min(wait * 1.5, 8000);
    }
  })();
  return () => ending.abort();
}
