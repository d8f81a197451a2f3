-- What all API servers sign with.
create table @secrets (
    name text primary key,
    value text not null
);
