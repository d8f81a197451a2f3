-- A dataset is what its work made of a datafile: the files are that work's snapshot.
create table @datasets (
    tenant_id text not null,
    id text not null,
    name text not null,
    datafile_id text not null,
    extends_id text,
    created_at double precision not null,
    primary key (tenant_id, id),
    foreign key (tenant_id, id) references @work (tenant_id, id),
    foreign key (tenant_id, datafile_id) references @datafiles (tenant_id, id),
    foreign key (tenant_id, extends_id) references @datasets (tenant_id, id)
);
-- What a solver's texts were rebuilt to.  dataset_id: null where a job brings its inputs.
create table @judgements (
    tenant_id text not null,
    solver_id text not null,
    dataset_id text,
    solver text not null,
    net text not null,
    price text not null,
    warnings text not null,
    inputs text not null,
    primary key (tenant_id, solver_id),
    foreign key (tenant_id, solver_id) references @solvers (tenant_id, id),
    foreign key (tenant_id, dataset_id) references @datasets (tenant_id, id)
);
