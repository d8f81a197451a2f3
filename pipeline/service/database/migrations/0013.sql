-- What is not over, and what was over lately, whatever else there is: counted by each POST and each GET of /v1/me, and
-- looked at by each open page.  finished_at is null until work is over.
create index work_open on @work (tenant_id, finished_at, state, slot);
create index work_waiting on @work (tenant_id, id) where state = 'waiting';
create index work_failed on @work (finished_at) where state = 'failed';
