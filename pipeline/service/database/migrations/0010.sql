-- Bytes that a tenant keeps, as its rows of COUNTED tables (`wall.py`) say: counted by the database with each of them.
create table @usage (
    tenant_id text primary key references @tenants (id),
    bytes bigint not null
);
insert into @usage (tenant_id, bytes)
    select id, (select coalesce(sum(size), 0) from @datafiles where tenant_id = @tenants.id)
        + (select coalesce(sum(size), 0) from @snapshots where tenant_id = @tenants.id)
        + (select coalesce(sum(size), 0) from @chunks where tenant_id = @tenants.id)
    from @tenants;
