"""The wall between tenants, as the database holds it: which part may do what to which table, and to whose rows.

One table for both databases.  PostgreSQL has roles with row level security from it; SQLite views, triggers on them and
an authorizer.  What is not named here is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.service.words import Part

ALL = ("select", "insert", "update", "delete")
READ = ("select",)
GROW = ("select", "insert")
"""Of what is never changed."""
SHRINK = ("select", "delete")
TENANT = "tenant_id"


@dataclass(frozen=True, slots=True)
class Door:
    """What one part may do to a table.  column: which has to be the tenant of the transaction; "" sees every row."""

    verbs: tuple[str, ...]
    column: str = ""


DOORS: dict[str, dict[Part, Door]] = {
    "tenants": {
        Part.TENANT: Door(READ, "id"), Part.WORKER: Door(READ), Part.PLATFORM: Door(("select", "insert", "update")),
    },
    "users": {Part.PLATFORM: Door(GROW)},
    "members": {Part.TENANT: Door(("select", "update", "delete"), TENANT), Part.PLATFORM: Door(GROW)},
    "tokens": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.PLATFORM: Door(ALL)},
    "sessions": {Part.TENANT: Door(SHRINK, TENANT), Part.PLATFORM: Door(ALL)},
    "passwords": {Part.PLATFORM: Door(("select", "insert", "update"))},
    "links": {Part.TENANT: Door(SHRINK, TENANT), Part.PLATFORM: Door(("select", "insert", "delete"))},
    "throttles": {Part.PLATFORM: Door(ALL)},
    "audit": {Part.TENANT: Door(GROW, TENANT), Part.PLATFORM: Door(GROW)},
    "datafiles": {Part.TENANT: Door(ALL, TENANT), Part.WORKER: Door(READ)},
    "solvers": {Part.TENANT: Door(ALL, TENANT), Part.WORKER: Door(READ)},
    "work": {Part.TENANT: Door(ALL, TENANT), Part.WORKER: Door(("select", "update"))},
    "inputs": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.WORKER: Door(READ)},
    "needs": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.WORKER: Door(SHRINK)},
    "resumed": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.WORKER: Door(READ)},
    "chunks": {Part.TENANT: Door(SHRINK, TENANT), Part.WORKER: Door(GROW)},
    "summaries": {Part.TENANT: Door(SHRINK, TENANT), Part.WORKER: Door(GROW)},
    "snapshots": {Part.TENANT: Door(SHRINK, TENANT), Part.WORKER: Door(GROW)},
    "datasets": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.WORKER: Door(READ)},
    "judgements": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.WORKER: Door(READ)},
    "models": {Part.TENANT: Door(("select", "insert", "update"), TENANT), Part.WORKER: Door(READ)},
    "model_versions": {Part.TENANT: Door(("select", "insert", "delete"), TENANT), Part.WORKER: Door(READ)},
    "model_aliases": {Part.TENANT: Door(ALL, TENANT), Part.WORKER: Door(READ)},
    "model_history": {Part.TENANT: Door(GROW, TENANT)},
    "classifiers": {Part.TENANT: Door(ALL, TENANT), Part.WORKER: Door(READ)},
    "turns": {Part.WORKER: Door(("select", "insert", "update"))},
    "workers": {Part.WORKER: Door(ALL), Part.PLATFORM: Door(READ)},
    "answers": {Part.TENANT: Door(ALL, TENANT)},
    "secrets": {Part.PLATFORM: Door(GROW)},
    "usage": {Part.TENANT: Door(READ, TENANT), Part.WORKER: Door(READ)},
    "tallies": {Part.WORKER: Door(("select", "insert", "update"))},
}  # fmt: skip
"""By table and part."""

COUNTED = ("datafiles", "snapshots", "chunks")
"""Tables whose rows have a `size`, which `usage` holds the sum of by tenant: no row comes or goes without it."""
BARE = "bare_"
"""How SQLite's tables begin; the views have the names."""


def postgres() -> Iterator[str]:
    """The statements that build it, anew each time, after the tables are there."""
    for part in Part:
        yield f"""do $$ begin
            if not exists (select from pg_roles where rolname = '{part}') then create role {part} nologin; end if;
            execute format('grant {part} to %I', current_user);
            execute format('grant usage on schema %I to {part}', current_schema());
        end $$"""
    for table, doors in DOORS.items():
        yield f"alter table {table} enable row level security"
        yield f"alter table {table} force row level security"
        for part in Part:
            yield f"revoke all on {table} from {part}"
            yield f"drop policy if exists {part}_of_{table} on {table}"
            if part in doors:
                door = doors[part]
                mine = f"({door.column} = current_setting('hathi.tenant', true))" if door.column else "(true)"
                yield f"grant {', '.join(door.verbs)} on {table} to {part}"
                yield f"create policy {part}_of_{table} on {table} to {part} using {mine} with check {mine}"
    for table in ("usage", "tallies"):  # to which the owner's functions add
        yield f"drop policy if exists owner_of_{table} on {table}"
        yield f"""do $$ begin
            execute format('create policy owner_of_{table} on {table} to %I using (true) with check (true)',
                           current_user);
        end $$"""
    yield """create or replace function claimed() returns trigger language plpgsql security definer
        set search_path from current as $$ begin
            insert into tallies (slot, name, value) values (new.slot, 'claims', 1)
                on conflict (slot, name) do update set value = tallies.value + 1;
            return null;
        end $$"""
    yield """create or replace trigger claimed_work after update of epoch on work
        for each row when (new.epoch > old.epoch) execute function claimed()"""
    yield """create or replace function counted() returns trigger language plpgsql security definer
        set search_path from current as $$ begin
            insert into usage (tenant_id, bytes)
                select tenant_id, (case tg_op when 'INSERT' then 1 else -1 end) * sum(size)::bigint
                from changed group by tenant_id
                on conflict (tenant_id) do update set bytes = usage.bytes + excluded.bytes;
            return null;
        end $$"""
    for table in COUNTED:
        for verb, rows in (("insert", "new"), ("delete", "old")):
            yield f"""create or replace trigger counted_{verb} after {verb} on {table}
                referencing {rows} table as changed for each statement execute function counted()"""


def counting() -> dict[str, str]:
    """By name the triggers of SQLite's bare tables, which stand in the file."""
    found = {
        "claimed_work": f"""create trigger if not exists claimed_work after update of epoch on {BARE}work
        when new.epoch > old.epoch begin
        insert into {BARE}tallies (slot, name, value) values (new.slot, 'claims', 1)
        on conflict (slot, name) do update set value = value + 1; end"""
    }
    for table in COUNTED:
        for verb, row, sign in (("insert", "new", ""), ("delete", "old", "-")):
            name = f"counted_{verb}_of_{table}"
            found[name] = f"""create trigger if not exists {name} after {verb} on {BARE}{table} begin
                insert into {BARE}usage (tenant_id, bytes) values ({row}.tenant_id, {sign}{row}.size)
                on conflict (tenant_id) do update set bytes = bytes + excluded.bytes; end"""
    return found


def sqlite(part: Part, columns: dict[str, dict[str, str | None]], keys: dict[str, list[str]]) -> Iterator[str]:
    """The statements that build it within one connection.

    columns, keys: of each bare table, by the view's name; a column with its default, which a view does not know.
    """
    for table, doors in DOORS.items():
        if part not in doors:
            continue
        door, bare = doors[part], f"{BARE}{table}"
        rows = f"where {door.column} = tenant()" if door.column else ""
        yield f"create temp view {table} as select * from main.{bare} {rows}"
        names, key = columns[table], " and ".join(f"{name} = old.{name}" for name in keys[table])
        foreign = f"new.{door.column} is not tenant()" if door.column else "0"
        refuse = f"select raise(abort, 'another tenant''s row') where {foreign};"
        taken = ", ".join(f"coalesce(new.{name}, {usual})" if usual else f"new.{name}" for name, usual in names.items())
        changes = {
            "insert": f"insert into {bare} ({', '.join(names)}) values ({taken})",
            "update": f"update {bare} set {', '.join(f'{name} = new.{name}' for name in names)} where {key}",
            "delete": f"delete from {bare} where {key}",
        }
        for verb, change in changes.items():
            if verb in door.verbs:
                before = refuse if verb != "delete" else ""
                yield f"create temp trigger {verb}_of_{table} instead of {verb} on {table} begin {before} {change}; end"
