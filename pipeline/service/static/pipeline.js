// The lakes beside the service, and the report of a day.
import { html, useState } from './vendor/preact.js';
import { Bar, counted, Facts, Findings, number, plain, seconds, stay, Table, told, Trouble, useThing, when } from './parts.js';

const FEW = 20;
const wait = () => html`<p role="status">One moment…</p>`;
const T = (of, most) => told(of || '–', most);
/** A version, as 20261120T000000Z, is a time. */
const version = (of, none = '–') => (of ? when(Date.parse(of.replace(/(....)(..)(..)T(..)(..)/, '$1-$2-$3T$4:$5:')) / 1000) : none);
const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : '–');

/** cols: [head, cell of a row or the name of its field, whether it is a number].  more: rows that the service did not tell. */
function List({ caption, of, cols, none, more }) {
  const [all, setAll] = useState(false);
  if (!of.length && !none) return null;
  const shown = (one, [head, cell = head, end]) => (typeof cell === 'function' ? cell(one) : end ? number(one[cell]) : T(one[cell]));
  const rows = (all ? of : of.slice(0, FEW)).map((one, key) => ({ key, cells: cols.map(col => shown(one, col)) }));
  return html`<${Table} caption=${caption} heads=${cols.map(([head, , end]) => (end ? [head] : head))} rows=${rows} none=${none} />
  ${!all && of.length > FEW && html`<p><button type="button" class="quiet" onClick=${() => setAll(true)}>Show ${counted(of.length - FEW, 'more row')}</button></p>`}
  ${more > 0 && html`<p class="soft">and ${number(more)} more</p>`}`;
}

const lake = ['lake'], set = ['set'], partner = ['partner'], waits = ['waits for', 'stage'], shipment = ['shipment', one => html`<code>${plain(one.shipment || one.name)}</code>`];
const OPEN = now => [waits, ['shipments', , 1], ['batches', , 1], ['images', 'refs', 1], ['oldest', one => (one.oldest == null ? '–' : seconds(now - one.oldest)), 1],
  ['last hour', 'last_hour', 1], ['to finish', one => (one.refs ? seconds(one.seconds_left) : '–'), 1], lake];
const SHIPMENTS = [shipment, set, waits, ['computed', one => `${number(one.results)} of ${counted(one.batches, 'batch', 'batches')}`], lake];
const RUNNING = now => [['on', 'host'], ['stage'], shipment, ['attempt', , 1], ['for', one => seconds(now - one.since), 1]];
const MODELS = [['model'], ['number', , 1], ['sets', one => T(one.sets.join(', '))], ['since', one => (one.unreadable ? T(one.unreadable) : version(one.at))], ['by'], ['why'], lake];
const BACKFILLS = [set, ['kind', one => (one.kind === 'again' ? 'shipped again' : 'back-fill')], ['with', 'by'],
  ['images', one => html`<${Bar} share=${one.images ? one.computed / one.images : 0} label=${`images of ${plain(one.set)}`} />${number(one.computed)} of ${number(one.images)}`],
  ['delivered', one => `${number(one.delivered)} of ${counted(one.snapshots, 'snapshot')}`], ['to finish', one => seconds(one.seconds_left), 1], lake];
const PARTNERS = [partner, set, ['at the source', one => version(one.source)], ['delivered', one => version(one.delivered, 'never')], ['behind', one => (one.lag > 0 ? seconds(one.lag) : '–'), 1], lake];

function Standing({ of }) {
  const notes = [...of.estop_remote.map(one => `ESTOP stands in the bucket: every host of lake ${one} stops`), ...(of.estop ? ['ESTOP is engaged on the host of this server'] : []), ...Object.entries(of.unseen).map(([what, why]) => `not seen from here: ${what}: ${why}`)];
  return html`<${Findings} of=${of.findings} lead=${of.level} />${notes.map(one => html`<p class="soft">${T(one, 1000)}</p>`)}
  <h2>What is open</h2><${List} caption="By the stage that it waits for" cols=${OPEN(of.at)} of=${of.stages.filter(one => one.shipments || one.batches || one.last_hour)} none="nothing is open" />
  <${List} caption="Open shipments" cols=${SHIPMENTS} of=${of.open} more=${of.open_more + (of.more.open || 0)} /><${List} caption="Running now" cols=${RUNNING(of.at)} of=${of.running} more=${of.more.running} />
  ${of.waiting > 0 && html`<p>${counted(of.waiting, 'shipment')} of retries for a later day${of.retries.length ? html`, the first on ${version(of.retries[0].at)}` : ''}.</p>`}
  ${of.held.length > 0 && html`<p>${counted(of.held.length, 'batch is', 'batches are')} held: <code>hathi quarantine show</code> says why.</p>`}
  <h2>Promotions and back-fills</h2><${List} caption="Models in use" cols=${MODELS} of=${of.models} more=${of.more.models} /><${List} caption="Back-fills under way" cols=${BACKFILLS} of=${of.backfills} none="none" more=${of.more.backfills} />
  <h2>How fresh</h2><${List} caption="By partner, the most lagging first" cols=${PARTNERS} of=${of.partners} none="no partner is known here" more=${of.more.partners} />`;
}

const EXAMPLES = one => (one.examples.length ? html`<details><summary>${counted(one.examples.length, 'example')}</summary><ul>${one.examples.map(item => html`<li>${T(item.external_id, 120)} of partner ${item.partner}: ${T(item.url)} <small>${T(item.detail)}</small></li>`)}</ul></details>` : '–');
const REASONS = [['reason'], ['meaning'], ['first tries', 'first', 1], ['retries', 'again', 1], ['examples', EXAMPLES]];
const HOSTS = [['host', one => T(one.host || 'no host')], ['failures', , 1], ['reasons', one => Object.entries(one.reasons).map(([name, of]) => `${plain(name)} ${number(of)}`).join(', ')]];
const OF_DAY = [shipment, set, ['kind'], ['image refs', 'refs', 1], ['features', , 1], ['failures', , 1], ['state'], ['source to lake', one => seconds(one.lag), 1]];

function Day() {
  const [day, setDay] = useState(new Date().toISOString().slice(0, 10));
  const [found, problem] = useThing(`/v1/pipeline/report?day=${day}`);
  const of = found && found.title === day ? found : null;
  return html`<h2>The report of a day</h2><form class="row" onSubmit=${stay}><label>Day (UTC) <input type="date" required value=${day} onChange=${event => event.target.value && setDay(event.target.value)} /></label>
  <a class="button" download href=${`/v1/pipeline/report/page?day=${day}`}>The whole page</a></form><${Trouble} of=${problem} />${!of && !problem && wait()}
  ${of && html`<${Facts} of=${[['features delivered', number(of.first.delivered + of.again.delivered)], ['without a feature', html`${share(of.first.failures, of.first.refs - of.first.unfinished)}<small>of ${counted(of.first.refs - of.first.unfinished, 'first try', 'first tries')}</small>`],
    ['most frequent reason', T(of.reasons.length && of.reasons[0].reason)], ['still at work', number(of.first.unfinished + of.again.unfinished)]]} />
  <${List} caption="Failures by reason" cols=${REASONS} of=${of.reasons} none="nothing failed" /><${List} caption="Failures by host" cols=${HOSTS} of=${of.hosts} more=${of.more.hosts} />
  <${List} caption="Shipments, the newest first" cols=${OF_DAY} of=${of.shipments} none="none" more=${of.more.shipments} />
  ${of.notes.length > 0 && html`<details><summary>${counted(of.notes.length, 'note')}</summary><ul>${of.notes.map(one => html`<li>${T(one, 500)}</li>`)}</ul></details>`}`}`;
}

export function Pipeline() {
  const [found, problem] = useThing('/v1/pipeline', 30000);
  if (found && !found.lakes.length) return html`<h1>Pipeline</h1><p>No lake is configured beside this service.</p>`;
  return html`<h1>Pipeline</h1><${Trouble} of=${problem} />${!found && !problem && wait()}${found && html`<${Standing} of=${found} /><${Day} />`}`;
}
