-- epoch: of the request that uploads now; whoever uploaded before adds nothing more.
alter table @datafiles add column epoch bigint not null default 0;
