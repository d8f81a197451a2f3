-- What answers with a net: a snapshot of a job, a version of a model, or whichever version an alias names just now.
-- files: name -> key, size, SHA-256; facts: of its net; labels: of its classes; all three null where an alias says them.
create table @classifiers (
    tenant_id text not null references @tenants (id),
    id text not null,
    name text not null,
    job_id text,
    iteration bigint,
    model_id text,
    number bigint,
    alias text,
    labels text,
    given text not null default '{}',
    facts text,
    files text,
    created_at double precision not null,
    version bigint not null default 1,
    primary key (tenant_id, id),
    foreign key (tenant_id, job_id, iteration) references @snapshots (tenant_id, work_id, iteration),
    foreign key (tenant_id, model_id) references @models (tenant_id, id),
    foreign key (tenant_id, model_id, number) references @model_versions (tenant_id, model_id, number),
    check ((job_id is null) <> (model_id is null)),
    check (alias is not null or (labels is not null and facts is not null and files is not null))
);
create index classifiers_by_name on @classifiers (tenant_id, name, id);
