-- What answers with a net: a snapshot of a job, with its labels.  files: name -> key, size, SHA-256; facts: of its net.
create table @classifiers (
    tenant_id text not null references @tenants (id),
    id text not null,
    name text not null,
    job_id text not null,
    iteration bigint not null,
    labels text not null,
    given text not null default '{}',
    facts text not null,
    files text not null,
    created_at double precision not null,
    version bigint not null default 1,
    primary key (tenant_id, id),
    foreign key (tenant_id, job_id, iteration) references @snapshots (tenant_id, work_id, iteration)
);
create index classifiers_by_name on @classifiers (tenant_id, name, id);
