-- Who may log in by a password.  hash: argon2id's own text; platform: what such a session may do beside.
create table @passwords (
    user_id text primary key references @users (id),
    hash text not null,
    platform bigint not null default 0,
    changed_at double precision not null
);
-- A browser that is logged in.  token_id: of the token that it came by, with which it ends; null: a password or a link.
create table @sessions (
    tenant_id text not null,
    id text not null,
    user_id text not null,
    digest text not null unique,
    token_id text,
    role text not null check (role in ('viewer', 'member', 'operator', 'admin')),
    platform bigint not null default 0,
    created_at double precision not null,
    used_at double precision not null,
    expires_at double precision not null,
    ends_at double precision not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, user_id) references @members (tenant_id, user_id)
);
create index sessions_of on @sessions (user_id);
-- What begins one session, once, without a password.
create table @links (
    digest text primary key,
    tenant_id text not null,
    user_id text not null,
    expires_at double precision not null,
    foreign key (tenant_id, user_id) references @members (tenant_id, user_id)
);
-- How far ahead of the clock the attempts of an account or an address are.
create table @throttles (
    name text primary key,
    until double precision not null
);
