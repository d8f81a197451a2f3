-- Work that waits, and the work whose success it waits for: a row goes when it waits no more.
create table @needs (
    tenant_id text not null,
    work_id text not null,
    on_id text not null,
    primary key (tenant_id, work_id, on_id),
    foreign key (tenant_id, work_id) references @work (tenant_id, id),
    foreign key (tenant_id, on_id) references @work (tenant_id, id)
);
create index needs_on on @needs (tenant_id, on_id);
create index inputs_of_datafile on @inputs (tenant_id, datafile_id);
-- A training that goes on where another one was; iteration: of the other's snapshot, null for its newest one.
create table @resumed (
    tenant_id text not null,
    work_id text not null,
    origin_id text not null,
    iteration bigint,
    primary key (tenant_id, work_id),
    foreign key (tenant_id, work_id) references @work (tenant_id, id),
    foreign key (tenant_id, origin_id) references @work (tenant_id, id),
    foreign key (tenant_id, origin_id, iteration) references @snapshots (tenant_id, work_id, iteration)
);
create index resumed_of on @resumed (tenant_id, origin_id);
