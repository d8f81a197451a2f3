// From an archive to a training: the steps that a person starts with one click, each by the public REST.
import { ask, get, list, make, over, path, upload } from './api.js';

export const SAMPLE = '/static/sample.zip';

/** An archive becomes a dataset.  told(text, share): what is done now. */
export async function dataset(file, name, split, told) {
  told(`uploading ${name}`, 0);
  const datafile = await upload(file, name, share => told(`uploading ${name}`, share));
  const made = await make('/v1/datasets', { name, datafile_id: datafile.id, split });
  told('reading the archive', null);
  const found = await over(path('datasets', made.id), thing => told(`reading the archive: ${thing.progress.pictures || 0} pictures`, null));
  if (found.state !== 'succeeded') throw Object.assign(new Error(`the import has ${found.state}: ${found.reason || ''}`), { hint: found.detail, dataset: found.id });
  return found;
}

export const judge = (name, texts, dataset_id) => make('/v1/solvers', { name, solver: texts.solver, net: texts.net, ...(dataset_id ? { dataset_id } : {}) });
export const train = (name, solver_id, more = {}) => make('/v1/training-jobs', { name, solver_id, seed: 1, ...more });

/** The sample: fetched, read, split, judged by its first template, and queued; the job. */
export async function sample(told) {
  told('fetching the sample', null);
  const archive = await (await fetch(SAMPLE)).blob();
  const made = await dataset(archive, 'sample.zip', { train: 80, test: 20 }, told);
  told('judging the net', null);
  const [template] = (await get(`${path('datasets', made.id)}/templates`)).items;
  const solver = await judge(`sample, ${template.name}`, template, made.id);
  return train('sample', solver.id);
}

/** The name that a job's model has where nobody gives it another one. */
export const modelName = job => job.name.toLowerCase().replace(/[^a-z0-9_-]+/g, '-').replace(/^[^a-z0-9]+|-+$/g, '').slice(0, 60) || 'model';

/** A job's snapshot as a version of the model of that name, either one made where it is missing: {model_id, version}. */
export async function kept(job, iteration, name) {
  const model = (await list('/v1/models', 1000)).find(one => one.name === name) || await make('/v1/models', { name });
  const url = `${path('models', model.id)}/versions`;
  const there = (await list(url, 1000)).find(one => one.lineage.training_job_id === job.id && one.lineage.iteration === iteration);
  const { number } = there || await make(url, { training_job_id: job.id, iteration });
  return { model_id: model.id, version: number };
}

/** The classifier of a job's newest snapshot, or of the iteration: the one that is there, else a new one. */
export async function classifier(job, iteration, known) {
  const there = known.find(one => one.training_job_id === job.id && (iteration == null || one.iteration === iteration));
  return there || make('/v1/classifiers', { name: job.name, training_job_id: job.id, ...(iteration == null ? {} : { iteration }) });
}

/** Pictures to a classifier; the answer's results. */
export async function classify(id, files, urls, top = 5) {
  const form = new FormData();
  for (const file of files) form.append('files', file, file.name || 'picture');
  for (const url of urls) form.append('urls', url);
  return (await ask('POST', `${path('classifiers', id)}/classify?top=${top}`, form)).results;
}
