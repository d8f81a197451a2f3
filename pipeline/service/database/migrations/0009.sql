-- The points of a job's metrics, thinned: of the chunks from `since` to `number`, which are of one attempt.
create table @summaries (
    tenant_id text not null,
    work_id text not null,
    level bigint not null check (level >= 0),
    number bigint not null,
    epoch bigint not null,
    since bigint not null,
    first bigint not null,
    last bigint not null,
    size bigint not null,
    body text not null,
    primary key (tenant_id, work_id, level, number),
    foreign key (tenant_id, work_id) references @work (tenant_id, id)
);
