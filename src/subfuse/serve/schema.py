"""What the HTTP interface answers; the OpenAPI schema is made from these."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Part of an answer: fields do not change once it is made. Unknown numbers are null, never zero."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """Why a request was refused."""

    detail: str


class TaskInfo(Answer):
    """A task of the run and the models that predict it."""

    name: str
    kind: Literal["survival", "classification", "regression"]
    classes: list[str]
    models: list[str]
    splits: list[str]


class RunInfo(Answer):
    """What the page needs to know before it shows a patient."""

    cohort: str
    n_patients: int
    version: str
    notice: str
    tasks: list[TaskInfo]
    explained_model: str = Field(description="The model that explanations are made of.")
    upload_limit_bytes: int


class Outcome(Answer):
    """What happened to a patient, as far as it is known."""

    time_days: float | None
    event: bool | None = Field(description="True: the event was observed. False: right-censored.")
    label: str | None
    value: float | None = Field(description="The number that was measured, of a task of regression.")


class PatientSummary(Answer):
    """One row of the patient list: one task and one model, the mean where several models predicted the patient."""

    patient_id: str
    split: str
    n_predictions: int = Field(description="Models that predicted the patient: one for a held-out patient.")
    outcome: Outcome
    risk: float | None = Field(description="Higher is worse; comparable within one model only.")
    risk_percentile: float | None = Field(description="Share of the model's training patients with a lower risk.")
    probabilities: dict[str, float]
    predicted_class: str | None
    predicted_value: float | None = Field(description="In the unit of what was measured.")
    has_slides: bool
    has_expression: bool
    explained: bool


class SurvivalPoint(Answer):
    """Predicted probability of being free of the event at a time."""

    days: float
    probability: float
    recalibrated: float | None = Field(description="By validation patients of the model; null where these are few.")


class Prediction(Answer):
    """One row of `predictions.csv`."""

    task: str
    model: str
    repeat: int
    fold: int
    split: str
    outcome: Outcome
    risk: float | None
    risk_percentile: float | None
    survival: list[SurvivalPoint]
    probabilities: dict[str, float]
    recalibrated: dict[str, float] = Field(
        description="Probabilities by validation patients of the model; none where these are few."
    )
    predicted_class: str | None
    predicted_value: float | None = Field(description="In the unit of what was measured.")
    contributions: dict[str, float]
    has_slides: bool
    has_expression: bool


class SlideInfo(Answer):
    """A slide and its tile pyramid: level 0 is one pixel, each further level twice as wide and high."""

    slide_id: str
    patient_id: str
    width_px: int
    height_px: int
    mpp: float
    patch_size_px: int
    tile_px: int
    levels: int
    available: bool = Field(description="False: only the picture of the whole slide can be shown.")
    reason: str | None
    picture: Literal["slide", "places", "none"] = Field(
        description="What thumbnail.jpg shows: the slide, the places of its patches, or nothing as these are unknown."
    )


class PatientDetail(Answer):
    """One patient with the predictions of every task and model."""

    patient_id: str
    cohort: str
    site: str | None
    labels: dict[str, str]
    slides: list[str]
    has_expression: bool
    upload_unit: str | None = Field(description="Unit that an uploaded expression file must be in; null: no upload.")
    predictions: list[Prediction]
    explained_tasks: list[str]


class LedgerRow(Answer):
    """What one modality adds to the explained score through one subspace; the rows of a ledger add up to it."""

    subspace: str
    modality: str
    contribution: float


class GeneRow(Answer):
    """What one gene adds to the explained score through one subspace."""

    gene: str
    subspace: str
    contribution: float


class ExplanationInfo(Answer):
    """One explained prediction."""

    patient_id: str
    task: str
    model: str
    fold: int
    score: float
    score_name: str = Field(description="What is explained: `the hazard`, or `the score of` a class.")
    ledger: list[LedgerRow]
    gap: dict[str, float] = Field(description="Completeness gap of the attributions, per subspace.")
    genes: list[GeneRow] = Field(description="The strongest genes of every subspace.")
    n_genes: int
    slides: list[str]


class PatchScores(Answer):
    """Scores of the patches of one slide, column by column, and where the model looked."""

    slide_id: str
    patch_size_px: int
    x: list[int] = Field(description="Left edges in level-0 pixels.")
    y: list[int] = Field(description="Top edges in level-0 pixels.")
    scores: dict[str, list[float]] = Field(description="Per subspace, and `total`: their sum.")
    limits: dict[str, float] = Field(description="Absolute score with full colour; the subspaces share one.")
    points: dict[str, list[list[float]]] = Field(
        description="Sampling points (x, y) in level-0 pixels per subspace: a description, not an attribution."
    )


class Job(Answer):
    """An explanation in the making."""

    job_id: str
    patient_id: str
    state: Literal["running", "done", "failed"]
    done: int
    total: int
    error: str | None


class NewPrediction(Answer):
    """Predictions with an uploaded expression file beside those before."""

    patient_id: str
    unit: str
    transform: str
    warnings: list[str] = Field(description="Why that unit is doubtful.")
    n_genes_used: int
    n_genes_ignored: int
    before: list[Prediction]
    after: list[Prediction]
