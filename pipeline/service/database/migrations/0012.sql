-- Figures that only grow, by the kind of worker: `claims`, which the database counts (`wall.py`), and how good what was
-- told of a training's end has been.
create table @tallies (
    slot text not null,
    name text not null,
    value double precision not null,
    primary key (slot, name)
);
