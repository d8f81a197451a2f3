-- A model's name; its versions are numbered from 1, and no number is given twice.
create table @models (
    tenant_id text not null references @tenants (id),
    id text not null,
    name text not null,
    numbered bigint not null default 0,
    created_at double precision not null,
    version bigint not null default 1,
    primary key (tenant_id, id),
    unique (tenant_id, name)
);
-- A version is a snapshot of a training job, which stays for as long.  files: name, key, size and SHA-256 of each.
create table @model_versions (
    tenant_id text not null,
    model_id text not null,
    number bigint not null,
    work_id text not null,
    iteration bigint not null,
    files text not null,
    labels text,
    figures text not null default '{}',
    note text not null default '',
    created_by text not null,
    created_at double precision not null,
    primary key (tenant_id, model_id, number),
    foreign key (tenant_id, model_id) references @models (tenant_id, id),
    foreign key (tenant_id, work_id, iteration) references @snapshots (tenant_id, work_id, iteration)
);
create table @model_aliases (
    tenant_id text not null,
    model_id text not null,
    alias text not null,
    number bigint not null,
    version bigint not null default 1,
    primary key (tenant_id, model_id, alias),
    foreign key (tenant_id, model_id, number) references @model_versions (tenant_id, model_id, number)
);
-- Written once: what happened to a model, by whom.  before: the number that an alias named until then.
create table @model_history (
    tenant_id text not null,
    id text not null,
    model_id text not null,
    at double precision not null,
    actor text not null,
    action text not null,
    number bigint,
    alias text,
    before bigint,
    primary key (tenant_id, id),
    foreign key (tenant_id, model_id) references @models (tenant_id, id)
);
create index model_history_of on @model_history (tenant_id, model_id, id);
