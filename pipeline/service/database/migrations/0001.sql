-- @name: a bare table, which only the wall may touch.  Times are seconds since 1970 by the database's clock.
create table @tenants (
    id text primary key,
    name text not null unique,
    weight bigint not null default 1 check (weight > 0),
    running bigint not null check (running >= 0),
    quotas text not null default '{}',
    created_at double precision not null,
    version bigint not null default 1
);
create table @users (
    id text primary key,
    name text not null unique,
    created_at double precision not null
);
create table @members (
    tenant_id text not null references @tenants (id),
    user_id text not null references @users (id),
    role text not null check (role in ('viewer', 'member', 'operator', 'admin')),
    created_at double precision not null,
    version bigint not null default 1,
    primary key (tenant_id, user_id)
);
create table @tokens (
    tenant_id text not null,
    id text not null,
    user_id text not null,
    name text not null,
    digest text not null unique,
    role text not null check (role in ('viewer', 'member', 'operator', 'admin')),
    platform bigint not null default 0,
    created_at double precision not null,
    expires_at double precision,
    used_at double precision,
    primary key (tenant_id, id),
    foreign key (tenant_id, user_id) references @members (tenant_id, user_id)
);
create table @audit (
    tenant_id text not null,
    id text not null,
    at double precision not null,
    actor text not null,
    action text not null,
    object text not null,
    detail text not null default '',
    primary key (tenant_id, id)
);
create table @datafiles (
    tenant_id text not null references @tenants (id),
    id text not null,
    name text not null,
    size bigint not null,
    received bigint not null default 0,
    sha256 text,
    chunks text not null default '[]',
    created_at double precision not null,
    version bigint not null default 1,
    primary key (tenant_id, id)
);
create table @solvers (
    tenant_id text not null references @tenants (id),
    id text not null,
    name text not null,
    solver text not null,
    net text not null,
    price text not null default '{}',
    created_at double precision not null,
    version bigint not null default 1,
    primary key (tenant_id, id)
);
create table @work (
    tenant_id text not null references @tenants (id),
    id text not null,
    kind text not null,
    slot text not null,
    state text not null check (state in ('waiting', 'queued', 'running', 'succeeded', 'failed', 'cancelled')),
    reason text,
    detail text not null default '',
    priority bigint not null default 0,
    solver_id text,
    body text not null,
    progress text not null default '{}',
    result text,
    epoch bigint not null default 0,
    strikes bigint not null default 0,
    lost bigint not null default 0,
    worker_id text,
    lease_until double precision,
    spent double precision not null default 0,
    max_seconds double precision not null,
    created_at double precision not null,
    claimed_at double precision,
    started_at double precision,
    finished_at double precision,
    cancel_requested_at double precision,
    version bigint not null default 1,
    primary key (tenant_id, id),
    foreign key (tenant_id, solver_id) references @solvers (tenant_id, id),
    check (state <> 'running' or (worker_id is not null and lease_until is not null))
);
create index work_queued on @work (slot, tenant_id, priority desc, created_at, id) where state = 'queued';
create index work_running on @work (slot, lease_until) where state = 'running';
create index work_of_kind on @work (tenant_id, kind, id);
create table @inputs (
    tenant_id text not null,
    work_id text not null,
    name text not null,
    datafile_id text not null,
    primary key (tenant_id, work_id, name),
    foreign key (tenant_id, work_id) references @work (tenant_id, id),
    foreign key (tenant_id, datafile_id) references @datafiles (tenant_id, id)
);
create table @chunks (
    tenant_id text not null,
    work_id text not null,
    kind text not null check (kind in ('metrics', 'log')),
    number bigint not null,
    epoch bigint not null,
    first bigint not null,
    last bigint not null,
    size bigint not null,
    key text not null,
    created_at double precision not null,
    primary key (tenant_id, work_id, kind, number),
    foreign key (tenant_id, work_id) references @work (tenant_id, id)
);
create table @snapshots (
    tenant_id text not null,
    work_id text not null,
    iteration bigint not null,
    epoch bigint not null,
    files text not null,
    size bigint not null,
    created_at double precision not null,
    primary key (tenant_id, work_id, iteration),
    foreign key (tenant_id, work_id) references @work (tenant_id, id)
);
create table @turns (
    tenant_id text not null references @tenants (id),
    slot text not null,
    served_at double precision not null,
    primary key (tenant_id, slot)
);
create table @workers (
    id text primary key,
    host text not null,
    slot text not null,
    state text not null check (state in ('active', 'retired')),
    started_at double precision not null,
    beat_at double precision not null
);
create table @answers (
    tenant_id text not null,
    key text not null,
    digest text not null,
    status bigint,
    headers text,
    body text,
    created_at double precision not null,
    primary key (tenant_id, key)
);
