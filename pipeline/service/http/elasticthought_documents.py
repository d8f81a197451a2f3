"""ElasticThought's documents, in its own spelling: what its requests bring, and what it answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field

from pipeline.service.auth import passwords
from pipeline.service.http.classifying import URL_LETTERS, Classified
from pipeline.service.http.documents import Given, ShortName, id_in_body
from pipeline.service.ids import Kind

_NAMED = ConfigDict(alias_generator=AliasGenerator(alias=lambda name: name.replace("_", "-")))
Url = Annotated[str, Field(min_length=1, max_length=URL_LETTERS)]
Ignored = Annotated[str | float | bool | None, Field(description="Not looked at: the job's data layer says it")]


class Kebab(Given):
    """A body of a request, in ElasticThought's spelling."""

    model_config = _NAMED


class KebabTold(BaseModel):
    """A body of an answer.  `_id` as its code answered, `id` as its document says."""

    model_config = ConfigDict(frozen=True, **_NAMED)


class ElasticUser(Kebab):
    username: ShortName
    email: Annotated[str, Field(max_length=320, description="Not kept")]
    password: Annotated[str, Field(max_length=passwords.MOST, description="argon2id of it is kept; empty: none is")]


class ElasticUserMade(KebabTold):
    id: str
    username: str
    token: Annotated[str, Field(description="Stands for the password in Basic auth; it is shown this once")]


class LayersDataParam(Given):
    backend: Annotated[str | None, Field(max_length=40)] = None


class ElasticDatafile(Given):
    url: Annotated[Url, Field(description="Of a tar, tar.gz or zip, at a public address")]
    layers_type: Annotated[str | None, Field(max_length=40, description="Not looked at: the solver's net says it")] = (
        None
    )
    layers_data_param: Annotated[LayersDataParam | None, Field(description="Not looked at")] = None


class ElasticSide(Kebab):
    datafile_id: Annotated[str, id_in_body(Kind.DATAFILE)]
    split_percentage: Annotated[float, Field(ge=0, le=100)] = 0.0


class ElasticDataset(Kebab):
    """The document says `testing`, the code bound `test`: one of them."""

    training: ElasticSide
    testing: ElasticSide | None = None
    test: ElasticSide | None = None


class ElasticSolver(Kebab):
    dataset_id: Annotated[str, id_in_body(Kind.DATASET)]
    specification_url: Url
    specification_net_url: Url


class ElasticTraining(Kebab):
    """`solver-id`; an older document says `solver`."""

    solver_id: Annotated[str | None, id_in_body(Kind.SOLVER)] = None
    solver: Annotated[str | None, id_in_body(Kind.SOLVER)] = None


class ElasticClassifier(Kebab):
    """Net, size, mean and scale are those of the job, whatever is said of them here."""

    training_job_id: Annotated[str, id_in_body(Kind.TRAINING_JOB)]
    specification_url: Annotated[str, Field(max_length=URL_LETTERS, description="Not fetched: the job has its net")]
    scale: Ignored = None
    image_width: Ignored = None
    image_height: Ignored = None
    color: Ignored = None
    gpu: Ignored = None


class ElasticMade(KebabTold):
    id: str
    own_id: Annotated[str, Field(alias="_id")]
    processing_state: str


class ElasticShare(KebabTold):
    split_percentage: float


class ElasticDatasetMade(ElasticMade):
    datafile_id: str
    training: ElasticShare
    testing: ElasticShare
    test: ElasticShare


class ElasticStatus(KebabTold):
    """`state` is the document's word (`running`), `processing-state` the code's (`processing`)."""

    id: str
    state: str
    processing_state: str
    processing_log: Annotated[str, Field(description="Why it failed")]
    loss: float | None
    last_iteration: int
    max_iterations: int | None
    logs: str


class ElasticClassified(ElasticMade):
    """`id` names this answer, under which nothing is kept; `results` has a label by URL or name."""

    results: dict[str, str]
    pictures: Annotated[list[Classified], Field(description="All that is known: files in their order, then URLs")]
