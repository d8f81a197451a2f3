-- What a tenant asked within the last minute, and its jobs of one state, however many are over.
create index work_submitted on @work (tenant_id, created_at);
create index work_of_state on @work (tenant_id, kind, state, id);
-- Answers that are a day old are forgotten by each request; (select instant()) is asked once, and an index is used.
create index answers_by_age on @answers (tenant_id, created_at);
